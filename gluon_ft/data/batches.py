"""`Batch`: one format for the batches of every loader; and `ArrayLoader`, for arrays in memory."""
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
from gluon_ft.runtime import mxnet_fixes
from gluon_ft.runtime.gluon_internals import drawn_by

# Records the options of C++ iterators made from now on, in programs that imported MXNet before gluon_ft.
mxnet_fixes.remember_iterators(mx)


class Batch(NamedTuple):
    """The images and labels of one step.

    Attributes
    ----------
    data : NDArray (n, ...)
    label : NDArray (n,)
    valid : int
        The first `valid` rows are images, the others padding.
    """

    data: mx.nd.NDArray
    label: mx.nd.NDArray
    valid: int

    def trimmed(self) -> Batch:
        """The batch without its padding; where it is nothing else, as it is."""
        return self if self.valid in (0, len(self.label)) else Batch(self.data[:self.valid], self.label[:self.valid],
                                                                 self.valid)


class Part(NamedTuple):
    """One of several workers: `rank`, from 0, of `size`."""

    rank: int
    size: int

    def of(self, count: int) -> slice:
        """This worker's share of so many rows: all shares differ by one row at most, and hold every row once."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def cut(self, rows: np.ndarray) -> np.ndarray:
        """This worker's share of the rows of a batch; where it is empty, one row to stand in (see `shares`)."""
        mine = rows[self.of(len(rows))]
        return mine if len(mine) else rows[:1]


class ArrayLoader:
    """Batches of arrays in memory.

    Parameters
    ----------
    data : array (n, ...)
        The network's input, such as (n, channels, height, width); converted to float32.
    labels : array (n,) or (n, 1) of whole numbers
    batch_size : int
        The last batch of an epoch may be smaller.
    shuffle : bool, default False
        Use a new order in each epoch, which depends only on `seed` and the number of the epoch.
    seed : int, default 0

    Raises
    ------
    DataError
        The arrays are empty or differ in length, an image has not exactly one class number, or the batch size is below
        1.
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
        self.worker_part: Part | None = None
        self.classes: list[str] | None = None

    def __len__(self) -> int:
        return -(-len(self.labels) // self.batch_size)

    def renumbered(self, names: Sequence[str]) -> ArrayLoader:
        """A loader of the same arrays, with the labels converted from the class names in `classes` to other ones."""
        other, own = copy.copy(self), class_names.of(self)
        if own is not None:
            number = class_names.places(own, names, "the arrays")
            other.labels = class_names.renumbered(self.labels, number, "the arrays")
        other.classes = list(names)
        return other

    def identity(self) -> dict:
        """Everything that the batches depend on, as plain values: equal identities mean equal batches."""
        return {"images": len(self.labels), "contents": digest([str(self.data.shape).encode(), self.data.tobytes()]),
                "labels": digest([self.labels.tobytes()]), "shuffle": self.shuffle, "balanced": self.balanced,
                "seed": self.seed, "batch_size": self.batch_size}

    def __iter__(self) -> Iterator[Batch]:
        order = epoch_order(self.labels, self.seed, self.epoch, self.shuffle, self.balanced)
        first, self.epoch, self.start = self.start, self.epoch + 1, 0
        part, self.worker_part = self.worker_part, None
        for start in range(first * self.batch_size, len(order), self.batch_size):
            chosen = order[start:start + self.batch_size]
            chosen = chosen if part is None else part.cut(chosen)
            yield Batch(mx.nd.array(self.data[chosen]), mx.nd.array(self.labels[chosen], dtype="int32"), len(chosen))


def batches(source: Any, start: int = 0) -> Generator[Batch, None, None]:
    """Yields one pass over a loader as `Batch`es.

    Parameters
    ----------
    source : iterable
        Anything that yields Batch, (data, label) or (data, label, valid), such as Gluon's DataLoader; or an
        `mx.io.DataIter`, which is reset first, and whose padding (`pad`) does not count as images.
    start : int, default 0
        The first batch to yield. If the loader has no attribute `start`, the earlier ones are made and discarded.

    Raises
    ------
    DataError
        The loader yields something else, or an image has not exactly one label.
    """
    if isinstance(source, mx.io.DataIter):
        source.reset()
    yield from _one_pass(source, start)


def _one_pass(source: Any, start: int = 0) -> Generator[Batch, None, None]:
    if start and hasattr(source, "start"):
        source.start = start  # pyright: ignore[reportAttributeAccessIssue] - hasattr has seen it
        start = 0
    left = _image_count(source) if _has_uncounted_padding(source) else None
    left = None if left is None else left - start * source.batch_size
    for item in itertools.islice(source, start, None):
        if getattr(source, "last_batch_handle", None) == "roll_over":
            # Here `pad` counts images carried over from the previous pass, which are not padding.
            item.pad = 0
        batch = as_batch(item)
        if left is not None:
            batch = batch._replace(valid=max(0, min(batch.valid, left)))
            left -= batch.valid
        yield batch


class Share(NamedTuple):
    """A worker's rows of a batch, and how many images the whole batch has."""

    batch: Batch
    images: int


