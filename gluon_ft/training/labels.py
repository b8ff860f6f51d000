"""Labels compared with the network's output before they are used, and classes without images noticed."""
from __future__ import annotations

import mxnet as mx
import numpy as np

from gluon_ft.errors import DataError, NetworkError, TrainingError
from gluon_ft.models import tracing


class LabelCheck:
    """Compares labels with the number of classes: at once where a source knows its labels, else batch by batch.

    A batch is compared before it is used, so that no label outside the output ever reaches it; empty classes can only
    be told once all labels are known.

    Parameters
    ----------
    classes : of the network's output; None: not known, nothing is compared
    source : a loader; its `labels`, where it has them, are compared at once
    what : 'the training set', for errors
    allow_empty : False: a class without an image is an error
    name : begins the errors, such as that of a run
    growing : how the network gets more classes, for the remedy; 'N' in it becomes their number
    """

    def __init__(self, classes: int | None, source, what: str, allow_empty: bool = True, name: str = "",
                 growing: str = "give the network N classes"):
        self.classes, self.what, self.allow_empty, self.growing = classes, what, allow_empty, growing
        self.prefix = f"{name}: " if name else ""
        self.counts = np.zeros(classes or 0, dtype=np.int64)
        self.done = not classes
        known = labels_of(source)
        if known is not None and not self.done:
            self._count(known, what)
            self.end_of_epoch()

    def check(self, batch, step: int) -> None:
        """TrainingError where a label of the batch is outside the output."""
        if not self.done:
            self._count(batch.label.asnumpy(), f"{self.what}, batch {step}")

    def _count(self, labels, where):
        labels = np.asarray(labels)
        # Written so that NaN is outside as well.
        wrong = labels[~((labels >= 0) & (labels < self.classes))]
        if len(wrong):
            raise TrainingError(f"{self.prefix}{len(wrong)} labels outside the network's output in {where}",
                                expected=f"0 to {self.classes - 1}", found=f"{wrong[0]:g}", remedy=self._remedy(labels))
        self.counts += np.bincount(labels.astype(np.int64), minlength=self.classes)

    def _remedy(self, labels):
        high = labels.max()
        if not (labels >= 0).all() or not np.isfinite(high):
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


def labels_of(source) -> np.ndarray | None:
    """The labels that a loader, or MXNet's NDArrayIter, knows beforehand."""
    known = getattr(source, "labels", None)
    if known is None and isinstance(source, mx.io.NDArrayIter) and source.label:
        known = source.label[0][1].asnumpy()
    return None if known is None else np.asarray(known)


def classes_of(net) -> int | None:
    """How many classes the network's output has, None where that cannot be told."""
    try:
        return tracing.output_layer(net).classes
    except NetworkError:
        return None
