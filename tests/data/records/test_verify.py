"""verify and inspect: every damage is found and named by its record and byte."""
from __future__ import annotations

import contextlib
import io
import json
import random
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from record_files import make, offsets, run, three_files, verified_pack

from gluon_ft.cli import records as commands
from gluon_ft.data.records import framing, inspect, pack, record_file, verify
from gluon_ft.errors import DataError


@pytest.fixture
def packed(tmp_path):
    return verified_pack(tmp_path)


def test_verify_names_the_damaged_record_and_its_byte(packed):
    data, begins = packed.read_bytes(), offsets(packed)

    def found(change, **options):
        broken = bytearray(data)
        change(broken)
        packed.write_bytes(bytes(broken))
        report = verify.verify(packed, **options)
        assert not report.ok
        return report.damages[0]

    def set_byte(at, value):
        return lambda b: b.__setitem__(at, value)

    first = found(set_byte(begins[5] + 200, data[begins[5] + 200] ^ 255))
    assert (first.record, first.byte) == (5, begins[5])
    first = found(set_byte(begins[7], 0))
    assert (first.record, first.byte) == (6, begins[6]) and "no record begins" in first.reason
    first = found(set_byte(begins[4] + 12 + 3, 0x50))  # label 1 becomes a huge one
    assert (first.record, first.byte) == (4, begins[4]) and "out of range, expected 0 to 2" in first.reason
    first = found(lambda b: b.__setitem__(slice(begins[3] + 12, begins[3] + 16), np.float32("nan").tobytes()))
    assert str(first) == f"record 3 at byte {begins[3]}: label is nan"
    first = found(lambda b: b.__setitem__(slice(begins[2] + 8 + 24, begins[2] + 8 + 40), bytes(16)))
    assert first.record == 2 and "not an image" in first.reason
    first = found(lambda b: b.__delitem__(slice(begins[11] + 30, None)))
    assert (first.record, first.byte) == (11, begins[11]) and "the file ends" in first.reason
    packed.write_bytes(b"")
    assert str(verify.verify(packed).damages[0]) == "file at byte 0: no records: the file is empty"


