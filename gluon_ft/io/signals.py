"""SIGINT and SIGTERM raise `errors.Interrupted` at once, or set a flag where something has to be saved first."""
from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

from gluon_ft.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_AGAIN = 0.01  # seconds after which a signal whose exception was dropped is sent again


class Stop:
    """Whether this process was asked to stop: true once a signal came. `signal` is its number, None before."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._message: str | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    @contextlib.contextmanager
    def at_once(self, message: str) -> Iterator[None]:
        """For a block with nothing to save: inside, the first signal raises `error(message)` at once."""
        self._message = message
        try:
            if self:
                raise self.error(message)
            yield
        finally:
            self._message = None

    def came(self, number: int) -> None:
        """Records a signal; the handlers of `caught` call it."""
        self.signal = number
        if self._message is not None:
            raise self.error(self._message)

    def error(self, message: str) -> Interrupted:
        """The error to raise once all is saved. Its exit status is 128 plus the signal's number, as in shells."""
        number = self.signal or signal.SIGINT
        return Interrupted(f"{message} (after {signal.Signals(number).name})", 128 + number)


@contextlib.contextmanager
def caught() -> Iterator[Stop]:
    """Yields a Stop that the first SIGINT or SIGTERM sets; a second one ends the process at once.

    The earlier handlers are restored at the end. Outside the main thread Python allows no handlers, so signals act as
    before.
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
        with _resending_dropped(stop):
            yield stop
    except BaseException as error:
        # click raises its Abort from an interruption, which was noticed all the same.
        ended = isinstance(error, Interrupted) or isinstance(error.__cause__, Interrupted)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if stop.signal is not None and not ended:
            # It came too late to stop the block, but the caller must not miss it.
            os.kill(os.getpid(), stop.signal)


@contextlib.contextmanager
def _resending_dropped(stop: Stop) -> Iterator[None]:
    """Sends a signal again if Python dropped its exception, as it does in `__del__` and in callbacks from C.

    This is not rare: MXNet frees each array in a `__del__`.
    """
    before = sys.unraisablehook

    def hook(dropped):
        if not isinstance(dropped.exc_value, Interrupted) or stop.signal is None:
            before(dropped)
            return
        number, stop.signal = stop.signal, None
        # From another thread and a little later: sent here, it would be raised inside this hook.
        threading.Timer(_AGAIN, os.kill, (os.getpid(), number)).start()

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


@contextlib.contextmanager
def raised(message: str) -> Iterator[None]:
    """Inside, the first SIGINT or SIGTERM raises Interrupted with that message, and a second one ends the process."""
    with caught() as stop, stop.at_once(message):
        yield


def wait() -> int:
    """Waits for SIGINT or SIGTERM, and returns its number: the caller ends in its own way, as it was asked to."""
    with caught() as stop:
        try:
            with stop.at_once("ended"):
                threading.Event().wait()
        except Interrupted:
            pass
        number, stop.signal = stop.signal or signal.SIGINT, None
    return number
