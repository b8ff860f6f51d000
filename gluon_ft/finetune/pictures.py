"""What a report shows of a trained network: its confusion matrix, its most confident mistakes, and where it looks."""
from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.style
import mxnet as mx
import numpy as np
from matplotlib.figure import Figure
from mxnet.gluon import HybridBlock
from sklearn.metrics import confusion_matrix

from gluon_ft.data.batches import every_image
from gluon_ft.data.images.header import Unreadable
from gluon_ft.engine import fused
from gluon_ft.errors import NetworkError
from gluon_ft.evaluation import explain, label_errors
from gluon_ft.evaluation.measures import confusions_of
from gluon_ft.finetune.advice import STRATEGIES
from gluon_ft.io import atomic, reporter
from gluon_ft.reporting import data_record
from gluon_ft.reporting.lettering import drawable
from gluon_ft.reporting.plots import image_grid, png
from gluon_ft.reporting.report import Evaluated, Story
from gluon_ft.reporting.report.thumbnails import EDGE, thumbnail
from gluon_ft.runtime import devices
from gluon_ft.training.metrics import first

MOST_PICTURES = 24
NUMBERED = 30  # classes; above it the matrix is drawn without numbers and names


def predictions(net: HybridBlock, loader: Any, ctx: list[mx.Context] | None = None,
                precision: str = "float32") -> tuple[np.ndarray, np.ndarray]:
    """What the network says of every image, computed as `training.metrics.evaluate` computes it.

    Parameters
    ----------
    net : HybridBlock
    loader : loader
        In evaluation order; its length, in batches, is asked.
    ctx : list of mx.Context, default where the network is
        Each batch is divided among them.
    precision : str, default 'float32'
        As in `fused.forward_only`.

    Returns
    -------
    probabilities : float32 (n, classes)
    labels : int64 (n,)
        Both in the loader's order.
    """
    contexts = devices.within(net, ctx)
    found, labels = [], []
    with fused.evaluating(net, len(loader), contexts, precision) as run:
        stream = every_image(loader, "the validation set")
        for batch in reporter.progress(stream, total=len(loader), desc="validation", unit="batch"):
            batch = batch.trimmed()
            shares = mx.gluon.utils.split_and_load(batch.data, contexts[:len(batch.label)], even_split=False)
            results: list = [mx.nd.softmax(first(run(share)).astype("float32")) for share in shares]
            found += [result.asnumpy() for result in results]
            labels.append(batch.label.asnumpy())
    return np.concatenate(found), np.concatenate(labels).astype(np.int64)


def confusions(probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str], most: int = 5) -> list[str]:
    """Says in words which classes are mixed up most often, the worst first: 'cat taken for dog: 3'.

    Parameters
    ----------
    probabilities : float (n, classes)
    labels : int (n,)
    classes : sequence of str
        Names in label order.
    most : int, default 5
        At most so many pairs; those without a mistake are left out.
    """
    matrix = confusion_matrix(labels, probabilities.argmax(1), labels=range(len(classes)))
    return confusions_of(matrix, classes, most)


def draw_confusion(probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str],
                   path: str | os.PathLike) -> Path:
    """Writes the confusion matrix as a PNG: rows are labels, columns predictions, shades the share of a row.

    Parameters
    ----------
    probabilities : float (n, classes)
    labels : int (n,)
    classes : sequence of str
        Names in label order; above 30 classes neither names nor numbers are drawn.
    path : path-like
        Of the PNG, which is replaced if it exists.

    Returns
    -------
    Path
    """
    matrix = confusion_matrix(labels, probabilities.argmax(1), labels=range(len(classes)))
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    numbered = len(classes) <= NUMBERED
    side = min(14, 3 + 0.34 * len(classes)) if numbered else 9
    with matplotlib.style.context("default"):
        figure = Figure(figsize=(side + 0.6, side), dpi=110, layout="constrained")
        axes = figure.subplots()
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axes.set_xlabel("predicted")
        axes.set_ylabel("label")
        if numbered:
            names = [drawable(name if len(name) <= 22 else f"{name[:21]}…") for name in classes]
            axes.set_xticks(range(len(classes)), names, rotation=90, fontsize=8, parse_math=False)
            axes.set_yticks(range(len(classes)), names, fontsize=8, parse_math=False)
            for row, column in zip(*np.nonzero(matrix)):
                axes.text(column, row, str(matrix[row, column]), ha="center", va="center", fontsize=8,
                          color="white" if shares[row, column] > 0.6 else "black")
        return atomic.write(path, png(figure))


