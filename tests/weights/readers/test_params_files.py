"""MXNet's .params files are read exactly as mx.nd.load reads them, and refused where that would crash."""
from __future__ import annotations

import struct

import mxnet as mx
import numpy as np
import pytest
from conftest import shared_data

from gluon_ft.errors import WeightsError
from gluon_ft.weights.readers.tensor_files import read_tensors


def _same(path):
    """read_tensors(path), after a comparison with mx.nd.load."""
    read, loaded = read_tensors(path), mx.nd.load(str(path))
    assert read.format == "mxnet params"
    named = loaded if isinstance(loaded, dict) else {str(i): v for i, v in enumerate(loaded)}
    if named and all(n.startswith(("arg:", "aux:")) for n in named):
        assert set(read.auxiliary) == {n[4:] for n in named if n.startswith("aux:")}
        named = {n[4:]: v for n, v in named.items()}
    assert list(read.tensors) == list(named)
    for name, array in read.tensors.items():
        np.testing.assert_array_equal(array, named[name].asnumpy(), err_msg=name, strict=True)
        assert array.flags.c_contiguous and array.flags.writeable
    return read


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "uint8", "int32", "int8", "int64", "bool"])
def test_every_dtype(tmp_path, dtype):
    path = tmp_path / "a.params"
    mx.nd.save(str(path), {"w": mx.nd.array(np.array([[0, 1, 100], [3, 4, 5]]), dtype=dtype)})
    assert _same(path).tensors["w"].dtype == dtype


def test_bfloat16_becomes_float32(tmp_path):
    path, values = tmp_path / "a.params", np.array([1.5, -2.0, 3.25], np.float32)
    mx.nd.save(str(path), {"w": mx.nd.array(values).astype(np.dtype([("bfloat16", np.uint16)]))})
    read = read_tensors(path).tensors["w"]
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, values)


def test_lists_prefixes_and_numpy_arrays(tmp_path):
    path = str(tmp_path / "a.params")
    mx.nd.save(path, [mx.nd.ones((2, 3)), mx.nd.zeros((4,))])
    assert list(_same(path).tensors) == ["0", "1"]
    mx.nd.save(path, {"arg:fc_weight": mx.nd.ones((2, 3)), "aux:bn_moving_mean": mx.nd.ones((3,))})
    assert _same(path).auxiliary == ("bn_moving_mean",)
    mx.nd.save(path, {"arg:fc_weight": mx.nd.ones((2, 3)), "other": mx.nd.ones((3,))})
    assert list(_same(path).tensors) == ["arg:fc_weight", "other"]
    mx.nd.save(path, {"arg:w": mx.nd.ones((2,)), "aux:w": mx.nd.ones((3,))})
    with pytest.raises(WeightsError, match="the file has the array w twice"):
        read_tensors(path)
    with mx.util.np_shape(True), mx.util.np_array(True):
        arrays = {"scalar": mx.np.array(2.5), "empty": mx.np.ones((0, 3)), "w": mx.np.ones((2, 2))}
        mx.npx.save(path, arrays)
    read = read_tensors(path).tensors
    assert {n: (a.shape, a.sum()) for n, a in read.items()} == {"scalar": ((), 2.5), "empty": ((0, 3), 0),
                                                                "w": ((2, 2), 4)}


def test_saved_and_exported_network(tmp_path):
    net = mx.gluon.nn.HybridSequential()
    net.add(mx.gluon.nn.Conv2D(4, 3), mx.gluon.nn.BatchNorm(), mx.gluon.nn.Dense(2))
    net.initialize(mx.init.Xavier())
    net.hybridize()
    net(mx.nd.ones((1, 3, 8, 8)))
    net.save_parameters(str(tmp_path / "net.params"))
    assert _same(tmp_path / "net.params").tensors["0.weight"].shape == (4, 3, 3, 3)
    net.export(str(tmp_path / "net"), epoch=3)
    assert len(_same(tmp_path / "net-0003.params").auxiliary) == 2


def test_published_files():
    folder = shared_data("weights")
    for name, count in [("mobilenetv2_1.0-imagenet-rot180.params", 266),
                        ("mobilenetv2_1.0-imagenet-rot180-bnstats.params", 212)]:
        assert len(_same(folder / name).tensors) == count


