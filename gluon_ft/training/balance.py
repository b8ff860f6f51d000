"""Classes of unequal size: weights for the loss, or an order that shows each class equally often."""
from __future__ import annotations

import numpy as np

from gluon_ft.errors import DataError


def class_weights(labels, classes: int) -> np.ndarray:
    """float32 (classes,): n / (k * count), scikit-learn's rule 'balanced' (King and Zeng, 2001).

    labels : (n,) of class numbers; classes : of the network.
    n is the number of images and k that of the classes that have any, so that the mean over the images is 1 and the
    loss keeps its scale; a class without images gets 0. DataError for no labels, or one outside the classes.
    """
    counts = _counts(labels, classes)
    present = counts > 0
    weights = np.zeros(classes)
    weights[present] = counts.sum() / (present.sum() * counts[present])
    return weights.astype(np.float32)


def balanced_order(labels, rng: np.random.RandomState, count: int) -> np.ndarray:
    """int64 (count,) positions in `labels`, in random order, in which each class comes equally often.

    Numbers differ by at most 1 among the classes that have images; which classes get the one more is drawn. Within a
    class no image comes again before all others have come. Depends on the state of `rng` only.
    """
    labels = np.asarray(labels)
    counts = _counts(labels, int(labels.max(initial=0)) + 1)
    if count < 0:
        raise DataError("number of images out of range", expected="at least 0", found=count)
    members = [np.flatnonzero(labels == label) for label in np.flatnonzero(counts)]
    wanted = np.full(len(members), count // len(members))
    wanted[rng.permutation(len(members))[:count % len(members)]] += 1
    chosen = [_drawn(own, number, rng) for own, number in zip(members, wanted)]
    return rng.permutation(np.concatenate(chosen)).astype(np.int64)


def _drawn(members, number, rng):
    """`number` of the members: all of them in a random order, then again in another one."""
    rounds = [rng.permutation(members) for _ in range(-(-number // len(members)))]
    return np.concatenate([*rounds, members[:0]])[:number]


def _counts(labels, classes):
    labels = np.asarray(labels)
    if not len(labels):
        raise DataError("no labels to balance", expected="at least one", found="an empty set")
    # Written so that NaN is outside as well.
    wrong = labels[~((labels >= 0) & (labels < classes))]
    if len(wrong):
        raise DataError(f"{len(wrong)} labels outside the classes", expected=f"0 to {classes - 1}", found=wrong[0])
    return np.bincount(labels.astype(np.int64), minlength=classes)