def shares(source: Any, part: Part | None, start: int = 0) -> Generator[Share, None, None]:
    """Yields one pass over a loader as the shares of one of several workers, or as whole batches.

    Every worker gets as many: where a batch has fewer images than there are workers, some get a batch whose `valid` is
    0, with one row to stand in.

    Parameters
    ----------
    source : loader
        As `batches` takes it. One with an attribute `worker_part` makes only the rows of that part; of all others, the
        whole batch is made and the share is cut from it.
    part : Part, optional
        This worker; None: whole batches.
    start : int, default 0
        See `batches`.
    """
    if isinstance(source, _Renumbered):
        for batch, images in shares(source.loader, part, start):
            yield Share(source.renumbered_batch(batch), images)
        return
    yield from _shared(source, batches(source, start), part, start)


def _shared(source, stream, part, start=0) -> Iterator[Share]:
    own, left = part is not None and hasattr(source, "worker_part"), 0
    if own:
        # The batches of `stream`, which begins after this, are then shares already.
        source.worker_part, left = part, len(source.labels) - start * source.batch_size
    for batch in stream:
        if part is None:
            yield Share(batch, batch.valid)
            continue
        images = min(left, source.batch_size) if own else batch.valid
        left -= images
        rows = part.of(images)
        count = rows.stop - rows.start
        if not own:
            rows = rows if count else slice(0, 1)
            batch = Batch(batch.data[rows], batch.label[rows], count)
        yield Share(batch._replace(valid=count), images)


def every_image(source: Any, where: str = "the loader", part: Part | None = None) -> Generator[Batch, None, None]:
    """Yields one pass for evaluation, and checks that every image of the source comes exactly once.

    MXNet's C++ iterators are created anew for the pass (see `mxnet_fixes.remember_iterators`), all others are reset.

    Parameters
    ----------
    source : loader
        See `batches`.
    where : str
        Describes the source in errors, such as 'the validation set'.
    part : Part, optional
        Yields this worker's shares alone, see `shares`.

    Warns
    -----
    RuntimeWarning
        The loader is set to leave out images (`last_batch='discard'`, ...). The warning says how many.

    Raises
    ------
    DataError
        See `batches`; or images come twice, or a C++ iterator leaves some out or cannot be created anew.
    """
    if isinstance(source, _Renumbered):
        for batch in every_image(source.loader, where, part):
            yield source.renumbered_batch(batch)
        return
    native = isinstance(source, mx.io.MXDataIter)
    if native:
        source = _recreated(source, where)
    elif hasattr(source, "hard_reset"):
        source.hard_reset()
    held, seen = _image_count(source), 0
    # `batches` would reset it, after which a C++ iterator can leave out images.
    for batch, images in _shared(source, _one_pass(source) if native else batches(source), part):
        seen += images
        yield batch
    if held is None or seen == held:
        return
    if native or seen > held:
        raise DataError(f"{seen} images in a pass over {held}", path=where, expected="every image once",
                        remedy=_all_taken_by(source) or OUR_LOADER)
    setting = _all_taken_by(source)
    warnings.warn(f"{where}: {held - seen} of {held} images are left out of this pass{f' ({setting})' * bool(setting)}",
                  RuntimeWarning, stacklevel=2)


OUR_LOADER = "read the same file with gluon_ft.loaders.make_loader"


def _recreated(source, where):
    options = mxnet_fixes.iterator_options(source)
    if options is None:
        raise DataError(f"it is not known what this {type(source).__name__} was made of", path=where,
                        expected="every image once, of which only a new one is sure",
                        remedy=f"import gluon_ft before the iterator is made, or {OUR_LOADER}")
    if _has_uncounted_padding(source) and _image_count(source) is None:
        raise DataError("the last batch of this iterator may end in rows of others", path=where,
                        expected="round_batch=True with num_parts", found="round_batch=False")
    return mxnet_fixes.iterator_made_anew(source)


