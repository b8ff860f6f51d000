"""The user's cache folder, shared by all projects; and folders that may vanish while they are in use."""
from __future__ import annotations

import os
import tempfile
import weakref
from pathlib import Path
from typing import Union

from gluon_ft.errors import ConfigError, UserError

# What a parameter that names a file or a folder takes.
AnyPath = Union[str, os.PathLike]

HOME_VARIABLE = "GLUON_FT_HOME"
_REMEDY = f"set {HOME_VARIABLE} to a folder that you may write to"


def cache_home() -> Path:
    """The cache folder: `GLUON_FT_HOME`, else `$XDG_CACHE_HOME/gluon_ft`, else `~/.cache/gluon_ft`.

    Read from the environment at every call; the folder is not created here. A relative `XDG_CACHE_HOME` is
    ignored, as the XDG Base Directory Specification asks; an empty variable counts as unset.

    Raises ConfigError where something other than a folder is in its place.
    """
    home = home_folder()
    there = next((part for part in (home, *home.parents) if os.path.lexists(part)), None)
    if there is not None and not there.is_dir():
        raise ConfigError("the cache folder cannot be made", path=home, expected="a folder, or a place for one",
                          found=f"{there} is none", remedy=_REMEDY)
    return home


def home_folder() -> Path:
    """As `cache_home`, without a check of what is there."""
    own = os.environ.get(HOME_VARIABLE)
    if own:
        return expanded(own).absolute()
    shared = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(shared):
        return Path(shared) / "gluon_ft"
    return expanded("~") / ".cache" / "gluon_ft"


def made(folder: Path) -> Path:
    """Makes a folder of the cache where it is missing; ConfigError where it cannot be made or written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise ConfigError("the cache folder cannot be written to", path=folder, found=error.strerror or error,
                          remedy=_REMEDY) from error


def expanded(path: AnyPath) -> Path:
    """The path with `~` and `~name` expanded; ConfigError where that home folder is not known."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ConfigError("the home folder is not known", path=path, remedy=_REMEDY) from None


class InUse:
    """A folder that is written to for a long time, during which it may be removed or replaced.

    Parameters
    ----------
    folder : path-like
        It must exist.
    error : type of UserError
        Raised by `check`.

    Raises
    ------
    OSError
        Where the folder does not exist.
    """

    def __init__(self, folder: AnyPath, error: type[UserError] = UserError) -> None:
        self.folder, self.error = Path(folder), error
        # Kept open, so that no folder that is made later gets the same inode number.
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY) if hasattr(os, "O_DIRECTORY") else None
        if handle is not None:
            weakref.finalize(self, os.close, handle)
        self._known = identity(self.folder if handle is None else handle)

    def check(self) -> None:
        """Raises `error` unless it is still the same folder. Call it before each write."""
        found = self._instead()
        if found is not None:
            raise self.error("the folder was removed, or replaced, while it was written to", path=self.folder,
                             expected="the folder of the beginning", found=found,
                             remedy="put it back and resume, or start again")

    def is_there(self) -> bool:
        """Whether it is still the same folder."""
        return self._instead() is None

    def _instead(self) -> str | None:
        """What is found in the folder's place; None where it is still there."""
        try:
            return "another folder" if identity(self.folder) != self._known else None
        except OSError as error:
            return (error.strerror or str(error)).lower()


def identity(place: AnyPath | int) -> tuple[int, int]:
    """Device and inode number of a file or folder, by path or open handle. Raises OSError."""
    about = os.stat(place)
    return about.st_dev, about.st_ino
