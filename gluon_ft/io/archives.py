"""Unpacks untrusted archives: nothing lands outside the folder, nothing fills the disk, all or nothing."""
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
_ONE_READ = 1 << 20  # bytes; only a forged tar header makes tarfile ask for more at once
_EXTENSIONS = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME,
               tarfile.GNUTYPE_LONGLINK)
_BLOCK = 512  # bytes of a tar header
_HEADERS = 4096  # bytes of headers and padding allowed for each member of a tar archive

_BAD = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError,
        UnicodeError, RuntimeError, ValueError)


@dataclass(frozen=True)
class _Member:
    name: str
    kind: str  # 'file', 'folder', or words for the error, such as 'a link'
    size: int
    open: Callable[[], Any]  # a file to read from


def unpack(archive: str | os.PathLike, folder: str | os.PathLike, *, max_bytes: int = MOST_BYTES,
           max_files: int = MOST_FILES) -> Path:
    """Unpacks a zip or tar archive (plain, gzip, bzip2, xz; recognised by content, not by name) into a new folder.

    File modes and times are not restored.

    Parameters
    ----------
    archive : path-like
    folder : path-like
        Must not exist, or be empty. It appears once everything is unpacked, not before.
    max_bytes : int
        Limit on the unpacked size of all files together, both as declared and as found.
    max_files : int
        Limit on the number of members.

    Raises
    ------
    DataError
        It names the member. Refused are absolute paths, `..`, links, devices and other special files, encrypted
        members, duplicate names and names that differ only by case, backslashes and drive letters in names, archives
        beyond the limits, and damaged ones.
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
        if error.errno is None:  # so bz2 and gzip report damaged data
            raise DataError("damaged archive", path=archive, found=error, remedy="fetch it again") from error
        raise DataError("cannot be unpacked", path=archive, found=error.strerror or error,
                        remedy=f"free some space, or check {folder.parent}") from error
    return folder


def _unpack(archive: Path, folder: Path, max_bytes: int, max_files: int) -> None:
    seen: dict[str, tuple[str, bool]] = {}
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
    """The parts of a member's path below the folder; DataError where it points elsewhere, or is no file or folder.

    For zip and tar alike, and stricter than tarfile's `data_filter`, which makes absolute paths relative and accepts
    links that stay inside.
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


def _unique(archive: Path, member: _Member, parts: list[str], seen: dict[str, tuple[str, bool]]) -> None:
    """Records a path and its folders; DataError where it is in the archive twice, or another differs only by case.

    seen : the path in lower case -> (the path as it was first spelled, whether it is a file)
    """
    for depth in range(1, len(parts) + 1):
        spelled = "/".join(parts[:depth])
        is_file = depth == len(parts) and member.kind == "file"
        lower = unicodedata.normalize("NFC", spelled).casefold()
        if lower not in seen:
            seen[lower] = spelled, is_file
            continue
        first, was_file = seen[lower]
        if first != spelled:
            raise DataError(f"refused: names that differ only by case: '{_shown(first)}' and '{_shown(spelled)}'",
                            path=archive)
        if was_file or is_file:
            raise DataError(f"refused: '{_shown(spelled)}' is in it twice", path=archive)


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
    """The decompressed stream of a tar archive, which refuses to be read beyond a limit or in huge pieces."""

    def __init__(self, file: IO[bytes], archive: Path, limit: int):
        self.file, self.archive, self.limit = file, archive, limit

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > _ONE_READ:
            raise _forged(self.archive)
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


def _forged(archive: Path) -> DataError:
    return DataError("refused: a header of it is larger than any real one", path=archive)


class _Header(tarfile.TarInfo):
    """A header whose extension has a limit: Python 3.14 reads it in small pieces, which `_Bounded` would let pass."""

    def _proc_member(self, opened: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _EXTENSIONS and self.size > _ONE_READ:
            raise _forged(Path(str(opened.name)))
        return cast(Any, super())._proc_member(opened)


def _tar_members(archive: Path, opener: Callable[..., Any], limit: int) -> Iterator[_Member]:
    with opener(archive, "rb") as plain:
        bounded = _Bounded(plain, archive, limit)
        opened = tarfile.TarFile(str(archive), fileobj=cast(IO[bytes], bounded), tarinfo=_Header)
        for info in opened:
            kind = "file" if info.isreg() else "folder" if info.isdir() else "a special file"
            if info.issym() or info.islnk():
                kind = "a link"
            yield _Member(info.name, kind, info.size,
                          lambda info=info: opened.extractfile(_filtered(info, str(archive.parent))))
            cast(Any, opened).members = []  # otherwise tarfile keeps every header in memory
        # tarfile takes a damaged or missing header after the first one for the end of the archive.
        bounded.seek(opened.offset)
        if bounded.read(_BLOCK) != bytes(_BLOCK):
            raise tarfile.ReadError(f"no end of archive at byte {opened.offset}")
        while bounded.read(_CHUNK):  # to the end of the stream, where gzip, bzip2 and xz check their checksums
            pass


def _filtered(info: tarfile.TarInfo, folder: str) -> tarfile.TarInfo:
    """Applies Python's own filter too, where it has one (3.12, and later releases of 3.9 to 3.11)."""
    data_filter = getattr(tarfile, "data_filter", None)
    return data_filter(info, folder) if data_filter else info
