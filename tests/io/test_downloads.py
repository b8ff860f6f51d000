"""Downloads: several addresses, hash, resume, lock, limits, nothing half-written, and the wording of the errors."""
from __future__ import annotations

import hashlib
import io
import multiprocessing
import random
import socket
import time
import zipfile

import pytest
from local_server import Route, serving

from gluon_ft.errors import DownloadError
from gluon_ft.io import downloads as fetching
from gluon_ft.io.downloads import fetch

BODY = random.Random(0).randbytes(600_000)
SHA256, SHA1, MD5 = (hashlib.new(kind, BODY).hexdigest() for kind in ("sha256", "sha1", "md5"))


def files(folder):
    return sorted(p.name for p in folder.iterdir() if not p.name.endswith(".lock"))


def closed_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.mark.parametrize("hashes", [{"sha256": SHA256}, {"sha1": SHA1}, {"md5": MD5.upper()},
                                    {"sha256_prefix": SHA256[:8]}, {"sha1_prefix": SHA1[:8]},
                                    {"sha256": SHA256, "md5": MD5, "size": len(BODY)}, {}])
def test_fetches_once_and_leaves_nothing_else(tmp_path, hashes):
    with serving({"/a": Route(BODY)}) as server:
        target = fetch([server.url + "/a"], tmp_path / "new" / "a.bin", **hashes)
        assert target.read_bytes() == BODY and files(target.parent) == ["a.bin"]
        assert fetch([server.url + "/a"], target, **hashes) == target
        assert len(server.requests) == 1


def test_resumes_after_breaks_with_a_range_request(tmp_path):
    with serving({"/a": Route(BODY, cuts=[100_000, 50_000, 200_000])}) as server:
        fetch([server.url + "/a"], tmp_path / "a.bin", sha256=SHA256)
        assert (tmp_path / "a.bin").read_bytes() == BODY
        assert [asked for _, asked in server.requests] == [None, "bytes=100000-", "bytes=150000-", "bytes=350000-"]


