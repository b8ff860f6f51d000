"""Brings back names that NumPy has removed, for code that still uses them: MXNet, GluonCV, programs that import them.

NumPy asks its module-level `__getattr__` for names that it lacks; `install` puts a function in front of it that looks
at the caller. For all other packages, and at a prompt, NumPy stays as it is (`hasattr(numpy, "trapz")`).
"""
from __future__ import annotations

import ast
import importlib
import sys
import types
from collections.abc import Callable
from typing import Any

_FOR = frozenset({"mxnet", "gluoncv"})

# Removed name -> today's name of the same thing (NumPy's release notes of 1.20, 1.24, 1.25, 2.0 and 2.4).
_RENAMED = {
    "float_": "float64", "complex_": "complex128", "unicode_": "str_", "string_": "bytes_", "bool8": "bool_",
    "singlecomplex": "complex64", "cfloat": "complex128", "longfloat": "longdouble", "longcomplex": "clongdouble",
    "clongfloat": "clongdouble", "NaN": "nan", "NAN": "nan", "Inf": "inf", "INF": "inf", "Infinity": "inf",
    "infty": "inf", "PINF": "inf", "product": "prod", "cumproduct": "cumprod", "alltrue": "all", "sometrue": "any",
    "round_": "round", "row_stack": "vstack", "trapz": "trapezoid", "mat": "asmatrix", "issubsctype": "issubdtype",
}
_BUILTINS: dict[str, Any] = {"bool": bool, "int": int, "float": float, "complex": complex, "object": object,
                             "str": str, "long": int, "unicode": str}
_CONSTANTS = {"NINF": float("-inf"), "PZERO": 0.0, "NZERO": -0.0}
# Names that moved into a module of NumPy's.
_MOVED = {"exceptions": ("AxisError", "ComplexWarning", "ModuleDeprecationWarning", "RankWarning", "TooHardError",
                         "VisibleDeprecationWarning"),
          "char": ("chararray", "compare_chararrays"), "rec": ("format_parser",), "lib.npyio": ("DataSource",),
          "lib.array_utils": ("byte_bounds",)}
# Financial functions, removed in NumPy 1.20: those in mxnet/numpy/fallback.py and their siblings.
_FINANCIAL = ("fv", "ipmt", "irr", "mirr", "nper", "npv", "pmt", "ppmt", "pv", "rate")


def install() -> None:
    """Makes the removed names visible to old code, once per process; NumPy's own attributes stay as they are."""
    import numpy

    original = vars(numpy).get("__getattr__")
    if isinstance(original, _OldNames):
        return
    # Python looks this function up in the module's namespace (PEP 562).
    old = values(numpy)
    setattr(numpy, "__getattr__", _OldNames(numpy, original, old))  # noqa: B010 the type checker knows no such attribute
    # `numpy.lib` had most functions of NumPy itself until NumPy 2: `np.lib.pad`.
    functions = {name: value for name, value in vars(numpy).items() if callable(value) and not name.startswith("_")}
    setattr(numpy.lib, "__getattr__", _OldNames(  # noqa: B010
        numpy.lib, vars(numpy.lib).get("__getattr__"), {**functions, **old}))


class _OldNames:
    """A module-level `__getattr__` of NumPy's, with the removed names for old code."""

    def __init__(self, module: Any, original: Callable[[str], Any] | None, old: dict[str, Any]) -> None:
        self._module = module.__name__
        self._original = original
        self._values = {name: value for name, value in old.items() if name not in vars(module)}

    def __call__(self, name: str) -> Any:
        if name in self._values and _is_old_code(sys._getframe(1)):
            return self._values[name]
        if self._original is None:
            raise AttributeError(f"module {self._module!r} has no attribute {name!r}")
        return self._original(name)


def _is_old_code(frame: types.FrameType) -> bool:
    """Whether a frame runs MXNet, GluonCV, or a file that imports one of them.

    gluon_ft's own files do not get the names, so that none of them comes to depend on one.
    """
    package = _package(frame.f_globals.get("__name__"))
    if package in _FOR:
        return True
    if package == "gluon_ft" or frame.f_code.co_filename.startswith("<"):
        return False
    return any(isinstance(value, types.ModuleType) and _package(value.__name__) in _FOR
               for value in list(frame.f_globals.values()))


def _package(module: Any) -> str:
    return module.partition(".")[0] if isinstance(module, str) else ""


