"""`gluon-ft train`, from a folder of photos to a reported network, and `gluon-ft find-lr`, a learning rate for it."""
from __future__ import annotations

from pathlib import Path

import click

from gluon_ft.cli import console

# Headings of --help.
GROUPS = {
    "The run": ("config", "run", "runs", "resume", "seed", "as_json"),
    "Photos": ("train", "val", "validation", "cross_validate", "root", "exclude", "exclude_files", "labels_from",
               "classes_are_folders", "allow_empty_classes", "audit"),
    "Network and strategy": ("backbone", "pretrained", "strategy", "freeze", "size", "mirror", "dropout"),
    "Training": ("epochs", "batch_size", "optimizer", "lr", "head_lr_mult", "layer_decay", "momentum", "wd",
                 "decay_bias_and_norm", "schedule", "warmup", "lr_factor", "lr_every", "milestones", "batchnorm",
                 "head_epochs", "unfreeze", "patience", "stop_within_schedule", "clip_norm", "accumulate", "ema"),
    "Images and labels in training": ("augment", "views", "mixup", "cutmix", "label_smoothing", "balance", "top_k"),
    "The machine": ("devices", "workers", "engine", "precision", "kvstore", "cache_features", "save_every",
                    "save_minutes", "keep"),
}


@click.command("train", cls=console.Command, groups=GROUPS)
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
    gluon-ft train photos/ --cross-validate 5
    gluon-ft launch -n 2 -- train photos/ --run runs/first
    """
    from gluon_ft import finetune

    data, assignments = console.photos_and_assignments(photos)
    done = finetune.train(data, run=run, runs=runs, resume=resume, config=config, assignments=assignments,
                          say=console.say, **options)
    if done is None:
        return  # worker 0 of `gluon-ft launch` says it all
    for row in done.result["rows"]:
        console.say(_summary(row, done.result))
    if done.settings.cross_validate is not None:
        console.say(f"predictions out of fold: {done.folder / 'out_of_fold.csv'}")
    console.say(f"model: {done.folder / 'best.params'}")
    console.say(f"report: {done.report}")
    console.emit({"command": "train", "run": done.folder, "report": done.report, **done.result}, as_json)


def _summary(row, result):
    parts = [f"{part} accuracy {row[f'{part}_accuracy']:.3f}" for part in ("train", "validation")
             if row[f"{part}_accuracy"] is not None]
    best = result.get("best_validation_accuracy")
    at = f" (best {best:.3f} after epoch {result.get('best_epoch')})" if best is not None else ""
    return f"{row['name']}: {', '.join(parts)}{at}, {row['seconds']:.1f} s"


@click.command("find-lr", cls=console.Command, groups={
    "The search": ("config", "lowest", "highest", "steps", "out", "seed", "as_json"), **GROUPS})
@click.argument("photos", nargs=-1, metavar="[PHOTOS] [KEY=VALUE]...")
@click.option("--config", type=click.Path(), help="A .toml or .json file of settings, such as a run's config.json.")
@click.option("--lowest", default=1e-6, help="First learning rate.")
@click.option("--highest", default=10.0, help="Last learning rate, unless the loss breaks off before.")
@click.option("--steps", default=100, type=click.IntRange(20, 100_000), help="Steps from the one to the other.")
@click.option("--out", type=click.Path(), default="find-lr.png", help="The picture: loss against learning rate.")
@console.setting_options(without=["lr", "cross_validate"])
@console.json_option
def find_lr(photos, config, lowest, highest, steps, out, as_json, **options):
    """Train for a few steps at ever higher learning rates, draw the loss against the rate, and suggest a rate.

    What is measured is the job that `gluon-ft train` runs with the same PHOTOS and settings and a rate of its own: the
    same training images, network, frozen layers and cached features.

    \b
    gluon-ft find-lr photos/ --backbone resnet18_v1b --pretrained gluon_in1k --freeze 3 --out lr.png
    gluon-ft find-lr --config runs/first/config.json --highest 1
    """
    from gluon_ft import finetune
    from gluon_ft.errors import DataError
    from gluon_ft.io import atomic
    from gluon_ft.reporting.rate_plots import rate_plot

    if not Path(out).absolute().parent.is_dir():
        raise DataError("folder does not exist", path=Path(out).parent, remedy="create it, or choose another --out")
    atomic.check_writable(out)
    data, assignments = console.photos_and_assignments(photos)
    found, job = finetune.find_lr(data, lowest=lowest, highest=highest, steps=steps, config=config,
                                  assignments=assignments, say=lambda line: console.say(line, err=True), **options)
    rate_plot(found, out, f"{job.backbone}, {job.optimizer}, batch size {job.batch_size}")
    if found.stopped:
        console.say(f"stopped: {found.stopped}")
    console.say(f"no suggestion: {found.reason}" if found.suggestion is None else
                f"suggestion: lr={found.suggestion:g} ({found.reason})")
    console.say(f"{out}: {len(found.rates)} steps from {found.rates[0]:.1e} to {found.rates[-1]:.1e}")
    console.emit({"command": "find-lr", "backbone": job.backbone, "pretrained": job.pretrained,
                  "batch_size": job.batch_size, "optimizer": job.optimizer, "freeze": job.freeze,
                  "head_lr_mult": job.head_lr_mult, "plot": out, **found.to_dict()}, as_json)
