"""Reads MXNet's .params files (`mx.nd.save`, `save_parameters`, `export`) without MXNet, and checks every length.

`mx.nd.load` trusts the file: a damaged one makes it allocate whatever a shape or count says, or abort the process. The
layout is that of `NDArray::Save` (src/ndarray/ndarray.cc), little-endian: the magic number 0x112, a reserved field, the
arrays, their names. An array begins with the magic number of its version, or, in the oldest files, with its number of
dimensions.
"""
from __future__ import annotations

import errno
import math
import os
import struct
from dataclasses import dataclass

import numpy as np

from gluon_ft.errors import WeightsError, printable
from gluon_ft.weights.readers.strided_tensors import BFLOAT16, DTYPES, MOST_DIMENSIONS, itemsize, mapped, native

LIST_MAGIC = 0x112
_V1, _V2, _V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
# mshadow's type flags (3rdparty/mshadow/mshadow/base.h).
_TYPE_FLAGS = {0: "float32", 1: "float64", 2: "float16", 3: "uint8", 4: "int32", 5: "int8", 6: "int64", 7: "bool",
               8: "int16", 9: "uint16", 10: "uint32", 11: "uint64", 12: BFLOAT16}
_PLACES = (1, 2, 3, 5)  # cpu, gpu, cpu_pinned, cpu_shared
_MOST_ARRAYS = 50_000
_LONGEST_NAME = 500
_LARGEST_EXTENT = 1 << 40


def check_whole(path: str | os.PathLike) -> None:
    """Raises OSError if a file that MXNet has just written is cut off: MXNet does not notice that the disk is full."""
    try:
        read_params(mapped(path))
    except (WeightsError, ValueError) as error:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error


@dataclass(frozen=True)
class _Array:
    dtype: str
    shape: tuple[int, ...]
    start: int


class _Cursor:
    """A position in the file, which cannot move beyond its end."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def skip(self, size: int) -> int:
        """Moves past the next `size` bytes and returns the position where they begin."""
        if size > len(self.data) - self.at:
            raise WeightsError("the file is cut off", expected=f"{size} bytes at byte {self.at}",
                               found=len(self.data) - self.at)
        self.at += size
        return self.at - size

    def numbers(self, form: str) -> tuple:
        form = "<" + form
        return struct.unpack_from(form, self.data, self.skip(struct.calcsize(form)))


def read_params(data: memoryview) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays of a .params file by name, and the names that were marked as auxiliary states.

    Parameters
    ----------
    data : memoryview
        The whole file.

    Returns
    -------
    arrays : dict
        In the file's order; bfloat16 is widened to float32. 'arg:' and 'aux:' are removed if every name has one of
        them (files of `export` and of the symbolic API). Arrays saved without names are called '0', '1', ...
    auxiliary : list of str
        The names that began with 'aux:' (BatchNorm's running statistics).

    Raises
    ------
    WeightsError
        An array is sparse or uninitialised, the file is too short for a shape, count or name, or bytes follow the last
        name.
    """
    cursor = _Cursor(data)
    magic, reserved, count = cursor.numbers("3Q")
    if magic != LIST_MAGIC or reserved:
        raise WeightsError("not a .params file of MXNet")
    if count > _MOST_ARRAYS:
        raise WeightsError(f"the file says that it has {count} arrays", expected=f"at most {_MOST_ARRAYS}")
    arrays = [_array(cursor) for _ in range(count)]
    names, auxiliary = _plain_names(_names(cursor, count))
    if cursor.at != len(data):
        raise WeightsError(f"{len(data) - cursor.at} bytes follow the last name")
    return {name: _copied(data, array) for name, array in zip(names, arrays)}, auxiliary


def _array(cursor: _Cursor) -> _Array:
    version, = cursor.numbers("I")
    if version in (_V2, _V3):
        storage, = cursor.numbers("i")
        if storage:
            raise WeightsError("the file has a sparse array", remedy="save array.tostype('default')")
    shape = _shape(cursor, version)
    if not shape and version != _V3:
        raise WeightsError("the file has an array without a shape: it was saved before it was initialised")
    place, _index, flag = cursor.numbers("3i")
    if place not in _PLACES or flag not in _TYPE_FLAGS:
        raise WeightsError("the file has an array of an unknown dtype or device", found=f"{flag} on {place}")
    dtype = _TYPE_FLAGS[flag]
    return _Array(dtype, shape, cursor.skip(math.prod(shape) * itemsize(dtype)))


def _shape(cursor: _Cursor, version: int) -> tuple[int, ...]:
    dimensions = cursor.numbers("i")[0] if version in (_V1, _V2, _V3) else version
    if not 0 <= dimensions <= MOST_DIMENSIONS:
        raise WeightsError(f"the file has an array of {dimensions} dimensions", expected=f"at most {MOST_DIMENSIONS}")
    shape = cursor.numbers(f"{dimensions}{'q' if version in (_V1, _V2, _V3) else 'I'}")
    if any(d < 0 for d in shape) or math.prod(max(d, 1) for d in shape) > _LARGEST_EXTENT:
        raise WeightsError(f"the file has an array of shape {shape}")
    return shape


def _names(cursor: _Cursor, arrays: int) -> list[str]:
    count, = cursor.numbers("Q")
    if not count:
        return [str(i) for i in range(arrays)]
    if count != arrays:
        raise WeightsError(f"the file has {arrays} arrays and {count} names")
    names = []
    for _ in range(count):
        length, = cursor.numbers("Q")
        if not 0 < length <= _LONGEST_NAME:
            raise WeightsError(f"the file has a name of {length} bytes", expected=f"1 to {_LONGEST_NAME}")
        start = cursor.skip(length)
        names.append(str(cursor.data[start:start + length], "utf-8"))
    return names


def _plain_names(names: list[str]) -> tuple[list[str], list[str]]:
    auxiliary = []
    if names and all(name.startswith(("arg:", "aux:")) for name in names):
        auxiliary = [name[4:] for name in names if name.startswith("aux:")]
        names = [name[4:] for name in names]
    if len(set(names)) != len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise WeightsError(f"the file has the array {printable(twice)} twice")
    return names, auxiliary


def _copied(data, array: _Array) -> np.ndarray:
    dtype = np.dtype(DTYPES[array.dtype]).newbyteorder("<")
    view = np.frombuffer(data, dtype, math.prod(array.shape), array.start).reshape(array.shape)
    return native(view, array.dtype)
