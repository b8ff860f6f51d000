"""Scanning folders and splitting them: order, errors, counts, determinism, MXNet's own im2rec, the command."""
from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest
from conftest import shared_data
from PIL import Image

from gluon_ft.commands.split import split as command
from gluon_ft.data import folders, lists
from gluon_ft.data.split import draw_key, share, split, write
from gluon_ft.errors import ConfigError, DataError, UserError


def make(root: Path, **classes) -> Path:
    """Empty files: neither scanning nor splitting opens an image. A number stands for so many names."""
    for name, files in classes.items():
        (root / name).mkdir(parents=True)
        for file in [f"{i:03}.jpg" for i in range(files)] if isinstance(files, int) else files:
            (root / name / file).parent.mkdir(parents=True, exist_ok=True)
            (root / name / file).touch()
    return root


def files_of(split_, part):
    return {entry.path for entry in split_.parts[part]}


def test_scan_takes_images_in_code_point_order(tmp_path):
    make(tmp_path, b=["x.JPG", "a b.png", "t\tab.jpeg", "ä.gif", "Z.bmp", "deep/er/1.tif", ".hidden.jpg",
                      ".git/x.jpg", "notes.txt", "noending"], a=["1.webp", "10.pgm", "2.ppm"], C=["1.jpe", "ß.tiff"])
    (tmp_path / "readme.jpg").touch()
    (tmp_path / ".cache").mkdir()
    found = folders.scan(tmp_path)
    assert found.classes == ["C", "a", "b"]  # by code point: capitals first, whatever the locale says
    assert found.files == [("C/1.jpe", 0), ("C/ß.tiff", 0), ("a/1.webp", 1), ("a/10.pgm", 1), ("a/2.ppm", 1),
                           ("b/Z.bmp", 2), ("b/a b.png", 2), ("b/deep/er/1.tif", 2), ("b/t\tab.jpeg", 2),
                           ("b/x.JPG", 2), ("b/ä.gif", 2)]
    assert found.left_out == ["b/noending", "b/notes.txt", "readme.jpg"]
    assert found.of_class(1) == ["a/1.webp", "a/10.pgm", "a/2.ppm"]
    assert folders.scan(tmp_path, exclude=["a"]).classes == ["C", "b"]


def test_composed_and_decomposed_names_sort_and_split_alike(tmp_path):
    composed, decomposed = "\u00e9", "e\u0301"
    # As written by Linux and as macOS may store them: 'é' sorts after 'f' composed, before it decomposed.
    one = make(tmp_path / "linux", **{"f": 6, composed: [f"{composed}{i}.jpg" for i in range(6)]})
    two = make(tmp_path / "mac", **{"f": 6, decomposed: [f"{decomposed}{i}.jpg" for i in range(6)]})
    a, b = (split(root, per_class=4) for root in (one, two))
    assert a.classes == ["f", composed]
    assert b.classes == ["f", decomposed]
    for part in a.parts:
        assert [(e.index, e.label) for e in a.parts[part]] == [(e.index, e.label) for e in b.parts[part]]


