"""An image file's bytes and what its header says, before anything is decoded."""
from __future__ import annotations

import contextlib
import os
import stat
import struct
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import ImageFile

from gluon_ft.data.images import opener
from gluon_ft.io.paths import AnyPath

MAX_MEGAPIXELS = 100  # 10^6 pixels; decoded as colour they take 300 MB
MAX_FILE_BYTES = 256 << 20

_ORIENTATION = 0x0112  # EXIF tag
_ONE_AT_A_TIME = threading.RLock()  # of what Pillow does, see `opened`


class Unreadable(ValueError):
    """An image that cannot be used; the text is the reason, without the path."""


@dataclass(frozen=True)
class Probe:
    """What an image's header says: `format` and `mode` in Pillow's words, size as stored, EXIF orientation 1..8."""

    format: str
    mode: str
    width: int
    height: int
    orientation: int
    transparent: bool


def read_file(path: AnyPath) -> bytes:
    """The bytes of an image file; Unreadable where it is missing, empty, no regular file or over 256 MB."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise Unreadable("a folder" if stat.S_ISDIR(status.st_mode) else "not a file")
        if status.st_size > MAX_FILE_BYTES:
            raise Unreadable(f"file of {status.st_size} bytes, at most {MAX_FILE_BYTES} are read")
        with open(path, "rb") as file:
            data = file.read(status.st_size)
    except (OSError, ValueError) as error:
        if isinstance(error, Unreadable):
            raise
        raise Unreadable("no such file" if isinstance(error, FileNotFoundError)
                         else getattr(error, "strerror", None) or str(error)) from None
    if not data:
        raise Unreadable("empty file (0 bytes)")
    return data


def probe(data: bytes, max_megapixels: float = MAX_MEGAPIXELS) -> Probe:
    """Reads the header only; Unreadable where it is no image or has more pixels than allowed."""
    info = _probe_jpeg(data) or _probe_any(data)
    if info.width * info.height > max_megapixels * 1e6:
        raise Unreadable(f"{info.width} x {info.height} pixels are {info.width * info.height / 1e6:.0f} megapixels, "
                         f"at most {max_megapixels:g} are decoded (--max-megapixels)")
    return info


def _probe_any(data):
    with opened(data) as image:
        return Probe(image.format or "", image.mode, *image.size, _orientation(image),
                     "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa"))


def _probe_jpeg(data):
    """The probe of an ordinary JPEG (8 bits, grey or colour) in a fifth of Pillow's time; None for any other file.

    Segments follow each other as 0xFF, kind, length (16 bits, its own two bytes included); those of the kinds C0 to
    CF except C4, C8 and CC are frame headers: precision, height, width, components (ITU-T T.81, B.1.1, B.2.2).
    """
    at, orientation = 2, 1
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    while at + 10 <= len(data) and data[at] == 0xFF:
        kind, length = data[at + 1], int.from_bytes(data[at + 2:at + 4], "big")
        if kind == 0xE1 and data.startswith(b"Exif\0\0", at + 4):
            orientation = exif_orientation(data[at + 4:at + 2 + length])
        elif 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            bits, height, width, components = struct.unpack_from(">BHHB", data, at + 4)
            if bits != 8 or components not in (1, 3) or not width or not height:
                return None
            return Probe("JPEG", "L" if components == 1 else "RGB", width, height,
                         orientation if orientation in range(1, 9) else 1, False)
        elif kind in (0xFF, 0xDA) or length < 2:  # fill bytes, start of the scan, damage: for Pillow to judge
            return None
        at += 2 + length
    return None


@contextlib.contextmanager
def opened(data: bytes) -> Iterator[ImageFile.ImageFile]:
    """Pillow's image of some bytes, see `opener.identify`.

    Warnings of Pillow's are left out. As Python's filters of warnings belong to the whole process, one thread at a
    time gets past here. Raises Unreadable where the bytes are no image.
    """
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = opener.identify(data)
        except opener.NotInstalled as error:
            raise Unreadable(str(error)) from None
        except Exception as error:  # whatever a decoder plug-in raises on damaged bytes
            raise Unreadable(f"damaged header: {text_of(error)}") from None
        if image is None:
            raise Unreadable(f"not an image (begins with {data[:12]!r})")
        with image:
            yield image


def _orientation(image) -> int:
    # Pillow's `getexif` would decode a whole PNG to look for EXIF data behind its pixels, and takes as long for a
    # JPEG's as a twentieth of all the work on it.
    # Pillow turns a TIFF itself.
    value = 1 if image.format == "TIFF" else exif_orientation(image.info.get("exif") or b"")
    return value if value in range(1, 9) else 1


def exif_orientation(exif: bytes) -> int:
    """The orientation tag of EXIF data, with or without its leading 'Exif'; 1 where it is missing or damaged.

    EXIF is a TIFF header and a directory of 12-byte entries: tag, type, count, value (Exif 2.3, 4.6.2).
    """
    exif = exif[6:] if exif.startswith(b"Exif\0\0") else exif
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    try:
        if order is None:
            return 1
        directory = struct.unpack_from(f"{order}I", exif, 4)[0]
        count = struct.unpack_from(f"{order}H", exif, directory)[0]
        for entry in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", exif, entry)
            if tag == _ORIENTATION and kind == 3:  # a 16-bit number
                return value
    except struct.error:  # a damaged directory is no reason to refuse the picture
        pass
    return 1


def text_of(error: BaseException) -> str:
    """An exception's text on one line, or its kind where it has none."""
    return " ".join(str(error).split()) or type(error).__name__
