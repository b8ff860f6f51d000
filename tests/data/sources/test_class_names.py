"""Names decide which label is which, whatever their Unicode form and wherever they come from."""
from __future__ import annotations

import unicodedata

import numpy as np
import pytest

from gluon_ft.data.sources import class_names
from gluon_ft.data.sources.opening import open_source
from gluon_ft.errors import DataError

COMPOSED, APART = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


@pytest.mark.parametrize("own, wanted, expected", [
    (["a", "b", "c"], ["a", "b", "c"], [0, 1, 2]),
    (["b", "c"], ["a", "b", "c"], [1, 2]),
    (["c"], ["a", "b", "c"], [2]),
    (["c", "a"], ["a", "b", "c"], [2, 0]),
    ([APART, "b"], ["a", "b", COMPOSED], [2, 1]),
    (["crane", "crane"], ["crane", "crane"], [0, 1]),  # ImageNet's own order
])
def test_places_are_found_by_name(own, wanted, expected):
    assert class_names.places(own, wanted, "x").tolist() == expected


@pytest.mark.parametrize("own, wanted, wording", [
    (["a", "x"], ["a", "b"], "val: class 'x' is none of the network's; expected 2 classes: a, b; found 2 classes: a, "),
    (["crane"], ["crane", "b", "crane"], "val: class 'crane' stands for 2 of the network's"),
])
def test_names_that_are_not_there_or_there_twice_are_refused(own, wanted, wording):
    with pytest.raises(DataError, match=wording):
        class_names.places(own, wanted, "val", "of the network's")


@pytest.mark.parametrize("first, second, expected", [
    (["a", COMPOSED], ["a", APART], True), (["a", "b"], ["b", "a"], False), (None, None, True), (None, ["a"], False)])
def test_the_same_names(first, second, expected):
    assert class_names.same(first, second) is expected


@pytest.mark.parametrize("label, message", [
    *((label, "1 labels that none of its class names has; expected 0 to 1; found ") for label in (2, -3, 10 ** 12)),
    *((label, "1 labels are not class numbers; expected whole numbers from 0; ") for label in (0.5, float("nan")))])
def test_a_label_that_no_name_has_is_refused(label, message):
    with pytest.raises(DataError, match=message):
        class_names.renumbered(np.array([0, 1, label]), np.array([5, 3]), "x")


def test_arrays_of_one_class_are_for_evaluation_only():
    pixels = np.zeros((2, 8, 8), np.uint8)
    assert open_source((pixels, [0, 0]), partial=True).numbered
    with pytest.raises(DataError, match="one class only; expected two or more, each once; found 1 class: 0"):
        open_source((pixels, [0, 0]))


def test_two_names_that_differ_in_their_form_only_are_one_name():
    with pytest.raises(DataError, match="bad class names; expected two or more, each once"):
        open_source((np.zeros((2, 8, 8), np.uint8), [0, 1]), class_names=[COMPOSED, APART])
