"""Where gluon_ft keeps what it fetches and prepares once for all projects of a user."""
from __future__ import annotations

import os
from pathlib import Path
from typing import Union

from gluon_ft.errors import ConfigError

# What a parameter that names a file or a folder takes.
AnyPath = Union[str, os.PathLike]

HOME_VARIABLE = "GLUON_FT_HOME"
_REMEDY = f"set {HOME_VARIABLE} to a folder that you may write to"


def cache_home() -> Path:
    """The cache folder: `GLUON_FT_HOME`, else `$XDG_CACHE_HOME/gluon_ft`, else `~/.cache/gluon_ft`.

    Read from the environment at every call; the folder is not created here. A relative `XDG_CACHE_HOME` is
    ignored, as the XDG Base Directory Specification asks; an empty variable counts as unset.

    Raises ConfigError where something else than a folder is in its place.
    """
    home = home_folder()
    there = next((part for part in (home, *home.parents) if os.path.lexists(part)), None)
    if there is not None and not there.is_dir():
        raise ConfigError("the cache folder cannot be made", path=home, expected="a folder, or a place for one",
                          found=f"{there} is none", remedy=_REMEDY)
    return home


def home_folder() -> Path:
    """As `cache_home`, whatever is in its place."""
    own = os.environ.get(HOME_VARIABLE)
    if own:
        return expanded(own).absolute()
    shared = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(shared):
        return Path(shared) / "gluon_ft"
    return expanded("~") / ".cache" / "gluon_ft"


def expanded(path: AnyPath) -> Path:
    """The path with `~` and `~name` put in; ConfigError where that home folder is not known."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ConfigError("the home folder is not known", path=path, remedy=_REMEDY) from None
