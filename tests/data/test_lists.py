"""Image lists and class names: what im2rec writes and reads, strictness, all-or-nothing writing, fuzzing."""
from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import os
import random
import time
from pathlib import Path

import mxnet
import pytest

from gluon_ft.data import lists
from gluon_ft.data.lists import Entry
from gluon_ft.errors import DataError
from gluon_ft.io import atomic


@pytest.fixture(scope="module")
def im2rec():
    """MXNet's own tool as a module, which opens lists as UTF-8 whatever the locale of the test."""
    path = Path(mxnet.__file__).parent / "tools" / "im2rec.py"
    spec = importlib.util.spec_from_file_location("im2rec_of_mxnet", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.open = functools.partial(open, encoding="utf-8")
    return module


ENTRIES = [Entry(3, (1.0,), "dogs/b c.jpg"), Entry(0, (0.0,), "cats/ü.png"), Entry(12, (256.0,), "z/深い/x.JPG")]


def test_written_as_im2rec_writes_and_read_as_it_reads(tmp_path, im2rec):
    lists.write(tmp_path / "ours.lst", ENTRIES)
    im2rec.write_list(tmp_path / "theirs.lst", [(e.index, e.path, e.label) for e in ENTRIES])
    assert (tmp_path / "ours.lst").read_bytes() == (tmp_path / "theirs.lst").read_bytes()
    assert lists.read(tmp_path / "theirs.lst") == ENTRIES
    assert list(im2rec.read_list(tmp_path / "ours.lst")) == [[3, "dogs/b c.jpg", 1.0], [0, "cats/ü.png", 0.0],
                                                             [12, "z/深い/x.JPG", 256.0]]
    assert [e.label for e in ENTRIES] == [1, 0, 256]


def test_several_labels_are_read_and_are_not_a_class(tmp_path):
    (tmp_path / "boxes.lst").write_bytes(b"0\t4\t-0.5\t1e-1\ta.jpg\r\n1\t4\t5\t0.25\t.5\t3.\tb.jpg\n")
    entries = lists.read(tmp_path / "boxes.lst")
    assert entries == [Entry(0, (4.0, -0.5, 0.1), "a.jpg"), Entry(1, (4.0, 5.0, 0.25, 0.5, 3.0), "b.jpg")]
    with pytest.raises(DataError, match="several labels where one class is needed"):
        _ = entries[0].label


@pytest.mark.parametrize("text, line, wording", [
    ("0\t1\ta.jpg\n1\tb.jpg\n", 2, "missing column; expected index, label and path, separated by tabs; found 2 column"),
    ("0 1 a.jpg\n", 1, "missing column"),
    ("0\t1\ta.jpg\n\n", 2, "empty line"),
    ("0\tnan\ta.jpg\n", 1, "label is not a number"),
    ("0\tinf\ta.jpg\n", 1, "label is not a number"),
    ("0\t1e999\ta.jpg\n", 1, "label is not a number"),
    ("0\tcat\ta.jpg\n", 1, "label is not a number; expected index, label and path, separated by tabs; found 'cat'"),
    ("0\t1_0\ta.jpg\n", 1, "label is not a number"),
    ("0\t٣\ta.jpg\n", 1, "label is not a number"),
    ("0\t-1\ta.jpg\n", 1, "label is not a class; expected a whole number from 0 to 2[*]{2}24; found '-1'"),
    ("0\t0.5\ta.jpg\n", 1, "label is not a class"),
    ("0\t16777217\ta.jpg\n", 1, "label is not a class"),
    ("0\t1\ta.jpg\n1\t1\tb.jpg\n0\t1\tc.jpg\n", 3, "index 0 is there twice; expected each index once; found it is in "
                                                 "line 1 too"),
    ("-1\t1\ta.jpg\n", 1, "bad index"),
    ("9223372036854775808\t1\ta.jpg\n", 1, "bad index"),
    ("1.0\t1\ta.jpg\n", 1, "bad index"),
    ("0\t1\t\n", 1, "bad path"),
    ("0\t1\ta\0.jpg\n", 1, "bad path"),
    ("0\t1\ta\rb.jpg\n", 1, "carriage return inside a line"),
    ("0\t1\ta.jpg\n1\t1\t2\tb.jpg\n", 2, "other label columns than in line 1"),
    ("0\t1\ta.jpg\n1\t1\tb.j", 2, "last line does not end; expected a line end; found the end of the file"),
    ("\ufeff0\t1\ta.jpg\n", 1, "begins with a byte order mark"),
])
def test_a_bad_line_is_named(tmp_path, text, line, wording):
    path = tmp_path / "bad.lst"
    path.write_bytes(text.encode("utf-8"))
    with pytest.raises(DataError, match=wording) as error:
        lists.read(path)
    assert str(error.value).startswith(f"{path}:{line}: ")


def test_other_encodings_and_files_that_are_no_lists(tmp_path, monkeypatch):
    path = tmp_path / "bad.lst"
    path.write_bytes("0\t1\ta.jpg\n1\t1\tü.jpg\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"bad.lst:2: not UTF-8; expected an image list in UTF-8; found byte 0xfc at "
                                        r"position 4; save it as UTF-8"):
        lists.read(path)
    path.write_bytes("0\t1\ta.jpg\n".encode("utf-16"))
    with pytest.raises(DataError, match="begins with a byte order mark"):
        lists.read(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="file is empty; expected an image list"):
        lists.read(path)
    with pytest.raises(DataError, match="no such file"):
        lists.read(tmp_path / "none.lst")
    with pytest.raises(DataError, match="not a file; expected an image list; found a folder"):
        lists.read(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.lst")
        with pytest.raises(DataError, match="found a device or a pipe"):
            lists.read(tmp_path / "pipe.lst")
    path.write_bytes(b"0\t1\t" + b"a" * lists.MAX_LINE + b"\n")
    with pytest.raises(DataError, match="line is too long"):
        lists.read(path)
    with open(path, "wb") as out:
        out.truncate(lists.MAX_BYTES + 1)  # sparse: takes no space
    with pytest.raises(DataError, match="file is too large"):
        lists.read(path)


@pytest.mark.parametrize("bad", ["a\tb.jpg", "a\nb.jpg", "a\rb.jpg", " cats/a.jpg", "", "\u3000x/a.jpg", "\udcff.jpg"])
def test_a_path_that_cannot_stand_in_a_list_is_refused(tmp_path, bad):
    with pytest.raises(DataError, match="cannot stand in an image list; expected a path without tabs") as error:
        lists.write(tmp_path / "x.lst", [Entry(0, (0.0,), "fine.jpg"), Entry(1, (0.0,), bad)])
    assert repr(bad) in str(error.value)
    assert os.listdir(tmp_path) == []


def test_what_is_not_a_list_is_not_written():
    for entries, wording in (([], "nothing to list"),
                             ([Entry(0, (0.0,), "a"), Entry(0, (0.0,), "b")], "index 0 is out of range or there twice"),
                             ([Entry(0, (0.5,), "a")], "label is not a class"),
                             ([Entry(0, (float("nan"),), "a")], "label is not a class"),
                             ([Entry(0, (1.0, 2.0), "a")], "label is not a class")):
        with pytest.raises(DataError, match=wording):
            lists.to_bytes(entries)


def test_class_names(tmp_path):
    path = lists.classes_file(tmp_path / "v1.2-photos")
    assert path.name == "v1.2-photos.classes.txt"
    names = ["001.ak47", "a b", "tab\there", "Zoë", " blank"]
    path.write_bytes(lists.classes_to_bytes(names))
    assert lists.read_classes(path) == names
    path.write_bytes(b"a\n")
    assert lists.read_classes(path) == ["a"], "of images to evaluate"
    for text, wording in (("a\n\nb\n", ":2: bad class name"), ("a\nb\na\n", ":3: class 'a' is there twice; found it is "
                          "in line 1 too"), ("a\nb", ":2: last line does not end"),
                          ("\u00e9\ne\u0301\n", ":2: class 'e\u0301' is there twice; found it is in line 1 too"),
                          ("a\nb\0\n", ":2: bad class name")):
        path.write_bytes(text.encode())
        with pytest.raises(DataError, match=wording):
            lists.read_classes(path)
    for bad in (["a", "b\nc"], ["a", " "], ["a", "a"], ["a"], ["a", "\udcff"]):
        with pytest.raises(DataError):
            lists.classes_to_bytes(bad)


def test_together_or_not_at_all(tmp_path, monkeypatch):
    a, b, stale = tmp_path / "a", tmp_path / "b", tmp_path / "stale"
    atomic.write_together({a: b"1", b: b"2"})
    stale.write_bytes(b"old")
    with pytest.raises(DataError, match="exists already; found 3 files of an earlier run; choose another name, or "
                                        "replace it with --force"):
        atomic.write_together({a: b"3", b: b"4"}, obsolete=[stale])
    real, calls = os.replace, []

    def full_disk(source, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError(28, "No space left on device", str(source))
        real(source, target)

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(DataError, match="b: cannot be written; found No space left on device; nothing was changed"):
        atomic.write_together({a: b"3", b: b"4"}, force=True, obsolete=[stale])
    monkeypatch.undo()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a": b"1", "b": b"2", "stale": b"old"}
    atomic.write_together({a: b"3", b: b"4"}, force=True, obsolete=[stale])
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a": b"3", "b": b"4"}
    with pytest.raises(DataError, match="folder does not exist; create it"):
        atomic.write_together({tmp_path / "new": b"1", tmp_path / "no" / "x": b"2"})
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


TOKENS = [b"\t", b"\n", b"\r", b"\r\n", b"\0", b" ", b"-", b"+", b".", b"nan", b"inf", b"1e400", b"0x1", b"_",
          b"\xff", b"\xef\xbb\xbf", b"\xc2\xa0", b"\xe2\x80\xa8", b"\x0b", b"\x1c", b"\xd9\xa3", b"0.5", b"9" * 25]


def mutate(data: bytes, rng: random.Random) -> bytes:
    """One to three changes: a byte, a cut, a piece out, a piece twice, or a token in."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(data) + 1)
        to = min(len(data), at + rng.randrange(1, 9))
        kind = rng.randrange(6)
        if kind == 0 and at < len(data):
            data[at] = rng.randrange(256)
        elif kind == 1 and rng.random() < 0.3:
            del data[at:]
        elif kind == 2:
            del data[at:to]
        elif kind == 3:
            data[at:at] = data[at:to]
        elif kind == 4 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        else:
            data[at:to if rng.random() < 0.5 else at] = rng.choice(TOKENS)
    return bytes(data)


@pytest.mark.slow
def test_fuzzed_lists_are_refused_or_read_as_im2rec_reads_them(tmp_path, im2rec):
    rng, path = random.Random(1), tmp_path / "x.lst"
    whole = [lists.to_bytes(ENTRIES), lists.to_bytes([Entry(i, (i % 3,), f"c{i % 3}/{i:04}.jpg") for i in range(9)]),
             b"0\t4\t-0.5\t1e-1\ta.jpg\n1\t4\t5\t0.25\tb.jpg\n"]
    read = refused = 0
    slowest = 0.0
    for _ in range(8000):
        data = mutate(rng.choice(whole), rng)
        path.write_bytes(data)
        began = time.perf_counter()
        try:
            entries = lists.read(path)
        except DataError as error:
            assert str(path) in str(error)
            refused += 1
            continue
        finally:
            slowest = max(slowest, time.perf_counter() - began)
        read += 1
        with contextlib.redirect_stdout(io.StringIO()) as said:
            theirs = list(im2rec.read_list(path))
        assert said.getvalue() == ""
        assert [[e.index, e.path, *e.labels] for e in entries] == theirs, data
        assert len(entries) == data.count(b"\n") == len({e.index for e in entries})
        assert all(len(e.labels) > 1 or 0 <= e.label == e.labels[0] for e in entries)
    print(f"{read} read, {refused} refused, slowest {slowest:.4f} s")
    assert read > 500
    assert refused > 2000
    assert slowest < 5


@pytest.mark.slow
def test_fuzzed_class_names_are_refused_or_read_line_by_line(tmp_path):
    rng, path = random.Random(2), tmp_path / "x.classes.txt"
    whole = lists.classes_to_bytes(["013.birdbath", "026.cake", "Zoë", "深い海", "a b"])
    read = refused = 0
    for _ in range(4000):
        data = mutate(whole, rng)
        path.write_bytes(data)
        try:
            names = lists.read_classes(path)
        except DataError as error:
            assert str(path) in str(error)
            refused += 1
            continue
        read += 1
        assert [name + "\n" for name in names] == list(io.StringIO(data.decode("utf-8").replace("\r\n", "\n"), "\n"))
        assert len(set(names)) == len(names) >= 1
    print(f"{read} read, {refused} refused")
    assert read > 500
    assert refused > 500
