"""What ends a training early: scores that no longer rise, and too little memory. Signals: `io.signals`."""
from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Iterator

import mxnet as mx

from gluon_ft.errors import ConfigError, TrainingError

# Failed allocations: MXNet's on CPUs, in its pool of pinned memory, and on GPUs; C++'s own exception.
_OUT_OF_MEMORY = re.compile(r"out of memory|failed to allocate|memory allocation|bad_alloc|cannot allocate",
                            re.IGNORECASE)


class Patience:
    """Early stopping: counts epochs without a new best score.

    Parameters
    ----------
    patience : int
        Stop after so many such epochs; 0 never stops.
    schedule_still_moves : callable(epoch) -> bool
        Whether the learning rate will still change after `epoch` (from 1), such as `LearningRate.moves_after`.
    within_schedule : bool, default False
        True: stop even then. False: epochs before the rate's last change are not counted, since a fall of the rate
        often brings the best epochs. So a cosine runs to its end, and at least `patience` epochs follow the last drop
        of a step schedule.

    Raises
    ------
    ConfigError
        For a patience below 0.
    """

    def __init__(self, patience: int, schedule_still_moves: Callable[[int], bool],
                 within_schedule: bool = False) -> None:
        if patience < 0:
            raise ConfigError("patience out of range", expected="at least 0 epochs", found=patience)
        self.patience, self.moves, self.within_schedule = patience, schedule_still_moves, within_schedule
        self.best, self.waited = -math.inf, 0

    def update(self, epoch: int, score: float) -> bool:
        """Takes in the score of an epoch (from 1; higher is better); True where training should stop after it.

        Only a score above all earlier ones is a new best; NaN never is.
        """
        if score > self.best:
            self.best, self.waited = float(score), 0
        elif self.within_schedule or not self.moves(epoch):
            self.waited += 1
        return 0 < self.patience <= self.waited

    def state(self) -> dict:
        """For a checkpoint: {'best': float or None, 'waited': int}."""
        return {"best": None if self.best == -math.inf else self.best, "waited": self.waited}

    def restore(self, state: dict) -> None:
        """Takes over what `state` returned."""
        self.best = -math.inf if state["best"] is None else float(state["best"])
        self.waited = int(state["waited"])


@contextlib.contextmanager
def out_of_memory_explained(name: str, batch_size: int | None) -> Iterator[None]:
    """Turns out-of-memory errors into a TrainingError that names the batch size and what to try.

    Parameters
    ----------
    name : str
        Of the training, which begins the error.
    batch_size : int or None
        None where it is not known.
    """
    try:
        yield
    except (mx.MXNetError, MemoryError) as error:
        if isinstance(error, mx.MXNetError) and not _OUT_OF_MEMORY.search(str(error)):
            raise
        size = f"a batch of {batch_size}" if batch_size else "this batch"
        half = f"batch size {max(1, batch_size // 2)}" if batch_size else "half the batch size"
        raise TrainingError(f"{name}: out of memory with {size}", expected="memory for a training step",
                            remedy=f"try {half} with accumulate=2 (the same steps in half the memory), more frozen "
                                   "stages, smaller images, or no cache in memory") from error
