"""The folder of a run while it is used: locked against other processes, and gone again if nothing came of it."""
from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from gluon_ft.errors import UserError
from gluon_ft.io import locks
from gluon_ft.io.paths import InUse
from gluon_ft.training import checkpoint

FOLDS_DONE = "folds.npy"  # what the folds of an unfinished cross-validation said, see `held_out`

@contextlib.contextmanager
def claimed(folder: str | os.PathLike, made: bool = False) -> Iterator[Path]:
    """Makes `folder` where it is missing, and holds its lock for the block.

    What the block put into a new folder is removed again where it raises before anything of training is saved, and the
    folder itself, where it was made here and nothing is in it.

    Parameters
    ----------
    folder : path-like
    made : bool
        The caller has just made it.

    Raises
    ------
    UserError
        where another process has the lock, or the folder cannot be made.
    """
    folder = Path(folder)
    there = folder.is_dir() and not made
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = locks.acquire(folder / locks.RUN, busy=UserError(
            "the run's folder is in use by another process", path=folder, expected="one process a folder",
            remedy="wait for it or end it, or name another folder"))
    except OSError as error:
        found = "a file" if folder.is_file() else error.strerror or str(error)
        raise UserError("cannot write the run's folder", path=folder, expected="a folder that can be written",
                        found=found, remedy="name another one, or make room in it") from error
    in_use = InUse(folder)
    try:
        with lock:
            fresh = state(folder) == "new"
            try:
                yield folder
            except BaseException as error:
                if fresh and in_use.is_there() and not _begun(folder, refused=isinstance(error, UserError)):
                    _clear(folder)
                raise
    finally:
        if not there and in_use.is_there():
            with contextlib.suppress(OSError):  # not empty, or gone
                folder.rmdir()


def _begun(folder, refused: bool) -> bool:
    """Whether something of training is in the folder: an epoch's record, parameters, a fold or a checkpoint.

    The checkpoint before the first step counts as nothing where the settings were `refused`: a run that they cannot
    train can never go on.
    """
    store = checkpoint.Store(folder)
    return ((folder / "metrics.jsonl").exists() or any(folder.glob("*.params")) or (folder / FOLDS_DONE).exists()
            or (store.begun() if refused else bool(store.paths())))


def _clear(folder):
    """Removes everything but hidden files, which may have been there before."""
    for path in list(folder.iterdir()):
        if not path.name.startswith("."):
            with contextlib.suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def state(folder: str | os.PathLike) -> str:
    """'new' (nothing in it but hidden files), 'unfinished', 'finished', or 'other' (something that is no run)."""
    folder = Path(folder)
    try:
        names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    except (FileNotFoundError, NotADirectoryError):  # not there, or removed by another process just now
        names = set()
    if not names:
        return "new"
    if "config.json" not in names:
        return "other"
    return "finished" if "result.json" in names else "unfinished"
