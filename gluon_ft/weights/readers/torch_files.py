"""Reads PyTorch's two pickle formats, the zip archive (since 1.6) and the older stream, without torch."""
from __future__ import annotations

import encodings.cp437  # noqa: F401  zipfile decodes names with it; so that reading a file imports nothing
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from gluon_ft.errors import WeightsError, printable
from gluon_ft.weights.readers import NOT_RUN
from gluon_ft.weights.readers.strided_tensors import Storage, Tensor, copied, itemsize
from gluon_ft.weights.readers.torch_globals import ADMITTED, storage_dtype
from gluon_ft.weights.readers.unpickle import Account, unpickle

# torch/serialization.py: MAGIC_NUMBER and PROTOCOL_VERSION of the older format.
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
_LONGEST_PICKLE = 32 << 20
_MOST_STORAGES = 100_000
_MOST_MEMBERS = 50_000
# zipfile keeps half a kilobyte for each entry of the directory; torch's entries take some 80 bytes.
_LONGEST_DIRECTORY = 4 << 20
_END_OF_ZIP = 22  # bytes of the record at a zip archive's end, without its comment
_LOCAL = struct.Struct("<4s5H3L2H")  # a member's own header
_UTF8, _ENCRYPTED = 0x800, 0x1  # flags of a member


@dataclass(frozen=True)
class TorchFile:
    """The content of a PyTorch file.

    Parameters
    ----------
    content : object
        The pickled object: dicts, lists, tuples, numbers, text, and Tensor or NumpyArray for arrays.
    read : callable
        Tensor -> a new np.ndarray (`strided_tensors.copied`); checks the checksum if there is one.
    """

    content: object
    read: Callable[[Tensor], np.ndarray]


