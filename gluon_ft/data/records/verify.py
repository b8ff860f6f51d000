"""`verify`: reads every record and says which one is damaged, and at what byte."""
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

MOST_KEPT = 100  # damages that a report names; all are counted
_CHUNK_RECORDS, _CHUNK_BYTES = 16, 2 << 20
_T = TypeVar("_T")


@dataclass
class Report:
    """What `verify` found.

    Attributes
    ----------
    records, bytes : int
    damaged : int
        Number of damages.
    damages : list of Damage
        The first 100 of them.
    manifest, index : bool
        Whether they were there to compare with.
    labels : dict of float to int
        Records of each label, of those with one label.
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
        """No damage."""
        return not self.damaged

    def add(self, record: int | None, byte: int | None, reason: object) -> None:
        """Notes one damage; all are counted, the first 100 are kept.

        Parameters
        ----------
        record : int or None
            Its number from 0; None: the file as a whole.
        byte : int or None
            Where in the file it begins, where that is known.
        reason : object
            Its text is kept.
        """
        self.damaged += 1
        if len(self.damages) < MOST_KEPT:
            self.damages.append(Damage(record, byte, str(reason)))


def verify(rec: str | os.PathLike, *, workers: int = 1, classes: int | None = None,
           max_megapixels: float = MAX_MEGAPIXELS) -> Report:
    """Reads every record of a `.rec`: framing, header, labels, image (decoded), and index and manifest where present.

    A cut between two records of a file without index and manifest cannot be seen; nor can changed pixels without a
    manifest, as long as they decode.

    Parameters
    ----------
    rec : path-like
        `.idx` and `.manifest.json` are looked for beside it; a file by MXNet's `im2rec.py` has no manifest.
    workers : int, default 1
        Processes that decode.
    classes : int, optional
        Number of classes; labels must be whole numbers below it. Default the manifest's.
    max_megapixels : float, default 100
        A larger image counts as damage and is not decoded.

    Raises
    ------
    DataError
        The file cannot be read at all.
    ConfigError
        `workers` is out of range.
    """
    pool.check_workers(workers)
    records = RecordFile(rec)
    report = Report(records.path, bytes=records.bytes, manifest=records.has_manifest, index=records.has_index)
    known = _unless_damaged(report, lambda: records.manifest)
    index = _unless_damaged(report, lambda: records.index)
    if classes is None and known is not None and known.classes is not None:
        classes = len(known.classes)
    check = functools.partial(_check_chunk, classes, max_megapixels)
    with reporter.progress(total=report.bytes, unit="B", unit_scale=True, desc="verify") as bar:
        for results in pool.ordered(check, _chunks(records.scan()), workers=workers, weight=lambda chunk: chunk[0]):
            for seen, header, reason in results:
                _take(report, known, index, seen, header, reason)
                bar.update(seen.end - seen.offset if seen.end else 0)
    _compare(report, known, index, records)
    return report


def _unless_damaged(report: Report, read: Callable[[], _T]) -> _T | None:
    """What `read` gives; None where it raises a DataError, which is noted as damage."""
    try:
        return read()
    except DataError as error:
        report.add(None, None, error)
        return None


@dataclass(frozen=True)
class _Seen:
    """A record without its payload; `end` is 0 where its framing is damaged."""

    number: int
    offset: int
    end: int
    crc: bytes = b""


def _take(report, known, index, seen, header, reason):
    report.records += 1
    if report.damaged and index is not None:
        seen = _numbered(seen, index[1])
    if reason:
        report.add(seen.number, seen.offset, reason)
    elif known is not None and seen.number < known.records and seen.crc != known.packed_crc(seen.number):
        report.add(seen.number, seen.offset, "contents differ from those that the manifest has a checksum of")
    if header is not None and len(header.labels) == 1:
        report.labels[header.labels[0]] = report.labels.get(header.labels[0], 0) + 1
    if index is not None and seen.number < len(index[1]):
        key, offset = index[0][seen.number], index[1][seen.number]
        if offset != seen.offset:
            report.add(seen.number, seen.offset, f"the index has it at byte {offset}")
        elif known is not None and header is not None and key != header.id:
            report.add(seen.number, seen.offset, f"its id is {header.id} and the index has {key}")


def _numbered(seen, offsets):
    """The record with its number by the index, since damage may have swallowed several records."""
    position = bisect.bisect_left(offsets, seen.offset)
    found = position < len(offsets) and offsets[position] == seen.offset
    return replace(seen, number=position) if found else seen


def _check_chunk(classes, max_megapixels, chunk):
    """(seen, header or None, reason or None) of each record; runs in a worker."""
    return [_check_one(item, classes, max_megapixels) for item in chunk[1]]


def _check_one(item, classes, max_megapixels):
    if isinstance(item, Damage):
        return _Seen(item.record or 0, item.byte or 0, 0), None, item.reason
    seen = _Seen(item.number, item.offset, item.end, manifest.crc(item.payload))
    header = None
    try:
        header = framing.read_header(item.payload)
        _check_labels(header, classes)
        data = item.payload[header.start:]
        if not data:
            raise Damaged("no image behind the header")
        decode.decode(data, probe(data, max_megapixels), color=-1)
    except (Damaged, Unreadable) as error:
        return seen, header, str(error)
    except MemoryError:
        return seen, header, "not enough memory to decode it"
    return seen, header, None


def _check_labels(header, classes):
    for label in header.labels:
        if not math.isfinite(label):
            raise Damaged(f"label is {label}")
    if classes is not None and len(header.labels) == 1:
        label = header.labels[0]
        if not (label.is_integer() and 0 <= label < classes):
            raise Damaged(f"label {label:g} is out of range, expected 0 to {classes - 1}")


def _chunks(items: Iterable[Record | Damage]) -> Iterator[tuple[int, list[Record | Damage]]]:
    """(bytes of the payloads, records) of one task after the other."""
    chunk, weight = [], 0
    for item in items:
        chunk.append(item)
        weight += len(item.payload) if isinstance(item, Record) else 0
        if len(chunk) == _CHUNK_RECORDS or weight > _CHUNK_BYTES:
            yield weight, chunk
            chunk, weight = [], 0
    if chunk:
        yield weight, chunk


def _compare(report, known, index, records):
    """Notes where the file as a whole does not fit its index and manifest."""
    if not report.records:
        report.add(None, 0, "no records: the file is empty")
    if index is not None and len(index[1]) != report.records:
        report.add(None, report.bytes, f"{report.records} records, and the index has {len(index[1])}")
    if index is not None and len(set(index[0])) != len(index[0]):
        report.add(None, None, "a key is in the index twice")
    if known is None:
        return
    if known.records != report.records:
        report.add(None, report.bytes, f"{report.records} records, and the manifest has {known.records}")
    if _sha256(records.path) != known.rec_sha256:
        report.add(None, None, "its SHA-256 is not the manifest's")
    if index is None:
        report.add(None, None, "the index is missing" if not report.index else "the index cannot be compared")
    elif _sha256(records.index_path) != known.idx_sha256:
        report.add(None, None, "the SHA-256 of the index is not the manifest's")
    if not report.damaged and {label: n for label, n in known.counts.items() if n} != report.labels:
        report.add(None, None, "the counts of the labels are not the manifest's")


def _sha256(path):
    try:
        return checksums.sha256_of(path)
    except OSError as error:
        raise DataError("cannot be read", path=path, found=error.strerror or error) from error
