"""`gluon-ft doctor`: what is installed, what this machine offers, what is missing, and what to do about it."""
from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from gluon_ft.errors import ConfigError
from gluon_ft.io import paths
from gluon_ft.runtime import hardware, mxnet_import, processors
from gluon_ft.runtime.gpu import cards, libraries

LEVELS = ("ok", "hint", "problem")
LEAST_FREE_GB = 2.0
_REQUIRED = ("click", "filelock", "imagehash", "jinja2", "matplotlib", "pillow", "pooch", "requests", "safetensors",
             "scikit-learn", "scipy", "threadpoolctl", "tqdm", "urllib3")
_OPENCV = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Parameters
    ----------
    topic : str
        Heading under which the line is shown.
    name : str
    value : str, number, bool, list or None
        None: not there.
    level : str
        'ok', 'hint' (it works but could be better, or it is optional) or 'problem' (prevents use).
    remedy : str, optional
        What to do; None where there is nothing to do.
    """

    topic: str
    name: str
    value: object
    level: str = "ok"
    remedy: str | None = None


def examine() -> list[Finding]:
    """Examines this Python environment and machine; changes nothing, downloads nothing."""
    parts = (_python, _packages, _opencv, _cuda, _mxnet, _gluoncv, _processors, _gpus, _cache, _optional)
    return [finding for part in parts for finding in part()]


def as_dict(findings: list[Finding]) -> dict:
    """`{"usable": bool, "problems": n, "hints": n, "findings": [{topic, name, value, level, remedy}, ...]}`."""
    counts = {level: sum(f.level == level for f in findings) for level in LEVELS}
    return {"usable": counts["problem"] == 0, "problems": counts["problem"], "hints": counts["hint"],
            "findings": [asdict(f) for f in findings]}


def as_text(findings: list[Finding]) -> str:
    """The findings by topic as aligned text, then the remedies of problems and hints, then the verdict."""
    width = max(len(f.name) for f in findings)
    lines = []
    for topic in dict.fromkeys(f.topic for f in findings):
        lines += [topic] + [f"  {_MARKS[f.level]} {f.name.ljust(width)}  {_shown(f.value)}".rstrip()
                            for f in findings if f.topic == topic] + [""]
    for level, title in (("problem", "to put right"), ("hint", "worth knowing")):
        advised = [f for f in findings if f.level == level and f.remedy]
        if advised:
            lines += [title] + [f"  {_MARKS[level]} {f.name.ljust(width)}  {f.remedy}" for f in advised] + [""]
    problems = sum(f.level == "problem" for f in findings)
    lines.append("gluon_ft can be used" if not problems else
                 f"gluon_ft cannot be used as it should: {problems} problem{'s' if problems > 1 else ''}")
    return "\n".join(lines)


_MARKS = {"ok": " ", "hint": "-", "problem": "!"}


def _shown(value: object) -> str:
    if value is None:
        return "not there"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _python() -> Iterator[Finding]:
    python = platform.python_version()
    fits = mxnet_import.fits(python, mxnet_import.PYTHON)
    yield Finding("versions", "python", python, "ok" if fits else "problem",
                  None if fits else f"{mxnet_import.PYTHON.words} fit: {mxnet_import.PYTHON.remedy}")
    yield Finding("versions", "gluon-ft", _version("gluon-ft"))
    numpy = _version("numpy")
    fits = numpy is not None and mxnet_import.fits(numpy, mxnet_import.NUMPY)
    yield Finding("versions", "numpy", numpy, "ok" if fits else "problem", None if fits else mxnet_import.NUMPY.remedy)


def _packages() -> Iterator[Finding]:
    for package in _REQUIRED:
        version = _version(package)
        yield Finding("versions", package, version, "ok" if version else "problem",
                      None if version else f"pip install {package}")


def _opencv() -> Iterator[Finding]:
    installed = {name: version for name in _OPENCV if (version := _version(name))}
    try:
        importlib.import_module("cv2")
        failure = None
    except (ImportError, OSError, AttributeError) as error:
        failure = str(error)
    value = [f"{name} {version}" for name, version in installed.items()] or None
    if failure is None:
        several = len(installed) > 1
        yield Finding("versions", "opencv", value or "cv2 without a package", "hint" if several else "ok",
                      f"these overwrite each other's module cv2; keep one: {_reinstall_opencv()}" if several else None)
    elif installed:
        library = ", or apt-get install libgl1 libglib2.0-0" if "libGL" in failure or "libgthread" in failure else ""
        yield Finding("versions", "opencv", value, "problem", f"{failure}; {_reinstall_opencv()}{library}")
    else:
        yield Finding("versions", "opencv", None, "problem", f"pip install {_right_opencv()}")


def _right_opencv() -> str:
    """What to install: OpenCV 4.12 and later ask for NumPy 2."""
    return f"'opencv-python-headless<{'4.12' if (_version('numpy') or '').startswith('1.') else '5'}'"


def _reinstall_opencv() -> str:
    return ("pip uninstall opencv-python opencv-contrib-python && "
            f"pip install --force-reinstall --no-deps {_right_opencv()}")


def _mxnet() -> Iterator[Finding]:
    installed = {name: version for name in ("mxnet", "mxnet-cu112") if (version := _version(name))}
    value = [f"{name} {version}" for name, version in installed.items()] or None
    if len(installed) > 1:
        yield Finding("mxnet", "package", value, "problem",
                      "both install the same package 'mxnet', the later one wins: pip uninstall mxnet mxnet-cu112, "
                      "then pip install the one that you need")
        return
    try:
        from gluon_ft.runtime import mxnet_import

        mx = mxnet_import.import_mxnet()
    except (ImportError, ConfigError) as error:
        yield Finding("mxnet", "package", value, "problem", str(error))
        return
    yield Finding("mxnet", "package", value or f"mxnet {mx.__version__}, of unknown origin")
    features = sorted(f.name for f in mx.runtime.Features().values() if f.enabled)
    slow = "MKLDNN" not in features
    yield Finding("mxnet", "features", features, "hint" if slow else "ok",
                  "built without oneDNN (MKLDNN), training on the CPU crawls: install mxnet==1.9.1" if slow else None)
    yield _training_step(mx)


def _training_step(mx) -> Finding:
    """Checks that the installed MXNet computes correctly: a convolution, its gradient and an update on the CPU."""
    start = time.perf_counter()
    try:
        with mx.cpu():
            weight = mx.nd.ones((4, 3, 3, 3))
            weight.attach_grad()
            with mx.autograd.record():
                loss = mx.nd.Convolution(mx.nd.ones((2, 3, 8, 8)), weight, kernel=(3, 3), num_filter=4,
                                         no_bias=True).sum()
            loss.backward()
            mx.nd.sgd_update(weight, weight.grad, lr=0.01, out=weight)
            # 2 images x 6 x 6 positions, every input 1: each gradient is 72.
            right = abs(float(weight.mean().asscalar()) - (1 - 0.01 * 72)) < 1e-5
    except mx.base.MXNetError as error:
        return Finding("mxnet", "training step", str(error).splitlines()[0], "problem", "install MXNet afresh")
    taken = f"right, {time.perf_counter() - start:.3f} s"
    return Finding("mxnet", "training step", taken if right else "wrong numbers", "ok" if right else "problem",
                   None if right else "install MXNet afresh")


def _gluoncv() -> Iterator[Finding]:
    installed = _version("gluoncv")
    if "mxnet" not in sys.modules:
        yield Finding("mxnet", "gluoncv", installed, "hint", "not tried, as MXNet is not there")
        return
    try:
        from gluon_ft.runtime import mxnet_import

        gluoncv = mxnet_import.import_gluoncv()
    except ImportError as error:
        yield Finding("mxnet", "gluoncv", installed, "problem", str(error))
        return
    own = gluoncv.__version__
    yield Finding("mxnet", "gluoncv", installed if own == installed else f"{installed}, which calls itself {own}")


def _processors() -> Iterator[Finding]:
    usable, quota = processors.usable_processors(), processors.cpu_quota()
    yield Finding("processors", "seen", processors.seen_processors())
    yield Finding("processors", "usable", usable if quota is None else f"{usable} (quota {quota:g})")
    share = processors.processes_per_machine()
    if share > 1:
        yield Finding("processors", "processes", f"{share} ({processors.PROCESSES_VARIABLE})")
    yield _threads(processors.threads())
    flags = hardware.bfloat16_flags()
    yield Finding("processors", "bfloat16", flags or "no, so that bfloat16 is slower than float32 here")


def _threads(best: int) -> Finding:
    mxnet_import = sys.modules.get("gluon_ft.runtime.mxnet_import")
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if mxnet_import is None:
        return Finding("processors", "OMP_NUM_THREADS", threads or "unset, as MXNet is not loaded")
    if mxnet_import.THREADS_TOO_LATE:
        return Finding("processors", "OMP_NUM_THREADS", "MXNet was imported before it was set", "hint",
                       f"MXNet uses half the processors: import gluon_ft first, or set OMP_NUM_THREADS={best}")
    if not mxnet_import.THREADS_OF_USER:
        return Finding("processors", "OMP_NUM_THREADS", f"{threads}, set by gluon_ft")
    fits = threads == str(best)
    return Finding("processors", "OMP_NUM_THREADS", f"{threads}, set by you", "ok" if fits else "hint",
                   None if fits else f"{best} would use what this process may use; unset it, and gluon_ft sets it")


def _cuda() -> Iterator[Finding]:
    """Where mxnet-cu112 is installed: each library that it needs, and NVIDIA's driver."""
    if _version("mxnet-cu112") is None:
        return
    for library in libraries.LIBRARIES:
        yield _library(library.soname, lambda library=library: libraries.where(library))
    yield _library(libraries.DRIVER, lambda: str(ctypes.CDLL(libraries.DRIVER) and "of the driver"))
    version = cards.driver_version()
    old = None if version is None else cards.old_driver(version)
    yield Finding("cuda", "driver", version, "hint" if version is None or old else "ok",
                  "install NVIDIA's driver, without which nothing but the CPU computes" if version is None else
                  old and f"{old}; update it, or {cards.INSTEAD}")


