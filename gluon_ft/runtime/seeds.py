"""Seeds every random generator that training draws from."""
from __future__ import annotations

import random

import mxnet as mx
import numpy as np


def seed_all(seed: int) -> None:
    """Seeds Python's, NumPy's global and MXNet's generators (on every device) with the same number."""
    random.seed(seed)
    np.random.seed(seed)
    mx.random.seed(seed)


def seed_of(seed: int, epoch: int, step: int = 0, worker: int = 0) -> int:
    """A seed for MXNet's generator at one step, so that resumed training draws the same numbers.

    The generator's state cannot be saved, so training seeds it anew.

    Parameters
    ----------
    seed : int
        The training's seed.
    epoch : int
    step : int, default 0
        Within the epoch.
    worker : int, default 0
        Of several that draw for different images.

    Returns
    -------
    int
        0 to 2**31 - 1. The factors are primes.
    """
    return (seed + 1_000_003 * epoch + 15_485_863 * step + 32_452_843 * worker) % 2 ** 31
