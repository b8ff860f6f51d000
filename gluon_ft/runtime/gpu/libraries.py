"""Loads the libraries that mxnet-cu112 1.9.1 is linked with from NVIDIA's Python packages, before MXNet is imported.

The extra `cu112` brings these packages, so that a GPU needs NVIDIA's driver and nothing else: no CUDA installation, no
LD_LIBRARY_PATH. A library that is already in the process is the one that MXNet gets, whatever the loader's path.
"""
from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from pathlib import Path
from typing import NamedTuple

DRIVER = "libcuda.so.1"  # comes with NVIDIA's driver, not with a package


class Library(NamedTuple):
    """A shared library: its name for the loader, the folder of `nvidia` that it lies in, and what brings it."""

    soname: str
    folder: str
    package: str


def _libraries(*rows: tuple[str, str, str]) -> tuple[Library, ...]:
    return tuple(Library(soname, folder, f"nvidia-{name}-cu11") for folder, name, sonames in rows
                 for soname in sonames.split())


# In the order of loading: each after those that it needs. cuDNN opens its parts by name when they are first used.
LIBRARIES = _libraries(
    ("cuda_runtime", "cuda-runtime", "libcudart.so.11.0"), ("cuda_nvrtc", "cuda-nvrtc", "libnvrtc.so.11.2"),
    ("nvtx", "nvtx", "libnvToolsExt.so.1"), ("cublas", "cublas", "libcublasLt.so.11 libcublas.so.11"),
    ("cudnn", "cudnn", "libcudnn.so.8 libcudnn_ops_infer.so.8 libcudnn_cnn_infer.so.8 libcudnn_adv_infer.so.8 "
                       "libcudnn_ops_train.so.8 libcudnn_cnn_train.so.8 libcudnn_adv_train.so.8"),
    ("cufft", "cufft", "libcufft.so.10"), ("curand", "curand", "libcurand.so.10"),
    ("cusparse", "cusparse", "libcusparse.so.11"), ("cusolver", "cusolver", "libcusolver.so.11"),
    ("nccl", "nccl", "libnccl.so.2"))


def needs_cuda(mxnet_folder: str | os.PathLike) -> bool:
    """Whether the MXNet in this folder is mxnet-cu112: its package says so beside it."""
    try:
        names = os.listdir(Path(mxnet_folder).parent)
    except OSError:
        return False
    return any(name.startswith("mxnet_cu") and name.endswith(".dist-info") for name in names)


def file_of(library: Library) -> Path | None:
    """The library's file in NVIDIA's package; None where that is not installed."""
    for entry in sys.path:
        path = Path(entry or ".", "nvidia", library.folder, "lib", library.soname)
        if path.is_file():
            return path
    return None


def load(mxnet_folder: str | os.PathLike) -> None:
    """Loads what of `LIBRARIES` is in NVIDIA's packages, where the MXNet in this folder needs it; else does nothing.

    A library without its package is left to the system's loader, as with a CUDA installation. One that cannot be loaded
    is passed over: importing MXNet then says which.
    """
    if not needs_cuda(mxnet_folder):
        return
    for library in LIBRARIES:
        path = file_of(library)
        if path is not None:
            with contextlib.suppress(OSError):
                ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)


def where(library: Library) -> str:
    """The package's version, or 'of the system', of a library that can be loaded.

    Raises
    ------
    OSError
        It cannot; the text is the loader's.
    """
    path = file_of(library)
    ctypes.CDLL(library.soname if path is None else str(path), mode=ctypes.RTLD_GLOBAL)
    if path is None:
        return "of the system"
    from importlib import metadata

    with contextlib.suppress(metadata.PackageNotFoundError):
        return f"{library.package} {metadata.version(library.package)}"
    return str(path)


def remedy_of(text: str) -> str | None:
    """What to do about the loader's words for a library that MXNet lacks; None where they name none of these."""
    if DRIVER in text:
        return ("install NVIDIA's driver; on a machine without a GPU: pip uninstall mxnet-cu112, and pip install "
                "mxnet==1.9.1")
    for library in LIBRARIES:
        if library.soname in text:
            return f"pip install '{library.package}{'<9' if library.folder == 'cudnn' else ''}'"
    return None
