"""Writing a file whole or not at all."""
from __future__ import annotations

import contextlib
import os
from pathlib import Path


def write_atomic(path, data: bytes | str) -> Path:
    """Writes `data` (text as UTF-8) under a temporary name in the same folder, syncs it, and moves it to `path`.

    Where anything fails, `path` is as it was and no temporary file is left. Raises OSError.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data.encode("utf-8") if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    return path
