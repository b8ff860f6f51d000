"""Are the suspected labels wrong? Flips are planted, and the first 20 suspects looked at, beside cleanlab's.

    python benchmarks/accuracy/label_errors.py                       # two data sets, five seeds: about ten minutes
    GLUON_FT_CLEANLAB_PYTHON=/path/to/python python benchmarks/accuracy/label_errors.py       # one with cleanlab

Of ../shared/data: caltech (490 photos of 20 classes) and cifar (CIFAR-10's 2,000 training images, at 128 pixels), with
5 % and 10 % of the labels changed to another class, drawn by the seed. The features are those of --weights, computed
once. Recorded in benchmarks/results/label_errors.csv, over the seeds: precision among the first 20 suspects (fewer
where fewer are suspected), of ours, of two other rankings of the same candidates, and of cleanlab on the same
probabilities (skipped, with the reason, where there is none); the share of the flips that is found; and the accuracy of
the classifier, on images that nothing was planted in, before and after all suspects are left out, and with the flips
undone. The images to judge by are CIFAR's test images, and a fifth of Caltech's.

Target: precision among the first 20 of 0.7 or more on each data set and rate (median over the seeds).
"""
from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the project's folder
import gluon_ft  # isort: skip  (prepares the import of mxnet)

import click
import numpy as np

from benchmarks import runner
from benchmarks.runner import SHARED
from gluon_ft import loaders
from gluon_ft.cli import console
from gluon_ft.errors import ConfigError
from gluon_ft.evaluation import label_errors, linear
from gluon_ft.finetune import network

VARIABLE = "GLUON_FT_CLEANLAB_PYTHON"
TASKS = {"caltech": (("caltech256",), None), "cifar": (("cifar10/train", "cifar10/test"), 128)}
RATES, FIRST, AT_LEAST = (0.05, 0.1), 20, 0.7
UNIT = "fraction"


def features_of(folders, size, weights) -> list:
    """(features, labels) of each folder's images, kept on disk for later."""
    net = gluon_ft.pretrained_net(weights)
    net.preprocessing = network.input_of(net, size)
    return [gluon_ft.penultimate(net, loaders.make_loader(runner.shared_data(folder), train=False, batch_size=32,
                                                          preprocessing=net.preprocessing)) for folder in folders]


