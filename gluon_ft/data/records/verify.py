"""`verify`: reads every record of a `.rec` and reports the damaged ones with their byte offsets."""
from __future__ import annotations

import bisect
import functools
import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from gluon_ft.data.images import decode
from gluon_ft.data.images.header import MAX_MEGAPIXELS, Unreadable, probe
from gluon_ft.data.records import framing, manifest, pool
from gluon_ft.data.records.framing import Damage, Damaged, Record
from gluon_ft.data.records.record_file import RecordFile
from gluon_ft.errors import DataError
from gluon_ft.io import checksums, reporter

MOST_KEPT = 100  # damages that a report describes; all are counted
_CHUNK_RECORDS, _CHUNK_BYTES = 16, 2 << 20
_T = TypeVar("_T")


@dataclass
class Report:
    """What `verify` found.

    Attributes
    ----------
    records, bytes : int
    damaged : int
        Number of damages found.
    damages : list of Damage
        The first 100 of them.
    manifest, index : bool
        Whether the file exists, to compare the records with.
    labels : dict of float to int
        Number of records of each label; records with several labels are not counted.
    """

    path: Path
    records: int = 0
    bytes: int = 0
    damaged: int = 0
    damages: list[Damage] = field(default_factory=list)
    manifest: bool = False
    index: bool = False
    labels: dict[float, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether no damage was found."""
        return not self.damaged

    def add(self, record: int | None, byte: int | None, reason: object) -> None:
        """Counts one damage, and describes it if it is among the first 100.

        Parameters
        ----------
        record : int or None
            The record's number from 0; None for the whole file.
        byte : int or None
            Where the record begins; None if unknown.
        reason : object
            Stored as text.
        """
        self.damaged += 1
        if len(self.damages) < MOST_KEPT:
            self.damages.append(Damage(record, byte, str(reason)))


def verify(rec: str | os.PathLike, *, workers: int = 1, classes: int | None = None,
           max_megapixels: float = MAX_MEGAPIXELS) -> Report:
    """Checks every record of a `.rec`: framing, header, labels, decoding, and agreement with index and manifest.

    Without index and manifest, a file that was cut off between two records looks complete. Without a manifest, changed
    pixels go unnoticed as long as the image decodes.

    Parameters
    ----------
    rec : path-like
        The `.idx` and `.manifest.json` beside it are used if they exist; MXNet's `im2rec.py` writes no manifest.
    workers : int, default 1
        Number of processes that decode.
    classes : int, optional
        Number of classes; labels must be whole numbers below it. Default: as in the manifest.
    max_megapixels : float, default 100
        A larger image counts as damaged and is not decoded.

    Raises
    ------
    DataError
        The file cannot be opened or read.
    ConfigError
        `workers` is out of range.
    """
    pool.check_workers(workers)
    records = RecordFile(rec)
    report = Report(records.path, bytes=records.bytes, manifest=records.has_manifest, index=records.has_index)
    packed = _unless_damaged(report, lambda: records.manifest)
    index = _unless_damaged(report, lambda: records.index)
    if classes is None and packed is not None and packed.classes is not None:
        classes = len(packed.classes)
    check = functools.partial(_check_chunk, classes, max_megapixels)
    with reporter.progress(total=report.bytes, unit="B", unit_scale=True, desc="verify") as bar:
        for results in pool.ordered(check, _chunks(records.scan()), workers=workers, weight=lambda chunk: chunk[0]):
            for place, header, reason in results:
                _add_to_report(report, packed, index, place, header, reason)
                bar.update(place.end - place.offset if place.end else 0)
    _compare(report, packed, index, records)
    return report


def _unless_damaged(report: Report, read: Callable[[], _T]) -> _T | None:
    """The result of `read`; a DataError is reported as damage, and None returned."""
    try:
        return read()
    except DataError as error:
        report.add(None, None, error)
        return None


@dataclass(frozen=True)
class _Place:
    """Where a record is, and the CRC-32 of its payload; `end` is 0 if its framing is damaged."""

    number: int
    offset: int
    end: int
    crc: bytes = b""


def _add_to_report(report, packed, index, place, header, reason):
    report.records += 1
    if report.damaged and index is not None:
        place = _numbered_by_index(place, index[1])
    if reason:
        report.add(place.number, place.offset, reason)
    elif packed is not None and place.number < packed.records and place.crc != packed.packed_crc(place.number):
        report.add(place.number, place.offset, "contents differ from those that the manifest has a checksum of")
    if header is not None and len(header.labels) == 1:
        report.labels[header.labels[0]] = report.labels.get(header.labels[0], 0) + 1
    if index is not None and place.number < len(index[1]):
        key, offset = index[0][place.number], index[1][place.number]
        if offset != place.offset:
            report.add(place.number, place.offset, f"the index has it at byte {offset}")
        elif packed is not None and header is not None and key != header.id:
            report.add(place.number, place.offset, f"its id is {header.id} and the index has {key}")


def _numbered_by_index(place, offsets):
    """The record renumbered by the index: damage may have hidden several records, which were counted as one."""
    position = bisect.bisect_left(offsets, place.offset)
    found = position < len(offsets) and offsets[position] == place.offset
    return replace(place, number=position) if found else place


def _check_chunk(classes, max_megapixels, chunk):
    """(place, header or None, what is wrong or None) of each record; runs in a worker."""
    return [_check_one(item, classes, max_megapixels) for item in chunk[1]]


def _check_one(item, classes, max_megapixels):
    if isinstance(item, Damage):
        return _Place(item.record or 0, item.byte or 0, 0), None, item.reason
    place = _Place(item.number, item.offset, item.end, manifest.crc(item.payload))
    header = None
    try:
        header = framing.read_header(item.payload)
        _check_labels(header, classes)
        data = item.payload[header.start:]
        if not data:
            raise Damaged("no image behind the header")
        decode.decode(data, probe(data, max_megapixels), color=-1)
    except (Damaged, Unreadable) as error:
        return place, header, str(error)
    except MemoryError:
        return place, header, "not enough memory to decode it"
    return place, header, None


def _check_labels(header, classes):
    for label in header.labels:
        if not math.isfinite(label):
            raise Damaged(f"label is {label}")
    if classes is not None and len(header.labels) == 1:
        label = header.labels[0]
        if not (label.is_integer() and 0 <= label < classes):
            raise Damaged(f"label {label:g} is out of range, expected 0 to {classes - 1}")


def _chunks(items: Iterable[Record | Damage]) -> Iterator[tuple[int, list[Record | Damage]]]:
    """Groups records into the workers' tasks: (bytes of the payloads, records)."""
    chunk, weight = [], 0
    for item in items:
        chunk.append(item)
        weight += len(item.payload) if isinstance(item, Record) else 0
        if len(chunk) == _CHUNK_RECORDS or weight > _CHUNK_BYTES:
            yield weight, chunk
            chunk, weight = [], 0
    if chunk:
        yield weight, chunk


def _compare(report, packed, index, records):
    """Reports where the file as a whole disagrees with its index or manifest."""
    if not report.records:
        report.add(None, 0, "no records: the file is empty")
    if index is not None and len(index[1]) != report.records:
        report.add(None, report.bytes, f"{report.records} records, and the index has {len(index[1])}")
    if index is not None and len(set(index[0])) != len(index[0]):
        report.add(None, None, "a key is in the index twice")
    if packed is None:
        return
    if packed.records != report.records:
        report.add(None, report.bytes, f"{report.records} records, and the manifest has {packed.records}")
    if _sha256(records.path) != packed.rec_sha256:
        report.add(None, None, "its SHA-256 is not the manifest's")
    if index is None:
        report.add(None, None, "the index is missing" if not report.index else "the index cannot be compared")
    elif _sha256(records.index_path) != packed.idx_sha256:
        report.add(None, None, "the SHA-256 of the index is not the manifest's")
    if not report.damaged and {label: n for label, n in packed.counts.items() if n} != report.labels:
        report.add(None, None, "the counts of the labels are not the manifest's")


def _sha256(path):
    try:
        return checksums.sha256_of(path)
    except OSError as error:
        raise DataError("cannot be read", path=path, found=error.strerror or error) from error
