"""Prepares batches in threads, ahead of the consumer and in order, and caches decoded images in memory.

Threads are used because OpenCV decodes and resizes without holding Python's GIL. Measured on two cores with the hot dog
photos: 290 to 330 images/s with two threads, 205 to 230 with two forked processes that write into shared memory, 80 to
100 with two that send their results. Besides, a process forked after MXNet and OpenCV have started threads can hang:
OpenCV's `setNumThreads` then waits for threads that only the parent has.
"""
from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

NAME = "gluon_ft-loader"
CHUNK = 8  # images per task: few enough to balance the threads, enough to make the overhead negligible
_ALIGNMENT = 64  # bytes; MXNet chooses kernels by alignment, so a result can depend on it in its last bits


def filled(batches: Iterable[np.ndarray], shape: tuple[int, ...], fill: Callable[[int, np.ndarray], None],
           workers: int, ahead: int) -> Generator[tuple[np.ndarray, np.ndarray], None, None]:
    """Yields batches in order, prepared by threads ahead of the consumer.

    Parameters
    ----------
    batches : iterable of int arrays
        The positions of the images of each batch.
    shape : tuple of int
        Shape of one image.
    fill : callable(position, out)
        Writes an image into `out`, float32 of that shape; called from any thread. If it raises, the first exception in
        order is raised here.
    workers : int
        Number of threads; 0 fills in the consumer's thread.
    ahead : int
        Batches to prepare while the consumer uses one.

    Yields
    ------
    (positions, data)
        data is float32 (len(positions), *shape).

    The threads end when the iteration ends, fails, or is closed.
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
    """An uninitialised float32 array, aligned to 64 bytes."""
    count = int(np.prod(shape))
    memory = np.empty(count * 4 + _ALIGNMENT, dtype=np.uint8)
    begin = -memory.ctypes.data % _ALIGNMENT
    return memory[begin:begin + count * 4].view(np.float32).reshape(shape)


class Memory:
    """A cache of decoded images by position. Once `limit` bytes are used, further images are not cached.

    No image is evicted: an epoch visits each image once, so that the oldest one would always be evicted just before it
    is needed.

    Attributes
    ----------
    limit, bytes : int
        Most bytes to use, and bytes used.
    """

    def __init__(self, limit: int):
        self.limit, self.bytes = limit, 0
        self._kept: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, position: int, make: Callable[[int], np.ndarray]) -> np.ndarray:
        """The cached image, which is read-only, or the result of `make(position)`."""
        image = self._kept.get(position)
        if image is not None:
            return image
        image = make(position)
        with self._lock:
            if position not in self._kept and self.bytes + image.nbytes <= self.limit:
                # Copied, because a crop is a view that would keep the whole image in memory.
                image = image.copy()
                image.flags.writeable = False
                self._kept[position] = image
                self.bytes += image.nbytes
        return image
