"""`gluon-ft train`: from a folder of photos to a fine-tuned, evaluated, saved and reported network."""
from __future__ import annotations

import click

from gluon_ft.cli import console


@click.command("train", cls=console.Command)
@click.argument("photos", nargs=-1, metavar="[PHOTOS] [KEY=VALUE]...")
@click.option("--config", type=click.Path(), help="A .toml or .json file of settings, such as a run's config.json.")
@click.option("--run", type=click.Path(), help="Folder of this run; default a new one in --runs.")
@click.option("--runs", default="runs", type=click.Path(), help="Folder for the run folders.")
@click.option("--resume", is_flag=True, help="Go on with the unfinished run in --run; begin it where there is none.")
@console.setting_options()
@console.json_option
def train(photos, config, run, runs, resume, as_json, **options):
    """Fine-tune a network on PHOTOS: a folder with one subfolder a class, or with train/ and val/ of that form.

    Looks for copies and bad files, splits, chooses network and strategy and says why, trains, evaluates, and writes a
    run folder with the model, its settings and a report. What is given is not chosen: --config is weaker than
    KEY=VALUE, and that is weaker than an option.

    \b
    gluon-ft train photos/
    gluon-ft train photos/ --backbone resnet18_v1b --freeze features --epochs 10 --run runs/first
    gluon-ft train --config runs/first/config.json lr=0.001 --seed 1
    gluon-ft train --run runs/first --resume
    """
    from gluon_ft import finetune

    data, assignments = console.photos_and_assignments(photos)
    done = finetune.train(data, run=run, runs=runs, resume=resume, config=config, assignments=assignments,
                          say=click.echo, **options)
    for row in done.result["rows"]:
        click.echo(_summary(row, done.result))
    click.echo(f"model: {done.folder / 'best.params'}")
    click.echo(f"report: {done.report}")
    console.emit({"command": "train", "run": done.folder, "report": done.report, **done.result}, as_json)


def _summary(row, result):
    parts = [f"{part} accuracy {row[f'{part}_accuracy']:.3f}" for part in ("train", "validation")
             if row[f"{part}_accuracy"] is not None]
    best = result.get("best_validation_accuracy")
    at = f" (best {best:.3f} after epoch {result['best_epoch']})" if best is not None else ""
    return f"{row['name']}: {', '.join(parts)}{at}, {row['seconds']:.1f} s"
