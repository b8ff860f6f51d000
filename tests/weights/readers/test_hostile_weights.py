"""Files made to do harm: each is refused with a WeightsError, in under a second and 200 MB, and nothing is run."""
from __future__ import annotations

import json
import pickle
import struct
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import HELPERS
from weights_writers import Called, Global, Storage, Tensor, pickled, tensor, write_legacy, write_zip

from gluon_ft.weights.readers.unpickle import Account

MOST = Account().instructions - 10
COSTLY = 1000


def read_in_child(paths):
    """What weights_child.py says of each file; the process must live to the end."""
    done = subprocess.run([sys.executable, str(HELPERS / "weights_child.py")], text=True, timeout=600,
                          input="\n".join(map(str, paths)), capture_output=True)
    assert done.returncode == 0, f"the reading process died ({done.returncode}): {done.stderr[-2000:]}"
    return [json.loads(line) for line in done.stdout.splitlines()]


def _calls(canary):
    """Globals with the arguments with which they would do something."""
    command = f"touch {canary}"
    python = f"open({str(canary)!r}, 'w').close()"
    inner = pickle.dumps(Bomb(command))
    return {
        "os.system": (command,), "posix.system": (command,), "nt.system": (command,), "os.popen": (command,),
        "subprocess.Popen": (command,), "subprocess.call": (["touch", str(canary)],), "pty.spawn": ("true",),
        "builtins.eval": (f"exec({python!r})",), "builtins.exec": (python,), "__builtin__.eval": (python,),
        "builtins.open": (str(canary), "w"), "builtins.__import__": ("os",), "builtins.compile": (python, "a", "exec"),
        "builtins.getattr": (Global("os.path"), "join"),
        "builtins.setattr": (Global("collections.OrderedDict"), "a", 1),
        "builtins.map": (Global("os.system"), [command]), "builtins.print": ("hello",), "pickle.loads": (inner,),
        "operator.attrgetter": ("system",), "operator.methodcaller": ("system", command),
        "functools.partial": (Global("os.system"), command), "importlib.import_module": ("os",),
        "runpy.run_path": (str(canary),), "webbrowser.open": ("file:///",), "shutil.rmtree": (str(canary.parent),),
        "torch.storage._load_from_bytes": (inner,), "torch.load": (str(canary),), "torch.hub.load": ("a/b", "c"),
        "torch._utils._rebuild_wrapper_subclass": (), "torch._utils._rebuild_sparse_tensor": (1, 2),
        "torch._utils._rebuild_device_tensor_from_numpy": (1, 2, 3, True), "torch._utils._rebuild_qtensor": (),
        "torch.serialization._get_layout": ("torch.strided",), "torch.jit.load": (str(canary),),
        "torch.nn.modules.linear.Linear": (), "torch.distributed.rpc.internal.run": (), "__main__.Net": (),
        "torch.utils.cpp_extension.load_inline": ("a", python), "torch._dynamo.config": (), "torch.fx.Graph": (),
        "numpy.load": (str(canary),), "numpy.f2py.compile": (python,), "numpy.ndarray": ((1 << 40,),),
        "numpy.testing._private.utils.runstring": (python, {}), "collections.OrderedDict.fromkeys": ("ab",),
        "copyreg._reconstructor": (Global("collections.OrderedDict"),), "copyreg.__newobj__": (Global("os.system"),),
        "_codecs.decode": ("a", "unicode_escape"), "_codecs.encode": ("a" * 9, "zip"), "builtins.bytes": (1 << 40,),
        "builtins.bytearray": (1 << 40,), "torch.FloatStorage": (1 << 40,), "torch.float32": (), "builtins.dict": (),
        "torch.device": (Global("torch.float32"),), "torch.Size": (("a",),), "argparse.Namespace": ("a",),
        "numpy.dtype": ("O", False, True), "collections.defaultdict": (Global("os.system"),),
        "torch._tensor._rebuild_from_type_v2": (Global("os.system"), Global("torch.Tensor"), (command,), {}),
        "numpy.core.multiarray._reconstruct": (Global("subprocess.Popen"), (0,), b"b"),
        "numpy.core.multiarray.scalar": (1, b""),
    }


