"""Opens images with Pillow, as one of the formats in `formats.FORMATS`; all of the package goes through `identify`.

By itself Pillow opens every format that it knows, by content: an EPS named `.jpg` would start Ghostscript.
"""
from __future__ import annotations

import contextlib
import importlib
import io
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from PIL import Image, ImageFile

# Pillow's plug-ins register themselves when they are imported; JPEG's opens MPO too. Common formats come first.
_PLUGINS = {"JPEG": "Jpeg", "PNG": "Png", "GIF": "Gif", "BMP": "Bmp", "DIB": "Bmp", "WEBP": "WebP", "TIFF": "Tiff",
            "PPM": "Ppm", "AVIF": "Avif", "JPEG2000": "Jpeg2K"}
# Major brands of ISO 14496-12 files with HEVC pictures (ISO/IEC 23008-12, annex B); mif1 and msf1 stand for any codec.
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1")
_AVIF_BRANDS = (b"avif", b"avis")
_NO_HEIF = "HEIC/HEIF, which needs pillow-heif (pip install pillow-heif)"
_NO_AVIF = "AVIF, which this Pillow cannot read (pip install -U pillow)"
_ONE_AT_A_TIME = threading.RLock()


class NotInstalled(ValueError):
    """A known format that cannot be read here; the text says what has to be installed."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppresses Pillow's warnings in the block.

    Python's warning filters belong to the whole process, so only one thread at a time is inside.
    """
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def identify(data: bytes) -> ImageFile.ImageFile | None:
    """Opens image bytes as one of the formats of `FORMATS`, whatever the file is called.

    As `PIL.Image.open(..., formats=...)`, but without Pillow's limit on an image's size, which is one number for the
    whole process; `header.probe` checks the size instead.

    Parameters
    ----------
    data : bytes
        The whole file.

    Returns
    -------
    ImageFile or None
        Pillow's image, its pixels not yet decoded; None for another format.

    Raises
    ------
    NotInstalled
        HEIC without pillow-heif, or AVIF with an old Pillow.
    Exception
        Whatever a plug-in raises on damaged bytes.
    """
    damage: Exception | None = None
    for accept, factory in _openers(data):
        if not _accepted(accept, data[:16]):
            continue
        try:
            return factory(io.BytesIO(data), "")
        except (SyntaxError, IndexError, TypeError, struct.error) as error:  # damaged, or another format after all
            damage = damage or error
    if data[4:8] == b"ftyp" and data[8:12] in _AVIF_BRANDS and damage is None:
        raise NotInstalled(_NO_AVIF)
    if _is_heif(data) and _heif_factory() is None:
        raise NotInstalled(_NO_HEIF)
    if damage is not None:
        raise damage
    return None


def _accepted(accept, beginning: bytes) -> bool:
    try:
        verdict = accept is None or accept(beginning)
    except (SyntaxError, IndexError, TypeError, struct.error):  # the file has only a few bytes
        return False
    return bool(verdict) and not isinstance(verdict, str)  # text says that this Pillow was built without the format


def _openers(data: bytes):
    """(accept, factory) of each format, as Pillow's plug-ins register them."""
    for name, module in _PLUGINS.items():
        with contextlib.suppress(ImportError):  # older Pillows have no AVIF
            importlib.import_module(f"PIL.{module}ImagePlugin")
            if name in Image.OPEN:
                factory, accept = Image.OPEN[name]
                yield accept, factory
    if _is_heif(data):
        factory = _heif_factory()
        if factory is not None:
            yield None, factory


def _is_heif(data: bytes) -> bool:
    # An AVIF file whose major brand stands for any codec has 'avif' among the compatible brands that follow.
    return data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS and b"avif" not in data[8:64]


def _heif_factory() -> Callable[..., Any] | None:
    """pillow-heif's image class, used without registering it with Pillow; None where it is not installed."""
    try:
        return importlib.import_module("pillow_heif").HeifImageFile
    except (ImportError, AttributeError):
        return None