def test_resumes_in_a_later_call(tmp_path):
    route = Route(BODY, cuts=[100_000, 0, 0, 0])
    with serving({"/a": route}) as server:
        with pytest.raises(DownloadError, match="broke off after 100000 bytes"):
            fetch([server.url + "/a"], tmp_path / "a.bin", sha256=SHA256)
        assert files(tmp_path) == ["a.bin.part", "a.bin.part.json"]
        route.cuts.clear()
        fetch([server.url + "/a"], tmp_path / "a.bin", sha256=SHA256)
        assert server.requests[-1][1] == "bytes=100000-" and files(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("change", [{"etag": '"two"'}, {"etag": None}, {"etag": 'W/"one"'}, {"ranges": False}])
def test_a_changed_file_is_not_glued_to_what_came_before(tmp_path, change):
    """Another ETag, none, a weak one, or a server without ranges: from the start again."""
    first = Route(BODY, cuts=[100_000, 0, 0, 0], etag=change.get("etag") if change.get("etag") != '"two"' else '"one"')
    if "ranges" in change:
        first.etag = '"one"'
    with serving({"/a": first}) as server:
        with pytest.raises(DownloadError):
            fetch([server.url + "/a"], tmp_path / "a.bin")
        other = BODY[::-1]
        server.routes["/a"] = Route(other, **change)
        assert fetch([server.url + "/a"], tmp_path / "a.bin").read_bytes() == other


def test_a_broken_download_from_another_address_is_not_continued(tmp_path):
    with serving({"/a": Route(BODY[::-1], cuts=[5000, 0, 0, 0]), "/b": Route(BODY)}) as server:
        fetch([server.url + "/a", server.url + "/b"], tmp_path / "a.bin", sha256=SHA256)
        assert server.requests[-1] == ("/b", None)


def test_wrong_content_is_removed_and_the_next_address_tried(tmp_path):
    page = b"\n <!DOCTYPE html><html>moved</html>"
    with serving({"/page": Route(page), "/ok": Route(BODY)}) as server:
        fetch([server.url + "/gone", server.url + "/page", server.url + "/ok"], tmp_path / "a.bin", sha1=SHA1)
        assert [path for path, _ in server.requests] == ["/gone", "/page", "/ok"]
        with pytest.raises(DownloadError) as error:
            fetch([server.url + "/page"], tmp_path / "b.bin", sha1=SHA1)
    text = str(error.value)
    assert f"wrong sha1: expected {SHA1}, found {hashlib.sha1(page).hexdigest()} (it is an HTML page)" in text
    assert files(tmp_path) == ["a.bin"]


def test_an_html_page_is_refused_where_no_hash_is_known(tmp_path):
    with serving({"/page": Route(b"<html>404</html>")}) as server, \
            pytest.raises(DownloadError, match="expected a data file, found an HTML page"):
        fetch([server.url + "/page"], tmp_path / "a.bin")
    assert files(tmp_path) == []


def test_error_names_every_address_its_reason_the_hash_and_the_folder(tmp_path):
    with serving({"/down": Route(status=503)}) as server:
        dead = f"http://127.0.0.1:{closed_port()}/x"
        addresses = [server.url + "/gone", server.url + "/down", dead, "ftp://example.org/x", "file:///no/such/file"]
        with pytest.raises(DownloadError) as error:
            fetch(addresses, tmp_path / "a.bin", md5=MD5)
    text = str(error.value)
    reasons = ("HTTP 404", "HTTP 503", "refused", "only http, https and file", "no such file")
    for address, why in zip(addresses, reasons):
        assert address in text
        assert why in text.split(address)[1].split(")")[0]
    assert "cannot get a.bin" in text and f"md5 {MD5}" in text and f"put it into {tmp_path}" in text
    assert "\n" not in text and files(tmp_path) == []


def test_a_server_that_stays_silent_is_given_up(tmp_path):
    with serving({"/slow": Route(BODY, chunk=10, delay=2.0)}) as server:
        start = time.monotonic()
        with pytest.raises(DownloadError, match="no answer in time"):
            fetch([server.url + "/slow"], tmp_path / "a.bin", timeout=0.1)
        assert time.monotonic() - start < 3


@pytest.mark.parametrize("declared, why", [(None, "600000 bytes, expected at most 5000"),
                                           (0, "more than the 5000 bytes"),
                                           (1000, "wrong size: expected 4000 bytes, found 1000")])
def test_size_limit_declared_and_real(tmp_path, declared, why):
    route = Route(BODY, declared=declared)
    with serving({"/a": route}) as server, pytest.raises(DownloadError, match=why):
        fetch([server.url + "/a"], tmp_path / "a.bin", max_bytes=5000, size=4000 if declared else None)
    assert files(tmp_path) == []


def test_a_published_size_is_checked(tmp_path):
    with serving({"/a": Route(b"short")}) as server, \
            pytest.raises(DownloadError, match="expected 600000 bytes, found 5"):
        fetch([server.url + "/a"], tmp_path / "a.bin", size=len(BODY))


def test_full_disk_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda _: _Free)
    with serving({"/a": Route(BODY)}) as server, \
            pytest.raises(DownloadError, match="600000 bytes to come, 10 free; free some"):
        fetch([server.url + "/a"], tmp_path / "a.bin")
    assert files(tmp_path) == []


class _Free:
    free = 10


