"""Locks between processes, as files; the system lets go of a lock when its process ends, however it ends."""
from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path

from gluon_ft.errors import UserError
from gluon_ft.io import reporter

RUN = ".lock"  # in the folder of a run, held while something is written there
CHECKPOINTS = "lock"  # in the folder of its checkpoints, held while a network is trained
_PATIENCE = 1.0  # seconds of waiting before the user is told


def beside(path: str | os.PathLike) -> Path:
    """The lock file of a file that is being made: `.<name>.lock` in the same folder."""
    path = Path(path)
    return path.with_name(f".{path.name}.lock")


def acquire(file: str | os.PathLike, *, busy: UserError | None = None,
            waiting: str | None = None) -> AbstractContextManager:
    """Takes the lock at once, and releases it at the end of a `with` block.

    Parameters
    ----------
    file : path-like
        The lock file, whose folder must exist.
    busy : UserError, optional
        Raised where another process holds the lock. Without it, the call waits.
    waiting : str, optional
        Told to the user when the call has waited for a second.

    Raises OSError where the file cannot be made.
    """
    import filelock

    lock = filelock.FileLock(os.fspath(file))
    try:
        return lock.acquire(timeout=0 if busy is not None else _PATIENCE)
    except filelock.Timeout:
        if busy is not None:
            raise busy from None
    if waiting is not None:
        reporter.notice(waiting)
    return lock.acquire()


def is_held(file: str | os.PathLike) -> bool:
    """Whether a process holds the lock, or that cannot be told; a lock file that is not there is held by nobody."""
    import filelock

    if not Path(file).is_file():
        return False
    try:
        with filelock.FileLock(os.fspath(file)).acquire(timeout=0):
            return False
    except (filelock.Timeout, OSError):
        return True
