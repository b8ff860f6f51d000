"""benchmarks/accuracy/bounds.py: figures of a run against the bounds of its target."""
from __future__ import annotations

from dataclasses import replace

import pytest
from benchmark_runs import finished, target

from benchmarks.accuracy import bounds, identity, targets


@pytest.mark.parametrize(("low", "high", "over", "fault"), [
    (0.85, 0.95, "each", None),
    (0.90, 0.90, "median", None),
    (0.86, 0.95, "each", "net, validation accuracy is 0.8500, outside 0.86 to 0.95"),
    (0.80, 0.94, "each", "net, validation accuracy is 0.9500, outside 0.8 to 0.94"),
    (0.91, 0.95, "median", "the median of net, validation accuracy is 0.9000, outside 0.91 to 0.95"),
])
def test_bounds_hold_on_both_sides(tmp_path, low, high, over, fault):
    run = finished(tmp_path / "run", [0.85, 0.90, 0.95])
    [found] = bounds.measure(target(targets.Check("net", low=low, high=high, over=over)), run)
    assert found.values == (0.85, 0.90, 0.95) and found.fault == fault


def test_a_median_needs_all_seeds_and_one_seed_can_be_meant(tmp_path):
    run = finished(tmp_path / "run", [0.85, 0.90], [("net", 0, 1, 0.8, 0.5), ("net", 0, 2, 0.9, 0.3),
                                                    ("net", "1", 1, 0.7, 0.6), ("net", "1", 2, 0.8, 0.4)])
    of = [targets.Check("net", low=0, high=1, over="median"), targets.Check("net", "train_loss", 0.2, 0.35, seed=0),
          targets.Check("net", "train_loss", 0.2, 0.35, seed=1), targets.Check("net", "train_loss", 0, 1, seed=7),
          targets.Check("net", low=0.75, high=0.85, epoch=1)]
    median, first, second, absent, early = bounds.measure(target(*of), run)
    assert median.values == () and absent.values == ()
    assert first.values == (0.3,) and first.fault is None
    assert second.values == (0.4,) and "net, train loss, seed 1 is 0.4000, outside 0.2 to 0.35" in second.fault
    assert early.values == (0.8, 0.7) and "epoch 1 is 0.7000" in early.fault


def test_a_loss_that_was_not_finite_is_outside(tmp_path):
    run = finished(tmp_path / "run", [0.9], [("net", 0, 1, 0.9, float("nan"))])
    [found] = bounds.measure(target(targets.Check("net", "train_loss", 0, 9)), run)
    assert "is nan, outside" in found.fault


def test_a_row_that_is_not_there_is_refused(tmp_path):
    run = finished(tmp_path / "run", [0.9])
    with pytest.raises(identity.Refused, match="has no other, validation accuracy"):
        bounds.measure(target(targets.Check("other", low=0, high=1)), run)
    with pytest.raises(identity.Refused, match="holds no finished run"):
        bounds.measure(target(targets.Check("net", low=0, high=1)), tmp_path)


@pytest.mark.parametrize(("scratch", "fault"), [
    ([0.9, 0.6], None),
    ([0.5, 0.8], "net is not ahead of scratch in 1 of 1 epochs, such as epoch 2 of seed 0"),
])
def test_a_race_counts_from_its_epoch_on(tmp_path, scratch, fault):
    epochs = [("net", "0", 1, 0.7, 1), ("net", "0", 2, 0.8, 1)]
    epochs += [("scratch", "0", i, value, 1) for i, value in enumerate(scratch, 1)]
    run = finished(tmp_path / "run", [0.8], epochs)
    check = targets.Check("net", ahead_of="scratch", from_epoch=2)
    [found] = bounds.measure(target(check), run)
    assert found.fault == fault
    with pytest.raises(identity.Refused, match="same epochs of net and nobody"):
        bounds.measure(target(replace(check, ahead_of="nobody")), run)
