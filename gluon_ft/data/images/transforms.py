"""From a decoded uint8 image to a network's input: crop, resize, flip, normalise, by `Preprocessing`.

The two published procedures, exactly:

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
MOST_PIXELS = 1 << 24  # of a resized image that is made whole: 256 times as long as wide, at 256 pixels
TRIES = 10  # of the random part, before the centre is taken; MXNet's `random_size_crop` and torchvision have 10 too


@dataclass(frozen=True)
class Transform:
    """Training transform with an `augmentation`, evaluation transform without.

    It has two halves, so that the result of the first can be kept: `prepare` draws nothing at random.
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
    def _resized_crop(self) -> bool:
        return self._part is not None

    @property
    def _part(self) -> Augmentation | None:
        """The augmentation, where it draws a part of the image."""
        return self.augmentation if self.augmentation is not None and self.augmentation.crop == "resized" else None

    def decode_resize(self) -> int:
        """The `resize` with which images are decoded for this transform, see `decode.reduction`; 0: always in full.

        It depends on no random number, so that an image is decoded alike in every epoch. The smallest part that
        training can draw still has the input's size then, unless the image itself is too small for that.
        """
        wanted = self.preprocessing
        if self._part is None:
            return wanted.resize or 0
        share, ratios = self._part.scale[0], self._part.ratio
        return math.ceil(wanted.size / math.sqrt(share * min(ratios[0], 1 / ratios[1])) / 2)

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """Resize and, in evaluation, crop.

        image : uint8 (height, width, 3) in RGB, or (height, width) for grey networks
        """
        if self._resized_crop:
            return image
        with _one_image():
            return self._prepared(image)

    def _prepared(self, image):
        wanted = self.preprocessing
        if self.augmentation is None or self.augmentation.crop == "centre":
            return centre_crop(image, wanted.size, wanted.interpolation, wanted.resize)
        if wanted.resize is not None and not _is_long(*_short_edge(image, wanted.resize)):
            return resize_short(image, wanted.resize, wanted.interpolation)
        return image  # a long one is resized where it is cropped

    def finish(self, image: np.ndarray, out: np.ndarray, rng: np.random.RandomState | None = None) -> None:
        """The second half: in training random crop, flip and augmentation, then `(x / scale - mean) / std`.

        Parameters
        ----------
        image : ndarray
            uint8 (height, width, 3) in RGB, or (height, width), as `prepare` returned it.
        out : ndarray
            float32 (channels, size, size), written to.
        rng : numpy.random.RandomState, optional
            Needed in training; None draws nothing, and the image must then have the input's size.
        """
        wanted, chosen = self.preprocessing, self.augmentation
        if chosen is not None and rng is not None:
            with _one_image():
                image = self._drawn(image, chosen, rng)
        _normalise(image, wanted, self._table, out)

    def _drawn(self, image, chosen, rng):
        wanted = self.preprocessing
        if self._resized_crop:
            image = random_resized_crop(image, wanted.size, rng, chosen.scale, chosen.ratio, wanted.interpolation)
        elif chosen.crop == "random":
            image = random_crop(image, wanted.size, rng, wanted.interpolation, wanted.resize)
        if chosen.flip and rng.randint(2):
            image = cv2.flip(image, 1)
        return augment.apply(image, chosen, rng)

    def __call__(self, image: np.ndarray, rng: np.random.RandomState | None = None) -> np.ndarray:
        """Both halves: uint8 (height, width[, 3]) to float32 (channels, size, size); `rng` as in `finish`."""
        out = np.empty((self.preprocessing.channels, self.preprocessing.size, self.preprocessing.size), np.float32)
        self.finish(self.prepare(image), out, rng)
        return out


@contextlib.contextmanager
def _one_image() -> Iterator[None]:
    """Too little memory for one image is said of that image, as Unreadable."""
    try:
        yield
    except (MemoryError, cv2.error) as error:
        raise Unreadable(f"cannot be resized: {text_of(error)}") from None


