"""File locks between processes; the system releases a lock when its process ends, however it ends."""
from __future__ import annotations

import contextlib
import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from gluon_ft.errors import UserError
from gluon_ft.io import paths, reporter

RUN = ".lock"  # in the folder of a run, held while something is written there
CHECKPOINTS = "lock"  # in the folder of its checkpoints, held while a network is trained
_PATIENCE = 1.0  # seconds of waiting before a notice says so


def beside(path: str | os.PathLike) -> Path:
    """The lock file for writing `path`: `.<name>.lock` in the same folder."""
    path = Path(path)
    return path.with_name(f".{path.name}.lock")


def acquire(file: str | os.PathLike, *, busy: UserError | None = None,
            waiting: str | None = None) -> AbstractContextManager:
    """Takes the lock when it is called; the end of a `with` block releases it and removes its file.

    Parameters
    ----------
    file : path-like
        The lock file, whose folder must exist.
    busy : UserError, optional
        Raised if another process holds the lock. Without it, the call waits.
    waiting : str, optional
        A notice to the user once the call has waited for a second.

    Raises
    ------
    OSError
        Where the file cannot be made.
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
    """Whether the locked file was removed by its last holder, so that it keeps nobody out."""
    # Newer versions of filelock check this themselves; 3.19, the last for Python 3.9, does not.
    number = getattr(getattr(lock, "_context", None), "lock_file_fd", None)
    return number is not None and os.fstat(number).st_nlink == 0


class _Held(AbstractContextManager):
    """A held lock. Its file is removed before the release: whoever waited for it then sees that it is gone."""

    def __init__(self, lock: Any) -> None:
        self.lock, self.known = lock, paths.identity(lock.lock_file)

    def __exit__(self, *_) -> None:
        with contextlib.suppress(OSError):
            # If the folder was removed and made again, the file may be another process's.
            if paths.identity(self.lock.lock_file) == self.known:
                os.unlink(self.lock.lock_file)
        self.lock.release()


def is_held(file: str | os.PathLike) -> bool:
    """Whether a process holds the lock; True also where that cannot be told, False where there is no lock file."""
    if not Path(file).is_file():
        return False
    try:
        # Also removes the file, which a killed process left, or which this call made just after its holder removed it.
        with acquire(file, busy=UserError("held")):
            return False
    except FileNotFoundError:
        return False
    except (UserError, OSError):
        return True
