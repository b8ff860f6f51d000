"""Makes MXNet 1.9.1 and GluonCV importable on Python 3.9 to 3.14 with NumPy 1 and 2, using every processor.

This module is loaded by `gluon_ft/__init__.py`, or by the hook of `start_up.py` where MXNet is imported first. It
imports neither of the two, but hooks into every later `import mxnet` and `import gluoncv`, here or in the user's code.
Nothing outside `runtime` patches MXNet, NumPy or GluonCV.
"""
from __future__ import annotations

import contextlib
import importlib
import importlib.machinery
import importlib.util
import os
import platform
import re
import sys
import types
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

from gluon_ft.errors import ConfigError, DependencyError, printable
from gluon_ft.runtime import hardware, mxnet_fixes, old_names, processors
from gluon_ft.runtime.gpu import libraries
from gluon_ft.runtime.quick_import import deferred, operator_code


class Range(NamedTuple):
    """Versions that fit: from `oldest` up to, but without, `too_new`; `words` and `remedy` are for messages."""

    oldest: tuple[int, int]
    too_new: tuple[int, int]
    words: str
    remedy: str


PYTHON = Range((3, 9), (3, 15), "Python 3.9 to 3.14",
               "make a virtual environment with one that fits, for example python3.11 -m venv FOLDER")
NUMPY = Range((1, 21), (3, 0), "NumPy 1.21 to 2", "pip install 'numpy>=1.21,<3'")

# Module -> the package to install, where the names differ.
_PACKAGE_OF = {"cv2": "opencv-python-headless", "yaml": "pyyaml", "PIL": "pillow"}
_SYSTEM_PACKAGE_OF = {"libGL.so": "libgl1", "libgthread": "libglib2.0-0", "libgomp.so": "libgomp1",
                      "libquadmath.so": "libquadmath0"}

# The user's OMP_NUM_THREADS when gluon_ft was imported, '' if it was not set.
THREADS_OF_USER = os.environ.get("OMP_NUM_THREADS", "").strip()
# Whether MXNet was imported before gluon_ft and without OMP_NUM_THREADS: its number of threads is then fixed already.
THREADS_TOO_LATE = "mxnet" in sys.modules and not THREADS_OF_USER


# Variables that MXNet reads when it is imported; a value that it cannot read ends the process.
MOST_THREADS = 4096
_THREADS = """OMP_NUM_THREADS MXNET_CPU_WORKER_NTHREADS MXNET_GPU_WORKER_NTHREADS MXNET_CPU_PRIORITY_NTHREADS
MXNET_GPU_COPY_NTHREADS MXNET_MP_WORKER_NTHREADS MXNET_MP_OPENCV_NUM_THREADS MXNET_OMP_MAX_THREADS
MXNET_KVSTORE_REDUCTION_NTHREADS MXNET_CPU_TEMP_COPY MXNET_GPU_TEMP_COPY MXNET_CPU_PARALLEL_RAND_COPY
MXNET_GPU_PARALLEL_RAND_COPY""".split()
_NUMBERS = """MXNET_KVSTORE_BIGARRAY_BOUND MXNET_KVSTORE_SLICE_THRESHOLD MXNET_CPU_PARALLEL_SIZE
MXNET_EXEC_BULK_EXEC_MAX_NODE_TRAIN MXNET_EXEC_BULK_EXEC_MAX_NODE_TRAIN_FWD MXNET_EXEC_BULK_EXEC_MAX_NODE_TRAIN_BWD
MXNET_EXEC_INPLACE_GRAD_SUM_CAP MXNET_MKLDNN_CACHE_NUM DMLC_NUM_WORKER DMLC_NUM_SERVER DMLC_PS_ROOT_PORT""".split()
_FLAGS = """MXNET_EXEC_BULK_EXEC_TRAIN MXNET_EXEC_BULK_EXEC_INFERENCE MXNET_MKLDNN_ENABLED MXNET_BACKWARD_DO_MIRROR
MXNET_SAFE_ACCUMULATION MXNET_SUBGRAPH_VERBOSE MXNET_PROFILER_AUTOSTART MXNET_USE_FUSION MXNET_ENABLE_GPU_P2P
MXNET_EXEC_VERBOSE_LOGGING MXNET_ENFORCE_DETERMINISM MXNET_ELIMINATE_COMMON_EXPR MXNET_USE_MKLDNN_RNN
MXNET_KVSTORE_USETREE MXNET_KVSTORE_LOGTREE MXNET_CUDA_ALLOW_TENSOR_CORE MXNET_ENGINE_INFO
MXNET_MEM_PLAN_VERBOSE_LOGGING MXNET_STORAGE_FALLBACK_LOG_VERBOSE MXNET_INFER_STORAGE_TYPE_VERBOSE_LOGGING""".split()
_NAMES = {"MXNET_ENGINE_TYPE": ("NaiveEngine", "ThreadedEngine", "ThreadedEnginePerDevice"),
          "DMLC_ROLE": ("worker", "server", "scheduler")}


