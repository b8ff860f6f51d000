"""Reads and writes safetensors files: the header is checked here, the values are read by the safetensors library."""
from __future__ import annotations

import json
import math
import os
import struct
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from gluon_ft.errors import WeightsError, printable
from gluon_ft.io import atomic
from gluon_ft.weights.readers.strided_tensors import BFLOAT16, DTYPES, itemsize, native, whole_numbers

_DTYPES = {"F32": "float32", "F64": "float64", "F16": "float16", "BF16": BFLOAT16, "I64": "int64", "I32": "int32",
           "I16": "int16", "I8": "int8", "U8": "uint8", "U16": "uint16", "U32": "uint32", "U64": "uint64",
           "BOOL": "bool"}
# The format allows 100 MB; as Python objects that is over a gigabyte. 2 MB describe some 20,000 tensors.
_LONGEST_HEADER = 2 << 20
_LONGEST_NAME = 500
_METADATA = "__metadata__"


def is_safetensors(data: memoryview) -> bool:
    """Whether the bytes begin as a safetensors file does: the header's length, then JSON."""
    return len(data) > 8 and data[8] == ord("{") and struct.unpack_from("<Q", data)[0] < 1 << 48


def read_safetensors(path: Path, data: memoryview) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The tensors by name (bfloat16, which NumPy lacks, as float32), and the header's metadata.

    Parameters
    ----------
    path : Path
        Given to the library.
    data : memoryview
        The whole file; the header and bfloat16 are read from it.

    Raises
    ------
    WeightsError
        The header is too long or not JSON; tensors overlap, leave gaps, extend beyond the file, or differ in length
        from what dtype and shape need.
    """
    header, start = _header(data)
    metadata = header.pop(_METADATA, {})
    if type(metadata) is not dict or any(type(v) is not str for v in metadata.values()):
        raise WeightsError("the metadata of the header are no texts")
    entries = {name: _entry(name, entry) for name, entry in header.items()}
    _check_extents(entries, len(data) - start)
    tensors = {}
    try:
        with safe_open(path, framework="numpy") as file:
            for name, (dtype, shape, first, _) in entries.items():
                if dtype == BFLOAT16:
                    raw = np.frombuffer(data, "<u2", math.prod(shape), start + first)
                    tensors[name] = native(raw.reshape(shape), dtype)
                else:
                    tensors[name] = file.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"the safetensors library refuses the file: {printable(str(error))}") from error
    return tensors, metadata


def _header(data) -> tuple[dict, int]:
    """The header, and the position where the values begin."""
    length, = struct.unpack_from("<Q", data)
    if length > min(_LONGEST_HEADER, len(data) - 8):
        raise WeightsError(f"the header has {length} bytes",
                           expected=f"at most {min(_LONGEST_HEADER, len(data) - 8)} of the file's {len(data)}")
    text = str(data[8:8 + length], "utf-8")
    header = json.loads(text, object_pairs_hook=_distinct, parse_int=_integer, parse_float=_no_number,
                        parse_constant=_no_number)
    if type(header) is not dict:
        raise WeightsError("the header is no JSON object")
    return header, 8 + length


def _distinct(pairs) -> dict:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise WeightsError("the header has a name twice")
    return made


def _integer(digits: str) -> int:
    if not digits.isascii() or not digits.isdigit() or len(digits) > 16:
        raise WeightsError(f"the header has the number {printable(digits, 24)}")
    return int(digits)


def _no_number(digits: str):
    raise WeightsError(f"the header has the number {printable(digits, 24)}")


def _entry(name: str, entry) -> tuple[str, tuple[int, ...], int, int]:
    """dtype, shape, first byte and end of one tensor, from its entry in the header."""
    if type(entry) is not dict or set(entry) != {"dtype", "shape", "data_offsets"} or len(name) > _LONGEST_NAME:
        raise WeightsError(f"the header's entry {printable(name)} is damaged")
    if type(entry["dtype"]) is not str or entry["dtype"] not in _DTYPES:
        raise WeightsError(f"the tensor {printable(name)} has the dtype {printable(entry['dtype'])}",
                           expected=" ".join(_DTYPES))
    dtype, offsets = _DTYPES[entry["dtype"]], entry["data_offsets"]
    shape = whole_numbers(entry["shape"], "shape")
    if type(offsets) is not list or len(offsets) != 2 or any(type(v) is not int for v in offsets):
        raise WeightsError(f"the tensor {printable(name)} has damaged offsets")
    first, end = offsets
    if end - first != math.prod(shape) * itemsize(dtype) or math.prod(max(d, 1) for d in shape) > 1 << 40:
        raise WeightsError(f"the tensor {printable(name)} of shape {shape} has {end - first} bytes")
    return dtype, shape, first, end


def _check_extents(entries: dict, size: int) -> None:
    """Raises WeightsError unless the tensors follow one another without gaps, from the header's end to the file's."""
    at = 0
    for name, (_, _, first, end) in sorted(entries.items(), key=lambda item: item[1][2:]):
        if first != at:
            raise WeightsError(f"the tensor {printable(name)} {'overlaps another' if first < at else 'follows a gap'}",
                               expected=f"it to begin at byte {at}", found=first)
        at = end
    if at != size:
        raise WeightsError("the tensors do not fill the file", expected=f"{at} bytes after the header", found=size)


def write_safetensors(path: str | os.PathLike, tensors: dict[str, np.ndarray],
                      metadata: dict[str, str] | None = None) -> Path:
    """Writes `tensors` as a safetensors file: whole, or not at all.

    Parameters
    ----------
    path : path-like
        Its folder must exist; an existing file is replaced.
    tensors : dict
        Name -> array of a dtype that the format has, in any memory layout and byte order.
    metadata : dict of str to str, optional
        Stored in the header.

    Returns
    -------
    Path

    Raises
    ------
    WeightsError
        The format cannot hold a name, a dtype or the metadata.
    OSError
        The file cannot be written; an existing one stays.
    """
    arrays = {}
    for name, array in tensors.items():
        if not isinstance(name, str) or name == _METADATA or not 0 < len(name) <= _LONGEST_NAME:
            raise WeightsError(f"a tensor cannot be named {printable(name)} in a safetensors file", path=path)
        array = np.asarray(array)
        kind = array.dtype.newbyteorder("=")
        if kind.name not in DTYPES:
            raise WeightsError(f"the tensor {printable(name)} has the dtype {kind}", path=path,
                               expected=" ".join(_DTYPES.values()))
        arrays[name] = np.asarray(array, dtype=kind, order="C")
    for key, value in (metadata or {}).items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise WeightsError(f"the metadata {printable(key)} is no text", path=path, expected="str to str")
    return atomic.write(path, save(arrays, metadata=metadata))