def divided(parts, seed) -> tuple:
    """(features, labels) to plant flips in, and those to judge by."""
    if len(parts) > 1:
        return parts[0], parts[1]
    features, labels = parts[0]
    order = np.random.RandomState(seed).permutation(len(labels))
    judging = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        own = order[labels[order] == label]
        judging[own[:len(own) // 5]] = True
    return (features[~judging], labels[~judging]), (features[judging], labels[judging])


def planted(labels, rate, seed) -> np.ndarray:
    """The labels, with that share of them changed to another class."""
    rng, count = np.random.RandomState(1000 + seed), round(rate * len(labels))
    flipped, found, classes = rng.choice(len(labels), count, replace=False), labels.copy(), labels.max() + 1
    found[flipped] = (found[flipped] + rng.randint(1, classes, count)) % classes
    return found


def rankings(probabilities, labels) -> dict[str, list[int]]:
    """Name -> suspects in order: ours, and the same candidates by the margin, as it is and over the thresholds."""
    ours = [position for position, _ in label_errors.suspected(probabilities, labels)]
    rows = np.arange(len(labels))
    thresholds = np.array([probabilities[labels == label, label].mean() for label in range(probabilities.shape[1])])
    found = {"gluon_ft": ours}
    for name, values in (("margin", probabilities), ("normalised margin", probabilities / thresholds)):
        others = values.copy()
        others[rows, labels] = -np.inf
        margin = values[rows, labels] - others.max(axis=1)
        found[f"gluon_ft's candidates by {name}"] = sorted(ours, key=lambda i, margin=margin: margin[i])
    return found


def by_cleanlab(python, probabilities, labels) -> list[int]:
    """What cleanlab suspects, in its order."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "arrays.npz"
        np.savez(path, probabilities=probabilities, labels=labels)
        done = subprocess.run([python, str(Path(__file__).with_name("cleanlab_issues.py")), str(path)],
                              capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigError("cleanlab's side ended", path=python, found=done.stderr.strip()[-300:])
    return json.loads(done.stdout.splitlines()[-1])["suspects"]


def judged(train, judging, kept=None) -> float:
    """Accuracy on the images to judge by of the classifier fitted to those that are kept."""
    (features, labels), (others, right) = train, judging
    kept = np.ones(len(labels), bool) if kept is None else kept
    found = linear.fit(features[kept], labels[kept], label_errors.KIND, grid=label_errors.GRID)
    return float((found.logits(others).argmax(1) == right).mean())


def measured(name, rate, parts, seeds, python) -> list[dict]:
    """The rows of a data set and a rate."""
    precision, found, accuracy = {}, {}, {}
    for seed in range(seeds):
        (features, right), judging = divided(parts, seed)
        labels = planted(right, rate, seed)
        probabilities = label_errors.out_of_fold(features, labels, seed=seed)
        ways = rankings(probabilities, labels)
        if python:
            ways["cleanlab"] = by_cleanlab(python, probabilities, labels)
        for way, suspects in ways.items():
            wrong = labels[suspects] != right[suspects]
            precision.setdefault(way, []).append(wrong[:FIRST].mean() if len(wrong) else 0.0)
            found.setdefault(way, []).append(wrong.sum() / (labels != right).sum())
        kept = np.ones(len(labels), bool)
        kept[ways["gluon_ft"]] = False
        for state, value in (("with the flips", judged((features, labels), judging)),
                             ("without the suspects", judged((features, labels), judging, kept)),
                             ("with the flips undone", judged((features, right), judging))):
            accuracy.setdefault(state, []).append(value)
    about = f"{name}; {rate:.0%} flipped"
    rows = [runner.row("label_errors", f"{about}; {way}", f"precision of the first {FIRST}", UNIT, values)
            for way, values in precision.items()]
    rows += [runner.row("label_errors", f"{about}; {way}", "share of the flips that is suspected", UNIT, found[way])
             for way in ("gluon_ft", "cleanlab") if way in found]
    return rows + [runner.row("label_errors", f"{about}; {state}", "accuracy on other images", UNIT, values)
                   for state, values in accuracy.items()]


@console.command(text=__doc__)
@click.option("--only", type=click.Choice(list(TASKS)), help="One of the data sets.")
@click.option("--weights", default="efficientnet_lite0:google_in1k", help="BACKBONE:TAG.")
@click.option("--seeds", default=5, type=click.IntRange(1))
@runner.record_option("label_errors")
def main(only, weights, seeds, record, as_json):
    os.environ.setdefault("GLUON_FT_WEIGHTS", str(SHARED / "weights"))
    python = os.environ.get(VARIABLE)
    if not python:
        click.echo(f"skipped cleanlab: {VARIABLE} does not name a Python that has it", err=True)
    rows = []
    for name in [only] if only else TASKS:
        parts = features_of(*TASKS[name], weights)
        for rate in RATES:
            rows += measured(name, rate, parts, seeds, python)
    for row in rows:
        row["settings"] += f"; {weights}"
    click.echo(runner.show(rows))
    if record:
        click.echo(f"appended to {runner.append(rows, 'label_errors')}")
    missed = [row["settings"] for row in rows if row["quantity"].startswith("precision")
              and "; gluon_ft;" in row["settings"] and float(row["median"]) < AT_LEAST]
    console.emit({"benchmark": "label_errors", "rows": rows, "missed": missed}, as_json)
    return console.EXIT_FAILURE if missed else 0


if __name__ == "__main__":
    main()
