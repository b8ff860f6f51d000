"""Reads packed records with MXNet's own `ImageRecordIter` and `ImageRecordDataset`."""
from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import mxnet as mx
import numpy as np

from gluon_ft.data.batches import Batch
from gluon_ft.data.images.augment import Augmentation
from gluon_ft.data.images.header import Unreadable
from gluon_ft.data.images.preprocessing import Preprocessing
from gluon_ft.data.records.record_file import INDEX, beside
from gluon_ft.data.sources.records import RecordSource
from gluon_ft.errors import ConfigError, DataError, last_line
from gluon_ft.io import reporter
from gluon_ft.io.checksums import sha256_of

_INTERPOLATIONS = {"bilinear": 1, "bicubic": 2, "area": 3, "lanczos": 4}


class NativeLoader:
    """Batches made by `ImageRecordIter`, with the attributes of `loader.Loader`; the last batch is padded.

    Each pass creates a new iterator, because MXNet's `reset` is wrong: the images that were repeated to fill the last
    batch would be missing from the next pass. And with `round_batch` off, that batch is padded with uninitialised
    memory.

    Order, crops and flips depend on `seed` and `epoch`, but not on `workers`. Within an epoch, the iterator draws the
    same crop and flip for the same row of every batch.

    If images are resized, one that cannot be decoded crashes the process (MXNet divides by its width of 0). So the
    first pass makes sure that all can be decoded: by the SHA-256 in the manifest, or else by decoding every record.

    For the parameters see `loader.make_loader`.

    Raises
    ------
    ConfigError
        `ImageRecordIter` does not have an option, or has one of other meaning.
    DataError
        There is no index, which training needs.
    """

    def __init__(self, records: RecordSource, preprocessing: Preprocessing, augmentation: Augmentation | None,
                 batch_size: int, seed: int, workers: int, ahead: int):
        self.source, self.labels, self.classes = records, records.labels, records.class_names or []
        self.train, self.batch_size, self.seed, self.epoch = augmentation is not None, batch_size, seed, 0
        # If the source's labels were renumbered to other class names, so are those that the iterator reads.
        self._new_labels = None
        if not np.array_equal(records.stored, records.labels):
            stored, first = np.unique(records.stored, return_index=True)
            self._new_labels = np.zeros(int(stored.max()) + 1, dtype=np.int32)
            self._new_labels[stored] = records.labels[first]
        self.preprocessing, self._decodable = preprocessing, preprocessing.resize is None
        self._options = {**_fixed_options(preprocessing), **_augmentation_options(augmentation),
                         "path_imgrec": str(records.path), "preprocess_threads": max(1, workers), "verbose": False,
                         # The iterator cannot fill a batch that has more rows than there are images.
                         "batch_size": min(batch_size, len(records.labels)), "prefetch_buffer": max(1, ahead)}
        if beside(records.path, INDEX).is_file():
            self._options["path_imgidx"] = str(beside(records.path, INDEX))
        elif self.train:
            raise DataError("no such file", path=beside(records.path, INDEX),
                            remedy="pack again, or use engine 'threads'",
                            expected="the index, without which ImageRecordIter shuffles pieces of 64 MB only")

    def __len__(self) -> int:
        return -(-len(self.labels) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        if not self._decodable:
            _check_decodable(self.source)
            self._decodable = True
        options = dict(self._options)
        if self.train:
            order, draws = np.random.RandomState((self.seed, self.epoch)).randint(2 ** 30, size=2)
            options.update(shuffle=True, seed=int(order), seed_aug=int(draws))
        self.epoch += 1
        try:
            for batch in mx.io.ImageRecordIter(**options):
                yield self._batch(batch)
        except mx.base.MXNetError as error:
            raise DataError(f"ImageRecordIter failed: {last_line(error)}", path=self.source.path,
                            expected="images that can be decoded",
                            remedy=f"see which record with gluon-ft verify {self.source.path}") from None

    def _batch(self, batch) -> Batch:
        # Copied, because the iterator reuses the memory for later batches.
        data = batch.data[0].copy()
        if self.preprocessing.channel_order == "bgr":
            data = data.flip(axis=1)
        if self.preprocessing.rotate180:
            data = data.flip(axis=(2, 3))
        label = batch.label[0].astype("int32")
        if self._new_labels is not None:
            label = mx.nd.array(self._new_labels[label.asnumpy()], dtype="int32")
        return Batch(data, label, len(data) - batch.pad)


def _fixed_options(wanted: Preprocessing) -> dict:
    if wanted.interpolation not in _INTERPOLATIONS:
        raise ConfigError(f"ImageRecordIter has no interpolation '{wanted.interpolation}'",
                          expected=" or ".join(_INTERPOLATIONS), remedy="use engine 'threads'")
    options = {"data_shape": (wanted.channels, wanted.size, wanted.size),
               "inter_method": _INTERPOLATIONS[wanted.interpolation]}
    if wanted.resize is not None:
        options["resize"] = wanted.resize
    # It normalises values from 0 to 255; the options are named by channel, in RGB order.
    names = {"rgb": "rgb", "bgr": "bgr", "gray": "r"}[wanted.channel_order]
    for name, mean, std in zip(names, wanted.mean, wanted.std):
        options[f"mean_{name}"], options[f"std_{name}"] = mean * wanted.scale, std * wanted.scale
    return options


def _augmentation_options(chosen: Augmentation | None) -> dict:
    if chosen is None:
        return {}
    if chosen.beyond_crop_and_flip:
        raise ConfigError(f"ImageRecordIter does otherwise, or has not: {', '.join(chosen.beyond_crop_and_flip)}",
                          remedy="use engine 'threads', or leave it out")
    options: dict = {"rand_mirror": chosen.flip, "rand_crop": chosen.crop == "random"}
    if chosen.crop == "resized":
        options.update(random_resized_crop=True, min_random_area=chosen.scale[0], max_random_area=chosen.scale[1],
                       min_aspect_ratio=chosen.ratio[0], max_aspect_ratio=chosen.ratio[1])
    return options


def _check_decodable(records: RecordSource) -> None:
    """DataError for an image that MXNet cannot decode; records that are as `pack` wrote them need no decoding."""
    if records.sha256 is not None and sha256_of(records.path) == records.sha256:
        return
    for position in reporter.progress(range(len(records)), desc=f"checking {records.path.name}", unit="image"):
        try:
            image: Any = mx.image.imdecode(records.read(position))
            image.wait_to_read()
        except (mx.base.MXNetError, Unreadable) as error:
            raise DataError(f"image cannot be used: {last_line(error)}", path=records.where(position),
                            remedy="mend it, or remove it from the data") from None


class DatasetSource(RecordSource):
    """Records read and decoded by MXNet's own `ImageRecordDataset`, one image at a time."""

    def __init__(self, records: RecordSource, channels: int):
        super().__init__(records.path, records.offsets, records.labels, records.class_names, records.sha256)
        self.numbered, self.stored = records.numbered, records.stored
        if not beside(self.path, INDEX).is_file():
            raise DataError("no such file", path=beside(self.path, INDEX), remedy="pack again, or use engine 'threads'",
                            expected="the index that ImageRecordDataset needs")
        self.dataset = mx.gluon.data.vision.ImageRecordDataset(str(self.path), flag=int(channels == 3))
        self._lock = threading.Lock()

    def image(self, position: int, channels: int, resize: int = 0) -> np.ndarray:
        """The image as `ImageRecordDataset` decodes it.

        Parameters
        ----------
        position : int
        channels : {3, 1}
            3 for RGB, 1 for the first channel as grey.
        resize : int
            Ignored: MXNet always decodes at full scale.

        Returns
        -------
        ndarray
            uint8 (height, width, 3), or (height, width) for one channel.

        Raises
        ------
        Unreadable
            With MXNet's reason.
        """
        try:
            with self._lock:
                pixels: Any = self.dataset[position][0]
                image = pixels.asnumpy()
        except mx.base.MXNetError as error:
            raise Unreadable(last_line(error)) from None
        return image if channels == 3 else image[:, :, 0]