def test_scan_errors_say_what_was_found(tmp_path):
    def refused(root, wording, **options):
        with pytest.raises(DataError, match=wording) as error:
            folders.scan(root, **options)
        assert str(root) in str(error.value)

    refused(tmp_path / "none", "not a folder; expected a folder with one subfolder a class.*; found nothing there")
    refused(make(tmp_path / "empty", a=0) / "a", "no classes; .*found an empty folder")
    flat = make(tmp_path / "flat", cats=3)
    refused(flat, "one class only; expected two or more: one subfolder a class.*; found 'cats'")
    refused(flat / "cats", "no classes; .*found 3 images in the folder itself; make one subfolder a class")
    hole = make(tmp_path / "hole", cats=3, dogs=["a.txt"])
    refused(hole, r"dogs: class without an image; expected files ending in .*; found none; .*\(exclude 'dogs'\)")
    refused(hole, "one class only", exclude="dogs")
    refused(hole, "no class 'catz' to exclude; did you mean cats?", exclude=["catz"])
    refused(make(tmp_path / "parts", train=1, test=1), "parts of a split, not classes; .*found test, train; give")
    (tmp_path / "file").touch()
    refused(tmp_path / "file", "not a folder.*found a file")


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file system that keeps case and bytes apart")
def test_names_that_not_every_file_system_keeps_apart(tmp_path):
    case = make(tmp_path / "case", Dog=1, cat=1, dog=1)
    with pytest.raises(DataError, match="two classes differ only by case; found 'Dog' and 'dog'; merge or rename one"):
        folders.scan(case)
    assert folders.scan(case, exclude=["Dog"]).classes == ["cat", "dog"]
    with pytest.raises(DataError, match="two classes differ only by Unicode composition"):
        folders.scan(make(tmp_path / "nfc", **dict.fromkeys(("\u00e9", "e\u0301"), 1)))
    make(tmp_path / "bytes", a=1, b=1)
    with open(os.fsencode(tmp_path / "bytes" / "b") + b"/\xff.jpg", "wb"):
        pass
    with pytest.raises(DataError, match=r"name is not valid UTF-8; found 'b/\\udcff.jpg'; rename it"):
        folders.scan(tmp_path / "bytes")


@pytest.mark.skipif(not hasattr(os, "symlink") or sys.platform == "win32", reason="needs links")
def test_links_are_followed_but_not_in_circles(tmp_path):
    root = make(tmp_path / "root", cats=["a.jpg", "sub/b.jpg"], dogs=["c.jpg"])
    make(tmp_path, elsewhere=["d.jpg"])
    (root / "cats" / "self").symlink_to(root / "cats")
    (root / "cats" / "sub" / "up").symlink_to("..")
    (root / "dogs" / "all").symlink_to(tmp_path)
    (root / "dogs" / "a-link").symlink_to(tmp_path / "elsewhere")
    (root / "foxes").symlink_to(make(tmp_path / "store", foxes=["e.jpg"]) / "foxes")
    (tmp_path / "store" / "foxes" / "back").symlink_to(root)
    found = folders.scan(root)
    assert [path for path, _ in found.files] == ["cats/a.jpg", "cats/sub/b.jpg", "dogs/a-link/d.jpg", "dogs/c.jpg",
                                                 "foxes/e.jpg"]
    (root / "cats" / "more").symlink_to(root / "dogs")
    with pytest.raises(DataError, match="one folder in two classes, by a link; found classes 'cats' and 'dogs'"):
        folders.scan(root)
    (root / "cats" / "more").unlink()
    for name in ("x.jpg", "loop"):
        (root / "cats" / name).symlink_to(root / "cats" / name)  # to itself
        with pytest.raises(DataError, match=f"{name}: broken link"):
            folders.scan(root)
        (root / "cats" / name).unlink()
    (root / "whole-class").symlink_to(tmp_path / "unmounted")
    with pytest.raises(DataError, match="whole-class: broken link; expected an image or a folder at its end"):
        folders.scan(root)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX permissions")
def test_unreadable_folder(tmp_path):
    root = make(tmp_path / "root", cats=1, dogs=1)
    for folder in (tmp_path.parent.parent, tmp_path.parent, tmp_path):
        if os.geteuid() == 0:
            folder.chmod(0o755)
    (root / "dogs").chmod(0)
    privileged = os.geteuid() == 0
    if privileged:
        os.seteuid(65534)  # permissions don't bind root
    try:
        with pytest.raises(DataError, match="dogs: folder cannot be read; found Permission denied; check"):
            folders.scan(root)
    finally:
        if privileged:
            os.seteuid(0)
        (root / "dogs").chmod(0o755)


