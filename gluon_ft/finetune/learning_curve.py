"""What more photos would bring: how accuracy grew from nested subsets, carried on by a power law.

The error of a classifier fitted to n images falls nearly as a + b n^-c (Hestness et al. 2017, Deep learning scaling is
predictable, empirically, https://arxiv.org/abs/1712.00409). Here it is measured with linear classifiers on features
that are computed once: in each fold, on images that the classifier was not fitted to, for subsets of the others of
which each holds the smaller ones.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gluon_ft.errors import DataError
from gluon_ft.evaluation import folds, linear

FOLDS = 5
STEPS = 6  # subsets of each fold
LEAST = 4  # images that each class must have
KIND, GRID = "logistic", (1e-4, 1e-3, 1e-2, 1e-1)
INTERVAL = 0.9
_DRAWS = 100  # of the bootstrap that gives the interval
# Bounds of the exponent; errors of classifiers fall with n^-0.07 to n^-0.5 in the paper, faster on few images.
_SLOWEST, _FASTEST = 0.05, 1.0


class Law(NamedTuple):
    """error = floor + scale * n ** -exponent."""

    floor: float
    scale: float
    exponent: float

    def error(self, n: float | np.ndarray) -> np.ndarray:
        """The error with n images, 0 to 1."""
        return np.clip(self.floor + self.scale * np.asarray(n, float) ** -self.exponent, 0, 1)


class Forecast(NamedTuple):
    """An accuracy, with the ends of its interval (of 90 %)."""

    accuracy: float
    low: float
    high: float


class ClassGain(NamedTuple):
    """What is expected for a class: its images now, and its accuracy with as many as now and with more."""

    name: str
    images: int
    now: float
    then: float

    @property
    def gain(self) -> float:
        """The difference of the two."""
        return self.then - self.now


@dataclass(frozen=True)
class Curve:
    """The result of `measure`.

    Attributes
    ----------
    sizes : float64 (steps,)
        Images that the classifiers were fitted to, mean over the folds, ascending.
    errors : float64 (folds, steps)
        On the images of the fold.
    class_errors : float64 (steps, classes)
        Of each class's images, over all folds.
    counts : int64 (classes,)
        Images of each class.
    class_names : list of str
    law : Law
        Fitted to the mean errors.
    """

    sizes: np.ndarray
    errors: np.ndarray
    class_errors: np.ndarray
    counts: np.ndarray
    class_names: list[str]
    law: Law

    @property
    def images(self) -> int:
        """How many there are now."""
        return int(self.counts.sum())

    def forecast(self, factor: float = 2.0, seed: int = 0) -> Forecast:
        """The accuracy with `factor` times as many images of the same kind.

        The interval is that of a bootstrap: of the folds, and of the images in them.

        Parameters
        ----------
        factor : float, default 2
            1: as many as now.
        seed : int, default 0
            Of the bootstrap.
        """
        rng, found = np.random.RandomState(seed), []
        spread = np.sqrt(np.maximum(self.errors.mean(axis=0) * (1 - self.errors.mean(axis=0)), 1e-4) / self.images)
        for _ in range(_DRAWS):
            mean = self.errors[rng.randint(len(self.errors), size=len(self.errors))].mean(axis=0)
            # One draw for all sizes: they are judged on the same images.
            found.append(float(fitted(self.sizes, np.clip(mean + rng.randn() * spread, 0, 1)).error(
                factor * self.images)))
        ends = np.quantile(found, [(1 - INTERVAL) / 2, (1 + INTERVAL) / 2])
        middle = float(self.law.error(factor * self.images))
        return Forecast(1 - middle, 1 - max(float(ends[1]), middle), 1 - min(float(ends[0]), middle))

    def by_class(self, factor: float = 2.0) -> list[ClassGain]:
        """The classes, those that would gain most by `factor` times as many images first.

        A class's error follows the law of all with a floor and a scale of its own.
        """
        from scipy.optimize import nnls

        columns = np.stack([np.ones(len(self.sizes)), self.sizes ** -self.law.exponent], axis=1)
        found = []
        for label, name in enumerate(self.class_names):
            (floor, scale), _ = nnls(columns, self.class_errors[:, label])
            law = Law(floor, scale, self.law.exponent)
            now, then = (1 - float(law.error(n)) for n in (self.images, factor * self.images))
            found.append(ClassGain(name, int(self.counts[label]), now, then))
        return sorted(found, key=lambda one: -one.gain)


def measure(features: np.ndarray, labels: np.ndarray, class_names: Sequence[str],
            groups: np.ndarray | None = None, seed: int = 0) -> Curve:
    """Measures the errors of linear classifiers fitted to nested subsets, and fits the power law to them.

    Parameters
    ----------
    features : float (n, d)
    labels : int (n,)
        0 to classes - 1, of each class `LEAST` images or more.
    class_names : sequence of str
        In label order.
    groups : int (n,), optional
        Copies of one image have the same number, and stay in one fold.
    seed : int, default 0
        Of the folds and of the subsets.

    Raises
    ------
    DataError
        A class has too few images.
    """
    labels = np.asarray(labels, np.int64)
    counts = np.bincount(labels, minlength=len(class_names))
    if len(counts) < 2 or counts.min() < LEAST:
        raise DataError("too few images to see how accuracy grows", expected=f"{LEAST} or more of each class",
                        found=f"{counts.min()} of '{class_names[int(counts.argmin())]}'")
    k = min(FOLDS, int(counts.min()))
    chosen = linear.fit(features, labels, KIND, k, seed, groups, GRID).C
    sizes, errors = [], []
    wrong = np.zeros((STEPS, len(labels)), bool)
    for number, (train, test) in enumerate(folds.folds(labels, k, seed, groups)):
        parts = nested(labels[train], seed + number)
        sizes.append([len(part) for part in parts])
        for step, part in enumerate(parts):
            rows = train[part]
            found = linear.fit_once(features[rows], labels[rows], KIND, C=chosen, seed=seed)
            wrong[step, test] = found.logits(features[test]).argmax(axis=1) != labels[test]
        errors.append(wrong[:, test].mean(axis=1))
    by_class = np.stack([wrong[:, labels == label].mean(axis=1) for label in range(len(counts))], axis=1)
    mean_sizes, found = np.mean(sizes, axis=0), np.stack(errors)
    return Curve(mean_sizes, found, by_class, counts, list(class_names), fitted(mean_sizes, found.mean(axis=0)))


def nested(labels: np.ndarray, seed: int = 0) -> list[np.ndarray]:
    """Positions of `STEPS` subsets, each in the next, with equal shares of the classes: the last is the whole.

    The sizes grow by equal factors, from an eighth, or two images of each class.

    Parameters
    ----------
    labels : int (n,)
    seed : int, default 0
    """
    order = np.random.RandomState(seed).permutation(len(labels))
    place = np.empty(len(labels))
    for label in np.unique(labels):
        own = order[labels[order] == label]
        # In 0..1; the first two of each class are in every subset.
        place[own] = np.where(np.arange(len(own)) < 2, 0, (np.arange(len(own)) + 0.5) / len(own))
    return [np.flatnonzero(place <= share) for share in np.geomspace(1 / 8, 1, STEPS)]


def fitted(sizes: np.ndarray, errors: np.ndarray) -> Law:
    """The power law nearest to errors, by least squares of their logarithms; the exponent and the floor are bounded.

    Parameters
    ----------
    sizes : float (steps,)
    errors : float (steps,)
        0 to 1.
    """
    from scipy.optimize import least_squares

    sizes, errors = np.asarray(sizes, float), np.asarray(errors, float)
    least = 0.5 / sizes[-1]  # an error of none is one that was not seen
    logs, unit = np.log(np.maximum(errors, least)), sizes[0]
    floor = max(float(errors.min()), least)
    found = least_squares(
        lambda p: np.log(p[0] + np.exp(p[1]) * (sizes / unit) ** -p[2]) - logs,
        [0.1 * floor, logs[0], 0.5], bounds=([0, -12, _SLOWEST], [floor, 1, _FASTEST]), x_scale=[0.01, 1, 0.3])
    return Law(float(found.x[0]), float(np.exp(found.x[1]) * unit ** found.x[2]), float(found.x[2]))
