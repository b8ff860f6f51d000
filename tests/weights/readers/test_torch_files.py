"""PyTorch's files are read as torch reads them: views, dtypes, protocols, checkpoints; and what is refused."""
from __future__ import annotations

import importlib.util
import os
import pickle
import struct
import subprocess
import sys
from collections import OrderedDict

import numpy as np
import pytest
from conftest import HELPERS, shared_data
from weights_writers import Called, Global, Parameter, Storage, Tensor, tensor, write_legacy, write_zip

from gluon_ft.errors import WeightsError
from gluon_ft.weights.readers.tensor_files import read_tensors

WRITERS = {"torch zip": write_zip, "torch legacy": write_legacy}


@pytest.fixture(params=list(WRITERS))
def kind(request):
    return request.param


def _written(tmp_path, kind, content, **options):
    return WRITERS[kind](tmp_path / "net.pth", content, **options)


def _refused(path, wording):
    with pytest.raises(WeightsError, match=wording) as caught:
        read_tensors(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert caught.value.remedy
    return caught.value


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_views_share_a_storage(tmp_path, kind, protocol):
    base = np.arange(60, dtype=np.float32)
    cube, storage = base.reshape(3, 4, 5), Storage(base)
    content = OrderedDict(
        whole=Tensor(storage, (3, 4, 5)), transposed=Tensor(storage, (5, 4, 3), (1, 5, 20)),
        part=Tensor(storage, (2, 2, 2), (20, 10, 1), offset=21), scalar=Tensor(storage, (), offset=7),
        empty=Tensor(storage, (0, 9)), old=Tensor(storage, (4,), offset=56, rebuild="torch._utils._rebuild_tensor"),
        parameter=Parameter(Tensor(storage, (60,))), repeated=Tensor(storage, (3, 4), (0, 1)))
    read = read_tensors(_written(tmp_path, kind, content, protocol=protocol))
    wanted = {"whole": cube, "transposed": cube.T, "part": cube[1:, ::2, 1:3], "scalar": base[7],
              "empty": np.empty((0, 9)), "old": base[56:], "parameter": base, "repeated": np.tile(base[:4], (3, 1))}
    assert list(read.tensors) == list(content) and read.format == kind and read.key == read.prefix == ""
    for name, array in read.tensors.items():
        np.testing.assert_array_equal(array, wanted[name], err_msg=name)
        assert array.dtype == np.float32 and array.flags.c_contiguous and array.flags.writeable and array.flags.aligned
    read.tensors["whole"][:] = -1
    assert read.tensors["parameter"][3] == 3, "no two arrays may share memory"


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"])
def test_dtypes(tmp_path, kind, dtype):
    values = np.array([[0, 1, 2], [3, 100, 5]]).astype(dtype)
    read = read_tensors(_written(tmp_path, kind, {"w": tensor(values)})).tensors["w"]
    assert read.dtype == values.dtype
    np.testing.assert_array_equal(read, values)


def test_bfloat16_becomes_float32_exactly(tmp_path, kind):
    raw = np.arange(65536, dtype=np.uint16)
    content = {"w": Tensor(Storage(raw, "torch.BFloat16Storage"), (256, 256), (1, 256))}
    read = read_tensors(_written(tmp_path, kind, content)).tensors["w"]
    wanted = (raw.astype(np.uint32) << 16).reshape(256, 256).T
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read.view(np.uint32), wanted)


def test_big_endian_zip_is_turned_round_and_big_endian_stream_refused(tmp_path):
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    read = read_tensors(write_zip(tmp_path / "big.pth", {"w": tensor(values)}, byteorder="big"))
    np.testing.assert_array_equal(read.tensors["w"], values)
    assert read.tensors["w"].dtype.isnative
    _refused(write_zip(tmp_path / "odd.pth", {"w": tensor(values)}, byteorder="middle"), "byte order is middle")
    _refused(write_legacy(tmp_path / "old.pth", {"w": tensor(values)}, little_endian=False), "big-endian machine")


def test_storages_of_the_gpu_and_archives_without_byte_order(tmp_path):
    content = {"w": Tensor(Storage(np.ones(3, np.float32), "torch.cuda.FloatStorage"), (3,))}
    assert read_tensors(write_zip(tmp_path / "a.pth", content, byteorder=None)).tensors["w"].sum() == 3


