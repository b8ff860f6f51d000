"""Splitting folders: counts, folds, options out of range, and the same bytes on every machine."""
from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from class_folders import files_of, make
from conftest import ROOT, shared_data

from gluon_ft.data.sources import folders
from gluon_ft.data.split import draw_key, share, split, write
from gluon_ft.errors import ConfigError, DataError


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
                   env=environment, cwd=ROOT)
    assert digest(tmp_path / "other" / "folds") == GOLDEN["folds"]


def test_draw_keys_keep_names_apart():
    keys = {draw_key(0, "a", "bc"), draw_key(0, "ab", "c"), draw_key(1, "a", "bc"), draw_key(-1, "a", "bc"),
            draw_key(0, "abc"), draw_key(0, b"a", b"bc")}
    assert len(keys) == 5  # text is its UTF-8 bytes
    assert len(draw_key(0, "x")) == 32


def test_real_hotdog():
    root = shared_data("hotdog")
    with pytest.raises(DataError, match=r"parts of a split, not classes; .* give one of them, for example .*train"):
        folders.scan(root)
    result = split(root / "train", fraction=0.75)
    assert result.counts() == [{"class": "hotdog", "train": 101, "val": 33},
                               {"class": "not-hotdog", "train": 96, "val": 32}]
