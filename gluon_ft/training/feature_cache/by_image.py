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
    keepers = [_Kept(_key(net, loader, engine, mirrored, ctx)) for mirrored in sides]
    with choice.using(engine):
        found = [_side(net, loader, hashes, mirrored, keeper, ctx, title) for mirrored, keeper in zip(sides, keepers)]
    # As `fused.evaluating` takes the mean, so that the bits are the same.
    rows = found[0] if len(found) == 1 else (found[0] + found[1]) / np.float32(2)
    return rows, np.asarray(loader.labels, np.int64)


def _side(net, loader, hashes, mirrored, keeper, ctx, title) -> np.ndarray:
    """The features of the images as they are, or of their mirror images."""
    known, rows = keeper.read()
    place = {name: position for position, name in enumerate(known)}
    missing = {name: position for position, name in reversed(list(enumerate(hashes))) if name not in place}
    if missing:
        # Copies are computed once, in the order in which they come first.
        first = sorted(missing.values())
        new, _ = features.extract(net, _part(loader, first), ctx, title, mirror=False, flipped=mirrored)
        keeper.add(hashes[first], new)
        rows = np.concatenate([rows, new]) if len(place) else new
        place.update({name: len(place) + position for position, name in enumerate(hashes[first])})
    return rows[[place[name] for name in hashes]]


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


def _key(net, loader, engine, mirrored, ctx) -> str:
    """Everything that an image's features depend on besides its contents."""
    preprocessing = {name: value for name, value in loader.transform.preprocessing.to_dict().items()
                     if name != "mirror"}
    about = {"network": subgraph.penultimate_fingerprint(net), "preprocessing": preprocessing,
             "decode_resize": loader.decode_resize, "mirrored": mirrored, "versions": features.versions(),
             "device": (ctx or devices.of(net))[0].device_type, **features.by_engine(engine)}
    return digest([json.dumps(about, sort_keys=True).encode()])[:40]


class _Kept:
    """The file of one network's features: hashes of images, and a row of each."""

    def __init__(self, key: str):
        self._folder = features_store.folder_of("disk") / FOLDER
        self._file = self._folder / f"{key}.npz"

    def read(self) -> tuple[np.ndarray, np.ndarray]:
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
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            with locks.acquire(locks.beside(self._file)):
                known, before = self.read()
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