@pytest.mark.skipif(sys.platform != "linux", reason="needs long paths")
def test_deep_folders_do_not_end_the_recursion(tmp_path):
    root, here = make(tmp_path / "root", a=1, b=1), os.getcwd()
    os.chdir(root / "a")
    try:
        for _ in range(1100):  # deeper than Python's recursion limit
            os.mkdir("d")
            os.chdir("d")
        Path("x.jpg").touch()
        assert len(folders.scan(root).of_class(0)) == 2
    finally:
        # Deeper than shutil.rmtree gets, too.
        Path("x.jpg").unlink()
        while Path.cwd() != root / "a":
            os.chdir("..")
            os.rmdir("d")
        os.chdir(here)


def test_per_class_counts_and_parts_that_share_nothing(tmp_path):
    root = make(tmp_path / "root", a=10, b=7, c=30)
    result = split(root, per_class=4, test=2, cap=12, seed=5)
    assert result.counts() == [{"class": "a", "train": 4, "val": 4, "test": 2},
                               {"class": "b", "train": 4, "val": 1, "test": 2},
                               {"class": "c", "train": 4, "val": 6, "test": 2}]
    everything = [e.path for part in result.parts.values() for e in part]
    assert len(everything) == len(set(everything)) == 29
    position = {path: i for i, (path, _) in enumerate(folders.scan(root).files)}
    for part, entries in result.parts.items():
        assert all(e.index == position[e.path] and e.label == "abc".index(e.path[0]) for e in entries)
        assert (entries == sorted(entries)) is (part != "train")
    # A smaller training part lies in a larger one; the test part is the same.
    more = split(root, per_class=5, test=2, cap=29, exclude=["b"], seed=5)
    assert {p for p in files_of(result, "train") if p[0] != "b"} < files_of(more, "train")
    assert {p for p in files_of(result, "test") if p[0] != "b"} == files_of(more, "test")
    assert files_of(split(root, per_class=4, seed=6), "train") != files_of(split(root, per_class=4, seed=5), "train")


def test_fractions_round_half_up_and_leave_no_part_empty(tmp_path):
    assert [share(0.15, 10), share(0.25, 10), share(0.75, 100), share(0.1, 4), share(0.29, 100)] == [2, 3, 75, 0, 29]
    root = make(tmp_path / "root", a=10, b=4)
    assert split(root, fraction=0.75, test=0.2).counts() == [{"class": "a", "train": 6, "val": 2, "test": 2},
                                                             {"class": "b", "train": 2, "val": 1, "test": 1}]
    with pytest.raises(DataError, match=r"1 of 2 classes with too few images; expected at least 6 a class \(0.9 for "
                                        r"training, at least one image in each part\); found 'b' has 4; ask for fewer"):
        split(root, fraction=0.9)
    assert split(root, fraction=0.9, allow_short=True).counts()[1] == {"class": "b", "train": 3, "val": 1}


@pytest.mark.parametrize("options", [{"per_class": 3}, {"fraction": 0.7}, {"fraction": 0.05}, {"fraction": 0.93},
                                     {"folds": 3}])
@pytest.mark.parametrize("test", [None, 2, 0.1, 0.45, 0.8])
def test_the_least_number_asked_for_is_the_least_that_works(tmp_path, options, test):
    root = make(tmp_path / "root", a=1, b=200)
    with pytest.raises(DataError, match="found 'a' has 1;") as error:
        split(root, **options, test=test)
    least = int(str(error.value).split("expected at least ")[1].split()[0])
    for i in range(1, least):
        assert i < 150
        with pytest.raises(DataError, match=f"at least {least} a class"):
            split(root, **options, test=test)
        (root / "a" / f"{i:03}.jpg").touch()
    counts = split(root, **options, test=test).counts()[0]
    assert min(n for name, n in counts.items() if name != "class") >= 1
    if "per_class" in options:
        assert counts["train"] == 3
    if isinstance(test, int):
        assert counts["test"] == test


