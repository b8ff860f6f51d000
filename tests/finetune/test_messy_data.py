"""What people bring: parts beside classes, Kaggle's folders, lists as others write them, copies, odd labels."""
from __future__ import annotations

import shutil
import time
from pathlib import Path

import cv2
import numpy as np
import photos
import pytest

from gluon_ft.data import lists, split
from gluon_ft.data.records import inspect, pack
from gluon_ft.data.sources.opening import open_source
from gluon_ft.errors import DataError
from gluon_ft.finetune import job_data
from gluon_ft.finetune.settings import JobSettings


def kaggle(folder: Path, count: int = 4, tests: int = 3) -> Path:
    """train/cat.0.png, ... and test1/1.png, ... without labels, as Kaggle's cats and dogs."""
    made = photos.make(folder.parent / "made", ("red", "blue"), count + tests)
    for part in ("train", "test1"):
        (folder / part).mkdir(parents=True)
    for name, kind in (("red", "cat"), ("blue", "dog")):
        for number in range(count):
            shutil.copy(made / name / f"{number:02}.png", folder / "train" / f"{kind}.{number}.png")
        for number in range(tests):
            shutil.copy(made / name / f"{count + number:02}.png", folder / "test1" / f"{name[0]}{number}.png")
    return folder


def prepared(**options):
    return job_data.prepare(JobSettings(**{name: str(value) if isinstance(value, Path) else value
                                           for name, value in options.items()}))


@pytest.mark.parametrize("others, wording", [
    (["train", "val", "extra"], "'train' is called as a part of a split is, and stands beside other folders; .*found "
                                "train, val beside extra; give the parts themselves"),
    (["train", "test1", "cats"], "stands beside other folders"),
    (["val", "test"], "no training part; expected train/ beside val/ or test/"),
    (["train", "training"], "several folders called as a train part; expected one; found train, training"),
    (["train", "val", "validation"], "several folders called as a val part"),
])
def test_parts_are_not_trained_as_classes(tmp_path, others, wording):
    for name in others:
        photos.make(tmp_path / "p" / name, ("red", "blue"), 2)
    with pytest.raises(DataError, match=wording):
        job_data.find(JobSettings(data=str(tmp_path / "p")))
    told = prepared(data=tmp_path / "p", classes_are_folders=True, audit="none")
    assert told.class_names == sorted(others) and sum(map(len, told.parts.values())) == 4 * len(others)


@pytest.mark.parametrize("names, val", [
    (("train", "val"), "val"), (("Training", "Validation", "test"), "Validation"), (("train", "test1"), "test1"),
    (("train_set", "valid_set"), "valid_set"), (("train", "@eaDir", ".cache", "testing"), "testing"),
])
def test_parts_are_found_under_their_usual_names(tmp_path, names, val):
    for seed, name in enumerate(names):
        photos.make(tmp_path / "p" / name, ("red", "blue"), 3, seed=seed)
    data = prepared(data=tmp_path / "p")
    assert {name: part.path.name for name, part in data.parts.items()} == {"train": names[0], "validation": val}
    assert any("not used: " in line and line.endswith("kept for a test of what is trained") for line in data.lines
               ) == ("test" in names)


def test_kaggles_flat_folders(tmp_path):
    root = kaggle(tmp_path / "kaggle")
    with pytest.raises(DataError, match=r"train: no classes; .*found 8 images in the folder itself; .*--labels-from "
                                        r"name where names such as cat\.0\.png begin with the class"):
        job_data.find(JobSettings(data=str(root)))
    data = prepared(data=root, labels_from="name")
    assert data.class_names == ["cat", "dog"] and {n: len(p) for n, p in data.parts.items()} == {
        "train": 6, "validation": 2}
    assert f"not used: {root / 'test1'}, whose images have no labels" in data.lines
    labels = {Path(name).name.split(".")[0]: label for name, label in data.parts["train"].files}
    assert labels == {"cat": 0, "dog": 1}
    assert prepared(data=root / "train", labels_from="name").class_names == ["cat", "dog"]


def black(folder: Path, names=("a", "b"), count: int = 8, level: int = 0) -> Path:
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            cv2.imwrite(str(folder / name / f"{i}.png"), np.full((40, 40, 3), number * level, np.uint8))
    return folder


@pytest.mark.parametrize("level", [0, 200], ids=["16 equal images in two classes", "each class one image"])
def test_nothing_but_copies_is_said_and_not_trained(tmp_path, level):
    with pytest.raises(DataError, match=r"p: no image can be held out for validation: all are copies of.*; found "
                                        ".*pairs of images are copies of each other.*; remove the copies"):
        prepared(data=black(tmp_path / "p", level=level))
    assert len(prepared(data=tmp_path / "p", validation=0.0).parts) == 1