def test_redirects_are_followed_but_not_to_files(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("x")
    routes = {"/moved": Route(redirect="/a"), "/a": Route(BODY), "/file": Route(redirect=secret.as_uri())}
    with serving(routes) as server:
        assert fetch([server.url + "/moved"], tmp_path / "a.bin", sha256=SHA256).read_bytes() == BODY
        with pytest.raises(DownloadError):
            fetch([server.url + "/file"], tmp_path / "b.bin")
    assert files(tmp_path) == ["a.bin", "secret"]


def test_file_addresses_and_look_aside_folders(tmp_path):
    source = tmp_path / "the source" / "a.bin"
    source.parent.mkdir()
    source.write_bytes(BODY)
    copied = fetch([source.as_uri()], tmp_path / "cache" / "a.bin", sha256=SHA256)
    assert copied.parent.name == "cache" and copied.read_bytes() == BODY and source.is_file()
    assert fetch([], tmp_path / "other" / "a.bin", sha256=SHA256, look_aside=[tmp_path, source.parent]) == source
    assert not (tmp_path / "other").exists()
    with pytest.raises(DownloadError, match=f"{source}.*wrong md5: expected {'0' * 32}, found {MD5}"):
        fetch([], tmp_path / "other" / "a.bin", md5="0" * 32, look_aside=[source.parent])


def test_a_damaged_file_in_the_cache_is_fetched_again(tmp_path):
    (tmp_path / "a.bin").write_bytes(BODY[:-1])
    with pytest.raises(DownloadError, match=r"a\.bin \(wrong sha256"):
        fetch([], tmp_path / "a.bin", sha256=SHA256)
    with serving({"/a": Route(BODY)}) as server:
        assert fetch([server.url + "/a"], tmp_path / "a.bin", sha256=SHA256).read_bytes() == BODY


def test_member_of_a_zip_archive(tmp_path):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("net.params", BODY)
        opened.writestr("../evil", b"x")
    routes = {"/a.zip": Route(archive.getvalue()), "/page.zip": Route(b"<html></html>"),
              "/cut.zip": Route(archive.getvalue()[:999])}
    with serving(routes) as server:
        for wrong, why in (("page", "an HTML page"), ("cut", "not a zip")):
            with pytest.raises(DownloadError, match=f"expected a zip archive with net.params, found .*{why}"):
                fetch([f"{server.url}/{wrong}.zip"], tmp_path / "net.params", member="net.params", sha1=SHA1)
        with pytest.raises(DownloadError, match="no item named"):
            fetch([server.url + "/a.zip"], tmp_path / "net.params", member="other.params", sha1=SHA1)
        with pytest.raises(DownloadError, match="wrong sha1"):
            fetch([server.url + "/a.zip"], tmp_path / "net.params", member="net.params", sha1="0" * 40)
        assert files(tmp_path) == []
        fetch([server.url + "/a.zip"], tmp_path / "net.params", member="net.params", sha1=SHA1)
    assert files(tmp_path) == ["net.params"] and (tmp_path / "net.params").read_bytes() == BODY


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DownloadError, match=r"cannot write here.*GLUON_FT_HOME"):
        fetch(["http://127.0.0.1:1/x"], tmp_path / "file" / "a.bin")


def process(*arguments, **options):
    """`fetch` in a process of its own; forked, because importing MXNet once more takes seconds."""
    child = multiprocessing.get_context("fork").Process(target=fetch, args=arguments, kwargs=options)
    child.start()
    return child


def test_two_processes_download_once(tmp_path):
    with serving({"/a": Route(BODY, chunk=20_000, delay=0.05)}) as server:
        children = [process([server.url + "/a"], tmp_path / "a.bin", sha256=SHA256) for _ in range(2)]
        for child in children:
            child.join(60)
        assert [child.exitcode for child in children] == [0, 0] and len(server.requests) == 1
    assert (tmp_path / "a.bin").read_bytes() == BODY


def test_killed_while_downloading_leaves_no_target_and_is_continued(tmp_path):
    route = Route(BODY, chunk=20_000, delay=0.05)
    with serving({"/a": route}) as server:
        child = process([server.url + "/a"], tmp_path / "a.bin", sha256=SHA256)
        part = tmp_path / "a.bin.part"
        end = time.monotonic() + 60
        while not any(path.stat().st_size for path in tmp_path.glob("a.bin.part")) and time.monotonic() < end:
            time.sleep(0.02)
        child.kill()
        child.join(60)
        assert child.exitcode == -9 and part.exists() and not (tmp_path / "a.bin").exists()
        route.delay = 0
        fetch([server.url + "/a"], tmp_path / "a.bin", sha256=SHA256)
        assert server.requests[-1][1].startswith("bytes=")
    assert (tmp_path / "a.bin").read_bytes() == BODY
