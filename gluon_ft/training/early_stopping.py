"""Early stopping: when no epoch has been better for a while, and no change of the learning rate is still to come."""
from __future__ import annotations

import math
from collections.abc import Callable

from gluon_ft.errors import ConfigError


class Patience:
    """Counts epochs without a new best score.

    Parameters
    ----------
    patience : int
        Stop after so many such epochs; 0 never stops.
    schedule_still_moves : callable(epoch) -> bool
        Whether the learning rate will still change after `epoch` (from 1), for instance
        `lambda epoch: not schedule.settled(epoch * steps - 1, steps, epochs)`.
    within_schedule : bool, default False
        True: stop even then. False: epochs before the rate's last change are not counted, since a fall of the rate
        often brings the best epochs; so a cosine runs to its end, and after the last step of a step schedule there are
        `patience` epochs at least.

    Raises ConfigError for a patience below 0.
    """

    def __init__(self, patience: int, schedule_still_moves: Callable[[int], bool], within_schedule: bool = False):
        if patience < 0:
            raise ConfigError("patience out of range", expected="at least 0 epochs", found=patience)
        self.patience, self.moves, self.within_schedule = patience, schedule_still_moves, within_schedule
        self.best, self.waited = -math.inf, 0

    def update(self, epoch: int, score: float) -> bool:
        """Takes in the score of an epoch (from 1), higher is better; True where training is to stop after it.

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
