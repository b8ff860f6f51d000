"""`Batch`: the one form of a batch, whatever loader it comes from; and batches of arrays in memory."""
from __future__ import annotations

import copy
import itertools
import warnings
from collections.abc import Generator, Iterator, Sequence
from typing import Any, NamedTuple

import mxnet as mx
import numpy as np

from gluon_ft.data.records import framing
from gluon_ft.data.records.record_file import RecordFile
from gluon_ft.data.sampler import digest, epoch_order
from gluon_ft.data.sources import class_names
from gluon_ft.errors import DataError
from gluon_ft.runtime import native_iterators
from gluon_ft.runtime.gluon_internals import drawn_by

# Iterators of a program that imported MXNet first are known from here on.
native_iterators.remember(mx)


class Batch(NamedTuple):
    """Images and labels of one step.

    Attributes
    ----------
    data : NDArray (n, ...)
    label : NDArray (n,)
    valid : int
        The first `valid` rows are images, the rest is padding.
    """

    data: mx.nd.NDArray
    label: mx.nd.NDArray
    valid: int

    def trimmed(self) -> Batch:
        """The batch without its padding."""
        return self if self.valid == len(self.label) else Batch(self.data[:self.valid], self.label[:self.valid],
                                                                 self.valid)


class ArrayLoader:
    """Batches of arrays in memory.

    Parameters
    ----------
    data : array (n, ...)
        As the network takes it, such as (n, channels, height, width); converted to float32.
    labels : array (n,) or (n, 1) of whole numbers
    batch_size : int
        The last batch of an epoch is smaller where it does not come out even.
    shuffle : bool, default False
        A new order each epoch, which depends on `seed` and the epoch's number only.
    seed : int, default 0

    Raises
    ------
    DataError
        Lengths differ, labels are not one class number an image, nothing is in them, or the batch size is below 1.
    """

    def __init__(self, data, labels, batch_size: int, shuffle: bool = False, seed: int = 0):
        self.data = np.ascontiguousarray(data, dtype=np.float32)
        self.labels = class_names.whole(labels, "the arrays")
        if len(self.data) != len(self.labels):
            raise DataError("images and labels differ in number", expected=f"{len(self.data)} labels",
                            found=len(self.labels))
        if not len(self.labels):
            raise DataError("no images", expected="at least one", found="an empty set")
        if batch_size < 1:
            raise DataError("batch size out of range", expected="at least 1", found=batch_size)
        self.batch_size, self.shuffle, self.seed, self.epoch = batch_size, shuffle, seed, 0
        self.start, self.balanced = 0, False
        self.classes: list[str] | None = None

    def __len__(self) -> int:
        return -(-len(self.labels) // self.batch_size)

    def renumbered(self, names: Sequence[str]) -> ArrayLoader:
        """A loader of the same arrays with its labels by other class names; its own are its attribute `classes`."""
        other, own = copy.copy(self), class_names.of(self)
        if own is not None:
            number = class_names.places(own, names, "the arrays")
            other.labels = class_names.renumbered(self.labels, number, "the arrays")
        other.classes = list(names)
        return other

    def identity(self) -> dict:
        """What the batches depend on, as plain values: equal identities give equal batches."""
        return {"images": len(self.labels), "contents": digest([str(self.data.shape).encode(), self.data.tobytes()]),
                "labels": digest([self.labels.tobytes()]), "shuffle": self.shuffle, "balanced": self.balanced,
                "seed": self.seed, "batch_size": self.batch_size}

    def __iter__(self) -> Iterator[Batch]:
        order = epoch_order(self.labels, self.seed, self.epoch, self.shuffle, self.balanced)
        first, self.epoch, self.start = self.start, self.epoch + 1, 0
        for start in range(first * self.batch_size, len(order), self.batch_size):
            chosen = order[start:start + self.batch_size]
            yield Batch(mx.nd.array(self.data[chosen]), mx.nd.array(self.labels[chosen], dtype="int32"), len(chosen))


def batches(source: Any, start: int = 0) -> Generator[Batch, None, None]:
    """One pass over a loader as `Batch`es.

    Parameters
    ----------
    source : iterable
        Anything that yields Batch, (data, label) or (data, label, valid), such as Gluon's DataLoader; or an
        `mx.io.DataIter`, which is reset first and whose `pad` is honoured.
    start : int, default 0
        The batch to begin with. Where the loader has no attribute `start`, those before are made and left out.

    Raises
    ------
    DataError
        The loader yields something else, or labels that are not one number an image.
    """
    if isinstance(source, mx.io.DataIter):
        source.reset()
    yield from _one_pass(source, start)


def _one_pass(source: Any, start: int = 0) -> Generator[Batch, None, None]:
    if start and hasattr(source, "start"):
        source.start = start  # pyright: ignore[reportAttributeAccessIssue] - hasattr has seen it
        start = 0
    left = _rows_held(source) if _ends_in_others(source) else None
    left = None if left is None else left - start * source.batch_size
    for item in itertools.islice(source, start, None):
        if getattr(source, "last_batch_handle", None) == "roll_over":
            # Here `pad` counts the images that were kept from the pass before, which are no padding.
            item.pad = 0
        batch = as_batch(item)
        if left is not None:
            batch = batch._replace(valid=max(0, min(batch.valid, left)))
            left -= batch.valid
        yield batch


def every_image(source: Any, where: str = "the loader") -> Generator[Batch, None, None]:
    """One pass as `batches`, for evaluation: every image that the source holds comes once.

    Of MXNet's C++ iterators a new one is made for the pass (see `runtime.native_iterators`), the others begin anew.

    Parameters
    ----------
    source : loader
        As of `batches`.
    where : str
        What it is, for errors: 'the validation set'.

    Warns
    -----
    RuntimeWarning
        The loader leaves out images by its own setting (`last_batch='discard'`, ...): how many.

    Raises
    ------
    DataError
        As of `batches`; images come twice, a C++ iterator leaves some out, or it cannot be made anew.
    """
    if isinstance(source, _ByNames):
        for batch in every_image(source.loader, where):
            yield source.renumbered_batch(batch)
        return
    native = isinstance(source, mx.io.MXDataIter)
    if native:
        source = _made_anew(source, where)
    elif hasattr(source, "hard_reset"):
        source.hard_reset()
    held, seen = _rows_held(source), 0
    # A reset would make the new one leave out images again.
    for batch in _one_pass(source) if native else batches(source):
        seen += batch.valid
        yield batch
    if held is None or seen == held:
        return
    if native or seen > held:
        raise DataError(f"{seen} images in a pass over {held}", path=where, expected="every image once",
                        remedy=OUR_LOADER)
    warnings.warn(f"{where}: {held - seen} of {held} images are left out of this pass{_left_out_by(source)}",
                  RuntimeWarning, stacklevel=2)


OUR_LOADER = "read the same file with gluon_ft.loaders.make_loader"


def _made_anew(source, where):
    options = native_iterators.made_of(source)
    if options is None:
        raise DataError(f"it is not known what this {type(source).__name__} was made of", path=where,
                        expected="every image once, of which only a new one is sure",
                        remedy=f"import gluon_ft before the iterator is made, or {OUR_LOADER}")
    if _ends_in_others(source) and _rows_held(source) is None:
        raise DataError("the last batch of this iterator may end in rows of others", path=where,
                        expected="round_batch=True with num_parts", found="round_batch=False")
    return native_iterators.made_anew(source)


def _ends_in_others(source) -> bool:
    """Whether the last batch is filled up with rows that `pad` does not count (ImageRecordIter without round_batch)."""
    options = native_iterators.made_of(source) or {}
    return "path_imgrec" in options and str(options.get("round_batch", True)).lower() in ("false", "0")


def _rows_held(source) -> int | None:
    """How many images a source has, None where it cannot be told."""
    options = native_iterators.made_of(source)
    if options is not None:
        return _rows_of_files(options)
    if isinstance(source, mx.gluon.data.DataLoader):
        return drawn_by(source)[0]
    if isinstance(source, mx.io.NDArrayIter):
        return source.num_data
    if isinstance(source, mx.image.ImageIter):
        return None if source.seq is None else len(source.seq)
    labels = getattr(source, "labels", None)
    return None if labels is None else len(labels)


def _rows_of_files(options: dict) -> int | None:
    if int(options.get("num_parts", 1)) > 1:
        return None
    if options.get("path_imgrec"):
        index = options.get("path_imgidx")
        return len(framing.read_index(index)[0]) if index else len(RecordFile(options["path_imgrec"]))
    for name in ("data_csv", "data_libsvm"):
        if options.get(name):
            with open(options[name], "rb") as file:
                return sum(bool(line.strip()) for line in file)
    if options.get("image"):
        with open(options["image"], "rb") as file:
            return int.from_bytes(file.read(8)[4:], "big")
    return None


def _left_out_by(source) -> str:
    """The setting by which a source leaves out images, in brackets, '' where it has none."""
    if isinstance(source, mx.gluon.data.DataLoader) and drawn_by(source)[1] in ("discard", "rollover"):
        return f" (last_batch='{drawn_by(source)[1]}'; 'keep' takes all)"
    handle = getattr(source, "last_batch_handle", None)
    return f" (last_batch_handle='{handle}'; 'pad' takes all)" if handle in ("discard", "roll_over") else ""


def by_names(loader: Any, names: Sequence[str] | None, where: str = "the loader",
             whose: str = "of the network's") -> Any:
    """A loader with its labels by other class names; the loader itself where it has these names, or either has none.

    Parameters
    ----------
    loader : loader
        Anything that `batches` takes. Its class names are those that `class_names.of` finds.
    names : sequence of str, optional
        In label order. They have to hold all names of the loader, which may lack some.
    where : str
        What the loader is, for errors: 'the validation set'.
    whose : str
        Whose `names` are, for errors, as in `class_names.places`.

    Returns
    -------
    loader
        With `classes` as `names`; of the loader's own kind where that has a method `renumbered`.

    Raises
    ------
    DataError
        As of `class_names.places`; while iterating, a label that is no position in the loader's names.
    """
    own = class_names.of(loader)
    if own is None or names is None or class_names.same(own, names):
        return loader
    number = class_names.places(own, names, where, whose)
    if hasattr(loader, "renumbered"):
        return loader.renumbered(list(names))
    kind = _SizedByNames if hasattr(loader, "__len__") else _ByNames
    return kind(loader, list(names), number, where)


class _ByNames:
    """A loader whose labels are renumbered batch by batch; everything else is the loader's."""

    _OWN = ("loader", "classes", "number", "where", "labels")

    def __init__(self, loader, classes: list[str], number: np.ndarray, where: str):
        self.loader, self.classes, self.number, self.where = loader, classes, number, where
        if getattr(loader, "labels", None) is not None:
            self.labels = class_names.renumbered(loader.labels, number, where)

    def __getattr__(self, name):
        if name in self._OWN:
            raise AttributeError(name)
        return getattr(self.loader, name)

    def __setattr__(self, name, value):
        if name in self._OWN:
            object.__setattr__(self, name, value)
        else:
            setattr(self.loader, name, value)

    def __iter__(self) -> Iterator[Batch]:
        for batch in batches(self.loader):
            yield self.renumbered_batch(batch)

    def renumbered_batch(self, batch: Batch) -> Batch:
        """A batch of the loader, without its padding, with its labels by the other names."""
        batch = batch.trimmed()
        label = class_names.renumbered(batch.label.asnumpy(), self.number, self.where)
        return Batch(batch.data, mx.nd.array(label, ctx=batch.label.context, dtype="int32"), batch.valid)


class _SizedByNames(_ByNames):
    def __len__(self) -> int:
        return len(self.loader)


def as_batch(item: Any) -> Batch:
    """What a loader yields, in any of the forms of `batches`, as a Batch with labels (n,).

    Raises DataError for another form, and for labels that are not one number an image.
    """
    if isinstance(item, Batch):
        return _checked(*item)
    if isinstance(item, mx.io.DataBatch) and item.data:
        if len(item.label or ()) != 1:
            raise DataError("not one label an image", path="a batch", expected="one array of labels",
                            found=len(item.label) if item.label else "none")
        return _checked(item.data[0], item.label[0], item.data[0].shape[0] - (item.pad or 0))
    if isinstance(item, (list, tuple)) and len(item) in (2, 3):
        data, label = (_array(part) for part in item[:2])
        return _checked(data, label, int(item[2]) if len(item) == 3 else None)
    size = getattr(item, "__len__", None)
    images_only = isinstance(item, (np.ndarray, mx.nd.NDArray))
    raise DataError(f"a loader yielded something else than a batch{': images alone' * images_only}",
                    expected="(data, label) or (data, label, valid)",
                    found=type(item) if size is None else f"{type(item).__name__} of length {size()}")


def _array(part: Any) -> mx.nd.NDArray:
    if not isinstance(part, mx.nd.NDArray):
        part = np.asarray(part)
        if part.dtype.kind not in "biuf":
            raise DataError("a loader yielded something else than a batch", expected="arrays of numbers",
                            found=part.dtype)
        part = mx.nd.array(part, dtype=part.dtype)
    # NumPy's default is float64, for which networks have no weights.
    return part.astype("float32") if part.dtype == np.float64 else part


def _checked(data: mx.nd.NDArray, label: mx.nd.NDArray, valid: int | None) -> Batch:
    label = class_names.column(label, "a batch")
    valid = len(label) if valid is None else valid
    if len(data) != len(label):
        raise DataError("images and labels of a batch differ in number", expected=f"{len(data)} labels",
                        found=len(label))
    if not 0 <= valid <= len(label):
        raise DataError("a batch with more images than rows", expected=f"0 to {len(label)} valid rows", found=valid)
    return Batch(data, label, valid)
