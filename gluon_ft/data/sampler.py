"""The order of the images in an epoch, and the hash by which what a loader reads is compared."""
from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np


def epoch_order(labels, seed: int, epoch: int, shuffle: bool, balanced: bool = False) -> np.ndarray:
    """The order in which an epoch visits the images: a function of the arguments only.

    Parameters
    ----------
    labels : int (n,)
    seed : int
        0 to 2**32 - 1.
    epoch : int
        Its number, from 0.
    shuffle : bool
        False: in the source's order.
    balanced : bool, default False
        Each class equally often, rare ones repeatedly, in as many images as there are.

    Returns
    -------
    ndarray
        Positions, int64 (n,).
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
    """Positions in `labels`, shuffled, in which each class that has any comes equally often.

    To within one; which classes get the one more is drawn. Within a class every image comes before any comes again.

    Returns
    -------
    ndarray
        int64 (count,).
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
    """One SHA-256 over pieces of bytes, as hexadecimal digits; where one piece ends and the next begins counts."""
    total = hashlib.sha256()
    for piece in pieces:
        total.update(len(piece).to_bytes(8, "little"))
        total.update(piece)
    return total.hexdigest()
