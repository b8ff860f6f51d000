"""Small pictures for a page: images of a source and files, as addresses that hold the picture itself (data URIs)."""
from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from gluon_ft.data.images.header import Unreadable
from gluon_ft.data.sources.base import ImageSource

MIME = {"PNG": "image/png", "JPEG": "image/jpeg", "GIF": "image/gif", "WEBP": "image/webp"}
EDGE = 160  # pixels of the longer edge
QUALITY = 80  # of the JPEGs


@dataclasses.dataclass
class Picture:
    """An image file to show: its bytes and its caption.

    Raises ValueError where the bytes are not a whole PNG, JPEG, GIF or WebP image.
    """

    data: bytes
    caption: str

    def __post_init__(self):
        self.kind, self.width, self.height = _probe(self.data)

    @property
    def address(self) -> str:
        return data_address(self.data, self.kind)


def within(pictures: Sequence[Picture], most: int) -> tuple[list[Picture], list[str]]:
    """The pictures that fit into a page together, and the captions of those that do not.

    A picture too large for its share is shown as a smaller JPEG.

    Parameters
    ----------
    pictures : sequence of Picture
    most : int
        Bytes of all of them together.
    """
    if sum(len(picture.data) for picture in pictures) <= most:
        return list(pictures), []
    shown, left_out, share = [], [], most // len(pictures)
    for picture in pictures:
        for edge in (1400, 900, 600):
            if len(picture.data) <= share:
                break
            with Image.open(io.BytesIO(picture.data)) as image:
                small = image.convert("RGBA")
            small.thumbnail((edge, edge))
            white = Image.new("RGBA", small.size, "white")
            picture = Picture(encoded(np.asarray(Image.alpha_composite(white, small).convert("RGB"))), picture.caption)
        if len(picture.data) <= share:
            shown.append(picture)
        else:
            left_out.append(picture.caption)
    return shown, left_out


def thumbnail(pixels: np.ndarray, edge: int = EDGE) -> np.ndarray:
    """An image made smaller, so that its longer edge has at most `edge` pixels."""
    import cv2

    scale = min(1.0, edge / max(pixels.shape[:2]))
    size = [max(1, round(scale * one)) for one in pixels.shape[1::-1]]
    return pixels if scale == 1.0 else cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def of_source(source: ImageSource, position: int, edge: int = EDGE) -> str | None:
    """The address of a thumbnail of an image; None where it cannot be read any more.

    Parameters
    ----------
    source : ImageSource
    position : int
    edge : int
        Pixels of the longer edge.
    """
    try:
        pixels = source.image(position, 3, edge)
    except Unreadable:
        return None
    return jpeg_address(thumbnail(pixels, edge))


def jpeg_address(pixels: np.ndarray) -> str:
    """The address of an image, uint8 (height, width, 3), as a JPEG."""
    return data_address(encoded(pixels), "JPEG")


def encoded(pixels: np.ndarray) -> bytes:
    """The bytes of a JPEG."""
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", quality=QUALITY)
    return data.getvalue()


def data_address(data: bytes, kind: str) -> str:
    """The address that holds a picture's bytes. kind : as Pillow calls it, see `MIME`."""
    return f"data:{MIME[kind]};base64,{base64.b64encode(data).decode('ascii')}"


def _probe(data: bytes) -> tuple[str, int, int]:
    """(format, width, height) of an image that decodes."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            kind, (width, height) = image.format, image.size
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"not an image that decodes ({error})") from error
    if kind not in MIME:
        raise ValueError(f"{kind} images are not shown by browsers; save it as PNG")
    return kind, width, height
