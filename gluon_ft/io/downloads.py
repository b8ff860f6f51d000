"""Downloads: several addresses, hash, resume after a break, one download at a time, whole or not at all."""
from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import sys
import time
import zipfile
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import filelock
import requests
import urllib3

from gluon_ft.errors import DownloadError
from gluon_ft.io import reporter
from gluon_ft.io.checksums import Expected, find_local, is_good, is_page

CHUNK = 1 << 18  # bytes read at a time
MOST = 20 << 30  # bytes that a download may have where its size is not known
BREAKS = 3  # connections broken in a row, without a byte gained, before the next address is tried
_ATTEMPTS = 100


class _Failed(Exception):
    """Why one address did not give the file."""


class _Broken(_Failed):
    """The connection broke; what came so far is kept and the rest can be asked for."""


def fetch(addresses, target, *, sha256=None, sha1=None, md5=None, sha256_prefix=None, sha1_prefix=None, size=None,
          member=None, look_aside=(), max_bytes=MOST, timeout=30.0, progress=True) -> Path:
    """The file, from the cache, from a folder at hand, or from the first address that gives it.

    Parameters
    ----------
    addresses : sequence of str
        http, https and file addresses, tried in turn.
    target : path-like
        Where the file goes. There already and as expected: nothing is fetched.
    sha256, sha1, md5 : str, optional
        Published hashes in hex; each one given is checked.
    sha256_prefix, sha1_prefix : str, optional
        The first hex digits, as in the file names of PyTorch's and Gluon's zoos.
    size : int, optional
        Bytes of the file.
    member : str, optional
        The addresses give zip archives; this member is the file, and the hashes are its own.
    look_aside : sequence of path-like
        Folders that may hold the file by its name; found and as expected there, its path is returned as it is.
    max_bytes : int
        Limit of the download, and of the member unpacked from it.
    timeout : float, default 30
        Seconds without a byte, or for a connection, after which an address is given up.

    A broken download is kept as `<target>.part` and continued by HTTP Range where the server says that the file is
    still the same (ETag or Last-Modified). Processes that want the same file wait for one another. Raises
    DownloadError with every address and its reason, the hash, and the folder in which to put the file by hand.
    """
    target = Path(target)
    expected = Expected(sha256, sha1, md5, sha256_prefix, sha1_prefix, size)
    aside, reasons = find_local(target.name, look_aside, expected)
    if aside is not None:
        return aside
    if is_good(target, expected):
        return target
    with locked(target):
        if is_good(target, expected):
            return target
        if target.is_file():
            reasons.append((str(target), expected.fault(target)))
        limit = min(max_bytes, size) if size and not member else max_bytes
        for address in addresses:
            try:
                _from_address(address, target, expected, member, limit, timeout, progress)
                return target
            except _Failed as failure:
                reasons.append((address, str(failure)))
    raise _no_address(target, expected, reasons)


