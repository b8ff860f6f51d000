"""Tensors as files describe them, as views of a storage (dtype, offset, shape, strides): checked, then copied."""
from __future__ import annotations

import math
import os
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np

from gluon_ft.errors import WeightsError, printable
from gluon_ft.weights.readers import NOT_RUN

MOST_DIMENSIONS = 32
_LARGEST_EXTENT = 1 << 40
# A view may repeat its storage's values (stride 0, overlapping windows) only up to this many bytes.
_SMALL_EXPANSION = 1 << 20

# Name of a dtype, as in `torch.float32` -> dtype of the raw values. NumPy has no bfloat16: its raw values are uint16,
# the upper half of a float32.
BFLOAT16 = "bfloat16"
DTYPES = {"float32": "f4", "float64": "f8", "float16": "f2", BFLOAT16: "u2", "int64": "i8", "int32": "i4",
          "int16": "i2", "int8": "i1", "uint8": "u1", "uint16": "u2", "uint32": "u4", "uint64": "u8", "bool": "u1"}


def mapped(path: str | os.PathLike) -> memoryview:
    """A file's bytes, mapped into memory, so that unused pages are never read. Raises OSError, ValueError."""
    return memoryview(cast(Any, np.memmap(path, np.uint8, "r")))


@dataclass(frozen=True)
class Storage:
    """`count` values of `dtype` (a key of DTYPES), beginning at value `first` of the file's storage `key`."""

    key: str
    dtype: str
    count: int
    first: int = 0


@dataclass(frozen=True)
class Tensor:
    """A view: value (i, j, ...) is number offset + i*strides[0] + j*strides[1] + ... of the storage."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that the values take in the file's dtype."""
        return self.count * itemsize(self.dtype)


class Inline:
    """A NumPy array that is stored in the pickle itself."""

    array: np.ndarray | None = None


def itemsize(dtype: str) -> int:
    """Bytes per value in the file."""
    return np.dtype(DTYPES[dtype]).itemsize


def whole_numbers(values: Any, what: str) -> tuple[int, ...]:
    """`values` as a tuple of non-negative ints, or WeightsError."""
    if type(values) not in (tuple, list) or len(values) > MOST_DIMENSIONS:
        raise WeightsError(f"a tensor's {what} is not a tuple of at most {MOST_DIMENSIONS} numbers")
    if any(type(v) is not int or not 0 <= v <= _LARGEST_EXTENT for v in values):
        raise WeightsError(f"a tensor's {what} is not made of whole numbers from 0 to 2**40")
    return tuple(values)


def strided(storage: object, offset: object, shape: object, strides: object, dtype: str | None = None) -> Tensor:
    """Makes a Tensor from a file's description, all of which is checked.

    Parameters
    ----------
    storage : Storage
    offset : int
        First value, from the beginning of the storage.
    shape, strides : sequence of int
        In values, not bytes.
    dtype : str, optional
        A key of DTYPES; default the storage's.

    Raises
    ------
    WeightsError
        An argument has the wrong type; the tensor extends beyond its storage, or repeats its values too often.
    """
    if not isinstance(storage, Storage):
        raise WeightsError(f"a tensor's storage is of type {printable(type(storage).__name__)}", remedy=NOT_RUN)
    shape, strides = whole_numbers(shape, "shape"), whole_numbers(strides, "strides")
    offset, = whole_numbers((offset,), "offset")
    dtype = dtype or storage.dtype
    if len(shape) != len(strides):
        raise WeightsError(f"a tensor of shape {shape} has {len(strides)} strides")
    values = storage.count * itemsize(storage.dtype) // itemsize(dtype)
    if math.prod(max(d, 1) for d in shape) > _LARGEST_EXTENT:
        raise WeightsError(f"a tensor has the shape {shape}", expected="at most 2**40 values")
    tensor = Tensor(storage, dtype, offset, shape, strides)
    last = offset + sum((d - 1) * s for d, s in zip(shape, strides)) if tensor.count else offset - 1
    if last >= values:
        raise WeightsError(f"a tensor of shape {shape} leaves its storage", expected=f"at most {values} values",
                           found=f"value number {last}")
    if tensor.nbytes > max(values * itemsize(dtype), _SMALL_EXPANSION):
        raise WeightsError(f"a tensor of shape {shape} repeats the {values} values of its storage",
                           remedy="save tensor.contiguous() of each tensor")
    return tensor


def copied(tensor: Tensor, raw: np.ndarray, byteorder: Literal["<", ">"] = "<") -> np.ndarray:
    """Copies a tensor's values to a C-contiguous array in this machine's byte order; bfloat16 becomes float32.

    Parameters
    ----------
    tensor : Tensor
        From `strided`.
    raw : np.ndarray, uint8, 1-d
        All bytes of the file's storage `tensor.storage.key`.
    byteorder : '<' or '>', default '<'
        The byte order of `raw`.
    """
    dtype = np.dtype(DTYPES[tensor.dtype]).newbyteorder(byteorder)
    start = tensor.storage.first * itemsize(tensor.storage.dtype) + tensor.offset * dtype.itemsize
    if tensor.count:
        # np.ndarray itself checks that the view stays within the buffer.
        view = np.ndarray(tensor.shape, dtype, buffer=raw, offset=start,
                          strides=[s * dtype.itemsize for s in tensor.strides])
    else:
        view = np.empty(tensor.shape, dtype)
    return native(view, tensor.dtype)


def native(view: np.ndarray, dtype: str) -> np.ndarray:
    """A C-contiguous copy in this machine's byte order; raw bfloat16 becomes float32, raw bool becomes bool."""
    if dtype == BFLOAT16:
        wide = view.astype(np.uint32, order="C")
        wide <<= 16
        return wide.view(np.float32)
    if dtype == "bool":
        return np.array(view != 0, order="C")
    return view.astype(view.dtype.newbyteorder("="), order="C", copy=True)


def check_copies(tensors: Collection[Tensor], file_size: int) -> None:
    """Raises WeightsError where copying `tensors` takes far more memory than the file has bytes.

    Many tensors that share one storage are small in the file, but large in memory. Allowed are twice the file's size
    (tied weights, an EMA copy) plus 16 MB; a bfloat16 value counts as two bytes.
    """
    asked, allowed = sum(t.nbytes for t in tensors), 2 * file_size + (16 << 20)
    if asked > allowed:
        raise WeightsError(f"the tensors take {asked >> 20} MB, the file {file_size >> 20} MB: they share storages",
                           expected=f"at most {allowed >> 20} MB", remedy="save a state dict of separate tensors")
