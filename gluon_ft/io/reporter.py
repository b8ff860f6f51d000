"""What long work tells its user: progress bars, and notices on standard error."""
from __future__ import annotations

import os

from tqdm import tqdm


def progress(iterable=None, **options) -> tqdm:
    """A tqdm bar on standard error, drawn only on a terminal (or where `GLUON_FT_PROGRESS=1`), gone when done."""
    forced = os.environ.get("GLUON_FT_PROGRESS")
    options.setdefault("disable", None if forced is None else forced == "0")
    options.setdefault("leave", False)
    options.setdefault("dynamic_ncols", True)
    return tqdm(iterable, **options)