def test_folds_are_stratified_and_each_image_is_validated_once(tmp_path):
    root = make(tmp_path / "root", **{f"c{i}": 7 + i % 3 for i in range(12)})
    result = split(root, folds=5, test=1, seed=2)
    assert list(result.parts) == [f"fold{i}-{p}" for i in range(5) for p in ("train", "val")] + ["test"]
    everything = {path for path, _ in folders.scan(root).files} - files_of(result, "test")
    validated = [p for i in range(5) for p in files_of(result, f"fold{i}-val")]
    assert len(validated) == len(everything)
    assert set(validated) == everything
    for i in range(5):
        assert files_of(result, f"fold{i}-train") == everything - files_of(result, f"fold{i}-val")
    for row in result.counts():
        sizes = [row[f"fold{i}-val"] for i in range(5)]
        assert min(sizes) >= 1
        assert max(sizes) - min(sizes) <= 1
    # The extra images are dealt from another fold on in each class.
    totals = [len(result.parts[f"fold{i}-val"]) for i in range(5)]
    assert max(totals) - min(totals) < 12


def test_too_few_images(tmp_path):
    root = make(tmp_path / "root", a=61, b=60, **{f"c{i}": 3 for i in range(8)})
    with pytest.raises(DataError, match=r"9 of 10 classes with too few images; expected at least 61 a class \(60 for "
                                        r"training, one or more for validation\); found 'b' has 60, 'c0' has 3, .* and "
                                        r"3 more classes; ask for fewer, leave the class out .* \(--allow-short\)"):
        split(root, per_class=60)
    rows = {row["class"]: row for row in split(root, per_class=60, test=2, allow_short=True).counts()}
    assert rows["a"] == {"class": "a", "train": 58, "val": 1, "test": 2}
    assert rows["c3"] == {"class": "c3", "train": 1, "val": 1, "test": 1}
    rows = split(root, folds=5, allow_short=True).counts()
    assert [rows[2][f"fold{i}-val"] for i in range(5)].count(1) == 3
    with pytest.raises(DataError, match=r"expected at least 2 a class \(one for training, one for validation\); found "
                                        r"'b' has 1; add images"):
        split(make(tmp_path / "one", a=5, b=1), per_class=2, allow_short=True)


@pytest.mark.parametrize("options, wording", [
    ({}, "how to split is not clear; expected one of per_class, fraction and folds; found none"),
    ({"per_class": 2, "folds": 2}, "found per_class and folds"),
    ({"per_class": 0}, "per_class is out of its range; expected a whole number, 1 or more; found 0"),
    ({"per_class": 2.5}, "per_class is out of its range"),
    ({"fraction": 1.0}, "fraction is out of its range; expected a number between 0 and 1; found 1.0"),
    ({"fraction": float("nan")}, "fraction is out of its range"),
    ({"folds": 1}, "folds is out of its range"),
    ({"folds": 2, "test": 0}, "test is out of its range"),
    ({"folds": 2, "test": 1.5}, "test is out of its range"),
    ({"per_class": 4, "cap": 4}, "cap leaves too few images; expected 5 or more .*; found 4"),
    ({"folds": 2, "seed": "x"}, "seed is out of its range"),
])
def test_options_out_of_range(tmp_path, options, wording):
    with pytest.raises(ConfigError, match=wording):
        split(make(tmp_path / "root", a=9, b=9), **options)


def test_more_images_in_one_class_leave_the_others_alone(tmp_path):
    root = make(tmp_path / "root", a=20, b=20, c=20)
    before = [split(root, **how, seed=3) for how in ({"per_class": 8, "test": 3}, {"folds": 4})]
    for i in range(20, 50):
        (root / "b" / f"{i}.jpg").touch()
    (root / "aa").mkdir()
    for i in range(20):
        (root / "aa" / f"{i}.jpg").touch()
    after = [split(root, **how, seed=3) for how in ({"per_class": 8, "test": 3}, {"folds": 4})]
    for old, new in zip(before, after):
        for part in old.parts:
            for name in "ac":
                assert [e.path for e in old.parts[part] if e.path[:2] == name + "/"] == \
                       [e.path for e in new.parts[part] if e.path[:2] == name + "/"]


# What these were on Linux with Python 3.9, 3.10, 3.11 and 3.12; a change would give every user another split.
GOLDEN = {"per_class": "07a3a349df1efe88", "folds": "a376ba58f1237cf8"}


