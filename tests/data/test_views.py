"""Views of an image for test-time augmentation: the first is evaluation's, the others are what the table says."""
from __future__ import annotations

import numpy as np
import pytest

from gluon_ft.data.images import views
from gluon_ft.data.images.preprocessing import Preprocessing
from gluon_ft.data.images.transforms import Transform
from gluon_ft.errors import ConfigError

IMAGE = np.random.RandomState(0).randint(0, 256, (60, 90, 3)).astype(np.uint8)


def seen(number, mirror, how, image=IMAGE):
    out = np.empty((number, 3, how.size, how.size), np.float32)
    views.prepare(image, views.of(number, mirror), Transform(how), out)
    return out


@pytest.mark.parametrize("resize", [36, 32, None])
@pytest.mark.parametrize("mirror", [True, False])
@pytest.mark.parametrize("number", views.NUMBERS)
def test_all_differ_and_the_first_is_evaluations(number, mirror, resize):
    how = Preprocessing(size=32, resize=resize)
    found = seen(number, mirror, how)
    assert np.array_equal(found[0], Transform(how)(IMAGE))
    assert all(not np.array_equal(found[i], found[j]) for i in range(number) for j in range(i))
    mirrored = [view.mirrored for view in views.of(number, mirror)]
    assert sum(mirrored) == (number // 2 if mirror and number != 5 else 0)
    for one, flipped in zip(found, found[number // 2:] if any(mirrored) else []):
        assert np.array_equal(one, flipped[:, :, ::-1])


def test_corners():
    how = Preprocessing(mean=(0, 0, 0), std=(1, 1, 1), scale=1, size=56, resize=64)
    square = np.random.RandomState(0).randint(0, 256, (64, 64, 3)).astype(np.uint8)
    found = seen(5, False, how, square)
    for part, (top, left) in zip(found, [(4, 4), (0, 0), (0, 8), (8, 0), (8, 8)]):
        assert np.array_equal(part, square[top:top + 56, left:left + 56].transpose(2, 0, 1))


@pytest.mark.parametrize("number", [0, 1, 3, True, 2.5, "4"])
def test_other_numbers(number):
    with pytest.raises(ConfigError, match="no such number of views; expected 2, 4, 5, 10"):
        views.of(number, True)
