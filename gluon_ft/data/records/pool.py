"""A bounded, ordered map over worker processes: results in the order of the tasks, few of them in memory at a time.

The workers are new interpreters that get tasks through a pipe. They are not forked, since a child waits for ever for
OpenCV's or MXNet's threads, which only the parent has; nor are they `multiprocessing`'s spawned ones, which run the
user's script once more and so need `if __name__ == "__main__"` in it.
"""
from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

from gluon_ft.errors import ConfigError, DataError

MAX_WEIGHT = 48 << 20  # bytes of the tasks handed out and not yet collected
MAX_WORKERS = 256
_AHEAD = 4  # tasks handed out for each worker
# Interrupts are for the parent, which then ends its workers.
_COMMAND = """import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.path[:] = sys.argv[1:]
from gluon_ft.data.records.pool import serve
serve()"""


def check_workers(workers: int) -> None:
    """Raises ConfigError unless `workers` is a whole number from 1 to 256."""
    if not (isinstance(workers, int) and 1 <= workers <= MAX_WORKERS):
        raise ConfigError("bad number of workers", expected=f"1 to {MAX_WORKERS}", found=workers)


def ordered(function: Callable, tasks: Iterable, *, workers: int, weight: Callable[[Any], int] = lambda task: 0,
            prepare: Callable | None = None) -> Iterator:
    """`function(task)`, or `function(prepare(task))`, of every task, in order.

    Parameters
    ----------
    function : callable
        Defined at the top of an imported module, or a `functools.partial` of such a one.
    tasks : iterable
        Taken one by one, only as far ahead as the bounds allow.
    workers : int
        1 runs in this process, more start that many others.
    weight : callable
        Bytes that a task and its result keep in memory.
    prepare : callable, optional
        A first step (reading, hashing); with one worker it runs one task ahead in a thread of this process, with more
        it runs in the worker.

    Raises
    ------
    DataError
        A worker process died (killed for memory, crash of a decoder).
    """
    if workers == 1:
        yield from map(function, tasks if prepare is None else _one_ahead(prepare, tasks))
        return
    waiting: deque[tuple[Future, int]] = deque()
    with _Workers(workers, prepare, function) as pool:
        held = 0
        for task in tasks:
            size = weight(task)
            while waiting and (len(waiting) >= _AHEAD * workers or held + size > MAX_WEIGHT):
                future, done = waiting.popleft()
                held -= done
                yield future.result()
            waiting.append((pool.submit(task), size))
            held += size
        while waiting:
            yield waiting.popleft()[0].result()


def _one_ahead(prepare, tasks):
    with ThreadPoolExecutor(1) as pool:
        waiting: deque[Future] = deque()
        for task in tasks:
            waiting.append(pool.submit(prepare, task))
            if len(waiting) > 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


class _Workers:
    """Worker processes, each served by one thread of this process."""

    def __init__(self, count: int, prepare: Callable | None, function: Callable):
        work = pickle.dumps((prepare, function), pickle.HIGHEST_PROTOCOL)
        self._free: SimpleQueue[subprocess.Popen] = SimpleQueue()
        self._processes: list[subprocess.Popen] = []
        self._threads = ThreadPoolExecutor(count)
        try:
            for _ in range(count):
                self._processes.append(_start())
            for process in self._processes:
                with contextlib.suppress(BrokenPipeError):  # it has died, which its first task will show
                    _send(process.stdin, work)
                self._free.put(process)
        except BaseException:
            self.__exit__()
            raise

    def submit(self, task: object) -> Future:
        return self._threads.submit(self._run, task)

    def _run(self, task):
        process = self._free.get()
        try:
            _send(process.stdin, pickle.dumps(task, pickle.HIGHEST_PROTOCOL))
            result, error = pickle.loads(_receive(process.stdout))
        except (EOFError, BrokenPipeError):
            raise DataError("a worker process died", remedy="it may have run out of memory: try --workers 1, which "
                            "also shows a crash of an image decoder") from None
        finally:
            self._free.put(process)
        if error is not None:
            raise error
        return result

    def __enter__(self) -> _Workers:
        return self

    def __exit__(self, *_) -> None:
        for process in self._processes:
            process.kill()  # whatever they still do, nobody will ask for
        self._threads.shutdown(wait=True, cancel_futures=True)
        for process in self._processes:
            for pipe in filter(None, (process.stdin, process.stdout)):
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
            process.wait()


def _start() -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", _COMMAND, *sys.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def serve() -> None:
    """What a worker process does: answers tasks until its parent ends or closes the pipe."""
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    tasks, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints must not come between the answers
    with contextlib.suppress(EOFError, BrokenPipeError):
        import cv2

        cv2.setNumThreads(1)
        prepare, function = pickle.loads(_receive(tasks))
        while True:
            task = pickle.loads(_receive(tasks))
            _send(answers, _answer(prepare, function, task))
    os._exit(0)  # nothing here has to be tidied up, and a thread of a library must not delay the end


def _answer(prepare, function, task) -> bytes:
    """(result, None) or (None, exception), pickled."""
    try:
        result = function(task if prepare is None else prepare(task))
        return pickle.dumps((result, None), pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # its class cannot be made from its text alone
            error = RuntimeError(f"{type(error).__name__}: {error}")
        return pickle.dumps((None, error), pickle.HIGHEST_PROTOCOL)


def _send(pipe: Any, message: bytes) -> None:
    pipe.write(len(message).to_bytes(8, "little"))
    pipe.write(message)
    pipe.flush()


def _receive(pipe: Any) -> bytes:
    head = pipe.read(8)
    size = int.from_bytes(head, "little")
    message = pipe.read(size) if len(head) == 8 else b""
    if len(head) < 8 or len(message) < size:
        raise EOFError
    return message
