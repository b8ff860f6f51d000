"""Where weights files are kept: the cache and the look-aside folders of `GLUON_FT_WEIGHTS`; fetches what is missing."""
from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from gluon_ft.errors import DownloadError
from gluon_ft.io.checksums import find_local
from gluon_ft.io.downloads import fetch
from gluon_ft.io.paths import cache_home
from gluon_ft.weights.catalog import File, Row

VARIABLE = "GLUON_FT_WEIGHTS"


@dataclass(frozen=True)
class Stored:
    """The files of one source of a row, as they are here: `paths` goes with `files`, the main one first."""

    row: Row
    files: tuple[File, ...]
    paths: tuple[Path, ...]

    @property
    def path(self) -> Path:
        """The main file."""
        return self.paths[0]

    @property
    def format(self) -> str:
        """Format of the main file: 'params', 'torch' or 'safetensors'."""
        return self.files[0].format


def folder() -> Path:
    """The cache folder of weights files; not created here."""
    return cache_home() / "weights"


def look_aside() -> list[Path]:
    """The folders of `GLUON_FT_WEIGHTS` (several as in PATH); searched by file name before anything is fetched."""
    return [Path(part).expanduser() for part in os.environ.get(VARIABLE, "").split(os.pathsep) if part]


def stored(row: Row) -> Stored | None:
    """The first source of the row whose files are all here and as published (hashed), or None."""
    folders = [*look_aside(), folder()]
    for files in row.sources:
        found = [path for file in files if (path := find_local(file.name, folders, file.checksums)[0])]
        if len(found) == len(files):
            return Stored(row, files, tuple(found))
    return None


def is_here(row: Row) -> bool:
    """Whether all files of a source are here by name and size; quick, without hashing, for lists."""
    folders = [*look_aside(), folder()]
    return any(all(any(_alike(where / file.name, file) for where in folders) for file in files)
               for files in row.sources)


def _alike(path: Path, file: File) -> bool:
    return path.is_file() and file.checksums.size in (None, path.stat().st_size)


def path(row: Row) -> Path | None:
    """The main weights file of the row where it is here, in the cache or a look-aside folder; else None."""
    found = stored(row)
    return found.path if found else None


def get(row: Row, offline: bool = False, progress: bool = True) -> Stored:
    """The files of the row; those not here are fetched into the cache, from the first source that works.

    Parameters
    ----------
    row : Row
    offline : bool
        Fetch nothing.
    progress : bool
        Whether a progress bar is shown.

    Raises
    ------
    DownloadError
        With every address tried and its reason, the hash expected, and the folders in which the file is looked for.
    """
    found = stored(row)
    if found:
        return found
    faults = []
    for files in row.sources:
        try:
            return Stored(row, files, tuple(_get(file, offline, progress) for file in files))
        except DownloadError as error:
            faults.append(error.message)
    folders = ", ".join(map(str, [*look_aside(), folder()]))
    wanted = " or ".join(" and ".join(f"{file.name} ({file.checksums.hash or 'no hash is published'})"
                                      for file in files) for files in row.sources)
    raise DownloadError(f"weights {row.name} are not here and could not be fetched", expected=wanted,
                        found="; ".join(faults),
                        remedy=f"put the file into one of {folders}, or set {VARIABLE} to the folder it is in; "
                               f"origin: {row.origin}")


def _get(file: File, offline: bool, progress: bool) -> Path:
    addresses = () if offline else file.addresses
    try:
        return fetch(addresses, folder() / file.name, member=file.member, look_aside=look_aside(), progress=progress,
                     **vars(file.checksums))
    except DownloadError as error:
        if offline and file.addresses:
            raise DownloadError(f"offline, so not fetched from {', '.join(file.addresses)}") from error
        raise
