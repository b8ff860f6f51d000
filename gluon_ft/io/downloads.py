"""Downloads with several addresses, checksums and resuming; a file is complete or absent, and one process fetches it.

The bytes come through pooch's HTTP downloader, which starts every file from the beginning. Here it continues what an
earlier attempt left: a Range request asks for the rest, and If-Range makes sure that the file on the server is still
the same (RFC 9110, 13.1.5).
"""
from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import shutil
import time
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

from gluon_ft.errors import DownloadError
from gluon_ft.io import atomic, documents, locks, reporter
from gluon_ft.io.checksums import Checksums, find_local, is_html

if TYPE_CHECKING:
    from requests import Response

CHUNK = 1 << 18  # bytes read at a time
MOST = 20 << 30  # bytes, the limit on a download of unknown size
BREAKS = 3  # connections that break in a row without a new byte before the next address is tried
_ATTEMPTS = 100


class _Failed(Exception):
    """The reason why one address did not give the file."""


class _Broken(_Failed):
    """The connection broke: what came is kept, and the rest can be requested."""


def fetch(addresses: Iterable[str], target: str | os.PathLike, *, sha256: str | None = None, sha1: str | None = None,
          md5: str | None = None, sha256_prefix: str | None = None, sha1_prefix: str | None = None,
          size: int | None = None, member: str | None = None, look_aside: Iterable[str | os.PathLike] = (),
          max_bytes: int = MOST, timeout: float = 30.0, progress: bool = True) -> Path:
    """Gets a file from a look-aside folder, the cache, or the first address that works; returns its path.

    A broken download is kept as `<target>.part`, and continued where the server confirms that the file is still the
    same (ETag or Last-Modified). Processes that want the same file wait for one another.

    Parameters
    ----------
    addresses : iterable of str
        http, https and file addresses, tried in turn.
    target : path-like
        Where the file goes. If it is there already, with the published checksums, nothing is fetched.
    sha256, sha1, md5 : str, optional
        Published hashes in hex; each one given is checked.
    sha256_prefix, sha1_prefix : str, optional
        The first hex digits, as in the file names of PyTorch's and Gluon's zoos.
    size : int, optional
        The file's size in bytes.
    member : str, optional
        The addresses give zip archives, of which this member is the file; hashes and size are the member's.
    look_aside : iterable of path-like
        Folders that may hold the file under the same name. If one does, with the published checksums, the path there is
        returned.
    max_bytes : int
        Limit on the download, and on the member unpacked from it.
    timeout : float, default 30
        Seconds without a connection, or without a byte, after which an address is given up.
    progress : bool
        Whether a progress bar is shown.

    Raises
    ------
    DownloadError
        It says why each address failed, which hash is expected, and into which folder to put the file by hand.
    """
    target = Path(target)
    checksums = Checksums(sha256, sha1, md5, sha256_prefix, sha1_prefix, size)
    aside, reasons = find_local(target.name, look_aside, checksums)
    if aside is not None:
        return aside
    if checksums.match(target):
        return target
    with locked(target):
        if checksums.match(target):
            return target
        if target.is_file():
            reasons.append((str(target), checksums.fault(target) or "is damaged"))
        limit = min(max_bytes, size) if size and not member else max_bytes
        for address in addresses:
            try:
                _from_address(address, target, checksums, member, limit, timeout, progress)
                return target
            except _Failed as failure:
                reasons.append((address, str(failure)))
    tried = "; ".join(f"{where} ({why})" for where, why in reasons)
    found = f"tried {tried}" if tried else "no address is known from which it can be fetched"
    raise DownloadError(f"cannot get {target.name}: {found}",
                        expected=checksums.hash or "any content (no hash is published)",
                        remedy=f"get it by other means and put it into {target.parent}")


