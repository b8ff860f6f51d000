"""Measures of a classifier, from the labels of images and the probabilities that it gave them: pure functions.

Accuracies, precision, recall, F1, top-k, log loss and AUC are scikit-learn's. The interval of an accuracy is Wilson's
(1927). The expected calibration error (ECE) is that of Guo et al. 2017, https://arxiv.org/abs/1706.04599: images are
sorted by the probability of their predicted class into 15 bins of equal width, and the error is the mean difference
between that probability and the share of right predictions, over the bins weighted by their images.
"""
from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from gluon_ft.errors import ConfigError, DataError
from gluon_ft.evaluation.calibration import log_loss
from gluon_ft.io.settings import plain

BINS = 15  # of the reliability curve, as in Guo et al. 2017
CONFIDENCE = 0.95  # of intervals
TOP_K = 5  # that is measured where there are more classes
_UNDEFINED: Any = 0  # precision of a class that is never predicted, as in scikit-learn's report
_MOST_OFF = 1e-3  # by which the probabilities of an image may miss a sum of 1


@dataclass(frozen=True)
class Measures:
    """What `measure` found. Shares are 0..1.

    Attributes
    ----------
    classes : list of str
        In label order.
    images : int
    correct : int
        Images whose most probable class is their label.
    accuracy : float
    interval : (float, float)
        95 % Wilson interval of the accuracy.
    top_k : dict of int to float
        k -> share of images whose label is among the k most probable classes.
    mean_class_accuracy : float
        Mean of the recalls of the classes that have images ('balanced accuracy').
    by_class : list of dict
        One a class: class, images, predicted (images that were predicted as it), precision, recall, f1. A class
        without images has no recall, precision and F1 (None).
    averages : dict of str to dict
        'macro' (each class counts the same) and 'weighted' (by images) -> precision, recall, f1 over the classes that
        have images.
    confusion : ndarray
        int64 (classes, classes): row label, column prediction.
    log_loss : float
        Mean negative log-probability of the labels, in nats.
    ece : float
        Expected calibration error.
    reliability : list of dict
        One a bin that has images: lowest, highest, images, confidence (mean probability of the predicted class),
        accuracy.
    auc : float or None
        Area under the ROC curve for two classes that both have images.
    """

    classes: list[str]
    images: int
    correct: int
    accuracy: float
    interval: tuple[float, float]
    top_k: dict[int, float]
    mean_class_accuracy: float
    by_class: list[dict]
    averages: dict[str, dict[str, float]]
    confusion: np.ndarray
    log_loss: float
    ece: float
    reliability: list[dict]
    auc: float | None

    def to_dict(self) -> dict:
        """As plain values, for JSON."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return plain({**values, "top_k": {str(k): share for k, share in self.top_k.items()}})


def measure(labels: np.ndarray | Sequence[int], probabilities: np.ndarray, classes: Sequence[str],
            top_k: Sequence[int] = (TOP_K,)) -> Measures:
    """Measures the predictions for images whose labels are known.

    Parameters
    ----------
    labels : int (n,)
        Positions in `classes`.
    probabilities : float (n, classes)
        Each row sums to 1. The prediction is the most probable class, of equal ones the first.
    classes : sequence of str
        Names in label order, two or more. They may include classes without an image.
    top_k : sequence of int, default (5,)
        Those that are not below the number of classes are left out.

    Raises
    ------
    DataError
        Without images; where labels, probabilities and classes do not fit each other.
    ConfigError
        A k that is not a whole number from 1 on.
    """
    from sklearn import metrics

    labels, probabilities = _checked(labels, probabilities, classes)
    predicted = probabilities.argmax(1)
    every, present = np.arange(len(classes)), np.unique(labels)
    right = predicted == labels
    auc = float(metrics.roc_auc_score(labels, probabilities[:, 1])) if len(classes) == len(present) == 2 else None
    return Measures(
        classes=list(map(str, classes)), images=len(labels), correct=int(right.sum()), accuracy=float(right.mean()),
        interval=wilson(int(right.sum()), len(labels)),
        top_k={k: float(metrics.top_k_accuracy_score(labels, probabilities, k=k, labels=every))
               for k in map(_k, top_k) if k < len(classes)},
        mean_class_accuracy=float(metrics.recall_score(labels, predicted, labels=present, average="macro")),
        by_class=_by_class(labels, predicted, classes), averages=_averages(labels, predicted, present),
        confusion=metrics.confusion_matrix(labels, predicted, labels=every).astype(np.int64),
        log_loss=log_loss(probabilities, labels), ece=expected_calibration_error(labels, probabilities),
        reliability=reliability(labels, probabilities), auc=auc)


def wilson(correct: int, images: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The Wilson interval of a share, which holds for few images and for shares near 0 and 1 too.

    Parameters
    ----------
    correct, images : int
        `correct` of `images`; at least one image.
    confidence : float, default 0.95
    """
    from scipy.stats import binomtest

    found = binomtest(correct, images).proportion_ci(confidence, "wilson")
    return float(found.low), float(found.high)


