"""PyTorch's two pickle formats, the zip archive (since 1.6) and the older stream, read without torch."""
from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gluon_ft.errors import WeightsError
from gluon_ft.weights.readers.pickle_rules import Account
from gluon_ft.weights.readers.refusal import NOT_RUN, printable
from gluon_ft.weights.readers.stored_zip import Member, check_crc, members
from gluon_ft.weights.readers.strided_tensors import Storage, Tensor, copied, itemsize
from gluon_ft.weights.readers.torch_globals import ADMITTED, storage_dtype
from gluon_ft.weights.readers.unpickle import unpickle

# torch/serialization.py: MAGIC_NUMBER and PROTOCOL_VERSION of the older format.
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
_LONGEST_PICKLE = 32 << 20
_MOST_STORAGES = 100_000


@dataclass(frozen=True)
class TorchFile:
    """What a PyTorch file holds.

    content : the pickled object: dicts, lists, tuples, numbers, text, and Tensor or NumpyArray for arrays.
    read : callable, Tensor -> np.ndarray of its own (`strided_tensors.copied`); checks the checksum if there is one.
    """

    content: object
    read: Callable[[Tensor], np.ndarray]


def read_torch_zip(data) -> TorchFile:
    """The zip archive that `torch.save` writes: `<name>/data.pkl`, `<name>/data/<key>`, `<name>/byteorder`.

    Parameters
    ----------
    data : memoryview
        The whole file.

    Raises WeightsError for archives of another kind, storages whose length is not the declared one, and what
    `stored_zip` and `safe_unpickle` refuse.
    """
    found = members(data)
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
        check_crc(data, member)
    storages = _ZipStorages(data, found, folder, _byteorder(data, found.get(folder + "byteorder")), checked)
    content, end = unpickle(data[member.start:member.start + member.size], ADMITTED, storages.describe)
    if end != member.size:
        raise WeightsError(f"{member.size - end} bytes follow the pickle in {printable(member.name)}")
    return TorchFile(content, storages.read)


def _byteorder(data, member: Member | None) -> str:
    if member is None:
        return "<"
    said = bytes(data[member.start:member.start + min(member.size, 16)])
    if said not in (b"little", b"big"):
        raise WeightsError(f"the byte order is {printable(said.decode('latin-1'))}", expected="little or big")
    return "<" if said == b"little" else ">"


class _ZipStorages:
    """Finds the storages that the pickle names, and reads tensors out of them."""

    def __init__(self, data, found, folder, byteorder, checked):
        self.data, self.found, self.folder, self.byteorder, self.checked = data, found, folder, byteorder, checked
        self.sound = set()

    def describe(self, name: tuple, account: Account) -> Storage:
        """Of the persistent id ('storage', storage class, key, place, number of values)."""
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
            check_crc(self.data, member)
            self.sound.add(member.name)
        raw = np.frombuffer(self.data, np.uint8, member.size, member.start)
        return copied(tensor, raw, self.byteorder)


def read_torch_legacy(data) -> TorchFile:
    """The stream that `torch.save` wrote before 1.6 (and still writes with `_use_new_zipfile_serialization=False`).

    Five pickles (magic number, protocol, system, the object, the storages' keys), then for each key the number of
    values as int64 and the values, little-endian.

    Parameters
    ----------
    data : memoryview
        The whole file.

    Raises WeightsError for storages that the file does not hold, or not in the declared length, for bytes after the
    last one, and what `safe_unpickle` refuses.
    """
    if LEGACY_MAGIC.to_bytes(10, "little") not in bytes(data[:32]):
        raise WeightsError("a pickle, but not one that torch.save wrote", remedy=NOT_RUN)
    at = 0
    header = []
    for _ in range(3):
        value, at = unpickle(data[:at + 4096], {}, _no_storage, at, Account(instructions=1000, payload=1 << 16))
        header.append(value)
    _check_header(*header)
    declared: dict[str, Storage] = {}
    content, at = unpickle(data[:at + _LONGEST_PICKLE], ADMITTED, lambda n, a: _legacy_storage(n, a, declared), at)
    keys, at = unpickle(data[:at + _LONGEST_PICKLE], {}, _no_storage, at,
                        Account(instructions=4 * _MOST_STORAGES, payload=32 << 20))
    starts = _legacy_starts(data, at, keys, declared)

    def read(tensor: Tensor) -> np.ndarray:
        whole = declared[tensor.storage.key]
        raw = np.frombuffer(data, np.uint8, whole.count * itemsize(whole.dtype), starts[whole.key])
        return copied(tensor, raw)

    return TorchFile(content, read)


def _no_storage(name, account):
    raise WeightsError("a storage where none can be")


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
    """Of the persistent id (..., view) with view None, or (key of the view, first value, number of values)."""
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
    """Key -> position of its storage's values."""
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
