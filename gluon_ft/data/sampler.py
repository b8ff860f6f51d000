"""The order of the images in an epoch, and the hash that identifies what a loader reads."""
from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np


def epoch_order(labels: np.ndarray | Sequence[int], seed: int, epoch: int, shuffle: bool,
                balanced: bool = False) -> np.ndarray:
    """The order of the images in an epoch, which depends only on the arguments.

    Parameters
    ----------
    labels : int (n,)
    seed : int
        0 to 2**32 - 1.
    epoch : int
        The number of the epoch, from 0.
    shuffle : bool
        False keeps the order of the source.
    balanced : bool, default False
        Draw each class equally often, repeating images of rare classes and leaving out some of frequent ones.

    Returns
    -------
    ndarray
        Positions, int64 (n,).
    """
    # NumPy guarantees that RandomState's random numbers stay the same in future versions.
    rng = np.random.RandomState((seed, epoch))
    if balanced:
        return balanced_order(np.asarray(labels), rng, len(labels))
    order = np.arange(len(labels))
    if shuffle:
        rng.shuffle(order)
    return order


def balanced_order(labels: np.ndarray | Sequence[int], rng: np.random.RandomState, count: int) -> np.ndarray:
    """Draws a shuffled order in which all classes are equally frequent, up to a difference of one image.

    Which classes get the extra image is random. No image is repeated before all others of its class were used.

    Parameters
    ----------
    labels : int (n,)
        The class of each image; classes without an image do not count.
    rng : numpy.random.RandomState
    count : int
        Number of images to draw; `len(labels)` for an ordinary epoch.

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
    """SHA-256 of a sequence of pieces, in hexadecimal; it depends on where one piece ends and the next begins."""
    total = hashlib.sha256()
    for piece in pieces:
        total.update(len(piece).to_bytes(8, "little"))
        total.update(piece)
    return total.hexdigest()
