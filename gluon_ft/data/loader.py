"""`make_loader`: batches of images from any source, for training and evaluation."""
from __future__ import annotations

import copy
import operator
import warnings
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import mxnet as mx
import numpy as np

from gluon_ft.data import workers as decoding
from gluon_ft.data.batches import Batch, Part
from gluon_ft.data.images.augment import PROCEDURES, Augmentation
from gluon_ft.data.images.header import Unreadable
from gluon_ft.data.images.preprocessing import Preprocessing
from gluon_ft.data.images.transforms import Transform
from gluon_ft.data.native_loader import DatasetSource, NativeLoader
from gluon_ft.data.sampler import digest, epoch_order
from gluon_ft.data.sources.base import ImageSource
from gluon_ft.data.sources.joined import JoinedRecords
from gluon_ft.data.sources.opening import open_source
from gluon_ft.data.sources.records import RecordSource
from gluon_ft.errors import ConfigError, DataError, near
from gluon_ft.io.paths import AnyPath
from gluon_ft.runtime.processors import threads

ENGINES = ("threads", "native", "dataset")
CACHES = ("memory", None)
CACHE_BYTES = 1 << 30  # 1,800 photos of 500 x 375 pixels, or 5,200 of 256 x 256
_SEEDS = 1 << 32


def make_loader(source: Any, *, preprocessing: Preprocessing, train: bool, batch_size: int, seed: int = 0,
                workers: int | None = None, augment: str | dict | Augmentation | None = None,
                root: AnyPath | None = None, classes: Sequence[str] | None = None, engine: str = "threads",
                cache: str | None = None, cache_bytes: int = CACHE_BYTES, exact_decoding: bool = False,
                ahead: int = 2) -> Loader | NativeLoader:
    """Makes a loader; each iteration over it is one epoch, and yields `Batch(data, label, valid)`.

    `data` is float32 (n, channels, size, size), prepared as `preprocessing` says, and `label` is int32 (n,). Rows from
    `valid` on are padding. Each image comes once per epoch.

    Parameters
    ----------
    source : path-like, tuple or ImageSource
        Anything that `open_source` takes: a folder with one subfolder of images for each class; a `.lst`, with class
        names from `<prefix>.classes.txt`; a `.rec` made by `pack` or im2rec, with class names from its manifest;
        (images, labels), as two IDX files or as arrays, uint8 (n, height, width[, 3]) in RGB and (n,); or an
        ImageSource.
    preprocessing : Preprocessing
        The input format of the network.
    train : bool
        True shuffles and augments. Both depend only on `seed`, the epoch and the image's position in the source, so
        that the batches are bit for bit the same for any number of workers. False keeps the order and is deterministic.
    batch_size : int
        Images per batch. The last batch of an epoch may be smaller; engine 'native' pads it.
    seed : int
        0 to 2**32 - 1.
    workers : int, optional
        Number of decoding threads; default the processors that this process may use. 0 decodes in the caller's thread.
    augment : 'gluon', 'im2rec', 'none', Augmentation or dict of its fields, optional
        Only for training. Default: 'gluon' for colour images, and 'none' for grey ones, since digits must not be
        mirrored.
    root : path-like, optional
        Folder that the paths in a `.lst` are relative to; default the folder of the list.
    classes : list of str, optional
        The expected class names in label order, see `class_names` of `open_source`.
    engine : {'threads', 'native', 'dataset'}
        'threads' decodes in threads of this process. For a `.rec` there are also 'native' (MXNet's `ImageRecordIter`)
        and 'dataset' (MXNet's `ImageRecordDataset`, which decodes one image at a time).
    cache : {'memory', None}
        'memory' keeps decoded images, after all resizing that is not random, up to `cache_bytes`.
    cache_bytes : int
        Default 1 GiB.
    exact_decoding : bool
        False decodes large JPEGs at a reduced scale, which still has at least twice the pixels needed along each edge.
        True always decodes at full scale, as the engines 'native' and 'dataset' do anyway.
    ahead : int
        Batches to prepare while one is used; each takes batch_size x channels x size x size x 4 bytes.

    Returns
    -------
    Loader or NativeLoader
        Its attributes are:

        - `labels`: int64, in the source's order; `classes`: class names in label order
        - `len(loader)`: batches per epoch; `identity()`: everything that the batches depend on
        - `epoch`: number of epochs begun, which can be set in order to resume; `start`: the batch with which the next
          epoch begins, then 0 again; `worker_part`: whose rows, of several workers, it has, then None again
        - `views`: number of augmented views of each image, which the epochs use in turn; 0 draws new ones each epoch
        - `balanced`: whether each class is drawn equally often. This and `views` can be set between epochs

    Raises
    ------
    DataError
        The source does not exist, files of a list are missing, there is only one class (for training), a label is out
        of range, or a class is not expected; while iterating: an image cannot be decoded.
    ConfigError
        An option is out of its range, or the engine does not support it.
    """
    _check(preprocessing, train, batch_size, seed, engine, cache, cache_bytes, ahead)
    if workers is None:
        workers = threads()
    _whole("workers", workers, 0, 256)
    augmentation = _augmentation(augment, preprocessing) if train else None
    if not train and augment is not None:
        raise ConfigError("augmentation is for training", expected="augment=None with train=False", found=augment)
    found = open_source(source, root, classes, partial=not train)
    if engine != "threads" and not isinstance(found, RecordSource):
        raise ConfigError(f"engine '{engine}' reads packed records", expected="a .rec", found=found.name,
                          remedy="pack the images, or use engine 'threads'")
    if engine != "threads" and isinstance(found, JoinedRecords):
        raise ConfigError(f"engine '{engine}' reads one file of records", found=found.name,
                          remedy="pack them into one file, or use engine 'threads'")
    if train and len(np.unique(found.labels)) < 2:
        raise DataError("images of one class only", path=found.name, expected="two or more to train on",
                        found=f"'{found.label_name(0)}'")
    if engine == "native":
        assert isinstance(found, RecordSource)
        if cache is not None:
            raise ConfigError("engine 'native' has no cache", expected="cache=None", found=f"'{cache}'")
        return NativeLoader(found, preprocessing, augmentation, batch_size, seed, workers, ahead)
    if engine == "dataset":
        assert isinstance(found, RecordSource)
        found = DatasetSource(found, preprocessing.channels)
    memory = decoding.Memory(cache_bytes) if cache else None
    transform = Transform(preprocessing, augmentation)
    return Loader(found, transform, batch_size, seed, workers, memory, exact_decoding, ahead)


