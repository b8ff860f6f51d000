"""Draws simple pictures of a few things from a seed, as data for quick runs without photos."""
from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from gluon_ft.errors import ConfigError, near

_SCALE = 4  # pictures are drawn this much larger and then reduced, for smooth edges
_NOTHING = (0, 0, 0, 0)


def _hotdog(draw, shade):
    draw.ellipse((14, 42, 114, 86), fill=shade(214, 160, 90))
    draw.rounded_rectangle((8, 54, 120, 74), 10, fill=shade(168, 60, 40))
    wave = [(x, 64 + 5 * math.sin(x / 7)) for x in range(16, 114, 3)]
    draw.line(wave, fill=shade(240, 205, 60), width=5)


def _pizza(draw, shade):
    draw.ellipse((14, 14, 114, 114), fill=shade(205, 150, 80))
    draw.ellipse((24, 24, 104, 104), fill=shade(235, 195, 95))
    for x, y in ((45, 45), (80, 50), (60, 82), (84, 80), (38, 70)):
        draw.ellipse((x - 8, y - 8, x + 8, y + 8), fill=shade(170, 50, 40))


def _burger(draw, shade):
    draw.pieslice((20, 22, 108, 98), 180, 360, fill=shade(205, 145, 75))
    draw.rectangle((18, 60, 110, 68), fill=shade(90, 160, 70))
    draw.rectangle((20, 68, 108, 82), fill=shade(105, 60, 40))
    draw.rounded_rectangle((20, 82, 108, 104), 9, fill=shade(205, 145, 75))


def _banana(draw, shade):
    draw.pieslice((8, 8, 120, 112), 10, 170, fill=shade(240, 215, 70))
    draw.ellipse((4, -20, 124, 82), fill=_NOTHING)


def _egg(draw, shade):
    draw.ellipse((18, 26, 110, 104), fill=shade(245, 243, 238))
    draw.ellipse((48, 50, 82, 82), fill=shade(245, 180, 40))


def _donut(draw, shade):
    draw.ellipse((16, 16, 112, 112), fill=shade(225, 130, 165))
    draw.ellipse((46, 46, 82, 82), fill=_NOTHING)


def _cat(draw, shade):
    fur = shade(140, 130, 125)
    draw.ellipse((24, 34, 104, 112), fill=fur)
    draw.polygon((26, 60, 28, 10, 60, 38), fill=fur)
    draw.polygon((102, 60, 100, 10, 68, 38), fill=fur)
    _face(draw, shade, 6)
    for y in (80, 88):
        draw.line((12, y - 4, 48, y), fill=shade(240, 240, 240), width=2)
        draw.line((80, y, 116, y - 4), fill=shade(240, 240, 240), width=2)


def _dog(draw, shade):
    ears = shade(95, 65, 45)
    draw.ellipse((28, 22, 100, 112), fill=shade(165, 120, 80))
    draw.ellipse((12, 26, 38, 92), fill=ears)
    draw.ellipse((90, 26, 116, 92), fill=ears)
    draw.ellipse((44, 70, 84, 110), fill=shade(215, 185, 150))
    _face(draw, shade, 9)


def _face(draw, shade, nose):
    for x in (48, 80):
        draw.ellipse((x - 6, 56, x + 6, 68), fill=shade(30, 30, 30))
    draw.ellipse((64 - nose, 78, 64 + nose, 78 + nose), fill=shade(40, 25, 25))


_THINGS = {"hotdog": _hotdog, "pizza": _pizza, "burger": _burger, "banana": _banana, "egg": _egg, "donut": _donut,
           "cat": _cat, "dog": _dog}
THINGS = tuple(_THINGS)


def draw(things: Sequence[str], seed: int = 0, size: int = 32, noise: float = 8.0) -> np.ndarray:
    """Draws one picture for each thing, with random colours, position, angle, size and background.

    Parameters
    ----------
    things : sequence of str
        For each picture a name from `THINGS`.
    seed : int, default 0
        0 or more. A picture depends only on the seed, its position and the thing.
    size : int, default 32
        Height and width in pixels.
    noise : float, default 8
        Standard deviation of the noise, in grey levels.

    Returns
    -------
    ndarray
        uint8 (n, size, size, 3), RGB.

    Raises
    ------
    ConfigError
        A name is not in `THINGS`.
    """
    for thing in things:
        if thing not in _THINGS:
            raise ConfigError(f"no drawing of '{thing}'", remedy=near(thing, THINGS))
    return np.stack([_picture(thing, np.random.RandomState((seed, position)), size, noise)
                     for position, thing in enumerate(things)])


def _picture(thing, rng, size, noise):
    def shade(*colour):
        return tuple(int(v) for v in np.clip(np.array(colour) + rng.randint(-20, 21, 3), 0, 255))

    layer = Image.new("RGBA", (128, 128))
    _THINGS[thing](ImageDraw.Draw(layer), shade)
    layer = layer.rotate(rng.uniform(-30, 30), Image.Resampling.BILINEAR)
    across = int(size * _SCALE * rng.uniform(0.7, 1.0))
    layer = layer.resize((across, across), Image.Resampling.BILINEAR)
    canvas = _background(rng, size * _SCALE)
    room = size * _SCALE - across
    canvas.paste(layer, (rng.randint(room + 1), rng.randint(room + 1)), layer)
    small = np.asarray(canvas.resize((size, size), Image.Resampling.BOX), dtype=np.float32)
    return np.clip(small + rng.normal(0, noise, small.shape), 0, 255).astype(np.uint8)


def _background(rng, edge):
    """A gradient between two pale colours, with a few blurred ellipses in other colours."""
    ends = rng.randint(150, 256, (2, 3)).astype(np.float32)
    share = np.linspace(0, 1, edge, dtype=np.float32)[:, None, None]
    canvas = Image.fromarray(np.broadcast_to(ends[0] + (ends[1] - ends[0]) * share, (edge, edge, 3)).astype(np.uint8))
    canvas = canvas.rotate(90 * rng.randint(4))
    pencil = ImageDraw.Draw(canvas)
    for _ in range(3):
        x, y, r = rng.randint(0, edge, 3)
        pencil.ellipse((x - r // 3, y - r // 3, x + r // 3, y + r // 3), fill=tuple(map(int, rng.randint(120, 256, 3))))
    return canvas.filter(ImageFilter.GaussianBlur(edge / 24))
