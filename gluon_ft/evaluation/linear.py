"""Linear classifiers on penultimate features, chosen by cross-validation, calibrated, and put back into the network.

What is fitted here is a linear function of the features whose softmax gives the probabilities, so that it is exactly a
Dense layer with a bias: standardisation and calibration are folded into its weights. Two classes: Platt's sigmoid of
the decision value f, p = 1 / (1 + exp(-(a f + b))), which is the softmax of (-z/2, z/2) with z = a f + b (Platt 1999,
Probabilistic outputs for support vector machines). More classes: the softmax of a f, f being all classes' decision
values, with one number a, which changes no decision (temperature scaling: Guo et al. 2017,
https://arxiv.org/abs/1706.04599). a and b come from decision values of held-out folds.
"""
from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import mxnet as mx
import numpy as np
from mxnet.gluon import HybridBlock

from gluon_ft.data.sources.class_names import whole
from gluon_ft.errors import ConfigError, DataError, NetworkError, near
from gluon_ft.evaluation import folds
from gluon_ft.models import heads, tracing

KINDS = ("svm", "logistic")
# C of scikit-learn, the inverse of the regularisation, for standardised features. Of equals the smallest is taken.
GRID = tuple(10.0 ** exponent for exponent in range(-6, 2))
_MOST = 12.0  # of the logarithm of the calibration's scale, where the search ends


@dataclass(frozen=True)
class Calibration:
    """Decision values f become scale * f + offset before the softmax; offset for two classes only."""

    scale: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True)
class Linear:
    """What `fit` returns.

    Attributes
    ----------
    kind : str
        Of the classifier, as `fit` was asked for.
    classifier, scaler
        scikit-learn's, fitted on all the features.
    calibration : Calibration
    C : float
        The one chosen.
    scores : list of dict
        One for each C that was tried: C, and mean and sd of the accuracy over the folds.
    """

    kind: str
    classifier: Any
    scaler: Any
    calibration: Calibration
    C: float
    scores: list[dict] = field(default_factory=list)

    def dense(self) -> tuple[np.ndarray, np.ndarray]:
        """The Dense layer that equals it, see `as_dense`."""
        return as_dense(self.classifier, self.scaler, self.calibration)

    def logits(self, features: np.ndarray) -> np.ndarray:
        """float64 (n, classes), computed by scikit-learn; what `dense` gives for the same features."""
        found = np.asarray(self.classifier.decision_function(self.scaler.transform(features)), np.float64)
        values = self.calibration.scale * found + self.calibration.offset
        return np.stack([-values / 2, values / 2], axis=1) if values.ndim == 1 else values

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """float64 (n, classes), calibrated."""
        return _softmax(self.logits(features))


def fit(features: np.ndarray, labels: np.ndarray, kind: str = "svm", k: int = 5, seed: int = 0,
        groups: np.ndarray | Sequence[int] | None = None, grid: Sequence[float] = GRID) -> Linear:
    """Fits a linear classifier to features; everything about it is chosen inside, by `k` folds of these images.

    Parameters
    ----------
    features : float (n, d), of the training images only
    labels : int (n,), 0 to classes - 1, each class there
    kind : 'svm' (LinearSVC, one against the rest) or 'logistic' (LogisticRegression, multinomial)
    k, seed, groups : of the folds, see `cross_validation.folds`; the standardisation is fitted within each fold
    grid : values of C to choose from, by mean accuracy; the smallest of equals

    Raises ConfigError for an unknown kind or too many folds, DataError for features and labels that do not fit.
    """
    from sklearn.model_selection import GridSearchCV, cross_val_predict
    from threadpoolctl import threadpool_limits

    features, labels = _checked(features, labels)
    splits = folds.folds(labels, k, seed, groups)
    search = GridSearchCV(_pipeline(kind, seed), {"classifier__C": sorted(grid)}, cv=splits, scoring="accuracy")
    # More threads than one make products of this size ten times slower where the processors have other work.
    with threadpool_limits(1, user_api="blas"), warnings.catch_warnings():
        # A large C on features that are not separable need not converge; it still has to win by its accuracy.
        warnings.filterwarnings("ignore", message=".*(onverge|increase the number of iterations)")
        search.fit(features, labels)
        held_out = cross_val_predict(search.best_estimator_, features, labels, cv=splits, method="decision_function")
    held_out = np.asarray(held_out)
    found = search.cv_results_
    scores = [{"C": c, "mean": mean, "sd": sd} for c, mean, sd in zip(
        sorted(grid), found["mean_test_score"].tolist(), found["std_test_score"].tolist())]
    steps = search.best_estimator_.named_steps
    return Linear(kind, steps["classifier"], steps["scaler"], calibrate(held_out, labels),
                  search.best_params_["classifier__C"], scores)


