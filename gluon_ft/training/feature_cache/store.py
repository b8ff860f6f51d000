"""Keeps arrays of features by key: in memory, or in a folder where later runs find them again."""
from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import shutil
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from gluon_ft.errors import ConfigError, DataError
from gluon_ft.io import atomic, documents, locks, paths
from gluon_ft.io.checksums import sha256_of

ARRAY, MANIFEST = "features.npy", "manifest.json"
MEMORY_BYTES = 2 << 30  # a million images of 512 features, or 2,600 of 64 x 56 x 56
DISK_BYTES = 32 << 30
_FREE = 256 << 20  # bytes of the disk that are left to others
_REMEDY = "take fewer views, freeze more stages (features get smaller), or name a folder with more space"


def folder_of(store: str | os.PathLike) -> Path:
    """The folder on disk: `<cache home>/features` for 'memory' and 'disk', otherwise the given one."""
    return paths.cache_home() / "features" if store in ("memory", "disk") else Path(store)


def kept(key: str, shape: tuple[int, ...], make: Callable[[], Iterable[np.ndarray]], *,
         store: str | os.PathLike = "memory", limit_bytes: int = MEMORY_BYTES, disk_bytes: int = DISK_BYTES,
         about: dict | None = None) -> np.ndarray:
    """The float32 array of that key and shape, read-only; made where it is not there yet.

    On disk the array is mapped into memory. It is written under another name first, and checked by its SHA-256 when it
    is found again; a damaged one is made anew, with a warning. Only one process makes the array of a key, others wait
    for it.

    Parameters
    ----------
    key : str
        Hexadecimal; equal keys mean equal contents.
    shape : tuple of int
        At least two axes.
    make : callable()
        Yields the array's rows in order, in pieces (rows, *shape[2:]) that follow one another over both of the first
        two axes.
    store : 'memory', 'disk' or a folder
        'memory': as far as `limit_bytes` go, otherwise on disk; 'disk': `folder_of`.
    limit_bytes, disk_bytes : int
        Of the array in memory; of all arrays in that folder together, where the least recently used are removed.
    about : dict, optional
        Written into the manifest, for people.

    Raises
    ------
    ConfigError
        For a `store` that is none.
    DataError
        Where the array fits in neither place, or the folder cannot be written.
    """
    if not isinstance(store, (str, os.PathLike)) or not str(store):
        raise ConfigError("not a place for features", expected="'memory', 'disk' or a folder", found=repr(store))
    size = 4 * math.prod(shape)
    if store == "memory" and size <= limit_bytes:
        return _in_memory(shape, make)
    folder = folder_of(store)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locks.acquire(_lock(folder, key), waiting="waiting for another process that prepares the same features "
                                                       f"in {folder}"):
            found = _found(folder / key, key, shape)
            if found is None:
                _make_room(folder, key, size, disk_bytes, limit_bytes if store == "memory" else None)
                _write(folder, key, shape, make, about)
                found = _open(folder / key, shape)
            return found
    except OSError as error:
        raise DataError("features cannot be kept", path=error.filename or folder, found=error.strerror or error,
                        remedy="name a folder that can be written, or keep them in memory") from error


def prune(folder: Path, limit_bytes: int, spared: str | None = None) -> int:
    """Removes the least recently used arrays of a folder until the rest fits.

    Arrays that another process is making or opening stay.

    Parameters
    ----------
    folder : Path
    limit_bytes : int
        What may be left.
    spared : str, optional
        Key of an array that stays in any case.

    Returns
    -------
    int
        Bytes still used; above `limit_bytes` where too much had to stay.
    """
    for stale in folder.glob(".*.new"):
        if stale.name[1:-4] != spared:
            _remove(folder, stale.name[1:-4], stale)
    arrays = sorted((path.parent for path in folder.glob(f"*/{MANIFEST}")), key=_last_used)
    used = {path: _size(path) for path in arrays}
    for path in arrays:
        if sum(used.values()) <= limit_bytes:
            break
        if path.name != spared and _remove(folder, path.name, path):
            used[path] = 0
    return sum(used.values())


def _in_memory(shape, make):
    array = np.empty(shape, np.float32)
    rows, at = array.reshape(-1, *shape[2:]), 0
    for piece in make():
        rows[at:at + len(piece)] = piece
        at += len(piece)
    array.flags.writeable = False
    return array


def _found(path, key, shape):
    """The array if it is there and whole."""
    if not path.exists():
        return None
    try:
        known = documents.read_json(path / MANIFEST)
        if known["key"] != key or tuple(known["shape"]) != shape:
            raise ValueError("the manifest is of other features")
        if sha256_of(path / ARRAY) != known["sha256"]:
            raise ValueError(f"{ARRAY} has changed since it was written")
        array = _open(path, shape)
        os.utime(path / MANIFEST)
        return array
    except (OSError, ValueError, KeyError, TypeError) as error:
        warnings.warn(f"{path}: damaged features are made anew ({error})", RuntimeWarning, stacklevel=2)
        shutil.rmtree(path)
        return None


def _open(path, shape):
    array = np.load(path / ARRAY, mmap_mode="r", allow_pickle=False)
    if array.shape != shape or array.dtype != np.float32:
        raise ValueError(f"{ARRAY} holds {array.dtype} {array.shape} instead of float32 {shape}")
    return array


def _make_room(folder, key, size, disk_bytes, memory_limit):
    in_memory = "" if memory_limit is None else f"{_gib(memory_limit)} in memory, or "
    if size > disk_bytes:
        raise DataError(f"features of {_gib(size)} are too large", path=folder,
                        expected=f"at most {in_memory}{_gib(disk_bytes)} on disk", remedy=_REMEDY)
    prune(folder, disk_bytes - size, spared=key)
    free = shutil.disk_usage(folder).free
    if size + _FREE > free:
        raise DataError(f"no space for features of {_gib(size)}", path=folder,
                        expected=f"{in_memory}{_gib(size + _FREE)} free on disk", found=_gib(free), remedy=_REMEDY)


def _write(folder, key, shape, make, about):
    """Under a temporary name, synced, then renamed. No mapped file: on a full disk that would kill the process."""
    new = folder / f".{key}.new"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    try:
        digest = hashlib.sha256()
        with open(new / ARRAY, "xb") as file:
            file.write(header := _header(shape))
            digest.update(header)
            for piece in make():
                data = np.ascontiguousarray(piece, np.float32).data
                file.write(data)
                digest.update(data)
            atomic.sync(file)
        known = {"key": key, "shape": list(shape), "dtype": "float32", "sha256": digest.hexdigest(), **(about or {})}
        with open(new / MANIFEST, "x", encoding="utf-8") as file:
            json.dump(known, file, indent=1)
            atomic.sync(file)
        os.replace(new, folder / key)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise


def _header(shape) -> bytes:
    """Of a .npy file of float32 in C order."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return head.getvalue()


def _lock(folder, key) -> Path:
    return folder / f"{key}.lock"


def _remove(folder, key, path) -> bool:
    """Whether it could be removed: not while a process holds the key's lock."""
    busy = DataError("in use by another process", path=path)
    try:
        with locks.acquire(_lock(folder, key), busy=busy):
            shutil.rmtree(path, ignore_errors=True)
            return not path.exists()
    except DataError:
        return False


def _last_used(path) -> float:
    with contextlib.suppress(OSError):
        return (path / MANIFEST).stat().st_mtime
    return 0.0


def _size(path) -> int:
    with contextlib.suppress(OSError):
        return (path / ARRAY).stat().st_size
    return 0


def _gib(size) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 10 << 20 else f"{size / 2**20:.2f} MiB"
