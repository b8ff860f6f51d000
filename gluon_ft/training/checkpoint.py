"""Checkpoints: one file each, whole or not there, the last few and the best kept, for one process at a time."""
from __future__ import annotations

import contextlib
import io
import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mxnet as mx
import numpy as np
import safetensors.numpy

from gluon_ft.errors import CheckpointError
from gluon_ft.io import atomic, locks
from gluon_ft.io.settings import plain
from gluon_ft.weights.readers.params_files import check_whole

FORMAT = "gluon_ft checkpoint 1"
FOLDER = "checkpoints"
_VALUES, _TENSORS = "state.json", "tensors.safetensors"
_NAME = re.compile(r"epoch-(\d{4,})-batch-(\d{6,})\.ckpt")


@dataclass(frozen=True)
class Bundle:
    """values : what JSON can hold; arrays : name -> NumPy array."""

    values: dict
    arrays: dict[str, np.ndarray]


def write(path, bundle: Bundle) -> Path:
    """Writes a bundle: a zip file without compression, whose checksums show damage anywhere in it.

    Raises CheckpointError where that cannot be done (disk full, no permission); what was at `path` is then still there.
    """
    path = Path(path)
    with _saving(path), atomic.replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        archive.writestr(_VALUES, json.dumps({"format": FORMAT, **plain(bundle.values)}, allow_nan=False))
        with archive.open(_TENSORS, "w", force_zip64=True) as member:
            member.write(safetensors.numpy.save({name: np.ascontiguousarray(a) for name, a in bundle.arrays.items()}))
    return path


def read(path) -> Bundle:
    """Reads a bundle; CheckpointError where it is damaged, cut short, or something else."""
    path = Path(path)
    try:
        # Whole into memory: zipfile reports damage found on the way in many kinds of exceptions.
        with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
            values = json.loads(archive.read(_VALUES))
            arrays = safetensors.numpy.load(archive.read(_TENSORS))
        if values.pop("format") != FORMAT:
            raise ValueError("another format")
    except FileNotFoundError as error:
        raise CheckpointError("no such checkpoint", path=path, remedy="start without resuming") from error
    except Exception as error:  # a damaged file can fail in any way that its readers can
        raise CheckpointError("the checkpoint is damaged", path=path, expected=FORMAT,
                              found=f"{type(error).__name__} {error}"[:120],
                              remedy="delete it to go on from the one before") from error
    return Bundle(values, arrays)


def save_parameters(net, path) -> Path:
    """`net.save_parameters`, to a temporary name in the same folder, synced, then renamed to `path`.

    Raises CheckpointError where that cannot be done (folder missing, disk full); the old file is then still there.
    """
    path = Path(path)
    with _saving(path), atomic.replacing(path) as temporary:
        net.save_parameters(str(temporary))
        check_whole(temporary)
    return path


@contextlib.contextmanager
def _saving(path):
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except (OSError, mx.MXNetError) as error:
        raise CheckpointError("could not be saved", path=path, found=str(error).splitlines()[0],
                              remedy="free some space or choose another folder; what was saved before is still there"
                              ) from error


class Store:
    """The checkpoints of one training in `folder`/checkpoints, named by epoch and batch.

    `locked` keeps other processes out while one trains there.
    """

    def __init__(self, folder, keep: int = 2):
        self.folder, self.keep = Path(folder), keep

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """CheckpointError where another process is training in this folder."""
        place = self.folder / FOLDER
        with _saving(place / locks.CHECKPOINTS):
            place.mkdir(exist_ok=True)
        with locks.acquire(place / locks.CHECKPOINTS, busy=CheckpointError(
                "another process is training here", path=self.folder, remedy="wait for it, or name another folder")):
            yield

    def paths(self) -> list[Path]:
        """The checkpoints, oldest first."""
        found = [(m, p) for p in (self.folder / FOLDER).glob("*.ckpt") if (m := _NAME.fullmatch(p.name))]
        return [p for m, p in sorted(found, key=lambda item: (int(item[0][1]), int(item[0][2])))]

    def save(self, epoch: int, batch: int, bundle: Bundle, best_epoch: int) -> Path:
        """Writes the checkpoint after `batch` batches of `epoch` (0: at its beginning) and removes old ones.

        The last `keep` stay, and the one at the end of the best epoch.
        """
        path = write(self.folder / FOLDER / f"epoch-{epoch:04d}-batch-{batch:06d}.ckpt", bundle)
        best = f"epoch-{best_epoch + 1:04d}-batch-000000.ckpt"
        for old in self.paths()[:-self.keep]:
            if old.name != best:
                old.unlink(missing_ok=True)
        # A process killed while it wrote left a temporary file.
        for stray in (self.folder / FOLDER).glob(".*.tmp"):
            stray.unlink(missing_ok=True)
        return path

    def latest(self) -> tuple[Path, Bundle]:
        """The newest checkpoint; CheckpointError where there is none, or it is damaged."""
        found = self.paths()
        if not found:
            raise CheckpointError("no checkpoint to go on from", path=self.folder / FOLDER,
                                  remedy="start without resuming, or name the folder of the run")
        return found[-1], read(found[-1])

    def clear(self) -> None:
        """Removes the checkpoints of an earlier training."""
        for path in self.paths():
            path.unlink(missing_ok=True)
