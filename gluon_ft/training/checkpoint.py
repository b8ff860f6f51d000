"""Saves parameters such that a crash at any moment leaves either the old file or the new one, whole."""
from __future__ import annotations

import contextlib
import os
from pathlib import Path

from gluon_ft.errors import CheckpointError


def save_parameters(net, path) -> Path:
    """`net.save_parameters`, to a temporary name in the same folder, synced, then renamed to `path`.

    Raises CheckpointError where that cannot be done (folder missing, disk full); the old file is then still there.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        net.save_parameters(str(temporary))
        sync(temporary)
        os.replace(temporary, path)
    except Exception as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise CheckpointError("the parameters could not be saved", path=path, found=str(error).splitlines()[0],
                              remedy="free some space or choose another folder") from error
    return path


def sync(path: Path) -> None:
    """Asks the system to put a file on the disk, so that a rename cannot overtake its content."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
