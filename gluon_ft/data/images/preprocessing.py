"""Preprocessing: what a network's input must look like; it travels with weights, manifests, checkpoints and exports."""
from __future__ import annotations

from dataclasses import dataclass, replace

from gluon_ft.errors import ConfigError, near
from gluon_ft.io import settings

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "area", "lanczos")
_CHANNELS = {"rgb": 3, "bgr": 3, "gray": 1}
MOST_PIXELS = 8192  # of an edge; one such input takes 0.8 GB
_LARGEST, _LEAST = 1e6, 1e-6  # bounds on mean, std and scale, so that no input becomes infinite


@dataclass(frozen=True)
class Preprocessing:
    """How a decoded 8-bit image becomes a network's input: resize, crop, `(x / scale - mean) / std`, rotate.

    Parameters
    ----------
    mean, std : tuple of float
        One number per channel, in `channel_order`, for values already divided by `scale`. Default: ImageNet's.
    scale : float
        255 for inputs in 0..1 (default), 1 for inputs in 0..255.
    channel_order : {'rgb', 'bgr', 'gray'}
    size : int
        Height and width of the input, pixels.
    resize : int or None
        Length of the shorter edge before evaluation's centre crop, pixels; None: no resize (the images have `size`).
    interpolation : str
        One of 'nearest', 'bilinear', 'bicubic', 'area', 'lanczos'.
    rotate180 : bool
        Rotate by 180 degrees, as the last step.
    mirror : bool
        Average the network's outputs for an image and for its mirror image. This does not change how images are
        prepared: evaluation and prediction run both (`engine.fused.evaluating`).

    Raises
    ------
    ConfigError
        For a value out of range.
    """

    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    scale: float = 255.0
    channel_order: str = "rgb"
    size: int = 224
    resize: int | None = 256
    interpolation: str = "bilinear"
    rotate180: bool = False
    mirror: bool = False

    def __post_init__(self):
        if not isinstance(self.channel_order, str) or self.channel_order not in _CHANNELS:
            raise ConfigError(f"unknown channel order '{self.channel_order}'",
                              remedy=near(self.channel_order, _CHANNELS))
        for name in ("mean", "std"):
            object.__setattr__(self, name, self._channels(name))
        if min(self.std) < _LEAST:
            raise ConfigError("preprocessing: std must be above 0", expected=f"at least {_LEAST:g}", found=self.std)
        if not _number(self.scale) or self.scale < _LEAST:
            raise ConfigError("preprocessing: scale must be above 0", expected="255 or 1", found=self.scale)
        object.__setattr__(self, "scale", float(self.scale))
        if not _pixels(self.size) or not (self.resize is None or _pixels(self.resize)):
            raise ConfigError("preprocessing: size and resize are pixels",
                              expected=f"whole numbers from 1 to {MOST_PIXELS}",
                              found=f"size {self.size}, resize {self.resize}")
        if self.resize is not None and self.resize < self.size:
            raise ConfigError("preprocessing: the crop is larger than the resized image",
                              found=f"size {self.size}, resize {self.resize}")
        if not isinstance(self.interpolation, str) or self.interpolation not in INTERPOLATIONS:
            raise ConfigError(f"unknown interpolation '{self.interpolation}'",
                              remedy=near(self.interpolation, INTERPOLATIONS))
        for name in ("rotate180", "mirror"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"preprocessing: {name} is true or false", found=getattr(self, name))

    def _channels(self, name):
        values = getattr(self, name)
        count = _CHANNELS[self.channel_order]
        if not isinstance(values, (tuple, list)) or len(values) != count or not all(_number(v) for v in values):
            raise ConfigError(f"preprocessing: {name} has one number a channel",
                              expected=f"{count} for channel order '{self.channel_order}'", found=values)
        return tuple(float(v) for v in values)

    @property
    def channels(self) -> int:
        """Channels of the input, 3 or 1."""
        return _CHANNELS[self.channel_order]

    @property
    def range(self) -> tuple[float, float]:
        """Lowest and highest pixel value before mean and std are applied: (0, 1) or (0, 255)."""
        return (0.0, 255.0 / self.scale)

    @property
    def crop_fraction(self) -> float:
        """Size over resize: the share of the shorter edge that the centre crop keeps (0.875 for 224 of 256)."""
        return 1.0 if self.resize is None else self.size / self.resize

    def with_size(self, size: int) -> Preprocessing:
        """The same for inputs of `size` pixels, with `resize` scaled in proportion."""
        return replace(self, size=size, resize=self.resize and round(size * self.resize / self.size))

    def to_dict(self) -> dict:
        """Plain values only, for JSON and TOML; `mirror` only where it is true, since older files do not have it."""
        values = settings.to_dict(self)
        if not self.mirror:
            del values["mirror"]
        return values

    @classmethod
    def from_dict(cls, values: dict) -> Preprocessing:
        """The inverse of `to_dict`; missing keys take their defaults. ConfigError for an unknown key."""
        return settings.from_dict(cls, values, "preprocessing ")

    def __str__(self) -> str:
        values = f"{self.channel_order} in 0..{self.range[1]:g}"
        if any(self.mean) or any(s != 1 for s in self.std):
            values += f", mean {_list(self.mean)}, std {_list(self.std)}"
        shape = f"{self.size}x{self.size}"
        if self.resize is not None:
            shape += f" of {self.resize} ({self.interpolation})"
        return (f"{shape}, {values}{', rotated by 180 degrees' if self.rotate180 else ''}"
                f"{', averaged with its mirror image' if self.mirror else ''}")


def _list(values):
    return " ".join(f"{v:.4g}" for v in values)


def _number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _LARGEST


def _pixels(value):
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_PIXELS
