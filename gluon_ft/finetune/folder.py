"""The folder of a run while it is used: locked against other processes, and gone again if nothing came of it."""
from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import filelock

from gluon_ft.errors import UserError

LOCK = ".lock"


@contextlib.contextmanager
def claimed(folder) -> Iterator[Path]:
    """Makes `folder` where it is missing, and holds its lock for the block.

    Where the block leaves nothing in a folder that was made here, the folder is removed again. Raises UserError where
    another process has the lock, or the folder cannot be made.
    """
    folder = Path(folder)
    there = folder.is_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / LOCK)
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise UserError("the run's folder is in use by another process", path=folder, expected="one process a folder",
                        remedy="wait for it or end it, or name another folder") from None
    except OSError as error:
        found = "a file" if folder.is_file() else error.strerror or str(error)
        raise UserError("cannot write the run's folder", path=folder, expected="a folder that can be written",
                        found=found, remedy="name another one, or make room in it") from error
    try:
        yield folder
    finally:
        empty = [path.name for path in folder.iterdir()] == [LOCK]
        if empty:
            (folder / LOCK).unlink()
        lock.release()
        if empty and not there:
            with contextlib.suppress(OSError):
                folder.rmdir()


def state(folder) -> str:
    """'new' (nothing in it but hidden files), 'unfinished', 'finished', or 'other' (something that is no run)."""
    folder = Path(folder)
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")} if folder.is_dir() else set()
    if not names:
        return "new"
    if "config.json" not in names:
        return "other"
    return "finished" if "result.json" in names else "unfinished"
