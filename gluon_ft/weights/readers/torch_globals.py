"""The globals that a PyTorch file may name, and what each becomes here without torch: descriptions and plain values."""
from __future__ import annotations

import math
from typing import Any

import numpy as np

from gluon_ft.errors import WeightsError, printable
from gluon_ft.weights.readers import NOT_RUN
from gluon_ft.weights.readers.strided_tensors import DTYPES, Inline, Tensor, strided, whole_numbers
from gluon_ft.weights.readers.unpickle import Account, Admitted, Stateful

_STORAGES = {"FloatStorage": "float32", "DoubleStorage": "float64", "HalfStorage": "float16",
             "BFloat16Storage": "bfloat16", "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16",
             "CharStorage": "int8", "ByteStorage": "uint8", "BoolStorage": "bool"}
_OBJECT_BYTES = 400


class StateDict(dict, Stateful):
    """`collections.OrderedDict`; its state, torch's `_metadata` (versions of modules), is not needed here."""

    def set_state(self, state: Any, account: Account) -> None:
        pass


class Namespace(dict, Stateful):
    """`argparse.Namespace`: the options of the training script, as a dict."""

    def set_state(self, state: Any, account: Account) -> None:
        if type(state) is not dict:
            raise WeightsError("the state of an argparse.Namespace is no dict")
        account.charge(100 * len(state))
        self.update(state)


class NumpyDtype(Stateful):
    """`numpy.dtype` of a plain number; its state says the byte order."""

    def __init__(self, code):
        if type(code) is not str or len(code) > 3 or code[:1] not in tuple("fiub") or code[1:] not in tuple("1248"):
            raise WeightsError(f"a NumPy array of dtype {printable(code)}", expected="plain numbers", remedy=NOT_RUN)
        self.dtype = np.dtype(code)

    def set_state(self, state: Any, account: Account) -> None:
        if type(state) is not tuple or len(state) < 2 or state[1] not in tuple("<>|="):
            raise WeightsError("the state of a NumPy dtype is damaged")
        self.dtype = self.dtype.newbyteorder(state[1])


class NumpyArray(Inline, Stateful):
    """`numpy.ndarray`, pickled as an empty array and a state (version, shape, dtype, whether Fortran order, bytes)."""

    def set_state(self, state: Any, account: Account) -> None:
        if type(state) is not tuple or len(state) != 5 or not isinstance(state[2], NumpyDtype) \
                or type(state[4]) is not bytes or type(state[3]) is not bool:
            raise WeightsError("the state of a NumPy array is damaged")
        shape, dtype, values = whole_numbers(state[1], "shape"), state[2].dtype, state[4]
        if math.prod(shape) * dtype.itemsize != len(values):
            raise WeightsError(f"a NumPy array of shape {shape} and dtype {dtype} has {len(values)} bytes")
        account.charge(len(values) + _OBJECT_BYTES)
        flat = np.frombuffer(values, dtype)
        array = flat.reshape(shape, order="F" if state[3] else "C")
        self.array = array.astype(dtype.newbyteorder("="), order="C")


def _ordered_dict(args, account):
    """`OrderedDict()`, or Python 2's `OrderedDict([[name, value], ...])`."""
    made = StateDict()
    account.charge(_OBJECT_BYTES)
    if args:
        pairs, = args
        pairs = list(pairs.items()) if isinstance(pairs, dict) else pairs
        if type(pairs) is not list or any(type(p) not in (list, tuple) or len(p) != 2 for p in pairs):
            raise WeightsError("an OrderedDict of something that is no list of pairs")
        account.charge(200 * len(pairs))
        for name, value in pairs:
            account.check_key(name)
            made[name] = value
    return made


def _default_dict(args, account):
    return _ordered_dict(args[1:], account)


def _tensor(args, account):
    """(storage, offset, shape, strides)"""
    if len(args) != 4:
        raise WeightsError(f"a tensor with {len(args)} arguments")
    account.charge(_OBJECT_BYTES)
    return strided(*args)


def _tensor_v2(args, account):
    """(storage, offset, shape, strides, requires_grad, backward_hooks[, metadata])"""
    _refuse_lazy(args[6:7])
    return _tensor(args[:4] if 6 <= len(args) <= 7 else (), account)


def _tensor_v3(args, account):
    """As v2, but with the dtype before the metadata, since the storage is untyped."""
    _refuse_lazy(args[7:8])
    if not 7 <= len(args) <= 8 or not isinstance(args[6], Admitted) or args[6].value not in DTYPES:
        raise WeightsError("a tensor of a dtype that is not known", expected=", ".join(DTYPES))
    account.charge(_OBJECT_BYTES)
    return strided(*args[:4], dtype=args[6].value)


def _refuse_lazy(metadata):
    """Refuses tensors whose metadata says that their values still have to be conjugated or negated."""
    if metadata and metadata[0] and any(metadata[0].values()):
        raise WeightsError("a tensor with a pending conjugation or negation", remedy="save tensor.clone()")


def _parameter(args, account):
    """(tensor, requires_grad, backward_hooks[, state])"""
    if not 3 <= len(args) <= 4 or not isinstance(args[0], Tensor):
        raise WeightsError("a Parameter of something that is no tensor", remedy=NOT_RUN)
    return args[0]


