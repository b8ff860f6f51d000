"""A network is measured on images that neither it nor its temperature was fitted to."""
from __future__ import annotations

import csv

import numpy as np
import photos
import pytest

from gluon_ft.data.sources.arrays import ArraySource
from gluon_ft.data.sources.folders import scan
from gluon_ft.evaluation import calibration, folds, measures
from gluon_ft.finetune import held_out
from gluon_ft.finetune.settings import JobSettings


def overconfident(images, classes=4, seed=0, factor=4.0):
    """Probabilities of a calibrated network, sharpened; labels drawn from the calibrated ones."""
    rng = np.random.RandomState(seed)
    logits = rng.randn(images, classes) * 2
    right = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = np.array([rng.choice(classes, p=row) for row in right])
    sharp = np.exp(factor * (logits - logits.max(1, keepdims=True)))
    return (sharp / sharp.sum(1, keepdims=True)).astype(np.float32), labels


def test_the_temperature_of_sharpened_probabilities_is_found():
    probabilities, labels = overconfident(2000)
    temperature, held, found = held_out.judge(probabilities, labels, list("abcd"), calibrated=False)
    assert temperature == pytest.approx(4, rel=0.15)
    assert np.array_equal(held.argmax(1), probabilities.argmax(1))
    about = found["calibration"]
    assert about["ece_after"] < 0.05 < 0.1 < about["ece_before"]
    assert about["log_loss_after"] == found["measures"]["log_loss"] < about["log_loss_before"]


@pytest.mark.parametrize("calibrated, images", [(True, 50), (False, 1)])
def test_none_where_there_is_nothing_to_fit(calibrated, images):
    probabilities, labels = overconfident(images)
    temperature, same, found = held_out.judge(probabilities, labels, list("abcd"), calibrated)
    assert temperature is None and same is probabilities and set(found) == {"measures"}


def test_no_image_is_judged_by_a_temperature_that_it_had_a_part_in():
    """The label of an image moves the others' calibrated probabilities, and not its own."""
    probabilities, labels = overconfident(30)
    before = calibration.held_out_tempered(probabilities, labels)
    for image in (0, 7):
        other = labels.copy()
        other[image] = (other[image] + 1) % 4
        after = calibration.held_out_tempered(probabilities, other)
        assert np.array_equal(after[image], before[image]) and not np.array_equal(after, before)


@pytest.mark.parametrize("images", [3, 60])
def test_images_that_are_all_right_do_not_make_it_certain(images):
    probabilities = np.full((images, 20), 0.2 / 19)
    labels = np.arange(images) % 20
    probabilities[np.arange(images), labels] = 0.8
    assert 0.2 < calibration.fit_temperature(probabilities, labels) < 1


def test_few_images_of_many_classes_do_not_make_it_shy():
    """Three images of each of 20 classes, with probabilities that are right: they stay nearly as they are."""
    rng = np.random.RandomState(0)
    logits = 3 * rng.randn(60, 20)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = np.array([rng.choice(20, p=row) for row in probabilities])
    assert 0.7 < calibration.fit_temperature(probabilities, labels) < 1.4


def test_labels_of_noise_are_not_made_to_look_calibrated():
    """Where predictions say nothing, a temperature fitted to the same images would still report a lower log loss."""
    rng = np.random.RandomState(0)
    losses = []
    for seed in range(20):
        probabilities = overconfident(12, seed=seed)[0]
        labels = rng.randint(0, 4, 12)
        held = calibration.held_out_tempered(probabilities, labels)
        losses.append(measures.measure(labels, held, list("abcd")).log_loss)
    assert np.mean(losses) > np.log(4) - 0.05


def test_predictions_are_told_by_the_images_bytes(tmp_path):
    source = scan(photos.make(tmp_path / "photos", count=2))
    probabilities = np.eye(3)[[0, 0, 1, 2, 2, 2]]
    held_out.write_predictions(tmp_path, source, source.labels, probabilities, source.class_names)
    rows = list(csv.DictReader((tmp_path / "predictions.csv").open()))
    assert [row["sha256"] for row in rows] == source.hashes()[0] and rows[0]["file"] == "blue/00.png"
    assert [row["prediction"] for row in rows] == ["blue", "blue", "green", "red", "red", "red"]
    arrays = ArraySource(np.zeros((2, 4, 4), np.uint8), [0, 1], ["a", "b"])
    held_out.write_predictions(tmp_path, arrays, arrays.labels, np.eye(2), ["a", "b"])
    assert len(list(csv.DictReader((tmp_path / "predictions.csv").open()))) == 2


def test_copies_stay_in_one_of_the_folds_that_choose_the_classifier(monkeypatch):
    random = np.random.RandomState(0)
    images, labels, groups = random.normal(size=(12, 4)), np.arange(12) % 2, np.arange(12)
    groups[2] = groups[0]
    seen = []
    fold = folds.folds
    monkeypatch.setattr(folds, "folds", lambda *given: seen.append(fold(*given)) or seen[-1])
    wanted = JobSettings(data="photos", strategy="linear")
    held_out.fit_classifier(images, labels, wanted, groups)
    assert all((0 in held) == (2 in held) for _, held in seen[0])
    groups[:] = labels  # nothing but copies: they cannot be divided, and are taken as they are
    assert held_out.fit_classifier(images, labels, wanted, groups).probabilities(images).shape == (12, 2)