def test_a_class_of_copies_has_no_validation_image_and_that_is_said(tmp_path):
    root = photos.make(tmp_path / "p", ("red", "blue"), 6)
    black(root, ("black",))
    data = prepared(data=root)
    assert any(line.startswith("no validation image of black: all images of it are copies") for line in data.lines)


def listed(folder: Path, labels, classes=None) -> Path:
    root = photos.make(folder / "p", ("red", "blue"), len(labels))
    paths = [f"{name}/{i:02}.png" for i in range(len(labels)) for name in ("red", "blue")]
    lists.write(root / "x.lst", [lists.Entry(i, (float(labels[i % len(labels)]),), path)
                                 for i, path in enumerate(paths)])
    return root / "x.lst"


@pytest.mark.parametrize("opened", [
    lambda path: job_data.find(JobSettings(train=str(path))), open_source,
    lambda path: open_source(pack.pack(path, path.parent)[0].rec)], ids=["train", "loader", "records"])
def test_a_huge_label_is_refused_before_any_work(tmp_path, opened):
    path = listed(tmp_path, [0, 1, 16_777_216])
    begun = time.perf_counter()
    with pytest.raises(DataError, match="labels outside the classes that are numbered where they have no names; "
                                        "expected 0 to 65535; found 16777216; number the classes from 0 on, or name"):
        opened(path)
    assert time.perf_counter() - begun < 2


def test_the_remedies_for_labels_that_begin_at_1_work(tmp_path):
    path = listed(tmp_path, [1, 2, 2, 1])
    with pytest.raises(DataError, match=r"x\.lst: 1 of 3 classes have no training image; .*found none of '0'; number "
                                        r"the classes from 0 on, as these labels begin at 1; or --allow-empty-classes"):
        prepared(train=path)
    assert prepared(train=path, allow_empty_classes=True).class_names == ["0", "1", "2"]
    assert prepared(train=listed(tmp_path / "mended", [0, 1, 1, 0])).class_names == ["0", "1"]


@pytest.mark.parametrize("name, head, line", [
    ("x.csv", "image,label\n", "{path},{name}\n"), ("x.txt", "", "{path} {name}\n"), ("x.tsv", "", "{path}\t{label}\n"),
    ("x.lst", "", "{i}\t{name}\t{path}\n"), ("absolute.csv", "", "{root}/{path},{name}\n")])
def test_jobs_and_loaders_take_lists_as_others_write_them(tmp_path, name, head, line):
    root = photos.make(tmp_path / "p", ("blue", "red"), 6)
    (root / name).write_text(head + "".join(
        line.format(i=10 * label + i, path=f"{kind}/{i:02}.png", name=kind, label=label, root=root)
        for label, kind in enumerate(("blue", "red")) for i in range(6)))
    names = ["0", "1"] if "{label}" in line else ["blue", "red"]
    data = prepared(train=root / name)
    assert data.class_names == names and {n: len(part) for n, part in data.parts.items()} == {
        "train": 10, "validation": 2}
    found = open_source(root / name)
    assert found.class_names == names and found.labels.tolist() == [0] * 6 + [1] * 6
    (packed,) = pack.pack(root / name, root, tmp_path / "packed")
    assert packed.records == 12 and open_source(packed.rec).class_names == names


@pytest.mark.parametrize("moved", [True, False], ids=["moved with the manifest alone", "list without a dash"])
def test_train_and_inspect_find_the_names_of_records_in_one_place(tmp_path, moved):
    root = photos.make(tmp_path / "p", count=4)
    split.write(split.split(root, fraction=0.5), tmp_path / "set")
    parts = {}
    for part in ("train", "val"):
        place = tmp_path / f"set{'-' if moved else ''}{part}.lst"
        if not moved:
            shutil.copy(tmp_path / f"set-{part}.lst", place)
        parts[part] = pack.pack(place, root)[0].rec
    if moved:
        (tmp_path / "away").mkdir()
        for part, rec in parts.items():
            for suffix in (".rec", ".idx", ".manifest.json"):
                shutil.move(rec.with_suffix(suffix), tmp_path / "away" / f"{part}{suffix}")
            parts[part] = tmp_path / "away" / f"{part}.rec"
    data = prepared(train=parts["train"], val=parts["val"])
    assert data.class_names == ["blue", "green", "red"]
    assert [row["class"] for row in inspect.inspect(parts["train"]).rows] == data.class_names
