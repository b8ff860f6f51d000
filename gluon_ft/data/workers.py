"""Fills batches in threads ahead of the consumer, in order, and keeps decoded images in memory on request.

Threads, because OpenCV decodes and resizes without Python's lock: on two cores, 290 to 330 images/s of hot dog photos
with two threads, 205 to 230 with two forked processes that write into shared memory, 80 to 100 with two that send their
results. And a process forked after MXNet and OpenCV have started threads can hang: OpenCV's `setNumThreads` waits there
for threads that only the parent has.
"""
from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

NAME = "gluon_ft-loader"
CHUNK = 8  # images of one task: small enough to share the last ones evenly, large enough to cost nothing
_ALIGNMENT = 64  # bytes; MXNet chooses its kernels by alignment, so that it is part of a result's bits


def filled(batches: Iterable[np.ndarray], shape: tuple[int, ...], fill: Callable[[int, np.ndarray], None],
           workers: int, ahead: int) -> Generator[tuple[np.ndarray, np.ndarray], None, None]:
    """Makes batches in threads, ahead of whoever takes them, in order.

    Parameters
    ----------
    batches : iterable of int arrays
        The positions of the images of each batch.
    shape : tuple of int
        Of one image.
    fill : callable(position, out)
        Writes an image into `out`, float32 of that shape; called from any thread. What it raises is raised here, the
        first in order.
    workers : int
        Threads; 0 fills in the consumer's own.
    ahead : int
        Batches that are made while the consumer has another one.

    Yields
    ------
    (positions, data)
        data is float32 (len(positions), *shape).

    The threads end when the iteration ends, is closed or given up, or fails.
    """
    if workers == 0:
        for positions in batches:
            data = aligned(len(positions), *shape)
            _fill(fill, positions, data, None)
            yield positions, data
        return
    given_up = threading.Event()
    pool = ThreadPoolExecutor(workers, thread_name_prefix=NAME)
    waiting: deque = deque()
    try:
        for positions in batches:
            waiting.append(_start(pool, fill, positions, aligned(len(positions), *shape), workers, given_up))
            if len(waiting) > ahead:
                yield _finished(waiting.popleft())
        while waiting:
            yield _finished(waiting.popleft())
    finally:
        given_up.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _start(pool, fill, positions, data, workers, given_up):
    step = max(1, min(CHUNK, -(-len(positions) // workers)))
    tasks = [pool.submit(_fill, fill, positions[i:i + step], data[i:i + step], given_up)
             for i in range(0, len(positions), step)]
    return positions, data, tasks


def _fill(fill, positions, data, given_up):
    for position, out in zip(positions, data):
        if given_up is not None and given_up.is_set():
            return
        fill(int(position), out)


def _finished(batch):
    positions, data, tasks = batch
    for task in tasks:
        task.result()
    return positions, data


def aligned(*shape: int) -> np.ndarray:
    """An uninitialised float32 array that begins at a multiple of 64 bytes."""
    count = int(np.prod(shape))
    memory = np.empty(count * 4 + _ALIGNMENT, dtype=np.uint8)
    begin = -memory.ctypes.data % _ALIGNMENT
    return memory[begin:begin + count * 4].view(np.float32).reshape(shape)


class Memory:
    """Decoded images by position, kept until `limit` bytes are used; later ones are made anew each time.

    Nothing is thrown out to make room: an epoch visits each image once, so that the oldest would always be thrown out
    just before it is needed.

    Attributes
    ----------
    limit, bytes : int
        Most bytes to use, and those used.
    """

    def __init__(self, limit: int):
        self.limit, self.bytes = limit, 0
        self._kept: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, position: int, make: Callable[[int], np.ndarray]) -> np.ndarray:
        """The image kept, or `make(position)`; read-only once kept."""
        image = self._kept.get(position)
        if image is not None:
            return image
        image = make(position)
        with self._lock:
            if position not in self._kept and self.bytes + image.nbytes <= self.limit:
                # A copy, because a crop would keep the whole image that it is a view of.
                image = image.copy()
                image.flags.writeable = False
                self._kept[position] = image
                self.bytes += image.nbytes
        return image
