"""Checksum verification: compares files with their published hashes and sizes."""
from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_HTML = (b"<!doctype html", b"<html")
_PIECE = 1 << 20  # bytes read at a time


@dataclass(frozen=True)
class Checksums:
    """The published checksums of a file: hashes in hex, the first hex digits of a hash, the size in bytes."""

    sha256: str | None = None
    sha1: str | None = None
    md5: str | None = None
    sha256_prefix: str | None = None
    sha1_prefix: str | None = None
    size: int | None = None

    @property
    def hash(self) -> str | None:
        """The strongest hash as text, 'sha1 fba480ff...', or None where none is published."""
        for kind in ("sha256", "sha1", "md5", "sha256_prefix", "sha1_prefix"):
            if getattr(self, kind):
                return f"{kind.replace('_prefix', ' beginning with')} {getattr(self, kind)}"
        return None

    def fault(self, path: Path) -> str | None:
        """What is wrong with the file at `path`, as 'wrong sha1: expected ..., found ...'; None where all agrees.

        Where no hash is published, an HTML page in place of the file is a fault too.
        """
        try:
            return self._fault(path)
        except OSError as error:
            return f"cannot be read: {error.strerror}"

    def _fault(self, path: Path) -> str | None:
        size = path.stat().st_size
        if self.size is not None and size != self.size:
            return f"wrong size: expected {self.size} bytes, found {size}"
        for kind in ("sha256", "sha1", "md5"):
            full, first = getattr(self, kind) or "", getattr(self, f"{kind}_prefix", None) or ""
            if full or first:
                found = hash_of(path, kind)
                if found != full.lower() if full else not found.startswith(first.lower()):
                    what = " (it is an HTML page)" if is_html(path) else ""
                    return f"wrong {kind}: expected {full or first + '...'}, found {found}{what}"
        if self.hash is None and is_html(path):
            return "expected a data file, found an HTML page"
        return None

    def match(self, path: Path) -> bool:
        """Whether the file exists and agrees with all published checksums."""
        return path.is_file() and self.fault(path) is None


def find_local(name: str, folders: Iterable[str | os.PathLike],
               checksums: Checksums) -> tuple[Path | None, list[tuple[str, str]]]:
    """Looks for a file in several folders, and takes the first one that agrees with the checksums.

    Parameters
    ----------
    name : str
        The file's name.
    folders : iterable of path-like
        Searched in this order.
    checksums : Checksums

    Returns
    -------
    (Path or None, list of (path, fault))
        The file, None where no folder has it; and the files of that name that do not agree, each with its fault.
    """
    faults = []
    for folder in folders:
        path = Path(folder) / name
        if path.is_file():
            fault = checksums.fault(path)
            if fault is None:
                return path, faults
            faults.append((str(path), fault))
    return None, faults


def is_html(path: str | os.PathLike) -> bool:
    """Whether a file begins like an HTML page: often an error page that was saved as data."""
    with open(path, "rb") as file:
        return file.read(512).lstrip().lower().startswith(_HTML)


def hash_of(path: str | os.PathLike, kind: str) -> str:
    """The hash of a file in hex; `kind` is a name of `hashlib`. Raises OSError."""
    digest = hashlib.new(kind)
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def sha256_of(path: str | os.PathLike) -> str:
    """The SHA-256 of a file in hex. Raises OSError."""
    return hash_of(path, "sha256")
