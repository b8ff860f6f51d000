"""Reads image files and their headers (format, size, orientation), before any pixel is decoded."""
from __future__ import annotations

import contextlib
import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import ImageFile

from gluon_ft.data.images import opener, orientation
from gluon_ft.io.paths import AnyPath

MAX_MEGAPIXELS = 100  # 10^6 pixels; decoded as colour they take 300 MB, and meanwhile up to 700 MB
MAX_SIDE = 65_535  # pixels, the most that a JPEG's header can say
MAX_FILE_BYTES = 256 << 20
NO_MEMORY = "not enough memory to decode it"

# Bytes of memory per pixel while an image is decoded, measured with Pillow 13: four of Pillow's and three of the
# result; some decoders hold several copies of the picture.
_USUAL_BYTES, _BYTES = 7, {"WEBP": 16, "JPEG2000": 19, "AVIF": 10, "HEIF": 16}
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_JPEG_TABLES = (0xC4, 0xDB, 0xDD, 0xFE)  # Huffman, quantisation, restart interval; and comments


class Unreadable(ValueError):
    """An image that cannot be used; the text is the reason, without the path."""


@dataclass(frozen=True)
class Probe:
    """An image's header: `format` and `mode` as Pillow names them, size as stored, EXIF orientation 1..8."""

    format: str
    mode: str
    width: int
    height: int
    orientation: int
    transparent: bool

    @property
    def upright(self) -> tuple[int, int]:
        """Width and height of the upright image."""
        return (self.width, self.height) if self.orientation < 5 else (self.height, self.width)


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
    """Reads an image's header; raises Unreadable where the data is no image, or too large to be decoded.

    `max_megapixels` limits width times height, in 10^6 pixels; the limit is lower for formats whose decoders take more
    memory than PNG's. No edge may be longer than `MAX_SIDE`.
    """
    info = _probe_jpeg(data) or _probe_any(data)
    _check_size(info, max_megapixels)
    return info


def _check_size(info: Probe, max_megapixels: float) -> None:
    width, height = info.width, info.height
    if width * height > max_megapixels * 1e6:
        raise Unreadable(f"{width} x {height} pixels are {width * height / 1e6:.0f} megapixels, at most "
                         f"{max_megapixels:g} are decoded (--max-megapixels)")
    if max(width, height) > MAX_SIDE:
        raise Unreadable(f"{width} x {height} pixels, an edge of at most {MAX_SIDE} is decoded")
    if not (width and height):
        raise Unreadable(f"damaged header: {width} x {height} pixels")
    megabytes, most = _BYTES.get(info.format, _USUAL_BYTES) * width * height / 1e6, _USUAL_BYTES * max_megapixels
    if megabytes > most:
        raise Unreadable(f"{width} x {height} pixels of {info.format} take about {megabytes:.0f} MB to decode, at most "
                         f"{most:.0f} are used (--max-megapixels)")


def _probe_any(data):
    with opened(orientation.png_metadata_first(data)) as image:
        # Pillow applies a TIFF's own tag itself, and the size that it gives is already the upright one.
        turned = 1 if orientation.TAG in getattr(image, "tag_v2", ()) else orientation.of_image(image)
        return Probe(image.format or "", image.mode, *image.size, turned,
                     "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa"))


def _probe_jpeg(data):
    """The probe of an ordinary JPEG (8 bits, grey or colour) in a fifth of Pillow's time; None for any other file.

    Segments follow each other as 0xFF, kind, length (16 bits, its own two bytes included), up to the start of the scan;
    those of the kinds C0 to CF except C4, C8 and CC are frame headers: precision, height, width, components (ITU-T
    T.81, B.1.1, B.2.2). EXIF, XMP: as Pillow's JPEG plug-in reads them.
    """
    at, exif, xmp, frame = 2, b"", b"", None
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    while at + 4 <= len(data) and data[at] == 0xFF:
        kind, length = data[at + 1], int.from_bytes(data[at + 2:at + 4], "big")
        if kind == 0xDA:
            break
        if kind == 0xE1:
            segment = data[at + 4:at + 2 + length]
            if segment.startswith(_EXIF):  # a second one goes on where the first one ended
                exif += segment[len(_EXIF):] if exif else segment
            elif segment.startswith(_XMP):
                xmp = segment[len(_XMP):]
        elif 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC) and frame is None and at + 10 <= len(data):
            frame = struct.unpack_from(">BHHB", data, at + 4)
        elif length < 2 or not (0xE0 <= kind <= 0xEF or kind in _JPEG_TABLES):
            return None  # for Pillow to judge: fill bytes, a second frame, damage
        at += 2 + length
    else:
        return None
    if frame is None:
        return None
    bits, height, width, components = frame
    if bits != 8 or components not in (1, 3) or not width or not height:
        return None
    return Probe("JPEG", "L" if components == 1 else "RGB", width, height, orientation.of_jpeg(exif, xmp), False)


@contextlib.contextmanager
def opened(data: bytes) -> Iterator[ImageFile.ImageFile]:
    """Opens image bytes with Pillow, see `opener.identify`. Raises Unreadable where they are no image."""
    try:
        with opener.quiet():
            image = opener.identify(data)
    except opener.NotInstalled as error:
        raise Unreadable(str(error)) from None
    except MemoryError:
        raise Unreadable(NO_MEMORY) from None
    except Exception as error:  # whatever a decoder plug-in raises on damaged bytes
        raise Unreadable(f"damaged header: {text_of(error)}") from None
    if image is None:
        raise Unreadable(f"not an image (begins with {data[:12]!r})")
    with image:
        yield image


@contextlib.contextmanager
def decoding() -> Iterator[None]:
    """Turns whatever a decoder raises inside into Unreadable: the reason why this one image cannot be used."""
    try:
        yield
    except Unreadable:
        raise
    except MemoryError:
        raise Unreadable(NO_MEMORY) from None
    except Exception as error:  # OSError, SyntaxError, struct.error, cv2.error, DecompressionBombError, ...
        raise Unreadable(f"damaged or truncated: {text_of(error)}") from None


def text_of(error: BaseException) -> str:
    """An exception's text on one line, or its kind where it has none."""
    return " ".join(str(error).split()) or type(error).__name__
