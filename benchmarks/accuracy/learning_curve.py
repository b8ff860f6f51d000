"""What would twice as many photos bring? Half of them is hidden, the accuracy with all is forecast, and compared.

    python benchmarks/accuracy/learning_curve.py                     # three data sets, five seeds: about ten minutes

Of ../shared/data: caltech (20 classes), cifar (CIFAR-10's 2,000 training images, at 128 pixels) and scikit-learn's
digits (at 128 pixels), with the features of --weights, computed once. In each seed 30 % of the images judge, and half
of the others is hidden. From the half that is left `finetune.learning_curve` forecasts the accuracy with twice as many
images; then the same classifier is fitted to both halves and judged.

Rows go to benchmarks/results/learning_curve.csv: the difference of the forecast and what was found, in points; the same
of 'no change' (the accuracy measured on the half); how often what was found lies in the interval of 90 %.
Target: a median difference below 3 points on each data set.
"""
from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the project's folder
import gluon_ft  # noqa: F401  # isort: skip  (prepares the import of mxnet)

import click
import numpy as np

from benchmarks import runner
from benchmarks.accuracy.unknowns import features_of
from benchmarks.runner import SHARED
from gluon_ft.cli import console
from gluon_ft.evaluation import linear
from gluon_ft.finetune import learning_curve

TASKS, AT_MOST = ("caltech", "cifar", "digits"), 3.0  # points


def divided(labels, seed) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions of the half that is left, of the hidden half, and of those that judge; of each class alike."""
    order, parts = np.random.RandomState(seed).permutation(len(labels)), ([], [], [])
    for label in np.unique(labels):
        own = order[labels[order] == label]
        judging, rest = own[:round(0.3 * len(own))], own[round(0.3 * len(own)):]
        for part, positions in zip(parts, (rest[:len(rest) // 2], rest[len(rest) // 2:], judging)):
            part.append(positions)
    left, hidden, judging = (np.sort(np.concatenate(part)) for part in parts)
    return left, hidden, judging


def measured(name, known, seeds) -> list[dict]:
    """The rows of a data set."""
    features, labels = known
    names = [str(label) for label in range(labels.max() + 1)]
    apart, unchanged, inside = [], [], []
    for seed in range(seeds):
        left, hidden, judging = divided(labels, seed)
        curve = learning_curve.measure(features[left], labels[left], names, seed=seed)
        forecast = curve.forecast(1 + len(hidden) / len(left))
        both = np.concatenate([left, hidden])
        fitted = linear.fit(features[both], labels[both], learning_curve.KIND, seed=seed, grid=learning_curve.GRID)
        found = float((fitted.logits(features[judging]).argmax(axis=1) == labels[judging]).mean())
        apart.append(100 * abs(forecast.accuracy - found))
        unchanged.append(100 * abs(1 - curve.errors[:, -1].mean() - found))
        inside.append(forecast.low <= found <= forecast.high)
        click.echo(f"{name}, seed {seed}: forecast {forecast.accuracy:.3f} ({forecast.low:.3f} to "
                   f"{forecast.high:.3f}), found {found:.3f}", err=True)
    return [runner.row("learning_curve", f"{name}; forecast", "difference at twice the images", "points", apart),
            runner.row("learning_curve", f"{name}; no change", "difference at twice the images", "points", unchanged),
            runner.row("learning_curve", f"{name}; mean over the seeds", "found in the interval of 90 %", "fraction",
                       [np.mean(inside)])]


@console.command(text=__doc__)
@click.option("--only", type=click.Choice(TASKS), help="One of the data sets.")
@click.option("--weights", default="efficientnet_lite0:google_in1k", help="BACKBONE:TAG.")
@click.option("--seeds", default=5, type=click.IntRange(1))
@runner.record_option("learning_curve")
def main(only, weights, seeds, record, as_json):
    os.environ.setdefault("GLUON_FT_WEIGHTS", str(SHARED / "weights"))
    rows = []
    for name in [only] if only else TASKS:
        fresh = measured(name, features_of(name, weights), seeds)
        for row in fresh:
            row["settings"] += f"; {weights}"
        if record:
            click.echo(f"{name}: appended to {runner.append(fresh, 'learning_curve')}", err=True)
        rows += fresh
    click.echo(runner.show(rows))
    missed = [row["settings"] for row in rows if "; forecast;" in row["settings"] and float(row["median"]) >= AT_MOST]
    console.emit({"benchmark": "learning_curve", "rows": rows, "missed": missed}, as_json)
    return console.EXIT_FAILURE if missed else 0


if __name__ == "__main__":
    main()
