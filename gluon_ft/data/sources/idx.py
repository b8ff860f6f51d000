"""Reads IDX files, MNIST's format, gzipped or not.

The format, as described on MNIST's own page: two zero bytes, a type code, the number of dimensions, each dimension as
a big-endian 32-bit number, then the values, big-endian, with the last dimension varying fastest.
"""
from __future__ import annotations

import contextlib
import gzip
import io
import math
import os
import stat
import zlib
from pathlib import Path

import numpy as np

from gluon_ft.errors import DataError
from gluon_ft.io.paths import AnyPath

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
MAX_BYTES = 1 << 30  # of unpacked values; EMNIST's largest file has 0.55e9
MAX_DIMENSIONS = 8
CHUNK = 1 << 20

PARTS = {"train": "train", "test": "t10k"}  # MNIST calls its test part t10k
REMEDY = "fetch the file again"


def read(path: AnyPath, *, limit: int = MAX_BYTES) -> np.ndarray:
    """Reads an IDX file into an array in the machine's byte order.

    A gzipped file is recognised by its first bytes, not by its name.

    Parameters
    ----------
    path : path-like
    limit : int
        Most bytes of values to accept; a larger file is refused before it is unpacked.

    Raises
    ------
    DataError
        The file does not exist; is not IDX (first bytes, type code, dimensions); has no values, or more than `limit`
        bytes; has fewer or more bytes than its header says; or is a damaged or truncated gzip file.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise DataError("not a file", path=path, expected="an IDX file", found="a folder, a device or a pipe")
        with open(path, "rb") as file:
            first = file.read(4)
            file.seek(0)
            zipped = first[:2] == b"\x1f\x8b"
            if zipped and first[3:] > b"\x1f":
                # Forbidden by RFC 1952, 2.3.1.2; Python's gzip accepts them.
                raise gzip.BadGzipFile("reserved flags are set")
            stream = gzip.GzipFile(fileobj=file) if zipped else file
            # With the size, a file that is too short or too long is refused before it is read.
            size = None if zipped else os.fstat(file.fileno()).st_size
            return _parse(stream, path, limit, size)
    except FileNotFoundError:
        raise DataError("no such file", path=path, expected="an IDX file") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError("damaged gzip stream", path=path, expected="a whole gzip file", found=str(error),
                        remedy=REMEDY) from None
    except OSError as error:
        raise DataError("file cannot be read", path=path, found=error.strerror or str(error)) from error


def _parse(stream: io.BufferedIOBase, path, limit: int, size: int | None) -> np.ndarray:
    magic = _read_up_to(stream, 4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in TYPES or not 1 <= magic[3] <= MAX_DIMENSIONS:
        raise DataError("not an IDX file", path=path, found=f"0x{magic.hex()}" if magic else "an empty file",
                        expected="0x0000, a type code from 0x08 to 0x0e, and 1 to 8 dimensions", remedy=REMEDY)
    dtype, dimensions = np.dtype(TYPES[magic[2]]), magic[3]
    header = _read_up_to(stream, 4 * dimensions)
    if len(header) < 4 * dimensions:
        raise DataError("IDX header is cut short", path=path, expected=f"{4 + 4 * dimensions} bytes of header",
                        found=f"{4 + len(header)}", remedy=REMEDY)
    shape = tuple(int.from_bytes(header[i:i + 4], "big") for i in range(0, len(header), 4))
    # Python's integers, because NumPy's would overflow.
    expected = math.prod(shape) * dtype.itemsize
    what = f"{expected} bytes of values for {shape} of {dtype.name}"
    if expected == 0:
        raise DataError("IDX file without values", path=path, expected="every dimension above 0", found=shape)
    if expected > limit:
        raise DataError("IDX file is too large", path=path, expected=f"at most {limit} bytes of values", found=what)
    found = None if size is None else size - 4 - len(header)
    if found in (None, expected):
        values = _read_up_to(stream, expected + 1)
        found = len(values)
    if found < expected:
        raise DataError("IDX file is cut short", path=path, expected=what, found=found, remedy=REMEDY)
    if found > expected:
        raise DataError("IDX file has bytes after its values", path=path, expected=what,
                        found="more" if size is None else found, remedy=REMEDY)
    return np.frombuffer(values, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def _read_up_to(stream: io.BufferedIOBase, count: int) -> bytearray:
    """Reads up to `count` bytes in chunks, so that a false header cannot make us allocate too much memory."""
    data = bytearray()
    while len(data) < count:
        chunk = stream.read(min(CHUNK, count - len(data)))
        if not chunk:
            break
        data += chunk
    return data


def read_pair(images: AnyPath, labels: AnyPath) -> tuple[np.ndarray, np.ndarray]:
    """Reads the images and labels of two IDX files.

    Returns
    -------
    (ndarray, ndarray)
        uint8 (n, height, width) and uint8 (n,).

    Raises
    ------
    DataError
        See `read`; or the files are not images and labels, or differ in length.
    """
    pixels, classes = read(images), read(labels)
    for path, array, dimensions, what in ((images, pixels, 3, "images: uint8 with 3 dimensions"),
                                          (labels, classes, 1, "labels: uint8 with 1 dimension")):
        if array.dtype != np.uint8 or array.ndim != dimensions:
            raise DataError("not the kind of IDX file that is needed", path=path, expected=what,
                            found=f"{array.dtype.name} with shape {array.shape}",
                            remedy="see whether images and labels are interchanged")
    if len(pixels) != len(classes):
        raise DataError("not as many labels as images", path=labels, expected=f"{len(pixels)} as in {images}",
                        found=len(classes), remedy="take both files from the same source")
    return pixels, classes


def find(folder: AnyPath) -> dict[str, tuple[Path, Path]]:
    """Finds MNIST's files in a folder: {'train': (images, labels), 'test': (images, labels)}, or one of the two parts.

    The names are `train-images-idx3-ubyte` and so on, or with a dot before `idx`, with or without `.gz`. Of several
    copies, a name with a hyphen is preferred to one with a dot, then an unpacked file to a packed one.

    Raises DataError if there are no such files, or only one file of a pair.
    """
    folder = Path(folder)
    found: dict[str, tuple[Path, Path]] = {}
    for part, stem in PARTS.items():
        images, labels = _first_existing(folder, f"{stem}-images", 3), _first_existing(folder, f"{stem}-labels", 1)
        if images and labels:
            found[part] = (images, labels)
        elif images or labels:
            missing = f"{stem}-labels-idx1-ubyte" if images else f"{stem}-images-idx3-ubyte"
            raise DataError("one IDX file of a pair is missing", path=folder, found=(images or labels or folder).name,
                            expected=f"{missing} (or .gz) beside it")
    if not found:
        raise DataError("no IDX files", path=folder, found=_listing(folder),
                        expected="train-images-idx3-ubyte and train-labels-idx1-ubyte, t10k-images-idx3-ubyte and "
                                 "t10k-labels-idx1-ubyte, or one of these pairs, each with or without .gz")
    return found


def _first_existing(folder: Path, stem: str, dimensions: int) -> Path | None:
    for separator in "-.":
        for suffix in ("", ".gz"):
            path = folder / f"{stem}{separator}idx{dimensions}-ubyte{suffix}"
            if path.is_file():
                return path
    return None


def _listing(folder: Path) -> str:
    if not folder.is_dir():
        return "a file" if folder.exists() else "no such folder"
    with contextlib.suppress(OSError):
        names = sorted(os.listdir(folder))
        return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "") or "an empty folder"
    return "a folder that cannot be read"
