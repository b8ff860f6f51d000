"""Does a network know what it does not know? Strange images told from known ones, false alarms, conformal coverage.

    python benchmarks/accuracy/unknowns.py                        # ten seeds, twenty of the coverage: about ten minutes
    python benchmarks/accuracy/unknowns.py --only hotdog --seeds 2

Of ../shared/data and scikit-learn's digits, with the features of --weights (small images at 128 pixels), computed once.
In each seed a fifth of the known images, drawn within the classes, is kept out of the training images.

Distances: AUROC of strange images against known ones that were kept out: hot dog photos and Caltech's, CIFAR-10 and
digits, one half of the classes and the other. Ours is the cosine to the nearest neighbours; beside it, in the first
three seeds, Mahalanobis' distance with a shared covariance (Ledoit and Wolf's shrinkage) and the relative one.
False alarms: the share of known images that were kept out beyond the limit for 5 %; the limit comes from the training
images. Coverage: the share of images that were kept out whose label is in the conformal set, by scores out of fold.

Rows go to benchmarks/results/unknowns.csv. Targets: false alarms within 2 points of 5 %, and coverage (of the plain
sets, which may be empty) within 2 points of 95 % and 90 %, in the mean over the seeds.
"""
from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the project's folder
import gluon_ft  # isort: skip  (prepares the import of mxnet)

import click
import numpy as np

from benchmarks import runner
from benchmarks.runner import SHARED
from gluon_ft import loaders
from gluon_ft.cli import console
from gluon_ft.evaluation import linear, unknowns
from gluon_ft.finetune import network

SETS = {"hotdog": ("hotdog/train", None), "caltech": ("caltech256", None), "cifar": ("cifar10/train", 128),
        "digits": (None, 128)}
# Known -> strange. 'other classes': the second half of the same set's classes.
PAIRS = {"hotdog": ("caltech", "other"), "caltech": ("hotdog", "other"), "cifar": ("digits", "other"),
         "digits": ("cifar", "other")}
COVERAGES, TOLERANCE, COVERED = (0.95, 0.9), 0.02, 20
MOST = 600  # known images of a seed
C = 0.01  # of the classifier whose sets are measured
OTHERS_SEEDS = 3  # in which the other distances are measured


def features_of(name, weights) -> tuple[np.ndarray, np.ndarray]:
    """(features, labels) of a data set, kept on disk for later."""
    folder, size = SETS[name]
    net = gluon_ft.pretrained_net(weights)
    net.preprocessing = network.input_of(net, size)
    source = runner.shared_data(folder) if folder else digits()
    return gluon_ft.penultimate(net, loaders.make_loader(source, train=False, batch_size=32,
                                                         preprocessing=net.preprocessing))


def digits() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's digits, 8 x 8 pixels in 0..255, and their labels."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return np.rint(data.images * (255 / 16)).astype(np.uint8), data.target


