"""Learning-rate schedules with warm-up: pure functions of the step and the number of steps."""
from __future__ import annotations

import math
from dataclasses import dataclass

from gluon_ft.errors import ConfigError, near

# One cycle: Smith and Topin, "Super-Convergence", 2018, in fastai's form: up from 1/25 of the peak over the first 30%
# of the steps, then down to a ten-thousandth of where it started, both along a cosine.
CYCLE_UP, CYCLE_START, CYCLE_END = 0.3, 1 / 25, 1e-4


def constant(step: int, total: int) -> float:
    """Always 1."""
    return 1.0


def cosine(step: int, total: int) -> float:
    """From 1 at step 0 to 0 at step `total`, along half a cosine (Loshchilov and Hutter, "SGDR", 2017)."""
    return (1 + math.cos(math.pi * min(step, total) / total)) / 2


def one_cycle(step: int, total: int) -> float:
    """Up from 1/25 to 1 over 30% of the steps, then down to 1/250,000."""
    peak = max(1, CYCLE_UP * total)
    if step <= peak:
        return _between(CYCLE_START, 1.0, step / peak)
    return _between(1.0, CYCLE_START * CYCLE_END, min(1.0, (step - peak) / max(1, total - peak)))


def _between(start, end, share):
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


NAMES = ("constant", "step", "multistep", "cosine", "one-cycle")
OPEN_ENDED = ("constant", "step", "multistep")  # these do not look ahead: a longer training begins as a shorter one


@dataclass(frozen=True)
class Schedule:
    """The factor of the learning rate at each step.

    Parameters
    ----------
    name : 'constant', 'step', 'multistep', 'cosine' or 'one-cycle'
    warmup : float
        Epochs over which the rate first rises linearly to its full value; the schedule proper follows.
    factor : float, above 0 to 1
        Of 'step' and 'multistep': what each drop multiplies by.
    every : float, above 0
        Of 'step': epochs between drops.
    milestones : rising numbers above 0
        Of 'multistep': epochs after which the rate drops.

    Raises
    ------
    ConfigError
        For an unknown name (with the near ones) or a value out of its range.
    """

    name: str = "constant"
    warmup: float = 0.0
    factor: float = 0.1
    every: float = 1.0
    milestones: tuple[float, ...] = ()

    def __post_init__(self):
        if self.name not in NAMES:
            raise ConfigError(f"unknown schedule '{self.name}'", remedy=near(self.name, NAMES))
        for what, holds, expected in (("warmup", self.warmup >= 0, "at least 0 epochs"),
                                      ("factor", 0 < self.factor <= 1, "above 0 to 1"),
                                      ("every", self.every > 0, "above 0 epochs")):
            if not holds:
                raise ConfigError(f"schedule: {what} out of range", expected=expected, found=getattr(self, what))
        if list(self.milestones) != sorted(self.milestones) or any(m <= 0 for m in self.milestones):
            raise ConfigError("schedule: milestones out of order", expected="rising epochs above 0",
                              found=self.milestones)
        if self.name == "multistep" and not self.milestones:
            raise ConfigError("schedule 'multistep' needs milestones", expected="epochs, such as (30, 60)")

    def multiplier(self, step: int, steps_per_epoch: int, epochs: int) -> float:
        """The factor of the learning rate at one step.

        Parameters
        ----------
        step : int
            Of the optimiser, from 0, counted over all epochs.
        steps_per_epoch : int
        epochs : int
            Of the whole training.

        Returns
        -------
        float
            0 to 1.
        """
        warm = round(self.warmup * steps_per_epoch)
        if step < warm:
            return (step + 1) / warm
        total = max(1, epochs * steps_per_epoch - warm)
        done = step - warm
        if self.name == "step":
            return self.factor ** int(step / (self.every * steps_per_epoch))
        if self.name == "multistep":
            return self.factor ** sum(step >= m * steps_per_epoch for m in self.milestones)
        return {"constant": constant, "cosine": cosine, "one-cycle": one_cycle}[self.name](done, total)

    def settled(self, step: int, steps_per_epoch: int, epochs: int) -> bool:
        """Whether the learning rate stays as it is at `step` until the end of the training.

        Parameters
        ----------
        step, steps_per_epoch, epochs : int
            As of `multiplier`.
        """
        last = epochs * steps_per_epoch - 1
        if step >= last:
            return True
        # After the warm-up no schedule comes back to a rate that it has left, except that one cycle first rises, from
        # well above where it ends.
        warm = round(self.warmup * steps_per_epoch)
        return step >= warm - 1 and (self.multiplier(step, steps_per_epoch, epochs)
                                     == self.multiplier(last, steps_per_epoch, epochs))
