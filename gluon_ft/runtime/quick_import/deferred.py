"""Defers what MXNet and GluonCV import at their start for a few of their functions: half of the time of their import.

scikit-learn (with pandas) is the base class of `FeedForward` and nothing else; `scipy.stats`, `scipy.sparse` and `onnx`
serve a few functions; `distutils` (with setuptools) compares NumPy's version. They are loaded when they are first used.

Only the import statements of these modules are changed, in memory: `sys.modules`, and what other code imports, stay as
they are.
"""
from __future__ import annotations

import contextlib
import importlib
import importlib.util
import re
import sys
import types
from collections.abc import Mapping
from importlib.machinery import SourceFileLoader
from typing import Any, NamedTuple


class _Late(NamedTuple):
    """An import: the module as the statement names it, the module that it brings, and its name in the importing one."""

    statement: str
    module: str
    name: str


# All of them are prepared for a package that is missing, and have None in its place.
_LATE = {
    "mxnet.test_utils": _Late("scipy.stats", "scipy.stats", "ss"),
    "mxnet.contrib.quantization": _Late("scipy", "scipy.stats", "stats"),
    "mxnet.ndarray.utils": _Late("scipy.sparse", "scipy.sparse", "spsp"),
    "mxnet.ndarray.sparse": _Late("scipy.sparse", "scipy.sparse", "spsp"),
    **{f"mxnet.onnx.mx2onnx._op_translations._op_translations_opset{number}": _Late("onnx", "onnx", "onnx")
       for number in (12, 13)},
}
_MODEL, _EXPORT = "mxnet.model", "mxnet.onnx.mx2onnx._export_onnx"
# The name of a module that does not exist: importing it fails as the missing package would.
_MISSING = f"{__name__}.missing"
# Module -> {name in an import statement: the name that takes its place}.
_EXCHANGED = {
    _MODEL: {"sklearn.base": _MISSING},
    **{name: {late.statement: _MISSING} for name, late in _LATE.items()},
    **{name: {"distutils.version": __name__} for name in (
        "mxnet.numpy_op_fallback", "mxnet.numpy_dispatch_protocol", "gluoncv.check", "gluoncv.utils.version")},
}
MODULES = frozenset({*_EXCHANGED, _EXPORT})


class Loader(SourceFileLoader):
    """Runs one of `MODULES` without what it imports for a few functions, and lets those find it when they need it."""

    def get_code(self, fullname: str) -> types.CodeType | None:
        code = super().get_code(fullname)
        return None if code is None else _exchanged(code, _EXCHANGED.get(fullname, {}))

    def exec_module(self, module: types.ModuleType) -> None:
        super().exec_module(module)
        late = _LATE.get(module.__name__)
        if module.__name__ == _MODEL:
            _defer_feed_forward(module)
        elif module.__name__ == _EXPORT:
            module.MXNetGraph.register = staticmethod(_registering(module.MXNetGraph.registry_))
        elif late is not None and _is_installed(late.module.partition(".")[0]):
            setattr(module, late.name, (_Sparse if late.module == "scipy.sparse" else _LateModule)(late.module))


def _is_installed(package: str) -> bool:
    with contextlib.suppress(ImportError, ValueError):
        return importlib.util.find_spec(package) is not None
    return False


def _exchanged(code: types.CodeType, names: Mapping[str, str]) -> types.CodeType:
    """A module's code, its functions included, with other names in its import statements."""
    return code.replace(co_names=tuple(names.get(name, name) for name in code.co_names),
                        co_consts=tuple(_exchanged(part, names) if isinstance(part, types.CodeType) else part
                                        for part in code.co_consts))


class _LateModule(types.ModuleType):
    """A module that is imported when one of its names is asked for."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self.__name__), name)


class _Sparse(_LateModule):
    """scipy.sparse. `mx.nd.array` asks it for every list whether that is a csr_matrix, by a name that SciPy 2 removes.
    """

    @property
    def csr(self) -> Any:
        return types.SimpleNamespace(csr_matrix=_CsrMatrix)


class _InstancesOfCsrMatrix(type):
    def __instancecheck__(cls, instance: object) -> bool:
        # Where scipy.sparse has not been imported, nothing is one.
        return isinstance(instance, getattr(sys.modules.get("scipy.sparse"), "csr_matrix", ()))


class _CsrMatrix(metaclass=_InstancesOfCsrMatrix):
    """Takes the place of scipy.sparse.csr_matrix in `isinstance`."""


class LooseVersion(tuple):
    """A version's first three numbers; all that MXNet and GluonCV need of `distutils.version`."""

    def __new__(cls, text: str) -> LooseVersion:
        return super().__new__(cls, map(int, re.findall("[0-9]+", text)[:3]))


StrictVersion = LooseVersion


def _registering(registry: dict[int, dict[str, Any]]) -> Any:
    """`MXNetGraph.register` that does not import onnx to see whether it is there; exporting a model does."""
    def register(op_name, opset_version=12):
        def wrapper(function):
            registry.setdefault(opset_version, {})[op_name] = function
            return function
        return wrapper
    return register


def _defer_feed_forward(model: Any) -> None:
    """Makes the class `FeedForward` again, from scikit-learn's BaseEstimator, when it is first used."""
    names = vars(model)
    public = [name for name in names if not name.startswith("_")]
    plain = names.pop("FeedForward")
    del names["BASE_ESTIMATOR"], names["SKLEARN_INSTALLED"]

    def __getattr__(name):
        if name not in ("FeedForward", "BASE_ESTIMATOR"):
            raise AttributeError(f"module '{model.__name__}' has no attribute '{name}'")
        try:
            from sklearn.base import BaseEstimator as base
        except ImportError:
            base = object
        names.setdefault("BASE_ESTIMATOR", base)
        own = {key: value for key, value in vars(plain).items() if key not in ("__dict__", "__weakref__")}
        names.setdefault("FeedForward", type("FeedForward", (base,), own))
        return names[name]

    model.__all__ = [name for name in public if name != "SKLEARN_INSTALLED"]
    model.__getattr__, model.__dir__ = __getattr__, lambda: sorted({*names, *model.__all__})