def set_threads() -> None:
    """Sets MXNet's number of threads to this process's share of the processors, unless the user has set it.

    MXNet reads `OMP_NUM_THREADS` once, when it is imported; without it, MXNet uses half the processors that it sees,
    and on virtual machines half the machine idles. The share is what affinity and the cgroup's CPU quota allow, divided
    by `GLUON_FT_PROCESSES_PER_MACHINE` (default 1): set that where several training processes share a machine. How long
    idle threads spin is set too.
    """
    if not os.environ.get("OMP_NUM_THREADS", "").strip():
        os.environ["OMP_NUM_THREADS"] = str(processors.threads())
    # A thread that has finished its share spins, 300,000 times by default, on a processor that another process may
    # need: beside one busy process LeNet then trains at a tenth of its speed. With 3,000 times it keeps nine tenths of
    # its speed when alone and half of it beside the other process (OMP_WAIT_POLICY=PASSIVE: half when alone;
    # benchmarks/speed/threads.py).
    if not os.environ.get("OMP_WAIT_POLICY"):
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")


def check_variables(variables: Mapping[str, str] = os.environ) -> None:
    """Raises ConfigError for the first variable whose value MXNet cannot read; an empty one counts as unset."""
    for name, expected, fits in [
            *((name, f"a whole number from 1 to {MOST_THREADS}", _is_threads) for name in _THREADS),
            *((name, "a whole number", _is_number) for name in _NUMBERS),
            *((name, "0 or 1", _is_flag) for name in _FLAGS),
            *((name, " or ".join(known), known.__contains__) for name, known in _NAMES.items())]:
        value = variables.get(name, "").strip()
        if value and not fits(value):
            raise ConfigError(f"the environment variable {name} cannot be read", expected=expected,
                              found=f"'{printable(value)}'", remedy="change it, or unset it")


def _is_threads(value: str) -> bool:
    return bool(re.fullmatch(r"[0-9]{1,4}", value)) and 1 <= int(value) <= MOST_THREADS


def _is_number(value: str) -> bool:
    return bool(re.fullmatch(r"-?[0-9]{1,9}", value))


def _is_flag(value: str) -> bool:
    return value.lower() in ("true", "false") or bool(re.fullmatch(r"[0-9]", value))


def fits(version: str, versions: Range) -> bool:
    """Whether a version such as '2.1.0' lies within a range."""
    return versions.oldest <= _numbers(version) < versions.too_new


def check_version(version: str, versions: Range) -> None:
    """Refuses a version of Python or NumPy that is too old or too new.

    Raises
    ------
    DependencyError
        It names the versions that fit.
    """
    if not fits(version, versions):
        age = "old" if _numbers(version) < versions.oldest else "new"
        raise DependencyError(f"this {versions.words.split()[0]} is too {age} for MXNet 1.9.1",
                              expected=versions.words, found=version, remedy=versions.remedy)


