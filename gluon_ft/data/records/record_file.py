"""`RecordFile`: reads a `.rec` with its index, manifest and class names. All readers of records use it."""
from __future__ import annotations

import functools
import os
import stat
import struct
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from gluon_ft.data import lists
from gluon_ft.data.images.header import Unreadable
from gluon_ft.data.records import framing, manifest
from gluon_ft.data.records.framing import Damage, Damaged, Record
from gluon_ft.errors import DataError

MAX_SHARDS = 10_000
INDEX, MANIFEST = ".idx", ".manifest.json"
_START = struct.Struct("<IIIfQQ")  # magic, kind and length of the part; number of labels, label, id, id2


def beside(rec: str | os.PathLike, suffix: str) -> Path:
    """The path of a file that belongs to a `.rec`: `a.rec` -> `a<suffix>`."""
    text = os.fspath(rec)
    return Path((text[:-4] if text.lower().endswith(".rec") else text) + suffix)


def read_image(path: str | os.PathLike, offset: int) -> bytes:
    """The bytes of the image in the record at byte `offset` of a `.rec`; thread-safe.

    Raises Unreadable with the reason.
    """
    try:
        # Opened for each image, because threads that share a file would share its position.
        with open(path, "rb") as file:
            payload = framing.read_record(file, offset, os.fstat(file.fileno()).st_size).payload
        return payload[framing.read_header(payload).start:]
    except (OSError, Damaged) as error:
        raise Unreadable(str(error)) from None


