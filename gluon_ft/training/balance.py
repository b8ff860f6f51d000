"""Classes of unequal size: weights for the loss; `data.order.balanced_order` shows each class equally often instead."""
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


def _counts(labels, classes):
    labels = np.asarray(labels)
    if not len(labels):
        raise DataError("no labels to balance", expected="at least one", found="an empty set")
    # Written so that NaN is outside as well.
    wrong = labels[~((labels >= 0) & (labels < classes))]
    if len(wrong):
        raise DataError(f"{len(wrong)} labels outside the classes", expected=f"0 to {classes - 1}", found=wrong[0])
    return np.bincount(labels.astype(np.int64), minlength=classes)
