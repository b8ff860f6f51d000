"""libraries: NVIDIA's packages are loaded before mxnet-cu112, in order; and with mxnet for the CPU nothing is."""
from __future__ import annotations

import ctypes
import json
import os
import platform
import shutil
import subprocess
import sys

import mxnet as mx
import pytest
from conftest import HELPERS, ROOT

from gluon_ft.runtime import mxnet_import
from gluon_ft.runtime.gpu import libraries


@pytest.fixture
def loaded(monkeypatch):
    """What was given to the loader instead of being loaded, in order."""
    calls = []

    def load(name, mode=None):
        calls.append((name, mode))
        if "curand" in name:
            raise OSError(f"{name}: damaged")

    monkeypatch.setattr(libraries.ctypes, "CDLL", load)
    return calls


def environment(folder, package, without=()):
    """Folders as pip makes them: MXNet, what it calls itself, and NVIDIA's packages."""
    for path in (folder / "mxnet", folder / f"{package}-1.9.1.dist-info"):
        path.mkdir(parents=True)
    for library in libraries.LIBRARIES:
        if library.soname not in without:
            path = folder / "nvidia" / library.folder / "lib" / library.soname
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return folder / "mxnet"


def test_all_are_loaded_for_everybody_each_after_those_that_it_needs(loaded, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    libraries.load(environment(tmp_path, "mxnet_cu112", without=["libnccl.so.2"]))
    assert {mode for _, mode in loaded} == {ctypes.RTLD_GLOBAL}
    names = [os.path.basename(name) for name, _ in loaded]
    assert names == [library.soname for library in libraries.LIBRARIES if library.soname != "libnccl.so.2"]
    for first, then in (("libcudart.so.11.0", "libcublas.so.11"), ("libcublasLt.so.11", "libcublas.so.11"),
                        ("libcublas.so.11", "libcudnn.so.8"), ("libcusparse.so.11", "libcusolver.so.11")):
        assert names.index(first) < names.index(then)


def test_nothing_is_loaded_for_mxnet_on_the_cpu(loaded, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    libraries.load(environment(tmp_path, "mxnet"))
    libraries.load(tmp_path / "nowhere" / "mxnet")
    assert loaded == []
    cuda = mx.runtime.Features().is_enabled("CUDA")
    assert libraries.needs_cuda(os.path.dirname(mx.__file__)) is cuda


@pytest.mark.parametrize(("words", "remedy"), [
    ("libcudnn.so.8: cannot open shared object file: No such file or directory", "pip install 'nvidia-cudnn-cu11<9'"),
    ("libcufft.so.10: cannot open shared object file", "pip install 'nvidia-cufft-cu11'"),
    ("libcuda.so.1: cannot open shared object file", "install NVIDIA's driver; on a machine without a GPU: pip "
     "uninstall mxnet-cu112, and pip install mxnet==1.9.1")])
def test_what_to_do_about_a_library_that_mxnet_lacks(words, remedy):
    assert mxnet_import._remedy(OSError(words)) == remedy


def test_the_extra_brings_every_package():
    text = (ROOT / "setup.py").read_text(encoding="utf-8")
    for package in {library.package for library in libraries.LIBRARIES}:
        assert f'("{package[len("nvidia-"):-len("-cu11")]}", ">=' in text


NEEDED = 12e9  # bytes of disk for the environment and pip's own copies


def python_with_cu112(folder):
    """Python of an environment with `.[cu112]`: that in GLUON_FT_CU112_ENV, or a new one (3 GB are fetched)."""
    ready = os.environ.get("GLUON_FT_CU112_ENV")
    if ready:
        return f"{ready}/bin/python"
    if shutil.disk_usage(folder).free < NEEDED:
        pytest.skip("less than 12 GB of disk are free")
    source, python = folder / "source", folder / "env" / "bin" / "python"
    shutil.copytree(ROOT / "gluon_ft", source / "gluon_ft", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    subprocess.run([sys.executable, "-m", "venv", folder / "env"], check=True)
    done = subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-cache-dir", f"{source}[cu112]"],
                          capture_output=True, text=True, check=False)
    if done.returncode and any(word in done.stderr for word in ("onnection", "No matching distribution", "timed out")):
        pytest.skip(f"the packages cannot be fetched: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return str(python)


@pytest.mark.slow
@pytest.mark.skipif((sys.platform, platform.machine()) != ("linux", "x86_64") or sys.version_info >= (3, 13),
                    reason="NVIDIA's packages are for Linux on x86_64, and pip takes mxnet-cu112 up to Python 3.12")
@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.skipif(os.path.exists("/proc/driver/nvidia/version"), reason="there is a real driver")
def test_mxnet_cu112_computes_without_a_cuda_installation(tmp_path):
    python, driver = python_with_cu112(tmp_path), tmp_path / libraries.DRIVER
    clean = {name: value for name, value in os.environ.items() if name not in ("LD_LIBRARY_PATH", "LD_PRELOAD")}
    clean["PYTHONPATH"] = str(ROOT)

    def run(*arguments, **more):
        return subprocess.run([python, *map(str, arguments)], capture_output=True, text=True, check=False,
                              env={**clean, **more}, cwd=tmp_path)

    without = run("-c", "import gluon_ft, mxnet")
    assert without.returncode and "libcuda.so.1: cannot open shared object file" in without.stderr
    assert "install NVIDIA's driver; on a machine without a GPU: pip uninstall mxnet-cu112" in without.stderr
    subprocess.run(["cc", "-shared", "-fPIC", f"-Wl,-soname,{driver.name}", "-o", driver, HELPERS / "no_driver.c"],
                   check=True)
    plain = run("-c", "import ctypes, sys; ctypes.CDLL(sys.argv[1], mode=ctypes.RTLD_GLOBAL); import mxnet", driver,
                GLUON_FT_NO_HOOK="1")
    assert plain.returncode and "cannot open shared object file" in plain.stderr  # nobody else loads the libraries
    done = run(HELPERS / "cu112_child.py", driver)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["features"] == {"CUDA": True, "CUDNN": True, "NCCL": True}
    assert (found["gpus"], found["auto"], found["sum"]) == (0, "cpu", 9.0)
    assert set(found["mapped"]) >= {library.soname for library in libraries.LIBRARIES}
    levels = {name: level for name, _, level in found["findings"]}
    assert {levels[library.soname] for library in libraries.LIBRARIES} == {"ok"}
    assert (levels["libcuda.so.1"], levels["driver"], levels["training step"]) == ("ok", "hint", "ok")
