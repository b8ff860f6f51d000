"""SIGINT and SIGTERM as an exception, or as a flag."""
from __future__ import annotations

import os
import signal
import sys
import time

import click
import pytest

from gluon_ft.errors import Interrupted
from gluon_ft.io import signals

BOTH = [signal.SIGINT, signal.SIGTERM]


@pytest.mark.parametrize("number", BOTH)
def test_a_signal_raises_or_sets_a_flag_and_handlers_come_back(number):
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=f"^stopped \\(after {number.name}\\)$") as found, signals.raised("stopped"):
        os.kill(os.getpid(), number)
        time.sleep(5)
    assert found.value.status == 128 + number and signal.getsignal(number) == before
    with pytest.raises(Interrupted), signals.caught() as stop:
        os.kill(os.getpid(), number)
        time.sleep(0)
        assert stop and stop.signal == number
        raise stop.error("saved")
    # One that came too late to be used goes to whoever listens outside.
    with pytest.raises(Interrupted, match="outside"), signals.raised("outside"):
        with signals.caught():
            os.kill(os.getpid(), number)
        time.sleep(5)


@pytest.mark.parametrize("number", BOTH)
def test_an_interruption_that_click_has_made_its_own_is_not_sent_again(number):
    again, before = [], signal.getsignal(number)
    signal.signal(number, lambda *_: again.append(number))
    try:
        with pytest.raises(click.Abort) as found, signals.raised("stopped"):
            try:
                os.kill(os.getpid(), number)
                time.sleep(5)
            except KeyboardInterrupt as error:
                raise click.Abort from error
        time.sleep(0)
    finally:
        signal.signal(number, before)
    assert isinstance(found.value.__cause__, Interrupted) and not again


@pytest.mark.parametrize("number", BOTH)
def test_a_signal_whose_exception_python_drops_is_not_lost(number):
    class Dropping:
        def __del__(self):
            os.kill(os.getpid(), number)
            time.sleep(0)  # the signal's handler runs here, and what it raises is ignored

    before = signal.getsignal(number), sys.unraisablehook
    with pytest.raises(Interrupted, match="stopped") as found, signals.raised("stopped"):
        held = Dropping()
        del held
        for _ in range(500):
            time.sleep(0.01)
    assert found.value.status == 128 + number
    assert (signal.getsignal(number), sys.unraisablehook) == before