def draw_mistakes(probabilities: np.ndarray, labels: np.ndarray, loader: Any,
                  path: str | os.PathLike) -> Path | None:
    """Writes the wrongly predicted images as a grid, the most confident first, titled '<label> not <predicted>'.

    Parameters
    ----------
    probabilities : float (n, classes)
    labels : int (n,)
        Both in the loader's order.
    loader : loader
        In evaluation order, with `source` and `classes`.
    path : path-like
        Of the PNG, which is replaced if it exists. At most 24 images are shown.

    Returns
    -------
    Path or None
        None where there is no mistake; then nothing is written.
    """
    predicted, sure = probabilities.argmax(1), probabilities.max(1)
    wrong = [i for i in np.argsort(-sure, kind="stable") if predicted[i] != labels[i]][:MOST_PICTURES]
    if not wrong:
        return None
    pictures = [thumbnail(loader.source.image(int(i), 3, EDGE)) for i in wrong]
    titles = [f"{_unbroken(loader.classes[labels[i]], 18)} not\u00a0{_unbroken(loader.classes[predicted[i]], 14)}"
              for i in wrong]
    return image_grid(pictures, titles, path, columns=6)


def _unbroken(name, most):
    """A name that stays on its line of a title."""
    name = name if len(name) <= most else f"{name[:most - 1]}…"
    return name.replace(" ", "\u00a0").replace("-", "\u2011")


def story(job: Any, evaluated: Evaluated | None, folds: Any, fitted: Any) -> Story:
    """What the report of a job tells beside its results.

    Parameters
    ----------
    job : plan.Job
        With its run, and its network at the best parameters.
    evaluated : Evaluated or None
    folds : held_out.OutOfFold or None
    fitted : (features, labels, probabilities out of fold) or None
        Of the training images, of a classifier on features.
    """
    chosen, data = job.settings, data_record.read(job.run.folder) or {}
    weights = data.get("weights") or {}
    begun_from = f"weights {weights['source']}" if weights else "random weights"
    about = f"{chosen.backbone}, from {begun_from}, on {len(job.data.parts['train']):,} training images of " \
            f"{len(job.data.class_names):,} classes. Strategy '{chosen.strategy}': {STRATEGIES[chosen.strategy]}."
    hashes = {"data (SHA-256)": data.get("sha256"), "weights": weights.get("source"),
              "weights (SHA-256)": weights.get("sha256")}
    judged = None
    if folds is not None:
        judged = label_errors.judge(folds.source, folds.calibrated, folds.labels, job.data.class_names)
    elif fitted is not None and fitted[2] is not None:
        judged = label_errors.judge(job.loader("train", False).source, fitted[2], fitted[1], job.data.class_names)
    if evaluated is not None and folds is None:  # the network itself made these mistakes
        evaluated.heat = _heat(job.net, evaluated)
    return Story(about, evaluated, judged, job.data.lines, job.data.left_out,
                 {name: text for name, text in hashes.items() if text})


def _heat(net, evaluated) -> dict[int, np.ndarray]:
    """The worst mistakes with their heat maps over them; none where the network has no map to show."""
    pixels = {}
    for i in evaluated.mistakes:
        with contextlib.suppress(Unreadable):
            pixels[i] = evaluated.source.image(i, 3, 2 * EDGE)
    if not pixels:
        return {}
    try:
        found = explain.explain(net, list(pixels.values()))
    except NetworkError:
        return {}
    return {i: explain.overlay(one)[:, pixels[i].shape[1]:] for i, one in zip(pixels, found)}
