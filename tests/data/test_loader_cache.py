"""What loaders decode: once with a cache of bounded size, and large JPEGs at a reduced scale."""
from __future__ import annotations

import numpy as np
from loader_images import folder_fixture, make_folder, opened, rows  # noqa: F401  (fixtures)

from gluon_ft.data import loader as loaders
from gluon_ft.data.sources import base


def test_the_cache_is_bounded_and_decodes_once(folder, monkeypatch):
    decoded = []
    decode = base.decode_rgb
    monkeypatch.setattr("gluon_ft.data.sources.base.decode_rgb", lambda *args: decoded.append(1) or decode(*args))
    loader = opened(folder, cache="memory", workers=2)
    first, second = rows(loader)[0], rows(loader)[0]
    np.testing.assert_array_equal(first, second)
    assert len(decoded) == 21 and len(loader.memory) == 21 and loader.memory.bytes == 21 * 32 * 32 * 3
    decoded.clear()
    short = opened(folder, cache="memory", cache_bytes=5 * 32 * 32 * 3, workers=0)
    np.testing.assert_array_equal(rows(short)[0], first)
    np.testing.assert_array_equal(rows(short)[0], first)
    assert len(short.memory) == 5 and len(decoded) == 21 + 16 and short.memory.bytes <= 5 * 32 * 32 * 3


def test_large_jpegs_are_decoded_at_reduced_scale(tmp_path, monkeypatch):
    make_folder(tmp_path / "large", per_class=1, suffix=".jpg", sides=(700, 900))
    seen = []
    prepare = loaders.Transform.prepare
    monkeypatch.setattr(loaders.Transform, "prepare", lambda self, image: seen.append(image.shape) or
                        prepare(self, image))
    reduced = rows(opened(tmp_path / "large"))[0]
    assert len(seen) == 3 and all(80 <= min(shape[:2]) < 160 for shape in seen)
    seen.clear()
    exact = rows(opened(tmp_path / "large", exact_decoding=True))[0]
    assert all(min(shape[:2]) >= 700 for shape in seen)
    assert 0 < np.abs(reduced - exact).mean() < 4
    seen.clear()
    rows(opened(tmp_path / "large", True))
    # The smallest part of 0.08 of the area must still have 32 pixels.
    assert all(131 <= min(shape[:2]) < 262 for shape in seen)