class RecordFile:
    """The records of a `.rec` made by `pack` or by MXNet's `im2rec.py`.

    At first only the file's size is read, the rest when it is needed. No length found in the file is trusted.

    Attributes
    ----------
    path : Path
    bytes : int
        Size of the file.

    Raises
    ------
    DataError
        The path is not a regular file or cannot be read. The properties raise it too, for the files that they read.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        try:
            status = os.stat(path)
        except OSError as error:
            raise self._cannot_be_read(error) from None
        if not stat.S_ISREG(status.st_mode):
            raise DataError("not a file", path=path, expected="packed records (.rec)")
        self.bytes = status.st_size

    def __len__(self) -> int:
        return len(self.offsets)

    # The files beside it

    @property
    def index_path(self) -> Path:
        """The path of the index, whether or not it exists."""
        return beside(self.path, INDEX)

    @property
    def manifest_path(self) -> Path:
        """The path of the manifest, whether or not it exists."""
        return beside(self.path, MANIFEST)

    @property
    def has_index(self) -> bool:
        """Whether the index exists, be it readable or not."""
        return os.path.lexists(self.index_path)

    @property
    def has_manifest(self) -> bool:
        """Whether the manifest exists, be it readable or not; files by `im2rec.py` have none."""
        return os.path.lexists(self.manifest_path)

    @functools.cached_property
    def index(self) -> tuple[array[int], array[int]] | None:
        """(keys, byte offsets) in the order of the index; None without an index."""
        return framing.read_index(self.index_path) if self.has_index else None

    @functools.cached_property
    def manifest(self) -> manifest.Manifest | None:
        """The manifest, verified by its own checksum but not yet compared with the records; None without one."""
        return manifest.read(self.manifest_path) if self.has_manifest else None

    @functools.cached_property
    def class_names(self) -> list[str] | None:
        """Class names in label order, from the manifest or else from a `.classes.txt` beside the file; or None."""
        if self.manifest is not None and self.manifest.classes is not None:
            return self.manifest.classes
        return lists.find_class_names(beside(self.path, ".lst"))

    @property
    def sha256(self) -> str | None:
        """The file's SHA-256 according to the manifest; None without one."""
        return None if self.manifest is None else self.manifest.rec_sha256

    @property
    def shard(self) -> tuple[int, int, str] | None:
        """(number of this shard from 0, number of shards, SHA-256 of the packed list); None if not one of several."""
        entries = {} if self.manifest is None else self.manifest.data
        shard, packed = entries.get("shard"), entries.get("list")
        if not isinstance(shard, dict) or not isinstance(packed, dict):
            return None
        number, of = shard.get("number"), shard.get("of")
        if isinstance(number, int) and isinstance(of, int) and 0 <= number < of <= MAX_SHARDS:
            return number, of, str(packed.get("sha256"))
        return None

    # The records, by position

    @property
    def offsets(self) -> array[int]:
        """The byte at which each record begins, in the order of the index; without an index, in the order of the file.

        Raises DataError if the index leaves out part of the file.
        """
        return self._headers[0]

    @property
    def labels(self) -> np.ndarray:
        """int64 (n,): the class of each record; -1 for several labels, or for one that is not a class number."""
        first, several = self._headers[1:]
        values = np.frombuffer(first, dtype=np.float32).astype(np.float64)
        values[list(several)] = -1
        good = np.isfinite(values) & (values >= 0) & (values <= lists.MAX_LABEL) & (values == np.floor(values))
        return np.where(good, values, -1).astype(np.int64)

    def labels_of(self, position: int) -> tuple[float, ...]:
        """All labels of one record."""
        first, several = self._headers[1:]
        return several.get(position, (first[position],))

    def class_labels(self) -> np.ndarray:
        """`labels`, after checking that each record has exactly one class. DataError for the first that has not."""
        labels = self.labels
        wrong = np.flatnonzero(labels < 0)
        if len(wrong):
            own = self.labels_of(int(wrong[0]))
            found = " ".join(f"{x:g}" for x in own[:8])
            if np.isfinite(own).all():  # not damaged, but packed for another task than classification
                what = "several labels an image" if len(own) > 1 else "a label that is no class"
                raise DataError(what, path=self.path, expected=f"{lists.ONE_CLASS}, a whole number from 0",
                                found=f"label {found} in record {wrong[0]} at byte {self.offsets[wrong[0]]}",
                                remedy=lists.SEVERAL if len(own) > 1 else "correct the list and pack again")
            raise self.damaged(f"record {wrong[0]} at byte {self.offsets[wrong[0]]}: expected one class, a whole "
                               f"number from 0; found label {found}")
        return labels

    def label_name(self, labels: Sequence[float]) -> str | None:
        """The class of a record with these labels, by name or else as a number; None for several labels or none."""
        if len(labels) != 1:
            return None
        label = float(labels[0])
        if not label.is_integer():
            return f"{label:g}"
        names = self.class_names or []
        return names[int(label)] if 0 <= label < len(names) else str(int(label))

    def where(self, position: int) -> str:
        """Names the place of a record in errors."""
        return f"{self.path}: record {position} at byte {self.offsets[position]}"

    def read(self, position: int) -> bytes:
        """The bytes of a record's image; thread-safe. Raises Unreadable with the reason."""
        return read_image(self.path, self.offsets[position])

    def scan(self) -> Iterator[Record | Damage]:
        """Yields each record in file order, or a Damage where one cannot be read, see `framing.scan`. Needs no index.
        """
        try:
            with open(self.path, "rb") as file:
                yield from framing.scan(file, self.bytes)
        except OSError as error:
            raise self._cannot_be_read(error) from None

    def scan_whole(self) -> Iterator[tuple[Record, framing.ImageHeader]]:
        """Yields each record with its header, in file order. Raises DataError for the first damaged one."""
        for item in self.scan():
            if isinstance(item, Damage):
                raise self.damaged(str(item))
            try:
                yield item, framing.read_header(item.payload)
            except Damaged as error:
                raise self.damaged(f"record {item.number} at byte {item.offset}: {error}") from None

    def damaged(self, reason: str) -> DataError:
        """The error to raise for damage in this file."""
        return DataError(f"damaged: {reason}", path=self.path,
                         remedy=f"see all of it with gluon-ft verify {self.path}")

    def _cannot_be_read(self, error: OSError) -> DataError:
        return DataError("cannot be read", path=self.path, expected="packed records (.rec)",
                         found=error.strerror or error)

    @functools.cached_property
    def _headers(self) -> tuple[array[int], array[float], dict[int, tuple[float, ...]]]:
        """(offsets, first label of each record, position -> all labels of each record without exactly one)."""
        offsets, ends, first, several = array("Q"), array("Q"), array("f"), {}
        for position, (offset, end, labels) in enumerate(self._each_header()):
            offsets.append(offset)
            ends.append(end)
            first.append(labels[0] if labels else np.nan)
            if len(labels) != 1:
                several[position] = labels
        self._check_index_covers(offsets, ends)
        if self.manifest is not None and self.manifest.records != len(offsets):
            raise DataError("manifest of other records", path=self.manifest_path,
                            expected=f"{len(offsets)} records as in {self.path.name}", found=self.manifest.records,
                            remedy="pack again")
        return offsets, first, several

    def _each_header(self) -> Iterator[tuple[int, int, tuple[float, ...]]]:
        """(first byte, byte after its end, labels) of each record: by the index, or else by reading the whole file."""
        if self.index is None:
            for item, header in self.scan_whole():
                yield item.offset, item.end, header.labels
            return
        try:
            with open(self.path, "rb") as file:
                for position, offset in enumerate(self.index[1]):
                    yield (offset, *_read_record_header(file, offset, self.bytes, position))
        except Damaged as error:
            raise self.damaged(str(error)) from None
        except OSError as error:
            raise self._cannot_be_read(error) from None

    def _check_index_covers(self, offsets, ends):
        """DataError if the index leaves out a record or lists one twice: images would be lost without notice."""
        at = 0
        for begin, end in sorted(zip(offsets, ends)):
            if begin != at:
                break
            at = end
        else:
            begin = self.bytes
        if begin != at:
            raise DataError("the index does not fit the records", path=self.index_path, expected=f"one at byte {at}",
                            found="none" if begin == self.bytes else f"the next at byte {begin}", remedy="pack again")


def _read_record_header(file: BinaryIO, offset: int, size: int, number: int) -> tuple[int, tuple[float, ...]]:
    """(byte after its end, labels) of a record; from its first 32 bytes alone where these are enough."""
    try:
        file.seek(min(offset, size))
        head = file.read(_START.size)
        if len(head) == _START.size:
            magic, word, count, label, *_ = _START.unpack(head)
            length = word & framing.MAX_PART
            end = offset + 8 + length + -length % 4
            if magic == framing.MAGIC and word >> 29 == framing.WHOLE and length >= 24 and count == 0 and end <= size:
                return end, (label,)
        record = framing.read_record(file, offset, size, number)
        return record.end, framing.read_header(record.payload).labels
    except Damaged as error:
        raise Damaged(f"record {number} at byte {offset}: {error}") from None
