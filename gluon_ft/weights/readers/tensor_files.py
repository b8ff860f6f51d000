"""Reads the tensors of a weights file in any known format, recognised by content. No code in the file is run."""
from __future__ import annotations

import contextlib
import os
import pickle
import stat
import struct
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gluon_ft.errors import WeightsError, printable
from gluon_ft.io.checksums import sha256_of
from gluon_ft.weights.readers.checkpoint_layout import find_state, without_prefixes
from gluon_ft.weights.readers.params_files import LIST_MAGIC, read_params
from gluon_ft.weights.readers.safetensors_files import is_safetensors, read_safetensors, write_safetensors
from gluon_ft.weights.readers.strided_tensors import Tensor, check_copies, mapped
from gluon_ft.weights.readers.torch_files import TorchFile, read_torch_legacy, read_torch_zip

__all__ = ["TensorFile", "check_finite", "read_tensors", "write_safetensors"]

DAMAGED = "fetch the file again and compare its SHA-256 with the published one"
# First bytes of files that are given by mistake, what they are, and the remedy.
_OTHERS = (
    (b"version https://git-lfs", "this is a Git LFS pointer, not the file itself", "fetch it with: git lfs pull"),
    (b"<!doctype html", "this is a web page, not the file", "fetch the file from the address that the page links"),
    (b"<html", "this is a web page, not the file", "fetch the file from the address that the page links"),
    (b"<?xml", "this is an XML document, probably a server's error message", "fetch the file again"),
    (b"\x89hdf\r\n", "this is an HDF5 file (Keras)", "save the weights as safetensors"),
    (b"\x1f\x8b", "this is a gzip archive", "unpack it first"),
    (b"\x93numpy", "this is a single NumPy array", "save the weights as safetensors"),
    (b"{", "this is a JSON text, perhaps an MXNet symbol", "give the .params file beside it"),
)


@dataclass(frozen=True)
class TensorFile:
    """The tensors of a file.

    Parameters
    ----------
    path : Path
    format : str
        'torch zip', 'torch legacy', 'safetensors' or 'mxnet params'.
    tensors : dict
        Name -> C-contiguous array, in the file's order; dtypes as stored, but bfloat16 as float32.
    sha256 : str
        Of the whole file, in hexadecimal.
    key : str
        The checkpoint's key that held the tensors ('state_dict', 'model.net'), '' for none.
    prefix : str
        The prefix removed from every name ('module.' of DataParallel), '' for none.
    metadata : dict
        Small values beside the tensors (epoch, best accuracy, class names), or the safetensors header's metadata.
    auxiliary : tuple of str
        Names marked 'aux:' in an MXNet file (BatchNorm's running statistics).
    """

    path: Path
    format: str
    tensors: dict[str, np.ndarray]
    sha256: str
    key: str = ""
    prefix: str = ""
    metadata: dict = field(default_factory=dict)
    auxiliary: tuple[str, ...] = ()


def read_tensors(path: str | os.PathLike, key: str | None = None) -> TensorFile:
    """Reads the tensors in a PyTorch (zip or older), safetensors or MXNet .params file.

    Parameters
    ----------
    path : path-like
    key : str, optional
        For PyTorch checkpoints: the dotted key of the state dict to take; default: the usual ones
        (`checkpoint_layout.USUAL_KEYS`).

    Raises
    ------
    WeightsError
        The file is missing, damaged, of another kind, or asks for more than tensors; no other error is raised. Reading
        takes memory for the tensors that it returns; a refused file costs under a second and 200 MB.
    """
    path = Path(path)
    with refusing(path):
        data = _mapped(path)
        kind = _recognised(data)
        if key is not None and not kind.startswith("torch"):
            raise WeightsError(f"a {kind} file has no keys to choose from", remedy="leave the key out")
        if kind == "safetensors":
            tensors, metadata = read_safetensors(path, data)
            tensors, prefix = without_prefixes(tensors)
            found = {"tensors": tensors, "prefix": prefix, "metadata": metadata}
        elif kind == "mxnet params":
            tensors, auxiliary = read_params(data)
            found = {"tensors": tensors, "auxiliary": tuple(auxiliary)}
        else:
            found = _from_torch(read_torch_zip(path, data) if kind == "torch zip" else read_torch_legacy(data), key,
                                len(data))
        if not found["tensors"]:
            raise WeightsError("the file holds no tensors", remedy="give a file of network weights")
        return TensorFile(path, kind, sha256=sha256_of(path), **found)


