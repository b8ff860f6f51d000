"""The records of a `.rec` by position, with their labels, and the decoding of images in threads."""
from __future__ import annotations

import os
import struct
import threading
from pathlib import Path

import cv2
import mxnet as mx
import numpy as np

from gluon_ft.data.images import decode as images
from gluon_ft.data.images import header
from gluon_ft.data.records import framing, manifest
from gluon_ft.data.records.pack import find_classes
from gluon_ft.data.sources import lists
from gluon_ft.errors import DataError

_PILLOW = threading.Lock()
_HEADS = struct.Struct("<IIIfQQ")  # magic, kind and length of the part; number of labels, label, id, second id


class Records:
    """The records of a `.rec`, of ours or of im2rec; `sha256` is what the manifest says of the file, or None."""

    def __init__(self, path, offsets, labels, classes: list[str] | None, sha256: str | None = None):
        self.sha256 = sha256
        self.name, self.path, self.offsets, self.classes = str(path), Path(path), offsets, classes
        self.labels = np.asarray(labels, dtype=np.int64)

    def where(self, position: int) -> str:
        return f"{self.path}: record {position} at byte {self.offsets[position]}"

    def bytes(self, position: int) -> bytes:
        """The image file in a record; recprobe.Unreadable with the reason."""
        try:
            # Opened each time: a file shared by threads has one position.
            with open(self.path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                payload = framing.read_record(file, self.offsets[position], size, position).payload
            return payload[framing.read_header(payload).start:]
        except (OSError, framing.Damaged) as error:
            raise header.Unreadable(str(error)) from None

    def image(self, position: int, channels: int, resize: int) -> np.ndarray:
        return decode(self.bytes(position), channels, resize)

    def contents(self):
        """The bytes of each image, in order; DataError for one that cannot be read."""
        for position in range(len(self.labels)):
            try:
                yield self.bytes(position)
            except header.Unreadable as error:
                raise DataError(f"image cannot be used: {error}", path=self.where(position),
                                remedy=f"see all of it with gluon-ft verify {self.path}") from None


class DatasetRecords(Records):
    """The same records, read and decoded by MXNet's own `ImageRecordDataset`, which does so one at a time."""

    def __init__(self, records: Records, channels: int):
        super().__init__(records.path, records.offsets, records.labels, records.classes, records.sha256)
        if not index_of(self.path).is_file():
            raise DataError("no such file", path=index_of(self.path), remedy="pack again, or use engine 'threads'",
                            expected="the index that ImageRecordDataset needs")
        self.dataset = mx.gluon.data.vision.ImageRecordDataset(str(self.path), flag=int(channels == 3))
        self._lock = threading.Lock()

    def image(self, position: int, channels: int, resize: int) -> np.ndarray:
        try:
            with self._lock:
                image = self.dataset[position][0].asnumpy()
        except mx.base.MXNetError as error:
            raise header.Unreadable(last_line(error)) from None
        return image if channels == 3 else image[:, :, 0]


def index_of(path: Path) -> Path:
    """The `.idx` beside a `.rec`."""
    return path.with_suffix(".idx")


def open_records(path: Path) -> Records:
    """Reads index and labels, not the images.

    Raises DataError where the file is damaged as far as that shows, a label is not one class, or index or manifest
    do not fit.
    """
    try:
        size = os.stat(path).st_size
        with open(path, "rb") as file:
            offsets = framing.read_index(index_of(path))[1] if index_of(path).is_file() else _scan(file, size)
            heads = [_head(file, offset, size, i) for i, offset in enumerate(offsets)]
    except framing.Damaged as error:
        raise DataError(f"damaged: {error}", path=path,
                        remedy=f"see all of it with gluon-ft verify {path}") from None
    except OSError as error:
        raise DataError("cannot be read", path=path, expected="packed records (.rec)",
                        found=error.strerror or error) from None
    _check_covered(path, size, offsets, [end for _, end in heads])
    return Records(path, list(offsets), [label for label, _ in heads], *_classes_and_hash(path, len(heads)))


def _scan(file, size):
    offsets = []
    for record in framing.scan(file, size):
        if isinstance(record, framing.Damage):
            raise framing.Damaged(str(record))
        offsets.append(record.offset)
    return offsets


def _check_covered(path, size, offsets, ends):
    """DataError where the index leaves out records, or names one twice: images would be lost without a word."""
    at = 0
    for begin, end in sorted(zip(offsets, ends)):
        if begin != at:
            break
        at = end
    else:
        begin = size
    if begin != at:
        raise DataError("the index does not fit the records", path=index_of(path), expected=f"one at byte {at}",
                        found="none" if begin == size else f"the next at byte {begin}", remedy="pack again")


def _head(file, offset, size, number):
    """(label, byte after it) of a record; only its first 32 bytes are read where they tell."""
    try:
        file.seek(min(offset, size))
        head = file.read(_HEADS.size)
        if len(head) == _HEADS.size:
            magic, word, count, label, *_ = _HEADS.unpack(head)
            length = word & framing.MAX_PART
            end = offset + 8 + length + -length % 4
            if magic == framing.MAGIC and word >> 29 == framing.WHOLE and length >= 24 and count == 0 and end <= size:
                return _class_of((label,)), end
        record = framing.read_record(file, offset, size, number)
        return _class_of(framing.read_header(record.payload).labels), record.end
    except framing.Damaged as error:
        raise framing.Damaged(f"record {number} at byte {offset}: {error}") from None


def _class_of(labels):
    if len(labels) != 1 or not 0 <= labels[0] <= lists.MAX_LABEL or labels[0] != int(labels[0]):
        raise framing.Damaged("expected one class, a whole number from 0; found label "
                              f"{' '.join(f'{x:g}' for x in labels[:8])}")
    return int(labels[0])


def _classes_and_hash(path, count):
    about = path.with_suffix(".manifest.json")
    if not about.is_file():
        return find_classes(path.with_suffix(".lst")), None
    known = manifest.read(about)
    if known.records != count:
        raise DataError("manifest of other records", path=about, expected=f"{count} records as in {path.name}",
                        found=known.records, remedy="pack again")
    return known.classes, known.rec_sha256


def decode(data: bytes, channels: int, resize: int = 0) -> np.ndarray:
    """Image file bytes as uint8, upright: (height, width, 3) in RGB or (height, width). Safe in threads.

    Raises Unreadable with the reason.
    """
    # They set Pillow's size limit and Python's warnings aside while they work, which threads share.
    with _PILLOW:
        info = header.probe(data)
    jpeg = info.format in ("JPEG", "MPO") and info.mode in ("L", "RGB")
    colour = int(channels == 3)
    if jpeg:
        image = images.decode(data, info, colour, resize)
    else:
        with _PILLOW:
            image = images.decode(data, info, colour)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if colour else image


def last_line(error) -> str:
    """The telling line of MXNet's errors, which begin with a stack trace."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
