"""Files written whole or not at all: to a temporary name in the same folder, synced, then renamed."""
from __future__ import annotations

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from gluon_ft.errors import DataError, UserError


@contextlib.contextmanager
def replacing(path) -> Iterator[Path]:
    """Yields a temporary path beside `path` to write to; what is there at the end of the block becomes `path`.

    Where the block fails, `path` is as it was and no temporary file is left. Raises OSError.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name[:100]}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def write(path, data: bytes | str) -> Path:
    """Writes `data` (text as UTF-8) to `path` and returns it. Raises OSError."""
    with replacing(path) as temporary:
        temporary.write_bytes(data.encode("utf-8") if isinstance(data, str) else data)
    return Path(path)


def check_writable(path) -> None:
    """Whether `write` could write `path`, by writing an empty temporary file beside it; what is there stays.

    To be asked before long work whose result goes there. Raises UserError.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "a folder")
        with contextlib.suppress(FileNotFoundError):
            path.lstat()  # refuses a name that is too long, which the temporary one is not
        temporary = path.with_name(f".{path.name[:100]}.{uuid.uuid4().hex[:8]}.tmp")
        temporary.touch(exist_ok=False)
        temporary.unlink()
    except OSError as error:
        raise UserError("cannot be written", path=path, expected="a place where files can be made",
                        found=error.strerror or str(error), remedy="choose another one") from error


def _sync(path: Path) -> None:
    """Without it a crash of the machine can leave the new name with nothing in it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_together(files: dict[Path, bytes], *, force: bool = False, obsolete: Iterable[Path] = ()) -> None:
    """Writes several files, all or none.

    All are written and synced under temporary names in their folders, then renamed; an error on the way puts back what
    was there. A process killed during the renaming, the last and short step, leaves whole files, some new, some old.

    Parameters
    ----------
    files : path -> contents
    force : replace what is there; otherwise an existing file, or an obsolete one, is a DataError
    obsolete : files of an earlier result that would not belong to the new one; removed with it
    """
    files = {Path(path): contents for path, contents in files.items()}
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
            _write_synced(temporary[path], contents)
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


def _write_synced(path: Path, contents: bytes) -> None:
    if not path.parent.is_dir():
        raise DataError("folder does not exist", path=path.parent, remedy="create it, or choose another place")
    with open(path, "xb") as out:
        out.write(contents)
        out.flush()
        os.fsync(out.fileno())


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
