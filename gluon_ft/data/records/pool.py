"""A bounded, ordered map over worker processes: results in the order of the tasks, few of them in memory at a time."""
from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import cv2

from gluon_ft.errors import DataError

MAX_WEIGHT = 48 << 20  # bytes of the tasks handed out and not yet collected
_AHEAD = 4  # tasks handed out for each worker


def ordered(function: Callable, tasks: Iterable, *, workers: int, weight: Callable = lambda task: 0,
            prepare: Callable | None = None, start_method: str | None = None) -> Iterator:
    """`function(task)`, or `function(prepare(task))`, of every task, in order.

    Parameters
    ----------
    function : callable defined at the top of a module, which must not use MXNet
    tasks : taken one by one, only as far ahead as the bounds allow
    workers : 1 runs in this process, more start that many others
    weight : bytes that a task and its result keep in memory
    prepare : a first step (reading, hashing); with one worker it runs one task ahead in a thread of this process, with
        more it runs in the worker
    start_method : 'fork', 'spawn'; default fork where there is one. A forked child shares the parent's memory and does
        not import MXNet again; it must not call MXNet, and OpenCV's threads are stopped before, since the child would
        wait for ever for those that only the parent has.

    Raises DataError where a worker process dies (killed for memory, crash of a decoder).
    """
    if workers == 1:
        yield from map(function, tasks if prepare is None else _one_ahead(prepare, tasks))
        return
    if start_method is None:
        start_method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    threads_before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context(start_method),
                               initializer=_start_worker, initargs=(os.getpid(),))
    waiting: deque = deque()
    try:
        held = 0
        for task in tasks:
            size = weight(task)
            while waiting and (len(waiting) >= _AHEAD * workers or held + size > MAX_WEIGHT):
                future, done = waiting.popleft()
                held -= done
                yield future.result()
            waiting.append((pool.submit(_both, prepare, function, task), size))
            held += size
        while waiting:
            yield waiting.popleft()[0].result()
    except BrokenProcessPool:
        raise DataError("a worker process died", remedy="it may have run out of memory: try --workers 1, which also "
                        "shows a crash of an image decoder") from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        cv2.setNumThreads(threads_before)


def _both(prepare, function, task):
    return function(task if prepare is None else prepare(task))


def _one_ahead(prepare, tasks):
    with ThreadPoolExecutor(1) as pool:
        waiting: deque = deque()
        for task in tasks:
            waiting.append(pool.submit(prepare, task))
            if len(waiting) > 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _start_worker(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted too, and ends its workers
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """A worker whose parent was killed would wait for its next task for ever."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