def read_torch_zip(path: Path, data: memoryview) -> TorchFile:
    """Reads the zip archive that `torch.save` writes: `<name>/data.pkl`, `<name>/data/<key>`, `<name>/byteorder`.

    Parameters
    ----------
    path : Path
    data : memoryview
        The whole file.

    Raises
    ------
    WeightsError
        The archive is of another kind, a storage's length differs from the declared one, or `members` or `unpickle`
        refuses the file.
    """
    found = members(path, data)
    pickles = [n for n in found if n.count("/") == 1 and n.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise WeightsError("this zip archive is no PyTorch file", expected="one member */data.pkl",
                           found=", ".join(printable(n, 30) for n in list(found)[:3]) or "an empty archive")
    folder = pickles[0][:-len("data.pkl")]
    if folder + "constants.pkl" in found:
        raise WeightsError("this is a TorchScript program, not a file of weights",
                           remedy="save its state dict: torch.save(module.state_dict(), path)")
    member = found[pickles[0]]
    if member.size > _LONGEST_PICKLE:
        raise WeightsError(f"the pickle has {member.size} bytes", expected=f"at most {_LONGEST_PICKLE}")
    # torch.serialization.set_crc32_options(False) writes 0 for every checksum.
    checked = member.crc != 0
    if checked:
        _check_crc(data, member)
    storages = _ZipStorages(data, found, folder, _byteorder(data, found.get(folder + "byteorder")), checked)
    content, end = unpickle(data[member.start:member.start + member.size], ADMITTED, storages.describe)
    if end != member.size:
        raise WeightsError(f"{member.size - end} bytes follow the pickle in {printable(member.name)}")
    return TorchFile(content, storages.read)


@dataclass(frozen=True)
class Member:
    """A file in an archive: `size` bytes from `start` on, after its header at `header`; `crc` is from the directory."""

    name: str
    header: int
    start: int
    size: int
    crc: int


def members(path: Path, data: memoryview) -> dict[str, Member]:
    """Name -> Member of every file in a zip archive that stores its members uncompressed, as PyTorch does.

    `zipfile` reads the directory, and the directory is checked here against the file. Members can then be used where
    they lie, without unpacking, so that a zip bomb is impossible.

    Parameters
    ----------
    path : Path
    data : memoryview
        The whole file.

    Raises
    ------
    WeightsError
        A member is compressed or encrypted, has a name that leads out of the archive, occurs twice, overlaps another
        or extends beyond the file; the archive has several parts, or a directory of over 50,000 members or 4 MB.
    """
    with open(path, "rb") as file:
        end = zipfile._EndRecData(file)  # pyright: ignore[reportAttributeAccessIssue] the record with zip64's numbers
        if end is None:
            raise WeightsError("the archive has no directory: the file is cut off")
        _, disk, first_disk, here, count, size, start, comment, _, at = end[:10]
        if at + _END_OF_ZIP + comment != len(data):
            raise WeightsError("the archive does not end where its directory does")
        if disk or first_disk or here != count:
            raise WeightsError("the archive is one of several parts")
        if count > _MOST_MEMBERS or size > _LONGEST_DIRECTORY:
            raise WeightsError(f"the archive has {count} members and a directory of {size} bytes",
                               expected=f"at most {_MOST_MEMBERS} and {_LONGEST_DIRECTORY}")
        with zipfile.ZipFile(file) as archive:
            entries, found_at = archive.infolist(), archive.start_dir
    if found_at != start or len(entries) != count:
        raise WeightsError("the archive's directory is not where it should be, or has not as many entries as it says")
    found = {}
    for entry in entries:
        if entry.orig_filename in found:
            raise WeightsError(f"the archive has the member {printable(entry.orig_filename)} twice")
        found[entry.orig_filename] = _located(data, entry)
    _refuse_overlaps(found.values(), start)
    return {name: member for name, member in found.items() if not name.endswith("/")}


def _located(data: memoryview, entry: zipfile.ZipInfo) -> Member:
    """Finds a member's bytes, after its own header, which must have the same name."""
    name, size, at = entry.orig_filename, entry.file_size, entry.header_offset
    parts = name.split("/")
    if not name or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name or ":" in parts[0]:
        raise WeightsError(f"the archive has a member named {printable(name)}, which leads out of it")
    stored = not entry.compress_type and size == entry.compress_size and entry.volume in (0, 0xFFFF)
    if not stored or entry.flag_bits & _ENCRYPTED:
        raise WeightsError(f"the member {printable(name)} is compressed or encrypted", expected="stored as it is",
                           remedy="torch.save writes archives without compression; save the weights again")
    if at < 0 or at + _LOCAL.size > len(data):
        raise WeightsError(f"the member {printable(name)} lies outside the file")
    signature, _, _, method, *_, name_length, extra_length = _LOCAL.unpack_from(data, at)
    start = at + _LOCAL.size + name_length + extra_length
    own_name = bytes(data[at + _LOCAL.size:at + _LOCAL.size + name_length])
    if signature != b"PK\3\4" or method or own_name != name.encode("utf-8" if entry.flag_bits & _UTF8 else "cp437"):
        raise WeightsError(f"the member {printable(name)} is not where the directory says")
    if start + size > len(data):
        raise WeightsError(f"the member {printable(name)} leaves the file", expected=f"at most {len(data)} bytes",
                           found=start + size)
    return Member(name, at, start, size, entry.CRC)


def _refuse_overlaps(found: Iterable[Member], directory: int) -> None:
    before = 0
    for member in sorted(found, key=lambda m: (m.header, m.start)):
        if member.header < before:
            raise WeightsError(f"the member {printable(member.name)} overlaps another")
        before = member.start + member.size
    if before > directory:
        raise WeightsError("a member of the archive overlaps its directory")


def _check_crc(data: memoryview, member: Member) -> None:
    if zlib.crc32(data[member.start:member.start + member.size]) != member.crc:
        raise WeightsError(f"the member {printable(member.name)} is damaged: its checksum differs")


def _byteorder(data: memoryview, member: Member | None) -> Literal["<", ">"]:
    if member is None:
        return "<"
    said = bytes(data[member.start:member.start + min(member.size, 16)])
    if said not in (b"little", b"big"):
        raise WeightsError(f"the byte order is {printable(said.decode('latin-1'))}", expected="little or big")
    return "<" if said == b"little" else ">"


@dataclass
class _ZipStorages:
    """Finds the storages that the pickle names, and reads tensors out of them."""

    data: memoryview
    found: dict[str, Member]
    folder: str
    byteorder: Literal["<", ">"]
    checked: bool
    sound: set[str] = field(default_factory=set)  # members whose checksum was checked, and right

    def describe(self, name: tuple, account: Account) -> Storage:
        """The storage of a persistent id ('storage', storage class, key, place, number of values)."""
        if len(name) != 5:
            raise WeightsError(f"a persistent id of {len(name)} parts", expected="5")
        storage = _storage(name, account)
        member = self.found.get(f"{self.folder}data/{storage.key}")
        if member is None:
            raise WeightsError(f"the archive lacks the storage data/{printable(storage.key)}")
        if storage.count * itemsize(storage.dtype) != member.size:
            raise WeightsError(f"the storage data/{printable(storage.key)} has {member.size} bytes",
                               expected=f"{storage.count} values of {storage.dtype}")
        return storage

    def read(self, tensor: Tensor) -> np.ndarray:
        member = self.found[f"{self.folder}data/{tensor.storage.key}"]
        if self.checked and member.name not in self.sound:
            _check_crc(self.data, member)
            self.sound.add(member.name)
        raw = np.frombuffer(self.data, np.uint8, member.size, member.start)
        return copied(tensor, raw, self.byteorder)


def read_torch_legacy(data: memoryview) -> TorchFile:
    """Reads the stream that `torch.save` wrote before 1.6 (and still does with `_use_new_zipfile_serialization=False`).

    Five pickles (magic number, protocol, system, the object, the storages' keys), then for each key the number of
    values as int64 and the values, little-endian.

    Parameters
    ----------
    data : memoryview
        The whole file.

    Raises
    ------
    WeightsError
        The file lacks a storage, or has another length of it than declared; bytes follow the last storage; or
        `unpickle` refuses the file.
    """
    if LEGACY_MAGIC.to_bytes(10, "little") not in bytes(data[:32]):
        raise WeightsError("a pickle, but not one that torch.save wrote", remedy=NOT_RUN)
    at = 0
    header = []
    for _ in range(3):
        value, at = unpickle(data[:at + 4096], {}, None, at, Account(instructions=1000, payload=1 << 16))
        header.append(value)
    _check_header(*header)
    declared: dict[str, Storage] = {}
    content, at = unpickle(data[:at + _LONGEST_PICKLE], ADMITTED, lambda n, a: _legacy_storage(n, a, declared), at)
    keys, at = unpickle(data[:at + _LONGEST_PICKLE], {}, None, at,
                        Account(instructions=4 * _MOST_STORAGES, payload=32 << 20))
    starts = _legacy_starts(data, at, keys, declared)

    def read(tensor: Tensor) -> np.ndarray:
        whole = declared[tensor.storage.key]
        raw = np.frombuffer(data, np.uint8, whole.count * itemsize(whole.dtype), starts[whole.key])
        return copied(tensor, raw)

    return TorchFile(content, read)


def _check_header(magic, protocol, system) -> None:
    if magic != LEGACY_MAGIC or protocol != LEGACY_PROTOCOL:
        raise WeightsError("the header of PyTorch's older format is damaged")
    if type(system) is not dict or system.get("little_endian") is not True:
        raise WeightsError("the file was written on a big-endian machine",
                           remedy="load it there with torch and save it again as safetensors")


def _storage(name: tuple, account: Account) -> Storage:
    kind, mark, key, _place, count = name[:5]
    if kind != "storage":
        raise WeightsError("a persistent id that is no storage", remedy=NOT_RUN)
    if type(key) is not str or len(key) > 100 or type(count) is not int or count < 0:
        raise WeightsError("a storage without a key or a length")
    account.charge(400)
    return Storage(key, storage_dtype(mark), count)


def _legacy_storage(name: tuple, account: Account, declared: dict[str, Storage]) -> Storage:
    """The storage of a persistent id (..., view); view is None or (key of the view, first value, number of values)."""
    if len(name) != 6:
        raise WeightsError(f"a persistent id of {len(name)} parts", expected="6")
    storage, view = _storage(name, account), name[5]
    if declared.setdefault(storage.key, storage) != storage:
        raise WeightsError(f"the storage {printable(storage.key)} is declared in two ways")
    if view is None:
        return storage
    _, first, count = view
    if type(first) is not int or type(count) is not int or min(first, count) < 0 or first + count > storage.count:
        raise WeightsError(f"a view leaves the storage {printable(storage.key)}")
    return Storage(storage.key, storage.dtype, count, first)


def _legacy_starts(data, at: int, keys, declared: dict[str, Storage]) -> dict[str, int]:
    """Key of a storage -> position of its values in the file."""
    if type(keys) is not list or any(type(k) is not str for k in keys) or len(set(keys)) != len(keys) \
            or set(keys) != set(declared):
        raise WeightsError("the list of storages does not agree with the tensors")
    starts = {}
    for key in keys:
        count, = struct.unpack_from("<q", data, at)
        storage = declared[key]
        if count != storage.count:
            raise WeightsError(f"the storage {printable(key)} has {count} values", expected=storage.count)
        starts[key] = at + 8
        at += 8 + count * itemsize(storage.dtype)
        if at > len(data):
            raise WeightsError("the file is cut off", expected=f"{at} bytes", found=len(data))
    if at != len(data):
        raise WeightsError(f"{len(data) - at} bytes follow the last storage")
    return starts
