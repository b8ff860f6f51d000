"""Locks between processes, as files; the system lets go of a lock when its process ends, however it ends."""
from __future__ import annotations

import contextlib
import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

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
    """Takes the lock at once; at the end of a `with` block it is released, and its file is gone.

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
    while True:
        try:
            lock.acquire(timeout=0 if busy is not None else _PATIENCE)
        except filelock.Timeout:
            if busy is not None:
                raise busy from None
            if waiting is not None:
                reporter.notice(waiting)
            lock.acquire()
        if not _removed(lock):
            return _Held(lock)
        lock.release()


def _removed(lock) -> bool:
    """Whether the file that is locked has lost its name, so that it keeps nobody out: its last holder removed it."""
    # Newer versions of filelock look themselves; 3.19, the last for Python 3.9, does not.
    number = getattr(getattr(lock, "_context", None), "lock_file_fd", None)
    return number is not None and os.fstat(number).st_nlink == 0


class _Held(AbstractContextManager):
    """A lock that is held; its file is removed before the release, since whoever waits looks whether it is there."""

    def __init__(self, lock: Any) -> None:
        self.lock, self.known = lock, _identity(lock.lock_file)

    def __exit__(self, *_) -> None:
        with contextlib.suppress(OSError):
            # Not the file of another process, where the folder was removed and made again.
            if _identity(self.lock.lock_file) == self.known:
                os.unlink(self.lock.lock_file)
        self.lock.release()


def _identity(file):
    about = os.stat(file)
    return about.st_dev, about.st_ino


def is_held(file: str | os.PathLike) -> bool:
    """Whether a process holds the lock, or that cannot be told; a lock file that is not there is held by nobody."""
    if not Path(file).is_file():
        return False
    try:
        # Removes the file again: it was left by a process that was killed, or made here as its holder removed it.
        with acquire(file, busy=UserError("held")):
            return False
    except FileNotFoundError:
        return False
    except (UserError, OSError):
        return True
