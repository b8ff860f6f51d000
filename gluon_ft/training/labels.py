"""Labels: checked against the network's output before they are used, and counted to weigh the classes."""
from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import mxnet as mx
import numpy as np

from gluon_ft.data.sources import class_names
from gluon_ft.errors import DataError, NetworkError, TrainingError
from gluon_ft.models import tracing

if TYPE_CHECKING:
    from mxnet.gluon import Block

    from gluon_ft.data.batches import Batch
    from gluon_ft.runtime.distributed.workers import Workers


class LabelCheck:
    """Compares labels with the network's classes: at once where a source knows its labels, else batch by batch.

    The one check of training and of evaluation, by Gluon or by Module: whole numbers from 0 to below the number of
    classes.

    A batch is compared before it is used, so that no label outside the output ever reaches it. Whether a class has no
    image is only known once all labels are.

    Parameters
    ----------
    classes : int or None
        Of the network's output; None where not known: labels then have no upper bound, until `learn` tells it.
    source : loader
        Its `labels`, where it has them, are compared at once.
    what : str
        'the training set', for errors.
    allow_empty : bool, default True
        False: a class without an image is an error.
    name : str
        Begins the errors, such as the name of the run.
    growing : str
        How the network gets more classes, for the remedy; 'N' in it becomes their number.

    Raises
    ------
    TrainingError, DataError
        As `check` and `end_of_epoch`, where the source knows its labels.
    """

    def __init__(self, classes: int | None, source, what: str, allow_empty: bool = True, name: str = "",
                 growing: str = "give the network N classes") -> None:
        self.classes, self.what, self.allow_empty, self.growing = classes or 0, what, allow_empty, growing
        self.prefix = f"{name}: " if name else ""
        self.counts = np.zeros(self.classes, dtype=np.int64)
        self.done = False
        known = labels_of(source)
        if known is not None:
            self._count(known, what)
            if self.classes:
                self.end_of_epoch()

    def learn(self, classes: int) -> None:
        """Sets the number of classes where it was not known, as the network's first result tells it."""
        if not self.classes:
            self.classes, self.counts = classes, np.zeros(classes, dtype=np.int64)

    def check(self, batch: Batch, step: int) -> None:
        """TrainingError where a label of the batch, number `step` from 1, is outside the output."""
        if not self.done and batch.valid:
            self._count(batch.label.asnumpy(), f"{self.what}, batch {step}")

    def _count(self, labels, where):
        labels = class_names.numbers(labels, f"{self.prefix}{where}")
        wrong = _outside(labels, self.classes or np.inf)
        if len(wrong):
            raise TrainingError(f"{self.prefix}{len(wrong)} labels outside the network's output in {where}",
                                expected=f"0 to {self.classes - 1}" if self.classes else "whole numbers from 0",
                                found=f"{wrong[0]:g}", remedy=self._remedy(labels))
        if self.classes:
            self.counts += np.bincount(labels.astype(np.int64), minlength=self.classes)

    def _remedy(self, labels):
        high = labels.max()
        if len(_outside(labels, np.inf)):
            return "correct the labels"
        return f"{self.growing.replace('N', str(int(high) + 1))}, or correct the labels"

    def end_of_epoch(self) -> None:
        """DataError where a class has no image."""
        if self.done:
            return
        self.done = True
        empty = np.flatnonzero(self.counts == 0)
        if len(empty) and self.counts.sum() and not self.allow_empty:
            raise DataError(f"{self.prefix}{len(empty)} of {self.classes} classes have no image in {self.what}",
                            expected="at least one each", found=f"none of class {empty[0]}",
                            remedy="add images, drop the class, or set allow_empty_classes")

    def add_up(self, workers: Workers, keep: bool = True) -> None:
        """Counts the labels of all workers together; where not `keep`, for worker 0 alone, and the others begin anew.
        """
        if not self.done:
            total = workers.total(self.counts).astype(np.int64)
            self.counts = total if keep or workers.rank == 0 else np.zeros_like(total)

    def restore(self, counts: list[int] | None) -> None:
        """Goes on from the counts in a checkpoint, None where all labels were counted. ValueError for other classes."""
        if counts is not None and len(counts) != self.classes:
            raise ValueError(f"counts of {len(counts)} classes, and {self.classes} in the network")
        self.done = counts is None
        if counts is not None:
            self.counts = np.array(counts, dtype=np.int64)


def _outside(labels, classes):
    return labels[class_names.not_whole(labels) | (labels < 0) | (labels >= classes)]


def labels_of(source: Any) -> np.ndarray | None:
    """The labels (n,) that a loader, or MXNet's NDArrayIter, knows beforehand; None where it does not.

    Raises DataError where they are not one number an image.
    """
    known = getattr(source, "labels", None)
    if known is None and isinstance(source, mx.io.NDArrayIter) and source.label:
        known = source.label[0][1].asnumpy()
    return None if known is None else class_names.numbers(known, "the labels")


def described(source: Any) -> tuple:
    """What can be told of a loader's images without reading them: labels and number of batches; () of None."""
    if source is None:
        return ()
    labels = labels_of(source)
    return (None if labels is None else labels.tobytes(), len(source) if hasattr(source, "__len__") else None)


def classes_of(net: Block) -> int | None:
    """How many classes the network's output has, None where that cannot be told."""
    try:
        return tracing.output_layer(net).classes
    except NetworkError:
        return None


def class_names_of(net: Block) -> list[str] | None:
    """The network's attribute `classes`, names in the order of its output; None where they are not known, or not as
    many as the output has."""
    names, count = class_names.of(net), classes_of(net)
    return names if names is not None and count in (None, len(names)) else None


def class_weights(labels: np.ndarray | Sequence[int], classes: int) -> np.ndarray:
    """Weights of the classes for the loss, by their rarity.

    Class weight n / (k * count) is scikit-learn's rule 'balanced' (King and Zeng, 2001), with the number of images n
    and the number k of classes that have any: so the mean over the images is 1 and the loss keeps its scale.
    (`data.sampler.balanced_order` shows each class equally often instead.)

    Parameters
    ----------
    labels : (n,)
        Class numbers.
    classes : int
        Of the network.

    Returns
    -------
    float32 (classes,), 0 for a class without images

    Raises
    ------
    DataError
        Where there are no labels, or one is outside the classes.
    """
    labels = np.asarray(labels)
    if not len(labels):
        raise DataError("no labels to balance", expected="at least one", found="an empty set")
    wrong = _outside(labels, classes)
    if len(wrong):
        raise DataError(f"{len(wrong)} labels outside the classes", expected=f"0 to {classes - 1}", found=wrong[0])
    counts = np.bincount(labels.astype(np.int64), minlength=classes)
    present = counts > 0
    weights = np.zeros(classes)
    weights[present] = counts.sum() / (present.sum() * counts[present])
    return weights.astype(np.float32)