def resize_short(image: np.ndarray, size: int, interpolation: str = "bilinear") -> np.ndarray:
    """Resizes so that the shorter edge has `size` pixels; the longer is rounded down as MXNet and im2rec do.

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
        uint8; `image` itself where it has that size.
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
    """Cuts out the middle `size` x `size`, rounded to the top left as MXNet does; a smaller image is enlarged first.

    Parameters
    ----------
    image : ndarray
        uint8 (height, width[, 3]).
    size : int
        Pixels.
    interpolation : str, default 'bilinear'
        Of the resizing; a key of `INTERPOLATIONS`.
    resize : int, optional
        First the shorter edge gets so many pixels, see `resize_short`. The result is the same as in two steps; but of a
        picture that is a thousand times as long as wide no more is resized than is cut out.

    Returns
    -------
    ndarray
        uint8 (size, size[, 3]); a view of `image` where that was large enough.
    """
    image, (width, height) = _target(image, size, interpolation, resize)
    return _part_of_resized(image, (width, height), ((width - size) // 2, (height - size) // 2), size, interpolation)


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
        Of the shorter edge, as in `centre_crop`.

    Returns
    -------
    ndarray
        uint8 (size, size[, 3]); a view of `image` where that was large enough.
    """
    image, (width, height) = _target(image, size, interpolation, resize)
    top, left = rng.randint(height - size + 1), rng.randint(width - size + 1)
    return _part_of_resized(image, (width, height), (left, top), size, interpolation)


def _target(image, size, interpolation, resize):
    """The image, and the (width, height) that it is to be resized to before a crop of `size` is cut out.

    An image smaller than the crop is enlarged in proportion, first to the height that is needed and then to the width,
    as ImageRecordIter does. The first of two steps is done here: what it gives is smaller than the crop.
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
    """Resizes no more of a long image than a crop needs: (part of the resized image, left, top of the crop in it)."""
    (width, height), (left, top) = wanted, place
    columns, skipped_x, scale_x = _needed(image.shape[1], width, left, size, MOST_PIXELS // height)
    rows, skipped_y, scale_y = _needed(image.shape[0], height, top, size, MOST_PIXELS // width)
    part = cv2.resize(image[rows, columns], None, fx=scale_x, fy=scale_y, interpolation=INTERPOLATIONS[interpolation])
    return part, left - skipped_x, top - skipped_y


def _needed(full, wanted, first, count, most):
    """The pixels of an edge that make `count` pixels from `first` on, once it is resized from `full` to `wanted`.

    Both images are cut where pixels of both begin at one place, or nearly so, since interpolation would give others
    otherwise: of the resized one up to `most` pixels are looked through for such a place. What the places are still
    apart (less than a pixel) is taken up by the factor.

    Returns (slice of the pixels, how many pixels of the resized edge lie before them, factor of their resizing).
    """
    margin = 4 + -(-full // wanted)  # Lanczos looks at 4 pixels on either side, area averaging at those that become one
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
        The part's share of the area is uniform between these.
    ratio : (low, high), default (3/4, 4/3)
        The logarithm of its width over its height is uniform between the logarithms of these.

    Returns
    -------
    (left, top, width, height) or None
        In pixels; None where none of ten tries fitted.
    """
    for _ in range(TRIES):
        area = rng.uniform(*scale) * height * width
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return rng.randint(width - w + 1), rng.randint(height - h + 1), w, h
    return None


def random_resized_crop(image: np.ndarray, size: int, rng: np.random.RandomState,
                        scale: tuple[float, float] = (0.08, 1.0), ratio: tuple[float, float] = (3 / 4, 4 / 3),
                        interpolation: str = "bilinear") -> np.ndarray:
    """A random part of an image (`random_part`), resized to `size` x `size`.

    Where none fits, as in a very long image, it is the middle square of `size`, or of the shorter edge where that is
    less. MXNet does so; torchvision takes the largest part with an allowed ratio.

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
