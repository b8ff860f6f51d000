"""Finds labels that are probably wrong, by confident learning: what networks say of images that they did not see.

Northcutt, Jiang, Chuang 2021, Confident learning: estimating uncertainty in dataset labels
(https://arxiv.org/abs/1911.00068). A class's threshold is the mean probability that its own images get for it. An image
is counted for the most probable of the classes whose threshold it reaches; where that is another than its label (off
the diagonal of the paper's confident joint), the label is suspected. Suspects are ranked by the probability of their
own label, the least first: of the rankings that were measured (benchmarks/accuracy/label_errors.py) the most precise.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from mxnet.gluon import HybridBlock

from gluon_ft.data.audit.report import Report
from gluon_ft.data.sources.base import ImageSource
from gluon_ft.data.sources.class_names import whole
from gluon_ft.errors import DataError
from gluon_ft.evaluation import linear
from gluon_ft.evaluation.features import describe

FOLDS = 5
LEAST = 3  # different images that a class must have for its labels to be judged
# Of the classifier; see `linear.fit`. Labels that are wrong are fitted by a weak regularisation only.
KIND, GRID = "logistic", (1e-4, 1e-3, 1e-2, 1e-1)


@dataclass(frozen=True)
class Suspect:
    """An image whose label is probably wrong.

    Attributes
    ----------
    position : int
        In the images that were judged.
    file : str
        The image's name within its source.
    label, suggested : str
        The class that it stands in, and the one that it is counted for.
    own, probability : float
        The probabilities of these two, by a network that did not see the image.
    """

    position: int
    file: str
    label: str
    suggested: str
    own: float
    probability: float

    @property
    def reason(self) -> str:
        """In plain words."""
        return (f"labelled '{self.label}' ({self.own:.2f}); {self.probability:.2f} '{self.suggested}' by a network "
                "that did not see it")


@dataclass(frozen=True)
class Judged:
    """The result of `examine`.

    Attributes
    ----------
    source : ImageSource
        The images that were judged.
    suspects : list of Suspect
        The most probable errors first.
    probabilities : float64 (n, classes)
        Out of fold, of each image that was judged; classes in the order of `class_names`.
    labels : int64 (n,)
    class_names : list of str
    accuracy : float
        Of the out-of-fold predictions, by the labels as they are.
    notes : list of str
        What was not judged, and why.
    """

    source: ImageSource
    suspects: list[Suspect]
    probabilities: np.ndarray
    labels: np.ndarray
    class_names: list[str]
    accuracy: float
    notes: list[str] = field(default_factory=list)


def suspected(probabilities: np.ndarray, labels: np.ndarray | Sequence[int]) -> list[tuple[int, int]]:
    """Confident learning's suspects, the most probable label errors first.

    Parameters
    ----------
    probabilities : float (n, classes)
        Out of fold: each image's by a classifier that was not fitted to it.
    labels : int (n,)
        The labels as they are, each a column of `probabilities`.

    Returns
    -------
    list of (int, int)
        Position of the image, and the class that is suggested for it.

    Raises
    ------
    DataError
        The two do not fit each other, or a probability is not finite.
    """
    probabilities, labels = np.asarray(probabilities, np.float64), whole(labels, "the labels")
    if probabilities.ndim != 2 or len(probabilities) != len(labels):
        raise DataError("probabilities and labels do not fit", expected="(n, classes) and (n,)",
                        found=f"{probabilities.shape} and {labels.shape}")
    if not len(labels) or not np.isfinite(probabilities).all() or not 0 <= labels.min() <= labels.max() < \
            probabilities.shape[1]:
        raise DataError("probabilities and labels do not fit", expected="finite numbers, and labels among the columns",
                        found=f"labels up to {labels.max(initial=0)} and {probabilities.shape[1]} columns")
    own = probabilities[np.arange(len(labels)), labels]
    counts = np.bincount(labels, minlength=probabilities.shape[1])
    # No image reaches the threshold of a class that has none.
    thresholds = np.where(counts, np.bincount(labels, own, len(counts)) / np.maximum(counts, 1), np.inf)
    reached = np.where(probabilities >= thresholds, probabilities, -1.0)
    counted = np.where(reached.max(axis=1) >= 0, reached.argmax(axis=1), labels)
    order = np.argsort(own, kind="stable")
    return [(int(i), int(counted[i])) for i in order if counted[i] != labels[i]]


def out_of_fold(features: np.ndarray, labels: np.ndarray, groups: np.ndarray | None = None,
                seed: int = 0) -> np.ndarray:
    """Calibrated probabilities of each image by a linear classifier that was not fitted to it.

    Parameters
    ----------
    features : float (n, d)
    labels : int (n,)
        0 to classes - 1, each with `LEAST` images or more.
    groups : int (n,), optional
        Copies of one image have the same number, and stay in one fold.
    seed : int, default 0
        Of the folds, at most `FOLDS`.

    Returns
    -------
    ndarray
        float64 (n, classes).

    Raises what `linear.fit` raises.
    """
    k = min(FOLDS, int(_different(labels, groups).min()))
    found = linear.fit(features, labels, KIND, k, seed, groups, GRID).held_out
    assert found is not None  # as `fit` gives it
    return found


def examine(source: ImageSource, net: HybridBlock, report: Report | None = None, *, seed: int = 0) -> Judged:
    """Judges the labels of images by linear classifiers on a network's features, of folds that keep copies together.

    Nothing is changed.

    Parameters
    ----------
    source : ImageSource
        With one label an image.
    net : HybridBlock
        With pretrained weights and `preprocessing`.
    report : data.audit.report.Report, optional
        The audit of the same source alone: images that cannot be read are passed over, and copies stay in one fold.
    seed : int, default 0
        Of the folds.

    Raises
    ------
    DataError
        As `features.describe` does.
    """
    found = describe(source, net, report, LEAST)
    labels, names = found.labels, found.class_names
    probabilities = out_of_fold(found.features, labels, found.groups, seed)
    return judge(found.source, probabilities, labels, names, found.notes)


def judge(source: ImageSource, probabilities: np.ndarray, labels: np.ndarray, class_names: list[str],
          notes: Sequence[str] = ()) -> Judged:
    """Judges the labels of images by probabilities that are known.

    Parameters
    ----------
    source : ImageSource
    probabilities : float (n, classes)
        Out of fold, see `suspected`.
    labels : int (n,)
    class_names : list of str
        In the order of the columns.
    notes : sequence of str
        What was not judged, and why.
    """
    suspects = [Suspect(position, source.image_name(position), class_names[label], class_names[suggested],
                        float(probabilities[position, label]), float(probabilities[position, suggested]))
                for position, suggested in suspected(probabilities, labels) for label in [int(labels[position])]]
    accuracy = float((probabilities.argmax(axis=1) == labels).mean())
    return Judged(source, suspects, probabilities, labels, class_names, accuracy, list(notes))


def _different(labels, groups) -> np.ndarray:
    """How many different images each class has: copies count once."""
    groups = np.arange(len(labels)) if groups is None else groups
    return np.array([len(np.unique(groups[labels == label])) for label in np.unique(labels)])