def reliability(labels: np.ndarray, probabilities: np.ndarray, bins: int = BINS) -> list[dict]:
    """The reliability curve: how often predictions of about the same probability are right.

    Parameters
    ----------
    labels : int (n,)
    probabilities : float (n, classes)
    bins : int, default 15
        Of equal width from 0 to 1; each includes its upper end.

    Returns
    -------
    list of dict
        One a bin that has images: lowest, highest, images, confidence, accuracy.
    """
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    return [{"lowest": float(edges[one]), "highest": float(edges[one + 1]), "images": int((place == one).sum()),
             "confidence": float(confidence[place == one].mean()), "accuracy": float(right[place == one].mean())}
            for one in np.unique(place)]


def expected_calibration_error(labels: np.ndarray, probabilities: np.ndarray, bins: int = BINS) -> float:
    """The ECE of Guo et al. 2017: mean difference between confidence and accuracy over the bins of `reliability`.

    Parameters
    ----------
    labels : int (n,)
    probabilities : float (n, classes)
    bins : int, default 15
    """
    curve = reliability(labels, probabilities, bins)
    return sum(one["images"] * abs(one["accuracy"] - one["confidence"]) for one in curve) / len(labels)


def confusions_of(matrix: np.ndarray, classes: Sequence[str], most: int = 5) -> list[str]:
    """Says in words which classes are mixed up most often, the worst first: 'cat taken for dog: 3'.

    Parameters
    ----------
    matrix : int (classes, classes)
        Row label, column prediction.
    classes : sequence of str
        Names in label order.
    most : int, default 5
        At most so many pairs; those without a mistake are left out.
    """
    matrix = np.array(matrix)
    np.fill_diagonal(matrix, 0)
    order = np.argsort(-matrix, axis=None, kind="stable")[:most]
    pairs = [(a, b) for a, b in (np.unravel_index(i, matrix.shape) for i in order) if matrix[a, b]]
    return [f"{classes[a]} taken for {classes[b]}: {matrix[a, b]}" for a, b in pairs]


def _by_class(labels, predicted, classes):
    from sklearn.metrics import precision_recall_fscore_support

    every = np.arange(len(classes))
    columns: Any = precision_recall_fscore_support(labels, predicted, labels=every, zero_division=_UNDEFINED)
    counts = np.bincount(predicted, minlength=len(classes))
    return [{"class": str(name), "images": int(images), "predicted": int(count),
             **{key: float(value) if images else None
                for key, value in (("precision", precision), ("recall", recall), ("f1", f1))}}
            for name, precision, recall, f1, images, count in zip(classes, *columns, counts)]


def _averages(labels, predicted, present):
    from sklearn.metrics import precision_recall_fscore_support

    found = {}
    for average in ("macro", "weighted"):
        values: Any = precision_recall_fscore_support(labels, predicted, labels=present, average=average,
                                                      zero_division=_UNDEFINED)
        found[average] = dict(zip(("precision", "recall", "f1"), map(float, values)))
    return found


def _k(value) -> int:
    try:
        k = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        k = 0
    if k < 1:
        raise ConfigError("top_k out of range", expected="whole numbers from 1 on", found=repr(value))
    return k


def _checked(labels, probabilities, classes):
    """Labels as int64, and probabilities as float64 whose rows sum to 1 but for float64's rounding."""
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, np.float64)
    if not len(labels):
        raise DataError("no images to measure", expected="at least one", found="none")
    if len(classes) < 2 or probabilities.shape != (len(labels), len(classes)):
        raise DataError("labels, probabilities and classes do not fit", found=f"probabilities {probabilities.shape}",
                        expected=f"({len(labels)}, {len(classes)}), two or more classes")
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= len(classes):
        raise DataError("labels outside the classes", expected=f"whole numbers from 0 to {len(classes) - 1}",
                        found=f"{labels.dtype} from {labels.min()} to {labels.max()}")
    sums = probabilities.sum(1, keepdims=True)
    wrong = np.flatnonzero(~((np.abs(sums[:, 0] - 1) <= _MOST_OFF) & (probabilities >= 0).all(1)))
    if len(wrong):
        raise DataError("not probabilities", expected="numbers from 0 on that sum to 1 for each image",
                        found=f"a sum of {sums[wrong[0], 0]:g}, image {wrong[0]}", remedy="apply the softmax")
    return labels.astype(np.int64), probabilities / sums
