"""Augmentation: its settings (`Augmentation`), and everything beyond crop and flip, on uint8 images.

The operations are Pillow's, as AutoAugment, RandAugment and torchvision use them. Every random number comes from the
generator that is passed in.
"""
from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from gluon_ft.errors import ConfigError, near
from gluon_ft.io import settings

CROPS = ("resized", "random", "centre")
MAX_MAGNITUDE = 30
TRIES = 10  # to draw a rectangle that fits; MXNet's `random_size_crop` and torchvision have 10 too
# Setting -> the setting without which it has no effect.
_NEEDS = {"scale": "crop", "ratio": "crop", "magnitude": "randaugment", "erasing_area": "erasing",
          "erasing_ratio": "erasing"}


@dataclass(frozen=True)
class Augmentation:
    """Random augmentation of training images; the default is the procedure 'gluon', see `PROCEDURES`.

    Parameters
    ----------
    crop : {'resized', 'random', 'centre'}
        'resized': a random part of the image, by `scale` and `ratio`, is resized to the input. 'random': the shorter
        edge is resized, then a crop of the input's size is taken at a random place. 'centre': as in evaluation.
    flip : bool
        Mirror left and right, in half of the images. Switch it off for digits and text.
    scale, ratio : (low, high)
        For crop 'resized': the part's share of the image's area, and its width over its height.
    brightness, contrast, saturation : float, default 0 (off)
        The factor is drawn from [max(0, 1 - v), 1 + v].
    hue : float in 0..0.5, default 0
        The shift is drawn from [-v, v], in turns of the colour circle.
    rotation : degrees in 0..180, default 0; the angle is drawn from [-v, v]
    translation : share of width and of height in 0..1, default 0; drawn from [-v, v] for each
    randaugment : operations per image (RandAugment's n), default 0 (off)
    magnitude : their strength (RandAugment's m) in 0..30, default 9
    erasing : probability in 0..1, default 0
    erasing_area, erasing_ratio : (low, high)
        The erased rectangle's share of the image, and its width over its height.
    fill : grey level in 0..255 of the areas that rotation, translation and shear leave empty, default 128

    Raises
    ------
    ConfigError
        For a value out of range, and for a setting that would be ignored because what it belongs to is off.
    """

    crop: str = "resized"
    flip: bool = True
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    rotation: float = 0.0
    translation: float = 0.0
    randaugment: int = 0
    magnitude: int = 9
    erasing: float = 0.0
    erasing_area: tuple[float, float] = (0.02, 0.4)
    erasing_ratio: tuple[float, float] = (0.3, 1 / 0.3)
    fill: int = 128

    def __post_init__(self):
        if self.crop not in CROPS:
            raise ConfigError(f"augmentation: no crop '{self.crop}'", remedy=near(self.crop, CROPS))
        if not isinstance(self.flip, bool):
            raise ConfigError("augmentation: flip is true or false", found=self.flip)
        for name, most in (("brightness", 10), ("contrast", 10), ("saturation", 10), ("hue", 0.5), ("rotation", 180),
                           ("translation", 1), ("erasing", 1)):
            self._within(name, getattr(self, name), 0, most)
        for name, most in (("randaugment", 20), ("magnitude", MAX_MAGNITUDE), ("fill", 255)):
            self._within(name, getattr(self, name), 0, most, whole=True)
        for name, most in (("scale", 1), ("ratio", 100), ("erasing_area", 1), ("erasing_ratio", 100)):
            self._pair(name, most)
        for name, other in _NEEDS.items():
            off = self.crop != "resized" if other == "crop" else not getattr(self, other)
            if off and getattr(self, name) != _default(name):
                raise ConfigError(f"augmentation: {name} is set and would be ignored",
                                  expected=f"{other} {'resized' if other == 'crop' else 'above 0'} with it",
                                  found=f"{other} {getattr(self, other)}")

    def _within(self, name, value, low, high, whole=False):
        number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        if not number or not low <= value <= high:
            raise ConfigError(f"augmentation: {name} out of range",
                              expected=f"a {'whole ' if whole else ''}number from {low} to {high}", found=repr(value))

    def _pair(self, name, most):
        value = getattr(self, name)
        if not isinstance(value, (tuple, list)) or len(value) != 2:
            raise ConfigError(f"augmentation: {name} is a lowest and a highest value", found=repr(value))
        for number in value:
            self._within(name, number, 0, most)
        if not 0 < value[0] <= value[1]:
            raise ConfigError(f"augmentation: {name} out of range", expected="0 < lowest <= highest", found=value)
        object.__setattr__(self, name, (float(value[0]), float(value[1])))

    @property
    def beyond_crop_and_flip(self) -> list[str]:
        """Names of the augmentations that are on, other than crop and flip."""
        return [name for name in ("brightness", "contrast", "saturation", "hue", "rotation", "translation",
                                  "randaugment", "erasing") if getattr(self, name)]

    def to_dict(self) -> dict:
        """Plain values only, for JSON and TOML."""
        return settings.to_dict(self)

    @classmethod
    def from_dict(cls, values: dict) -> Augmentation:
        """The inverse of `to_dict`; missing keys take their defaults. ConfigError for an unknown key."""
        return settings.from_dict(cls, values, "augmentation ")


