"""Class weights equal scikit-learn's; balanced orders are balanced."""
from __future__ import annotations

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from gluon_ft.data.sampler import balanced_order
from gluon_ft.errors import DataError
from gluon_ft.training.labels import class_weights

LABELS = np.array([0] * 50 + [1] * 7 + [3] * 3)


def test_weights_equal_scikit_learns_and_keep_the_scale():
    weights = class_weights(LABELS, 5)
    assert weights.dtype == np.float32
    present = np.array([0, 1, 3])
    np.testing.assert_allclose(weights[present], compute_class_weight("balanced", classes=present, y=LABELS))
    assert list(weights[[2, 4]]) == [0, 0]
    assert weights[LABELS].mean() == pytest.approx(1)
    sums = [weights[label] * (label == LABELS).sum() for label in (0, 1, 3)]
    assert sums == pytest.approx([20, 20, 20]), "each class counts as much as any other"


@pytest.mark.parametrize("count", [60, 59, 61, 7, 2, 0, 200])
def test_each_class_comes_equally_often(count):
    order = balanced_order(LABELS, np.random.RandomState(0), count)
    assert order.shape == (count,)
    assert order.dtype == np.int64
    counts = np.bincount(LABELS[order], minlength=4)[[0, 1, 3]]
    assert counts.sum() == count
    assert counts.max() - counts.min() <= 1
    for label in (0, 1, 3):
        drawn = np.bincount(order[LABELS[order] == label], minlength=60)[label == LABELS]
        assert drawn.max() - drawn.min() <= 1, "no image again before all others have come"


def test_classes_are_mixed_and_orders_differ_from_epoch_to_epoch():
    def order(seed):
        return balanced_order(LABELS, np.random.RandomState(seed), 60)

    first = LABELS[order((0, 1))[:30]]
    assert {0, 1, 3} == set(first)
    assert max(np.bincount(first)) < 20
    np.testing.assert_array_equal(order((0, 1)), order((0, 1)))
    assert not np.array_equal(order((0, 1)), order((0, 2)))
    seen = {int(p) for epoch in range(30) for p in order((0, epoch)) if LABELS[p] == 0}
    assert len(seen) == 50, "over the epochs every image of the large class comes"
    extra = {int(np.bincount(LABELS[balanced_order(LABELS, np.random.RandomState(s), 61)]).argmax()) for s in range(30)}
    assert extra == {0, 1, 3}, "which class has the one more is drawn"


@pytest.mark.parametrize(("call", "wording"), [
    (lambda: class_weights([], 2), "no labels to balance"),
    (lambda: class_weights([0, 2], 2), "1 labels outside the classes; expected 0 to 1; found 2"),
    (lambda: class_weights([0, float("nan")], 2), "1 labels outside the classes"),
])
def test_labels_that_cannot_be_balanced(call, wording):
    with pytest.raises(DataError, match=wording):
        call()
