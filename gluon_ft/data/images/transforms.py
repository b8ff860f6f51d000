"""Turns decoded uint8 images into a network's input: crop, resize, flip, normalise, by `Preprocessing`.

It reproduces two published procedures exactly:

'gluon'   training: random part of the image (area 0.08..1, ratio 3/4..4/3) resized to 224, flip; evaluation: shorter
          edge to 256, centre crop of 224; both to [0, 1], then mean and std. As `mx.gluon.data.vision.transforms`'
          RandomResizedCrop, Resize(256, keep_ratio=True), CenterCrop, ToTensor and Normalize.
'im2rec'  training: random crop of 224 from images whose shorter edge is 256, flip; evaluation: centre crop; raw
          0..255. As `ImageRecordIter` with rand_crop and rand_mirror.
"""
from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np

from gluon_ft.data.images import augment
from gluon_ft.data.images.augment import Augmentation
from gluon_ft.data.images.header import Unreadable, text_of
from gluon_ft.data.images.preprocessing import Preprocessing
from gluon_ft.errors import ConfigError

INTERPOLATIONS = {"nearest": cv2.INTER_NEAREST, "bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC,
                  "area": cv2.INTER_AREA, "lanczos": cv2.INTER_LANCZOS4}
# Of a larger resized image only the part that a crop needs is computed. At 256 pixels: 256 times as long as wide.
MOST_PIXELS = 1 << 24


@dataclass(frozen=True)
class Transform:
    """The transform of one image: for training with an `augmentation`, for evaluation without.

    It has two halves, `prepare` and `finish`. The first draws nothing at random, so that its result can be cached.
    Raises ConfigError for colour augmentation of grey images.
    """

    preprocessing: Preprocessing
    augmentation: Augmentation | None = None
    _table: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        object.__setattr__(self, "_table", value_table(self.preprocessing))
        grey = [name for name in ("saturation", "hue") if self.augmentation and getattr(self.augmentation, name)]
        if grey and self.preprocessing.channels == 1:
            raise ConfigError(f"augmentation: {' and '.join(grey)} of grey images", expected="0",
                              found=getattr(self.augmentation, grey[0]))

    @property
    def _resized_crop(self) -> Augmentation | None:
        """The augmentation, if its crop is 'resized'."""
        return self.augmentation if self.augmentation is not None and self.augmentation.crop == "resized" else None

    def decode_resize(self) -> int:
        """The `resize` with which to decode images for this transform, see `decode.reduction`; 0: always in full.

        It does not depend on random numbers, so that an image is decoded alike in every epoch. Even the smallest part
        that training can draw then has the input's size, unless the image itself is too small.
        """
        wanted = self.preprocessing
        if self._resized_crop is None:
            return wanted.resize or 0
        share, ratios = self._resized_crop.scale[0], self._resized_crop.ratio
        return math.ceil(wanted.size / math.sqrt(share * min(ratios[0], 1 / ratios[1])) / 2)

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """The first half: resizes the image and, in evaluation, crops it.

        image : uint8 (height, width, 3) in RGB, or (height, width) for grey networks
        """
        if self._resized_crop is not None:
            return image
        with _one_image():
            return self._prepared(image)

    def _prepared(self, image):
        wanted = self.preprocessing
        if self.augmentation is None or self.augmentation.crop == "centre":
            return centre_crop(image, wanted.size, wanted.interpolation, wanted.resize)
        if wanted.resize is not None and not _is_long(*_short_edge(image, wanted.resize)):
            return resize_short(image, wanted.resize, wanted.interpolation)
        return image  # a very long image is resized together with the crop

    def finish(self, image: np.ndarray, out: np.ndarray, rng: np.random.RandomState | None = None) -> None:
        """The second half: random crop, flip and augmentation (in training), then `(x / scale - mean) / std`.

        Parameters
        ----------
        image : ndarray
            uint8 (height, width, 3) in RGB, or (height, width), as `prepare` returned it.
        out : ndarray
            float32 (channels, size, size); the result is written here.
        rng : numpy.random.RandomState, optional
            Needed in training. With None nothing is drawn, and the image must have the input's size already.
        """
        wanted, chosen = self.preprocessing, self.augmentation
        if chosen is not None and rng is not None:
            with _one_image():
                image = self._drawn(image, chosen, rng)
        _normalise(image, wanted, self._table, out)

    def _drawn(self, image, chosen, rng):
        wanted = self.preprocessing
        if self._resized_crop is not None:
            image = random_resized_crop(image, wanted.size, rng, chosen.scale, chosen.ratio, wanted.interpolation)
        elif chosen.crop == "random":
            image = random_crop(image, wanted.size, rng, wanted.interpolation, wanted.resize)
        if chosen.flip and rng.randint(2):
            image = cv2.flip(image, 1)
        return augment.apply(image, chosen, rng)

    def __call__(self, image: np.ndarray, rng: np.random.RandomState | None = None) -> np.ndarray:
        """Both halves: from uint8 (height, width[, 3]) to float32 (channels, size, size); `rng` as in `finish`."""
        out = np.empty((self.preprocessing.channels, self.preprocessing.size, self.preprocessing.size), np.float32)
        self.finish(self.prepare(image), out, rng)
        return out