def digest(prefix: Path) -> str:
    paths = sorted(prefix.parent.glob(f"{prefix.name}*"))
    return hashlib.sha256(b"".join(p.name.encode() + p.read_bytes() for p in paths)).hexdigest()[:16]


def test_the_same_bytes_on_every_machine(tmp_path):
    root = make(tmp_path / "root", **{"a b": 9, "Z": 8, "\u00e9t\u00e9": [f"\u00fc{i}.png" for i in range(7)]})
    script = "import sys; from gluon_ft.data.split import split, write; r, p, h, n = sys.argv[1:]; " \
             "write(split(r, **{h: int(n)}, seed=11), p)"
    for how, count in (("per_class", 4), ("folds", 3)):
        write(split(root, **{how: count}, seed=11), tmp_path / how)
        assert digest(tmp_path / how) == GOLDEN[how]
    (tmp_path / "other").mkdir()
    environment = {**os.environ, "PYTHONHASHSEED": "7", "LC_ALL": "C", "PYTHONUTF8": "1"}
    subprocess.run([sys.executable, "-c", script, root, tmp_path / "other" / "folds", "folds", "3"], check=True,
                   env=environment, cwd=Path(__file__).parents[1])
    assert digest(tmp_path / "other" / "folds") == GOLDEN["folds"]


def test_draw_keys_keep_names_apart():
    keys = {draw_key(0, "a", "bc"), draw_key(0, "ab", "c"), draw_key(1, "a", "bc"), draw_key(-1, "a", "bc"),
            draw_key(0, "abc"), draw_key(0, b"a", b"bc")}
    assert len(keys) == 5  # text is its UTF-8 bytes
    assert len(draw_key(0, "x")) == 32


def test_write_refuses_replaces_and_cleans_up(tmp_path):
    root = make(tmp_path / "root", a=9, b=9)
    before = sorted(os.walk(root))
    prefix = tmp_path / "lists.v1"
    written = write(split(root, folds=3, test=1), prefix)
    names = [f"lists.v1-fold{i}-{part}.lst" for i in range(3) for part in ("train", "val")]
    assert [p.name for p in written] == [*names, "lists.v1-test.lst", "lists.v1.classes.txt"]
    assert lists.read_classes(lists.classes_file(prefix)) == ["a", "b"]
    (tmp_path / "lists.v1-extra-train.lst").write_text("mine")
    with pytest.raises(DataError, match=r"lists.v1.classes.txt: exists already; .*--force"):
        write(split(root, per_class=3), prefix)
    assert lists.list_file(prefix, "test").exists()
    write(split(root, per_class=3), prefix, force=True)
    # A test part of another split beside the new lists would share images with them.
    assert sorted(p.name for p in tmp_path.glob("lists*")) == ["lists.v1-extra-train.lst", "lists.v1-train.lst",
                                                               "lists.v1-val.lst", "lists.v1.classes.txt"]
    for inside in (root / "x", root / "a" / "x"):
        with pytest.raises(DataError, match="inside the source folder, which is never changed"):
            write(split(root, per_class=3), inside)
    with pytest.raises(ConfigError, match="prefix has no name"):
        write(split(root, per_class=3), tmp_path / "..")
    assert sorted(os.walk(root)) == before
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such names")
def test_a_name_that_cannot_stand_in_a_list_is_refused_whole(tmp_path):
    root = make(tmp_path / "root", a=4, b=["1.jpg", "2.jpg", "t\tab.jpg"])
    with pytest.raises(DataError, match=r"'b/t\\tab.jpg': cannot stand in an image list; expected a path without tabs"):
        write(split(root, per_class=2), tmp_path / "x")
    assert list(tmp_path.glob("x*")) == []


