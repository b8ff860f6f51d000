"""The orientation of an image, 1..8, as the `ImageOps.exif_transpose` of the Pillow installed here takes it.

From EXIF, ImageMagick's raw profile or XMP, in this order. Damaged metadata count as upright: they are no reason to
refuse a picture.
"""
from __future__ import annotations

import struct

import cv2
import numpy as np
from PIL import Image

from gluon_ft.data.images import opener

TAG = 0x0112  # of the orientation, in EXIF and TIFF
_SHORT = 3  # EXIF's type of a 16-bit number
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}  # bytes, by type
_XMP_TAG = b"tiff:Orientation"
# PNG chunks that can hold it, all allowed behind the pixels (PNG 1.2, 5.6).
_PNG_METADATA = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")


def of_image(image: Image.Image) -> int:
    """Of an image opened with Pillow, whether its pixels are decoded or not; a PNG first goes through
    `png_metadata_first`. What a TIFF's own tag says Pillow has done when the pixels are there."""
    try:
        with opener.quiet():
            # Not the PNG's own method, which would decode it.
            value = Image.Image.getexif(image).get(TAG, 1)
    except Exception:  # whatever Pillow raises on damaged metadata
        return 1
    return next((number for number in range(2, 9) if value == number), 1)


def of_jpeg(exif: bytes, xmp: bytes) -> int:
    """Of a JPEG's EXIF segments, put together as Pillow does it, and its last XMP segment (b'' where it has none).

    Quicker than Pillow for what cameras write; Pillow's own answer for all else.
    """
    tag = _plain(exif) if exif else 0
    if tag:
        return tag if tag in range(2, 9) else 1
    if tag == 0 and _XMP_TAG not in xmp:
        return 1
    image = Image.new("1", (1, 1))
    image.info = {name: value for name, value in (("exif", exif), ("xmp", xmp)) if value}
    return of_image(image)


def _plain(exif: bytes) -> int | None:
    """The tag where it is one 16-bit number other than 0; 0 where there is no tag; None where Pillow has to judge.

    EXIF is a TIFF header and a directory of 12-byte entries: tag, type, count, value (Exif 2.3, 4.6.2).
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[6:10])
    try:
        if order is None:
            return None
        directory = 6 + struct.unpack_from(f"{order}I", exif, 10)[0]
        count = struct.unpack_from(f"{order}H", exif, directory)[0]
        entries = list(struct.iter_unpack(f"{order}HHI4s", exif[directory + 2:directory + 2 + 12 * count]))
        found = [entry for entry in entries if entry[0] == TAG]
        if len(entries) != count or len(found) > 1 or any(_reaches_beyond(exif, order, entry) for entry in entries):
            return None
        if not found:
            return 0
        _, kind, number, value = found[0]
        return struct.unpack(f"{order}H", value[:2])[0] or None if kind == _SHORT and number == 1 else None
    except struct.error:
        return None


def _reaches_beyond(exif, order, entry) -> bool:
    """Whether an entry's data lie beyond the end: Pillow then reads none of the entries behind it."""
    _, kind, number, value = entry
    size = number * _SIZES.get(kind, 0)
    return size > 4 and 6 + struct.unpack(f"{order}I", value)[0] + size > len(exif)


def png_metadata_first(data: bytes) -> bytes:
    """A PNG with those chunks in front that may hold an orientation and stand behind its pixels.

    Pillow reads on to the end when it has decoded the pixels; for the orientation alone that would take too long.
    Other data are returned as they are.
    """
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    at, pixels, late = 8, None, []
    while at + 12 <= len(data):
        length, kind = int.from_bytes(data[at:at + 4], "big"), data[at + 4:at + 8]
        if kind == b"IEND":
            break
        if kind == b"IDAT" and pixels is None:
            pixels = at
        elif pixels is not None and kind in _PNG_METADATA:
            late.append(data[at:at + 12 + length])
        at += 12 + length
    return b"".join((data[:pixels], *late, data[pixels:])) if late else data


_TURNS = {3: cv2.ROTATE_180, 6: cv2.ROTATE_90_CLOCKWISE, 8: cv2.ROTATE_90_COUNTERCLOCKWISE}


def upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Stored pixels (height, width[, channels]) turned upright; `array` itself for orientation 1."""
    if orientation in (5, 7):
        array = cv2.transpose(array)
        return cv2.rotate(array, cv2.ROTATE_180) if orientation == 7 else array
    if orientation in (2, 4):
        return cv2.flip(array, 1 if orientation == 2 else 0)
    return array if orientation == 1 else cv2.rotate(array, _TURNS[orientation])


def as_stored(array: np.ndarray, orientation: int) -> np.ndarray:
    """A view of upright pixels (height, width[, channels]) in which they lie as in the file, to be written through."""
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    # What is turned clockwise to be upright lies in the file turned the other way.
    across, down = {1: (1, 1), 2: (-1, 1), 3: (-1, -1), 4: (1, -1), 5: (1, 1), 6: (1, -1), 7: (-1, -1),
                    8: (-1, 1)}[orientation]
    return array[::down, ::across]
