"""What more photos would bring: the law is found again in errors that follow it, subsets are nested, forecasts hold."""
from __future__ import annotations

import json

import numpy as np
import photos
import pytest
from PIL import Image
from train_runs import gluon_ft_command, source_fixture  # noqa: F401  (a fixture)

from gluon_ft.errors import DataError
from gluon_ft.evaluation import linear
from gluon_ft.finetune import learning_curve
from gluon_ft.finetune.learning_curve import Law


@pytest.mark.parametrize("law", [Law(0, 2, 0.5), Law(0.05, 1.5, 0.6), Law(0.2, 0.5, 0.3), Law(0, 0.9, 0.07)])
def test_a_law_is_found_again(law):
    sizes = np.geomspace(20, 300, 6)
    found = learning_curve.fitted(sizes, law.error(sizes))
    assert abs(float(found.error(600)) - float(law.error(600))) < 0.01
    assert 0 <= found.floor <= law.error(sizes).min() and found.scale > 0 and 0.05 <= found.exponent <= 1


@pytest.mark.parametrize("errors", [[0] * 6, [0.5] * 6, [0.1, 0.2, 0.1, 0.3, 0.2, 0.1], [1] * 6, [0.3, 0, 0, 0, 0, 0]])
def test_errors_that_follow_no_law_give_numbers_all_the_same(errors):
    found = learning_curve.fitted(np.geomspace(20, 300, 6), np.array(errors, float))
    assert np.isfinite(found).all() and 0 <= found.error(600) <= max(errors) + 0.01


def test_subsets_are_nested_with_equal_shares():
    labels = np.repeat([0, 1, 2], [80, 40, 5])
    parts = learning_curve.nested(labels, seed=1)
    assert len(parts) == learning_curve.STEPS and len(parts[-1]) == len(labels)
    for small, large in zip(parts, parts[1:]):
        assert set(small) < set(large)
    for part in parts:
        counts = np.bincount(labels[part], minlength=3)
        assert counts.min() >= 2 and abs(counts[0] - 2 * counts[1]) <= 2


def _blobs(each, seed=0, classes=3, width=20, spread=0.45):
    rng = np.random.RandomState(seed)
    labels = np.repeat(np.arange(classes), each)
    centres = np.random.RandomState(5).randn(classes, width) * spread
    centres[1] = centres[0] + 0.6 * (centres[1] - centres[0])  # these two are mixed up
    centres[2] *= 6
    return centres[labels] + rng.randn(len(labels), width), labels


def test_the_forecast_holds_for_twice_as_many():
    curve = learning_curve.measure(*_blobs(60), ["a", "b", "c"])
    assert curve.images == 180 and curve.errors.shape == (5, 6) and curve.class_errors.shape == (6, 3)
    assert np.allclose(curve.class_errors.mean(axis=1), curve.errors.mean(axis=0), atol=0.02)
    features, labels = _blobs(60)
    others, right = _blobs(300, seed=2)
    more, theirs = _blobs(60, seed=3)
    fitted = linear.fit_once(np.concatenate([features, more]), np.concatenate([labels, theirs]), "logistic", C=0.01)
    truth = (fitted.logits(others).argmax(axis=1) == right).mean()
    forecast = curve.forecast(2)
    assert forecast.low <= forecast.accuracy <= forecast.high
    assert abs(forecast.accuracy - truth) < 0.05
    gains = curve.by_class(2)
    assert {one.name for one in gains[:2]} == {"a", "b"} and gains[0].gain >= gains[-1].gain >= 0


def test_a_class_with_too_few_images():
    with pytest.raises(DataError, match="found 3 of 'b'"):
        learning_curve.measure(np.random.rand(13, 4), np.repeat([0, 1], [10, 3]), ["a", "b"])


def test_the_command(source, tmp_path):
    folder, plot = photos.make(tmp_path / "photos", count=12), tmp_path / "curve.png"
    out = gluon_ft_command("advise", folder, "--more-photos", "--pretrained", source, "-o", plot, "--json")
    found = json.loads(out.splitlines()[-1])["more_photos"]
    assert found["images"] == 36 and len(found["measured"]) == 6 and len(found["classes"]) == 3
    assert found["forecast"]["low"] <= found["forecast"]["accuracy"] <= found["forecast"]["high"]
    assert "with 2 times as many:" in out and "classes that would gain most" in out and Image.open(plot).size[0] > 300
    assert "--out is of --more-photos" in gluon_ft_command("advise", folder, "-o", plot, status=2)
