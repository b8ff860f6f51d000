"""Which classifier on features? That of strategy `linear` beside others, on photos, small pictures and digits.

    python benchmarks/accuracy/linear.py                        # all tasks, five seeds: about half an hour
    python benchmarks/accuracy/linear.py --only hotdog-60 --seeds 2

Each way is fitted to the same training features and judged on the same other images, which nothing was chosen by; the
features of an image and of its mirror image are computed once for all seeds. 'mirror': their mean, in training and in
judging. One row a task and way is appended to benchmarks/results/linear.csv.

Ways: `linear` and `svm` as `gluon_ft.evaluation.linear.fit` has them, and scikit-learn's LogisticRegression as it is
often written (C = 1 and C = 0.1 on the features as they are). Target: over the tasks, `linear` is at most half a point
below the best of the others.

Tasks, from ../shared/data (but for digits, scikit-learn's): hotdog, caltech (20 classes), cifar (at 128 pixels), with
the number of training images, drawn by the seed in equal shares of the classes; all other images of the set judge, of
CIFAR-10 its test images. Network: --weights, of the digits CIFAR's ResNet-20.
"""
from __future__ import annotations

import os
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the project's folder
import gluon_ft  # isort: skip  (prepares the import of mxnet)

import click
import numpy as np

from benchmarks import runner
from benchmarks.runner import SHARED
from gluon_ft import loaders
from gluon_ft.cli import console
from gluon_ft.errors import ConfigError, near
from gluon_ft.evaluation import linear
from gluon_ft.finetune import network
from gluon_ft.training.feature_cache import features

HALF_A_POINT = 0.005
# Name -> data set, training images, size of the input or None for the network's own.
TASKS = {"hotdog-262": ("hotdog", 262, None), "hotdog-60": ("hotdog", 60, None), "caltech-360": ("caltech", 360, None),
         "caltech-180": ("caltech", 180, None), "caltech-80": ("caltech", 80, None), "cifar-1000": ("cifar", 1000, 128),
         "cifar-200": ("cifar", 200, 128), "digits-1000": ("digits", 1000, None), "digits-100": ("digits", 100, None)}
FOLDERS = {"hotdog": ("hotdog/train", "hotdog/test"), "caltech": ("caltech256",), "cifar": ("cifar10/train",
                                                                                             "cifar10/test")}
CIFAR_NET = "cifar_resnet20_relu:akamaster_cifar10"


def _logistic(C):
    def fit(values, labels, seed):
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(C=C, max_iter=1000).fit(values, labels).predict
    return fit


def _ours(kind):
    def fit(values, labels, seed):
        smallest = int(np.bincount(labels).min())
        found = linear.fit(values, labels, kind, k=min(5, smallest), seed=seed)
        return lambda others: found.logits(others).argmax(1)
    return fit


WAYS = {"linear": _ours("linear"), "svm": _ours("svm"), "LogisticRegression(C=1)": _logistic(1.0),
        "LogisticRegression(C=0.1)": _logistic(0.1)}


class Features:
    """Of all images of a data set, plain and with the mirror image's, with labels; the last `judges` only judge."""

    def __init__(self, name, size, weights):
        net = gluon_ft.pretrained_net(CIFAR_NET if name == "digits" else weights)
        net.preprocessing = replace(network.input_of(net, size), mirror=False)
        sources = [_digits()] if name == "digits" else [SHARED / folder for folder in FOLDERS[name]]
        self.judges, found = 0, []
        for number, source in enumerate(sources):
            loader = loaders.make_loader(source, train=False, batch_size=32, preprocessing=net.preprocessing)
            (plain, labels), (both, _) = (features.extract(net, loader, mirror=mirror) for mirror in (False, True))
            found.append((plain, both, labels))
            self.judges = len(labels) if number else 0
        self.plain, self.mirror, self.labels = (np.concatenate(arrays) for arrays in zip(*found))
        self.pool = len(self.labels) - (self.judges if name == "cifar" else 0)

    def drawn(self, most, seed):
        """Positions to train on, in equal shares of the classes, and to judge with."""
        labels, order = self.labels, np.random.RandomState(seed).permutation(self.pool)
        share = max(1, most // len(np.unique(labels)))
        train = np.concatenate([order[labels[order] == label][:share] for label in np.unique(labels)])
        judging = np.setdiff1d(np.arange(self.pool), train)
        return train, (np.arange(self.pool, len(labels)) if self.pool < len(labels) else judging)


def _digits():
    from sklearn.datasets import load_digits

    data = load_digits()
    return np.rint(data.images * (255 / 16)).astype(np.uint8), data.target


def measured(task, known, seeds, images) -> list[dict]:
    """The rows of a task: accuracy of each way, plain and mirrored, over the seeds, and the seconds of its fit."""
    rows, draws = [], [known.drawn(images, seed) for seed in range(seeds)]
    for view in ("plain", "mirror"):
        values = getattr(known, view)
        for way, fit in WAYS.items():
            accuracies, seconds = [], []
            for seed, (train, judging) in enumerate(draws):
                begun = time.perf_counter()
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    predict = fit(values[train], known.labels[train], seed)
                seconds.append(time.perf_counter() - begun)
                accuracies.append(float((predict(values[judging]) == known.labels[judging]).mean()))
            text = f"{task}; {view}; {way}"
            rows += [runner.row("linear", text, "accuracy on other images", "fraction", accuracies),
                     runner.row("linear", text, "time of the fit", "s", seconds)]
            click.echo(f"{text}: {np.mean(accuracies):.4f}, {np.median(seconds):.2f} s", err=True)
    return rows


def verdict(rows) -> list[dict]:
    """Mean over the tasks of the medians, a row each for plain and mirrored features."""
    found = {}
    for row in rows:
        _, view, way = row["settings"].split("; ")
        if row["quantity"].startswith("accuracy"):
            found.setdefault(view, {}).setdefault(way, []).append(float(row["median"]))
    table = []
    for view, ways in found.items():
        means = {way: float(np.mean(values)) for way, values in ways.items()}
        behind = max(means.values()) - means["linear"]
        table.append({"features": view, **means, "behind": behind, "holds": behind <= HALF_A_POINT})
    return table


@console.command(text=__doc__)
@click.option("--only", default=",".join(TASKS), help="Tasks, with commas between.")
@click.option("--weights", default="mobilenetv2_1.0:coral_rot180", help="BACKBONE:TAG.")
@click.option("--seeds", default=5, type=click.IntRange(1))
@runner.record_option("linear")
def main(only, weights, seeds, record, as_json):
    wanted = [name.strip() for name in only.split(",") if name.strip()]
    for name in wanted:
        if name not in TASKS:
            raise ConfigError(f"no task '{name}'", remedy=near(name, TASKS))
    os.environ.setdefault("GLUON_FT_WEIGHTS", str(SHARED / "weights"))
    if not SHARED.is_dir():
        raise ConfigError("the real data is not here", path=SHARED)
    rows, known = [], {}
    for name in wanted:
        data, images, size = TASKS[name]
        if data not in known:
            known[data] = Features(data, size, weights)
        fresh = measured(name, known[data], seeds, images)
        for row in fresh:
            row["settings"] += f"; {CIFAR_NET if data == 'digits' else weights}"
        if record:
            runner.append(fresh, "linear")
        rows += fresh
    table = verdict([{**row, "settings": row["settings"].rsplit("; ", 1)[0]} for row in rows])
    click.echo(console.table(table))
    console.emit({"benchmark": "linear", "rows": table}, as_json)
    return int(not all(row["holds"] for row in table))


if __name__ == "__main__":
    main()