def _default(name):
    return next(field.default for field in dataclasses.fields(Augmentation) if field.name == name)


PROCEDURES = {"gluon": Augmentation(), "im2rec": Augmentation(crop="random"),
              "none": Augmentation(crop="centre", flip=False)}


def apply(image: np.ndarray, augmentation: Augmentation, rng: np.random.RandomState) -> np.ndarray:
    """Applies every augmentation that is on, other than crop and flip.

    Their order: rotation and translation, RandAugment, colour jitter, erasing.

    Parameters
    ----------
    image : ndarray
        uint8 (height, width, 3) in RGB, or (height, width) grey; it is not changed.
    augmentation : Augmentation
    rng : numpy.random.RandomState

    Returns
    -------
    ndarray
        uint8, same shape; `image` itself where nothing was done.
    """
    active = augmentation.beyond_crop_and_flip
    if not active:
        return image
    if active != ["erasing"]:
        picture = Image.fromarray(np.ascontiguousarray(image))
        if "rotation" in active or "translation" in active:
            picture = rotate_translate(picture, augmentation.rotation, augmentation.translation, rng, augmentation.fill)
        if "randaugment" in active:
            picture = rand_augment(picture, augmentation.randaugment, augmentation.magnitude, rng, augmentation.fill)
        picture = colour_jitter(picture, augmentation.brightness, augmentation.contrast, augmentation.saturation,
                                augmentation.hue, rng)
        image = np.asarray(picture)
    return erase(image, augmentation.erasing, augmentation.erasing_area, augmentation.erasing_ratio, rng)


def rotate_translate(picture: Image.Image, degrees: float, share: float, rng: np.random.RandomState,
                     fill: int = 128) -> Image.Image:
    """Rotates a picture about its centre and shifts it, by random amounts (bilinear; the size stays).

    As torchvision's `RandomAffine(degrees, translate)`.

    Parameters
    ----------
    picture : PIL.Image
        Mode RGB or L.
    degrees : float
        The angle is uniform in [-degrees, degrees].
    share : float in 0..1
        The shift is uniform in [-share, share] of the width, and of the height.
    rng : numpy.random.RandomState
    fill : int, default 128
        Grey level, 0..255, of the areas left empty.

    Returns
    -------
    PIL.Image
    """
    angle = rng.uniform(-degrees, degrees)
    width, height = picture.size
    shift = round(rng.uniform(-share, share) * width), round(rng.uniform(-share, share) * height)
    return picture.rotate(angle, Image.Resampling.BILINEAR, translate=shift, fillcolor=_filled(picture, fill))


def colour_jitter(picture: Image.Image, brightness: float, contrast: float, saturation: float, hue: float,
                  rng: np.random.RandomState) -> Image.Image:
    """Changes brightness, contrast, saturation and hue by random amounts, in random order.

    As torchvision's `ColorJitter`: brightness blends with black, contrast with the mean grey, saturation with the
    grey image (Pillow's `ImageEnhance`); hue turns the H of HSV. Those with value 0 draw no random number.

    Parameters
    ----------
    picture : PIL.Image
        Mode RGB or L; the hue of a grey picture stays.
    brightness, contrast, saturation : float
        The factor is uniform in [max(0, 1 - v), 1 + v]; 0 is off.
    hue : float in 0..0.5
        The shift is uniform in [-v, v], in turns of the colour circle; 0 is off.
    rng : numpy.random.RandomState

    Returns
    -------
    PIL.Image
    """
    steps = [(ImageEnhance.Brightness, brightness), (ImageEnhance.Contrast, contrast),
             (ImageEnhance.Color, saturation), (None, hue)]
    steps = [(kind, amount) for kind, amount in steps if amount]
    for i in rng.permutation(len(steps)) if steps else ():
        kind, amount = steps[i]
        if kind is None:
            picture = _turn_hue(picture, rng.uniform(-amount, amount))
        else:
            picture = kind(picture).enhance(rng.uniform(max(0.0, 1 - amount), 1 + amount))
    return picture


def _turn_hue(picture, turns):
    if picture.mode != "RGB":
        return picture
    hsv = np.array(picture.convert("HSV"))
    hsv[..., 0] = (hsv[..., 0].astype(np.int16) + round(turns * 255)) % 256
    return Image.frombytes("HSV", picture.size, hsv.tobytes()).convert("RGB")


