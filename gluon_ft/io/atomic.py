"""Atomic writes: files and folders appear whole under their names, or not at all."""
from __future__ import annotations

import contextlib
import errno
import glob
import os
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from gluon_ft.errors import DataError, UserError


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary path beside `path`; the file that the block writes there becomes `path` at its end.

    If the block fails, `path` stays as it was and no temporary file is left. A device or a pipe, such as /dev/null and
    /dev/stdout, is written to, and never replaced. Raises OSError.
    """
    path = Path(path)
    special = is_special(path)
    temporary = Path(tempfile.gettempdir(), f".{uuid.uuid4().hex}.tmp") if special else _temporary(path)
    try:
        yield temporary
        if special:
            with open(temporary, "rb") as file, open(path, "wb") as out:
                shutil.copyfileobj(file, out)
            temporary.unlink()
        else:
            put(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def is_special(path: str | os.PathLike) -> bool:
    """Whether a path names a device, a pipe or a socket, or a link to one: what a file must not take the place of."""
    if os.path.abspath(path).startswith(("/dev/std", "/dev/fd/", "/proc/")) and os.path.lexists(path):
        return True  # links to whatever is open, regular files among them
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


@contextlib.contextmanager
def replacing_folder(path: str | os.PathLike, replace: bool = False) -> Iterator[Path]:
    """Yields a new folder beside `path`, which becomes `path` at the end of the block.

    `path` must not exist, or be an empty folder; with `replace` it may be any folder, which is removed once the new one
    is in its place. If the block fails, nothing is left, and an old folder stays. Raises OSError.
    """
    path = Path(os.path.abspath(path))
    building = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        building.mkdir(parents=True)
        yield building
        if replace and path.exists():
            _exchange(building, path)
            return
        with contextlib.suppress(FileNotFoundError):
            path.rmdir()  # Windows does not rename onto a folder, not even an empty one
        os.replace(building, path)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _exchange(new: Path, path: Path) -> None:
    """Puts a folder in the place of another, which is removed; after an error that one is put back."""
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.old")
    os.replace(path, aside)
    try:
        os.replace(new, path)
    except BaseException:
        os.replace(aside, path)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def remove_leftovers(path: str | os.PathLike) -> None:
    """Removes what a killed `replacing_folder(path)` left; a folder that it had put aside comes back if there is none.

    Call it only while no other process makes that folder.
    """
    path = Path(path)
    name, own = glob.escape(path.name), "[0-9a-f]" * 8
    for aside in path.parent.glob(f".{name}.{own}.old"):
        if path.exists():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            os.replace(aside, path)
    # Two dots: an archive was being unpacked into the unfinished folder, which itself begins with a dot.
    for pattern in (f".{name}.{own}.part", f"..{name}.*.part"):
        for old in path.parent.glob(pattern):
            shutil.rmtree(old, ignore_errors=True)


def write(path: str | os.PathLike, data: bytes | str) -> Path:
    """Writes `data` (text as UTF-8) to `path` and returns it. Raises OSError."""
    with replacing(path) as temporary:
        temporary.write_bytes(data.encode("utf-8") if isinstance(data, str) else data)
    return Path(path)


def write_together(files: dict[Path, bytes], *, force: bool = False, obsolete: Iterable[Path] = ()) -> None:
    """Writes several files, all or none.

    All are written and synced under temporary names in their folders, then renamed; after an error the old files are
    put back. A process that is killed during the short last step, the renaming, leaves complete files, but some new and
    some old.

    Parameters
    ----------
    files : dict of Path to bytes
        Contents by path.
    force : bool
        Replace files that exist.
    obsolete : iterable of Path
        Files of an earlier result that do not belong to the new one, and are removed.

    Raises
    ------
    DataError
        A file, or an obsolete one, exists and `force` is False; a folder is missing; writing fails.
    """
    files = {Path(path): contents for path, contents in files.items()}
    special = next((path for path in files if is_special(path)), None)
    if special is not None:
        raise DataError("not a file", path=special, expected="a name for a file", remedy="choose another name")
    old = [path for path in dict.fromkeys([*files, *map(Path, obsolete)]) if os.path.lexists(path)]
    if old and not force:
        raise DataError("exists already", path=old[0], found=f"{len(old)} files of an earlier run" if old[1:] else None,
                        remedy="choose another name, or replace it with --force")
    mark = uuid.uuid4().hex
    temporary = {path: path.with_name(f".{mark}-{i}.new") for i, path in enumerate(files)}
    backup = {path: path.with_name(f".{mark}-{i}.old") for i, path in enumerate(old)}
    done: list[Path] = []
    try:
        for path, contents in files.items():
            if not path.parent.is_dir():
                raise DataError("folder does not exist", path=path.parent,
                                remedy="create it, or choose another place")
            with open(temporary[path], "xb") as out:
                out.write(contents)
                sync(out)
        for path in old:
            shutil.copy2(path, backup[path], follow_symlinks=False)
        for path in files:
            done.append(path)
            os.replace(temporary[path], path)
        for path in set(old) - set(files):
            done.append(path)
            os.unlink(path)
    except BaseException as error:
        _put_back(done, temporary, backup)
        if isinstance(error, OSError):
            path = next((p for p, t in temporary.items() if str(t) == str(error.filename)), error.filename)
            raise DataError("cannot be written", path=path, found=error.strerror or error,
                            remedy="nothing was changed") from error
        raise
    for path in backup.values():
        os.unlink(path)


def _put_back(done: list[Path], temporary: dict[Path, Path], backup: dict[Path, Path]) -> None:
    for path in done:
        with contextlib.suppress(OSError):
            if path in backup:
                os.replace(backup[path], path)
            elif not os.path.lexists(temporary[path]):
                os.unlink(path)
    for path in [*temporary.values(), *backup.values()]:
        with contextlib.suppress(OSError):
            os.unlink(path)


def put(temporary: str | os.PathLike, path: str | os.PathLike) -> None:
    """Renames a finished file to `path`; it is synced first, so that a crash cannot leave an empty file there."""
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


def sync(file: IO[Any]) -> None:
    """Flushes an open file to the disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: str | os.PathLike) -> None:
    """Makes renamings and removals in a folder survive a crash, where the system can."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def check_writable(path: str | os.PathLike) -> None:
    """Raises UserError where `path` cannot be written; changes nothing. Call it before long work."""
    path = Path(path)
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "a folder")
        if is_special(path):
            return
        with contextlib.suppress(FileNotFoundError):
            path.lstat()  # fails for a name that is too long; the temporary name is shorter
        temporary = _temporary(path)
        temporary.touch(exist_ok=False)
        temporary.unlink()
    except OSError as error:
        raise UserError("cannot be written", path=path, expected="a place where files can be made",
                        found=error.strerror or str(error), remedy="choose another one") from error


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name[:100]}.{uuid.uuid4().hex[:8]}.tmp")