def open(source: Any, **options) -> Loader | NativeLoader:
    """Deprecated name of `make_loader`; it hid a builtin function."""
    warnings.warn("gluon_ft.loaders.open is now called gluon_ft.loaders.make_loader", DeprecationWarning, stacklevel=2)
    return make_loader(source, **options)


class Loader:
    """The loader of the engines 'threads' and 'dataset'; see `make_loader` for its parameters and attributes.

    `source` is the ImageSource, `memory` the cache or None.
    """

    def __init__(self, source: ImageSource, transform: Transform, batch_size: int, seed: int, workers: int,
                 memory: decoding.Memory | None, exact_decoding: bool, ahead: int):
        self.source, self.transform, self.memory = source, transform, memory
        self.labels, self.classes = source.labels, source.class_names or []
        self.batch_size, self.seed, self.workers, self.ahead = batch_size, seed, workers, ahead
        self.train, self.epoch, self.start = transform.augmentation is not None, 0, 0
        self.views, self.balanced = 0, False
        self.worker_part: Part | None = None
        self._resize = 0 if exact_decoding else transform.decode_resize()

    @property
    def decode_resize(self) -> int:
        """The shorter edge, in pixels, that images are decoded for, see `ImageSource.image`; 0: at full scale."""
        return self._resize

    def __len__(self) -> int:
        return -(-len(self.labels) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        epoch, first, self.epoch, self.start = self.epoch, self.start, self.epoch + 1, 0
        part, self.worker_part = self.worker_part, None
        order = epoch_order(self.labels, self.seed, epoch, self.train, self.train and self.balanced)
        filled = self.filled(order[first * self.batch_size:], epoch % self.views if self.views else epoch, part)
        try:
            for chosen, data in filled:
                label = mx.nd.array(self.labels[chosen], dtype="int32")
                yield Batch(mx.nd.from_numpy(data), label, len(chosen))
        finally:
            filled.close()

    def filled(self, order: np.ndarray, draw: int,
               part: Part | None = None) -> Generator[tuple[np.ndarray, np.ndarray], None, None]:
        """Yields batches of images in a given order.

        Parameters
        ----------
        order : int (n,)
            Positions in the source.
        draw : int
            A number on which the augmentation depends, besides the seed and the image's position.
        part : Part, optional
            One of several workers, whose rows of each batch alone are read.

        Yields
        ------
        (positions int (n,), data float32 (n, channels, size, size))
        """
        wanted = self.transform.preprocessing
        positions = [order[i:i + self.batch_size] for i in range(0, len(order), self.batch_size)]
        positions = positions if part is None else [part.cut(chosen) for chosen in positions]
        return decoding.filled(positions, (wanted.channels, wanted.size, wanted.size),
                               lambda position, out: self._fill(draw, position, out), self.workers, self.ahead)

    def renumbered(self, class_names: Sequence[str]) -> Loader:
        """A loader of the same images with labels for other class names, see `ImageSource.renumbered`."""
        other = copy.copy(self)
        other.source = self.source.renumbered(class_names)
        other.labels, other.classes = other.source.labels, list(class_names)
        return other

    def identity(self) -> dict:
        """Everything that the batches depend on, as plain values: equal identities mean equal batches.

        That includes the contents of the images, but not their paths, the workers or the cache. Reads each file once.
        """
        augmentation = self.transform.augmentation
        return {"images": len(self.labels), "contents": self.source.identity(),
                "labels": digest([self.labels.tobytes()]), "classes": list(self.classes),
                "preprocessing": self.transform.preprocessing.to_dict(),
                "augmentation": None if augmentation is None else augmentation.to_dict(),
                "decode_resize": self._resize, "views": self.views, "balanced": self.balanced, "seed": self.seed,
                "batch_size": self.batch_size}

    def _fill(self, draw: int, position: int, out: np.ndarray) -> None:
        rng = np.random.RandomState((self.seed, draw, position)) if self.train else None
        try:
            image = self._prepared(position) if self.memory is None else self.memory.get(position, self._prepared)
            self.transform.finish(image, out, rng)
        except Unreadable as error:
            raise DataError(f"image cannot be used: {error}", path=self.source.where(position),
                            remedy="mend it, or remove it from the data") from None

    def _prepared(self, position: int) -> np.ndarray:
        image = self.source.image(position, self.transform.preprocessing.channels, self._resize)
        return self.transform.prepare(image)


def _augmentation(augment, preprocessing: Preprocessing) -> Augmentation:
    if augment is None:
        augment = "gluon" if preprocessing.channels == 3 else "none"
    if isinstance(augment, dict):
        return Augmentation.from_dict(augment)
    if isinstance(augment, Augmentation):
        return augment
    if augment not in PROCEDURES:
        raise ConfigError(f"no augmentation '{augment}'", remedy=near(augment, PROCEDURES))
    return PROCEDURES[augment]


def _check(preprocessing, train, batch_size, seed, engine, cache, cache_bytes, ahead):
    if not isinstance(preprocessing, Preprocessing):
        raise ConfigError("preprocessing is not a Preprocessing", found=type(preprocessing).__name__)
    if not isinstance(train, bool):
        raise ConfigError("train is true or false", found=repr(train))
    _whole("batch_size", batch_size, 1, 1 << 20)
    _whole("seed", seed, 0, _SEEDS - 1)
    _whole("ahead", ahead, 0, 64)
    _whole("cache_bytes", cache_bytes, 1, 1 << 50)
    if engine not in ENGINES:
        raise ConfigError(f"no engine '{engine}'", remedy=near(engine, ENGINES))
    if cache not in CACHES:
        raise ConfigError(f"no cache '{cache}'", expected="'memory' or None")


def _whole(name, value, low, high):
    try:
        fits = not isinstance(value, bool) and low <= operator.index(value) <= high
    except TypeError:
        fits = False
    if not fits:
        raise ConfigError(f"{name} out of range", expected=f"a whole number from {low} to {high}", found=repr(value))
