"""Saves parameters such that a crash at any moment leaves either the old file or the new one, whole."""
from __future__ import annotations

from pathlib import Path

import mxnet as mx

from gluon_ft import atomic
from gluon_ft.errors import CheckpointError


def save_parameters(net, path) -> Path:
    """`net.save_parameters`, to a temporary name in the same folder, synced, then renamed to `path`.

    Raises CheckpointError where that cannot be done (folder missing, disk full); the old file is then still there.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic.replacing(path) as temporary:
            net.save_parameters(str(temporary))
    except (OSError, mx.MXNetError) as error:
        raise CheckpointError("the parameters could not be saved", path=path, found=str(error).splitlines()[0],
                              remedy="free some space or choose another folder") from error
    return path