def _has_uncounted_padding(source) -> bool:
    """Whether the last batch has padding that `pad` does not count (ImageRecordIter with round_batch=False)."""
    options = mxnet_fixes.iterator_options(source) or {}
    return "path_imgrec" in options and str(options.get("round_batch", True)).lower() in ("false", "0")


def _image_count(source) -> int | None:
    """The number of images of a source; None if it is not known."""
    options = mxnet_fixes.iterator_options(source)
    if options is not None:
        return _image_count_of_files(options)
    if isinstance(source, mx.gluon.data.DataLoader):
        return drawn_by(source)[0]
    if isinstance(source, mx.io.NDArrayIter):
        return source.num_data
    if isinstance(source, mx.image.ImageIter):
        return None if source.seq is None else len(source.seq)
    labels = getattr(source, "labels", None)
    return None if labels is None else len(labels)


def _image_count_of_files(options: dict) -> int | None:
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


def _all_taken_by(source) -> str:
    """The setting that makes a source leave out images or give them twice, and the one that takes all; '' if none."""
    if isinstance(source, mx.gluon.data.DataLoader) and drawn_by(source)[1] in ("discard", "rollover"):
        return f"last_batch='{drawn_by(source)[1]}'; 'keep' takes all"
    handle = getattr(source, "last_batch_handle", None)
    return f"last_batch_handle='{handle}'; 'pad' takes all" if handle in ("discard", "roll_over") else ""


def by_names(loader: Any, names: Sequence[str] | None, where: str = "the loader",
             whose: str = "of the network's") -> Any:
    """Wraps a loader so that its labels are positions in other class names.

    Returns the loader itself if it has these names already, or if the names of either are not known.

    Parameters
    ----------
    loader : loader
        Anything that `batches` takes. `class_names.of` finds its class names.
    names : sequence of str, optional
        Class names in the new label order. They must include all names of the loader.
    where : str
        Describes the loader in errors, such as 'the validation set'.
    whose : str
        Describes `names` in errors, see `class_names.places`.

    Returns
    -------
    loader
        Its `classes` are `names`. It is the result of the loader's own method `renumbered` if there is one.

    Raises
    ------
    DataError
        See `class_names.places`; while iterating, a label that is not one of the loader's classes.
    """
    own = class_names.of(loader)
    if own is None or names is None or class_names.same(own, names):
        return loader
    number = class_names.places(own, names, where, whose)
    if hasattr(loader, "renumbered"):
        return loader.renumbered(list(names))
    kind = _SizedRenumbered if hasattr(loader, "__len__") else _Renumbered
    return kind(loader, list(names), number, where)


class _Renumbered:
    """Renumbers the labels of another loader batch by batch; all other attributes are those of that loader."""

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
        """A batch of the loader without its padding, with renumbered labels."""
        batch = batch.trimmed()
        label = class_names.renumbered(batch.label.asnumpy(), self.number, self.where)
        return Batch(batch.data, mx.nd.array(label, ctx=batch.label.context, dtype="int32"), batch.valid)


class _SizedRenumbered(_Renumbered):
    def __len__(self) -> int:
        return len(self.loader)


def as_batch(item: Any) -> Batch:
    """Converts what a loader yields, in any of the forms that `batches` takes, to a Batch with labels (n,).

    Raises DataError for anything else, and if an image has not exactly one label.
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
        return _checked(data, label, _number(item[2]) if len(item) == 3 else None)
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
        # Networks have float32 weights; NumPy's default is float64.
        return mx.nd.array(part, dtype="float32" if part.dtype == np.float64 else part.dtype)
    return part.astype("float32") if part.dtype == np.float64 else part


def _number(valid: Any) -> int:
    try:
        return int(valid)
    except (TypeError, ValueError, OverflowError):
        raise DataError("the third part of a batch is no number", expected="how many of its rows are images",
                        found=type(valid).__name__, remedy="let the loader yield (data, label)") from None


def _checked(data: mx.nd.NDArray, label: mx.nd.NDArray, valid: int | None) -> Batch:
    label = class_names.column(label, "a batch")
    # MXNet's losses and metrics fail on bool.
    label = label.astype("int32") if label.dtype == np.bool_ else label
    valid = len(label) if valid is None else valid
    if not len(data):
        raise DataError("a batch without images", expected="at least one")
    if len(data) != len(label):
        raise DataError("images and labels of a batch differ in number", expected=f"{len(data)} labels",
                        found=len(label))
    if not 0 <= valid <= len(label):
        raise DataError("a batch with more images than rows", expected=f"0 to {len(label)} valid rows", found=valid)
    return Batch(data, label, valid)
