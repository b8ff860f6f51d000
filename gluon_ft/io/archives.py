"""Unpacking archives that are not trusted: nothing leaves the folder, nothing fills the disk, all or nothing."""
from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import os
import shutil
import stat
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from gluon_ft.errors import DataError
from gluon_ft.io import atomic

MOST_BYTES = 20 << 30
MOST_FILES = 2_000_000
_CHUNK = 1 << 18
_ONE_READ = 1 << 20  # a tar header asks for more only in a forged archive
_BLOCK = 512  # bytes of a tar header
_HEADERS = 4096  # bytes of headers and padding that a member of a tar archive may need

_BAD = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError,
        UnicodeError, RuntimeError, ValueError)


@dataclass(frozen=True)
class _Member:
    name: str
    kind: str  # 'file', 'folder', or what else it is
    size: int
    open: Callable[[], Any]  # a file to read from


def unpack(archive: str | os.PathLike, folder: str | os.PathLike, *, max_bytes: int = MOST_BYTES,
           max_files: int = MOST_FILES) -> Path:
    """Unpacks a zip or tar archive (plain, gzip, bzip2, xz; told by content, not by name) into a new folder.

    Modes and times of members are not taken over.

    Parameters
    ----------
    archive : path-like
    folder : path-like
        Must not exist, or be empty. It appears once everything is unpacked, not before.
    max_bytes : int
        Limit of all files together once unpacked, declared and real.
    max_files : int
        Limit of members.

    Raises
    ------
    DataError
        Naming the member: absolute paths, `..`, links, devices and other special files, encrypted members, names
        twice or differing only by case, backslashes and drive letters in names, too much or too many, a damaged
        archive.
    """
    archive, folder = Path(archive), Path(os.path.abspath(folder))
    if not archive.is_file():
        raise DataError("no such archive", path=archive)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError("is there already", path=folder, expected="a new or an empty folder",
                        remedy="remove it, or choose another")
    try:
        with atomic.replacing_folder(folder) as building:
            _unpack(archive, building, max_bytes, max_files)
    except _BAD as error:
        if isinstance(error, DataError):
            raise
        raise DataError("damaged archive", path=archive, found=f"{type(error).__name__}: {error}",
                        remedy="fetch it again") from error
    except OSError as error:
        if error.errno is None:  # bz2 and gzip say so where the data is damaged
            raise DataError("damaged archive", path=archive, found=error, remedy="fetch it again") from error
        raise DataError("cannot be unpacked", path=archive, found=error.strerror or error,
                        remedy=f"free some space, or check {folder.parent}") from error
    return folder


def _unpack(archive: Path, folder: Path, max_bytes: int, max_files: int) -> None:
    seen: dict[str, list] = {}
    written = 0
    for count, member in enumerate(_members(archive, max_bytes, max_files), 1):
        if count > max_files:
            raise DataError("too many members", path=archive, expected=f"at most {max_files}")
        parts = _safe_parts(archive, member)
        _unique(archive, member, parts, seen)
        path = folder.joinpath(*parts)
        if member.kind == "folder":
            path.mkdir(parents=True, exist_ok=True)
            continue
        if written + member.size > max_bytes:
            raise _too_large(archive, max_bytes)
        path.parent.mkdir(parents=True, exist_ok=True)
        written += _write(archive, member, path, max_bytes - written, max_bytes)


def _write(archive: Path, member: _Member, path: Path, left: int, max_bytes: int) -> int:
    size = 0
    with member.open() as source, open(path, "xb") as file:
        while chunk := source.read(_CHUNK):
            size += len(chunk)
            if size > left:
                raise _too_large(archive, max_bytes)
            file.write(chunk)
    return size


def _too_large(archive: Path, max_bytes: int) -> DataError:
    return DataError("unpacks to more than allowed", path=archive, expected=f"at most {max_bytes} bytes")


def _safe_parts(archive: Path, member: _Member) -> list[str]:
    """The parts of a member's path below the folder; DataError where it points anywhere else or is no plain file.

    For zip and tar alike, and stricter than tarfile's `data_filter`, which makes an absolute path relative and lets
    links pass that stay inside.
    """
    name = member.name
    why = None
    if not name or "\0" in name or "\\" in name:
        why = "has a name that is empty or holds a backslash or a NUL"
    elif name.startswith("/") or ":" in name.split("/")[0][:2]:
        why = "has an absolute path"
    elif ".." in name.split("/"):
        why = "has a path with '..'"
    elif member.kind not in ("file", "folder"):
        why = f"is {member.kind}"
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if why is None and not parts and member.kind == "file":
        why = "has no name"
    if why:
        raise DataError(f"refused: member '{_shown(name)}' {why}", path=archive,
                        expected="plain files and folders inside the archive's own folder")
    return parts


