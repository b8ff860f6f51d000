"""The image formats that are read, and the suffixes of their file names, in one table."""
from __future__ import annotations

import os

# Pillow's name of a format -> the suffixes of its files, the usual one first. Nothing else is opened as an image.
FORMATS: dict[str, tuple[str, ...]] = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo"),
    "MPO": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),  # JPEG with a second picture, as 3D cameras and phones write it
    "PNG": (".png", ".apng"),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "DIB": (".dib", ".bmp"),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "AVIF": (".avif",),  # Pillow 11.3 and later
    "JPEG2000": (".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".jpc"),
    "HEIF": (".heic", ".heif", ".hif"),  # with pillow-heif
}
SUFFIXES = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes)


def suffix_of(name: str) -> str:
    """The suffix of a file name in lower case, with its dot; '' where there is none."""
    return os.path.splitext(name)[1].lower()


def has_image_suffix(name: str) -> bool:
    """Whether a file of this name counts as an image."""
    return suffix_of(name) in SUFFIXES


def suffix_list() -> str:
    """All image suffixes in one line, for messages."""
    return " ".join(sorted(SUFFIXES))
