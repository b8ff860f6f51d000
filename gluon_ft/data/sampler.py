"""The order of the images in an epoch, and the hash by which what a loader reads is compared."""
from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np


def epoch_order(labels: np.ndarray | Sequence[int], seed: int, epoch: int, shuffle: bool,
                balanced: bool = False) -> np.ndarray:
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


def balanced_order(labels: np.ndarray | Sequence[int], rng: np.random.RandomState, count: int) -> np.ndarray:
    """Draws a shuffled order in which each class comes equally often, to within one image.

    Which classes get the one more is drawn. No image comes again before all of its class have come.

    Parameters
    ----------
    labels : int (n,)
        The classes that are to come equally often are those found here.
    rng : numpy.random.RandomState
    count : int
        Length of the order; `len(labels)` for an ordinary epoch.

    Returns
    -------
    ndarray
        int64 (count,), positions in `labels`.
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