def _library(name, load) -> Finding:
    try:
        return Finding("cuda", name, load())
    except OSError as error:
        return Finding("cuda", name, None, "problem", f"{libraries.remedy_of(name)} ({error})")


def _gpus() -> Iterator[Finding]:
    mx = sys.modules.get("mxnet")
    gpus = cards.visible() or cards.nvidia_gpus()
    count = _mxnet_gpus(mx)
    yield Finding("devices", "GPUs", f"{count} for MXNet, {len(gpus)} seen by NVIDIA's driver")
    with_cuda = mx is not None and mx.runtime.Features().is_enabled("CUDA")
    for number, gpu in enumerate(gpus):
        capability = "not told" if gpu["capability"] is None else "{}.{}".format(*gpu["capability"])
        about = f"{gpu['name']}, {gpu['memory_mib']} MiB, compute capability {capability}, driver {gpu['driver']}"
        obstacle = cards.gpu_obstacle(gpu)
        if obstacle:
            # The CPU still works, so nothing prevents use.
            yield Finding("devices", f"gpu {number}", about, "hint", f"{obstacle}; {cards.INSTEAD}")
        elif not with_cuda:
            yield Finding("devices", f"gpu {number}", about, "hint", "the mxnet here is the one for the CPU: "
                          "pip uninstall mxnet && pip install '.[cu112]' (in gluon_ft's folder)")
        else:
            yield Finding("devices", f"gpu {number}", about)
    if with_cuda and not count:
        yield Finding("devices", "cuda", "mxnet-cu112 finds no GPU", "hint",
                      "training runs on the CPU; without a GPU, pip uninstall mxnet-cu112 && pip install mxnet==1.9.1")


