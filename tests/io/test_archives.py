"""Unpacking: what is refused, that a refusal leaves nothing, and that honest archives come out whole."""
from __future__ import annotations

import io
import random
import stat
import struct
import tarfile
import zipfile

import pytest

from gluon_ft.errors import DataError
from gluon_ft.io import archives as unpacking
from gluon_ft.io.archives import unpack

HONEST = {"a/one.jpg": b"1" * 3000, "a/two words é.jpg": b"", "b/deep/er/three.bin": bytes(range(256)) * 9}
KINDS = ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"]


def tar_file(path, members, mode="w"):
    """A tar archive of (name, content or TarInfo changes) pairs, names and types exactly as given."""
    with tarfile.open(path, mode) as opened:
        for name, content in members:
            info = tarfile.TarInfo(name)
            data = content if isinstance(content, bytes) else b""
            info.size = len(data)
            for key, value in (content.items() if isinstance(content, dict) else ()):
                setattr(info, key, value)
            opened.addfile(info, io.BytesIO(data))
    return path


def zip_file(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as opened:
        for name, content in members:
            info = zipfile.ZipInfo("placeholder")
            info.filename, info.compress_type = name, method
            if isinstance(content, dict):
                info.external_attr = content["mode"] << 16
            opened.writestr(info, content if isinstance(content, bytes) else b"/etc/passwd")
    return path


def archive(path, kind, members):
    members = list(members.items()) if isinstance(members, dict) else members
    if kind == "zip":
        return zip_file(path / "a.zip", members)
    return tar_file(path / f"a.{kind}", members, "w:" + kind[4:])


def refused(path, tmp_path, match, **limits):
    before = sorted(p.name for p in tmp_path.rglob("*"))
    with pytest.raises(DataError, match=match) as error:
        unpack(path, tmp_path / "out", **limits)
    assert sorted(p.name for p in tmp_path.rglob("*")) == before
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("kind", KINDS)
def test_honest_archives(tmp_path, kind):
    path = archive(tmp_path, kind, HONEST)
    odd = path.rename(tmp_path / "name says nothing")
    folder = unpack(odd, tmp_path / "out")
    assert {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()} == HONEST
    assert sorted(p.name for p in tmp_path.iterdir()) == ["name says nothing", "out"]


def test_folders_may_be_listed_repeated_or_left_out(tmp_path):
    folder = {"type": tarfile.DIRTYPE, "mode": 0o755}
    members = [("./", folder), ("x", folder), ("./x/", folder), ("x/y/z", b"1"), ("x/y", folder)]
    path = tar_file(tmp_path / "a.tar", members)
    assert (unpack(path, tmp_path / "out") / "x/y/z").read_bytes() == b"1"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name, why", [("../evil", "a path with '..'"), ("a/../../evil", "a path with '..'"),
                                       ("/tmp/evil", "an absolute path"), ("C:/evil", "an absolute path"),
                                       ("a\\..\\evil", "a backslash")])
def test_paths_out_of_the_folder(tmp_path, kind, name, why):
    refused(archive(tmp_path, kind, {**HONEST, name: b"x"}), tmp_path, f"refused: member .* has .*{why}")