def _tensor_with_attributes(args, account):
    """(rebuild function, type, its arguments, attributes): a tensor with attributes of its own, which are dropped."""
    rebuild, kind, inner, _attributes = args
    if rebuild not in _REBUILD or not isinstance(kind, Admitted) or kind.value != "tensor type":
        raise WeightsError("a tensor of a class that is not known", expected="torch.Tensor or Parameter",
                           remedy=NOT_RUN)
    if type(inner) is not tuple:
        raise WeightsError("the arguments of a tensor are no tuple")
    return rebuild.build(inner, account)


def _encoded(args, account):
    """`_codecs.encode(text, 'latin1')`: how protocol 2 writes bytes."""
    text, encoding = args
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise WeightsError("refused: _codecs.encode of something else than text as latin1", remedy=NOT_RUN)
    account.charge(len(text))
    return text.encode("latin-1")


def _bytes(args, account):
    if args:
        raise WeightsError("refused: bytes() with arguments", remedy=NOT_RUN)
    return b""


def _list(args, account):
    items = args[0] if args else []
    if len(args) > 1 or type(items) not in (list, tuple):
        raise WeightsError("a set of something that is no list")
    account.charge(8 * len(items) + _OBJECT_BYTES)
    return list(items)


def _size(args, account):
    size, = args
    return whole_numbers(size, "size")


def _device(args, account):
    """`torch.device('cuda', 0)` as 'cuda:0'."""
    if not 1 <= len(args) <= 2 or type(args[0]) is not str or any(type(a) is not int for a in args[1:]):
        raise WeightsError("a torch.device of something that is no name")
    account.charge(len(args[0]))
    return ":".join(map(str, args))


def _complex(args, account):
    real, imaginary = args
    if type(real) is not float or type(imaginary) is not float:
        raise WeightsError("a complex number of something that is no number")
    return complex(real, imaginary)


def _namespace(args, account):
    if args:
        raise WeightsError("an argparse.Namespace with arguments", remedy=NOT_RUN)
    account.charge(_OBJECT_BYTES)
    return Namespace()


def _numpy_dtype(args, account):
    account.charge(_OBJECT_BYTES)
    return NumpyDtype(args[0])


def _numpy_scalar(args, account):
    kind, value = args
    if not isinstance(kind, NumpyDtype) or type(value) is not bytes or len(value) != kind.dtype.itemsize:
        raise WeightsError("a NumPy number whose bytes do not fit its dtype")
    return np.frombuffer(value, kind.dtype)[0].item()


def _numpy_array(args, account):
    if len(args) != 3 or not isinstance(args[0], Admitted) or args[0].value != "array type":
        raise WeightsError("a NumPy array of a class that is not known", remedy=NOT_RUN)
    account.charge(_OBJECT_BYTES)
    return NumpyArray()


def _table() -> dict[tuple[str, str], Admitted]:
    builders = {
        "collections.OrderedDict": _ordered_dict, "collections.Counter": _ordered_dict,
        "collections.defaultdict": _default_dict, "argparse.Namespace": _namespace,
        "torch._utils._rebuild_tensor": _tensor, "torch._utils._rebuild_tensor_v2": _tensor_v2,
        "torch._utils._rebuild_tensor_v3": _tensor_v3, "torch._utils._rebuild_parameter": _parameter,
        "torch._utils._rebuild_parameter_with_state": _parameter,
        "torch._tensor._rebuild_from_type_v2": _tensor_with_attributes,
        "torch.Size": _size, "torch.device": _device, "_codecs.encode": _encoded, "numpy.dtype": _numpy_dtype,
    }
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        builders |= {f"{module}.scalar": _numpy_scalar, f"{module}._reconstruct": _numpy_array}
    for module in ("builtins", "__builtin__"):
        builders |= {f"{module}.set": _list, f"{module}.frozenset": _list, f"{module}.complex": _complex,
                     f"{module}.bytes": _bytes}
    values = {"torch.Tensor": "tensor type", "torch.nn.parameter.Parameter": "tensor type",
              "numpy.ndarray": "array type", "torch.storage.UntypedStorage": "uint8",
              "torch.storage._UntypedStorage": "uint8", "torch.UntypedStorage": "uint8"}
    values |= {f"torch.{dtype}": dtype for dtype in DTYPES}
    # Files saved from a GPU by old versions of torch name the storages of torch.cuda.
    values |= {f"{m}.{name}": dtype for m in ("torch", "torch.cuda") for name, dtype in _STORAGES.items()}
    # A defaultdict's factory is named and never called.
    for module in ("builtins", "__builtin__"):
        values |= {f"{module}.{name}": "factory" for name in ("dict", "list", "int", "float")}
    table = {name: Admitted(name, build=build) for name, build in builders.items()}
    table |= {name: Admitted(name, value=value) for name, value in values.items()}
    return {(module, name): entry for full, entry in table.items() for module, _, name in [full.rpartition(".")]}


ADMITTED = _table()
_REBUILD = tuple(ADMITTED["torch._utils", name] for name in
                 ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter"))


def storage_dtype(mark: object) -> str:
    """The dtype (a key of DTYPES) that a storage class of the pickle stands for."""
    dtype = mark.value if isinstance(mark, Admitted) and "Storage" in mark.name else None
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise WeightsError(f"a storage of a type that is not known: "
                           f"{printable(mark.name if isinstance(mark, Admitted) else type(mark).__name__)}")
    return dtype
