"""One form for batches, whatever they come from: (data, label, valid), each image counted once."""
from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import mxnet as mx
import numpy as np

from gluon_ft.data.sampler import digest, epoch_order
from gluon_ft.errors import DataError


class Batch(NamedTuple):
    """data : NDArray (n, ...); label : NDArray (n,); valid : the first `valid` rows are images, the rest is padding."""

    data: mx.nd.NDArray
    label: mx.nd.NDArray
    valid: int

    def trimmed(self) -> Batch:
        """Without the padding."""
        return self if self.valid == len(self.label) else Batch(self.data[:self.valid], self.label[:self.valid],
                                                                 self.valid)


class ArrayLoader:
    """Batches of arrays in memory.

    Parameters
    ----------
    data : array (n, ...)
        As the network takes it, (n, channels, height, width) in float32; converted to float32 otherwise.
    labels : array (n,) of int
    batch_size : int
        The last batch of an epoch is smaller where it does not come out even.
    shuffle : bool, default False
        A new order each epoch, which depends on `seed` and the epoch's number only.
    seed : int, default 0

    Raises DataError where lengths differ or there is nothing.
    """

    def __init__(self, data, labels, batch_size: int, shuffle: bool = False, seed: int = 0):
        self.data = np.ascontiguousarray(data, dtype=np.float32)
        self.labels = np.asarray(labels, dtype=np.int64)
        if len(self.data) != len(self.labels):
            raise DataError("images and labels differ in number", expected=f"{len(self.data)} labels",
                            found=len(self.labels))
        if not len(self.labels):
            raise DataError("no images", expected="at least one", found="an empty set")
        if batch_size < 1:
            raise DataError("batch size out of range", expected="at least 1", found=batch_size)
        self.batch_size, self.shuffle, self.seed, self.epoch = batch_size, shuffle, seed, 0
        self.start, self.balanced = 0, False

    def __len__(self):
        return -(-len(self.labels) // self.batch_size)

    def identity(self) -> dict:
        """What the batches depend on, as plain values."""
        return {"images": len(self.labels), "contents": digest([str(self.data.shape).encode(), self.data.tobytes()]),
                "labels": digest([self.labels.tobytes()]), "shuffle": self.shuffle, "balanced": self.balanced,
                "seed": self.seed, "batch_size": self.batch_size}

    def __iter__(self) -> Iterator[Batch]:
        order = epoch_order(self.labels, self.seed, self.epoch, self.shuffle, self.balanced)
        first, self.epoch, self.start = self.start, self.epoch + 1, 0
        for start in range(first * self.batch_size, len(order), self.batch_size):
            chosen = order[start:start + self.batch_size]
            yield Batch(mx.nd.array(self.data[chosen]), mx.nd.array(self.labels[chosen], dtype="int32"), len(chosen))


def batches(source, start: int = 0) -> Iterator[Batch]:
    """One pass over `source` as `Batch`es, from batch `start` on.

    source : anything that yields Batch, (data, label), (data, label, valid), such as Gluon's DataLoader, or an
    `mx.io.DataIter`, which is reset first and whose `pad` is honoured. Raises DataError for anything else. Where it
    has no attribute `start`, the batches before are made and left out.
    """
    if isinstance(source, mx.io.DataIter):
        source.reset()
    if start and hasattr(source, "start"):
        source.start, start = start, 0
    for item in itertools.islice(source, start, None):
        yield as_batch(item)


def as_batch(item) -> Batch:
    """One item of a loader as a Batch; DataError where it has another form."""
    if isinstance(item, Batch):
        return item
    if isinstance(item, mx.io.DataBatch):
        return Batch(item.data[0], item.label[0], item.data[0].shape[0] - (item.pad or 0))
    if isinstance(item, (list, tuple)) and len(item) in (2, 3):
        valid = int(item[2]) if len(item) == 3 else len(item[1])
        # NumPy's default is float64, for which networks have no weights.
        data = item[0].astype("float32") if item[0].dtype == np.float64 else item[0]
        return Batch(data, item[1], valid)
    raise DataError("a loader yielded something else than a batch", expected="(data, label) or (data, label, valid)",
                    found=f"{type(item).__name__} of length {len(item)}" if hasattr(item, "__len__") else type(item))