def erase(image: np.ndarray, probability: float, area: tuple[float, float], ratio: tuple[float, float],
          rng: np.random.RandomState) -> np.ndarray:
    """Fills a random rectangle with noise, uniform in 0..255 for each value, with a given probability.

    Random Erasing, Zhong et al. 2017, https://arxiv.org/abs/1708.04896 (RE-R; its s_l, s_h = 0.02, 0.4 and r_1 = 0.3
    are the defaults of `Augmentation`). If none of ten tries fits, the image stays as it is.

    Parameters
    ----------
    image : ndarray
        uint8 (height, width, 3) or (height, width); it is not changed.
    probability : float in 0..1
        That a rectangle is erased.
    area, ratio : (low, high)
        As in `draw_size`.
    rng : numpy.random.RandomState

    Returns
    -------
    ndarray
        A copy with the rectangle, or `image` itself.
    """
    if not probability or rng.uniform() >= probability:
        return image
    height, width = image.shape[:2]
    for _ in range(TRIES):
        w, h = draw_size(height, width, rng, area, ratio)
        if 0 < w < width and 0 < h < height:
            x, y = rng.randint(0, width - w + 1), rng.randint(0, height - h + 1)
            image = image.copy()
            image[y:y + h, x:x + w] = rng.randint(0, 256, (h, w, *image.shape[2:]))
            return image
    return image


def draw_size(height: int, width: int, rng: np.random.RandomState, area: tuple[float, float],
              ratio: tuple[float, float]) -> tuple[int, int]:
    """Draws the size of a rectangle in an image; it may be larger than the image, or empty.

    Parameters
    ----------
    height, width : int
        Of the image, pixels.
    rng : numpy.random.RandomState
    area : (low, high)
        The rectangle's share of the image's area is uniform between these.
    ratio : (low, high)
        Its width over its height is log-uniform between these, so that wide and tall rectangles are equally likely.

    Returns
    -------
    (width, height)
        In pixels.
    """
    pixels = rng.uniform(*area) * height * width
    aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
    return round(math.sqrt(pixels * aspect)), round(math.sqrt(pixels / aspect))


def rand_augment(picture: Image.Image, n: int, m: int, rng: np.random.RandomState, fill: int = 128) -> Image.Image:
    """Applies `n` operations, each drawn from `OPERATIONS` with equal chance, all of strength `m`.

    RandAugment, Cubuk et al. 2019, https://arxiv.org/abs/1909.13719, with the 14 operations of its section 3 and
    the ranges of torchvision's `RandAugment` (31 strengths): shear up to 0.3, translation up to 150/331 of the size,
    rotation up to 30 degrees, colour, contrast, brightness and sharpness up to 1 +- 0.9, posterise down to 4 bits,
    solarise from 255 down to 0. Operations with a direction go either way with equal chance.

    Parameters
    ----------
    picture : PIL.Image
        Mode RGB or L.
    n : int
        Number of operations; the same one may be drawn again.
    m : int in 0..30
        Their strength: 30 is the far end of the ranges above.
    rng : numpy.random.RandomState
    fill : int, default 128
        Grey level, 0..255, of the areas that rotation, translation and shear leave empty.

    Returns
    -------
    PIL.Image
    """
    names = sorted(OPERATIONS)
    for _ in range(n):
        name = names[rng.randint(len(names))]
        sign = 1 if rng.randint(2) else -1
        picture = OPERATIONS[name](picture, m / MAX_MAGNITUDE, sign, fill)
    return picture


def _affine(picture, matrix, fill):
    return picture.transform(picture.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR,
                             fillcolor=_filled(picture, fill))


def _filled(picture, fill):
    return fill if picture.mode == "L" else (fill,) * 3


def _enhance(kind):
    return lambda picture, level, sign, fill: kind(picture).enhance(1 + sign * 0.9 * level)


def _shear_x(picture, level, sign, fill):
    slope = sign * 0.3 * level
    return _affine(picture, (1, slope, -slope * picture.height / 2, 0, 1, 0), fill)


def _shear_y(picture, level, sign, fill):
    slope = sign * 0.3 * level
    return _affine(picture, (1, 0, 0, slope, 1, -slope * picture.width / 2), fill)


def _translate_x(picture, level, sign, fill):
    return _affine(picture, (1, 0, sign * round(150 / 331 * level * picture.width), 0, 1, 0), fill)


def _translate_y(picture, level, sign, fill):
    return _affine(picture, (1, 0, 0, 0, 1, sign * round(150 / 331 * level * picture.height)), fill)


def _rotate(picture, level, sign, fill):
    return picture.rotate(sign * 30 * level, Image.Resampling.BILINEAR, fillcolor=_filled(picture, fill))


# name -> operation(picture, strength 0..1, sign 1 or -1, fill)
OPERATIONS = {
    "identity": lambda picture, level, sign, fill: picture,
    "autocontrast": lambda picture, level, sign, fill: ImageOps.autocontrast(picture),
    "equalize": lambda picture, level, sign, fill: ImageOps.equalize(picture),
    "posterize": lambda picture, level, sign, fill: ImageOps.posterize(picture, 8 - round(4 * level)),
    "solarize": lambda picture, level, sign, fill: ImageOps.solarize(picture, round(255 * (1 - level))),
    "color": _enhance(ImageEnhance.Color), "contrast": _enhance(ImageEnhance.Contrast),
    "brightness": _enhance(ImageEnhance.Brightness), "sharpness": _enhance(ImageEnhance.Sharpness),
    "rotate": _rotate, "shear_x": _shear_x, "shear_y": _shear_y,
    "translate_x": _translate_x, "translate_y": _translate_y,
}