@contextlib.contextmanager
def locked(target: Path):
    """Only one process at a time is inside for the same target (a lock file `.<name>.lock` beside it)."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(str(target.with_name(f".{target.name}.lock")))
        try:
            lock.acquire(timeout=1)
        except filelock.Timeout:
            print(f"waiting for another process that is getting {target.name}", file=sys.stderr)
            lock.acquire()
    except OSError as error:
        raise DownloadError("cannot write here", path=target.parent, found=error.strerror or error,
                            remedy="set GLUON_FT_HOME to a folder that you can write to") from error
    try:
        yield
    finally:
        lock.release()


def _from_address(address, target, expected, member, limit, timeout, progress):
    part = target.with_name(f"{target.name}{'.zip' if member else ''}.part")
    bar = reporter.progress(total=None, unit="B", unit_scale=True, desc=target.name,
                           **({} if progress else {"disable": True}))
    try:
        with bar:
            _whole(address, part, limit, timeout, bar)
        ready = _member(part, member, target, limit) if member else part
        fault = expected.fault(ready)
        if fault is not None:
            _remove(ready, part, _notes(part))
            raise _Failed(fault)
        with open(ready, "rb") as file:
            os.fsync(file.fileno())
        os.replace(ready, target)
        _remove(part, _notes(part))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            _remove(part, _notes(part))
        raise DownloadError(f"cannot write {target.name}", path=target.parent, found=error.strerror or error,
                            remedy="free some space, or set GLUON_FT_HOME to another folder") from error


def _whole(address, part, limit, timeout, bar):
    """All of the address into `part`, asking again for the rest after each break."""
    barren = 0
    for attempt in range(_ATTEMPTS):
        before = part.stat().st_size if part.exists() else 0
        try:
            _read(address, part, limit, timeout, bar)
            return
        except _Broken:
            gained = (part.stat().st_size if part.exists() else 0) > before
            barren = 0 if gained else barren + 1
            if barren >= BREAKS or attempt + 1 == _ATTEMPTS:
                raise
            time.sleep(0.2 * barren)


def _read(address, part, limit, timeout, bar):
    scheme = urlsplit(address).scheme
    if scheme == "file":
        _copy(address, part, limit)
        return
    if scheme not in ("http", "https"):
        raise _Failed(f"only http, https and file addresses are read, not '{scheme}'")
    have, headers = _resumable(address, part)
    answered = False
    try:
        with requests.get(address, headers={"Accept-Encoding": "identity", **headers}, stream=True,
                          timeout=(min(timeout, 10), timeout)) as response:
            answered = True
            _save(response, address, part, have, limit, bar)
    except (requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError, ConnectionError) as error:
        if not answered:
            raise (_Broken if have else _Failed)(_cause(error)) from error
        came = part.stat().st_size if part.exists() else 0
        raise _Broken(f"broke off after {came} bytes: {_cause(error)}") from error
    except requests.RequestException as error:
        raise _Failed(_cause(error)) from error


def _copy(address, part, limit):
    where = urlsplit(address)
    source = Path(url2pathname(where.path))
    if where.netloc not in ("", "localhost") or not source.is_file():
        raise _Failed("no such file")
    if source.stat().st_size > limit:
        raise _Failed(f"{source.stat().st_size} bytes, expected at most {limit}")
    shutil.copyfile(source, part)


def _resumable(address, part):
    """How many bytes of `part` can be kept, and the headers that ask for the rest of the same file only."""
    try:
        notes = json.loads(_notes(part).read_text())
        have = part.stat().st_size
        if notes["address"] == address and notes["validator"] and have > 0:
            return have, {"Range": f"bytes={have}-", "If-Range": notes["validator"]}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return 0, {}


def _save(response, address, part, have, limit, bar):
    if address.startswith("https:") and not response.url.startswith("https:"):
        raise _Failed(f"leads from https to {response.url}")
    if response.status_code == 416:
        _remove(part, _notes(part))
        raise _Broken("the server has no rest of what came before the break")
    if response.status_code >= 400:
        raise _Failed(f"HTTP {response.status_code} {response.reason or ''}".strip())
    total = _total(response, have)
    if response.status_code == 206:
        if _range_start(response) != have:
            _remove(part, _notes(part))
            raise _Broken("the server sent another part than asked for")
    elif response.status_code == 200:
        have = 0
        _remove(part)
        _notes(part).write_text(json.dumps({"address": address, "validator": _validator(response)}))
    else:
        raise _Failed(f"HTTP {response.status_code}, expected 200")
    _limits(part, total, have, limit)
    bar.total, bar.n = total, have
    with open(part, "ab") as file:
        for chunk in response.raw.stream(CHUNK, decode_content=False):
            have += len(chunk)
            if have > limit:
                file.close()
                _remove(part, _notes(part))
                raise _Failed(f"more than the {limit} bytes expected at most")
            file.write(chunk)
            bar.update(len(chunk))
    if total is not None and have < total:
        raise _Broken(f"broke off after {have} of {total} bytes")


def _total(response, have):
    """Bytes of the whole file as the server declares them, or None."""
    length = response.headers.get("Content-Length", "")
    if not length.isdigit():
        return None
    return int(length) + (have if response.status_code == 206 else 0)


def _range_start(response):
    start = response.headers.get("Content-Range", "").removeprefix("bytes").strip().split("-")[0]
    return int(start) if start.isdigit() else None


def _validator(response):
    """What proves later that the file is still this one; a weak ETag does not (RFC 9110, 13.1.5)."""
    etag = response.headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")


def _limits(part, total, have, limit):
    if total is None:
        return
    if total > limit:
        _remove(part, _notes(part))
        raise _Failed(f"{total} bytes, expected at most {limit}")
    free = shutil.disk_usage(part.parent).free
    if total - have > free:
        raise OSError(errno.ENOSPC, f"{total - have} bytes to come, {free} free")


def _member(archive, member, target, limit):
    """The member of a zip archive as a file of its own beside it."""
    ready = target.with_name(f"{target.name}.part")
    try:
        with zipfile.ZipFile(archive) as opened:
            if opened.getinfo(member).file_size > limit:
                raise _Failed(f"{member} in it is more than the {limit} bytes expected at most")
            with opened.open(member) as source, open(ready, "wb") as file:
                shutil.copyfileobj(source, file, CHUNK)
    except (zipfile.BadZipFile, KeyError, NotImplementedError, RuntimeError, EOFError) as error:
        found = "an HTML page" if is_page(archive) else error
        _remove(archive, _notes(archive), ready)
        raise _Failed(f"expected a zip archive with {member}, found {found}") from error
    return ready


def _notes(part):
    return part.with_name(f"{part.name}.json")


def _remove(*paths):
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def _cause(error):
    """The innermost reason of an exception of requests or urllib3, in a few words."""
    if isinstance(error, requests.ConnectTimeout):
        return "no connection in time"
    if isinstance(error, (requests.Timeout, urllib3.exceptions.TimeoutError)) or "timed out" in str(error):
        return "no answer in time"
    while error.__context__ is not None or error.__cause__ is not None:
        error = error.__cause__ or error.__context__
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _no_address(target, expected, reasons):
    tried = "; ".join(f"{where} ({why})" for where, why in reasons)
    found = f"tried {tried}" if tried else "no address is known from which it can be fetched"
    return DownloadError(f"cannot get {target.name}: {found}",
                         expected=expected.hash or "any content (no hash is published)",
                         remedy=f"get it by other means and put it into {target.parent}")