def _unique(archive: Path, member: _Member, parts: list[str], seen: dict[str, list]) -> None:
    """Remembers a path and its folders; DataError where it is there already or another differs only by case."""
    for depth in range(1, len(parts) + 1):
        spelled = "/".join(parts[:depth])
        is_file = depth == len(parts) and member.kind == "file"
        before = seen.setdefault(unicodedata.normalize("NFC", spelled).casefold(), [spelled, is_file, False])
        if before[0] != spelled:
            raise DataError(f"refused: names that differ only by case: '{_shown(before[0])}' and '{_shown(spelled)}'",
                            path=archive)
        if before[2] and (before[1] or is_file):
            raise DataError(f"refused: '{_shown(spelled)}' is in it twice", path=archive)
        before[2] = True


def _shown(name: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in name[:120])


def _members(archive: Path, max_bytes: int, max_files: int) -> Iterator[_Member]:
    with open(archive, "rb") as file:
        start = file.read(6)
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip_members(archive, max_bytes)
    openers = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open))
    opener = next((o for magic, o in openers if start.startswith(magic)), open)
    return _tar_members(archive, opener, max_bytes + max_files * _HEADERS)


def _zip_members(archive: Path, max_bytes: int) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as opened:
        infos = opened.infolist()
        total = sum(info.file_size for info in infos)
        free = shutil.disk_usage(archive.parent).free
        if total > max_bytes:
            raise _too_large(archive, max_bytes)
        if total > free:
            raise OSError(errno.ENOSPC, f"unpacks to {total} bytes, {free} are free")
        for info in infos:
            mode = stat.S_IFMT(info.external_attr >> 16)
            kind = "folder" if info.filename.endswith("/") else "file"
            if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
                kind = "a link" if mode == stat.S_IFLNK else "a special file"
            if info.flag_bits & 1:
                kind = "encrypted"
            yield _Member(info.orig_filename, kind, info.file_size, lambda info=info: opened.open(info))


class _Bounded:
    """The unpacked stream of a tar archive: refuses to be read beyond a limit or in huge pieces."""

    def __init__(self, file: IO[bytes], archive: Path, limit: int):
        self.file, self.archive, self.limit = file, archive, limit

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > _ONE_READ:
            raise DataError("refused: a header of it is larger than any real one", path=self.archive)
        data = self.file.read(size)
        self._check(self.file.tell())
        return data

    def seek(self, position: int, whence: int = 0) -> int:
        if whence == 0:
            self._check(position)
        return self.file.seek(position, whence)

    def tell(self) -> int:
        return self.file.tell()

    def _check(self, position: int) -> None:
        if position > self.limit:
            raise DataError("unpacks to more than allowed", path=self.archive,
                            expected=f"at most {self.limit} bytes with its headers")


def _tar_members(archive: Path, opener: Callable[..., Any], limit: int) -> Iterator[_Member]:
    with opener(archive, "rb") as plain:
        bounded = _Bounded(plain, archive, limit)
        opened = tarfile.TarFile(fileobj=cast(IO[bytes], bounded))
        for info in opened:
            kind = "file" if info.isreg() else "folder" if info.isdir() else "a special file"
            if info.issym() or info.islnk():
                kind = "a link"
            yield _Member(info.name, kind, info.size,
                          lambda info=info: opened.extractfile(_filtered(info, str(archive.parent))))
            cast(Any, opened).members = []  # tarfile keeps every header otherwise
        # tarfile takes a damaged or missing header after the first one for the end of the archive.
        bounded.seek(opened.offset)
        if bounded.read(_BLOCK) != bytes(_BLOCK):
            raise tarfile.ReadError(f"no end of archive at byte {opened.offset}")
        while bounded.read(_CHUNK):  # to the end, where gzip, bzip2 and xz have their checksums
            pass


def _filtered(info: tarfile.TarInfo, folder: str) -> tarfile.TarInfo:
    """By Python's own filter where it has one (3.12, and the later releases of 3.9 to 3.11), after `_safe_parts`."""
    data_filter = getattr(tarfile, "data_filter", None)
    return data_filter(info, folder) if data_filter else info