def _mxnet_gpus(mx) -> int:
    if mx is None:
        return 0
    try:
        return mx.context.num_gpus()
    except mx.base.MXNetError:
        return 0


def _cache() -> Iterator[Finding]:
    home = paths.home_folder()
    existing = next(p for p in (home, *home.parents) if p.exists())
    # The kernel's own file systems (/proc, /sys) have no room, and root may "write" there all the same.
    writable = existing.is_dir() and os.access(existing, os.W_OK | os.X_OK) and shutil.disk_usage(existing).total > 0
    yield Finding("cache", "folder", str(home), "ok" if writable else "problem",
                  None if writable else f"{existing} is not a folder that you may write to; set {paths.HOME_VARIABLE}")
    free = shutil.disk_usage(existing if existing.is_dir() else Path(existing).parent).free / 1e9
    enough = free >= LEAST_FREE_GB
    yield Finding("cache", "free disk", f"{free:.1f} GB", "ok" if enough else "hint",
                  None if enough else f"weights and data need some GB; set {paths.HOME_VARIABLE} to a bigger disk")


def _optional() -> Iterator[Finding]:
    export = "pip install 'onnx<1.19' onnxruntime"
    onnx = _version("onnx")
    newest = onnx is None or tuple(int(p) for p in onnx.split(".")[:2] if p.isdecimal()) < (1, 19)
    yield Finding("optional", "onnx", onnx, "ok" if onnx and newest else "hint",
                  f"for export to ONNX: {export}" if onnx is None else
                  None if newest else "mxnet.onnx needs onnx.mapping, gone since 1.19: pip install 'onnx<1.19'")
    runtime = _version("onnxruntime")
    yield Finding("optional", "onnxruntime", runtime, "ok" if runtime else "hint",
                  None if runtime else f"to check an exported model: {export}")
    heif = _version("pillow-heif")
    yield Finding("optional", "pillow-heif", heif, "ok" if heif else "hint",
                  None if heif else "to read phones' HEIC photos: pip install pillow-heif")
    # Never needed, since weights are read without torch; shown because GluonCV by itself refuses versions from 2 on.
    yield Finding("optional", "torch", _version("torch") or "not there, not needed")
