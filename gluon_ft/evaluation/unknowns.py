"""What a network does not know: images unlike those that it was trained on, and the classes that remain possible.

Unlike: the distance of an image is one minus the mean cosine similarity of its penultimate features to those of its
`NEIGHBOURS` nearest training images (Sun et al. 2022, Out-of-distribution detection with deep nearest neighbors,
https://arxiv.org/abs/2204.06507). Of the distances that were measured (benchmarks/accuracy/unknowns.py), Mahalanobis
and relative Mahalanobis among them, it tells strange images best. An image is unlike where its distance is beyond that
of all but a stated share of images that the network was not trained on: the rate of false alarms.

Possible: split conformal prediction with the score 1 - probability of the label (LAC; Sadinle, Lei, Wasserman 2019,
https://arxiv.org/abs/1609.00451; Angelopoulos and Bates 2021, https://arxiv.org/abs/2107.07511). A class is possible
where its score is at most the ceil((n + 1) coverage)-th smallest of n held-out images' scores; the sets then have the
label of a new image of the same kind in at least that share of cases. The most probable class is always named.

Both need images that the network was not fitted to; what they gave is kept beside the parameters, in
`<model>.params.features`, whose SHA-256 is in the card.
"""
from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np

from gluon_ft.errors import ConfigError, WeightsError
from gluon_ft.io.checksums import sha256_of
from gluon_ft.io.paths import AnyPath
from gluon_ft.models import tracing
from gluon_ft.training import checkpoint
from gluon_ft.weights.readers.tensor_files import check_finite, read_tensors

NEIGHBOURS = 5
SHORTEST = 1e-12  # length of a feature vector that is divided by, so that none is divided by zero
RATE = 0.05  # of false alarms, by default
CARD_KEY = "known"  # in the card's `extra`
# Bounds of the file: training images kept, bytes of their features, and scores of held-out images.
MOST_IMAGES, MOST_BYTES, MOST_SCORES = 2000, 8 << 20, 5000
_MOST_FILE = 2 * MOST_BYTES
_BLOCK = 512


@dataclass(frozen=True)
class Known:
    """What is kept of the images that a network knows.

    Attributes
    ----------
    vectors : float16 (m, d)
        Penultimate features of training images, each of length 1.
    distances : float32 (s,)
        Of images that the network was not fitted to, in ascending order.
    scores : float32 (t,)
        1 - probability of the label of such images, in ascending order; empty where that is not known.
    """

    vectors: np.ndarray
    distances: np.ndarray
    scores: np.ndarray

    def distance(self, features: np.ndarray) -> np.ndarray:
        """The distances of images, 0 to 2, from their penultimate features (n, d): float32 (n,)."""
        return _nearest(_unit(features), self.vectors.astype(np.float32))

    def limit(self, rate: float = RATE) -> float:
        """The distance beyond which an image is unlike; infinite where there are too few images for the rate.

        Raises ConfigError for a rate that is not between 0 and 1.
        """
        return _quantile(self.distances, 1 - _share(rate, "rate of false alarms"))

    def possible(self, probabilities: np.ndarray, coverage: float) -> np.ndarray:
        """Which classes remain possible.

        Parameters
        ----------
        probabilities : float (n, classes)
        coverage : float
            Share of the images whose label is to be among them, between 0 and 1.

        Returns
        -------
        ndarray
            bool (n, classes); one or more of each image. All, where there are too few held-out images for the coverage.

        Raises
        ------
        ConfigError
            The coverage is out of range, or no scores are kept.
        """
        found = conformal_sets(probabilities, self.scores, coverage)
        found[np.arange(len(found)), np.argmax(probabilities, axis=1)] = True
        return found


def possible(known: Known | None, probabilities: np.ndarray, coverage: float) -> np.ndarray:
    """`Known.possible`; ConfigError too where a model keeps nothing of its training.

    Parameters
    ----------
    known : Known or None
    probabilities, coverage
        As of `Known.possible`.
    """
    none = np.zeros(0, np.float32)
    return (known or Known(none, none, none)).possible(probabilities, coverage)