def _pipeline(kind, seed):
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    if kind not in KINDS:
        raise ConfigError(f"no classifier '{kind}'", remedy=near(kind, KINDS))
    classifier = (LinearSVC(dual="auto", max_iter=5000, random_state=seed) if kind == "svm"
                  else LogisticRegression(max_iter=1000))
    return Pipeline([("scaler", StandardScaler()), ("classifier", classifier)])


def calibrate(decisions: np.ndarray, labels: np.ndarray) -> Calibration:
    """Finds the calibration under which held-out decision values are most likely, see the module's text.

    Labels are softened as by Platt, so that few images do not give certainty: an image of a class with m images counts
    as of that class with probability (m + 1) / (m + 2); the rest goes to the other classes.

    Parameters
    ----------
    decisions : float (n,) for two classes, (n, classes) for more
    labels : int (n,)
    """
    from scipy.optimize import minimize, minimize_scalar
    from scipy.special import logsumexp

    decisions, labels = np.asarray(decisions, np.float64), np.asarray(labels)
    if decisions.ndim == 1:
        positive = np.count_nonzero(labels == 1)
        wanted = np.where(labels == 1, (positive + 1) / (positive + 2), 1 / (len(labels) - positive + 2))
        unit = np.abs(decisions).max() or 1.0  # so that the search has numbers near 1

        def loss(parameters):
            z = parameters[0] * decisions / unit + parameters[1]
            wrong = 1 / (1 + np.exp(-z)) - wanted
            value = np.logaddexp(0, z).sum() - (wanted * z).sum()
            return value, np.array([(wrong * decisions / unit).sum(), wrong.sum()])

        scale, offset = minimize(loss, [unit, 0.0], jac=True, method="BFGS").x
        return Calibration(float(scale / unit), float(offset))
    counts = np.bincount(labels, minlength=decisions.shape[1])
    wanted = np.repeat(((1 / (counts + 2)) / (len(counts) - 1))[labels, None], len(counts), axis=1)
    wanted[np.arange(len(labels)), labels] = (counts[labels] + 1) / (counts[labels] + 2)

    def surprise(log_scale):
        values = math.exp(log_scale) * decisions
        return (logsumexp(values, axis=1) - (wanted * values).sum(axis=1)).mean()

    best: Any = minimize_scalar(surprise, bounds=(-_MOST, _MOST), method="bounded")
    return Calibration(float(math.exp(best.x)))


