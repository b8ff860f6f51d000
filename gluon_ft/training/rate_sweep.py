"""Raises the learning rate until training breaks: accuracy against rate."""
from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from gluon_ft.errors import ConfigError, TrainingError

HIGHEST = 1e4


def rising(start: float) -> Iterator[float]:
    """`start`, then 1 and 3 times the powers of ten above it (0.01, 0.03, 0.1, 0.3, ...), to `HIGHEST` at most."""
    if not 0 < start <= HIGHEST:
        raise ConfigError("a sweep's first rate is out of range", expected=f"above 0, at most {HIGHEST:g}", found=start)
    yield start
    for exponent in range(math.floor(math.log10(start)), math.ceil(math.log10(HIGHEST)) + 1):
        for digit in (1, 3):
            rate = float(f"{digit}e{exponent}")
            if start * (1 + 1e-9) < rate <= HIGHEST:
                yield rate


def reach_of_guessing(labels) -> float:
    """The accuracy that always naming the most frequent class reaches, and two standard errors more.

    labels : int (n,), of the validation images. What a network that learnt nothing gets is at most that, but for one
    in forty or so (normal approximation of the binomial).
    """
    labels = np.asarray(labels)
    share = np.bincount(labels).max() / len(labels)
    return float(share + 2 * math.sqrt(share * (1 - share) / len(labels)))


def sweep(train_at: Callable[[float], list[dict]], start: float, guessing: float) -> tuple[list[dict], list[dict]]:
    """Trains at rising rates until one breaks, that one included.

    Parameters
    ----------
    train_at : callable(lr) -> list of rows, one a seed, with `validation_accuracy` (0..1)
    start : the first rate
    guessing : accuracy that is no better than guessing, see `reach_of_guessing`

    Returns
    -------
    rates : one dict a rate: `lr`, `outcome` ('learns'; 'too low': no better than guessing, and no lower rate was
        either; 'breaks': no better than guessing after a lower rate learnt; 'not finite'), and `median`, `min`, `max`
        of the seeds' validation accuracy, None where the loss was not finite. The last one is 'breaks' or 'not finite',
        or the highest below `HIGHEST`.
    rows : those of `train_at`, all together; none of a rate that was not finite

    Raises what `train_at` raises, but for the TrainingError of a loss that is not finite after the first rate.
    """
    rates: list[dict] = []
    rows: list[dict] = []
    for lr in rising(start):
        try:
            found = train_at(lr)
        except TrainingError as error:
            # What `metrics.Meter` raises where a loss is NaN or infinite; any other is not the rate's doing.
            if error.expected != "a finite loss" or not rows:
                raise
            rates.append({"lr": lr, "outcome": "not finite", "median": None, "min": None, "max": None})
            break
        rows += found
        values = [row["validation_accuracy"] for row in found]
        median, learnt = float(np.median(values)), any(rate["outcome"] == "learns" for rate in rates)
        outcome = "learns" if median > guessing else "breaks" if learnt else "too low"
        rates.append({"lr": lr, "outcome": outcome, "median": median, "min": min(values), "max": max(values)})
        if outcome == "breaks":
            break
    return rates, rows
