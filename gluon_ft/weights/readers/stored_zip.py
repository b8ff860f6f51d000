"""The members of a zip archive that stores them uncompressed, found without unpacking and without trust.

`zipfile` reads as long a directory as the archive claims to have, and keeps a kilobyte for each entry. PyTorch writes
its archives with a fixed structure (no compression, no encryption, one disk), so that a short reader can ask for
exactly that: whatever differs, overlaps or leads outside the file is refused, and a zip bomb cannot exist.
"""
from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from gluon_ft.errors import WeightsError
from gluon_ft.weights.readers.refusal import printable

_MOST_MEMBERS = 50_000
_LONGEST_DIRECTORY = 16 << 20
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_ENCRYPTED = 0x1


@dataclass(frozen=True)
class Member:
    """`size` bytes from `start` of the file, behind a header at `header`, and their checksum by the directory."""

    name: str
    header: int
    start: int
    size: int
    crc: int


def members(data) -> dict[str, Member]:
    """Name -> Member of every file in the archive `data` (a memoryview of the whole file).

    Raises WeightsError for compressed or encrypted members, names that lead out of the archive, members that occur
    twice, overlap or leave the file, archives of several disks, and more than 50,000 members.
    """
    start, size, count = _directory(data)
    found, at = {}, start
    for _ in range(count):
        member, at = _entry(data, at, start + size)
        if member.name in found:
            raise WeightsError(f"the archive has the member {printable(member.name)} twice")
        found[member.name] = member
    if at != start + size:
        raise WeightsError("the archive's directory has more entries than it says")
    _refuse_overlaps(found.values(), start)
    return {name: member for name, member in found.items() if not name.endswith("/")}


def check_crc(data, member: Member) -> None:
    """Raises WeightsError where the member's bytes are not those that its checksum was made of."""
    if zlib.crc32(data[member.start:member.start + member.size]) != member.crc:
        raise WeightsError(f"the member {printable(member.name)} is damaged: its checksum differs")


def _directory(data) -> tuple[int, int, int]:
    """Start, size and number of entries of the central directory."""
    tail = max(0, len(data) - _END.size - 0xFFFF)
    at = bytes(data[tail:]).rfind(b"PK\5\6") + tail
    if at < tail or at + _END.size > len(data):
        raise WeightsError("the archive has no directory: the file is cut off")
    _, disk, first_disk, here, count, size, start, comment = _END.unpack_from(data, at)
    if at + _END.size + comment != len(data):
        raise WeightsError("the archive does not end where its directory does")
    end = at
    if at >= _LOCATOR.size and bytes(data[at - _LOCATOR.size:at - _LOCATOR.size + 4]) == b"PK\6\7":
        _, _, end, disks = _LOCATOR.unpack_from(data, at - _LOCATOR.size)
        if end > at - _LOCATOR.size - _END64.size or disks > 1 or bytes(data[end:end + 4]) != b"PK\6\6":
            raise WeightsError("the archive's directory is damaged")
        _, _, _, _, disk, first_disk, here, count, size, start = _END64.unpack_from(data, end)
    if disk or first_disk or here != count:
        raise WeightsError("the archive is one of several parts")
    if count > _MOST_MEMBERS or size > _LONGEST_DIRECTORY:
        raise WeightsError(f"the archive has {count} members", expected=f"at most {_MOST_MEMBERS}")
    if start + size != end:
        raise WeightsError("the archive's directory is not where it should be", expected=f"its end at byte {end}",
                           found=start + size)
    return start, size, count


def _entry(data, at: int, end: int) -> tuple[Member, int]:
    if at + _ENTRY.size > end:
        raise WeightsError("the archive's directory is cut off")
    (signature, _, _, flags, method, _, _, crc, packed, size, name_length, extra_length, comment_length, disk, _, _,
     offset) = _ENTRY.unpack_from(data, at)
    at += _ENTRY.size
    raw = bytes(data[at:at + name_length])
    extra = bytes(data[at + name_length:at + name_length + extra_length])
    after = at + name_length + extra_length + comment_length
    if signature != b"PK\1\2" or after > end:
        raise WeightsError("the archive's directory is damaged")
    name = _checked_name(raw)
    size, packed, offset = _zip64(extra, size, packed, offset)
    if method or size != packed or flags & _ENCRYPTED or disk not in (0, 0xFFFF):
        raise WeightsError(f"the member {printable(name)} is compressed or encrypted", expected="stored as it is",
                           remedy="torch.save writes archives without compression; save the weights again")
    return _located(data, name, raw, offset, size, crc), after


def _zip64(extra: bytes, size: int, packed: int, offset: int) -> tuple[int, int, int]:
    """The three numbers, taken from the zip64 extra field where they are too large for 32 bits."""
    values, large = [size, packed, offset], [v == 0xFFFFFFFF for v in (size, packed, offset)]
    while any(large) and len(extra) >= 4:
        kind, length = struct.unpack_from("<2H", extra)
        if kind == 1:
            numbers = struct.unpack_from(f"<{sum(large)}Q", extra[4:4 + length])
            for i in range(3):
                if large[i]:
                    values[i], numbers = numbers[0], numbers[1:]
            return tuple(values)
        extra = extra[4 + length:]
    return tuple(values)


def _checked_name(raw: bytes) -> str:
    name = raw.decode("utf-8")
    parts = name.split("/")
    if not name or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name or ":" in parts[0]:
        raise WeightsError(f"the archive has a member named {printable(name)}, which leads out of it")
    return name


def _located(data, name: str, raw: bytes, offset: int, size: int, crc: int) -> Member:
    """The member's data, behind its local header, which must name it too."""
    if offset + _LOCAL.size > len(data):
        raise WeightsError(f"the member {printable(name)} lies outside the file")
    header = _LOCAL.unpack_from(data, offset)
    start = offset + _LOCAL.size + header[9] + header[10]
    if header[0] != b"PK\3\4" or header[3] or \
            bytes(data[offset + _LOCAL.size:offset + _LOCAL.size + header[9]]) != raw:
        raise WeightsError(f"the member {printable(name)} is not where the directory says")
    if start + size > len(data):
        raise WeightsError(f"the member {printable(name)} leaves the file", expected=f"at most {len(data)} bytes",
                           found=start + size)
    return Member(name, offset, start, size, crc)


def _refuse_overlaps(found, end: int) -> None:
    before = 0
    for member in sorted(found, key=lambda m: (m.header, m.start)):
        if member.header < before:
            raise WeightsError(f"the member {printable(member.name)} overlaps another")
        before = member.start + member.size
    if before > end:
        raise WeightsError("a member of the archive overlaps its directory")
