"""Unpacking an archive that is not trusted: nothing leaves the folder, nothing fills the disk, all or nothing."""
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
import uuid
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from gluon_ft.errors import DataError

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
    open: object  # () -> file to read from


def unpack(archive, folder, *, max_bytes: int = MOST_BYTES, max_files: int = MOST_FILES) -> Path:
    """Unpacks a zip or tar archive (plain, gzip, bzip2, xz; told by content, not by name) into a new folder.

    Parameters
    ----------
    archive : path-like
    folder : path-like
        Must not exist, or be empty. It appears once everything is unpacked, not before.
    max_bytes : int
        Limit of all files together once unpacked, declared and real.
    max_files : int
        Limit of members.

    Refused with DataError, which names the member: absolute paths, `..`, links, devices and other special files,
    encrypted members, names twice or differing only by case, backslashes and drive letters in names, too much or
    too many, a damaged archive. Modes and times of members are not taken over.
    """
    archive, folder = Path(archive), Path(os.path.abspath(folder))
    if not archive.is_file():
        raise DataError("no such archive", path=archive)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError("is there already", path=folder, expected="a new or an empty folder",
                        remedy="remove it, or choose another")
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        temporary.mkdir(parents=True)
        _unpack(archive, temporary, max_bytes, max_files)
        os.replace(temporary, folder)
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
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def remove_leftovers(folder) -> None:
    """Removes what unpacking into `folder` left when it was killed; only while no other process unpacks there."""
    folder = Path(folder)
    for pattern in (f".{folder.name}.*.part", f"..{folder.name}.*.part"):
        for old in folder.parent.glob(pattern):
            shutil.rmtree(old, ignore_errors=True)


def _unpack(archive, folder, max_bytes, max_files):
    seen, written = {}, 0
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


def _write(archive, member, path, left, max_bytes):
    size = 0
    with member.open() as source, open(path, "xb") as file:
        while chunk := source.read(_CHUNK):
            size += len(chunk)
            if size > left:
                raise _too_large(archive, max_bytes)
            file.write(chunk)
    return size


def _too_large(archive, max_bytes):
    return DataError("unpacks to more than allowed", path=archive, expected=f"at most {max_bytes} bytes")


def _safe_parts(archive, member):
    """The parts of a member's path below the folder; DataError where it points anywhere else or is no plain file."""
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


def _unique(archive, member, parts, seen):
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


def _shown(name):
    return "".join(c if c.isprintable() else "?" for c in name[:120])


def _members(archive, max_bytes, max_files):
    with open(archive, "rb") as file:
        start = file.read(6)
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip_members(archive, max_bytes)
    openers = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open))
    opener = next((o for magic, o in openers if start.startswith(magic)), open)
    return _tar_members(archive, opener, max_bytes + max_files * _HEADERS)


def _zip_members(archive, max_bytes):
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

    def __init__(self, file, archive, limit):
        self.file, self.archive, self.limit = file, archive, limit

    def read(self, size=-1):
        if size < 0 or size > _ONE_READ:
            raise DataError("refused: a header of it is larger than any real one", path=self.archive)
        data = self.file.read(size)
        self._check(self.file.tell())
        return data

    def seek(self, position, whence=0):
        if whence == 0:
            self._check(position)
        return self.file.seek(position, whence)

    def tell(self):
        return self.file.tell()

    def _check(self, position):
        if position > self.limit:
            raise DataError("unpacks to more than allowed", path=self.archive,
                            expected=f"at most {self.limit} bytes with its headers")


def _tar_members(archive, opener, limit):
    with opener(archive, "rb") as plain, tarfile.open(fileobj=_Bounded(plain, archive, limit), mode="r:") as opened:
        for info in opened:
            kind = "file" if info.isreg() else "folder" if info.isdir() else "a special file"
            if info.issym() or info.islnk():
                kind = "a link"
            yield _Member(info.name, kind, info.size, lambda info=info: opened.extractfile(info))
            opened.members = []  # tarfile keeps every header otherwise
        # tarfile takes a damaged or missing header after the first one for the end of the archive.
        opened.fileobj.seek(opened.offset)
        if opened.fileobj.read(_BLOCK) != bytes(_BLOCK):
            raise tarfile.ReadError(f"no end of archive at byte {opened.offset}")
        while opened.fileobj.read(_CHUNK):  # to the end, where gzip, bzip2 and xz have their checksums
            pass
