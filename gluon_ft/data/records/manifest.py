"""The manifest of packed records: classes, counts, sizes, options, versions and checksums, its own included."""
from __future__ import annotations

import base64
import hashlib
import json
import platform
import zlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gluon_ft.data.records.writer import Target
from gluon_ft.errors import DataError
from gluon_ft.io import documents
from gluon_ft.io.paths import AnyPath
from gluon_ft.io.shapes import anything, each, listed, maybe, named, number, text, whole

FORMAT, VERSION = "gluon_ft records", 1
HASH_BYTES = 16  # stored of each source's SHA-256: 128 bits are enough to tell images apart
# A CRC for each record tells which one is damaged; the SHA-256 of the whole file proves that none is.
CRC_BYTES = 4
MAX_BYTES = 1 << 30  # enough for 38 million records, at 28 bytes each

_STATISTICS = named({}, {"min": whole(0), "median": number(0), "max": whole(0)})
_SHAPE = named(
    {"classes": maybe(listed(text(4096))), "records": whole(0), "options": each(anything, 50),
     "counts": listed(named({"label": number(), "class": maybe(text(4096)), "records": whole(0)})),
     "rec": named({"bytes": whole(0), "sha256": text(64)}), "idx": named({"bytes": whole(0), "sha256": text(64)}),
     "source_hashes": text(MAX_BYTES), "packed_crcs": text(MAX_BYTES)},
    {"sizes": each(_STATISTICS, 20), "shard": maybe(named({"number": whole(0), "of": whole(1)}))}, others=True)


@dataclass
class Tally:
    """Statistics collected while records are written; about 60 bytes for each record."""

    counts: dict = field(default_factory=dict)
    sizes: dict = field(default_factory=lambda: {name: array("L") for name in (
        "source_width", "source_height", "width", "height")})
    source_hashes: bytearray = field(default_factory=bytearray)
    packed_crcs: bytearray = field(default_factory=bytearray)

    def add(self, labels: Sequence[float], source_size: tuple[int, int], size: tuple[int, int], source_hash: bytes,
            packed_crc: bytes) -> None:
        """Adds one record.

        Parameters
        ----------
        labels : sequence of float
            The record counts towards its class only if it has a single label.
        source_size, size : (width, height)
            Size of the image before and after packing, in pixels.
        source_hash : bytes
            `short_hash` of the source file, 16 bytes.
        packed_crc : bytes
            `crc` of the payload, 4 bytes.
        """
        if len(labels) == 1:
            self.counts[labels[0]] = self.counts.get(labels[0], 0) + 1
        for name, value in zip(self.sizes, (*source_size, *size)):
            self.sizes[name].append(value)
        self.source_hashes += source_hash
        self.packed_crcs += packed_crc


@dataclass(frozen=True)
class Manifest:
    """A manifest that was read from a file and checked.

    Attributes
    ----------
    classes : list of str or None
        Class names in label order; None if they were not known.
    counts : dict of float to int
        Number of records of each label.
    records : int
    rec_sha256, idx_sha256 : str
        SHA-256 of the `.rec` and of the `.idx`, in hexadecimal.
    source_hashes : bytes
        The `short_hash` of each source file, 16 bytes a record.
    packed_crcs : bytes
        The CRC-32 of each record's payload (header and image), 4 bytes a record.
    data : dict
        The whole manifest.
    """

    classes: list[str] | None
    counts: dict[float, int]
    records: int
    rec_sha256: str
    idx_sha256: str
    source_hashes: bytes
    packed_crcs: bytes
    data: dict

    def packed_crc(self, number: int) -> bytes:
        """The CRC-32 of the payload of record `number` (from 0)."""
        return self.packed_crcs[CRC_BYTES * number:CRC_BYTES * (number + 1)]


def short_hash(data: bytes) -> bytes:
    """The first 16 bytes of the SHA-256."""
    return hashlib.sha256(data).digest()[:HASH_BYTES]


def crc(payload: bytes) -> bytes:
    """CRC-32, big-endian."""
    return zlib.crc32(payload).to_bytes(CRC_BYTES, "big")


