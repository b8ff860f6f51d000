"""Maps a function over tasks in worker processes, in order, with a limit on the memory that tasks and results take.

The workers are new Python interpreters that receive tasks through a pipe. Forking is no option: a forked child can wait
forever for threads of OpenCV or MXNet that exist only in the parent. `multiprocessing`'s spawned processes are none
either: they run the user's script again, which then needs `if __name__ == "__main__"`.
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

MAX_WEIGHT = 48 << 20  # bytes of the tasks whose results were not collected yet
MAX_WORKERS = 256
_AHEAD = 4  # tasks handed out for each worker
# Ctrl-C reaches the workers too; the parent handles it and ends them.
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
    """Yields `function(task)`, or `function(prepare(task))`, for each task in order.

    Parameters
    ----------
    function : callable
        Defined at the top level of an importable module, or a `functools.partial` of such a function.
    tasks : iterable
        Consumed lazily, only as far ahead as the limits allow.
    workers : int
        Number of worker processes; 1 runs everything in this process.
    weight : callable
        weight(task) is the memory in bytes that a task and its result take.
    prepare : callable, optional
        A first step (reading, hashing). It runs in the workers; with one worker, in a thread of this process, one task
        ahead.

    Raises
    ------
    DataError
        A worker process died: it ran out of memory, or a decoder crashed.
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
                with contextlib.suppress(BrokenPipeError):  # if it died already, its first task reports that
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
            process.kill()  # nobody needs what it still computes
        self._threads.shutdown(wait=True, cancel_futures=True)
        for process in self._processes:
            for pipe in filter(None, (process.stdin, process.stdout)):
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
            process.wait()


def _start() -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", _COMMAND, *sys.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def serve() -> None:
    """The loop of a worker process: answers tasks until the parent ends or closes the pipe."""
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    tasks, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library that prints must not write between the answers
    with contextlib.suppress(EOFError, BrokenPipeError):
        import cv2

        cv2.setNumThreads(1)
        prepare, function = pickle.loads(_receive(tasks))
        while True:
            task = pickle.loads(_receive(tasks))
            _send(answers, _answer(prepare, function, task))
    os._exit(0)  # skips clean-up, so that a library's thread cannot delay the end


def _answer(prepare, function, task) -> bytes:
    """(result, None) or (None, exception), pickled."""
    try:
        result = function(task if prepare is None else prepare(task))
        return pickle.dumps((result, None), pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # the parent cannot rebuild this class of exception
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