@contextlib.contextmanager
def locked(target: Path) -> Iterator[None]:
    """Lets one process at a time in for the same target. Raises DownloadError where its folder is read-only."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = locks.acquire(locks.beside(target), waiting=f"waiting for another process that is getting {target.name}")
    except OSError as error:
        raise DownloadError("cannot write here", path=target.parent, found=error.strerror or error,
                            remedy="set GLUON_FT_HOME to a folder that you can write to") from error
    with lock:
        yield


def _from_address(address: str, target: Path, checksums: Checksums, member: str | None, limit: int, timeout: float,
                  progress: bool) -> None:
    part = target.with_name(f"{target.name}{'.zip' if member else ''}.part")
    try:
        with reporter.progress(total=None, unit="B", unit_scale=True, desc=target.name,
                               disable=None if progress else True) as bar:
            _download(address, part, limit, timeout, bar)
        ready = _member(part, member, target, limit) if member else part
        fault = checksums.fault(ready)
        if fault is not None:
            _remove(ready, part, _notes(part))
            raise _Failed(fault)
        atomic.put(ready, target)
        _remove(part, _notes(part))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            _remove(part, _notes(part))
        raise DownloadError(f"cannot write {target.name}", path=target.parent, found=error.strerror or error,
                            remedy="free some space, or set GLUON_FT_HOME to another folder") from error


def _download(address: str, part: Path, limit: int, timeout: float, bar) -> None:
    """Downloads all of an address into `part`; after each break it requests the rest."""
    breaks = 0  # in a row without a new byte
    for attempt in range(_ATTEMPTS):
        before = _size(part)
        try:
            _download_once(address, part, limit, timeout, bar)
            return
        except _Broken:
            breaks = 0 if _size(part) > before else breaks + 1
            if breaks >= BREAKS or attempt + 1 == _ATTEMPTS:
                raise
            time.sleep(0.2 * breaks)


def _download_once(address: str, part: Path, limit: int, timeout: float, bar) -> None:
    """Downloads what an address gives in one connection into `part`."""
    scheme = urlsplit(address).scheme
    if scheme == "file":
        return _copy(address, part, limit)
    if scheme not in ("http", "https"):
        raise _Failed(f"only http, https and file addresses are read, not '{scheme}'")
    import pooch
    import requests
    import urllib3

    with _Part(address, part, limit, bar) as sink:
        download = pooch.HTTPDownloader(chunk_size=CHUNK, timeout=(min(timeout, 10), timeout), headers=sink.headers(),
                                        hooks={"response": sink.answered})
        try:
            download(address, sink, None)
        except (requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError, ConnectionError) as error:
            if not sink.begun:
                raise (_Broken if sink.have else _Failed)(_cause(error)) from error
            raise _Broken(f"broke off after {sink.have} bytes: {_cause(error)}") from error
        except (requests.RequestException, ValueError) as error:
            raise _Failed(_cause(error)) from error
        if sink.total is not None and sink.have < sink.total:
            raise _Broken(f"broke off after {sink.have} of {sink.total} bytes")
    return None


def _copy(address: str, part: Path, limit: int) -> None:
    where = urlsplit(address)
    source = Path(url2pathname(where.path))
    if where.netloc not in ("", "localhost") or not source.is_file():
        raise _Failed("no such file")
    try:
        size = source.stat().st_size
        if size > limit:
            raise _Failed(f"{size} bytes, expected at most {limit}")
        shutil.copyfile(source, part)
    except FileNotFoundError as error:  # removed just now
        raise _Failed("no such file") from error


class _Part:
    """The `.part` file that pooch's downloader writes to. It is continued where that is safe, and kept to the limit.

    have : bytes in it; total : bytes of the whole file if the server declares them; begun : whether the server answered
    """

    def __init__(self, address: str, path: Path, limit: int, bar):
        self.address, self.path, self.limit, self.bar = address, path, limit, bar
        self.have, self.total, self.begun, self.validator = 0, None, False, None
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            notes = documents.read_json(_notes(path))
            if notes["address"] == address and notes["validator"]:
                self.have, self.validator = path.stat().st_size, notes["validator"]

    def __enter__(self) -> _Part:
        self.file = open(self.path, "ab")
        return self

    def __exit__(self, *_) -> None:
        self.file.close()
        if not _size(self.path):
            _remove(self.path)

    def headers(self) -> dict[str, str]:
        """The request's headers: no compression, and after a break the rest of the same file only."""
        rest = {"Range": f"bytes={self.have}-", "If-Range": self.validator} if self.have and self.validator else {}
        return {"Accept-Encoding": "identity", **rest}

    def answered(self, response: Response, *_args, **_options) -> None:
        """Called with the server's answer, before any byte of its body is written."""
        if response.is_redirect:
            return
        self.begun = True
        # The bytes as they are sent: the published hash is of those, and requests would lose what came just before a
        # break.
        response.iter_content = functools.partial(_as_sent, response)  # pyright: ignore[reportAttributeAccessIssue]
        if self.address.startswith("https:") and not (response.url or "").startswith("https:"):
            raise _Failed(f"leads from https to {response.url}")
        if response.status_code == 416:
            self.drop()
            raise _Broken("the server has no rest of what came before the break")
        if response.status_code >= 400:
            raise _Failed(f"HTTP {response.status_code} {response.reason or ''}".strip())
        if response.status_code == 206:
            start = response.headers.get("Content-Range", "").removeprefix("bytes").strip().split("-")[0]
            if start != str(self.have):
                self.drop()
                raise _Broken("the server sent another part than asked for")
        elif response.status_code == 200:
            self.restart(response)
        else:
            raise _Failed(f"HTTP {response.status_code}, expected 200")
        self._check_size(response.headers.get("Content-Length", ""))
        self.bar.total, self.bar.n = self.total, self.have

    def restart(self, response: Response) -> None:
        """Starts the file again, and notes what shows later that it is still the same one; a weak ETag does not."""
        etag = response.headers.get("ETag", "")
        validator = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")
        self.file.truncate(0)
        self.have = 0
        _notes(self.path).write_text(json.dumps({"address": self.address, "validator": validator}))

    def _check_size(self, declared: str) -> None:
        if not declared.isdigit():
            return
        self.total = int(declared) + self.have
        if self.total > self.limit:
            self.drop()
            raise _Failed(f"{self.total} bytes, expected at most {self.limit}")
        free = shutil.disk_usage(self.path.parent).free
        if self.total - self.have > free:
            raise OSError(errno.ENOSPC, f"{self.total - self.have} bytes to come, {free} free")

    def write(self, chunk: bytes) -> None:
        """Called by pooch with each piece of the body."""
        if self.have + len(chunk) > self.limit:
            self.drop()
            raise _Failed(f"more than the {self.limit} bytes expected at most")
        self.file.write(chunk)
        self.have += len(chunk)
        self.bar.update(len(chunk))

    def flush(self) -> None:
        """Called by pooch after each piece."""
        self.file.flush()

    def drop(self) -> None:
        """Discards what came so far."""
        self.file.truncate(0)
        self.have = 0
        _remove(_notes(self.path))


