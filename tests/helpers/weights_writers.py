"""Writes PyTorch's two file formats without torch, so that tests can make sound files and broken ones."""
from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import OrderedDict

import numpy as np

from gluon_ft.weights.readers.torch_files import LEGACY_MAGIC, LEGACY_PROTOCOL

STORAGES = {"float32": "FloatStorage", "float64": "DoubleStorage", "float16": "HalfStorage", "int64": "LongStorage",
            "int32": "IntStorage", "int16": "ShortStorage", "int8": "CharStorage", "uint8": "ByteStorage",
            "bool": "BoolStorage"}


class Global:
    """A global that the pickle names; calling is only there because pickle insists that it could."""

    def __init__(self, path):
        self.module, self.name = path.rsplit(".", 1)

    def __call__(self):
        raise AssertionError("never called")


class Storage:
    """1-d values; `kind` is the class that the file names for them."""

    def __init__(self, values, kind=None, key=None, count=None):
        self.values, self.key = np.ascontiguousarray(values), key
        self.kind = kind or "torch." + STORAGES[self.values.dtype.name]
        self.count = self.values.size if count is None else count


class Tensor:
    """A view of a storage, as torch.save describes it."""

    def __init__(self, storage, shape, strides=None, offset=0, rebuild="torch._utils._rebuild_tensor_v2"):
        self.storage, self.shape, self.offset, self.rebuild = storage, tuple(shape), offset, rebuild
        contiguous = [int(np.prod(shape[i + 1:], dtype=int)) for i in range(len(shape))]
        self.strides = tuple(contiguous if strides is None else strides)


class Parameter:
    def __init__(self, tensor):
        self.tensor = tensor


class Called:
    """Pickles as REDUCE of `path` with `args`, and BUILD with `state` where there is one."""

    def __init__(self, path, args=(), state=None):
        self.path, self.args, self.state = path, args, state


def tensor(array):
    """A contiguous tensor with a storage of its own."""
    array = np.asarray(array)
    return Tensor(Storage(array.reshape(-1)), array.shape)


class _Pickler(pickle._Pickler):
    dispatch = pickle._Pickler.dispatch.copy()

    def __init__(self, file, protocol, legacy):
        super().__init__(file, protocol)
        self.legacy, self.storages = legacy, {}

    def persistent_id(self, obj):
        if not isinstance(obj, Storage):
            return None
        if obj.key is None:
            obj.key = str(len(self.storages))
        self.storages[obj.key] = obj
        return ("storage", Global(obj.kind), obj.key, "cpu", obj.count, *((None,) if self.legacy else ()))

    def save_named(self, obj):
        if self.proto >= 4:
            self.save(obj.module)
            self.save(obj.name)
            self.write(pickle.STACK_GLOBAL)
        else:
            self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())

    def save_tensor(self, obj):
        hooks = () if obj.rebuild.endswith("_rebuild_tensor") else (False, OrderedDict())
        self.save_reduce(Global(obj.rebuild), (obj.storage, obj.offset, obj.shape, obj.strides, *hooks), obj=obj)

    def save_parameter(self, obj):
        self.save_reduce(Global("torch._utils._rebuild_parameter"), (obj.tensor, True, OrderedDict()), obj=obj)

    def save_called(self, obj):
        self.save_reduce(Global(obj.path), tuple(obj.args), obj.state, obj=obj)

    dispatch[Global] = save_named
    dispatch[Tensor] = save_tensor
    dispatch[Parameter] = save_parameter
    dispatch[Called] = save_called


def pickled(content, protocol=2, legacy=False):
    """The pickle of `content`, and its storages by key."""
    file = io.BytesIO()
    pickler = _Pickler(file, protocol, legacy)
    pickler.dump(content)
    return file.getvalue(), pickler.storages


def write_zip(path, content=None, protocol=2, byteorder="little", data_pkl=None, extra=(), compression=None):
    """A file as torch.save writes it today; `data_pkl` in place of the content's pickle, `extra` (name, bytes)."""
    made, storages = pickled(content, protocol)
    members = [("archive/data.pkl", made if data_pkl is None else data_pkl), ("archive/version", b"3\n")]
    members += [("archive/byteorder", byteorder.encode())] if byteorder else []
    for key, storage in storages.items():
        values = storage.values if byteorder != "big" else storage.values.astype(storage.values.dtype.newbyteorder(">"))
        members.append((f"archive/data/{key}", values.tobytes()))
    with zipfile.ZipFile(path, "w", compression or zipfile.ZIP_STORED) as archive:
        for name, data in [*members, *extra]:
            archive.writestr(name, data)
    return path


def legacy_bytes(content=None, protocol=2, object_pickle=None, little_endian=True):
    """The stream that torch.save wrote before 1.6."""
    made, storages = pickled(content, protocol, legacy=True)
    system = {"protocol_version": LEGACY_PROTOCOL, "little_endian": little_endian, "type_sizes": {"int": 4}}
    parts = [pickle.dumps(part, protocol) for part in (LEGACY_MAGIC, LEGACY_PROTOCOL, system)]
    parts += [made if object_pickle is None else object_pickle, pickle.dumps(sorted(storages), protocol)]
    for key in sorted(storages):
        parts += [struct.pack("<q", storages[key].values.size), storages[key].values.tobytes()]
    return b"".join(parts)


def write_legacy(path, content=None, protocol=2, **options):
    path.write_bytes(legacy_bytes(content, protocol, **options))
    return path
