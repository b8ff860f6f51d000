"""Ratios of two versions' measurements and what of them is noise; pure functions."""
from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

LEAST = 0.03  # of a ratio; less than this is not called a loss, however quiet the machine
DEVIATIONS = 3.0
_MAD = 1.4826  # median absolute deviation to standard deviation, for a normal distribution
_MEDIAN = 1.2533  # standard error of a median over that of a mean, for a normal distribution


@dataclass(frozen=True)
class Ratio:
    """new / old: `median` of the pairs, `noise` (standard error, relative), `limit` that a loss must exceed."""

    median: float
    low: float
    high: float
    noise: float
    limit: float
    pairs: int

    @property
    def slower(self) -> bool:
        """The new version takes longer than noise explains."""
        return self.median > 1 + self.limit

    @property
    def faster(self) -> bool:
        """The new version takes less time than noise explains."""
        return self.median < 1 / (1 + self.limit)


def time_ratio(old: list[float], new: list[float], least: float = LEAST) -> Ratio:
    """From times measured in turn: `old[i]` and `new[i]` are neighbours in time.

    The noise comes from the pairs' own spread and from an A/A comparison, each version's measurements against the next
    one of the same version; the larger of the two counts. At least two pairs of positive times.
    """
    pairs = [math.log(b / a) for a, b in zip(old, new)]
    same = [math.log(b / a) for times in (old, new) for a, b in zip(times, times[1:])]
    centre = statistics.median(pairs)
    spread = _MAD * statistics.median(abs(p - centre) for p in pairs)
    # Around nothing: two measurements of the same version should be equal.
    again = _MAD * statistics.median(abs(p) for p in same)
    noise = max(spread, again) * _MEDIAN / math.sqrt(len(pairs))
    ratios = [math.exp(p) for p in pairs]
    return Ratio(math.exp(centre), min(ratios), max(ratios), noise, max(least, math.expm1(DEVIATIONS * noise)),
                 len(pairs))


def accuracy_loss(old: list[float], new: list[float], least: float = 0.005) -> tuple[float, float]:
    """(median of new - old, limit below 0 that makes it a loss), of pairs with the same seed."""
    differences = [b - a for a, b in zip(old, new)]
    centre = statistics.median(differences)
    spread = _MAD * statistics.median(abs(d - centre) for d in differences)
    return centre, -max(least, DEVIATIONS * spread * _MEDIAN / math.sqrt(len(differences)))