def _as_sent(response: Response, chunk_size: int) -> Iterator[bytes]:
    return response.raw.stream(chunk_size, decode_content=False)


def _member(archive: Path, member: str, target: Path, limit: int) -> Path:
    """Unpacks one member of a zip archive to a file beside the archive, and returns that file."""
    ready = target.with_name(f"{target.name}.part")
    try:
        with zipfile.ZipFile(archive) as opened:
            if opened.getinfo(member).file_size > limit:
                raise _Failed(f"{member} in it is more than the {limit} bytes expected at most")
            with opened.open(member) as source, open(ready, "wb") as file:
                shutil.copyfileobj(source, file, CHUNK)
    except (zipfile.BadZipFile, KeyError, NotImplementedError, RuntimeError, EOFError) as error:
        found = "an HTML page" if is_html(archive) else error
        _remove(archive, _notes(archive), ready)
        raise _Failed(f"expected a zip archive with {member}, found {found}") from error
    return ready


def _notes(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _remove(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _cause(error: BaseException) -> str:
    """The root cause of an exception of requests, in a few words."""
    import requests
    import urllib3

    if isinstance(error, requests.ConnectTimeout):
        return "no connection in time"
    if isinstance(error, (requests.Timeout, urllib3.exceptions.TimeoutError)) or "timed out" in str(error):
        return "no answer in time"
    while error.__context__ is not None or error.__cause__ is not None:
        error = error.__cause__ or error.__context__  # pyright: ignore[reportAssignmentType] one is not None
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