def which_mxnet() -> str:
    """One line for a user without MXNet: which of its two packages to install, and how on this Python."""
    # MXNet's metadata ask for NumPy below 2, which has no wheels for Python 3.13 and later.
    install = "pip install" if sys.version_info < (3, 13) else "pip install --no-deps"
    own = "; on this Python leave its own dependencies out, they ask for an older NumPy"
    folder = (" (or '.[cpu]' in gluon_ft's own folder)", " (or '.[cu112]')")
    return (f"MXNet is not installed; on a machine without a GPU: {install} mxnet==1.9.1"
            f"{folder[0] if install == 'pip install' else ''}; with an NVIDIA GPU: {install} "
            f"mxnet-cu112==1.9.1{folder[1] if install == 'pip install' else own}; there are two because mxnet and "
            "mxnet-cu112 install the same Python package 'mxnet', so that only you can say which one you need")


def _numbers(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def import_mxnet() -> types.ModuleType:
    """Imports MXNet; a plain `import mxnet` does the same.

    Raises
    ------
    DependencyError
        An ImportError. It says which of the two packages to install where MXNet is missing, which Python or NumPy fits
        where this one is too old or too new, or which system library is missing.
    ConfigError
        MXNet cannot read an environment variable; MXNet itself would end the process.
    """
    return importlib.import_module("mxnet")


class _Missing:
    """A loader for an MXNet that is not installed: its error says which of the two packages to install."""

    @staticmethod
    def create_module(spec):
        raise DependencyError(which_mxnet())

    @staticmethod
    def exec_module(module):
        raise DependencyError(which_mxnet())


class _MXNetLoader(importlib.machinery.SourceFileLoader):
    """Runs MXNet's `__init__` with every processor, and with what it needs of NumPy in place."""

    def exec_module(self, module):
        import numpy

        check_version(platform.python_version(), PYTHON)
        check_version(numpy.__version__, NUMPY)
        check_variables()
        set_threads()
        with _quiet():
            # NumPy 1.24 removed bool, int and float, which MXNet uses (apache/mxnet#21165); NumPy 2 removed many more.
            old_names.install()
            libraries.load(Path(self.path).parent)
            try:
                super().exec_module(module)
            except (ImportError, OSError) as error:
                raise DependencyError(f"MXNet cannot be imported: {error}", remedy=_remedy(error)) from error
            operator_code.finish()
            mxnet_fixes.apply(module)
        # oneDNN reads its variable once, when it runs its first operator, so this must be the first one. GLUON_FT_AMX=0
        # leaves AMX off.
        if os.environ.get("GLUON_FT_AMX") != "0":
            hardware.switch_on_tiles(
                lambda: module.nd.Activation(module.nd.ones((1, 1)), act_type="relu").wait_to_read())


def import_gluoncv() -> types.ModuleType:
    """Imports GluonCV and its `model_zoo`, also beside torch 2 or later; a plain `import gluoncv` does the same.

    Raises
    ------
    DependencyError
        An ImportError that names the dependency that is really missing; GluonCV itself reports each of them as
        "missing `mxnet` & `torch`".
    """
    if "gluoncv" not in sys.modules and _find("gluoncv") is None:
        raise DependencyError("GluonCV is not installed", remedy="pip install gluoncv==0.10.5.post0")
    module = importlib.import_module("gluoncv")
    importlib.import_module("gluoncv.model_zoo")
    return module


class _Finder:
    """A finder for `mxnet`, `gluoncv` and a few of their modules, which imports nothing until one is imported."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name not in _LOADERS:
            return None
        others = (f for f in sys.meta_path if f is not _Finder and hasattr(f, "find_spec"))
        spec = None
        with contextlib.suppress(ModuleNotFoundError):
            spec = next((s for s in (f.find_spec(name, path, target) for f in others) if s is not None), None)
        if spec is None:
            return importlib.machinery.ModuleSpec(name, cast(Any, _Missing)) if name == "mxnet" else None
        if type(spec.loader) is importlib.machinery.SourceFileLoader:
            spec.loader = _LOADERS[name](spec.loader.name, spec.loader.path)
        return spec


class _GluonCVLoader(importlib.machinery.SourceFileLoader):
    """Runs GluonCV's `__init__` as if torch were not installed, and names the import in it that really failed."""

    def exec_module(self, module):
        with _quiet(), _strict_images():
            old_names.install()
            # GluonCV's MXNet half needs no torch; its check refuses every torch from 2.0 on ("Legacy torch").
            check: Any = importlib.import_module("gluoncv.check")
            require_torch = check._require_pytorch_version
            check._require_pytorch_version = _no_torch
            try:
                super().exec_module(module)
            except ImportError as error:
                cause = _real_cause(error)
                _forget("gluoncv.")
                raise DependencyError(f"GluonCV cannot be imported: {cause}", remedy=_remedy(cause)) from cause
            finally:
                check._require_pytorch_version = require_torch
            mxnet_fixes.fork_workers(importlib.import_module("gluoncv.data.dataloader"))


_LOADERS = {**dict.fromkeys(deferred.MODULES, deferred.Loader),
            **dict.fromkeys(operator_code.MODULES, operator_code.Loader),
            "mxnet": _MXNetLoader, "gluoncv": _GluonCVLoader}


def _no_torch(*_versions):
    raise ImportError("GluonCV's torch half is not used")


def _real_cause(error: ImportError) -> ImportError:
    """The import error behind GluonCV's own, whose `__init__` hides it: found by importing GluonCV's parts again."""
    try:
        for part in ("data", "model_zoo", "nn", "utils", "loss"):
            importlib.import_module(f"gluoncv.{part}")
    except ImportError as cause:
        return cause
    return error


def _remedy(error: Exception) -> str | None:
    """What to install after a failed import; None where that is not known."""
    of_cuda = libraries.remedy_of(str(error))
    if of_cuda is not None:
        return of_cuda
    for library, package in _SYSTEM_PACKAGE_OF.items():
        if library in str(error):
            headless = ("pip uninstall opencv-python && pip install --force-reinstall opencv-python-headless, or "
                        if library in ("libGL.so", "libgthread") else "")
            return f"{headless}apt-get install {package}"
    missing = (getattr(error, "name", None) or "").split(".")[0]
    if isinstance(error, ModuleNotFoundError) and missing not in ("", "gluoncv", "mxnet"):
        return f"pip install {_PACKAGE_OF.get(missing, missing)}"
    return None


def _find(name: str):
    """The spec of a top-level module, None where there is none."""
    with contextlib.suppress(ImportError, ValueError):
        return importlib.util.find_spec(name)
    return None


@contextlib.contextmanager
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _strict_images():
    """Undoes what GluonCV's data/mhp.py does: it makes Pillow accept truncated images in the whole process."""
    try:
        from PIL import ImageFile
    except ImportError:
        yield
        return
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def _forget(prefix: str) -> None:
    for name in [m for m in sys.modules if m.startswith(prefix)]:
        del sys.modules[name]


if not any(getattr(f, "__module__", "") == __name__ for f in sys.meta_path):
    # It replaces the hook of start_up.py, whose only task is to load this module.
    sys.meta_path[:] = [_Finder, *(f for f in sys.meta_path if getattr(f, "__name__", "") != "_GluonFtHook")]
if THREADS_TOO_LATE and processors.seen_processors() // 2 < processors.threads():
    warnings.warn("mxnet was imported before gluon_ft and uses half the processors: import gluon_ft first, "
                  f"or set OMP_NUM_THREADS={processors.threads()}", RuntimeWarning, stacklevel=2)
