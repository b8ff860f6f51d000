"""`make_loader`: images of any source as batches for training and evaluation."""
from __future__ import annotations

import copy
import operator
import warnings
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import mxnet as mx
import numpy as np

from gluon_ft.data import workers as decoding
from gluon_ft.data.batches import Batch
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
    """A loader over `source`: iterate it once an epoch for `Batch(data, label, valid)`.

    data is float32 (n, channels, size, size) as `preprocessing` says, label int32 (n,); rows from `valid` on are
    padding. Each image comes once an epoch.

    Parameters
    ----------
    source : path-like, tuple or ImageSource
        A folder with one subfolder of images a class; a `.lst`, with class names from `<prefix>.classes.txt`; a
        `.rec` of ours or of im2rec, with class names from its manifest; (images, labels), either two IDX files or
        arrays: images uint8 (n, height, width[, 3]) in RGB, labels (n,); or what `open_source` returned.
    preprocessing : Preprocessing
        What the network takes.
    train : bool
        True shuffles and augments; both depend on `seed`, the epoch and the image's position in the source only, so
        that the batches are the same bit for bit whatever the number of workers. False: in order, no chance.
    batch_size : int
        Images a batch; the last one of an epoch is smaller ('native': filled up).
    seed : int
        0 to 2**32 - 1.
    workers : int, optional
        Threads that decode, default the processors that this process may use; 0: in the consumer's own thread.
    augment : 'gluon', 'im2rec', 'none', Augmentation or dict of its fields, optional
        For training only. Default: 'gluon' for colour images, 'none' for grey ones, since digits must not be mirrored.
    root : path-like, optional
        Folder that the paths of a `.lst` begin at; default its own.
    classes : list of str, optional
        Expected class names in label order. A source that names its classes gets its labels by name, and may lack
        some; of one that does not, labels are positions in these.
    engine : {'threads', 'native', 'dataset'}
        'threads' decodes here; for a `.rec` also 'native' (`ImageRecordIter`) and 'dataset' (`ImageRecordDataset`
        reads and decodes, one image at a time).
    cache : {'memory', None}
        'memory' keeps decoded images, resized as far as that is not random, up to `cache_bytes`.
    cache_bytes : int
        Default 1 GiB.
    exact_decoding : bool
        False decodes large JPEGs at reduced scale, to no less than twice the pixels that are wanted; True always
        decodes the whole. The engines 'native' and 'dataset' always do.
    ahead : int
        Batches made while one is used; each takes batch_size x channels x size x size x 4 bytes.

    Returns
    -------
    Loader or NativeLoader
        With `labels` (int64, in the source's order), `classes` (names in label order), `len` (batches an epoch),
        `epoch`, which counts the passes begun and may be set to go on elsewhere, and `start`, the batch at which the
        next pass begins (then 0 again). Before a pass may be set: `views`, a number of augmented views of each image,
        which the epochs take in turn (0: new ones each epoch), and `balanced`, which draws each class equally often.
        `identity()` says what is read, and how.

    Raises
    ------
    DataError
        Nothing there, files of a list missing, one class only (for training), a label outside the classes, a class
        that is not expected; while iterating: an image that cannot be decoded.
    ConfigError
        An option out of its range, or that the engine does not have.
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
    """The earlier name of `make_loader`, which hides a builtin. Deprecated."""
    warnings.warn("gluon_ft.loaders.open is now called gluon_ft.loaders.make_loader", DeprecationWarning, stacklevel=2)
    return make_loader(source, **options)


class Loader:
    """What `make_loader` returns for the engines 'threads' and 'dataset'; see there for its parameters and attributes.

    `source` is the ImageSource, `memory` the cache or None.
    """

    def __init__(self, source: ImageSource, transform: Transform, batch_size: int, seed: int, workers: int,
                 memory: decoding.Memory | None, exact_decoding: bool, ahead: int):
        self.source, self.transform, self.memory = source, transform, memory
        self.labels, self.classes = source.labels, source.class_names or []
        self.batch_size, self.seed, self.workers, self.ahead = batch_size, seed, workers, ahead
        self.train, self.epoch, self.start = transform.augmentation is not None, 0, 0
        self.views, self.balanced = 0, False
        self._resize = 0 if exact_decoding else transform.decode_resize()

    def __len__(self) -> int:
        return -(-len(self.labels) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        epoch, first, self.epoch, self.start = self.epoch, self.start, self.epoch + 1, 0
        order = epoch_order(self.labels, self.seed, epoch, self.train, self.train and self.balanced)
        filled = self.filled(order[first * self.batch_size:], epoch % self.views if self.views else epoch)
        try:
            for chosen, data in filled:
                label = mx.nd.array(self.labels[chosen], dtype="int32")
                yield Batch(mx.nd.from_numpy(data), label, len(chosen))
        finally:
            filled.close()

    def filled(self, order: np.ndarray, draw: int) -> Generator[tuple[np.ndarray, np.ndarray], None, None]:
        """Batches of images in a given order.

        Parameters
        ----------
        order : int (n,)
            Positions in the source.
        draw : int
            What the augmentation of an image depends on, beside the seed and its position.

        Yields
        ------
        (positions int (n,), data float32 (n, channels, size, size))
        """
        wanted = self.transform.preprocessing
        positions = [order[i:i + self.batch_size] for i in range(0, len(order), self.batch_size)]
        return decoding.filled(positions, (wanted.channels, wanted.size, wanted.size),
                                     lambda position, out: self._fill(draw, position, out), self.workers, self.ahead)

    def renumbered(self, class_names: Sequence[str]) -> Loader:
        """A loader of the same images with their labels by other class names, see `ImageSource.renumbered`."""
        other = copy.copy(self)
        other.source = self.source.renumbered(class_names)
        other.labels, other.classes = other.source.labels, list(class_names)
        return other

    def identity(self) -> dict:
        """What is read and what is done with it, as plain values: equal identities give equal batches.

        The images' contents count, not where they are; workers and caches do not. Reads every image file once.
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
