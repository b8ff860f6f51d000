"""Linear classifiers on penultimate features: chosen by cross-validation, calibrated, and put into the network.

The result is a linear function of the features whose softmax gives the probabilities: exactly a Dense layer with a
bias, with scaling and calibration (`evaluation.calibration`) folded into its weights. For two classes with the
calibrated decision value z the layer's outputs are -z/2 and z/2, whose softmax is Platt's sigmoid of z.
"""
from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import mxnet as mx
import numpy as np
from mxnet.gluon import HybridBlock

from gluon_ft.data.sources.class_names import whole
from gluon_ft.errors import ConfigError, DataError, NetworkError, near
from gluon_ft.evaluation import folds
from gluon_ft.evaluation.calibration import NO_CALIBRATION, Calibration, calibrate
from gluon_ft.models import heads, tracing

# Kind -> the pairs of classifier and scaling that are tried; of equally accurate ones the first is taken.
# 'each': every feature is scaled to mean 0 and variance 1. 'all': every feature is shifted to mean 0, and one factor
# scales all of them to a mean variance of 1. 'each' amplifies features that hardly vary, which costs accuracy where
# there are many of them.
KINDS = {
    "svm": (("svm", "each"),),
    "logistic": (("logistic", "each"),),
    "linear": (("logistic", "all"), ("logistic", "each"), ("svm", "all"), ("svm", "each")),
}
WORDS = {(kind, scaling): f"{name}, {how}"
         for kind, name in (("svm", "linear SVM"), ("logistic", "logistic regression"))
         for scaling, how in (("each", "every feature scaled by itself"), ("all", "all features scaled alike"))}
CONSTANT = 1e-5  # a feature varies by rounding only if its standard deviation over its mean is at most this
# scikit-learn's C, the inverse of the regularisation, for scaled features; of equally accurate ones the smallest wins.
GRID = tuple(10.0 ** exponent for exponent in range(-6, 2))
# Limit on C times the number of features, where an SVM is tried beside others: on photos, small pictures and digits
# none above it was chosen, and most of the time would go there.
SVM_MOST = 20.0


@dataclass(frozen=True)
class Linear:
    """The result of `fit`.

    Attributes
    ----------
    kind, scaling : str
        Of the chosen classifier: 'svm' or 'logistic'; 'each' or 'all', see `KINDS`.
    classifier, scaler
        scikit-learn objects, fitted on all the features.
    calibration : Calibration
    C : float
        The chosen inverse regularisation.
    scores : list of dict
        One for each candidate: kind, scaling, C, and mean and sd of the accuracy over the folds.
    held_out : float64 (n, classes)
        Calibrated probabilities of each image by the fold's classifier that was not fitted to it.
    """

    kind: str
    classifier: Any
    scaler: Any
    calibration: Calibration
    C: float
    scores: list[dict] = field(default_factory=list)
    scaling: str = "each"
    held_out: np.ndarray | None = None

    def dense(self) -> tuple[np.ndarray, np.ndarray]:
        """Weight and bias of the equivalent Dense layer, see `as_dense`."""
        return as_dense(self.classifier, self.scaler, self.calibration)

    def logits(self, features: np.ndarray) -> np.ndarray:
        """float64 (n, classes), computed by scikit-learn; equal to the outputs of the layer `dense`."""
        found = np.asarray(self.classifier.decision_function(self.scaler.transform(features)), np.float64)
        return _calibrated(found, self.calibration)

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """float64 (n, classes), calibrated."""
        return _softmax(self.logits(features))


class _Candidate(NamedTuple):
    kind: str
    scaling: str
    C: float


