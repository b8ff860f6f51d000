"""Measures: equal to scikit-learn's on the same predictions, by hand where it has none, and clear about bad input."""
from __future__ import annotations

import json
import math

import numpy as np
import pytest
from sklearn import metrics

from gluon_ft.errors import ConfigError, DataError
from gluon_ft.evaluation.measures import expected_calibration_error, measure, reliability, wilson


def drawn(images, classes, seed=0, sharp=2.0):
    """Labels of every class, and probabilities that lean towards them."""
    rng = np.random.RandomState(seed)
    labels = np.concatenate([np.arange(classes), rng.randint(0, classes, images - classes)])
    logits = rng.randn(images, classes) + sharp * np.eye(classes)[labels]
    exp = np.exp(logits)
    return labels, (exp / exp.sum(1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("images, classes", [(40, 2), (60, 3), (200, 20)])
def test_equal_to_scikit_learns(images, classes):
    labels, probabilities = drawn(images, classes)
    names = [f"class {i}" for i in range(classes)]
    found = measure(labels, probabilities, names)
    predicted = probabilities.argmax(1)
    report = metrics.classification_report(labels, predicted, target_names=names, output_dict=True, zero_division=0)
    for row in found.by_class:
        theirs = report[row["class"]]
        assert (row["precision"], row["recall"], row["f1"], row["images"]) == pytest.approx(
            (theirs["precision"], theirs["recall"], theirs["f1-score"], theirs["support"]), abs=1e-12)
    for average in ("macro", "weighted"):
        theirs = report[f"{average} avg"]
        assert list(found.averages[average].values()) == pytest.approx(
            [theirs["precision"], theirs["recall"], theirs["f1-score"]], abs=1e-12)
    exact = probabilities.astype(np.float64) / probabilities.astype(np.float64).sum(1, keepdims=True)
    assert found.accuracy == pytest.approx(report["accuracy"], abs=1e-12)
    assert found.mean_class_accuracy == pytest.approx(metrics.balanced_accuracy_score(labels, predicted), abs=1e-12)
    assert found.log_loss == pytest.approx(metrics.log_loss(labels, exact), abs=1e-9)
    assert np.array_equal(found.confusion, metrics.confusion_matrix(labels, predicted))
    assert found.top_k == ({5: pytest.approx(metrics.top_k_accuracy_score(labels, exact, k=5))} if classes > 5 else {})
    assert found.auc == (pytest.approx(metrics.roc_auc_score(labels, exact[:, 1])) if classes == 2 else None)
    assert json.loads(json.dumps(found.to_dict()))["confusion"] == found.confusion.tolist()


def test_a_class_without_images_is_no_part_of_the_means():
    labels, probabilities = np.array([0, 0, 1]), np.array([[.8, .1, .1], [.1, .1, .8], [.2, .7, .1]])
    found = measure(labels, probabilities, ["a", "b", "c"])
    assert found.mean_class_accuracy == 0.75 == found.averages["macro"]["recall"]
    assert found.by_class[2] == {"class": "c", "images": 0, "predicted": 1, "precision": None, "recall": None,
                                 "f1": None}
    assert found.confusion.tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize("correct, images", [(81, 100), (10, 10), (0, 10), (1, 1)])
def test_wilson_as_in_its_formula(correct, images):
    z, share = 1.959963984540054, correct / images
    centre = (share + z * z / (2 * images)) / (1 + z * z / images)
    half = z / (1 + z * z / images) * math.sqrt(share * (1 - share) / images + z * z / (4 * images ** 2))
    assert wilson(correct, images) == pytest.approx((centre - half, centre + half), abs=1e-9)


def test_calibration_error_by_hand():
    """Two bins: confidence 0.9 with half of two right, confidence 1 with one of one right."""
    labels, probabilities = np.array([0, 1, 1]), np.array([[.9, .1], [.9, .1], [0, 1.0]])
    curve = reliability(labels, probabilities)
    assert [(one["images"], one["accuracy"]) for one in curve] == [(2, 0.5), (1, 1.0)]
    assert curve[0]["lowest"] < 0.9 <= curve[0]["highest"] and curve[1]["highest"] == 1
    assert expected_calibration_error(labels, probabilities) == pytest.approx(2 / 3 * 0.4)


def test_a_bin_includes_its_upper_end():
    probabilities = np.array([[0.5, 0.5], [0.5, 0.5 + 1e-9]])
    assert [one["images"] for one in reliability(np.array([0, 1]), probabilities, bins=2)] == [1, 1]


@pytest.mark.parametrize("labels, probabilities, says", [
    ([], np.zeros((0, 2)), "no images to measure"),
    ([0, 1], np.full((2, 3), 1 / 3), r"do not fit; expected \(2, 2\)"),
    ([0, 2], np.full((2, 2), 0.5), "labels outside the classes; expected whole numbers from 0 to 1"),
    ([0.0, 1.0], np.full((2, 2), 0.5), "labels outside the classes"),
    ([0, 1], np.array([[1.0, 3.0], [0.5, 0.5]]), "not probabilities.*a sum of 4, image 0"),
    ([0, 1], np.array([[0.5, 0.5], [np.nan, 0.5]]), "not probabilities.*image 1"),
    ([0, 1], np.array([[1.5, -0.5], [0.5, 0.5]]), "not probabilities")])
def test_what_does_not_fit_is_said(labels, probabilities, says):
    with pytest.raises(DataError, match=says):
        measure(np.array(labels), probabilities, ["a", "b"])


@pytest.mark.parametrize("k", [0, -1, 1.5, True, "5"])
def test_k_out_of_range(k):
    labels, probabilities = drawn(12, 3)
    with pytest.raises(ConfigError, match="top_k out of range"):
        measure(labels, probabilities, ["a", "b", "c"], top_k=[k])