def test_checkpoint_with_optimiser(tmp_path, kind):
    numpy_float = Called("numpy.core.multiarray.scalar", (
        Called("numpy.dtype", ("f8", False, True), (3, "<", None, None, None, -1, -1, 0)),
        Called("_codecs.encode", (struct.pack("<d", 0.25).decode("latin-1"), "latin1"))))
    momentum = {0: {"step": 3, "exp_avg": tensor(np.ones(2, np.float32))}}
    content = {"epoch": 12, "best": tensor(np.array(0.5, np.float32)), "acc": numpy_float, "classes": ["cat", "dog"],
               "args": Called("argparse.Namespace", (), {"lr": 0.1, "data": "/images"}),
               "device": Called("torch.device", ("cuda", 0)), "size": Called("torch.Size", ((3, 4),)),
               "optimizer": {"state": momentum, "param_groups": [{"lr": 0.1, "params": [0]}]},
               "state_dict": OrderedDict({"module.fc.weight": tensor(np.eye(2, dtype=np.float32)),
                                          "module.fc.bias": Parameter(tensor(np.zeros(2, np.float32)))})}
    read = read_tensors(_written(tmp_path, kind, content))
    assert list(read.tensors) == ["fc.weight", "fc.bias"]
    assert (read.key, read.prefix) == ("state_dict", "module.")
    assert read.metadata == {"epoch": 12, "best": 0.5, "acc": 0.25, "classes": ["cat", "dog"], "device": "cuda:0",
                             "args": {"lr": 0.1, "data": "/images"}, "size": [3, 4]}


def test_which_state_dict_is_taken(tmp_path):
    def one(value):
        return {"w": tensor(np.full(1, value, np.float32))}

    path = write_zip(tmp_path / "a.pth", {"ema": one(1), "model": {"net": one(2)}, "optimizer": one(3)})
    assert (read_tensors(path).key, read_tensors(path).tensors["w"][0]) == ("model.net", 2)
    assert read_tensors(path, key="ema").tensors["w"][0] == 1
    with pytest.raises(WeightsError, match="there is no state dict under 'emma'; did you mean ema"):
        read_tensors(path, key="emma")
    both = write_zip(tmp_path / "b.pth", {"teacher": one(1), "student": one(2)})
    _refused(both, "holds several state dicts; found teacher, student; name the one to take")
    assert read_tensors(both, key="student").tensors["w"][0] == 2
    parts = write_zip(tmp_path / "c.pth", {"state_dict": {"_orig_mod.module.a": one(1), "_orig_mod.module.b": one(2)}})
    assert set(read_tensors(parts).tensors) == {"a.w", "b.w"}
    mixed = write_zip(tmp_path / "d.pth", {"module.w": tensor(np.ones(1)), "w": tensor(np.ones(1))})
    assert list(read_tensors(mixed).tensors) == ["module.w", "w"]


def test_python2_pickle_with_pairs(tmp_path):
    """Python 2 wrote an OrderedDict as a list of pairs, and names as byte strings."""
    content = Called("collections.OrderedDict", ([["a\xe9", tensor(np.ones(2, np.float32))]],))
    assert list(read_tensors(write_legacy(tmp_path / "a.pth", content)).tensors) == ["a\xe9"]
    old = pickle.PROTO + b"\2}U\3lr\xffK\1s."
    from gluon_ft.weights.readers.unpickle import unpickle
    assert unpickle(old, {}, None) == ({"lr\xff": 1}, len(old))


@pytest.mark.parametrize("view, wording", [
    ({"shape": (3, 4), "strides": (4, 1), "offset": 1},
     "leaves its storage; expected at most 12 values; found value number 12"),
    ({"shape": (13,)}, "leaves its storage"),
    ({"shape": (1,), "offset": 12}, "leaves its storage"),
    ({"shape": (1 << 20, 12), "strides": (0, 1)}, "repeats the 12 values"),
    ({"shape": (2,), "strides": (-1,), "offset": 3}, "strides is not made of whole numbers"),
    ({"shape": (-2,)}, "shape is not made of whole numbers"),
    ({"shape": (2,), "offset": -1}, "offset is not made of whole numbers"),
    ({"shape": (2,), "strides": (1, 1)}, "has 2 strides"),
    ({"shape": (0, 1 << 40, 1 << 40)}, "at most 2\\*\\*40 values"),
    ({"shape": (1,) * 33}, "tuple of at most 32"),
    ({"shape": (1.0,), "strides": (1,)}, "shape is not made of whole numbers"),
    ({"shape": (True,), "strides": (1,)}, "shape is not made of whole numbers"),
])
def test_views_that_leave_their_storage(tmp_path, kind, view, wording):
    content = {"w": Tensor(Storage(np.zeros(12, np.float32)), **view)}
    _refused(_written(tmp_path, kind, content), wording)


@pytest.mark.parametrize("count", [11, 13, 25 << 30, -1])
def test_declared_length_of_a_storage(tmp_path, kind, count):
    storage = Storage(np.zeros(12, np.float32), count=count)
    _refused(_written(tmp_path, kind, {"w": Tensor(storage, (4,))}),
             "without a key or a length" if count < 0 else r"has (48 bytes|12 values); expected")


def test_cut_off_anywhere(tmp_path, kind):
    content = {"w": tensor(np.arange(8, dtype=np.float32)), "b": tensor(np.ones(3))}
    whole = _written(tmp_path, kind, content).read_bytes()
    for size in range(len(whole)):
        path = tmp_path / "cut.pth"
        path.write_bytes(whole[:size])
        with pytest.raises(WeightsError):
            read_tensors(path)
    path.write_bytes(whole + b"\0")
    _refused(path, "follow the last storage" if kind == "torch legacy" else "does not end where its directory does")


