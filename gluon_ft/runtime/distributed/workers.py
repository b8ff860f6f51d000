"""The workers of a training: this one's place, what they tell each other, and gradients added up, by MXNet's KVStore.

Everything here is done by all workers in the same order: one that leaves a step out leaves the others waiting.
"""
from __future__ import annotations

import atexit
import contextlib
import ctypes
import hashlib
import os
import struct
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import mxnet as mx
import numpy as np

from gluon_ft.errors import ConfigError
from gluon_ft.runtime.distributed.roles import RANK, ROLE, WORKER
from gluon_ft.runtime.distributed.server_optimizer import FIRST_TOLD, ServerOptimizer

KINDS = ("dist_sync", "dist_device_sync", "dist_async")
_LARGEST = 1 << 20  # numbers that are told at a time
_LAG = 2  # steps between a wish and the one that it is known at, so that none waits

_joined: Workers | None = None


class Workers:
    """The worker processes that train together; by default this process alone, for which nothing is sent.

    Attributes
    ----------
    rank, size : int
        This worker's number, from 0, and how many there are. Worker 0 writes files and is listened to.
    kind : str
        The KVStore's type, '' for one process alone.
    """

    def __init__(self, store: Any = None) -> None:
        self._store: Any = store
        self.rank, self.size, self.kind = 0, 1, ""
        self._next, self._told = 0, {}
        self._flags: deque = deque()
        self._turn = 0
        if store is None:
            return
        self.kind, self.size = store.type, store.num_workers
        self.rank = store.rank
        if self.asynchronous:
            self._serve(ServerOptimizer(), first=self.rank == 0)
        self.rank = self._own_rank()

    @property
    def several(self) -> bool:
        """Whether there is a KVStore between processes, if only for one of them."""
        return self._store is not None

    @property
    def asynchronous(self) -> bool:
        """Whether each worker's gradient moves the parameters on the server at once."""
        return self.kind == "dist_async"

    def _own_rank(self) -> int:
        # MXNet numbers workers as they arrive. Where they were started by number, they have been told it.
        wanted = os.environ.get(RANK, "")
        ranks = [int(told) for told in self.all(f"{wanted or self.rank:>8}".encode())]
        if sorted(ranks) != list(range(self.size)):
            raise ConfigError(f"the workers' numbers ({RANK}) do not fit",
                              expected=f"each of 0 to {self.size - 1} once", found=", ".join(map(str, ranks)),
                              remedy="start them with gluon-ft launch")
        return ranks[self.rank]

    def all(self, told: bytes) -> list[bytes]:
        """What each worker tells, by number: bytes, of all the same length."""
        if self._store is None:
            return [told]
        numbers = _numbers(told)
        rows = np.zeros((self.size, len(numbers)), dtype=np.float32)
        rows[self.rank] = numbers
        return [_bytes(row)[:len(told)] for row in self._put_together(rows)]

    def first(self, told: bytes = b"") -> bytes:
        """What worker 0 tells, of any length; what the others give is not looked at."""
        if self._store is None:
            return told
        count = struct.unpack("<q", self.all(struct.pack("<q", len(told)))[0])[0]
        size, found = min(_LARGEST, 1 << max(6, (count // 2).bit_length())), []
        for begin in range(0, count, 2 * size):
            row = np.zeros(size, dtype=np.float32)
            if self.rank == 0:
                numbers = _numbers(told[begin:begin + 2 * size])
                row[:len(numbers)] = numbers
            found.append(_bytes(self._put_together(row)))
        return b"".join(found)[:count]

    def total(self, values: Sequence[float] | np.ndarray) -> np.ndarray:
        """The sum over all workers, float64 of the same shape; added up by number, so that all get the same bits."""
        own = np.asarray(values, dtype=np.float64)
        return sum((np.frombuffer(told).reshape(own.shape) for told in self.all(own.tobytes())), np.zeros(own.shape))

    def mean(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The mean over all workers of each of their arrays, of the same shapes and types."""
        if self._store is None or not arrays:
            return list(arrays)
        flat = self.total(np.concatenate([array.ravel() for array in arrays])) / self.size
        parts = np.split(flat, np.cumsum([array.size for array in arrays])[:-1])
        return [part.reshape(array.shape).astype(array.dtype) for part, array in zip(parts, arrays)]

    def check_alike(self, known: Mapping[str, object]) -> None:
        """ConfigError where another worker would train something else than worker 0: they would wait for each other.

        known : what must be the same, by what it is called, as values whose `repr` tells them apart.
        """
        own = [hashlib.sha256(repr(value).encode()).digest() for value in known.values()]
        told = self.all(b"".join(own))
        for rank, one in enumerate(told):
            for number, what in enumerate(known):
                place = slice(32 * number, 32 * number + 32)
                if one[place] != told[0][place]:
                    raise ConfigError(f"worker {rank} has other {what} than worker 0", expected="the same on all",
                                      remedy="give all of them the same settings and data")

    def agree(self, *wanted: bool) -> list[bool]:
        """What any worker wanted three calls ago: all act on it at the same step, and none waits for it."""
        if self._store is None:
            return list(wanted)
        agreed = [False] * len(wanted)
        if len(self._flags) > _LAG:
            agreed = [bool(value) for value in self._flags.popleft().asnumpy() > 0]
        # A key that is pushed again before its pull has come may give the later sum: each waits its turn.
        self._turn = (self._turn + 1) % (_LAG + 1)
        key, array = self._key((len(wanted),), f"wanted {self._turn}"), mx.nd.array(wanted)
        self._store.push(key, array)
        self._store.pull(key, out=array)
        self._flags.append(array)
        return agreed

    def exchange(self, weights: Sequence[Sequence[mx.nd.NDArray]]) -> Exchange:
        """What adds up the gradients of a training whose parameters are the same on all workers now.

        weights : for each parameter its arrays, one a device.
        """
        keys = list(range(self._next, self._next + len(weights)))
        self._next += len(weights)
        if self._store is not None:
            mx.nd.waitall()
            # Copies: what a convolution has used is laid out as oneDNN wants it, and is silently not sent.
            self._store.init(keys, [mx.nd.array(arrays[0].asnumpy(), dtype=arrays[0].dtype) for arrays in weights])
        return Exchange(self, self._store, keys)

    def wait(self) -> None:
        """Until every worker has come here."""
        if self._store is not None:
            mx.nd.waitall()
            self._store._barrier()

    def leave(self) -> None:
        """Lets this process end without the others: MXNet would wait for them as it ends."""
        if self._store is not None:
            mx.base.check_call(mx.base._LIB.MXKVStoreSetBarrierBeforeExit(self._store.handle, ctypes.c_int(0)))

    def end(self) -> None:
        """Ends what joins this process to the others, once they end too."""
        if self._store is not None:
            mx.nd.waitall()
            self._flags.clear()
            mx.base.check_call(mx.base._LIB.MXKVStoreFree(self._store.handle))
            self._store.handle = ctypes.c_void_p()  # freed
            self._store = None

    def _serve(self, optimizer: mx.optimizer.Optimizer, first: bool) -> None:
        # By one of them alone, since a server forgets its state with each.
        if first:
            self._store.set_optimizer(optimizer)
        self.wait()

    def _put_together(self, numbers: np.ndarray) -> np.ndarray:
        """Arrays that are 0 where another worker's is not, in one."""
        key, array = self._key(numbers.shape, "told"), mx.nd.array(numbers)
        self._store.push(key, array)
        if self.asynchronous:
            self.wait()
        # On a CPU the pull writes into the array that was pushed as well.
        found = mx.nd.zeros(numbers.shape)
        self._store.pull(key, out=found)
        result = found.asnumpy()
        if self.asynchronous:
            self.wait()
        return result

    def _key(self, shape, what):
        if (shape, what) not in self._told:
            key = self._told[shape, what] = FIRST_TOLD + len(self._told)
            self._store.init(key, mx.nd.zeros(shape))
        return self._told[shape, what]


def _numbers(told: bytes) -> np.ndarray:
    """Two bytes a number, from 1, which float32 holds exactly: MXNet's servers add up in it."""
    padded = told + bytes(len(told) % 2)
    return np.frombuffer(padded, dtype="<u2").astype(np.float32) + 1


def _bytes(numbers: np.ndarray) -> bytes:
    return np.maximum(numbers - 1, 0).astype("<u2").tobytes()


class Exchange:
    """The gradients of one training, by the position of their parameter; made by `Workers.exchange`."""

    def __init__(self, workers: Workers, store: Any, keys: list[int]) -> None:
        self._workers, self._store, self._keys = workers, store, keys
        self._rate_key: int | None = None
        self._rate: float | None = None

    def add_up(self, position: int, gradients: list[mx.nd.NDArray]) -> None:
        """Puts the sum over all workers in the place of a parameter's gradients, one array a device."""
        self._store.push(self._keys[position], gradients, priority=-position)
        self._store.pull(self._keys[position], out=gradients, priority=-position)

    def optimise_on_server(self, optimizer: mx.optimizer.Optimizer, multipliers: Sequence[tuple[float, float]]) -> None:
        """Lets the server make the steps from now on, for `step`.

        Parameters
        ----------
        optimizer : mx.optimizer.Optimizer
            A new one.
        multipliers : sequence of (float, float)
            Of learning rate and weight decay, for each parameter.
        """
        # As many steps as there are workers are made of a batch, each of which decays the weights.
        share = 1 / self._workers.size
        optimizer.idx2name = {key: str(key) for key in self._keys}
        optimizer.lr_mult = {str(key): lr for key, (lr, _) in zip(self._keys, multipliers)}
        optimizer.wd_mult = {str(key): wd * share for key, (_, wd) in zip(self._keys, multipliers)}
        self._rate_key = self._workers._key((1,), "rate")
        self._workers._serve(ServerOptimizer(optimizer, self._rate_key), first=self._workers.rank == 0)

    def set_rate(self, rate: float) -> None:
        """The learning rate of the server's next steps, as worker 0 says."""
        if rate != self._rate and self._workers.rank == 0:
            self._store.push(self._rate_key, mx.nd.array([rate]))
        self._rate = rate

    def get(self, weights: Iterable[list[mx.nd.NDArray]]) -> None:
        """What the server has of every parameter once all workers have come here, into its arrays, one a device."""
        self._workers.wait()
        for position, arrays in enumerate(weights):
            self._store.pull(self._keys[position], out=arrays, priority=-position)

    def step(self, position: int, gradients: list[mx.nd.NDArray], weights: list[mx.nd.NDArray], images: int) -> None:
        """Lets the server step a parameter by this worker's gradients, and gets what it is now.

        Parameters
        ----------
        position : int
        gradients, weights : list of NDArray
            One a device; the gradients are divided by `images` in place.
        images : int
            Of all workers together.
        """
        for gradient in gradients:
            gradient /= images
        self._store.push(self._keys[position], gradients, priority=-position)
        self._store.pull(self._keys[position], out=weights, priority=-position)


@contextlib.contextmanager
def joined(kind: str) -> Iterator[Workers]:
    """The workers that this process is one of, for a KVStore type; this process alone unless it begins with 'dist'.

    Joining takes until all of them are there. An error inside lets this process end without waiting for the others.

    Raises ConfigError where the process was not started as a worker, or has joined with another type.
    """
    if kind not in KINDS:
        yield Workers()
        return
    workers = _join(kind)
    try:
        yield workers
    except BaseException:
        workers.leave()
        raise


def check(kind: str) -> None:
    """Raises ConfigError for a KVStore type between processes where this one is not a worker."""
    if kind in KINDS and os.environ.get(ROLE) != WORKER:
        raise ConfigError(f"kvstore '{kind}' is for training by several processes",
                          expected="a worker, which gluon-ft launch has started", found="no DMLC_ROLE=worker",
                          remedy="put 'gluon-ft launch -n 2 --' before the command, or use 'device'")


def _join(kind: str) -> Workers:
    global _joined
    check(kind)
    if _joined is None:
        _joined = Workers(mx.kv.create(kind))
        # Called before MXNet's own, without whose engine a store cannot end.
        atexit.register(_joined.end)
    if _joined.kind != kind:
        raise ConfigError("a process keeps the KVStore type that it joined with", expected=_joined.kind, found=kind)
    return _joined
