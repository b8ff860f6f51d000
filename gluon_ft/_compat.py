"""Lets MXNet 1.9.1 import, quietly and with every processor, on Python 3.9 to 3.12 and NumPy below 2.

Loaded by `gluon_ft/__init__.py` before anything imports MXNet. Nothing else patches MXNet or NumPy.
"""
from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import math
import os
import sys
import types
import warnings
from pathlib import Path

# The aliases that NumPy 1.24 removed and MXNet 1.9.1 or GluonCV 0.10.5 still use (apache/mxnet#21165).
_NUMPY_ALIASES = {"bool": bool, "int": int, "float": float, "object": object}

WHICH_MXNET = (
    "MXNet is not installed; on a machine without a GPU: pip install 'gluon-ft[cpu]'; with an NVIDIA GPU and "
    "CUDA 11.2: pip install 'gluon-ft[cu112]'. There are two because mxnet and mxnet-cu112 install the same "
    "Python package 'mxnet', so that only you can say which one you need"
)


def usable_processors() -> int:
    """Processors that this process may really use: affinity and the cgroup's CPU quota, at least 1."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_quota()
    return max(1, min(count, math.ceil(quota)) if quota else count)


def _cgroup_quota(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """CPUs granted by cgroup v2 (`cpu.max`) or v1 (`cpu.cfs_quota_us`), None where there is no limit."""
    with contextlib.suppress(OSError, ValueError):
        quota, period = (root / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    with contextlib.suppress(OSError, ValueError):
        quota = int((root / "cpu/cpu.cfs_quota_us").read_text())
        return None if quota <= 0 else quota / int((root / "cpu/cpu.cfs_period_us").read_text())
    return None


def set_threads() -> None:
    """Sets `OMP_NUM_THREADS` to the usable processors, unless the user has set it.

    MXNet's own default is half the processors it sees, which on virtual machines idles half the machine.
    Workers of one machine that share it (`DMLC_NUM_WORKER` with `GLUON_FT_PROCESSES_PER_MACHINE`) divide it.
    """
    share = os.environ.get("GLUON_FT_PROCESSES_PER_MACHINE", "1")
    processes = int(share) if share.isdigit() and int(share) > 0 else 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_processors() // processes)))


def _add_numpy_aliases() -> None:
    import numpy

    for name, value in _NUMPY_ALIASES.items():
        if name not in vars(numpy):
            setattr(numpy, name, value)


def _provide_distutils() -> None:
    """Python 3.12 left `distutils` to setuptools, which provides it once it has been imported."""
    if importlib.util.find_spec("distutils") is None:
        try:
            importlib.import_module("setuptools")
            importlib.import_module("distutils.version")
        except ImportError as error:
            raise ImportError("MXNet needs distutils, which Python 3.12 left to setuptools: "
                              "pip install setuptools") from error


@contextlib.contextmanager
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def import_mxnet() -> types.ModuleType:
    """Imports MXNet with what it needs from NumPy and distutils in place.

    Raises ImportError that says which of the two packages to install where there is none, and which NumPy where
    the installed one is too new.
    """
    if "mxnet" in sys.modules:
        return sys.modules["mxnet"]
    if importlib.util.find_spec("mxnet") is None:
        raise ImportError(WHICH_MXNET)
    import numpy

    if int(numpy.__version__.split(".")[0]) >= 2:
        raise ImportError(f"MXNet 1.9.1 needs NumPy below 2, found {numpy.__version__}: pip install 'numpy<2'")
    set_threads()
    with _quiet():
        _add_numpy_aliases()
        _provide_distutils()
        return importlib.import_module("mxnet")


def import_gluoncv() -> types.ModuleType:
    """Imports GluonCV, also beside torch 2 or later, which its own version check refuses ("Legacy torch").

    Raises ImportError that names the dependency that is really missing; GluonCV itself calls any of them
    "missing `mxnet` & `torch`".
    """
    if "gluoncv" in sys.modules:
        return sys.modules["gluoncv"]
    spec = importlib.util.find_spec("gluoncv")
    if spec is None:
        raise ImportError("GluonCV is not installed: pip install gluoncv==0.10.5.post0")
    with _quiet(), _hidden("torch"):
        try:
            module = importlib.import_module("gluoncv")
            importlib.import_module("gluoncv.model_zoo")
            return module
        except ImportError as error:
            raise ImportError(f"GluonCV cannot be imported: {_real_cause(spec) or error}") from error


@contextlib.contextmanager
def _hidden(name: str):
    """For the block, `import name` raises ImportError, as if it were not installed."""
    absent = object()
    before = sys.modules.get(name, absent)
    sys.modules[name] = None
    try:
        yield
    finally:
        if before is absent:
            del sys.modules[name]
        else:
            sys.modules[name] = before


def _real_cause(spec) -> str | None:
    """The import error under GluonCV's own: its `__init__` swallows it, so its parts are imported without that."""
    _forget("gluoncv")
    bare = types.ModuleType("gluoncv")
    bare.__path__ = list(spec.submodule_search_locations)
    sys.modules["gluoncv"] = bare
    try:
        for part in ("data", "model_zoo", "nn", "utils", "loss"):
            importlib.import_module(f"gluoncv.{part}")
    except ImportError as error:
        return f"{error}; pip install {error.name.split('.')[0]}" if error.name else str(error)
    finally:
        _forget("gluoncv")
    return None


def _forget(package: str) -> None:
    for name in [m for m in sys.modules if m == package or m.startswith(package + ".")]:
        del sys.modules[name]


import_mxnet()