def test_mxnet_packs_our_lists(tmp_path):
    rng = np.random.default_rng(0)
    root = make(tmp_path / "root", **{"cats and dogs": 0, "été": 0})
    for i in range(8):
        image = Image.fromarray(rng.integers(0, 256, (9, 8, 3), np.uint8))
        image.save(root / ("cats and dogs", "été")[i % 2] / f"{i}.png")
    result = split(root, per_class=3)
    write(result, tmp_path / "p")
    tool = Path(mx.__file__).parent / "tools" / "im2rec.py"
    code = "import gluon_ft, sys, runpy; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    subprocess.run([sys.executable, "-c", code, tool, tmp_path / "p", root, "--pass-through"], check=True,
                   capture_output=True, cwd=Path(__file__).parents[1], env={**os.environ, "PYTHONUTF8": "1"})
    for part in ("train", "val"):
        record = mx.recordio.MXIndexedRecordIO(str(tmp_path / f"p-{part}.idx"), str(tmp_path / f"p-{part}.rec"), "r")
        entries = lists.read(lists.list_file(tmp_path / "p", part))
        assert record.keys == [e.index for e in entries]
        for entry in entries:
            header, data = mx.recordio.unpack(record.read_idx(entry.index))
            assert (header.id, header.label) == (entry.index, entry.label)
            assert data == (root / entry.path).read_bytes()


def run(*args) -> int:
    with pytest.raises(SystemExit) as done:
        command.main([str(a) for a in args], prog_name="split")
    return done.value.code


def test_command(tmp_path, capsys):
    root = make(tmp_path / "root", **{f"class{i:03}": 5 for i in range(30)})
    (root / "readme.txt").touch()
    options = ("--fraction", "0.6", "--test", "1", "--exclude", "class007", "--seed", 4, "--json")
    assert run(root, tmp_path / "p", *options) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == ["class", "train", "val", "test"]
    assert "... 17 more" in out[10]
    assert out[15].split() == ["all", "29", "58", "58", "29"]
    assert "left out, not an image by its suffix or not in a class: 1 files, the first 'readme.txt'" in out
    result = json.loads(out[-1])
    assert {part: f.get("images", f.get("classes")) for part, f in result["files"].items()} == \
        {"train": 58, "val": 58, "test": 29, "classes": 29}
    assert (result["seed"], result["options"]["exclude"], len(result["counts"])) == (4, ["class007"], 29)
    assert all(Path(f["path"]).exists() for f in result["files"].values())
    library = split(root, fraction=0.6, test=1, exclude=["class007"], seed=4)
    assert lists.read(result["files"]["train"]["path"]) == library.parts["train"]

    for args, wording in ((("--fraction", "0.6"), "exists already"), ((), "how to split is not clear"),
                          (("--folds", "2", "--test", "few"), "'few' is neither a number of images nor a share"),
                          (("--foldz", "2"), "--foldz"), (("--per-class", 5), "30 of 30 classes with too few images")):
        assert run(root, tmp_path / "p", *args) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert wording in error
    assert run(root, tmp_path / "p", "--folds", 2, "--force") == 0
    assert capsys.readouterr().out.splitlines()[0].split() == ["class", "fold0", "fold1"]
    assert issubclass(DataError, UserError)


def test_real_caltech256(tmp_path):
    root = shared_data("caltech256")
    result = split(root, per_class=15, exclude=["251.airplanes-101"])
    assert len(result.classes) == 19
    assert all(row["train"] == 15 and row["val"] >= 7 for row in result.counts())
    write(result, tmp_path / "caltech")
    entries = lists.read(tmp_path / "caltech-train.lst")
    assert entries == result.parts["train"]
    # The folder's own numbers are in code-point order, so the label is the class's rank.
    assert all(result.classes[e.label] == e.path.split("/")[0] and (root / e.path).is_file() for e in entries)


def test_real_hotdog():
    root = shared_data("hotdog")
    with pytest.raises(DataError, match=r"parts of a split, not classes; .* give one of them, for example .*train"):
        folders.scan(root)
    result = split(root / "train", fraction=0.75)
    assert result.counts() == [{"class": "hotdog", "train": 101, "val": 33},
                               {"class": "not-hotdog", "train": 96, "val": 32}]
