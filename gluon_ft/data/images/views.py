"""The views of an image for test-time augmentation: parts at several places and zooms, and their mirror images.

| views | with mirror images | without, for text, digits and whatever has a left and a right |
|---|---|---|
| 2 | the centre and its mirror image | the centre, and closer by 8/7 |
| 4 | the centre, and closer by 8/7, each with its mirror image | the centre, and closer by 15/14, 8/7 and 17/14 |
| 5 | the centre and the four corners | the same |
| 10 | those five, each with its mirror image (Krizhevsky et al. 2012) | those five, and closer by 8/7 |

The centre is what evaluation sees without views. 8/7 is 256/224, the usual resize of a photo over the usual input;
where the resize leaves less room than that around the input, corners are cut from an image resized to 8/7 of the input.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from gluon_ft.data.images.preprocessing import Preprocessing
from gluon_ft.data.images.transforms import Transform, crop_at
from gluon_ft.errors import ConfigError

NUMBERS = (2, 4, 5, 10)
_CLOSER = 8 / 7
_CENTRE = (0.5, 0.5)
_FIVE = (_CENTRE, (0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0))


@dataclass(frozen=True)
class View:
    """A part of an image: at `place` (0..1 of the room to the right and downwards), `zoom` times as close, mirrored."""

    place: tuple[float, float] = _CENTRE
    zoom: float = 1.0
    mirrored: bool = False


def of(number: int, mirror: bool) -> list[View]:
    """The views for a number of them, see the table at the top of this file; the first is the centre.

    Parameters
    ----------
    number : {2, 4, 5, 10}
    mirror : bool
        Whether mirror images show the same class.

    Raises
    ------
    ConfigError
        For another number.
    """
    if isinstance(number, bool) or number not in NUMBERS:
        raise ConfigError("no such number of views", expected=", ".join(map(str, NUMBERS)), found=repr(number))
    if number == 5:
        return [View(place) for place in _FIVE]
    if mirror:
        plain = {2: [View()], 4: [View(), View(zoom=_CLOSER)], 10: [View(place) for place in _FIVE]}[number]
        return [View(one.place, one.zoom, mirrored) for mirrored in (False, True) for one in plain]
    if number == 10:
        return [View(place, zoom) for zoom in (1.0, _CLOSER) for place in _FIVE]
    return [View(zoom=zoom) for zoom in ((1.0, _CLOSER) if number == 2 else (1.0, 15 / 14, _CLOSER, 17 / 14))]


def prepare(image: np.ndarray, views: Sequence[View], transform: Transform, out: np.ndarray) -> None:
    """Writes the views of an image as a network's input.

    Parameters
    ----------
    image : ndarray
        uint8 (height, width, 3) in RGB, or (height, width).
    views : sequence of View
    transform : Transform
        Of evaluation.
    out : ndarray
        float32 (views, channels, size, size); the result is written here.

    Raises
    ------
    header.Unreadable
        The image cannot be resized.
    """
    for view, place in zip(views, out):
        part = transform.prepare(image) if (view.place, view.zoom) == (_CENTRE, 1.0) else \
            crop_at(image, transform.preprocessing, view.place, _edge(transform.preprocessing, view))
        transform.finish(cv2.flip(part, 1) if view.mirrored else part, place)


def _edge(wanted: Preprocessing, view: View) -> int:
    """Length to which the shorter edge is resized for a view, pixels."""
    edge = wanted.resize or wanted.size
    if view.place != _CENTRE:
        edge = max(edge, math.ceil(wanted.size * _CLOSER))
    return round(edge * view.zoom)
