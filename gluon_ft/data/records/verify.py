"""`verify`: reads every record and says which one is damaged, and at what byte."""
from __future__ import annotations

import bisect
import functools
import hashlib
import io
import math
import os
import stat
from dataclasses import dataclass, field, replace
from pathlib import Path

from gluon_ft.data.images import decode
from gluon_ft.data.images import header as recprobe
from gluon_ft.data.records import framing, manifest, pool
from gluon_ft.data.records.framing import Damage, Damaged, Record
from gluon_ft.errors import ConfigError, DataError
from gluon_ft.io import reporter

MOST_KEPT = 100  # damages that a report names; all are counted
_CHUNK_RECORDS, _CHUNK_BYTES = 16, 2 << 20


@dataclass
class Report:
    """What `verify` found: `damages` has the first 100 of `damaged`; `manifest` and `index` say whether they were
    there to compare with; `labels` counts the records of each single label."""

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

    def add(self, record, byte, reason) -> None:
        """Notes one damage."""
        self.damaged += 1
        if len(self.damages) < MOST_KEPT:
            self.damages.append(Damage(record, byte, str(reason)))


def verify(rec, *, workers=1, classes=None, max_megapixels=recprobe.MAX_MEGAPIXELS) -> Report:
    """Reads every record of a `.rec`: framing, header, labels, image (decoded), and index and manifest where present.

    Parameters
    ----------
    rec : path; `.idx` and `.manifest.json` are looked for beside it, a file by MXNet's `im2rec.py` has no manifest
    workers : processes that decode
    classes : number of classes; labels must be whole numbers below it. Default the manifest's
    max_megapixels : a larger image counts as damage and is not decoded

    A cut between two records of a file without index and manifest cannot be seen; nor can changed pixels without a
    manifest, as long as they decode.

    Raises DataError where the file cannot be read at all.
    """
    if not (isinstance(workers, int) and 1 <= workers <= 256):
        raise ConfigError("bad number of workers", expected="1 to 256", found=workers)
    path = Path(rec)
    report = Report(path, bytes=_size(path))
    known = _manifest(path, report)
    index = _index(path, report)
    if classes is None and known is not None and known.classes is not None:
        classes = len(known.classes)
    check = functools.partial(_check_chunk, classes, max_megapixels)
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file, reporter.progress(total=report.bytes, unit="B", unit_scale=True,
                                                        desc="verify") as bar:
            chunks = _chunks(framing.scan(file, report.bytes))
            for results in pool.ordered(check, chunks, workers=workers, weight=lambda chunk: chunk[0]):
                for result in results:
                    _take(report, known, index, *result)
                    bar.update(result[0].end - result[0].offset if result[0].end else 0)
            _hash_file(file, digest)
    except OSError as error:
        raise DataError("cannot be read", path=path, found=error.strerror or error) from error
    _compare(report, known, index, digest.hexdigest())
    return report


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
    """Damage may have swallowed several records: the index knows which one this is."""
    position = bisect.bisect_left(offsets, seen.offset)
    found = position < len(offsets) and offsets[position] == seen.offset
    return replace(seen, number=position) if found else seen


def _check_chunk(classes, max_megapixels, chunk):
    """(seen, header or None, reason or None) of each record; runs in a worker, without MXNet."""
    return [_check_one(item, classes, max_megapixels) for item in chunk[1]]


def _check_one(item, classes, max_megapixels):
    if isinstance(item, Damage):
        return _Seen(item.record, item.byte, 0), None, item.reason
    seen = _Seen(item.number, item.offset, item.end, manifest.crc(item.payload))
    header = None
    try:
        header = framing.read_header(item.payload)
        _check_labels(header, classes)
        data = item.payload[header.start:]
        if not data:
            raise Damaged("no image behind the header")
        decode.decode(data, recprobe.probe(data, max_megapixels), color=-1)
    except (Damaged, recprobe.Unreadable) as error:
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


def _chunks(items):
    chunk, weight = [], 0
    for item in items:
        chunk.append(item)
        weight += len(item.payload) if isinstance(item, Record) else 0
        if len(chunk) == _CHUNK_RECORDS or weight > _CHUNK_BYTES:
            yield weight, chunk
            chunk, weight = [], 0
    if chunk:
        yield weight, chunk


def _size(path):
    try:
        status = os.stat(path)
    except OSError as error:
        raise DataError("cannot be read", path=path, expected="packed records (.rec)",
                        found=error.strerror or error) from None
    if not stat.S_ISREG(status.st_mode):
        raise DataError("not a file", path=path, expected="packed records (.rec)")
    return status.st_size


def beside(rec, kind: str) -> Path:
    """The file of another kind that belongs to a `.rec`: `a.rec` -> `a<kind>`."""
    text = os.fspath(rec)
    return Path((text[:-4] if text.endswith(".rec") else text) + kind)


def _manifest(path, report):
    beside_it = beside(path, ".manifest.json")
    if not os.path.lexists(beside_it):
        return None
    report.manifest = True
    try:
        return manifest.read(beside_it)
    except DataError as error:
        report.add(None, None, error)
        return None


def _index(path, report):
    beside_it = beside(path, ".idx")
    if not os.path.lexists(beside_it):
        return None
    report.index = True
    try:
        return framing.read_index(beside_it)
    except DataError as error:
        report.add(None, None, error)
        return None


def _hash_file(file, digest):
    file.seek(0)
    for block in iter(lambda: file.read(io.DEFAULT_BUFFER_SIZE * 64), b""):
        digest.update(block)


def _compare(report, known, index, sha256):
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
    if sha256 != known.rec_sha256:
        report.add(None, None, "its SHA-256 is not the manifest's")
    if index is None:
        report.add(None, None, "the index is missing" if not report.index else "the index cannot be compared")
    elif _file_sha256(beside(report.path, ".idx")) != known.idx_sha256:
        report.add(None, None, "the SHA-256 of the index is not the manifest's")
    if not report.damaged and {label: n for label, n in known.counts.items() if n} != report.labels:
        report.add(None, None, "the counts of the labels are not the manifest's")


def _file_sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        _hash_file(file, digest)
    return digest.hexdigest()
