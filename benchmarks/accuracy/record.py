"""Runs a recipe and appends its accuracies to benchmarks/results/<recipe>.csv: median, min and max over its seeds.

    python benchmarks/accuracy/record.py odd_or_even 'bundled digits' --seeds 5
    python benchmarks/accuracy/record.py odd_or_even 'MNIST test set' --seeds 5 --data ../shared/data/mnist
    GLUON_FT_WEIGHTS=../shared/data/weights python benchmarks/accuracy/record.py hot_dog 'shared photos' --seeds 5 \\
        --data ../shared/data/hotdog --pretrained mobilenetv2_1.0:coral_rot180 --batch-size 16 --lr 0.001
    python benchmarks/accuracy/record.py hot_dog 'shared photos' --from runs/hot_dog-20261121-001852  # a finished run

Of each network training and validation accuracy after the last epoch. Of hot_dog, which is run with everything that it
compares (about five minutes a seed on two cores with MobileNetV2), also for each epoch by how much the fine-tuned
network is ahead of the one from scratch; status 1 where it is not ahead in every seed at every epoch from the second
on. What follows the options named here is the recipe's.
"""
from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the project's folder

import click

from benchmarks import runner
from gluon_ft.cli import console
from gluon_ft.errors import DataError
from gluon_ft.reporting import read_metrics

COMPARED = "hot_dog"
FIRST = 2  # the first epoch that the comparison is about


@console.command(text=__doc__, context_settings={"ignore_unknown_options": True, "show_default": True})
@click.argument("recipe")
@click.argument("data")
@click.option("--from", "finished", type=click.Path(exists=True, path_type=Path), help="Record this run's folder.")
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def main(recipe, data, finished, options, as_json):
    folder = finished or run(recipe, [*(["--compare"] if recipe == COMPARED else []), *options])
    measured = json.loads((folder / "result.json").read_text(encoding="utf-8"))["rows"]
    leads: dict[int, list[float]] = {}
    settings = f"{data}; {' '.join(options)}"
    if recipe == COMPARED:
        shown = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        settings = "; ".join([data, shown["weights"], *(
            f"{key} {shown[key]:g}" for key in ("epochs", "lr", "scratch_lr", "lr_mult", "batch_size"))])
        leads = lead_by_epoch(read_metrics(folder / "metrics.jsonl"))
    rows = [runner.row(recipe, settings, f"{name}, {part} accuracy", "fraction",
                       [row[f"{part}_accuracy"] for row in measured if row["name"] == name])
            for name in dict.fromkeys(row["name"] for row in measured) for part in ("train", "validation")]
    rows += [runner.row(recipe, settings, f"fine-tuned minus scratch, epoch {epoch}, validation accuracy", "fraction",
                        values) for epoch, values in leads.items()]
    print(runner.show(rows))
    print(f"appended to {runner.append(rows, recipe)}")
    behind = [epoch for epoch, values in leads.items() if epoch >= FIRST and min(values) <= 0]
    if behind:
        print(f"fine-tuned is not ahead of scratch in every seed at epochs {', '.join(map(str, behind))}",
              file=sys.stderr)
    console.emit({"benchmark": recipe, "rows": rows}, as_json)
    return int(bool(behind))


def run(recipe, options) -> Path:
    """Runs the recipe; its run folder."""
    script = runner.ROOT / "recipes" / f"{recipe}.py"
    done = subprocess.run([sys.executable, str(script), *options, "--json"], stdout=subprocess.PIPE, text=True,
                          check=False)
    if done.returncode:
        sys.exit(done.returncode)
    return Path(json.loads(done.stdout.splitlines()[-1])["run"])


def lead_by_epoch(records: list[dict]) -> dict[int, list[float]]:
    """Epoch -> validation accuracy of 'fine-tuned' minus that of 'scratch', one number a seed.

    Raises DataError where a seed has one of the two only, or another number of epochs.
    """
    found = {name: {(r["epoch"], r["seed"]): r["validation_accuracy"] for r in records if r["series"] == name}
             for name in ("fine-tuned", "scratch")}
    tuned, scratch = found.values()
    if not tuned or set(tuned) != set(scratch):
        raise DataError("the two networks' records differ", expected="the same epochs and seeds of both",
                        found=f"{len(tuned)} of fine-tuned, {len(scratch)} of scratch")
    leads: dict[int, list[float]] = {}
    for epoch, seed in sorted(tuned):
        leads.setdefault(epoch, []).append(tuned[epoch, seed] - scratch[epoch, seed])
    return leads


if __name__ == "__main__":
    main()
