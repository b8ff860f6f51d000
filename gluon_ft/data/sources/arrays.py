"""`ArraySource`: images in memory, given as arrays or read from IDX files."""
from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from gluon_ft.data.sources import idx
from gluon_ft.data.sources.base import ImageSource
from gluon_ft.data.sources.class_names import whole
from gluon_ft.errors import DataError
from gluon_ft.io.paths import AnyPath


class ArraySource(ImageSource):
    """Images in memory: uint8 (n, height, width) or (n, height, width, 1) grey, or (n, height, width, 3) RGB.

    Raises DataError if the arrays are not images and class numbers, or differ in length.
    """

    kind = "arrays"

    def __init__(self, pixels, labels, class_names: Sequence[str] | None = None, name="arrays"):
        self.pixels = np.asarray(pixels)
        super().__init__(name, whole(labels, name), class_names)
        if self.pixels.dtype != np.uint8 or not (self.pixels.ndim == 3 or self.pixels.shape[3:] in ((1,), (3,))):
            raise DataError("not images", path=name, found=f"{self.pixels.dtype} {self.pixels.shape}",
                            expected="uint8 (n, height, width), (n, height, width, 1) or (n, height, width, 3)",
                            remedy="give arrays that are ready for the network to ArrayLoader")
        if len(self.pixels) != len(self.labels):
            raise DataError("images and labels differ in number", path=name, expected=f"{len(self.pixels)} labels",
                            found=len(self.labels))

    def where(self, position: int) -> str:
        return f"{self.name}: image {position}"

    def read(self, position: int) -> bytes:
        """The image as the bytes of a PNG file, which is lossless."""
        image = self.pixels[position]
        return cv2.imencode(".png", image[..., ::-1] if image.shape[2:] == (3,) else image)[1].tobytes()

    def image(self, position: int, channels: int, resize: int = 0) -> np.ndarray:
        """The image at `position`, converted between grey and RGB if it has another number of channels.

        Parameters
        ----------
        position : int
        channels : {3, 1}
            3 for RGB, 1 for grey.
        resize : int
            Ignored: decoding at reduced scale is for JPEG files.

        Returns
        -------
        ndarray
            uint8 (height, width, 3), or (height, width) for one channel.
        """
        image = self.pixels[position]
        image = image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image
        if (image.ndim == 3) == (channels == 3):
            return np.ascontiguousarray(image)
        return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB if channels == 3 else cv2.COLOR_RGB2GRAY)

    def _contents_of(self, position: int) -> bytes:
        image = np.ascontiguousarray(self.pixels[position])
        return str(image.shape).encode() + image.tobytes()

    def contents(self) -> Iterator[bytes]:
        """Yields the shape of the array, then all of its pixels."""
        yield str(self.pixels.shape).encode()
        yield np.ascontiguousarray(self.pixels).tobytes()


def from_idx(images: AnyPath, labels: AnyPath, class_names: Sequence[str] | None = None) -> ArraySource:
    """Reads the images and labels of two IDX files into memory.

    Parameters
    ----------
    images : path-like
        uint8 (n, height, width).
    labels : path-like
        uint8 (n,).
    class_names : sequence of str, optional
        Class names in label order; None if they are not known.

    Returns
    -------
    ArraySource

    Raises
    ------
    DataError
        See `idx.read_pair`.
    """
    return ArraySource(*idx.read_pair(images, labels), class_names, str(images))