class Bomb:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        import os
        return os.system, (self.command,)


def _text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def _raw(canary):
    """Pickles written by hand, by name: instructions, lengths, memo, nesting, hashing, copying."""
    command = _text(f"touch {canary}")
    dotted = pickle.dumps("OrderedDict.__class__.__base__", 4)[11:-2]
    ordered, proto = b"ccollections\nOrderedDict\n", b"\x80\2"
    pairs = b"](" + b"".join(b"K\1K\2\x86" for _ in range(50_000)) + b"e\x85q\0" + ordered + b"q\1"
    laugh = b"h\0h\0\x86q\0" * 60
    many = b"".join(b"\x8a\x08" + struct.pack("<q", i << 40) + b"N" for i in range(100_000))
    storage, _ = pickled([Storage(np.zeros(1, np.float32), key="0")])
    return {
        "inst": b"(S'id'\nios\nsystem\n.", "inst2": proto + b"(" + command + b"ios\nsystem\n.",
        "obj": proto + b"(cos\nsystem\n" + command + b"o.", "newobj": proto + b"cos\nsystem\n" + command + b"\x85\x81.",
        "newobj_builtin": proto + b"c__builtin__\nlist\n)\x81.", "newobj_ex": b"\x80\4cos\nsystem\n)}\x92.",
        "ext1": proto + b"\x82\1.", "ext2": proto + b"\x83\1\0.", "ext4": proto + b"\x84\1\0\0\0.",
        "dotted": b"\x80\4\x8c\x0bcollections" + dotted + b"\x93.", "no_text": b"\x80\4K\1K\2\x93.",
        "build_dict": proto + b"}}b.", "build_list": proto + b"]}" + _text("append") + b"cos\nsystem\nsb.",
        "build_global": proto + ordered + b"}" + _text("__setstate__") + b"cos\nsystem\nsb" + command + b"b.",
        "reduce_text": proto + command + b")R.", "reduce_list": proto + ordered + b"]R.", "persid": proto + b"P0\n.",
        "pid_text": proto + b"X\1\0\0\x000Q.", "pid_empty": proto + b")Q.", "pid_short": proto + b"K\1\x85Q.",
        "pid_module": proto + b"(" + _text("module") + ordered + _text("a.py") + _text("x") + b"NNtQ.",
        "pid_numbers": proto + b"(K\1K\2K\3K\4K\5tQ.",
        "pid_call": proto + b"(" + _text("storage") + b"cos\nsystem\nK\1K\2K\3tQ.",
        "memo_index": proto + b"}r\xff\xff\xff\xff.", "memo_missing": proto + b"h\x07.",
        "memo_long": proto + b"}r\0\0\0\x10.",
        "memo_many": b"\x80\4" + b"}\x94" * (MOST // 2) + b".", "dict_many": proto + b"}" * MOST + b".",
        "mark_many": proto + b"(" * MOST + b".", "mark_none": proto + b"(N" * (MOST // 2) + b".",
        "set_many": b"\x80\4" + b"\x8f" * MOST + b".", "endless": proto + b"N" * (2 * MOST) + b".",
        "list_many": proto + b"]N" * (MOST // 2) + b".", "tuple_deep": proto + b")" + b"\x85" * MOST + b".",
        "list_deep": proto + b"](" * 1 + b"](" * (MOST // 3) + b"e" * (MOST // 3 + 1) + b".",
        "float_many": proto + (b"G" + bytes(8)) * MOST + b".",
        "dup": proto + b"]" + b"2" * 60 + b".", "pop": proto + b"]0.", "laughs": proto + b")q\0" + laugh + b".",
        "laughs_key": proto + b")q\0" + laugh + b"}h\0Ns.", "colliding_keys": proto + b"}(" + many + b"u.",
        "copies": proto + pairs + b"h\1h\0R" * 100_000 + b".",
        "copies_set": proto + pairs + b"c__builtin__\nset\nq\2" + b"h\2h\0R" * 100_000 + b".",
        "ordered_many": proto + ordered + b"q\0" + b"h\0)R" * (MOST // 3) + b".",
        "storages_many": storage[:-3] + b"h\3Q" * (MOST // 3) + b".",
        "long4": proto + b"\x8b\xff\xff\xff\x7f.", "long1": proto + b"\x8a\xff" + b"\x7f" * 255 + b".",
        "bytes8": b"\x80\4\x8e" + struct.pack("<Q", 100 << 30) + b"a.",
        "text8": b"\x80\4\x8d" + struct.pack("<Q", 100 << 30) + b"a.",
        "text4": proto + b"X\xff\xff\xff\xff.", "bytearray8": b"\x80\5\x96" + struct.pack("<Q", 100 << 30) + b"a.",
        "frame": b"\x80\4\x95" + struct.pack("<Q", 100 << 30) + b"}.",
        "frames": b"\x80\4" + (b"\x95" + bytes(8)) * MOST + b"}.",
        "text_many": proto + (_text("a" * 60_000)) * 400 + b".",
        "wide_text": proto + b"X\xff\xff\x0f\0" + b"a" * 0xFFFFF + b".",
        "int_text": proto + b"I" + b"1" * 4_000_000 + b"\n.",
        "global_long": proto + b"c" + b"a" * 4_000_000 + b"\n\n.",
        "empty": b"", "only_stop": proto + b".",
        "protocol": b"\x80\xff}.", "no_end": proto + b"}", "unknown": proto + b"\xff.",
        "unknown_low": proto + b"\0.", "odd_items": proto + b"}(K\1u.", "append_tuple": proto + b")K\1a.",
        "set_tuple": proto + b")K\1K\2s.", "surrogate": proto + b"X\3\0\0\0\xff\xff\xff.",
        "tuple_key": proto + b"})Ns.",
        "dict_key": proto + b"}}Ns.", "readonly": b"\x80\5}\x98.", "next_buffer": b"\x80\5\x97.",
    }


def _structures():
    """Contents that are plain and yet made to cost: shared parts, cycles, depth."""
    one = tensor(np.zeros(1, np.float32))
    cycle = {"w": one}
    cycle["self"] = cycle
    deep = {}
    for _ in range(300):
        deep = {"a": deep}
    deep = {"state_dict": {"b": deep}, "model": {}}
    storage = Storage(np.zeros(4, np.float32))
    return {
        "cycle": cycle, "deep": deep,
        "expanded": {"w": Tensor(storage, (1 << 15, 1 << 15), (0, 0))},
        "expanded_often": {f"w{i}": Tensor(storage, (1 << 18,), (0,)) for i in range(2000)},
        "long_name": {"w" * 501: one}, "number_name": {3: one}, "no_name": {"": one},
        "shape": {"w": Tensor(storage, (4, 1 << 60))},
        "declared": {"w": Tensor(Storage(np.zeros(1, np.float32), count=25 << 30), (1,))},
        "other_storage": {"w": Tensor(Storage(np.zeros(4, np.float32), "os.system"), (1,))},
        "no_storage": {"w": Tensor(Storage(np.zeros(4, np.float32), "torch.float32"), (1,))},
        "complex_storage": {"w": Tensor(Storage(np.zeros(4, np.float32), "torch.ComplexFloatStorage"), (1,))},
        "array": {"w": Called("numpy.core.multiarray._reconstruct", (Global("numpy.ndarray"), (0,), b"b"), (
            1, (1 << 38,), Called("numpy.dtype", ("f4", False, True)), False, b""))},
    }


def _shared_parts():
    """The same large part under very many names."""
    one = tensor(np.zeros(1, np.float32))
    shared, words = {str(i): i for i in range(20_000)}, [*range(20_000), Global("torch.float32")]
    many = [f"k{i}" for i in range(20_000)]
    return {"dict": dict.fromkeys(many, shared), "list": dict.fromkeys(many, words),
            "dict_in_dict": {"a": {"b": {"c": dict.fromkeys(many, shared)}}},
            "state": {"state_dict": {"w": one, **dict.fromkeys(many, shared)}}}


def _zips(folder):
    """Archives with lies in their structure; each name maps to the file's path."""
    sound = {"w": tensor(np.ones(4, np.float32))}
    bomb = {"w": tensor(np.zeros(1 << 18, np.float32))}
    made = {"bomb": write_zip(folder / "bomb", bomb, compression=zipfile.ZIP_DEFLATED)}
    for name in ("../evil", "/etc/evil", "archive/../../evil", "C:/evil", "other/data.pkl"):
        path = write_zip(folder / f"name{len(made)}", sound, extra=[(name, b"x")])
        made[path.name] = path
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made["twice"] = write_zip(folder / "twice", sound, extra=[("archive/data/0", b"x")])
    made["script"] = write_zip(folder / "script", sound, extra=[("archive/constants.pkl", b"x")])
    made["no_pickle"] = folder / "no_pickle"
    with zipfile.ZipFile(made["no_pickle"], "w") as archive:
        archive.writestr("weights.npy", b"x")
    made["no_storage"] = folder / "no_storage"
    with zipfile.ZipFile(made["no_storage"], "w") as archive:
        archive.writestr("archive/data.pkl", pickled(sound)[0])
    made["members"] = write_zip(folder / "members", sound, extra=[(f"archive/{i}", b"") for i in range(52_000)])
    whole = bytearray(write_zip(folder / "whole", sound).read_bytes())
    end, first = whole.rindex(b"PK\5\6"), whole.index(b"PK\1\2")
    for name, at, value in [
            ("backslash", whole.rindex(b"archive/data/0") + 7, b"\\"), ("count", end + 8, b"\xff\xff\xff\xff"),
            ("directory", end + 16, b"\0\0\0\0"), ("long_directory", end + 12, b"\xff\xff\xff\x7f"),
            ("disk", end + 4, b"\1\0"), ("encrypted", first + 8, b"\1\0"), ("deflated", first + 10, b"\x08\0"),
            ("declared", first + 20, b"\xff\xff\xff\x7f" * 2), ("zip64", first + 20, b"\xff" * 8),
            ("offset", first + 42, b"\xff\xff\xff\x7f"), ("overlap", first + 42, whole[-22 + 16:-22 + 20]),
            ("crc", first + 16, b"\1\2\3\4"), ("comment", end + 20, b"\x09\0")]:
        changed = bytearray(whole)
        changed[at:at + len(value)] = value
        made[name] = folder / f"changed_{name}"
        made[name].write_bytes(changed)
    second = whole.index(b"PK\1\2", first + 4)
    changed = bytearray(whole)
    # Both entries of the directory point to the same bytes.
    changed[second + 42:second + 46] = whole[first + 42:first + 46]
    made["same_bytes"] = folder / "same_bytes"
    made["same_bytes"].write_bytes(changed)
    return made


def _others(folder):
    header = b'{"w":[' + b"[]," * 680_000 + b"[]]}"
    array = struct.pack("<IiiqqiiI", 0xF993FAC9, 0, 2, 1 << 20, 1 << 20, 1, 0, 0)
    small = struct.pack("<Iiiqiii", 0xF993FAC9, 0, 1, 0, 1, 0, 0)
    files = {"header_lists": struct.pack("<Q", len(header)) + header,
             "header_dicts": struct.pack("<Q", 2 << 20) + (b'{"w":[' + b"{}," * 680_000 + b"{}]}").ljust(2 << 20),
             "header_deep": struct.pack("<Q", 2_000_000) + b"{" + b"[" * 1_999_999,
             "header_long": struct.pack("<Q", 100 << 30) + b"{}",
             "header_numbers": struct.pack("<Q", 2_000_001) + b"{" + b"1" * 2_000_000,
             "params_shape": struct.pack("<3Q", 0x112, 0, 1) + array,
             "params_count": struct.pack("<3Q", 0x112, 0, 1 << 62),
             "params_many": struct.pack("<3Q", 0x112, 0, 50_000) + small * 50_000 + struct.pack("<2Q", 50_000, 1 << 62),
             "params_names": struct.pack("<3Q", 0x112, 0, 1) + small + struct.pack("<2Q", 1, 100 << 30)}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in files]


def _check(found, count, canary):
    """Refused, unharmed, in time; prints the dearest."""
    slowest, largest = max(found, key=lambda f: f["seconds"]), max(found, key=lambda f: f["bytes"])
    print(f"\n{len(found)} hostile files; slowest {slowest['seconds']:.2f} s {Path(slowest['path']).name}, "
          f"largest {largest['bytes'] >> 20} MB {Path(largest['path']).name}")
    assert [(f["path"], f["outcome"], f["error"]) for f in found if f["outcome"] != "refused"] == []
    assert [(f["path"], f["events"]) for f in found if f["events"]] == []
    assert all(f["error"].startswith(f["path"] + ": ") and "\n" not in f["error"] for f in found)
    assert [f for f in found if "not enough memory" in f["error"]] == []
    assert len(found) == count and not canary.exists()
    assert slowest["seconds"] < 1 and largest["bytes"] < 200 << 20


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    canary = folder / "canary"
    paths = []
    for name, args in _calls(canary).items():
        for protocol in (2, 4):
            content = {"state_dict": {"w": tensor(np.ones(2, np.float32)), "x": Called(name, args)}}
            paths += [write_zip(folder / f"{name}.{protocol}.zip.pth", content, protocol),
                      write_legacy(folder / f"{name}.{protocol}.old.pth", content, protocol)]
    for name, data in _raw(canary).items():
        if len(data) < COSTLY:
            paths += [write_zip(folder / f"raw_{name}.zip.pth", data_pkl=data),
                      write_legacy(folder / f"raw_{name}.old.pth", object_pickle=data)]
    for name, content in _structures().items():
        paths += [write_zip(folder / f"plain_{name}.zip.pth", content),
                  write_legacy(folder / f"plain_{name}.old.pth", content)]
    paths += _zips(folder).values()
    return read_in_child(paths), len(paths), canary


def test_hostile_files(outcomes):
    assert outcomes[1] > 300
    _check(*outcomes)


@pytest.mark.slow
def test_costly_files(tmp_path):
    """Files of up to a few megabytes that would cost much more: each stays under the limits."""
    canary = tmp_path / "canary"
    paths = [write_zip(tmp_path / f"raw_{name}.pth", data_pkl=data) for name, data in _raw(canary).items()
             if len(data) >= COSTLY]
    paths += [write_zip(tmp_path / f"plain_{name}.pth", content) for name, content in _shared_parts().items()]
    sound = {"w": tensor(np.zeros(25 << 20, np.float32))}
    paths += [write_zip(tmp_path / "bomb", sound, compression=zipfile.ZIP_DEFLATED),
              write_zip(tmp_path / "members", extra=[(f"archive/{i}", b"") for i in range(49_000)])]
    paths += _others(tmp_path)
    _check(read_in_child(paths), len(paths), canary)


def test_the_refused_global_is_named(outcomes):
    told = {Path(f["path"]).name: f["error"] for f in outcomes[0]}
    for name in ("posix.system", "builtins.eval", "torch.hub.load", "torch.storage._load_from_bytes", "__main__.Net"):
        assert f"refused: the pickle wants {name}; nothing in the file was run; ask" in told[f"{name}.2.zip.pth"]
    for name, wording in {"raw_inst2": "has the instruction INST", "raw_ext1": "has the instruction EXT1",
                          "raw_memo_index": "the memo index 4294967295 after 3 instructions",
                          "raw_dotted": "wants collections.OrderedDict.__class__", "raw_bytes8": "cut off",
                          "plain_declared": "expected 26843545600 values", "plain_cycle": "contains itself"}.items():
        assert wording in told[f"{name}.zip.pth"], told[f"{name}.zip.pth"]
    assert "compressed or encrypted" in told["bomb"]


def test_the_canary_would_sing(tmp_path):
    """The payloads do what they say when pickle itself reads them."""
    pickle.loads(pickle.dumps(Bomb(f"touch {tmp_path / 'canary'}")))
    assert (tmp_path / "canary").exists()
