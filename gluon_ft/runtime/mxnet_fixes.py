"""Patches for MXNet 1.9.1's own code: for NumPy 1.24 and later, NumPy 2, and passes over iterators.

Names that NumPy has removed are in `old_names`.
"""
from __future__ import annotations

import functools
import inspect
import multiprocessing
import sys
import types
from typing import Any


def apply(mxnet: types.ModuleType) -> None:
    """Patches an MXNet that has just been imported, in place.

    Parameters
    ----------
    mxnet : module
    """
    import numpy

    _give_arrays_to_numpy(mxnet)
    _replace_tostring(mxnet)
    remember_iterators(mxnet)
    _return_thresholds_as_numbers(mxnet)
    fork_workers(mxnet.gluon.data.dataloader)
    if numpy.__version__.split(".")[0] != "1":
        _write_plain_numbers(mxnet)
        _add_up_in_double_precision(mxnet)
        _read_binary_strings(numpy)
        _wrap_integers_out_of_range(numpy)
        # It uses numpy.core.numeric.normalize_axis_tuple, whose old place warns.
        _rename(mxnet.nd.moveaxis, "core", "_core")


class _Forking(types.ModuleType):
    """The module multiprocessing, whose processes are forked unless the program has chosen another way."""

    def __getattr__(self, name: str) -> Any:
        if name in ("Pool", "Process", "get_context"):
            chosen = multiprocessing.get_start_method(allow_none=True)
            return getattr(multiprocessing.get_context(chosen or "fork"), name)
        return getattr(multiprocessing, name)


def fork_workers(module: Any) -> None:
    """Lets a DataLoader fork its workers on Python 3.14, as on every Linux before.

    A program of before has its loops outside of `if __name__ == "__main__"`; other ways to start a process run it
    again.

    Parameters
    ----------
    module : module
        That imports multiprocessing.
    """
    if sys.version_info >= (3, 14) and sys.platform == "linux":
        module.multiprocessing = _Forking("multiprocessing")


# ------------------------------------------------------------------------------------------------- numbers as text


def plain_text(value: Any) -> str:
    """`str(value)` as NumPy 1 wrote it: numbers in tuples, lists and dicts as digits, not as `np.int64(6)`.

    Parameters
    ----------
    value : object
        A parameter of an operator, which MXNet passes to its library as text.
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
    """A NumPy scalar that prints as its digits, alone or in a container."""

    def __init__(self, number: Any) -> None:
        self._number = number

    def __repr__(self) -> str:
        return str(self._number)


class _InstancesOfStr(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, str)


class _PlainStr(metaclass=_InstancesOfStr):
    """Takes the place of `str` in a module that converts with it and asks `isinstance(x, str)`."""

    def __new__(cls, *args: Any) -> Any:
        return plain_text(*args) if len(args) == 1 else str(*args)


def _write_plain_numbers(mxnet: Any) -> None:
    """Puts `_PlainStr` into the modules that turn parameters into text, where it hides Python's `str`."""
    for module in (sys.modules["mxnet._ctypes.ndarray"], sys.modules["mxnet._ctypes.symbol"], mxnet.io.io,
                   mxnet.symbol.symbol, mxnet.kvstore.base):
        vars(module)["str"] = _PlainStr
    mxnet.metric.EvalMetric.__str__ = lambda self: f"EvalMetric: {plain_text(dict(self.get_name_value()))}"


# --------------------------------------------------------------------------------------------------------- metrics