def check_finite(tensors: Mapping[str, np.ndarray], path: str | os.PathLike | None = None) -> None:
    """Checks that parameters are finite, and variances not negative.

    Parameters
    ----------
    tensors : mapping of str to ndarray
        Parameters by name; names that end in 'running_var' or 'moving_var' are variances.
    path : path-like, optional
        The file that they come from, for the error.

    Raises
    ------
    WeightsError
        A parameter holds NaN or infinity, or a variance is negative.
    """
    for name, tensor in tensors.items():
        if tensor.dtype.kind != "f":
            continue
        finite = np.isfinite(tensor)
        if not finite.all():
            raise WeightsError(f"parameter '{printable(name)}' is not finite", path=path, expected="numbers",
                               found=f"NaN or infinity in {finite.size - np.count_nonzero(finite)} of {finite.size}",
                               remedy="take other weights: these were spoilt in training or on the way")
        if name.endswith(("running_var", "moving_var")) and tensor.size and tensor.min() < 0:
            raise WeightsError(f"parameter '{printable(name)}' is a variance below 0", path=path,
                               expected="0 or more", found=f"{tensor.min():g}", remedy="take other weights")


@contextlib.contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Turns every error that a damaged or hostile file can cause in the block into a WeightsError with `path`.

    The readers check what they use. This catches the rest: bytes that are not UTF-8, a tuple in place of a number, an
    empty stack.
    """
    try:
        yield
    except WeightsError as error:
        if error.path is not None:
            raise
        raise error.at(path, DAMAGED) from error.__cause__
    except MemoryError as error:
        raise WeightsError("there is not enough memory to read it", path=path,
                           remedy="close other programs, or read it on a larger machine") from error
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, struct.error, RecursionError, EOFError,
            pickle.UnpicklingError, zipfile.BadZipFile, NotImplementedError) as error:
        raise WeightsError(f"the file is damaged ({type(error).__name__}: {printable(str(error))})", path=path,
                           remedy=DAMAGED) from error


def _mapped(path: Path) -> memoryview:
    try:
        # A pipe or a device could make the reader wait for ever.
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise WeightsError("not a file", remedy="give the path of a file of weights")
        if not status.st_size:
            raise WeightsError("the file is empty", remedy=DAMAGED)
        return mapped(path)
    except OSError as error:
        raise WeightsError(f"cannot be read: {error.strerror or error}", remedy="check the path") from error


def _recognised(data) -> str:
    head = bytes(data[:512])
    if head.startswith(b"PK\3\4"):
        return "torch zip"
    if len(head) >= 8 and struct.unpack_from("<Q", head)[0] == LIST_MAGIC:
        return "mxnet params"
    if is_safetensors(data):
        return "safetensors"
    if head[257:262] == b"ustar" or head.startswith(b"sys_info\0"):
        raise WeightsError("a tar archive, the format of PyTorch before 0.1.10, which is not supported",
                           remedy="load it with torch and save its state dict again")
    for start, what, remedy in _OTHERS:
        if head.lower().startswith(start):
            raise WeightsError(what, remedy=remedy)
    if head.startswith(pickle.PROTO):
        return "torch legacy"
    raise WeightsError("not a file of weights that is known here",
                       expected="PyTorch (.pth), safetensors, or MXNet (.params)",
                       found="a TFLite model" if head[4:8] == b"TFL3" else f"bytes {head[:8].hex(' ')}",
                       remedy="convert it to one of these")


def _from_torch(file: TorchFile, key: str | None, size: int) -> dict:
    layout = find_state(file.content, key)
    metadata = dict(layout.metadata)
    lone = {name: value for name, value in metadata.items() if isinstance(value, Tensor)}
    check_copies([t for t in (*layout.tensors.values(), *lone.values()) if isinstance(t, Tensor)], size)
    metadata.update({name: file.read(value).item() for name, value in lone.items()})
    tensors = {name: file.read(value) if isinstance(value, Tensor) else value.array
               for name, value in layout.tensors.items()}
    return {"tensors": tensors, "key": layout.key, "prefix": layout.prefix, "metadata": metadata}