def test_a_flipped_bit_is_seen_by_the_checksum(tmp_path):
    path = write_zip(tmp_path / "a.pth", {"w": tensor(np.arange(8, dtype=np.float32))})
    data = bytearray(path.read_bytes())
    data[data.index(np.arange(8, dtype=np.float32).tobytes()) + 9] ^= 4
    path.write_bytes(data)
    _refused(path, "archive/data/0 is damaged: its checksum differs; fetch the file again")


def test_other_files_are_named(tmp_path):
    for content, wording in [
            (b"", "the file is empty"), (b"<!DOCTYPE html><html>", "this is a web page"),
            (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
            (b"a".ljust(257, b"\0") + b"ustar".ljust(300, b"\0"), "tar archive, the format of PyTorch before 0.1.10"),
            (pickle.dumps({"w": [1.0]}), "not one that torch.save wrote"),
            (b"    TFL3" + bytes(30), "found a TFLite model"), (b"\x89HDF\r\n\x1a\n" + bytes(9), "HDF5"),
            (b"not weights at all", "not a file of weights that is known here")]:
        path = tmp_path / "w.pth"
        path.write_bytes(content)
        _refused(path, wording)
    _refused(tmp_path / "missing.pth", "No such file")
    _refused(tmp_path, "not a file")
    os.mkfifo(tmp_path / "pipe")
    _refused(tmp_path / "pipe", "not a file")


def test_no_tensors(tmp_path, kind):
    _refused(_written(tmp_path, kind, {"epoch": 3}), "holds no tensors")
    _refused(_written(tmp_path, kind, [tensor(np.ones(1))]), "holds no state dict; expected a dict.*found a list")
    _refused(_written(tmp_path, kind, {"w": Global("torch.float32")}), "holds no tensors")


def test_many_names_for_one_storage_are_bounded(tmp_path, kind):
    storage = Storage(np.zeros(1 << 18, np.float32))
    content = {f"w{i}": Tensor(storage, (1 << 18,)) for i in range(100)}
    _refused(_written(tmp_path, kind, content), "the tensors take 100 MB, the file 1 MB: they share storages")


def test_torch_is_not_imported(tmp_path):
    """A torch that leaves a mark when it is imported stands in the path."""
    (tmp_path / "torch.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w').close()")
    path = write_legacy(tmp_path / "a.pth", {"w": tensor(np.ones(2))})
    code = f"import gluon_ft.weights.readers.tensor_files as t; print(t.read_tensors({str(path)!r}).tensors['w'].sum())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60,
                          env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert done.stdout.strip() == "2.0", done.stderr
    assert not (tmp_path / "imported").exists()


def test_published_cifar_files():
    """Real files of the older format; the accuracies that their author wrote beside the weights."""
    folder = shared_data("weights")
    for name, best in [("resnet20-12fca82f.th", 91.78), ("resnet32-d509ac18.th", 92.78),
                       ("resnet44-014dd654.th", 93.14), ("resnet56-4bfd9763.th", 93.62)]:
        read = read_tensors(folder / name)
        assert (read.format, read.key, read.prefix) == ("torch legacy", "state_dict", "module.")
        assert read.sha256.startswith(name[-11:-3]) and abs(read.metadata["best_prec1"] - best) < 1e-4
        assert read.tensors["conv1.weight"].shape == (16, 3, 3, 3) and read.tensors["linear.weight"].shape == (10, 64)
        assert all(np.isfinite(t).all() for t in read.tensors.values())


def torch_python() -> str:
    """An interpreter that has torch: GLUON_FT_TORCH_PYTHON, or this one; skips where neither has."""
    named = os.environ.get("GLUON_FT_TORCH_PYTHON")
    if named:
        return named
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed and GLUON_FT_TORCH_PYTHON names no interpreter that has it")
    return sys.executable


def test_files_written_by_torch(tmp_path):
    subprocess.run([torch_python(), str(HELPERS / "torch_side.py"), str(tmp_path)], check=True,
                   timeout=300)
    files = sorted(tmp_path.glob("*.pth"))
    assert len(files) == 13
    for path in files:
        read, wanted = read_tensors(path), np.load(f"{path}.npz")
        assert set(read.tensors) == set(wanted.files), path.name
        for name, array in read.tensors.items():
            np.testing.assert_array_equal(array, wanted[name], err_msg=f"{path.name} {name}", strict=True)
        if "checkpoint" in path.name:
            assert read.key == "state_dict" and read.prefix == "module."
            assert read.metadata == {"epoch": 7, "best_prec1": 91.5, "acc": 0.5, "args": {"lr": 0.1}, "size": [3],
                                     "classes": ["cat", "dog"], "device": "cpu"}
