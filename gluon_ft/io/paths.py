"""Where gluon_ft keeps what it fetches and prepares once for all projects of a user."""
from __future__ import annotations

import os
from pathlib import Path
from typing import Union

# What a parameter that names a file or a folder takes.
AnyPath = Union[str, os.PathLike]

HOME_VARIABLE = "GLUON_FT_HOME"


def cache_home() -> Path:
    """The cache folder: `GLUON_FT_HOME`, else `$XDG_CACHE_HOME/gluon_ft`, else `~/.cache/gluon_ft`.

    Read from the environment at every call; the folder is not created here. A relative `XDG_CACHE_HOME` is
    ignored, as the XDG Base Directory Specification asks; an empty variable counts as unset.
    """
    own = os.environ.get(HOME_VARIABLE)
    if own:
        return Path(own).expanduser().absolute()
    shared = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(shared):
        return Path(shared) / "gluon_ft"
    return Path.home() / ".cache" / "gluon_ft"
