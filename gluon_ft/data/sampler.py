"""The order in which a pass visits the images, and what a loader reads, in a form that can be compared."""
from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np


def epoch_order(labels, seed: int, epoch: int, shuffle: bool, balanced: bool = False) -> np.ndarray:
    """Positions in the order in which pass number `epoch` visits them; int64 (n,), a function of the arguments only.

    balanced : each class equally often, rare ones repeatedly, in as many images as there are
    """
    # RandomState, because its streams are promised not to change between NumPy's versions.
    rng = np.random.RandomState((seed, epoch))
    if balanced:
        return balanced_order(np.asarray(labels), rng, len(labels))
    order = np.arange(len(labels))
    if shuffle:
        rng.shuffle(order)
    return order


def balanced_order(labels, rng: np.random.RandomState, count: int) -> np.ndarray:
    """int64 (count,) positions in `labels`, shuffled, in which each class that has any comes equally often.

    To within one; which classes get the one more is drawn. Within a class every image comes before any comes again.
    """
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    share, rest = divmod(count, len(members))
    counts = np.full(len(members), share)
    counts[rng.permutation(len(members))[:rest]] += 1
    drawn = []
    for positions, wanted in zip(members, counts):
        rounds = [rng.permutation(positions) for _ in range(-(-wanted // len(positions)))]
        drawn.append(np.concatenate(rounds)[:wanted] if rounds else positions[:0])
    return rng.permutation(np.concatenate(drawn)).astype(np.int64)


def digest(pieces: Iterable[bytes]) -> str:
    """One SHA-256 over pieces of bytes, of which the lengths count too."""
    total = hashlib.sha256()
    for piece in pieces:
        total.update(len(piece).to_bytes(8, "little"))
        total.update(piece)
    return total.hexdigest()
