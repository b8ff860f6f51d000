"""Writes and reads MXNet's RecordIO framing and image header. No length found in a file is trusted.

A record has one or more parts. A part is the magic number, a 32-bit word (3 bits: kind of part, 29 bits: length), the
bytes, and zero padding to a multiple of 4. Where the payload itself contains the magic number at a multiple of 4, the
writer splits it there and drops the number, so that every magic number in the file starts a part and a reader can find
the next record after damage (dmlc-core `recordio.h`, `src/recordio.cc`).
"""
from __future__ import annotations

import re
import struct
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from gluon_ft.errors import DataError
from gluon_ft.io.paths import AnyPath

MAGIC = 0xCED7230A
MAGIC_BYTES = struct.pack("<I", MAGIC)
MAX_PART = (1 << 29) - 1  # bytes, the length field has 29 bits
WHOLE, FIRST, MIDDLE, LAST = range(4)

_HEADER = struct.Struct("<IfQQ")  # number of labels, label, id, id2: mx.recordio's IRHeader
_WORDS = struct.Struct("<II")
_SEARCH = 1 << 20  # bytes per read when searching for the next record after damage
_INDEX_LINE = re.compile(rb"([0-9]{1,19})\t([0-9]{1,19})\r?\n?")


class Damaged(ValueError):
    """A damaged record; the text says how. Internal: `scan` turns it into a `Damage`."""


@dataclass(frozen=True)
class Record:
    """One record: its number from 0, the byte at which it starts, the byte after its end, and its payload."""

    number: int
    offset: int
    end: int
    payload: bytes


@dataclass(frozen=True)
class Damage:
    """What is wrong with a record, its number and the byte at which it starts (None: the whole file is meant)."""

    record: int | None
    byte: int | None
    reason: str

    def __str__(self):
        where = "file" if self.record is None else f"record {self.record}"
        return f"{where}{'' if self.byte is None else f' at byte {self.byte}'}: {self.reason}"


@dataclass(frozen=True)
class ImageHeader:
    """The record's `labels` (float32 values), its `id`, and `start`, where the image begins in the payload."""

    labels: tuple[float, ...]
    id: int
    start: int


def frame(payload: bytes) -> bytes:
    """Frames a payload byte for byte as MXNet's own writer does; DataError for 512 MB or more."""
    if len(payload) > MAX_PART:
        raise DataError("record is too large", expected=f"at most {MAX_PART} bytes", found=len(payload))
    cuts = list(_aligned_magics(payload))
    parts, begin = [], 0
    for cut in [*cuts, len(payload)]:
        place = WHOLE if not cuts else FIRST if not parts else LAST if cut == len(payload) else MIDDLE
        body = payload[begin:cut]
        parts.append(_WORDS.pack(MAGIC, place << 29 | len(body)) + body + bytes(-len(body) % 4))
        begin = cut + 4
    return b"".join(parts)


def _aligned_magics(payload: bytes) -> Iterator[int]:
    at = payload.find(MAGIC_BYTES)
    while at >= 0:
        if at % 4 == 0:
            yield at
        at = payload.find(MAGIC_BYTES, at + (4 if at % 4 == 0 else 1))


def read_record(file: BinaryIO, offset: int, size: int, number: int = 0) -> Record:
    """Reads the record at byte `offset`, never past the end of the file, whatever lengths the record declares.

    Parameters
    ----------
    file : binary file, open for reading
    offset : int
        A multiple of 4.
    size : int
        Size of the whole file in bytes.
    number : int, default 0
        The record's number; only copied to the result.

    Returns
    -------
    Record
        `payload` is all parts joined; `end` is where the next record begins.

    Raises
    ------
    Damaged
        A part has no magic number, is longer than the file, or is out of order (a middle part without a first).
    """
    parts, at = [], offset
    while True:
        place, length = _part_header(file, at, size)
        if (place in (MIDDLE, LAST)) != bool(parts):
            raise Damaged(f"part at byte {at} is out of place (kind {place})")
        end = at + 8 + length + -length % 4
        if end > size:
            raise Damaged(f"declares {length} bytes and the file ends {end - size} bytes before their end")
        parts.append(file.read(length))
        if len(parts[-1]) != length:
            raise Damaged("file became shorter while it was read")
        at = end
        if place in (WHOLE, LAST):
            return Record(number, offset, end, MAGIC_BYTES.join(parts))


