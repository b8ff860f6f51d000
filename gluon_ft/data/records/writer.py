"""`Target`: writes `.rec`, `.idx` and manifest under temporary names, then renames all three or none."""
from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

from gluon_ft.data.records import framing
from gluon_ft.errors import DataError
from gluon_ft.io import atomic, locks
from gluon_ft.io.paths import AnyPath

KINDS = (".rec", ".idx", ".manifest.json")


def with_suffix(prefix: AnyPath, kind: str) -> Path:
    """`<prefix><kind>`; dots in the prefix are kept."""
    return Path(f"{os.fspath(prefix)}{kind}")


class Target:
    """Writes `<prefix>.rec`, `.idx` and `.manifest.json`; use as a context manager.

    The `.rec` is renamed last, and an old one is removed first. So a process that is killed at any moment leaves either
    no `.rec`, or a complete one with its own `.idx` and manifest. After an exception the temporary files are removed;
    those of a killed process are removed when the same target is packed again.

    Raises
    ------
    DataError
        The target exists and `force` is False; its folder does not exist; another process is packing the same target;
        or writing fails (a full disk), in which case nothing is left behind.
    """

    def __init__(self, prefix, force: bool = False):
        self.prefix, self.force = Path(prefix), force
        self.sha256, self.idx_sha256 = hashlib.sha256(), hashlib.sha256()
        self.records = self.bytes = self.idx_bytes = 0
        self._files: dict = {}
        self._lock = contextlib.ExitStack()

    def path(self, kind: str) -> Path:
        return with_suffix(self.prefix, kind)

    def _temporary(self, kind: str) -> Path:
        return self.prefix.with_name(f".{self.prefix.name}{kind}.packing")

    def check(self) -> None:
        """Raises DataError if the target must not be written; called before any work is done."""
        if not self.prefix.parent.is_dir():
            raise DataError("folder does not exist", path=self.prefix.parent, remedy="create it, or choose another")
        if os.path.lexists(self.path(".rec")) and not self.force:
            raise DataError("exists already", path=self.path(".rec"),
                            remedy="choose another name, or replace it with --force")

    def __enter__(self):
        self.check()
        try:
            self._lock.enter_context(locks.acquire(locks.beside(self.prefix), busy=DataError(
                "another process is packing this target", path=self.path(".rec"),
                remedy="wait for it, or choose another name")))
        except OSError as error:
            raise self._write_error(error) from error
        try:
            self._remove_temporaries()
            for kind in KINDS:
                self._files[kind] = open(self._temporary(kind), "wb")
        except OSError as error:
            self._clean_up()
            raise self._write_error(error) from error
        return self

    def write(self, key: int, payload: bytes) -> None:
        """Appends one record to the `.rec`, and its line to the index."""
        framed, line = framing.frame(payload), b"%d\t%d\n" % (key, self.bytes)
        try:
            self._files[".rec"].write(framed)
            self._files[".idx"].write(line)
        except OSError as error:
            raise self._write_error(error) from error
        self.sha256.update(framed)
        self.idx_sha256.update(line)
        self.records += 1
        self.bytes += len(framed)
        self.idx_bytes += len(line)

    def commit(self, manifest: bytes) -> None:
        """Writes the manifest, flushes all three files to disk and renames them to their final names."""
        try:
            self._files[".manifest.json"].write(manifest)
            for file in self._files.values():
                atomic.sync(file)
                file.close()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path(".rec"))
            atomic.sync_folder(self.prefix.parent)
            for kind in reversed(KINDS):
                os.replace(self._temporary(kind), self.path(kind))
            atomic.sync_folder(self.prefix.parent)
        except OSError as error:
            raise self._write_error(error) from error

    def __exit__(self, *_):
        self._clean_up()

    def _clean_up(self):
        for file in self._files.values():
            with contextlib.suppress(OSError):
                file.close()
        self._remove_temporaries()
        self._lock.close()

    def _remove_temporaries(self):
        for kind in KINDS:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._temporary(kind))

    def _write_error(self, error: OSError) -> DataError:
        return DataError("cannot be written", path=self.path(".rec"), found=error.strerror or error,
                         remedy="nothing was left behind; make room or choose another folder")