def statistics(values: Sequence[float]) -> dict:
    """{'min', 'median', 'max'} of sizes in pixels; empty for no values."""
    if not len(values):
        return {}
    return {"min": int(np.min(values)), "median": float(np.median(values)), "max": int(np.max(values))}


def versions() -> dict:
    """Versions of the software that the packed bytes may depend on."""
    import cv2
    import PIL

    from gluon_ft import __version__

    return {"gluon_ft": __version__, "opencv": cv2.__version__, "pillow": PIL.__version__, "numpy": np.__version__,
            "python": platform.python_version()}


def to_bytes(tally: Tally, target: Target, about: dict) -> bytes:
    """The manifest of packed records as JSON.

    It contains no date, no target folder and no number of workers, so that the same input gives the same bytes.

    Parameters
    ----------
    tally : Tally
        The statistics of the records.
    target : records.writer.Target
        The target, with all records written.
    about : dict
        Further entries, such as `options`, `list` and `source`. The entry `classes` (list of str or None) gives the
        class names for the labels in `counts`.

    Returns
    -------
    bytes
        JSON in UTF-8; the last entry is the SHA-256 of the rest.
    """
    classes = about.get("classes")
    names = {label: classes[int(label)] for label in tally.counts} if classes else {}
    content = {
        "format": FORMAT, "version": VERSION, "records": target.records, **about,
        "counts": [{"label": int(label) if label.is_integer() else label, "class": names.get(label),
                    "records": tally.counts[label]}
                   for label in sorted(tally.counts)],
        "sizes": {name: statistics(values) for name, values in tally.sizes.items()},
        "rec": {"bytes": target.bytes, "sha256": target.sha256.hexdigest()},
        "idx": {"bytes": target.idx_bytes, "sha256": target.idx_sha256.hexdigest()},
        "versions": versions(),
        "source_hashes": base64.b64encode(tally.source_hashes).decode(),
        "packed_crcs": base64.b64encode(tally.packed_crcs).decode(),
    }
    content["sha256"] = own_hash(content)
    return json.dumps(content, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def own_hash(content: dict) -> str:
    """SHA-256 of all entries except 'sha256' itself; independent of how the JSON file is formatted."""
    rest = {key: value for key, value in content.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def read(path: AnyPath) -> Manifest:
    """Reads a manifest and verifies its own checksum.

    Raises DataError if it cannot be read, is not a manifest of this version, or was changed or damaged.
    """
    content = _content(Path(path))
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError("not a manifest of packed records", path=path, expected=f"'format': '{FORMAT}'")
    if content.get("version") != VERSION:
        raise DataError("manifest of another version", path=path, expected=VERSION, found=content.get("version"),
                        remedy="use the gluon_ft that wrote it, or pack again")
    if content.get("sha256") != own_hash(content):
        raise DataError("manifest was changed or damaged", path=path, expected="contents that fit its own sha256",
                        remedy="pack again, or remove it to do without it")
    try:
        return _checked(content)
    except ValueError as error:
        raise DataError("manifest is not complete", path=path, found=error,
                        remedy="pack again, or remove it to do without it") from error


def _content(path: Path):
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError("manifest is too large", path=path, expected=f"at most {MAX_BYTES} bytes")
        return documents.read_json(path, MAX_BYTES)
    except OSError as error:
        raise DataError("manifest cannot be read", path=path, found=error.strerror or error) from error
    except ValueError as error:
        raise DataError("manifest is not JSON", path=path, found=str(error)[:120]) from None


def _checked(content):
    _SHAPE(content, "")
    classes, records = content["classes"], content["records"]
    sizes = {"source_hashes": HASH_BYTES, "packed_crcs": CRC_BYTES}
    hashes = {name: base64.b64decode(content[name], validate=True) for name in sizes}
    for name, value in hashes.items():
        if len(value) != sizes[name] * records:
            raise ValueError(f"{name} of {len(value)} bytes for {records} records")
    counts = {float(row["label"]): row["records"] for row in content["counts"]}
    return Manifest(classes=classes, counts=counts, records=records, rec_sha256=str(content["rec"]["sha256"]),
                    idx_sha256=str(content["idx"]["sha256"]), data=content, **hashes)