@pytest.mark.parametrize("change, why", [
    ({"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, "is a link"),
    ({"type": tarfile.SYMTYPE, "linkname": "a/one.jpg"}, "is a link"),
    ({"type": tarfile.LNKTYPE, "linkname": "a/one.jpg"}, "is a link"),
    ({"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3}, "is a special file"),
    ({"type": tarfile.BLKTYPE}, "is a special file"), ({"type": tarfile.FIFOTYPE}, "is a special file")])
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_links_and_devices_in_tar(tmp_path, change, why, mode):
    refused(tar_file(tmp_path / "a.tar", [*HONEST.items(), ("bad", change)], mode), tmp_path, f"member 'bad' {why}")


@pytest.mark.parametrize("mode, why", [(stat.S_IFLNK | 0o777, "is a link"), (stat.S_IFCHR, "is a special file"),
                                       (stat.S_IFIFO, "is a special file")])
def test_links_and_devices_in_zip(tmp_path, mode, why):
    refused(zip_file(tmp_path / "a.zip", [*HONEST.items(), ("bad", {"mode": mode})]), tmp_path, f"member 'bad' {why}")


def test_a_link_to_a_folder_is_not_followed(tmp_path):
    (tmp_path / "outside").mkdir()
    members = [("d", {"type": tarfile.SYMTYPE, "linkname": str(tmp_path / "outside")}), ("d/evil", b"x")]
    refused(tar_file(tmp_path / "a.tar", members), tmp_path, "member 'd' is a link")
    assert not any((tmp_path / "outside").iterdir())


def test_encrypted_zip(tmp_path):
    path = zip_file(tmp_path / "a.zip", [("x", b"1")])
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(raw)
    refused(path, tmp_path, "member 'x' is encrypted")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("first, second, why", [
    ("a/x", "a/x", "'a/x' is in it twice"), ("a/x", "./a//x", "'a/x' is in it twice"),
    ("a/x", "a/X", "differ only by case: 'a/x' and 'a/X'"), ("a/x", "A/y", "differ only by case: 'a' and 'A'"),
    ("caf\u00e9", "cafe\u0301", "differ only by case"), ("a", "a/x", "'a' is in it twice"),
    ("a/x", "a", "'a' is in it twice")])
def test_names_that_overwrite_one_another(tmp_path, kind, first, second, why):
    refused(archive(tmp_path, kind, [(first, b"1"), (second, b"2")]), tmp_path, why)


@pytest.mark.parametrize("kind", KINDS)
def test_too_large_and_too_many(tmp_path, kind):
    path = archive(tmp_path, kind, {"a": bytes(50_000), "b": bytes(60_000)})
    refused(path, tmp_path, "unpacks to more than allowed; expected at most 100000 bytes", max_bytes=100_000)
    refused(path, tmp_path, "too many members; expected at most 1", max_files=1)
    assert (unpack(path, tmp_path / "out", max_bytes=110_000, max_files=2) / "b").stat().st_size == 60_000


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    zeros = bytes(1 << 20)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as opened, opened.open("zeros", "w") as member:
        for _ in range(64):
            member.write(zeros)
    assert (tmp_path / "a.zip").stat().st_size < 100_000
    refused(tmp_path / "a.zip", tmp_path, "unpacks to more than allowed", max_bytes=1 << 20)


def test_zip_that_declares_less_than_it_holds(tmp_path):
    """A member's declared size is a lie: nothing beyond it comes out, and its checksum tells."""
    path = zip_file(tmp_path / "a.zip", [("x", bytes(1_000_000))])
    raw = bytearray(path.read_bytes())
    for magic, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", raw, raw.index(magic) + offset, 10)
    path.write_bytes(raw)
    refused(path, tmp_path, "damaged archive.*CRC", max_bytes=1000)


def test_tar_header_that_asks_for_memory(tmp_path):
    """A pax header of 8 GB, which compresses to a few MB, is refused by its size and not read."""
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, (8 << 30) - 1
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.USTAR_FORMAT) + bytes(4096))
    refused(tmp_path / "a.tar", tmp_path, "a header of it is larger than any real one")


def test_sparse_tar_file_counts_as_large_as_it_becomes(tmp_path):
    raw = bytearray(tarfile.TarInfo("sparse").tobuf(tarfile.GNU_FORMAT))
    raw[156:157] = tarfile.GNUTYPE_SPARSE
    raw[483:495] = b"77777777777\0"  # 8 GB once unpacked
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    (tmp_path / "a.tar").write_bytes(raw + bytes(2048))
    refused(tmp_path / "a.tar", tmp_path, "unpacks to more than allowed|damaged", max_bytes=1 << 20)


@pytest.mark.parametrize("kind", KINDS)
def test_cut_anywhere(tmp_path, kind):
    whole = archive(tmp_path, kind, {**HONEST, "noise": random.Random(0).randbytes(5000)}).read_bytes()
    path = tmp_path / "cut"
    end = len(whole) - (tarfile.RECORDSIZE if kind == "tar" else 0)  # tar pads with zeros
    for length in sorted({0, 1, 5, 6, 511, 512, end - 1, *random.Random(1).sample(range(end), 25)}):
        path.write_bytes(whole[:length])
        refused(path, tmp_path, "damaged archive|unpacks")


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_flipped_bytes_never_crash_or_leave_anything(tmp_path, kind):
    whole, rng = archive(tmp_path, kind, HONEST).read_bytes(), random.Random(2)
    path = tmp_path / "flipped"
    for _ in range(60):
        raw = bytearray(whole)
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        path.write_bytes(raw)
        out = tmp_path / "out"
        try:
            unpack(path, out, max_bytes=100_000, max_files=10)
        except DataError:
            assert not out.exists()
        else:
            unpacking.shutil.rmtree(out)
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["flipped", f"a.{kind}"])


def test_something_else_and_missing(tmp_path):
    (tmp_path / "page").write_text("<html>")
    refused(tmp_path / "page", tmp_path, "damaged archive; found ReadError")
    with pytest.raises(DataError, match="no such archive"):
        unpack(tmp_path / "none", tmp_path / "out")


def test_a_folder_in_use_is_left_alone(tmp_path):
    path = archive(tmp_path, "zip", HONEST)
    (tmp_path / "out").mkdir()
    assert unpack(path, tmp_path / "out")
    with pytest.raises(DataError, match=r"is there already; expected a new or an empty folder"):
        unpack(path, tmp_path / "out")