def test_a_cut_anywhere_is_found(packed):
    data, begins = packed.read_bytes(), offsets(packed)
    for cut in [*range(0, len(data), max(1, len(data) // 60)), *begins, len(data) - 1]:
        packed.write_bytes(data[:cut])
        report = verify.verify(packed)
        assert not report.ok, cut
        if cut not in begins:
            at = max(o for o in begins if o < cut)
            assert (begins.index(at), at) in [(d.record, d.byte) for d in report.damages], cut


def test_index_and_manifest_must_agree(packed):
    idx, about = packed.with_suffix(".idx"), record_file.beside(packed, ".manifest.json")
    whole, text = idx.read_text(), about.read_text()
    idx.write_text(whole.replace("105\t", "105\t1"))
    report = verify.verify(packed)
    assert report.damages[0].record == 5 and "the index has it at byte" in report.damages[0].reason
    idx.write_text(whole.split("111")[0])
    assert any("12 records, and the index has 11" in d.reason for d in verify.verify(packed).damages)
    idx.write_text("nonsense")
    assert "bad line" in verify.verify(packed).damages[0].reason
    idx.unlink()
    assert [d.reason for d in verify.verify(packed).damages] == ["the index is missing"]
    idx.write_text(whole)
    about.write_text(text.replace('"class 1"', '"class x"', 1))
    assert "manifest was changed or damaged" in verify.verify(packed).damages[0].reason
    about.write_text(text[:-30])
    assert "manifest is not JSON" in verify.verify(packed).damages[0].reason
    about.write_text(text)
    pack.pack(packed.with_suffix(".lst"), packed.parent / "images", packed.parent / "other")
    about.write_bytes((packed.parent / "other.manifest.json").read_bytes())
    reasons = [d.reason for d in verify.verify(packed).damages]
    assert any("contents differ from those that the manifest has a checksum of" in r for r in reasons)
    assert "its SHA-256 is not the manifest's" in reasons


def test_verify_command(packed):
    done = run(commands.verify, packed, "--json", "--workers", "2")
    assert done.returncode == 0 and f"{packed}: 12 records, whole" in done.stdout
    assert json.loads(done.stdout.splitlines()[-1])["files"][0]["ok"] is True
    data = bytearray(packed.read_bytes())
    data[offsets(packed)[5] + 200] ^= 255
    packed.write_bytes(bytes(data))
    done = run(commands.verify, packed, "--json")
    assert done.returncode == 1 and f"record 5 at byte {offsets(packed)[5]}: " in done.stdout
    assert json.loads(done.stdout.splitlines()[-1])["files"][0]["damages"][0]["record"] == 5
    done = run(commands.verify, packed.with_name("none.rec"))
    assert done.returncode == 2 and "none.rec: cannot be read; expected packed records (.rec); found No such file" in \
        done.stderr


def test_inspect(packed, tmp_path):
    contents = inspect.inspect(packed)
    assert contents.rows[1] == {"class": "class 1", "records": 4, "width min": 32, "width median": 32, "width max": 32,
                                "height min": 24, "height median": 24, "height max": 24,
                                "kB/image": contents.rows[1]["kB/image"]}
    sheet = tmp_path / "sheet.png"
    assert inspect.write_sheet(contents, sheet, number=6, seed=3) == 6
    first = sheet.read_bytes()
    assert Image.open(io.BytesIO(first)).size == (6 + 6 * 134, 28 + 150)
    inspect.write_sheet(contents, sheet, number=6, seed=3)
    assert sheet.read_bytes() == first
    inspect.write_sheet(contents, sheet, number=6, seed=4)
    assert sheet.read_bytes() != first
    done = run(commands.inspect, packed, "--sheet", sheet)
    assert done.returncode == 0 and "class 2" in done.stdout and "12 records (12 JPEG)" in done.stdout
    packed.write_bytes(packed.read_bytes()[:-100])
    done = run(commands.inspect, packed)
    assert done.returncode == 2 and "see all of it with gluon-ft verify" in done.stderr


@pytest.mark.slow
def test_ten_thousand_mutations_are_all_found(tmp_path):
    """With its manifest, no changed .rec, .idx or manifest passes, and nothing but DataError comes out."""
    lst = make(tmp_path, 6, size=(16, 12))
    (done,) = pack.pack(lst, tmp_path / "images", encoding=".png")
    prefix = done.rec.with_suffix("")
    whole = three_files(prefix)
    rng = random.Random(0)
    began = time.monotonic()
    for i in range(10_000):
        kind = (".rec", ".idx", ".manifest.json")[i % 3]
        data = mutated(whole[kind], rng)
        Path(f"{prefix}{kind}").write_bytes(data)
        report = verify.verify(done.rec)
        same = data == whole[kind] or (kind == ".manifest.json" and _json(data) == _json(whole[kind]))
        assert report.ok == same, (i, kind)
        if i % 10 == 0 and kind != ".idx":
            with contextlib.suppress(DataError):
                inspect.inspect(done.rec)
        Path(f"{prefix}{kind}").write_bytes(whole[kind])
    assert time.monotonic() - began < 900


def _json(data):
    try:
        return json.loads(data)
    except ValueError:
        return None


def mutated(data, rng):
    data = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(data))
        what = rng.randrange(6)
        if what == 0:
            data[at] = rng.randrange(256)
        elif what == 1:
            data[at] ^= 1 << rng.randrange(8)
        elif what == 2:
            del data[at:at + rng.randrange(1, 20)]
        elif what == 3:
            data[at:at] = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 9)))
        elif what == 4:
            data[at:at + 4] = rng.choice([framing.MAGIC_BYTES, b"\xff\xff\xff\xff", b"\xff\xff\xff\x1f", bytes(4)])
        elif len(data) > at + 8:
            data = data[:at]
        data = data or bytearray(b"x")
    return bytes(data)
