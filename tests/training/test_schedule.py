"""Schedules: their values at the places that define them, and that training follows them."""
from __future__ import annotations

import mxnet as mx
import pytest

from gluon_ft.errors import ConfigError
from gluon_ft.training.schedule import Schedule


def values(schedule, steps=10, epochs=10):
    return [schedule.multiplier(i, steps, epochs) for i in range(steps * epochs)]


def test_cosine_equals_mxnets():
    theirs = mx.lr_scheduler.CosineScheduler(100, base_lr=1, final_lr=0)
    assert values(Schedule("cosine")) == pytest.approx([theirs(i) for i in range(100)])


def test_step_and_multistep_drop_at_their_epochs():
    step = values(Schedule("step", every=3, factor=0.5))
    assert [step[i] for i in (0, 29, 30, 59, 60, 90)] == [1, 1, 0.5, 0.5, 0.25, 0.125]
    multi = values(Schedule("multistep", milestones=(2, 7)))
    assert [multi[i] for i in (0, 19, 20, 69, 70, 99)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_one_cycle_rises_then_falls():
    got = values(Schedule("one-cycle"))
    assert got[0] == pytest.approx(1 / 25)
    assert max(got) == got[30] == 1
    assert got[:31] == sorted(got[:31])
    assert got[30:] == sorted(got[30:], reverse=True)
    assert got[-1] < 0.002


@pytest.mark.parametrize("name", ["constant", "cosine", "one-cycle"])
def test_warm_up_comes_first_and_the_rest_fits_after_it(name):
    plain, warmed = values(Schedule(name), epochs=8), values(Schedule(name, warmup=2), epochs=10)
    assert warmed[:20] == pytest.approx([(i + 1) / 20 for i in range(20)])
    assert warmed[20:] == pytest.approx(plain)


@pytest.mark.parametrize(("options", "wording"), [
    ({"name": "cosin"}, "unknown schedule 'cosin'; did you mean cosine"), ({"warmup": -1}, "warmup out of range"),
    ({"factor": 0}, "factor out of range"), ({"every": 0}, "every out of range"),
    ({"name": "multistep"}, "needs milestones"), ({"milestones": (5, 2)}, "milestones out of order"),
])
def test_out_of_range(options, wording):
    with pytest.raises(ConfigError, match=wording):
        Schedule(**options)
