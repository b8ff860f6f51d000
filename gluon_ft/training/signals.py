"""SIGINT and SIGTERM while training: the first asks to save and stop, the second ends the process at once."""
from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

from gluon_ft.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """`signal` is the number of the signal that came, None before."""

    def __init__(self):
        self.signal: int | None = None
        self._message: str | None = None

    def __bool__(self):
        return self.signal is not None

    @contextlib.contextmanager
    def at_once(self, message: str) -> Iterator[None]:
        """Inside, where there is nothing to save, the first signal raises `error(message)` wherever the work is."""
        self._message = message
        try:
            if self:
                raise self.error(message)
            yield
        finally:
            self._message = None

    def came(self, number: int) -> None:
        """To be called by a handler."""
        self.signal = number
        if self._message is not None:
            raise self.error(self._message)

    def error(self, message: str) -> Interrupted:
        """What to raise when all is saved; shells expect 128 and the signal's number."""
        return Interrupted(f"{message} (after {signal.Signals(self.signal).name})", 128 + self.signal)


@contextlib.contextmanager
def caught() -> Iterator[Stop]:
    """Yields a Stop that the first SIGINT or SIGTERM sets; the handlers from before are put back at the end.

    In another thread than the main one, where Python allows no handlers, signals do as before.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number, frame):
        if stop:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        stop.came(number)

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    ended = False
    try:
        yield stop
    except Interrupted:
        ended = True
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if stop and not ended:
            # It came too late to stop here: what comes after must not miss it.
            os.kill(os.getpid(), stop.signal)
