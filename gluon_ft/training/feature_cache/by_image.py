"""Penultimate features image by image, kept on disk: what is known of an image is not computed again.

A probe of some of the images, a job on all of them, and a later job on the same photos (another split, strategy or
seed) share what they compute. The features of an image do not depend on the others in its batch, to the bit.
"""
from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
from mxnet.gluon import HybridBlock

from gluon_ft.data.loader import Loader
from gluon_ft.data.sampler import digest
from gluon_ft.engine import choice, fused
from gluon_ft.io import atomic, locks
from gluon_ft.runtime import devices
from gluon_ft.training.feature_cache import features, subgraph
from gluon_ft.training.feature_cache import store as features_store

FOLDER = "images"  # in the folder of kept features
MOST_BYTES = 1 << 30  # of one network's features; of all networks' together `store.DISK_BYTES`
_HASH = "S64"  # SHA-256 in hexadecimal


def of_images(net: HybridBlock, loader: Any, ctx: list[mx.Context] | None = None,
              title: str = "features") -> tuple[np.ndarray, np.ndarray]:
    """The penultimate features of every image, as `features.extract` gives them, to the bit.

    Those that an earlier call computed, in this process or another, come from the cache folder. A cache that cannot be
    read or written costs time and nothing else.

    Parameters
    ----------
    net : HybridBlock
        An initialised classifier; the values of its output layer do not count.
    loader : Loader
        With `train=False`. Of another kind, nothing is kept.
    ctx : list of mx.Context, default where the network is
    title : str
        Shown in the progress bar.

    Returns
    -------
    features : float32 (n, d)
    labels : int64 (n,)
        Both in the source's order.

    Raises
    ------
    NetworkError, DataError
        As `features.extract`.
    """
    if not isinstance(loader, Loader) or loader.train:
        return features.extract(net, loader, ctx, title)
    sides = (False, True) if fused.is_mirrored(net) else (False,)
    preprocessing = loader.transform.preprocessing
    engine = fused.settle(net, len(sides) * len(loader.labels),
                          (preprocessing.channels, preprocessing.size, preprocessing.size))
    hashes = np.array(loader.source.content_hashes(), dtype=_HASH)
    known = [_Kept(key) for key in _keys(net, loader, engine, sides, ctx)]
    with choice.using(engine):
        for lacking, positions in _lacking(known, hashes).items():
            part = _part(loader, positions)
            new, _ = features.of_sides(net, part, tuple(sides[side] for side in lacking), ctx, title)
            for side, rows in zip(lacking, new):
                known[side].add(hashes[positions], rows)
    return features.mean_of([side.of(hashes) for side in known]), np.asarray(loader.labels, np.int64)


def _lacking(known: list[_Kept], hashes: np.ndarray) -> dict[tuple[int, ...], list[int]]:
    """Sides whose features are to be computed -> positions of the images; of copies that which comes first."""
    lacking: dict[tuple[int, ...], list[int]] = {}
    for name, position in {name: position for position, name in reversed(list(enumerate(hashes)))}.items():
        sides = tuple(number for number, side in enumerate(known) if name not in side.rows)
        if sides:
            lacking.setdefault(sides, []).append(position)
    return {sides: sorted(positions) for sides, positions in lacking.items()}


def _part(loader, positions):
    """A loader of some of the images; of all of them the loader itself, whose memory spares decoding twice."""
    if len(positions) == len(loader.labels):
        return loader
    part = copy.copy(loader)
    part.source = loader.source.subset(positions)
    part.labels = part.source.labels
    part.memory = None if loader.memory is None else _Translated(loader.memory, positions)
    return part


class _Translated:
    """The memory of a loader for some of its images, by their positions among these."""

    def __init__(self, memory, positions):
        self._memory, self._positions = memory, positions

    def get(self, position, make):
        return self._memory.get(self._positions[position], lambda _: make(position))


def _keys(net, loader, engine, sides, ctx) -> list[str]:
    """Everything that an image's features depend on besides its contents: a key of each side."""
    preprocessing = {name: value for name, value in loader.transform.preprocessing.to_dict().items()
                     if name != "mirror"}
    about = {"network": subgraph.penultimate_fingerprint(net, training=False), "preprocessing": preprocessing,
             "decode_resize": loader.decode_resize, "versions": features.versions(),
             "device": (ctx or devices.of(net))[0].device_type, **features.by_engine(engine)}
    return [digest([json.dumps({**about, "mirrored": mirrored}, sort_keys=True).encode()])[:40] for mirrored in sides]


class _Kept:
    """The file of one network's features. `rows`: hash of an image -> its features, those of the file and those added.
    """

    def __init__(self, key: str):
        self._folder = features_store.folder_of("disk") / FOLDER
        self._file = self._folder / f"{key}.npz"
        self.rows = dict(zip(*self._read()))

    def of(self, hashes: np.ndarray) -> np.ndarray:
        """The features of images, float32 (n, d)."""
        return np.stack([self.rows[name] for name in hashes])

    def _read(self) -> tuple[np.ndarray, np.ndarray]:
        """(hashes, rows); none where there is no file, or it is damaged."""
        with contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            with np.load(self._file, allow_pickle=False) as archive:
                hashes, rows = archive["hashes"], archive["rows"]
            if hashes.dtype == _HASH and rows.dtype == np.float32 and rows.ndim == 2 and len(hashes) == len(rows) \
                    and np.isfinite(rows).all():
                os.utime(self._file)
                return hashes, rows
        return np.empty(0, _HASH), np.empty((0, 0), np.float32)

    def add(self, hashes: np.ndarray, rows: np.ndarray) -> None:
        """Keeps the rows of more images; the oldest go where there would be too many."""
        self.rows.update(zip(hashes, rows))
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            with locks.acquire(locks.beside(self._file)):
                known, before = self._read()
                fresh = ~np.isin(hashes, known)
                if len(known):
                    hashes, rows = np.concatenate([known, hashes[fresh]]), np.concatenate([before, rows[fresh]])
                most = max(1, MOST_BYTES // (4 * rows.shape[1]))
                buffer = io.BytesIO()
                np.savez(buffer, hashes=hashes[-most:], rows=rows[-most:])
                atomic.write(self._file, buffer.getvalue())
            _make_room(self._folder, self._file)


def _make_room(folder: Path, spared: Path) -> None:
    """Removes the files of the networks that were used least recently, as far as there are too many."""
    files = sorted(folder.glob("*.npz"), key=lambda file: file.stat().st_mtime)
    used = sum(file.stat().st_size for file in files)
    for file in files:
        if used <= features_store.DISK_BYTES:
            break
        if file != spared:
            used -= file.stat().st_size
            file.unlink()