def fit(features: np.ndarray, labels: np.ndarray, kind: str = "linear", k: int = 5, seed: int = 0,
        groups: np.ndarray | Sequence[int] | None = None, grid: Sequence[float] = GRID) -> Linear:
    """Fits a linear classifier to features, and chooses everything about it by `k` folds of these images.

    Parameters
    ----------
    features : float array (n, d)
        Of the training images only.
    labels : int array (n,)
        0 to classes - 1; every class has images.
    kind : {'linear', 'svm', 'logistic'}
        'svm': scikit-learn's LinearSVC, one against the rest, on standardised features. 'logistic': multinomial
        LogisticRegression on the same. 'linear': the more accurate of the two, with either scaling of `KINDS`; of
        equally accurate ones logistic regression, and the SVM only with C up to `SVM_MOST` / d.
    k, seed, groups
        As in `folds.folds`; the scaling is fitted within each fold.
    grid : sequence of float
        Values of C to choose from, by the mean accuracy over the folds; of equally accurate ones the smallest.

    Returns
    -------
    Linear
        Fitted on all the images, calibrated by the decision values of the folds' held-out images.

    Raises
    ------
    ConfigError
        The kind is unknown, or there are too many folds.
    DataError
        Features and labels do not fit each other.
    """
    from threadpoolctl import threadpool_limits

    features, labels = _checked(features, labels)
    if kind not in KINDS:
        raise ConfigError(f"no classifier '{kind}'", remedy=near(kind, KINDS))
    candidates = [_Candidate(classifier, scaling, c) for classifier, scaling in KINDS[kind] for c in sorted(grid)
                  if classifier != "svm" or kind == "svm" or c * features.shape[1] <= SVM_MOST]
    splits = folds.folds(labels, k, seed, groups)
    # With several threads, products of this size are ten times slower where the processors have other work.
    with threadpool_limits(1, user_api="blas"), warnings.catch_warnings():
        # A large C need not converge on features that are not separable; it is still chosen only for its accuracy.
        warnings.filterwarnings("ignore", message=".*(onverge|increase the number of iterations)")
        held_out, scores = _cross_validated(candidates, features, labels, splits, seed)
        best = max(range(len(candidates)), key=lambda i: (scores[i]["mean"], -i))
        chosen = candidates[best]
        space = _Space.of(chosen.scaling, features)
        inside = space.coordinates(features)
        classifier = _classifier(chosen.kind, inside, seed).set_params(C=chosen.C).fit(inside, labels)
    calibration = calibrate(held_out[best], labels)
    return Linear(chosen.kind, space.back(classifier), space.scaler, calibration, chosen.C, scores, chosen.scaling,
                  _softmax(_calibrated(held_out[best], calibration)))


