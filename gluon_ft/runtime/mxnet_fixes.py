"""What MXNet 1.9.1's own code needs beside the removed names, to work with NumPy 1.24 and later and NumPy 2."""
from __future__ import annotations

import functools
import sys
import types
from typing import Any


def apply(mxnet: types.ModuleType) -> None:
    """Mends an MXNet that has just been imported, in place.

    Parameters
    ----------
    mxnet : module
    """
    import numpy

    _give_arrays_to_numpy(mxnet)
    _replace_tostring(mxnet)
    _replace_old_scipy_names()
    _give_thresholds_as_numbers(mxnet)
    if numpy.__version__.split(".")[0] != "1":
        _write_plain_numbers(mxnet)
        _read_binary_strings(numpy)
        # normalize_axis_tuple, whose old place warns.
        _rename(mxnet.nd.moveaxis, "core", "_core")


# ------------------------------------------------------------------------------------------------- numbers as text


def plain_text(value: Any) -> str:
    """`str(value)` as NumPy 1 wrote it: numbers within tuples, lists and dicts as digits, not as `np.int64(6)`.

    Parameters
    ----------
    value : object
        A parameter of an operator, which MXNet hands to its library as text.
    """
    text = str(value)
    return str(_plain(value)) if "np." in text and not isinstance(value, str) else text


def _plain(value: Any) -> Any:
    import numpy

    if isinstance(value, (numpy.str_, numpy.bytes_)):
        return value.item()
    if isinstance(value, numpy.generic):
        return _Digits(value)
    if isinstance(value, dict):
        return {_plain(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return (list if isinstance(value, list) else tuple)(_plain(v) for v in value)
    return value


class _Digits:
    """A NumPy scalar that is printed as its digits, alone and within a container."""

    def __init__(self, number: Any) -> None:
        self._number = number

    def __repr__(self) -> str:
        return str(self._number)


class _InstancesOfStr(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, str)


class _PlainStr(metaclass=_InstancesOfStr):
    """Stands for `str` in a module that converts with it and asks `isinstance(x, str)`."""

    def __new__(cls, *args: Any) -> Any:
        return plain_text(*args) if len(args) == 1 else str(*args)


def _write_plain_numbers(mxnet: Any) -> None:
    """The modules that turn parameters into text find this `str` in their own namespace before Python's."""
    for module in (sys.modules["mxnet._ctypes.ndarray"], sys.modules["mxnet._ctypes.symbol"], mxnet.io.io,
                   mxnet.symbol.symbol, mxnet.kvstore.base):
        vars(module)["str"] = _PlainStr


# ---------------------------------------------------------------------------------------------------------- arrays


def _give_arrays_to_numpy(mxnet: Any) -> None:
    """`np.array(nd)` and `np.concatenate([nd])`: NumPy 1.24 and later no longer read an NDArray as a sequence."""
    def __array__(self, dtype=None, copy=None):
        if copy is False:
            raise ValueError("an NDArray reaches NumPy as a copy only: leave copy=False out, or use np.asarray")
        array = self.asnumpy()
        return array if dtype is None else array.astype(dtype, copy=False)

    mxnet.nd.NDArray.__array__ = __array__


def _rename(function: Any, old: str, new: str) -> None:
    """Lets a Python function use another attribute than the one that it was written with."""
    code = function.__code__
    function.__code__ = code.replace(co_names=tuple(new if name == old else name for name in code.co_names))


def _replace_tostring(mxnet: Any) -> None:
    """NumPy 2.3 removed `ndarray.tostring`; im2rec then drops every image, with status 0."""
    for function in (mxnet.recordio.pack, mxnet.recordio.pack_img):
        _rename(function, "tostring", "tobytes")


def _give_thresholds_as_numbers(mxnet: Any) -> None:
    """Quantisation by entropy converts arrays of shape (1,) to numbers; NumPy 2.4 takes those of shape () only."""
    original = mxnet.contrib.quantization._get_optimal_threshold

    @functools.wraps(original)
    def _get_optimal_threshold(*args, **kwargs):
        least, most, threshold, divergence = original(*args, **kwargs)
        return least, most, threshold.item(), divergence.item()

    mxnet.contrib.quantization._get_optimal_threshold = _get_optimal_threshold


def _read_binary_strings(numpy: Any) -> None:
    """`np.fromstring(bytes, dtype)`, as programs of 2018 read MNIST: NumPy 2.3 refuses it."""
    original = numpy.fromstring
    if getattr(original, "__module__", "") == __name__:
        return

    def fromstring(string, dtype=float, count=-1, *, sep="", **kwargs):
        if sep == "" and isinstance(string, (bytes, bytearray, memoryview)):
            return numpy.frombuffer(string, dtype=dtype, count=count).copy()
        return original(string, dtype=dtype, count=count, sep=sep, **kwargs)

    fromstring.__doc__ = original.__doc__
    numpy.fromstring = fromstring


def _replace_old_scipy_names() -> None:
    """Every `mx.nd.array(list)` asks for `scipy.sparse.csr.csr_matrix`: deprecated, and gone with SciPy 2."""
    sparse = sys.modules.get("scipy.sparse")
    if sparse is None:
        return
    names = types.SimpleNamespace(csr_matrix=sparse.csr_matrix, coo_matrix=sparse.coo_matrix)
    names.csr = names
    for module in ("mxnet.ndarray.utils", "mxnet.ndarray.sparse"):
        if getattr(sys.modules[module], "spsp", None) is sparse:
            vars(sys.modules[module])["spsp"] = names
