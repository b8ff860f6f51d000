"""Runs the hot dog recipe with everything that it compares and appends to benchmarks/results/hot_dog.csv.

    GLUON_FT_WEIGHTS=../shared/data/weights python benchmarks/record_hot_dog.py 'shared photos' --seeds 5 \\
        --data ../shared/data/hotdog --pretrained mobilenetv2_1.0:coral_rot180 --batch-size 16 --lr 0.001
    python benchmarks/record_hot_dog.py 'shared photos' --from runs/hot_dog-20261121-001852     # of a finished run

For each network training and validation accuracy after the last epoch, and for each epoch by how much the fine-tuned
network is ahead of the one from scratch, as median, min and max over the seeds. Ends with status 1 where it is not
ahead in every seed at every epoch from the second on. About five minutes a seed on two cores with MobileNetV2.
"""
from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import recording

from gluon_ft.cli import console
from gluon_ft.errors import DataError
from gluon_ft.reporting import read_metrics

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "hot_dog.py"
FIRST = 2  # the first epoch that the comparison is about


@click.command(cls=console.Command, context_settings={"ignore_unknown_options": True})
@click.argument("data")
@click.option("--from", "finished", type=click.Path(exists=True, path_type=Path), help="Record this run's folder.")
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def main(data, finished, options):
    """Run the recipe with --compare and OPTIONS, and record what it measures on DATA."""
    folder = finished or run(options)
    shown = json.loads((folder / "config.json").read_text())
    settings = "; ".join([data, shown["weights"], *(
        f"{key} {shown[key]:g}" for key in ("epochs", "lr", "scratch_lr", "lr_mult", "batch_size"))])
    measured = json.loads((folder / "result.json").read_text())["rows"]
    leads = lead_by_epoch(read_metrics(folder / "metrics.jsonl"))
    rows = [recording.row("hot_dog", settings, f"{name}, {part} accuracy", "fraction",
                          [row[f"{part}_accuracy"] for row in measured if row["name"] == name])
            for name in dict.fromkeys(row["name"] for row in measured) for part in ("train", "validation")]
    rows += [recording.row("hot_dog", settings, f"fine-tuned minus scratch, epoch {epoch}, validation accuracy",
                           "fraction", values) for epoch, values in leads.items()]
    print(recording.show(rows))
    print(f"appended to {recording.append(rows, 'hot_dog')}")
    behind = {epoch: min(values) for epoch, values in leads.items() if epoch >= FIRST and min(values) <= 0}
    if behind:
        print(f"fine-tuned is not ahead of scratch in every seed at epochs {', '.join(map(str, behind))}",
              file=sys.stderr)
    return int(bool(behind))


def run(options) -> Path:
    """Runs the recipe; its run folder."""
    done = subprocess.run([sys.executable, str(RECIPE), "--compare", *options, "--json"], stdout=subprocess.PIPE,
                          text=True, check=False)
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
