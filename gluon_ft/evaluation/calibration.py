"""Calibrates decision values into probabilities, and measures them by their log loss.

Two classes: Platt scaling of the decision value f, p = 1 / (1 + exp(-(a f + b))) (Platt 1999, Probabilistic outputs for
support vector machines). More classes: temperature scaling, the softmax of a f over the decision values f of all
classes, which changes no decision (Guo et al. 2017, https://arxiv.org/abs/1706.04599). a and b are fitted to decision
values of held-out images.
"""
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

_LARGEST_LOG_SCALE = 12.0  # either way, where the search for more than two classes ends
_LEAST_SCALE = 1e-6  # for two classes
FOLDS = 5  # in which a temperature is judged
_PRIOR = 0.5  # standard deviation of the logarithm of a temperature; ours
_SMALLEST = 1e-45  # float32's smallest number above 0


@dataclass(frozen=True)
class Calibration:
    """Decision values f become scale * f + offset before the softmax; offset for two classes only."""

    scale: float = 1.0
    offset: float = 0.0


NO_CALIBRATION = Calibration()


def calibrate(decisions: np.ndarray, labels: np.ndarray) -> Calibration:
    """Fits the calibration under which held-out labels are most likely, see the top of this file.

    Labels are smoothed as in Platt's paper, so that few images do not give certainty: the label of a class with m
    images gets the probability (m + 1) / (m + 2), and the other classes share the rest.

    Parameters
    ----------
    decisions : float (n,) for two classes, (n, classes) for more
    labels : int (n,)
    """
    decisions, labels = _without_outliers(np.asarray(decisions, np.float64)), np.asarray(labels)
    return (_platt if decisions.ndim == 1 else _temperature)(decisions, labels)


def _platt(decisions, labels) -> Calibration:
    from scipy.optimize import minimize
    from scipy.special import expit

    positive = np.count_nonzero(labels == 1)
    targets = np.where(labels == 1, (positive + 1) / (positive + 2), 1 / (len(labels) - positive + 2))
    unit = np.abs(decisions).max() or 1.0  # so that the search has numbers near 1

    def loss(parameters):
        z = parameters[0] * decisions / unit + parameters[1]
        wrong = expit(z) - targets
        value = np.logaddexp(0, z).sum() - (targets * z).sum()
        return value, np.array([(wrong * decisions / unit).sum(), wrong.sum()])

    # A scale of 0 or less would reverse what the classifier decides.
    scale, offset = minimize(loss, [unit, 0.0], jac=True, method="L-BFGS-B", options={"ftol": 1e-14, "gtol": 1e-9},
                             bounds=[(_LEAST_SCALE * unit, None), (None, None)]).x
    return Calibration(float(scale / unit), float(offset))


def _temperature(decisions, labels) -> Calibration:
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    counts = np.bincount(labels, minlength=decisions.shape[1])
    targets = np.repeat(((1 / (counts + 2)) / (len(counts) - 1))[labels, None], len(counts), axis=1)
    targets[np.arange(len(labels)), labels] = (counts[labels] + 1) / (counts[labels] + 2)

    def loss(log_scale):
        values = math.exp(log_scale) * decisions
        return (logsumexp(values, axis=1) - (targets * values).sum(axis=1)).mean()

    best: Any = minimize_scalar(loss, bounds=(-_LARGEST_LOG_SCALE, _LARGEST_LOG_SCALE), method="bounded")
    return Calibration(float(math.exp(best.x)))


def _without_outliers(decisions):
    """Decision values clipped to ten times their median size, so that no single image decides the calibration."""
    most = 10 * np.median(np.abs(decisions))
    return np.clip(decisions, -most, most) if most > 0 else decisions


def tempered(probabilities: np.ndarray, temperature: float | None) -> np.ndarray:
    """The softmax of log-probabilities / temperature: calibrated probabilities, with the order of the classes kept.

    Parameters
    ----------
    probabilities : float (n, classes)
        Softmax of a network's outputs: for any outputs f, softmax(log(softmax(f)) / T) = softmax(f / T).
    temperature : float or None
        None: they are returned as they are.

    Returns
    -------
    ndarray
        float64, in which no two classes become equal that were not.
    """
    if temperature is None:
        return probabilities
    values = np.log(np.maximum(np.asarray(probabilities, np.float64), _SMALLEST)) / temperature
    values = np.exp(values - values.max(axis=1, keepdims=True))
    return values / values.sum(axis=1, keepdims=True)


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The temperature for `tempered` that held-out images make most probable, T = 1 being most probable before.

    log T has a normal prior around 0 with standard deviation 0.5. Without it a few images that are all predicted
    rightly would make T almost 0 and every later mistake a certain one; Platt's smoothing of the labels, with three
    images of each of 20 classes, would make the probabilities far too low. Measured in docs/evaluate.md.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    logs, rows = np.log(np.maximum(np.asarray(probabilities, np.float64), _SMALLEST)), np.arange(len(labels))

    def loss(log_temperature):
        values = logs / math.exp(log_temperature)
        totals: Any = logsumexp(values, axis=1)
        return (totals - values[rows, labels]).sum() + 0.5 * (log_temperature / _PRIOR) ** 2

    best: Any = minimize_scalar(loss, bounds=(-_LARGEST_LOG_SCALE, _LARGEST_LOG_SCALE), method="bounded")
    return float(math.exp(best.x))


def held_out_tempered(probabilities: np.ndarray, labels: np.ndarray, k: int = FOLDS, seed: int = 0) -> np.ndarray:
    """Calibrated probabilities of each image by a temperature that was fitted to the others, in `k` random folds.

    What `log_loss` and the calibration error say of them holds for new images, as it would not for images that the
    temperature was fitted to.

    Parameters
    ----------
    probabilities : float (n, classes)
        Uncalibrated, of held-out images; two or more.
    labels : int (n,)
    k : int, default 5
        At most one fold an image.
    seed : int, default 0
        Of the folds.
    """
    labels, found = np.asarray(labels), np.empty(probabilities.shape, np.float64)
    order = np.random.RandomState(seed).permutation(len(labels))
    for part in np.array_split(order, min(k, len(labels))):
        rest = np.setdiff1d(order, part)
        found[part] = tempered(probabilities[part], fit_temperature(probabilities[rest], labels[rest]))
    return found


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean negative log-probability of the labels, in nats: low for probabilities that are right and calibrated.

    As scikit-learn's: a probability of 0 counts as float64's rounding, 2.2e-16.
    """
    chosen = np.asarray(probabilities, np.float64)[np.arange(len(labels)), np.asarray(labels)]
    return float(-np.log(np.maximum(chosen, np.finfo(np.float64).eps)).mean())