def _file(arrays=(), names=(), magic=0x112, count=None, name_count=None):
    parts = [struct.pack("<3Q", magic, 0, len(arrays) if count is None else count), *arrays,
             struct.pack("<Q", len(names) if name_count is None else name_count)]
    parts += [struct.pack("<Q", len(n)) + n for n in names]
    return b"".join(parts)


def _array(shape=(2,), version=0xF993FAC9, storage=0, place=1, flag=0, values=None, dimensions=None):
    head = struct.pack("<I", version) + (struct.pack("<i", storage) if version != 0xF993FAC8 else b"")
    head += struct.pack(f"<i{len(shape)}q", len(shape) if dimensions is None else dimensions, *shape)
    values = np.arange(np.prod(shape), dtype=np.float32).tobytes() if values is None else values
    return head + struct.pack("<3i", place, 0, flag) + values


def test_first_and_oldest_version(tmp_path):
    """The how-to's ResNets are of 2016: arrays that begin with the number of dimensions, and 32-bit sizes."""
    values = np.arange(6, dtype=np.float32)
    oldest = struct.pack("<3I3i", 2, 2, 3, 2, 0, 0) + values.tobytes()
    path = tmp_path / "a.params"
    path.write_bytes(_file([oldest, _array((2, 3), version=0xF993FAC8)], [b"arg:a", b"arg:b"]))
    read = _same(path)
    np.testing.assert_array_equal(read.tensors["a"], values.reshape(2, 3))


@pytest.mark.parametrize("content, wording", [
    (_file([_array(dimensions=33)], [b"w"]), "an array of 33 dimensions; expected at most 32"),
    (_file([_array(dimensions=-1)], [b"w"]), "an array of -1 dimensions"),
    (_file([struct.pack("<I", 0x7FFFFFFF)], [b"w"]), "an array of 2147483647 dimensions"),
    (_file([_array((1 << 31, 1 << 31), values=b"")], [b"w"]), "an array of shape"),
    (_file([_array((0, 1 << 62), values=b"")], [b"w"]), "an array of shape"),
    (_file([_array((25 << 30,), values=b"")], [b"w"]), "cut off; expected 107374182400 bytes"),
    (_file([_array((-2,), values=b"")], [b"w"]), "an array of shape"),
    (_file([_array((), values=b"")], [b"w"]), "saved before it was initialised"),
    (_file([_array(storage=1)], [b"w"]), "sparse array; save array.tostype"),
    (_file([_array(flag=99)], [b"w"]), "unknown dtype or device; found 99 on 1"),
    (_file([_array(place=99)], [b"w"]), "unknown dtype or device; found 0 on 99"),
    (_file(count=1 << 60), "says that it has 1152921504606846976 arrays"),
    (_file([_array()], name_count=1 << 60), "1 arrays and 1152921504606846976 names"),
    (_file([_array()], [b"a", b"b"]), "1 arrays and 2 names"),
    (_file([_array()], [b""]), "a name of 0 bytes"),
    (_file([_array()], [b"w" * 501]), "a name of 501 bytes"),
    (_file([_array(), _array()], [b"w", b"w"]), "the array w twice"),
    (_file([_array()], [b"\xff"]), "the file is damaged .UnicodeDecodeError"),
    (_file([_array()], [b"w"]) + b"\0", "1 bytes follow the last name"),
    (_file(), "holds no tensors"),
], ids=lambda value: value[:40] if isinstance(value, str) else "-")
def test_refused(tmp_path, content, wording):
    path = tmp_path / "a.params"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=wording) as caught:
        read_tensors(path)
    assert str(caught.value).startswith(f"{path}: ") and caught.value.remedy


def test_cut_off_anywhere(tmp_path):
    whole = _file([_array((2, 3)), _array((1,))], [b"weight", b"bias"])
    path = tmp_path / "a.params"
    path.write_bytes(whole)
    assert list(_same(path).tensors) == ["weight", "bias"]
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(WeightsError):
            read_tensors(path)


def test_no_keys_to_choose(tmp_path):
    path = tmp_path / "a.params"
    path.write_bytes(_file([_array()], [b"w"]))
    with pytest.raises(WeightsError, match="a mxnet params file has no keys to choose from; leave the key out"):
        read_tensors(path, key="state_dict")
