"""Calibration of decision values into probabilities, and the log loss that judges it.

Two classes: Platt's sigmoid of the decision value f, p = 1 / (1 + exp(-(a f + b))) (Platt 1999, Probabilistic outputs
for support vector machines). More classes: the softmax of a f, f being all classes' decision values, with one number
a, which changes no decision (temperature scaling: Guo et al. 2017, https://arxiv.org/abs/1706.04599). a and b come from
decision values of held-out images.
"""
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

_MOST = 12.0  # of the logarithm of the scale, where the search ends
_LEAST = 1e-6  # of the scale


@dataclass(frozen=True)
class Calibration:
    """Decision values f become scale * f + offset before the softmax; offset for two classes only."""

    scale: float = 1.0
    offset: float = 0.0


NO_CALIBRATION = Calibration()


def calibrate(decisions: np.ndarray, labels: np.ndarray) -> Calibration:
    """Finds the calibration under which held-out decision values are most likely, see above.

    Labels are softened as by Platt, so that few images do not give certainty: an image of a class with m images counts
    as of that class with probability (m + 1) / (m + 2); the rest goes to the other classes.

    Parameters
    ----------
    decisions : float (n,) for two classes, (n, classes) for more
    labels : int (n,)
    """
    from scipy.optimize import minimize, minimize_scalar
    from scipy.special import expit, logsumexp

    decisions, labels = _without_outliers(np.asarray(decisions, np.float64)), np.asarray(labels)
    if decisions.ndim == 1:
        positive = np.count_nonzero(labels == 1)
        wanted = np.where(labels == 1, (positive + 1) / (positive + 2), 1 / (len(labels) - positive + 2))
        unit = np.abs(decisions).max() or 1.0  # so that the search has numbers near 1

        def loss(parameters):
            z = parameters[0] * decisions / unit + parameters[1]
            wrong = expit(z) - wanted
            value = np.logaddexp(0, z).sum() - (wanted * z).sum()
            return value, np.array([(wrong * decisions / unit).sum(), wrong.sum()])

        # A scale of 0 or less would reverse what the classifier decides.
        scale, offset = minimize(loss, [unit, 0.0], jac=True, method="L-BFGS-B",
                                 bounds=[(_LEAST * unit, None), (None, None)], options={"ftol": 1e-14, "gtol": 1e-9}).x
        return Calibration(float(scale / unit), float(offset))
    counts = np.bincount(labels, minlength=decisions.shape[1])
    wanted = np.repeat(((1 / (counts + 2)) / (len(counts) - 1))[labels, None], len(counts), axis=1)
    wanted[np.arange(len(labels)), labels] = (counts[labels] + 1) / (counts[labels] + 2)

    def surprise(log_scale):
        values = math.exp(log_scale) * decisions
        return (logsumexp(values, axis=1) - (wanted * values).sum(axis=1)).mean()

    best: Any = minimize_scalar(surprise, bounds=(-_MOST, _MOST), method="bounded")
    return Calibration(float(math.exp(best.x)))


def _without_outliers(decisions):
    """Decision values, none further from 0 than ten times the usual distance: a single image must not settle it."""
    most = 10 * np.median(np.abs(decisions))
    return np.clip(decisions, -most, most) if most > 0 else decisions


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean -log of the labels' probabilities, in nats: low where they are both right and calibrated."""
    chosen = np.asarray(probabilities)[np.arange(len(labels)), np.asarray(labels)]
    return float(np.log(1 / np.maximum(chosen, 1e-15)).mean())