def fit_once(features: np.ndarray, labels: np.ndarray, kind: str, scaling: str = "each", C: float = 0.01,
             seed: int = 0) -> Linear:
    """Fits one classifier with settings that are known, without folds, and so uncalibrated.

    Parameters
    ----------
    features, labels
        As of `fit`.
    kind : {'svm', 'logistic'}
    scaling : {'each', 'all'}
    C : float
        Inverse regularisation.
    seed : int, default 0

    Raises
    ------
    DataError
        As `fit` does.
    """
    from threadpoolctl import threadpool_limits

    features, labels = _checked(features, labels)
    with threadpool_limits(1, user_api="blas"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(onverge|increase the number of iterations)")
        space = _Space.of(scaling, features)
        inside = space.coordinates(features)
        classifier = _classifier(kind, inside, seed).set_params(C=C).fit(inside, labels)
    return Linear(kind, space.back(classifier), space.scaler, NO_CALIBRATION, C, scaling=scaling)


def _cross_validated(candidates, features, labels, splits, seed):
    """The held-out images' decision values, one array per candidate, and the candidates' scores."""
    width = (len(labels),) if labels.max() == 1 else (len(labels), labels.max() + 1)
    held_out = np.empty((len(candidates), *width))
    accuracies = np.empty((len(candidates), len(splits)))
    for fold, (train, test) in enumerate(splits):
        spaces = {scaling: _Space.of(scaling, features[train]) for scaling in {one.scaling for one in candidates}}
        for (kind, scaling), alike in itertools.groupby(enumerate(candidates), lambda pair: pair[1][:2]):
            inside, outside = (spaces[scaling].coordinates(features[rows]) for rows in (train, test))
            # C increases from one candidate to the next, and each fit starts from the last one's result.
            classifier = _classifier(kind, inside, seed)
            for number, one in alike:
                classifier.set_params(C=one.C).fit(inside, labels[train])
                held_out[number, test] = classifier.decision_function(outside)
                accuracies[number, fold] = (classifier.predict(outside) == labels[test]).mean()
    return held_out, [{**one._asdict(), "mean": float(row.mean()), "sd": float(row.std())}
                      for one, row in zip(candidates, accuracies)]


def _classifier(kind, values, seed) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import LinearSVC

    if kind == "svm":
        # The primal takes a hundred times as long with a large C and about as many features as images.
        return LinearSVC(dual=len(values) <= 2 * values.shape[1], max_iter=5000, random_state=seed)
    return LogisticRegression(max_iter=1000, warm_start=True)


@dataclass(frozen=True)
class _Space:
    """Scaled features in the coordinates that the training images span.

    The weights of an L2-regularised linear classifier are combinations of the training images (representer theorem), so
    n coordinates give the same classifier as d > n features, and faster. `basis` is (n, d), orthonormal; None where
    d <= n.
    """

    scaler: Any
    basis: np.ndarray | None

    @classmethod
    def of(cls, scaling, features):
        from sklearn.preprocessing import StandardScaler

        scaler: Any = StandardScaler().fit(features)
        # A feature that varies only by float32's rounding is constant; scaled to variance 1 it would be pure noise.
        scaler.scale_[np.sqrt(scaler.var_) <= CONSTANT * np.abs(scaler.mean_)] = 1.0
        if scaling == "all":
            scaler.scale_ = np.full(len(scaler.var_), np.sqrt(scaler.var_.mean()) or 1.0)
        values = scaler.transform(features)
        if values.shape[1] <= len(values):
            return cls(scaler, None)
        eigenvalues, vectors = np.linalg.eigh(values @ values.T)
        kept = eigenvalues > 1e-10 * eigenvalues[-1]
        return cls(scaler, (vectors[:, kept] / np.sqrt(eigenvalues[kept])).T @ values if kept.any() else None)

    def coordinates(self, features):
        values = self.scaler.transform(features)
        return values if self.basis is None else values @ self.basis.T

    def back(self, classifier):
        """Turns a classifier of coordinates into one of scaled features, in place."""
        if self.basis is not None:
            classifier.coef_ = classifier.coef_ @ self.basis
            classifier.n_features_in_ = self.basis.shape[1]
        return classifier


def as_dense(classifier: Any, scaler: Any = None,
             calibration: Calibration = NO_CALIBRATION) -> tuple[np.ndarray, np.ndarray]:
    """Turns a linear classifier of scikit-learn into the equivalent Dense layer.

    For two classes scikit-learn has one decision value f; the layer has two outputs, -f/2 and f/2.

    Parameters
    ----------
    classifier : LinearSVC, LogisticRegression, SGDClassifier, ...
        Fitted, with `coef_` and `intercept_`, on classes 0, 1, 2, ...
    scaler : StandardScaler, optional
        Applied before the classifier.
    calibration : Calibration, default none
        Applied to the classifier's decision values.

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
    """Replaces a network's output layer by one with the given weights, in place.

    The network then computes features @ weight.T + bias, where the features are those of
    `training.feature_cache.features.extract`. If the output is a 1x1 convolution, the new one is too; an activation
    after it is removed.

    Parameters
    ----------
    net : HybridBlock
    weight : float (k, d)
    bias : float (k,)
    classes : list of str, optional
        Class names, set as `net.classes`. Default: `net.classes` stays if it has as many names.

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


def _calibrated(decisions, calibration):
    values = calibration.scale * decisions + calibration.offset
    return np.stack([-values / 2, values / 2], axis=1) if values.ndim == 1 else values


def _softmax(values):
    values = np.exp(values - values.max(axis=1, keepdims=True))
    return values / values.sum(axis=1, keepdims=True)