def _part_header(file, at, size):
    if size - at < 8:
        raise Damaged(f"{max(size - at, 0)} bytes left where a header of 8 bytes is due")
    file.seek(at)
    head = file.read(8)
    if len(head) < 8:
        raise Damaged("file became shorter while it was read")
    magic, word = _WORDS.unpack(head)
    if magic != MAGIC:
        raise Damaged(f"no record begins at byte {at}: expected 0x{MAGIC:08x}, found 0x{magic:08x}")
    if word >> 29 > LAST:
        raise Damaged(f"part at byte {at} is of kind {word >> 29}, expected 0 to 3")
    return word >> 29, word & MAX_PART


def scan(file: BinaryIO, size: int) -> Iterator[Record | Damage]:
    """Yields each record of an open file of `size` bytes, in order, or a Damage where a record cannot be read.

    After damage, scanning continues at the next place where a record begins. A record whose length points to a place
    where no record begins is reported as damaged and not yielded, since either it or the next one is damaged.
    """
    offset, number = 0, 0
    while offset < size:
        try:
            record = read_record(file, offset, size, number)
            if not _ends_or_has_magic(file, record.end, size):
                raise Damaged(f"its length leads to byte {record.end}, where no record begins: either this record's "
                              "length or the next record's header is damaged")
            yield record
            offset = record.end
        except Damaged as error:
            yield Damage(number, offset, str(error))
            offset = _next_record(file, offset + 4, size)
        number += 1


def _ends_or_has_magic(file, at, size) -> bool:
    """Whether byte `at` is the end of the file or has a magic number (possibly cut off by the end of the file)."""
    file.seek(at)
    return at >= size or MAGIC_BYTES.startswith(file.read(4))


def _is_record_start(file, at, size) -> bool:
    try:
        place, length = _part_header(file, at, size)
    except Damaged:
        return False
    return place in (WHOLE, FIRST) and at + 8 + length <= size


def _next_record(file, at: int, size: int) -> int:
    """The first place from byte `at` on where a record begins, searched in steps of 4 bytes; `size` if none."""
    while at < size:
        file.seek(at)
        words = np.frombuffer(_whole_words(file.read(_SEARCH)), dtype="<u4")
        if not len(words):
            return size
        for i in np.flatnonzero(words == MAGIC):
            if _is_record_start(file, at + 4 * int(i), size):
                return at + 4 * int(i)
        at += 4 * len(words)
    return size


def _whole_words(data: bytes) -> bytes:
    return data[:len(data) // 4 * 4]


def pack_header(labels: Sequence[float], record_id: int) -> bytes:
    """The image header as `mx.recordio.pack` writes it: a single label is in the header, several follow it."""
    if len(labels) == 1:
        return _HEADER.pack(0, labels[0], record_id, 0)
    return _HEADER.pack(len(labels), 0, record_id, 0) + np.asarray(labels, dtype="<f4").tobytes()


def read_header(payload: bytes) -> ImageHeader:
    """Reads the image header of a payload; Damaged if the payload is too short for it."""
    if len(payload) < _HEADER.size:
        raise Damaged(f"{len(payload)} bytes, too short for an image header of {_HEADER.size}")
    count, label, record_id, _ = _HEADER.unpack_from(payload)
    end = _HEADER.size + 4 * count
    if count == 0:
        return ImageHeader((label,), record_id, end)
    if end > len(payload):
        raise Damaged(f"header declares {count} labels and the record holds {len(payload)} bytes")
    labels = np.frombuffer(payload, dtype="<f4", count=count, offset=_HEADER.size)
    return ImageHeader(tuple(labels.tolist()), record_id, end)


def read_index(path: AnyPath) -> tuple[array, array]:
    """Reads a `.idx` file: (keys, byte offsets), two arrays of unsigned 64-bit numbers in the file's order.

    Raises DataError, with the line number, for a line that is not two whole numbers separated by a tab.
    """
    keys, offsets = array("Q"), array("Q")
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(64), b""), 1):
                found = _INDEX_LINE.fullmatch(line)
                if not found:
                    raise DataError("bad line", path=f"{path}:{number}", expected="key and byte, separated by a tab",
                                    found=repr(line[:40]))
                keys.append(int(found[1]))
                offsets.append(int(found[2]))
    except OSError as error:
        raise DataError("cannot be read", path=path, expected="an index of records",
                        found=error.strerror or error) from error
    return keys, offsets