def values(numpy: Any) -> dict[str, Any]:
    """Every removed name and what it stood for, in terms of this NumPy's functions and types."""
    renamed = {old: getattr(numpy, new) for old, new in _RENAMED.items() if hasattr(numpy, new)}

    def asfarray(a, dtype=numpy.float64):
        floats = numpy.issubdtype(dtype, numpy.inexact)
        return numpy.asarray(a, dtype=dtype if floats else numpy.float64)

    def find_common_type(array_types, scalar_types):
        """The type that holds all of them; scalar types count only if they are of a higher kind."""
        arrays, scalars = ([numpy.dtype(t) for t in group] for group in (array_types, scalar_types))
        if not arrays or not scalars:
            return numpy.result_type(*arrays, *scalars)
        kinds = "biufcmMSUVO"
        of_arrays, of_scalars = numpy.result_type(*arrays), numpy.result_type(*scalars)
        return of_scalars if kinds.index(of_scalars.kind) > kinds.index(of_arrays.kind) else of_arrays

    def in1d(ar1, ar2, assume_unique=False, invert=False):
        return numpy.isin(numpy.asarray(ar1).ravel(), ar2, assume_unique=assume_unique, invert=invert)

    def msort(a):
        return numpy.sort(a, axis=0)

    def asscalar(a):
        return a.item()

    def obj2sctype(rep, default=None):
        try:
            return numpy.dtype(rep if isinstance(rep, type) or not hasattr(rep, "dtype") else rep.dtype).type
        except TypeError:
            return default

    def sctype2char(sctype):
        return numpy.dtype(sctype).char

    def issctype(rep):
        return isinstance(rep, (type, numpy.dtype)) and obj2sctype(rep) not in (None, numpy.object_)

    def issubclass_(arg1, arg2):
        return isinstance(arg1, type) and issubclass(arg1, arg2)

    def maximum_sctype(t):
        kinds = {"i": numpy.int64, "u": numpy.uint64, "f": numpy.longdouble, "c": numpy.clongdouble}
        return kinds.get(numpy.dtype(t).kind, numpy.dtype(t).type)

    def safe_eval(source):
        return ast.literal_eval(source)

    def disp(mesg, device=None, linefeed=True):
        (device or sys.stdout).write(f"{mesg}\n" if linefeed else f"{mesg}")

    compat = types.SimpleNamespace(basestring=(str,), unicode=str, long=int, integer_types=(int,))
    functions = {f.__name__: f for f in (asfarray, find_common_type, in1d, msort, asscalar, obj2sctype, sctype2char,
                                         issctype, issubclass_, maximum_sctype, safe_eval, disp)}
    return {**_BUILTINS, **_CONSTANTS, **renamed, **functions, **_moved(numpy), "compat": compat,
            "cast": _OfEveryType(lambda t: lambda x: numpy.asarray(x).astype(t)), "sctypes": _sctypes(numpy),
            "nbytes": _OfEveryType(lambda t: numpy.dtype(t).itemsize),
            **{name: _financial(name) for name in _FINANCIAL}}


class _OfEveryType(dict):
    """`numpy.cast`, `numpy.nbytes`: a value for each type, whichever way the type is named."""

    def __init__(self, value: Callable[[Any], Any]) -> None:
        super().__init__()
        self._value = value

    def __missing__(self, key: Any) -> Any:
        return self._value(key)


def _sctypes(numpy: Any) -> dict[str, list]:
    names = {"int": ("int8", "int16", "int32", "int64"), "uint": ("uint8", "uint16", "uint32", "uint64"),
             "float": ("float16", "float32", "float64", "longdouble"),
             "complex": ("complex64", "complex128", "clongdouble")}
    others = [bool, object, bytes, str, numpy.void]
    return {**{kind: [getattr(numpy, name) for name in found] for kind, found in names.items()}, "others": others}


def _moved(numpy: Any) -> dict[str, Any]:
    """Names of `_MOVED` that this NumPy has in their new place."""
    found: dict[str, Any] = {}
    for place, names in _MOVED.items():
        try:
            module = importlib.import_module(f"numpy.{place}")
        except ImportError:
            continue
        found.update({name: getattr(module, name) for name in names if hasattr(module, name)})
    return found


def _financial(name: str) -> Callable[..., Any]:
    def function(*args, **kwargs):
        raise RuntimeError(f"numpy.{name} left NumPy in 1.20; the package numpy-financial has it")

    function.__name__ = name
    return function
