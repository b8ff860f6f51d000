"""RecordFile: positions, labels and class names of a `.rec`, and files that lie about themselves."""
from __future__ import annotations

import sys

import numpy as np
import pytest
from record_files import make, offsets, verified_pack

from gluon_ft.data.images.header import Unreadable
from gluon_ft.data.records import framing, pack
from gluon_ft.data.records.record_file import RecordFile, beside
from gluon_ft.errors import DataError


@pytest.fixture
def packed(tmp_path):
    return verified_pack(tmp_path)


def write(path, labels, body=b"image"):
    path.write_bytes(b"".join(framing.frame(framing.pack_header(each, i) + body) for i, each in enumerate(labels)))
    return path


def test_everything_of_packed_records(packed):
    records = RecordFile(packed)
    assert len(records) == 12 and records.bytes == packed.stat().st_size
    assert records.labels.tolist() == records.class_labels().tolist() == [0, 1, 2] * 4
    assert records.labels.dtype == np.int64 and records.labels_of(4) == (1.0,)
    assert records.class_names == ["class 0", "class 1", "class 2"]
    assert list(records.offsets) == offsets(packed)
    assert records.where(5) == f"{packed}: record 5 at byte {offsets(packed)[5]}"
    whole = list(records.scan_whole())
    assert [records.read(i) for i in range(12)] == [item.payload[header.start:] for item, header in whole]
    assert [item.offset for item, _ in whole] == offsets(packed)


def test_records_alone_and_their_class_names(packed):
    with_index = RecordFile(packed)
    before = list(with_index.offsets)
    beside(packed, ".idx").unlink()
    beside(packed, ".manifest.json").unlink()
    alone = RecordFile(packed)
    assert list(alone.offsets) == before and alone.labels.tolist() == with_index.labels.tolist()
    assert (alone.index, alone.manifest, alone.sha256) == (None, None, None)
    assert alone.class_names == ["class 0", "class 1", "class 2"]  # of set.classes.txt
    (packed.parent / "set.classes.txt").unlink()
    assert RecordFile(packed).class_names is None


def test_the_order_is_that_of_the_index(packed):
    path = beside(packed, ".idx")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(reversed(lines)))
    assert list(RecordFile(packed).offsets) == offsets(packed) == sorted(offsets(packed), reverse=True)


def test_labels_that_are_no_class(tmp_path):
    labels = [(1.0,), (0.0, 2.0), (1.5,), (-1.0,), (float("nan"),), (2.0 ** 25,)]
    records = RecordFile(write(tmp_path / "a.rec", labels))
    assert records.labels.tolist() == [1, -1, -1, -1, -1, -1]
    assert records.labels_of(1) == (0.0, 2.0) and records.labels_of(2) == (1.5,)
    with pytest.raises(DataError, match=r"a\.rec: several labels an image; expected one class an image, a whole number "
                       r"from 0; found label 0 2 in record 1 at byte 40; training here takes one class"):
        records.class_labels()
    for label, wording in ((1.5, "a label that is no class; .*found label 1.5 in record 0"), (-1.0, "found label -1"),
                           (float("nan"), "damaged: record 0 at byte 0: expected one class, a whole number from 0")):
        with pytest.raises(DataError, match=wording):
            RecordFile(write(tmp_path / f"{label}.rec", [(label,)])).class_labels()


def test_an_index_that_does_not_cover_the_file(packed):
    path = beside(packed, ".idx")
    lines = path.read_text().splitlines(keepends=True)
    for text, found in ((lines[:-1], "expected one at byte .*; found none"),
                        (lines[1:], "expected one at byte 0; found the next at byte"),
                        ([*lines, lines[0]], "found the next at byte 0")):
        path.write_text("".join(text))
        with pytest.raises(DataError, match=rf"\.idx: the index does not fit the records; .*{found}"):
            RecordFile(packed).offsets  # noqa: B018
    path.write_text(f"0\t{packed.stat().st_size + 8}\n")
    with pytest.raises(DataError, match=r"damaged: record 0 at byte \d+: 0 bytes left where a header of 8"):
        RecordFile(packed).offsets  # noqa: B018
    path.write_text(f"0\t{2 ** 63}\n")
    with pytest.raises(DataError, match="damaged: record 0 at byte 9223372036854775808"):
        RecordFile(packed).offsets  # noqa: B018


def test_a_length_beyond_the_file_is_not_believed(tmp_path):
    data = framing.MAGIC_BYTES + framing.MAX_PART.to_bytes(4, "little") + bytes(100)
    path = tmp_path / "a.rec"
    path.write_bytes(data)
    with pytest.raises(DataError, match="damaged: record 0 at byte 0: declares 536870911 bytes"):
        RecordFile(path).labels  # noqa: B018
    (tmp_path / "a.idx").write_text("0\t0\n")
    with pytest.raises(DataError, match="damaged: record 0 at byte 0: declares 536870911 bytes"):
        RecordFile(path).labels  # noqa: B018


def test_records_that_change_after_they_were_opened(packed):
    records = RecordFile(packed)
    assert len(records) == 12
    packed.write_bytes(packed.read_bytes()[:-100])
    with pytest.raises(Unreadable, match="the file ends"):
        records.read(11)
    packed.unlink()
    with pytest.raises(Unreadable, match="No such file"):
        records.read(0)


def test_manifest_of_other_records(packed, tmp_path):
    lst = make(tmp_path / "other", 6)
    (done,) = pack.pack(lst, tmp_path / "other" / "images")
    beside(packed, ".manifest.json").write_bytes(beside(done.rec, ".manifest.json").read_bytes())
    with pytest.raises(DataError, match=r"manifest of other records; expected 12 records as in .*; found 6"):
        RecordFile(packed).offsets  # noqa: B018


def test_what_is_no_file(tmp_path):
    with pytest.raises(DataError, match=r"none\.rec: cannot be read; expected packed records \(\.rec\); found No such"):
        RecordFile(tmp_path / "none.rec")
    with pytest.raises(DataError, match="not a file; expected packed records"):
        RecordFile(tmp_path)
    assert beside("a.b.rec", ".idx").name == "a.b.idx" and beside("A.REC", ".idx").name == "A.idx"


def test_nothing_here_imports_mxnet(packed):
    import subprocess
    code = ("import sys\nfrom gluon_ft.data.records import inspect, pack, verify\n"
            "inspect.inspect(sys.argv[1])\nassert verify.verify(sys.argv[1], workers=2).ok\n"
            "pack.pack(sys.argv[1][:-3] + 'lst', sys.argv[2], sys.argv[1] + '2', workers=2)\n"
            "assert 'mxnet' not in sys.modules")
    subprocess.run([sys.executable, "-c", code, str(packed), str(packed.parent / "images")], check=True, timeout=120)
