"""A bounded queue in front of the network: images of all clients, decoded in threads, computed in batches by one."""
from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from gluon_ft.data.images.header import Unreadable
from gluon_ft.errors import NetworkError
from gluon_ft.evaluation.predict import Prediction
from gluon_ft.serving.predictor import Predictor

WAIT = 0.005  # seconds that a batch waits for images that are being decoded


class Busy(Exception):
    """As many images wait as may."""


@dataclass
class _Waiting:
    name: str
    prepared: np.ndarray
    result: Future


class Batcher:
    """Predicts images of several clients together.

    Parameters
    ----------
    predictor : Predictor
    most : int
        Images, and requests that are still being received, that may wait; `reserve` refuses more.
    decoders : int
        Threads that read and decode.
    wait : float, default 0.005
        Seconds that a batch which is not full waits, while images are being decoded.
    seen : callable(int), optional
        Is called with the number of images of each batch.
    """

    def __init__(self, predictor: Predictor, most: int, decoders: int, wait: float = WAIT,
                 seen: Callable[[int], None] | None = None):
        self.predictor, self.most, self._wait, self._seen = predictor, most, wait, seen
        self._lock = threading.Lock()
        self._reserved = self._decoding = 0
        self._ready: queue.Queue[_Waiting | None] = queue.Queue()
        self._decoders = ThreadPoolExecutor(decoders, thread_name_prefix="gluon_ft-decode")
        self._thread = threading.Thread(target=self._work, name="gluon_ft-predict", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Images and requests that are not answered yet."""
        return self._reserved

    @property
    def is_alive(self) -> bool:
        """Whether the thread that computes is still there."""
        return self._thread.is_alive()

    def reserve(self, number: int) -> None:
        """Takes so many places, each to be given back by `release`. Raises Busy where there are not as many."""
        with self._lock:
            if self._reserved + number > self.most:
                raise Busy
            self._reserved += number

    def release(self, number: int) -> None:
        """Gives places back."""
        with self._lock:
            self._reserved -= number

    def submit(self, name: str, read: Callable[[], bytes]) -> Future[Prediction]:
        """The prediction for one image, to come; with an `error` where it cannot be read.

        name : what the image is called; read : gives the bytes of its file, in a thread of the decoders.

        It raises what the network raises.
        """
        result: Future[Prediction] = Future()
        # From now on nobody can cancel it, a client that goes away no more than others.
        result.set_running_or_notify_cancel()
        with self._lock:
            self._decoding += 1
        self._decoders.submit(self._decode, name, read, result)
        return result

    def close(self) -> None:
        """Answers what was submitted, and ends the threads."""
        self._decoders.shutdown(wait=True)
        self._ready.put(None)
        self._thread.join()

    def _decode(self, name: str, read: Callable[[], bytes], result: Future) -> None:
        try:
            data = read()
            if not data:
                raise Unreadable("empty file (0 bytes)")
            self._ready.put(_Waiting(name, self.predictor.prepare(data), result))
        except Unreadable as error:
            result.set_result(Prediction(name, error=str(error)))
        except BaseException as error:
            # Whatever it is, the client must not wait for ever.
            result.set_exception(error)
        finally:
            with self._lock:
                self._decoding -= 1

    def _work(self) -> None:
        while True:
            batch = self._next()
            if batch is None:
                return
            if self._seen is not None:
                self._seen(len(batch))
            self._answer(batch)

    def _next(self) -> list[_Waiting] | None:
        """The next batch; None at the end."""
        first = self._ready.get()
        if first is None:
            return None
        batch, until = [first], time.monotonic() + self._wait
        while len(batch) < self.predictor.batch_size:
            try:
                # Nobody waits for what nobody has sent.
                left = until - time.monotonic() if self._decoding else 0
                found = self._ready.get(timeout=left) if left > 0 else self._ready.get_nowait()
            except queue.Empty:
                break
            if found is None:
                self._ready.put(None)
                break
            batch.append(found)
        return batch

    def _answer(self, batch: Sequence[_Waiting]) -> None:
        try:
            found = self.predictor.predict([one.prepared for one in batch], [one.name for one in batch])
        except NetworkError as error:
            if len(batch) == 1:
                batch[0].result.set_exception(error)
            else:
                # The others of the batch have done nothing wrong.
                for one in batch:
                    self._answer([one])
        except BaseException as error:
            for one in batch:
                one.result.set_exception(error)
        else:
            for one, prediction in zip(batch, found):
                one.result.set_result(prediction)
