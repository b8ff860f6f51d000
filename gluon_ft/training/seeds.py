"""Seeds every generator that training draws from."""
from __future__ import annotations

import random

import mxnet as mx
import numpy as np


def seed_all(seed: int) -> None:
    """Seeds Python's, NumPy's global and MXNet's generators (on every device) with the same number."""
    random.seed(seed)
    np.random.seed(seed)
    mx.random.seed(seed)