def conformal_sets(probabilities: np.ndarray, scores: np.ndarray, coverage: float) -> np.ndarray:
    """The plain conformal sets, which may be empty: bool (n, classes).

    Parameters
    ----------
    probabilities : float (n, classes)
    scores : float (t,)
        In ascending order, see `conformal_scores`.
    coverage : float
        Between 0 and 1.

    Raises
    ------
    ConfigError
        The coverage is out of range, or there are no scores.
    """
    coverage = _share(coverage, "coverage")
    if not len(scores):
        raise ConfigError("no coverage can be promised", expected="a model whose training kept some images out",
                          remedy="train with validation images (gluon-ft train), or leave out the coverage")
    return 1 - np.asarray(probabilities) <= _quantile(scores, coverage) + 1e-6  # of rounding to float32


def conformal_scores(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """1 - probability of the label, float32 (n,) in ascending order, at most `MOST_SCORES` of them."""
    own = np.asarray(probabilities)[np.arange(len(labels)), np.asarray(labels)]
    return _thinned(np.sort(1 - own).astype(np.float32))


def fit(features: np.ndarray, labels: np.ndarray, others: np.ndarray | None = None,
        scores: np.ndarray | None = None) -> Known | None:
    """Describes the images that a network knows.

    Parameters
    ----------
    features : float (n, d)
        Penultimate, of the training images.
    labels : int (n,)
        Of at most `MOST_IMAGES` images, each class alike, the features are kept.
    others : float (m, d), optional
        Of images that the network was not fitted to. Without them the training images count as such, each compared with
        the others only: for features that were not trained on these images.
    scores : float (t,), optional
        See `conformal_scores`.

    Returns
    -------
    Known or None
        None where there are too few images for distances.
    """
    units = _unit(features)
    kept = drawn(np.asarray(labels), min(MOST_IMAGES, MOST_BYTES // (2 * units.shape[1])))
    vectors = units[kept].astype(np.float16)
    if len(vectors) <= NEIGHBOURS or (others is not None and not len(others)):
        return None
    reference = vectors.astype(np.float32)
    if others is None:
        own = np.full(len(units), -1)
        own[kept] = np.arange(len(kept))
        distances = _nearest(units, reference, own)
    else:
        distances = _nearest(_unit(others), reference)
    return Known(vectors, _thinned(np.sort(distances)), np.zeros(0, np.float32) if scores is None else scores)


def beside(path: AnyPath) -> Path:
    """Where what a model knows is kept: `<model>.params.features`."""
    return Path(f"{os.fspath(path)}.features")


def write(known: Known, path: AnyPath) -> dict:
    """Writes the file beside the model at `path`; returns what the card's `extra` has of it under `CARD_KEY`.

    Raises CheckpointError where it cannot be written.
    """
    place, arrays = beside(path), {"vectors": known.vectors, "distances": known.distances}
    if len(known.scores):
        arrays["scores"] = known.scores
    with checkpoint.saving(place):
        checkpoint.save_arrays({name: mx.nd.array(array, dtype=array.dtype) for name, array in arrays.items()}, place)
    return {"sha256": sha256_of(place), "images": len(known.vectors), "held_out": len(known.distances),
            "limit": round(known.limit(), 6) if math.isfinite(known.limit()) else None, "rate": RATE}


def of(net: Any) -> Known | None:
    """What a network from `load_model` knows; None where its card does not speak of it.

    Raises
    ------
    WeightsError
        The file is missing, damaged, or not the one that the card speaks of.
    """
    about = (getattr(getattr(net, "weights", None), "extra", None) or {}).get(CARD_KEY)
    path = getattr(net, "params_path", None)
    if about is None or path is None:
        return None
    if getattr(net, "known", None) is None:
        layer = tracing.output_layer(net).block
        net.known = _read(beside(path), about, math.prod(layer.weight.shape[1:]))
    return net.known


def _read(path: Path, about: Any, width: int) -> Known:
    if not path.is_file():
        raise WeightsError("what the model knows is missing, by which unknown images are told", path=path,
                           expected="the file that was saved with the model",
                           remedy="copy it as well, or predict with --no-unknowns")
    if path.stat().st_size > _MOST_FILE:
        raise WeightsError("not what a model knows", path=path, expected=f"at most {_MOST_FILE} bytes",
                           found=path.stat().st_size)
    file = read_tensors(path)
    if not isinstance(about, dict) or file.sha256 != about.get("sha256"):
        raise WeightsError("not the file that the model's card speaks of", path=path,
                           remedy="copy the model's files again, all three")
    none = np.zeros(0, np.float32)
    arrays = {"vectors": none, "distances": none, "scores": none, **file.tensors}
    vectors, distances, scores = (arrays[name] for name in ("vectors", "distances", "scores"))
    fits = len(arrays) == 3 and vectors.ndim == 2 and distances.ndim == scores.ndim == 1 \
        and vectors.dtype == np.float16 and distances.dtype == scores.dtype == np.float32
    if not fits or vectors.shape[1] != width or len(vectors) <= NEIGHBOURS or not len(distances):
        raise WeightsError("not what this model knows", path=path, expected=f"features of {width} numbers an image",
                           found=", ".join(f"{name} {arrays[name].shape}" for name in arrays))
    check_finite(arrays, path)
    return Known(vectors, np.sort(distances), np.sort(scores))


def _share(value, what) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1:
        raise ConfigError(f"{what} out of range", expected="a number between 0 and 1, such as 0.05", found=repr(value))
    return float(value)


def _quantile(values: np.ndarray, share: float) -> float:
    """The ceil((n + 1) share)-th smallest of n values in ascending order, infinite where n is too small for that."""
    rank = math.ceil((len(values) + 1) * share - 1e-9)
    return float(values[rank - 1]) if rank <= len(values) else math.inf


def _thinned(values: np.ndarray) -> np.ndarray:
    """At most `MOST_SCORES` of values in ascending order, at equal steps of rank, each no smaller than its step's."""
    if len(values) <= MOST_SCORES:
        return values
    return values[np.ceil(np.arange(1, MOST_SCORES + 1) * len(values) / MOST_SCORES).astype(int) - 1]


def _unit(features) -> np.ndarray:
    features = np.asarray(features, np.float32)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), SHORTEST)


def _nearest(units: np.ndarray, reference: np.ndarray, own: np.ndarray | None = None) -> np.ndarray:
    """1 - mean similarity to the nearest of the reference; row own[i] of it is image i itself, and is passed over."""
    found = np.empty(len(units), np.float32)
    for start in range(0, len(units), _BLOCK):
        similar = units[start:start + _BLOCK] @ reference.T
        if own is not None:
            rows = np.flatnonzero(own[start:start + _BLOCK] >= 0)
            similar[rows, own[start:start + _BLOCK][rows]] = -2
        nearest = np.partition(similar, -NEIGHBOURS, axis=1)[:, -NEIGHBOURS:]
        found[start:start + _BLOCK] = 1 - nearest.mean(axis=1)
    return found


def drawn(labels: np.ndarray, most: int = MOST_IMAGES) -> np.ndarray:
    """Positions of at most `most` images by their labels, of each class alike as far as it goes: int64, sorted."""
    if len(labels) <= most:
        return np.arange(len(labels))
    order = np.random.RandomState(0).permutation(len(labels))
    # An image's place within its class, in random order: the first ones of every class come first.
    place = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        own = order[labels[order] == label]
        place[own] = np.arange(len(own))
    return np.sort(order[np.argsort(place[order], kind="stable")[:most]])
