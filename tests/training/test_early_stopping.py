"""Early stopping counts what it says, and a schedule is settled exactly when no rate differs any more."""
from __future__ import annotations

import pytest

from gluon_ft.errors import ConfigError
from gluon_ft.training.schedule import Schedule
from gluon_ft.training.stopping import Patience


def stopped_after(patience, scores):
    return next((epoch for epoch, score in enumerate(scores, 1) if patience.update(epoch, score)), None)


def never(epoch):
    return False


@pytest.mark.parametrize(("scores", "epoch"), [
    ([0.5, 0.4, 0.4, 0.9], 3), ([0.5, 0.4, 0.6, 0.5, 0.6], 5), ([0.1, 0.2, 0.3, 0.4], None), ([0.5, 0.5, 0.5], 3),
    ([0.5, float("nan"), 0.1], 3), ([float("nan"), 0.1, 0.2], None),
])
def test_stops_after_so_many_epochs_without_a_new_best(scores, epoch):
    assert stopped_after(Patience(2, never), scores) == epoch


def test_zero_never_stops():
    assert stopped_after(Patience(0, never), [0.5] * 20) is None


def test_a_schedule_is_not_truncated_unless_asked():
    def still_moves(epoch):
        return epoch < 6

    falling = [0.9, *[0.5] * 20]
    assert stopped_after(Patience(3, still_moves), falling) == 8, "epochs 6, 7 and 8 count"
    assert stopped_after(Patience(3, still_moves, within_schedule=True), falling) == 4


def test_goes_on_from_its_state():
    first = Patience(3, never)
    for epoch, score in enumerate([0.5, 0.4], 1):
        first.update(epoch, score)
    second = Patience(3, never)
    assert second.state() == {"best": None, "waited": 0}
    second.restore(second.state())
    second.restore(first.state())
    assert [second.update(3, 0.5), second.update(4, 0.4)] == [False, True]


def test_patience_out_of_range():
    with pytest.raises(ConfigError, match="patience out of range; expected at least 0 epochs; found -1"):
        Patience(-1, never)


@pytest.mark.parametrize("schedule", [
    Schedule(), Schedule(warmup=2), Schedule(warmup=0.3), Schedule("cosine"), Schedule("cosine", warmup=1),
    Schedule("one-cycle"), Schedule("one-cycle", warmup=2), Schedule("step", every=3), Schedule("step", every=2.5),
    Schedule("step", every=20), Schedule("step", factor=1), Schedule("step", every=3, warmup=4),
    Schedule("multistep", milestones=(2, 5)), Schedule("multistep", milestones=(2, 50)),
    Schedule("multistep", milestones=(1, 2), warmup=3), Schedule("multistep", milestones=(2.5, 9.9)),
])
@pytest.mark.parametrize(("steps", "epochs"), [(7, 10), (1, 10), (1, 1)])
def test_settled_means_that_no_later_rate_differs(schedule, steps, epochs):
    rates = [schedule.multiplier(i, steps, epochs) for i in range(steps * epochs)]
    for step in range(steps * epochs + 2):
        assert schedule.settled(step, steps, epochs) is (len(set(rates[step:])) <= 1), step


def test_the_two_together():
    schedule, steps = Schedule("multistep", milestones=(4,)), 5
    patience = Patience(2, lambda epoch: not schedule.settled(epoch * steps - 1, steps, 20))
    assert stopped_after(patience, [0.5] * 20) == 6, "the rate is last in epoch 5, so that epochs 5 and 6 count"
    cosine = Schedule("cosine")
    patience = Patience(2, lambda epoch: not cosine.settled(epoch * steps - 1, steps, 20))
    assert stopped_after(patience, [0.5] * 20) is None