def divided(labels, seed) -> tuple[np.ndarray, np.ndarray]:
    """Positions to train on and to judge with: of at most `MOST` images, a fifth of each class judges."""
    kept = unknowns.drawn(labels, MOST)
    order = np.random.RandomState(seed).permutation(kept)
    judging = np.concatenate([own[:len(own) // 5] for label in np.unique(labels)
                              for own in [order[labels[order] == label]]])
    return np.setdiff1d(kept, judging), judging


def mahalanobis(features, labels) -> dict:
    """Name -> function of features: the least distance of a class's mean, and the same less that of the whole's."""
    from sklearn.covariance import LedoitWolf

    means = np.stack([features[labels == label].mean(axis=0) for label in np.unique(labels)])
    own = features - means[np.unique(labels, return_inverse=True)[1]]
    shared, whole = (LedoitWolf(assume_centered=True).fit(values).precision_
                     for values in (own, features - features.mean(axis=0)))

    def squared(values, precision):
        return np.einsum("nd,nd->n", values @ precision, values)

    def least(values):
        return np.min([squared(values - mean, shared) for mean in means], axis=0)

    return {"Mahalanobis": least, "relative Mahalanobis": lambda values: least(values) - squared(
        values - features.mean(axis=0), whole)}


def distances(known, strange, name, seeds) -> list[dict]:
    """AUROC and false alarms of a pair of sets, over the seeds."""
    from sklearn.metrics import roc_auc_score

    (features, labels), found, alarms = known, {}, []
    for seed in range(seeds):
        train, judging = divided(labels, seed)
        kept = unknowns.fit(features[train], labels[train])
        ways = {"nearest neighbours": kept.distance, **(mahalanobis(features[train], labels[train])
                                                       if seed < OTHERS_SEEDS else {})}
        alarms.append((kept.distance(features[judging]) > kept.limit()).mean())
        for way, distance in ways.items():
            values = np.concatenate([distance(features[judging]), distance(strange)])
            truth = np.repeat([0, 1], [len(judging), len(strange)])
            found.setdefault(way, []).append(roc_auc_score(truth, values))
    rows = [runner.row("unknowns", f"{name}; {way}", "AUROC", "fraction", values) for way, values in found.items()]
    return rows, alarms


def coverages(known, name, seeds) -> list[dict]:
    """Coverage and size of conformal sets, over the seeds."""
    (features, labels), covered, sizes = known, {}, {}
    for seed in range(seeds):
        train, judging = divided(labels, seed)
        found = linear.fit(features[train], labels[train], "logistic", seed=seed, grid=(C,))
        scores = unknowns.conformal_scores(found.held_out, labels[train])
        probabilities = found.probabilities(features[judging])
        rows = np.arange(len(judging))
        kept = unknowns.Known(np.zeros((0, 1), np.float16), scores, scores)
        for coverage in COVERAGES:
            plain = unknowns.conformal_sets(probabilities, scores, coverage)
            covered.setdefault(f"coverage {coverage:g}; plain sets", []).append(plain[rows, labels[judging]].mean())
            named = kept.possible(probabilities, coverage)
            covered.setdefault(f"coverage {coverage:g}; with the most probable class", []).append(
                named[rows, labels[judging]].mean())
            sizes.setdefault(f"coverage {coverage:g}; with the most probable class", []).append(
                named.sum(axis=1).mean())
    rows = [runner.row("unknowns", f"{name}; {about}", "share of labels in the set", "fraction", values)
            for about, values in covered.items()]
    rows += [runner.row("unknowns", f"{name}; {about}", "classes in a set", "classes", values)
             for about, values in sizes.items()]
    return rows, {about: float(np.mean(values)) for about, values in covered.items() if "plain" in about}


def measured(name, known, sets, seeds, missed) -> list[dict]:
    """The rows of one known set; `missed` gets what did not reach its target."""
    features, labels = known
    first = labels < (labels.max() + 1) // 2
    rows = []
    for other in PAIRS[name]:
        if other == "other" and labels.max() < 3:
            continue  # one class only would be left
        inside, strange = ((features[first], labels[first]), features[~first]) if other == "other" else (
            known, sets(other)[0])
        about = f"{name}; strange: {'other classes' if other == 'other' else other}"
        fresh, alarms = distances(inside, strange, about, seeds)
        rows += [*fresh, runner.row("unknowns", f"{about}; mean over the seeds", "false alarms at 5 %", "fraction",
                                    [np.mean(alarms)])]
        if abs(np.mean(alarms) - unknowns.RATE) > TOLERANCE:
            missed.append(f"{about}: {np.mean(alarms):.3f} false alarms")
    fresh, means = coverages(known, name, max(seeds, COVERED) if seeds >= 10 else seeds)
    for about, value in means.items():
        wanted = float(about.split(";")[0].split()[1])
        fresh.append(runner.row("unknowns", f"{name}; {about}; mean over the seeds", "share of labels in the set",
                                "fraction", [value]))
        if abs(value - wanted) > TOLERANCE:
            missed.append(f"{name}: {value:.3f} of the labels in sets for {wanted:g}")
    return rows + fresh


@console.command(text=__doc__)
@click.option("--only", type=click.Choice(list(SETS)), help="One of the known sets.")
@click.option("--weights", default="efficientnet_lite0:google_in1k", help="BACKBONE:TAG.")
@click.option("--seeds", default=10, type=click.IntRange(1))
@runner.record_option("unknowns")
def main(only, weights, seeds, record, as_json):
    os.environ.setdefault("GLUON_FT_WEIGHTS", str(SHARED / "weights"))
    known: dict = {}

    def sets(name):
        if name not in known:
            known[name] = features_of(name, weights)
        return known[name]

    rows, missed = [], []
    for name in [only] if only else SETS:
        fresh = measured(name, sets(name), sets, seeds, missed)
        for row in fresh:
            row["settings"] += f"; {weights}"
        if record:
            click.echo(f"{name}: appended to {runner.append(fresh, 'unknowns')}", err=True)
        rows += fresh
    click.echo(runner.show(rows))
    for sentence in missed:
        click.echo(f"missed: {sentence}")
    console.emit({"benchmark": "unknowns", "rows": rows, "missed": missed}, as_json)
    return console.EXIT_FAILURE if missed else 0


if __name__ == "__main__":
    main()