@contextlib.contextmanager
def _one_image() -> Iterator[None]:
    """Turns a failed resize, usually for lack of memory, into Unreadable: the reason why this one image is not used."""
    try:
        yield
    except (MemoryError, cv2.error) as error:
        raise Unreadable(f"cannot be resized: {text_of(error)}") from None


def resize_short(image: np.ndarray, size: int, interpolation: str = "bilinear") -> np.ndarray:
    """Resizes so that the shorter edge has `size` pixels; the longer one is rounded down, as in MXNet and im2rec.

    Parameters
    ----------
    image : ndarray
        uint8 (height, width[, 3]).
    size : int
        Pixels.
    interpolation : str, default 'bilinear'
        A key of `INTERPOLATIONS`.

    Returns
    -------
    ndarray
        uint8; `image` itself if it already has that size.
    """
    return _resize(image, *_short_edge(image, size), interpolation)


def _short_edge(image, size) -> tuple[int, int]:
    """Width and height with a shorter edge of `size` pixels."""
    height, width = image.shape[:2]
    return (size, size * height // width) if height > width else (size * width // height, size)


def _resize(image, width, height, interpolation):
    if image.shape[1::-1] == (width, height):
        return image
    return cv2.resize(image, (width, height), interpolation=INTERPOLATIONS[interpolation])


def centre_crop(image: np.ndarray, size: int, interpolation: str = "bilinear",
                resize: int | None = None) -> np.ndarray:
    """Cuts out the central `size` x `size`, rounded to the top left as in MXNet; a smaller image is enlarged first.

    Parameters
    ----------
    image : ndarray
        uint8 (height, width[, 3]).
    size : int
        Pixels.
    interpolation : str, default 'bilinear'
        Of the resizing; a key of `INTERPOLATIONS`.
    resize : int, optional
        Length to which the shorter edge is resized first, pixels. The result equals `resize_short` and then the crop,
        but of a very long image only the part that is cut out is resized.

    Returns
    -------
    ndarray
        uint8 (size, size[, 3]); a view of `image` where that was large enough.
    """
    image, (width, height) = _target(image, size, interpolation, resize)
    return _part_of_resized(image, (width, height), ((width - size) // 2, (height - size) // 2), size, interpolation)


def crop_at(image: np.ndarray, wanted: Preprocessing, place: tuple[float, float], resize: int) -> np.ndarray:
    """Cuts out a network's input at any place of the resized image, for test-time augmentation.

    Parameters
    ----------
    image : ndarray
        uint8 (height, width[, 3]).
    wanted : Preprocessing
        Has the size to cut out, and the interpolation.
    place : (float, float)
        0..1, of the room to the right and downwards: (0, 0) is the top left corner, (0.5, 0.5) the centre.
    resize : int
        Length to which the shorter edge is resized first, pixels.

    Returns
    -------
    ndarray
        uint8 (size, size[, 3]).

    Raises
    ------
    Unreadable
        The image cannot be resized.
    """
    with _one_image():
        image, (width, height) = _target(image, wanted.size, wanted.interpolation, resize)
        left, top = (int((edge - wanted.size) * share) for edge, share in zip((width, height), place))
        return _part_of_resized(image, (width, height), (left, top), wanted.size, wanted.interpolation)


def random_crop(image: np.ndarray, size: int, rng: np.random.RandomState, interpolation: str = "bilinear",
                resize: int | None = None) -> np.ndarray:
    """Cuts out `size` x `size` at a place drawn uniformly; a smaller image is enlarged first.

    Parameters
    ----------
    image : ndarray
        uint8 (height, width[, 3]).
    size : int
        Pixels.
    rng : numpy.random.RandomState
    interpolation : str, default 'bilinear'
        Of the resizing; a key of `INTERPOLATIONS`.
    resize : int, optional
        Length of the shorter edge, as in `centre_crop`.

    Returns
    -------
    ndarray
        uint8 (size, size[, 3]); a view of `image` where that was large enough.
    """
    image, (width, height) = _target(image, size, interpolation, resize)
    top, left = rng.randint(height - size + 1), rng.randint(width - size + 1)
    return _part_of_resized(image, (width, height), (left, top), size, interpolation)


def _target(image, size, interpolation, resize):
    """The image, and the (width, height) to resize it to before a crop of `size` is cut out.

    An image smaller than the crop is enlarged in proportion, first to the needed height and then to the needed width,
    as in ImageRecordIter. Where both steps are needed, the first one is done here.
    """
    width, height = image.shape[1::-1] if resize is None else _short_edge(image, resize)
    if height < size:
        width, height = int(np.float32(size) / np.float32(height) * np.float32(width)), size
        if width < size:
            image = _resize(image, width, height, interpolation)
    if width < size:
        height = int(np.float32(size) / np.float32(width) * np.float32(height))
        width = size
    return image, (width, height)


def _is_long(width, height) -> bool:
    return width * height > MOST_PIXELS


def _part_of_resized(image, wanted, place, size, interpolation):
    """`size` x `size` pixels at `place` (left, top) of the image resized to `wanted` (width, height)."""
    (width, height), (left, top) = wanted, place
    if image.shape[1::-1] != wanted:
        if not _is_long(width, height):
            image = _resize(image, width, height, interpolation)
        else:
            image, left, top = _resized_around(image, wanted, place, size, interpolation)
    return image[top:top + size, left:left + size]


def _resized_around(image, wanted, place, size, interpolation):
    """Resizes only what a crop needs of a long image: (part of the resized image, left, top of the crop in it)."""
    (width, height), (left, top) = wanted, place
    columns, skipped_x, scale_x = _needed(image.shape[1], width, left, size, MOST_PIXELS // height)
    rows, skipped_y, scale_y = _needed(image.shape[0], height, top, size, MOST_PIXELS // width)
    part = cv2.resize(image[rows, columns], None, fx=scale_x, fy=scale_y, interpolation=INTERPOLATIONS[interpolation])
    return part, left - skipped_x, top - skipped_y


def _needed(full, wanted, first, count, most):
    """The source pixels of an edge from which `count` pixels, from `first` on, of the resized edge are computed.

    The edge is resized from `full` to `wanted` pixels. Interpolation of a part gives the same values only if the part
    begins where a source pixel and a resized pixel begin together, or nearly so; up to `most` resized pixels are
    searched for such a place. An offset that remains (less than a pixel) goes into the resize factor.

    Returns (slice of the source pixels, number of resized pixels before them, resize factor).
    """
    margin = 4 + -(-full // wanted)  # Lanczos reads 4 pixels on either side, area averaging all that become one
    latest = max(0, first * full // wanted - margin) * wanted // full
    shifts = np.arange(max(0, latest - max(count, most)), latest + 1, dtype=np.int64)
    beyond = shifts * full % wanted
    shift = int(shifts[np.minimum(beyond, wanted - beyond).argmin()])
    begin = (shift * full + wanted // 2) // wanted
    end = min(full, -(-(first + count) * full // wanted) + margin)
    apart = (shift * full - begin * wanted) / wanted
    return slice(begin, end), shift, 1 / (full / wanted + apart / (first - shift + count / 2))


def random_part(height: int, width: int, rng: np.random.RandomState, scale: tuple[float, float] = (0.08, 1.0),
                ratio: tuple[float, float] = (3 / 4, 4 / 3)) -> tuple[int, int, int, int] | None:
    """Draws a random part of an image (Szegedy et al. 2014, https://arxiv.org/abs/1409.4842).

    As `mx.image.random_size_crop`.

    Parameters
    ----------
    height, width : int
        Of the image, pixels.
    rng : numpy.random.RandomState
    scale : (low, high), default (0.08, 1)
        The part's share of the area, as in `augment.draw_size`.
    ratio : (low, high), default (3/4, 4/3)
        Its width over its height, as there.

    Returns
    -------
    (left, top, width, height) or None
        In pixels; None where none of ten tries fits.
    """
    for _ in range(augment.TRIES):
        w, h = augment.draw_size(height, width, rng, scale, ratio)
        if 0 < w <= width and 0 < h <= height:
            return rng.randint(width - w + 1), rng.randint(height - h + 1), w, h
    return None


def random_resized_crop(image: np.ndarray, size: int, rng: np.random.RandomState,
                        scale: tuple[float, float] = (0.08, 1.0), ratio: tuple[float, float] = (3 / 4, 4 / 3),
                        interpolation: str = "bilinear") -> np.ndarray:
    """Resizes a random part of an image (`random_part`) to `size` x `size`.

    Where none fits, as in a very long image, the central square is taken: of `size`, or of the shorter edge if that is
    less. So does MXNet; torchvision takes the largest part with an allowed ratio.

    Parameters
    ----------
    image : ndarray
        uint8 (height, width[, 3]).
    size : int
        Pixels.
    rng : numpy.random.RandomState
    scale : (low, high), default (0.08, 1)
        Share of the image's area.
    ratio : (low, high), default (3/4, 4/3)
        Width over height of the part.
    interpolation : str, default 'bilinear'
        A key of `INTERPOLATIONS`.

    Returns
    -------
    ndarray
        uint8 (size, size[, 3]).
    """
    height, width = image.shape[:2]
    part = random_part(height, width, rng, scale, ratio)
    if part is None:
        image = centre_crop(image, min(size, height, width))
    else:
        left, top, w, h = part
        image = image[top:top + h, left:left + w]
    return _resize(image, size, size, interpolation)


def value_table(preprocessing: Preprocessing) -> np.ndarray:
    """float32 (channels, 256): what each grey level becomes, `(x / scale - mean) / std`, in the channels' order."""
    levels = np.arange(256, dtype=np.float32) / np.float32(preprocessing.scale)
    return np.stack([(levels - np.float32(mean)) / np.float32(std)
                     for mean, std in zip(preprocessing.mean, preprocessing.std)])


def _normalise(image, wanted, table, out):
    if wanted.rotate180:
        image = cv2.flip(image, -1)
    planes = [np.ascontiguousarray(image)] if image.ndim == 2 else cv2.split(image)
    if wanted.channel_order == "bgr":
        planes = planes[::-1]
    for plane, values, target in zip(planes, table, out):
        cv2.LUT(plane, values, dst=target)
