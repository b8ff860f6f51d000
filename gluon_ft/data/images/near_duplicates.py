"""Perceptual hashes of images and the search for pairs that show the same picture.

Two steps. Candidates: 128 bits an image (8x8 dHash of the rows and of the columns, from `imagehash`), compared with
the hashes of every other image in its eight orientations. Confirmation: the normalised correlation of the two
32x32 grey thumbnails and of their edges, after the best alignment of one inside the other, so that a crop is found
and a similar layout is not. Images with hardly any texture have meaningless hashes and take no part.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import imagehash
import numpy as np
from PIL import Image

SIDE = 32  # edge of a thumbnail, pixels
BITS = 128  # of a hash
NEAR = 28  # default largest Hamming distance of a candidate pair
LIKE = 0.90  # least correlation of the grey values, aligned, of a confirmed pair
DETAIL = 0.70  # least correlation of their edges: skies and lawns are alike in grey values only
SURE = 0.95  # correlation without alignment, from which on none is tried
POSSIBLE = 0.30  # correlation without alignment, below which none is tried (this misses a few of the 10% crops)
FLAT = 4.0  # standard deviation of a thumbnail's grey values (0..255) below which an image counts as flat

_FLIP = Image.Transpose
# What was done to the first image of a pair to get the second, and what undoes it. Angles are anticlockwise.
TURNS = (("", None), ("mirrored", _FLIP.FLIP_LEFT_RIGHT), ("upside down, mirrored", _FLIP.FLIP_TOP_BOTTOM),
         ("rotated 90", _FLIP.ROTATE_270), ("rotated 180", _FLIP.ROTATE_180), ("rotated 270", _FLIP.ROTATE_90),
         ("transposed", _FLIP.TRANSPOSE), ("transposed, rotated 180", _FLIP.TRANSVERSE))
_BLOCK = 2048
_SHRUNK = (32, 30, 29, 27, 26)  # edges tried for the image that may be a crop: 1, 0.94, 0.91, 0.84, 0.81 of SIDE


@dataclass(frozen=True)
class NearPair:
    """Images `first` < `second` (row numbers) that show the same picture.

    `turn` is what was done to the first to get the second ('' for nothing, 'mirrored', 'rotated 90', ...),
    `distance` the Hamming distance of the hashes in bits of 128, `correlation` that of the aligned thumbnails.
    """

    first: int
    second: int
    turn: str
    distance: int
    correlation: float


@dataclass
class Search:
    """The pairs that `near_pairs` found, sorted by (first, second); `stopped` says where it had to stop early."""

    pairs: list[NearPair] = field(default_factory=list)
    stopped: str | None = None


def thumbnail(grey: np.ndarray) -> Image.Image:
    """A 32x32 thumbnail of grey pixels, uint8 (height, width); the proportions are not kept."""
    return Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def hash_turns(small: Image.Image) -> np.ndarray:
    """Hashes of a thumbnail with each of the eight `TURNS` undone: uint8 (8, 16), 128 packed bits each."""
    rows = []
    for _, undo in TURNS:
        turned = small if undo is None else small.transpose(undo)
        rows.append(np.concatenate([imagehash.dhash(turned).hash.ravel(),
                                    imagehash.dhash_vertical(turned).hash.ravel()]))
    return np.packbits(np.stack(rows), axis=1)


def near_pairs(hashes: np.ndarray, thumbnails: np.ndarray, near: int = NEAR, *, most_pairs: int = 200_000,
               most_alignments: int = 50_000, tick: Callable[[float], object] | None = None) -> Search:
    """All pairs whose hashes differ in at most `near` bits and whose thumbnails confirm it.

    Parameters
    ----------
    hashes : uint8 array (n, 8, 16)
        From `hash_turns`.
    thumbnails : uint8 array (n, 32, 32)
        From `thumbnail`.
    near : int, default 28
        Largest Hamming distance of a candidate, 0..64 bits.
    most_pairs, most_alignments : int
        Bounds on memory and time. After `most_pairs` pairs the search stops; after `most_alignments` alignments it
        takes only pairs that agree without alignment. `Search.stopped` says so.
    tick : callable, optional
        Called with each share of the work that is done; they add up to 1.

    Every pair is compared: Hamming distances are matrix products of hashes written as +1/-1, and 30,000 images take
    seconds.
    """
    found: dict[tuple[int, int], NearPair] = {}
    state = {"left": most_alignments}
    blocks = [(a, b) for a in range(0, len(hashes), _BLOCK) for b in range(a, len(hashes), _BLOCK)]
    for a, b in blocks:
        for first, second, turn, distance in _candidates(hashes, a, b, near):
            for pair in _confirmed(thumbnails, first, second, turn, distance, state):
                key = (pair.first, pair.second)
                if key not in found or pair.distance < found[key].distance:
                    found[key] = pair
            if len(found) > most_pairs:
                return Search(_ordered(found), f"after {most_pairs} pairs of near duplicates")
        if tick:
            tick(1 / len(blocks))
    stopped = None if state["left"] > 0 else f"looking for crops after {most_alignments} similar pairs"
    return Search(_ordered(found), stopped)


def _ordered(found):
    return [found[key] for key in sorted(found)]


def _candidates(hashes, a, b, near):
    """Row numbers i < j with i in block a and j in block b, by turn: (i, j, turn index, distances)."""
    left = _signs(hashes[a:a + _BLOCK, 0])
    for turn in range(len(TURNS)):
        product = left @ _signs(hashes[b:b + _BLOCK, turn]).T
        i, j = np.nonzero(product >= BITS - 2 * near)
        distance = ((BITS - product[i, j]) / 2).astype(int)
        keep = i + a < j + b
        for cut in range(0, int(keep.sum()), 20_000):
            part = np.flatnonzero(keep)[cut:cut + 20_000]
            yield i[part] + a, j[part] + b, turn, distance[part]


def _signs(packed):
    return np.unpackbits(packed, axis=1).astype(np.float32) * 2 - 1


def _confirmed(thumbnails, first, second, turn, distance, state):
    ones, others = thumbnails[first], turned(thumbnails[second], turn)
    straight = np.einsum("np,np->n", normalised(ones), normalised(others))
    for k in np.flatnonzero(straight >= POSSIBLE):
        value, edges = float(straight[k]), -1.0
        if value >= LIKE:
            edges = _edge_correlation(ones[k], others[k])
        if (value < SURE or edges < DETAIL) and state["left"] > 0:
            state["left"] -= 1
            value, edges = max((value, edges), aligned(ones[k], others[k]))
        if value >= LIKE and edges >= DETAIL:
            yield NearPair(int(first[k]), int(second[k]), TURNS[turn][0], int(distance[k]), round(value, 4))


def turned(thumbnails: np.ndarray, turn: int) -> np.ndarray:
    """Thumbnails (n, 32, 32) with turn number `turn` of `TURNS` undone."""
    undo = TURNS[turn][1]
    if undo is None:
        return thumbnails
    swap = thumbnails.transpose(0, 2, 1)
    return {_FLIP.FLIP_LEFT_RIGHT: thumbnails[:, :, ::-1], _FLIP.FLIP_TOP_BOTTOM: thumbnails[:, ::-1],
            _FLIP.ROTATE_90: swap[:, ::-1], _FLIP.ROTATE_180: thumbnails[:, ::-1, ::-1],
            _FLIP.ROTATE_270: swap[:, :, ::-1], _FLIP.TRANSPOSE: swap,
            _FLIP.TRANSVERSE: swap[:, ::-1, ::-1]}[undo]


def normalised(images: np.ndarray) -> np.ndarray:
    """Rows of zero mean and unit length, float32 (n, pixels), from images (n, height, width)."""
    rows = images.reshape(len(images), -1).astype(np.float32)
    rows = rows - rows.mean(axis=1, keepdims=True)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)


def _edge_correlation(one, other):
    """Correlation of the differences between neighbouring pixels of two images of the same shape."""
    one, other = (np.concatenate([np.diff(image.astype(np.float32), axis=axis).ravel() for axis in (0, 1)])
                  for image in (one, other))
    return float(one @ other / max(np.linalg.norm(one) * np.linalg.norm(other), 1e-6))


def aligned(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Correlations of the grey values and of the edges of two thumbnails (32, 32) in their best alignment, -1..1.

    Each is tried inside the other, its width and height shrunk separately by up to a fifth.
    """
    return max(_best_inside(one, other), _best_inside(other, one))


def _best_inside(whole, part):
    best, place = -1.0, None
    for width in _SHRUNK:
        for height in _SHRUNK:
            template = cv2.resize(np.ascontiguousarray(part), (width, height), interpolation=cv2.INTER_LINEAR)
            values = cv2.matchTemplate(np.ascontiguousarray(whole), template, cv2.TM_CCOEFF_NORMED)
            y, x = divmod(int(values.argmax()), values.shape[1])
            if values[y, x] > best:
                best, place = float(values[y, x]), (whole[y:y + height, x:x + width], template)
    return best, _edge_correlation(*place) if place else -1.0
