"""Label errors: confident learning's rule on small tables, planted flips among features, copies, classes too small."""
from __future__ import annotations

import numpy as np
import pytest

from gluon_ft.errors import DataError
from gluon_ft.evaluation import label_errors

# Thresholds: class 0: mean(.9, .8, .1) = .6; class 1: mean(.9, .7, .2) = .6
TABLE = np.array([[.9, .1], [.8, .2], [.1, .9], [.1, .9], [.3, .7], [.8, .2]])


@pytest.mark.parametrize(("probabilities", "labels", "expected"), [
    (TABLE, [0, 0, 0, 1, 1, 1], [(2, 1), (5, 0)]),  # the least probable own label first
    (TABLE, [0, 0, 1, 1, 1, 0], []),
    # Both classes reach no threshold: no image is suspected, though its prediction differs.
    ([[.9, .1], [.9, .1], [.55, .45], [.1, .9]], [0, 0, 1, 1], []),
    # A class without an image is never suggested.
    ([[.2, .1, .7], [.7, .2, .1], [.1, .8, .1], [.2, .7, .1]], [0, 0, 1, 1], []),
], ids=["two flips", "none", "below the threshold", "empty class"])
def test_the_rule_on_small_tables(probabilities, labels, expected):
    assert label_errors.suspected(np.array(probabilities), labels) == expected


@pytest.mark.parametrize(("probabilities", "labels"), [
    (np.ones((3, 2)), [0, 1]), (np.ones(3), [0, 1, 0]), (np.ones((2, 2)), [0, 2]), (np.ones((2, 2)), [-1, 0]),
    (np.full((2, 2), np.nan), [0, 1]), (np.ones((0, 2)), np.zeros(0, int))])
def test_what_does_not_fit_is_refused(probabilities, labels):
    with pytest.raises(DataError, match="do not fit"):
        label_errors.suspected(probabilities, labels)


def _features(seed=0, classes=4, each=30, width=10, spread=4.0):
    rng = np.random.RandomState(seed)
    centres = spread * rng.randn(classes, width)
    labels = np.repeat(np.arange(classes), each)
    return centres[labels] + rng.randn(len(labels), width), labels


def test_planted_flips_come_first():
    features, right = _features()
    labels = right.copy()
    flipped = np.arange(3, 120, 12)
    labels[flipped] = (labels[flipped] + 1) % 4
    found = label_errors.suspected(label_errors.out_of_fold(features, labels), labels)
    # One flip stays below the threshold of its own class, of which a quarter is wrong; nothing else is suspected.
    assert {position for position, _ in found} <= set(flipped.tolist()) and len(found) >= len(flipped) - 1
    assert all(suggested == right[position] for position, suggested in found)


def test_a_wrong_label_that_its_copies_share_is_seen_only_where_they_stay_together():
    features, right = _features(width=200, spread=0.5)
    labels, groups = right.copy(), np.arange(len(right))
    copies = np.arange(8)  # one picture eight times, all with the wrong label
    features[copies], labels[copies], groups[copies] = features[0], 1, 0
    together = label_errors.suspected(label_errors.out_of_fold(features, labels, groups), labels)
    assert {position for position, _ in together} == set(copies.tolist())
    apart = label_errors.suspected(label_errors.out_of_fold(features, labels), labels)
    assert not {position for position, _ in apart} & set(copies.tolist())


def test_the_reason_is_in_plain_words():
    suspect = label_errors.Suspect(0, "cat/1.jpg", "cat", "dog", 0.021, 0.968)
    assert suspect.reason == "labelled 'cat' (0.02); 0.97 'dog' by a network that did not see it"
