"""Packed records (`.rec`), of ours or of im2rec, as images with labels."""
from __future__ import annotations

import os
import struct
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from gluon_ft.data.lists import MAX_LABEL, find_class_names
from gluon_ft.data.records import framing, manifest
from gluon_ft.data.sources.base import ImageRef, ImageSource
from gluon_ft.errors import DataError

_HEADS = struct.Struct("<IIIfQQ")  # magic, kind and length of the part; number of labels, label, id, second id


class RecordSource(ImageSource):
    """The images of a `.rec`.

    Attributes
    ----------
    path : Path
    offsets : sequence of int
        The byte at which the record of each image begins.
    sha256 : str or None
        What the manifest says of the whole file; None without one.
    """

    kind = "records"

    def __init__(self, path, offsets: Sequence[int], labels, class_names: Sequence[str] | None = None,
                 sha256: str | None = None, label_names: Sequence[str | None] | None = None):
        super().__init__(path, labels, class_names)
        self.path, self.offsets, self.sha256, self._label_names = Path(path), offsets, sha256, label_names
        self.remedy = f"see all of it with gluon-ft verify {path}"

    def where(self, position: int) -> str:
        return f"{self.path}: record {position} at byte {self.offsets[position]}"

    def image_name(self, position: int) -> str:
        return f"record {position}"

    def label_name(self, position: int) -> str | None:
        return super().label_name(position) if self._label_names is None else self._label_names[position]

    def ref(self, position: int) -> ImageRef:
        return ImageRef(str(self.path), int(self.offsets[position]))

    def read(self, position: int) -> bytes:
        return self.ref(position).read()


def index_of(path: Path) -> Path:
    """The `.idx` beside a `.rec`."""
    return path.with_suffix(".idx")


def manifest_of(path: Path) -> Path:
    """The `.manifest.json` beside a `.rec`."""
    return path.with_suffix(".manifest.json")


def open_records(path) -> RecordSource:
    """The images of a `.rec` in the order of its index, without reading them: only where they are, and their labels.

    Class names are those of the manifest, else of the `.classes.txt` of the list of that name; None without either.

    Raises
    ------
    DataError
        The file cannot be read, or is damaged as far as that shows; a label is not one class; index or manifest do
        not fit the records.
    """
    path = Path(path)
    try:
        size = os.stat(path).st_size
        with open(path, "rb") as file:
            offsets = framing.read_index(index_of(path))[1] if index_of(path).is_file() else _scan(file, size)
            heads = [_head(file, offset, size, i) for i, offset in enumerate(offsets)]
    except framing.Damaged as error:
        raise _damaged(path, error) from None
    except OSError as error:
        raise _unreadable(path, error) from None
    _check_covered(path, size, offsets, [end for _, end in heads])
    return RecordSource(path, offsets, [label for label, _ in heads], *_classes_and_hash(path, len(heads)))


def scan_records(path) -> RecordSource:
    """The images of a `.rec` in the file's own order, whatever their labels are; the index is not looked at.

    Class names are those of the manifest, None without one. Raises DataError where the file cannot be read, is damaged
    or holds no record.
    """
    path = Path(path)
    known = manifest.read(manifest_of(path)).classes if manifest_of(path).is_file() else None
    offsets, labels, names = array("Q"), [], []
    try:
        size = os.stat(path).st_size
        with open(path, "rb") as file:
            for record in framing.scan(file, size):
                if isinstance(record, framing.Damage):
                    raise framing.Damaged(str(record))
                found = framing.read_header(record.payload).labels
                offsets.append(record.offset)
                labels.append(int(found[0]) if len(found) == 1 and float(found[0]).is_integer() else -1)
                names.append(_label_name(found, known))
    except framing.Damaged as error:
        raise _damaged(path, error) from None
    except OSError as error:
        raise _unreadable(path, error) from None
    if not len(offsets):
        raise DataError("no records", path=path, found="an empty file")
    return RecordSource(path, offsets, labels, known, label_names=names)


def _label_name(labels, class_names) -> str | None:
    if len(labels) != 1:
        return None
    label = labels[0]
    if class_names is not None and float(label).is_integer() and 0 <= label < len(class_names):
        return class_names[int(label)]
    return str(int(label)) if float(label).is_integer() else f"{label:g}"


def _damaged(path, error) -> DataError:
    return DataError(f"damaged: {error}", path=path, remedy=f"see all of it with gluon-ft verify {path}")


def _unreadable(path, error) -> DataError:
    return DataError("cannot be read", path=path, expected="packed records (.rec)", found=error.strerror or error)


def _scan(file: BinaryIO, size: int) -> array:
    offsets = array("Q")
    for record in framing.scan(file, size):
        if isinstance(record, framing.Damage):
            raise framing.Damaged(str(record))
        offsets.append(record.offset)
    return offsets


def _check_covered(path: Path, size: int, offsets: Sequence[int], ends: Sequence[int]) -> None:
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


def _head(file: BinaryIO, offset: int, size: int, number: int) -> tuple[int, int]:
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


def _class_of(labels: Sequence[float]) -> int:
    if len(labels) != 1 or not 0 <= labels[0] <= MAX_LABEL or labels[0] != int(labels[0]):
        raise framing.Damaged("expected one class, a whole number from 0; found label "
                              f"{' '.join(f'{x:g}' for x in labels[:8])}")
    return int(labels[0])


def _classes_and_hash(path: Path, count: int) -> tuple[list[str] | None, str | None]:
    if not manifest_of(path).is_file():
        return find_class_names(path.with_suffix(".lst")), None
    known = manifest.read(manifest_of(path))
    if known.records != count:
        raise DataError("manifest of other records", path=manifest_of(path),
                        expected=f"{count} records as in {path.name}", found=known.records, remedy="pack again")
    return known.classes, known.rec_sha256