class _Sum:
    """The sum of a metric. NumPy 1 adds a float32 to 0.0 in double precision, NumPy 2 in single."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, metric: Any, owner: type | None = None) -> Any:
        if metric is None:
            return self
        try:
            return vars(metric)[self._name]
        except KeyError:
            raise AttributeError(f"{type(metric).__name__!r} object has no attribute {self._name!r}") from None

    def __set__(self, metric: Any, value: Any) -> None:
        import numpy

        real = isinstance(value, numpy.floating)
        vars(metric)[self._name] = numpy.float64(value) if real else value


def _add_up_in_double_precision(mxnet: Any) -> None:
    """Without it a metric over 100,000 batches has three right digits."""
    for name in ("sum_metric", "global_sum_metric"):
        setattr(mxnet.metric.EvalMetric, name, _Sum(name))


# ---------------------------------------------------------------------------------------------------------- arrays


def _give_arrays_to_numpy(mxnet: Any) -> None:
    """Makes `np.array(nd)` and `np.concatenate([nd])` work: NumPy 1.24 no longer reads an NDArray as a sequence."""
    def __array__(self, dtype=None, copy=None):
        if copy is False:
            raise ValueError("an NDArray reaches NumPy as a copy only: leave copy=False out, or use np.asarray")
        array = self.asnumpy()
        return array if dtype is None else array.astype(dtype, copy=False)

    mxnet.nd.NDArray.__array__ = __array__


def _rename(function: Any, old: str, new: str) -> None:
    """Makes a Python function use the attribute `new` wherever it was written with `old`."""
    code = function.__code__
    function.__code__ = code.replace(co_names=tuple(new if name == old else name for name in code.co_names))


def _replace_tostring(mxnet: Any) -> None:
    """NumPy 2.3 removed `ndarray.tostring`, without which im2rec drops every image and ends with status 0."""
    for function in (mxnet.recordio.pack, mxnet.recordio.pack_img):
        _rename(function, "tostring", "tobytes")


def _return_thresholds_as_numbers(mxnet: Any) -> None:
    """Entropy quantisation converts arrays of shape (1,) to numbers; NumPy 2.4 only converts arrays of shape ()."""
    original = mxnet.contrib.quantization._get_optimal_threshold

    @functools.wraps(original)
    def _get_optimal_threshold(*args, **kwargs):
        least, most, threshold, divergence = original(*args, **kwargs)
        return least, most, threshold.item(), divergence.item()

    mxnet.contrib.quantization._get_optimal_threshold = _get_optimal_threshold


def _read_binary_strings(numpy: Any) -> None:
    """Makes `np.fromstring(bytes, dtype)` work, with which programs of 2018 read MNIST: NumPy 2.3 refuses it."""
    original = numpy.fromstring
    if getattr(original, "__module__", "") == __name__:
        return

    def fromstring(string, dtype=float, count=-1, *, sep="", **kwargs):
        if sep == "" and isinstance(string, (bytes, bytearray, memoryview)):
            return numpy.frombuffer(string, dtype=dtype, count=count).copy()
        return original(string, dtype=dtype, count=count, sep=sep, **kwargs)

    fromstring.__doc__ = original.__doc__
    numpy.fromstring = fromstring


def _wrap_integers_out_of_range(numpy: Any) -> None:
    """Makes `nd.array([300, -1], dtype="uint8")` give 44 and 255 as with NumPy 1: NumPy 2 refuses such numbers.

    The modules that turn lists into arrays get a NumPy whose `array` wraps; NumPy itself stays as it is.
    """
    wrapping = types.ModuleType("numpy", numpy.__doc__)
    vars(wrapping).update(vars(numpy))
    vars(wrapping)["array"] = array_of_wrapped
    for module, name in (("mxnet.ndarray.ndarray", "np"), ("mxnet.ndarray.sparse", "np"),
                         ("mxnet.numpy.multiarray", "_np")):
        vars(sys.modules[module])[name] = wrapping


def array_of_wrapped(values: Any, dtype: Any = None, **options: Any) -> Any:
    """`numpy.array(values, dtype)`; integers beyond the type's range count from its other end again, as in C.

    Parameters
    ----------
    values : array_like
    dtype : dtype, optional
    **options
        Of `numpy.array`.

    Returns
    -------
    ndarray

    Raises
    ------
    OverflowError
        A number does not fit into 64 bits either.
    """
    import numpy

    try:
        return numpy.array(values, dtype=dtype, **options)
    except OverflowError:
        wide = numpy.asarray(values)
        if wide.dtype.kind == "f" and (numpy.abs(wide) < 2.0 ** 63).all():
            wide = wide.astype("int64")
        if wide.dtype.kind not in "iu":
            raise
        return wide.astype(dtype)


# ------------------------------------------------------------------------------------------------------- iterators

_MADE = "_gluon_ft_made_by"


def remember_iterators(mxnet: Any) -> None:
    """Makes MXNet's C++ iterators (`ImageRecordIter`, `CSVIter`, ...) keep their creator and options.

    Their `reset` does not return to the beginning. With `round_batch` the second pass leaves out the images that filled
    up the last batch of the first pass, and `pad` is not always set; without it the last batch of `ImageRecordIter`
    ends in rows of earlier batches. Only the first pass of a new iterator has every image exactly once, and an iterator
    does not know its own options.
    """
    for module in (mxnet.io, mxnet.io.io):
        for name, creator in list(vars(module).items()):
            if inspect.isfunction(creator) and "Iter" in name and not name.startswith("_") \
                    and not hasattr(creator, "__wrapped__"):
                setattr(module, name, _remembering(creator))


def _remembering(creator):
    @functools.wraps(creator)
    def create(*args, **options):
        made = creator(*args, **options)
        setattr(made, _MADE, (create, options))
        return made
    return create


def iterator_options(iterator: Any) -> dict | None:
    """The options that one of MXNet's C++ iterators was made with; None where they are not known."""
    return getattr(iterator, _MADE)[1] if hasattr(iterator, _MADE) else None


def iterator_made_anew(iterator: Any) -> Any:
    """A new iterator with the same options."""
    creator, options = getattr(iterator, _MADE)
    return creator(**options)
