"""An image's EXIF orientation, 1..8, read as the installed Pillow's `ImageOps.exif_transpose` reads it.

It is looked for in EXIF, ImageMagick's raw profile and XMP, in this order. An image with damaged metadata counts as
upright: that is no reason to refuse it.
"""
from __future__ import annotations

import struct

import cv2
import numpy as np
from PIL import Image

from gluon_ft.data.images import opener

TAG = 0x0112  # of the orientation, in EXIF and TIFF
_SHORT = 3  # EXIF's type of a 16-bit number
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}  # type -> bytes
_XMP_TAG = b"tiff:Orientation"
# PNG chunks that can hold the orientation; each may come after the pixels (PNG 1.2, 5.6).
_PNG_METADATA = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")


def of_image(image: Image.Image) -> int:
    """The orientation of an image opened with Pillow, whose pixels need not be decoded.

    A PNG's bytes go through `png_metadata_first` before it is opened. Pillow applies a TIFF's own tag itself, when it
    decodes the pixels.
    """
    try:
        with opener.quiet():
            # A PNG's own `getexif` would decode the pixels.
            value = Image.Image.getexif(image).get(TAG, 1)
    except Exception:  # whatever Pillow raises on damaged metadata
        return 1
    return next((number for number in range(2, 9) if value == number), 1)


def of_jpeg(exif: bytes, xmp: bytes) -> int:
    """The orientation of a JPEG, from its EXIF segments, joined as Pillow joins them, and its last XMP segment.

    Either is b'' where there is none. Quicker than Pillow for what cameras write; all else is left to Pillow.
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
    """The tag, if it is a single 16-bit number other than 0; 0 where there is no tag; None where Pillow must decide.

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
    """Whether an entry's data extend beyond the end: Pillow then reads none of the entries after it."""
    _, kind, number, value = entry
    size = number * _SIZES.get(kind, 0)
    return size > 4 and 6 + struct.unpack(f"{order}I", value)[0] + size > len(exif)


def png_metadata_first(data: bytes) -> bytes:
    """Moves chunks that may hold an orientation from behind a PNG's pixels to before them.

    Pillow reads such chunks only after decoding the pixels, which would take too long for the orientation alone. Other
    data is returned as it is.
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
    """A view of upright pixels (height, width[, channels]) in the file's order, to write stored rows through."""
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    # The inverse of what `upright` does.
    across, down = {1: (1, 1), 2: (-1, 1), 3: (-1, -1), 4: (1, -1), 5: (1, 1), 6: (1, -1), 7: (-1, -1),
                    8: (-1, 1)}[orientation]
    return array[::down, ::across]
