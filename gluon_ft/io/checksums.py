"""What is published about a file (hashes, size), and whether a file here agrees with it."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pooch

_PAGES = (b"<!doctype html", b"<html")


@dataclass(frozen=True)
class Expected:
    """What is published about a file: full hashes, the first hex digits of one, and its size in bytes."""

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
        """What is wrong with the file at `path`, as 'expected ..., found ...', or None where all agrees."""
        try:
            return self._fault(path)
        except OSError as error:
            return f"cannot be read: {error.strerror}"

    def _fault(self, path):
        size = path.stat().st_size
        if self.size is not None and size != self.size:
            return f"wrong size: expected {self.size} bytes, found {size}"
        for kind in ("sha256", "sha1", "md5"):
            full, first = getattr(self, kind), getattr(self, f"{kind}_prefix", None)
            if full or first:
                found = pooch.file_hash(str(path), alg=kind)
                if found != full.lower() if full else not found.startswith(first.lower()):
                    what = " (it is an HTML page)" if is_page(path) else ""
                    return f"wrong {kind}: expected {full or first + '...'}, found {found}{what}"
        if self.hash is None and is_page(path):
            return "expected a data file, found an HTML page"
        return None


def is_page(path) -> bool:
    """Whether a file begins like HTML, as error pages do that were saved as data."""
    with open(path, "rb") as file:
        return file.read(512).lstrip().lower().startswith(_PAGES)


def find_local(name: str, folders, expected: Expected) -> tuple[Path | None, list[tuple[str, str]]]:
    """The file called `name` in the first folder that has it as expected, and what is wrong with the others."""
    faults = []
    for folder in folders:
        path = Path(folder) / name
        if path.is_file():
            fault = expected.fault(path)
            if fault is None:
                return path, faults
            faults.append((str(path), fault))
    return None, faults


def is_good(path: Path, expected: Expected) -> bool:
    """Whether the file is there and as expected."""
    return path.is_file() and expected.fault(path) is None


def sha256_of(path) -> str:
    """The SHA-256 of a file in hexadecimal, read in pieces; raises OSError."""
    return pooch.file_hash(str(path), alg="sha256")
