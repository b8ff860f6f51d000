"""--exclude-files: which images a file names, as text and as a table; paths of no image, or of two."""
from __future__ import annotations

import os

import class_folders
import numpy as np
import pytest

from gluon_ft.data.sources import exclusions, folders
from gluon_ft.data.sources.arrays import ArraySource
from gluon_ft.errors import ConfigError, DataError


@pytest.fixture(name="photos")
def photos_fixture(tmp_path, monkeypatch):
    class_folders.make(tmp_path / "photos", cat=["a, b.jpg", "c.jpg", "é.jpg"], dog=3)
    monkeypatch.chdir(tmp_path)
    return folders.scan("photos")


@pytest.mark.parametrize(("text", "out"), [
    ("cat/c.jpg\n\ndog/001.jpg", ["cat/c.jpg", "dog/001.jpg"]),
    ("./cat/c.jpg\r\ncat/c.jpg\r\n", ["cat/c.jpg"]),
    ("photos/cat/c.jpg\n", ["cat/c.jpg"]),
    ("{here}/photos/dog/000.jpg\n", ["dog/000.jpg"]),
    ("cat/e\u0301.jpg\n", ["cat/é.jpg"]),
    ("\ufefffile,label\n\"cat/a, b.jpg\",cat\ndog/002.jpg,dog\n", ["cat/a, b.jpg", "dog/002.jpg"]),
    ("label;image path\ncat;cat/c.jpg\n", ["cat/c.jpg"]),
    ("file\ncat/c.jpg\n", ["cat/c.jpg"]),
    ("file,label\n", []),  # as of an audit that suspects no label
    ("cat/a, b.jpg\n", ["cat/a, b.jpg"]),
    ("cat\\c.jpg\n", ["cat/c.jpg"]),
])
def test_paths_in_any_form(photos, tmp_path, text, out):
    path = tmp_path / "out.txt"
    path.write_bytes(text.replace("{here}", str(tmp_path)).encode())
    kept, = exclusions.leave_out([photos], "out.txt")
    assert sorted(set(photos.names) - set(kept.names)) == sorted(out)
    assert kept.left_out == {**photos.left_out, **dict.fromkeys(out, "named in out.txt")}
    assert [name.split("/")[0] for name in kept.names] == [kept.label_name(i) for i in range(len(kept))]


@pytest.mark.parametrize(("text", "message"), [
    (b"cat/c.jpg\ncat/x.jpg\n", "1 paths are of no image of photos; found cat/x.jpg in line 2; did you mean"),
    (b"", "file is empty"), (b"\n \n", "names no image"),
    (b"cat/\xff.jpg\n", "not UTF-8"), (b"a\0b", "not text"), (b"file,label\n,cat\n", "out.txt:2: no path"),
    ("\n".join(["cat/a, b.jpg", "cat/c.jpg", "cat/é.jpg", *(f"dog/00{i}.jpg" for i in range(3))]).encode(),
     "no image is left"),
])
def test_one_line_says_what_is_wrong(photos, tmp_path, text, message):
    (tmp_path / "out.txt").write_bytes(text)
    with pytest.raises(DataError) as error:
        exclusions.leave_out([photos], "out.txt")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_name_in_two_parts_asks_for_the_whole_path(photos, tmp_path):
    class_folders.make(tmp_path / "val", cat=["c.jpg"], dog=1)
    parts = [photos, folders.scan("val")]
    (tmp_path / "out.txt").write_text("cat/c.jpg\n")
    with pytest.raises(DataError, match="several parts"):
        exclusions.leave_out(parts, "out.txt")
    (tmp_path / "out.txt").write_text(os.path.abspath("val/cat/c.jpg") + "\n")
    first, second = exclusions.leave_out(parts, "out.txt")
    assert (len(first), second.names) == (6, ["dog/000.jpg"])


def test_nothing_is_left_out_of_what_is_no_file(tmp_path):
    (tmp_path / "out.txt").write_text("a.jpg\n")
    with pytest.raises(ConfigError, match="nothing can be left out"):
        exclusions.leave_out([ArraySource(np.zeros((2, 4, 4), np.uint8), [0, 1])], tmp_path / "out.txt")