def as_dense(classifier: Any, scaler: Any = None,
             calibration: Calibration = Calibration()) -> tuple[np.ndarray, np.ndarray]:
    """Turns a linear classifier of scikit-learn into the Dense layer that equals it.

    Of two classes, for which scikit-learn has one decision value f, the layer has two: -f/2 and f/2.

    Parameters
    ----------
    classifier : LinearSVC, LogisticRegression, SGDClassifier, ...
        Fitted, with `coef_` and `intercept_`, on classes 0, 1, 2, ...
    scaler : StandardScaler, optional
        That stands before it.
    calibration : Calibration, default none
        That comes after it.

    Returns
    -------
    (weight, bias)
        float32 (classes, d) and float32 (classes,).

    Raises
    ------
    ConfigError
        The classifier is not linear or not fitted, or its classes are not 0, 1, 2, ...
    """
    if not hasattr(classifier, "coef_") or not hasattr(classifier, "classes_"):
        raise ConfigError(f"{type(classifier).__name__} is not a linear classifier that was fitted",
                          expected="coef_, intercept_ and classes_")
    classes = np.asarray(classifier.classes_)
    if not np.array_equal(classes, np.arange(len(classes))):
        raise ConfigError("the classifier's classes are not the network's", expected=f"0 to {len(classes) - 1}",
                          found=", ".join(map(str, classes[:6])))
    weight = np.array(classifier.coef_, np.float64)
    bias = np.broadcast_to(np.asarray(classifier.intercept_, np.float64), len(weight)).copy()
    if getattr(scaler, "scale_", None) is not None:
        weight /= scaler.scale_
    if getattr(scaler, "mean_", None) is not None and getattr(scaler, "with_mean", True):
        bias -= weight @ scaler.mean_
    weight, bias = calibration.scale * weight, calibration.scale * bias + calibration.offset
    if len(weight) == 1:
        weight, bias = np.concatenate([-weight / 2, weight / 2]), np.concatenate([-bias / 2, bias / 2])
    return weight.astype(np.float32), bias.astype(np.float32)


def set_output(net: HybridBlock, weight: np.ndarray, bias: np.ndarray, classes: list[str] | None = None) -> HybridBlock:
    """Puts the weights of a Dense layer in the place of a network's output, in place.

    The network then gives features @ weight.T + bias, with the features of `training.feature_cache.features.extract`.
    Of an output that is a 1x1 convolution the new one is too, and an activation behind it is taken away.

    Parameters
    ----------
    net : HybridBlock
    weight : float (k, d)
    bias : float (k,)
    classes : list of str, optional
        Class names, set as `net.classes`; default: `net.classes` stays, where they are as many.

    Returns
    -------
    HybridBlock
        `net`.

    Raises
    ------
    NetworkError
        The shapes do not fit, or something else follows the output.
    """
    weight, bias = np.asarray(weight, np.float32), np.asarray(bias, np.float32)
    old = tracing.output_layer(net).block.weight.shape
    if weight.ndim != 2 or bias.shape != weight.shape[:1] or np.prod(old[1:]) not in (0, weight.shape[1]):
        raise NetworkError("the weights do not fit the output", expected=f"weight (k, {np.prod(old[1:])}), bias (k,)",
                           found=f"{weight.shape}, {bias.shape}")
    names = getattr(net, "classes", None) if classes is None else list(classes)
    heads.replace_output(net, len(bias), lr_mult=1)
    heads.make_linear(net)
    layer = tracing.output_layer(net).block
    shape = [extent or weight.shape[1] for extent in layer.weight.shape]
    layer.weight.set_data(mx.nd.array(weight.reshape(shape)))
    layer.bias.set_data(mx.nd.array(bias))
    net.classes = names if names is not None and len(names) == len(bias) else None
    return net


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean -log of the labels' probabilities, in nats: low where they are both right and calibrated."""
    chosen = np.asarray(probabilities)[np.arange(len(labels)), np.asarray(labels)]
    return float(np.log(1 / np.maximum(chosen, 1e-15)).mean())


def _checked(features, labels):
    features, labels = np.asarray(features, np.float64), whole(labels, "the labels")
    if features.ndim != 2 or len(features) != len(labels):
        raise DataError("features and labels do not fit", expected="(n, d) and (n,)",
                        found=f"{features.shape} and {labels.shape}")
    wrong = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(wrong):
        raise DataError("features that are not finite", found=f"those of image {wrong[0]}",
                        remedy="look at the weights and at that image")
    present = np.unique(labels)
    if len(present) < 2 or not np.array_equal(present, np.arange(len(present))):
        raise DataError("classes without a training image", expected="images of every class, two or more classes",
                        found=f"labels {', '.join(map(str, present[:6]))}")
    return features, labels.astype(np.int64)


def _softmax(values):
    values = np.exp(values - values.max(axis=1, keepdims=True))
    return values / values.sum(axis=1, keepdims=True)
