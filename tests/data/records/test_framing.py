"""RecordIO framing: the bytes of MXNet's own writer, and damage found where it is."""
from __future__ import annotations

import io
import random

import mxnet as mx
import numpy as np
import pytest

from gluon_ft.data.records import framing
from gluon_ft.data.records.framing import MAGIC_BYTES, Damage, Damaged, Record
from gluon_ft.errors import DataError


def scan(data: bytes) -> list:
    return list(framing.scan(io.BytesIO(data), len(data)))


def payloads(seed=0, count=200):
    rng = random.Random(seed)
    parts = [MAGIC_BYTES, b"abcd", b"x", b"", b"\n#", MAGIC_BYTES[:3], MAGIC_BYTES * 2, bytes(8)]
    return [b"".join(rng.choice(parts) for _ in range(rng.randrange(8))) for _ in range(count)]


def test_frames_are_those_of_mxnets_writer(tmp_path):
    path = str(tmp_path / "a.rec")
    writer = mx.recordio.MXRecordIO(path, "w")
    for payload in payloads():
        writer.write(payload)
    writer.close()
    ours = b"".join(map(framing.frame, payloads()))
    assert ours == (tmp_path / "a.rec").read_bytes()
    assert [r.payload for r in scan(ours)] == payloads()


def test_mxnet_reads_our_frames(tmp_path):
    path = tmp_path / "a.rec"
    path.write_bytes(b"".join(map(framing.frame, payloads(1))))
    reader = mx.recordio.MXRecordIO(str(path), "r")
    assert [reader.read() for _ in payloads(1)] == payloads(1)


@pytest.mark.parametrize("labels", [(3.0,), (1.0, 2.5, -4.0)])
def test_header_is_that_of_mx_recordio(labels):
    theirs = mx.recordio.pack(mx.recordio.IRHeader(0, labels[0] if len(labels) == 1 else labels, 77, 0), b"image")
    assert framing.pack_header(labels, 77) + b"image" == theirs
    header = framing.read_header(theirs)
    assert (header.labels, header.id, theirs[header.start:]) == (labels, 77, b"image")


def test_header_that_declares_more_labels_than_there_are_bytes():
    payload = np.array([0x7FFFFFFF], "<u4").tobytes() + bytes(20)
    with pytest.raises(Damaged, match="header declares 2147483647 labels and the record holds 24 bytes"):
        framing.read_header(payload)
    with pytest.raises(Damaged, match="5 bytes, too short for an image header of 24"):
        framing.read_header(b"short")


def three() -> tuple[bytes, list[int]]:
    frames = [framing.frame(bytes([65 + i]) * n) for i, n in enumerate((10, 33, 4))]
    return b"".join(frames), [0, len(frames[0]), len(frames[0]) + len(frames[1])]


def test_a_cut_anywhere_is_found_at_its_record():
    data, offsets = three()
    for cut in range(1, len(data)):
        items = scan(data[:cut])
        if cut in offsets:
            assert all(isinstance(item, Record) for item in items)
            continue
        at = max(o for o in offsets if o < cut)
        assert isinstance(items[-1], Damage) and items[-1].byte == at and items[-1].record == offsets.index(at)


def test_damaged_magic_loses_one_record_only():
    data, offsets = three()
    broken = bytearray(data)
    broken[offsets[1]] ^= 1
    items = scan(bytes(broken))
    # The first one's length leads to the damaged header: which of the two is wrong cannot be told from this file alone.
    assert [type(item) for item in items] == [Damage, Record]
    assert "its length leads to byte 20, where no record begins" in items[0].reason
    assert items[1].payload == b"CCCC" and items[1].offset == offsets[2]


def test_length_beyond_the_file_is_reported_and_not_allocated():
    data = MAGIC_BYTES + (framing.MAX_PART).to_bytes(4, "little") + bytes(100)
    (item,) = scan(data)
    assert str(item) == ("record 0 at byte 0: declares 536870911 bytes and the file ends "
                         f"{framing.MAX_PART + 1 + 8 - 108} bytes before their end")


def test_parts_out_of_place():
    middle = MAGIC_BYTES + (2 << 29 | 4).to_bytes(4, "little") + b"abcd"
    assert "part at byte 0 is out of place (kind 2)" in scan(middle)[0].reason
    kind7 = MAGIC_BYTES + (7 << 29 | 4).to_bytes(4, "little") + b"abcd"
    assert "part at byte 0 is of kind 7, expected 0 to 3" in scan(kind7)[0].reason
    first_only = MAGIC_BYTES + (1 << 29 | 4).to_bytes(4, "little") + b"abcd"
    assert "0 bytes left where a header of 8 bytes is due" in scan(first_only)[0].reason


def test_the_next_record_is_found_behind_much_damage():
    data = bytes(3 << 20) + framing.frame(b"found")
    items = scan(data)
    assert [item.offset if isinstance(item, Record) else item.byte for item in items] == [0, 3 << 20]


def test_index(tmp_path):
    path = tmp_path / "a.idx"
    path.write_bytes(b"5\t0\n7\t24\n")
    keys, offsets = framing.read_index(path)
    assert (list(keys), list(offsets)) == ([5, 7], [0, 24])
    for text in (b"5\t0\n7 24\n", b"5\t0\n-7\t24\n", b"5\t0\n\n", b"5\t0\n" + b"9" * 100):
        path.write_bytes(text)
        with pytest.raises(DataError, match=r"a\.idx:2: bad line; expected key and byte, separated by a tab; found"):
            framing.read_index(path)
    with pytest.raises(DataError, match="cannot be read; expected an index of records; found No such file"):
        framing.read_index(tmp_path / "none.idx")


@pytest.mark.slow
def test_scan_survives_any_bytes():
    rng = random.Random(0)
    whole = b"".join(map(framing.frame, payloads(3, 12)))
    for _ in range(20_000):
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        data = bytes(data[:rng.randrange(len(data))] if rng.random() < 0.3 else data)
        end = 0
        for item in scan(data):
            if isinstance(item, Record):
                assert item.offset >= end and item.end <= len(data)
                end = item.end
                assert framing.frame(item.payload)[:4] == MAGIC_BYTES
