"""safetensors files: round trips, bfloat16, and headers that lie."""
from __future__ import annotations

import hashlib
import json
import struct

import numpy as np
import pytest
from safetensors.numpy import load_file

from gluon_ft.errors import WeightsError
from gluon_ft.weights.readers.tensor_files import read_tensors, write_safetensors


def _file(header, values=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + values


def _entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_round_trip(tmp_path):
    rng = np.random.default_rng(0)
    dtypes = "float32 float64 float16 int64 int32 int16 int8 uint8 uint16 uint32 uint64 bool".split()
    tensors = {dtype: rng.integers(0, 2, (3, 4)).astype(dtype) for dtype in dtypes}
    tensors |= {"scalar": np.array(2.5, np.float32), "empty": np.empty((0, 7), np.float32),
                "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T, "big": np.arange(3, dtype=">f4")}
    path = write_safetensors(tmp_path / "a.safetensors", tensors, {"classes": '["cat"]'})
    read, library = read_tensors(path), load_file(path)
    assert read.format == "safetensors" and read.metadata == {"classes": '["cat"]'}
    assert read.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert set(read.tensors) == set(tensors) == set(library)
    for name, array in read.tensors.items():
        np.testing.assert_array_equal(array, tensors[name], err_msg=name)
        np.testing.assert_array_equal(array, library[name], err_msg=name, strict=True)
        assert array.flags.writeable and array.flags.c_contiguous and array.dtype.isnative
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"], "no temporary file may be left"


def test_bfloat16_becomes_float32_exactly(tmp_path):
    raw = np.arange(65536, dtype="<u2")
    header = {"a": _entry("F32", (1,), (0, 4)), "w": _entry("BF16", (256, 256), (4, 4 + 131072))}
    (tmp_path / "a.safetensors").write_bytes(_file(header, np.float32(7).tobytes() + raw.tobytes()))
    read = read_tensors(tmp_path / "a.safetensors").tensors
    assert read["a"] == 7 and read["w"].dtype == np.float32
    np.testing.assert_array_equal(read["w"].view(np.uint32).reshape(-1), raw.astype(np.uint32) << 16)


def test_prefix_of_data_parallel_is_removed(tmp_path):
    path = write_safetensors(tmp_path / "a.safetensors", {"module.w": np.ones(2), "module.b": np.ones(2)})
    read = read_tensors(path)
    assert set(read.tensors) == {"w", "b"} and read.prefix == "module."


@pytest.mark.parametrize("tensors, metadata, wording", [
    ({"w": np.ones(2, complex)}, None, "tensor w has the dtype complex128; expected float32"),
    ({"w": np.array(["a"])}, None, "tensor w has the dtype <U1"),
    ({"__metadata__": np.ones(2)}, None, "cannot be named __metadata__"),
    ({3: np.ones(2)}, None, "cannot be named int"),
    ({"w": np.ones(2)}, {"epoch": 3}, "the metadata epoch is no text"),
])
def test_not_written(tmp_path, tensors, metadata, wording):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"before")
    with pytest.raises(WeightsError, match=wording):
        write_safetensors(path, tensors, metadata)
    assert path.read_bytes() == b"before"


EIGHT = bytes(8)


@pytest.mark.parametrize("content, wording", [
    (_file({"w": _entry()}, EIGHT, length=1 << 40), "the header has 1099511627776 bytes; expected at most"),
    (_file({"w": _entry()}, EIGHT, length=90), r"the header has 90 bytes; expected at most \d+ of the file's"),
    (_file(b"{" + b" " * (3 << 20), EIGHT), "the header has 3145729 bytes; expected at most 2097152"),
    (_file({"w": _entry()}, EIGHT + b"\0"), "do not fill the file; expected 8 bytes after the header; found 9"),
    (_file({"w": _entry()}, EIGHT[:7]), "do not fill the file; expected 8 bytes after the header; found 7"),
    (_file({"w": _entry(offsets=(0, 12))}, bytes(12)), r"w of shape \(2,\) has 12 bytes"),
    (_file({"w": _entry(), "v": _entry(offsets=(4, 12))}, bytes(12)), "v overlaps another; expected it to begin at"),
    (_file({"w": _entry(), "v": _entry(offsets=(16, 24))}, bytes(24)), "v follows a gap"),
    (_file({"w": _entry(offsets=(-8, 0))}), "the header has the number -8"),
    (_file({"w": _entry(shape=(-2,))}, EIGHT), "the header has the number -2"),
    (_file({"w": _entry(shape=(1 << 31, 1 << 31))}, EIGHT), r"w of shape \(2147483648, 2147483648\) has 8 bytes"),
    (_file({"w": _entry(shape=(0, 1 << 41), offsets=(0, 0))}), "whole numbers from 0 to 2..40"),
    (_file({"w": _entry(shape=[1] * 33)}, EIGHT), "tuple of at most 32"),
    (_file({"w": _entry(shape=[2.0])}, EIGHT), "the header has the number 2.0"),
    (_file({"w": _entry(shape=[True, 2])}, EIGHT), "shape is not made of whole numbers"),
    (_file({"w": _entry(shape=[float("nan")])}, EIGHT), "the header has the number NaN"),
    (_file({"w": _entry(dtype="F8_E4M3", shape=(8,))}, EIGHT), "w has the dtype F8_E4M3; expected F32"),
    (_file({"w": {"dtype": "F32"}}, EIGHT), "entry w is damaged"),
    (_file({"w": _entry(), "__metadata__": {"a": 1}}, EIGHT), "metadata of the header are no texts"),
    (_file(b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
           EIGHT), "the header has a name twice"),
    (_file(b"{" + b'"a":[' * 100_000), "the file is damaged .(RecursionError|JSONDecodeError)"),
    (_file(b'{"w":' + b"1" * 2_000_000 + b"}"), "the header has the number 11111"),
    (_file(b'{"w":1e999999999}'), "the header has the number 1e999999999"),
    (_file(b'{"\xff":1}'), "the file is damaged .UnicodeDecodeError"),
    (_file(b"{}"), "holds no tensors"),
    (_file(b"{"), "the file is damaged .JSONDecodeError"),
], ids=lambda value: value[:40] if isinstance(value, str) else "-")
def test_refused(tmp_path, content, wording):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=wording) as caught:
        read_tensors(path)
    assert str(caught.value).startswith(f"{path}: ") and caught.value.remedy
    assert len(str(caught.value)) < 700 + len(str(path))


def test_cut_off_anywhere(tmp_path):
    whole = write_safetensors(tmp_path / "a.safetensors", {"w": np.ones(3), "b": np.ones(1)}).read_bytes()
    path = tmp_path / "cut.safetensors"
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(WeightsError):
            read_tensors(path)
