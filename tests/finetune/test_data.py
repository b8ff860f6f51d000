"""Images of finetune: sources, the split that keeps copies together, the audit's part, reopening."""
from __future__ import annotations

import shutil

import cv2
import numpy as np
import photos
import pytest

from gluon_ft.data import lists, split
from gluon_ft.data.images.preprocessing import Preprocessing
from gluon_ft.data.loader import make_loader
from gluon_ft.data.records import pack
from gluon_ft.errors import ConfigError, DataError
from gluon_ft.finetune import examine, job_data
from gluon_ft.finetune.settings import JobSettings


def source_of(root):
    return job_data.find(JobSettings(data=str(root)))[0]


def divided(source, validation, seed, groups=None):
    """(path, label) of the images on each side; groups : sets of paths that are copies."""
    numbers = None if groups is None else split.linked(len(source), [
        (source.names.index(one), source.names.index(other)) for group in groups
        for one, other in zip(sorted(group), sorted(group)[1:])])
    return [source.take(positions).files for positions in split.divide(source, validation, seed, numbers)]


def test_without_copies_the_split_is_that_of_gluon_ft_split(tmp_path):
    root = photos.make(tmp_path / "p", count=7)
    drawn = split.split(root, fraction=0.7, seed=3)
    train, val = divided(source_of(root), 0.3, 3)
    assert train == [(entry.path, entry.label) for entry in drawn.parts["train"]]
    assert val == [(entry.path, entry.label) for entry in drawn.parts["val"]]


@pytest.mark.parametrize("seed", range(6))
def test_copies_stay_on_one_side_of_the_split(tmp_path, seed):
    source = source_of(photos.make(tmp_path / "p", count=6))
    groups = [{"red/00.png", "red/01.png", "red/02.png"}, {"green/00.png", "blue/00.png"}]
    train, val = ({path for path, _ in part} for part in divided(source, 0.5, seed, groups))
    assert len(train) + len(val) == 18 and not train & val
    assert groups[0] <= train or groups[0] <= val
    assert groups[1] <= train  # of two classes: nobody knows which is right
    for name in photos.COLOURS:
        assert any(path.startswith(name) for path in val) and any(path.startswith(name) for path in train)


@pytest.mark.parametrize("name, typed", [("red", "red"), ("a few red", "'a few red'")])
def test_a_class_of_one_image_cannot_be_split(tmp_path, name, typed):
    root = photos.make(tmp_path / "p", count=3)
    for number in (1, 2):
        (root / "red" / f"{number:02}.png").unlink()
    (root / "red").rename(root / name)
    with pytest.raises(DataError) as error:
        divided(source_of(root), 0.2, 0)
    assert str(error.value).startswith(f"{root}: 1 of 3 classes with too few images; expected 2 or more") and (
        f"'{name}' has 1; add images, leave the class out (--exclude {typed}), or" in str(error.value))


def test_a_class_whose_images_are_all_copies_trains_only(tmp_path):
    source = source_of(photos.make(tmp_path / "p", count=3))
    _, val = divided(source, 0.3, 0, [{f"red/0{i}.png" for i in range(3)}])
    assert {path.split("/")[0] for path, _ in val} == {"green", "blue"}


def spoilt(tmp_path):
    """Ten images a class; a mirrored copy of a red one in red and in blue, one file that is no image."""
    root = photos.make(tmp_path / "p")
    picture = cv2.imread(str(root / "red" / "03.png"))
    cv2.imwrite(str(root / "red" / "copy.png"), cv2.flip(picture, 1))
    cv2.imwrite(str(root / "blue" / "copy.png"), picture)
    (root / "green" / "00.png").write_bytes(b"not an image")
    return root


def test_the_audit_keeps_copies_together_and_leaves_bad_files_out(tmp_path):
    root = spoilt(tmp_path)
    for seed in range(5):
        data = job_data.prepare(JobSettings(data=str(root), seed=seed))
        train, val = ({path for path, _ in data.parts[name].files} for name in ("train", "validation"))
        assert {"red/03.png", "red/copy.png", "blue/copy.png"} <= train
        assert "green/00.png" not in train | val and len(train | val) == 31
    assert data.left_out == [{"part": "train", "path": "green/00.png", "why": data.left_out[0]["why"]}]
    assert data.facts == {"unreadable": 1, "copies_across": 0, "copies_within": 2, "two_labels": 2, "left_out": 1} or (
        data.facts["two_labels"] == 1)
    text = "\n".join(data.lines)
    assert "1 images cannot be read, left out: green/00.png (" in text
    assert "pairs of images are copies of each other, kept on one side of the split: " in text
    assert "pairs of equal images have two labels: one of them is wrong: " in text


def test_an_audit_that_only_reports_leaves_everything_in(tmp_path):
    data = job_data.prepare(JobSettings(data=str(spoilt(tmp_path)), audit="report"))
    assert sum(len(part) for part in data.parts.values()) == 32 and not data.left_out
    assert any(line.startswith("1 images cannot be read: green/00.png") for line in data.lines)
    data = job_data.prepare(JobSettings(data=str(tmp_path / "p"), audit="none"))
    assert data.lines == ["not audited (audit none): copies and bad files were not looked for"] and not data.facts


@pytest.mark.parametrize("names, taken", [(("train", "val", "test"), "val"), (("Training", "test"), "test")])
def test_a_folder_with_parts_is_taken_as_split(tmp_path, names, taken):
    for number, name in enumerate(names):
        photos.make(tmp_path / "p" / name, count=4, seed=number)
    copied = tmp_path / "p" / taken / "red" / "copy.png"
    shutil.copy(tmp_path / "p" / names[0] / "red" / "00.png", copied)
    shutil.rmtree(tmp_path / "p" / taken / "blue")
    data = job_data.prepare(JobSettings(data=str(tmp_path / "p")))
    assert len(data.parts["train"]) == 12 and len(data.parts["validation"]) == 8
    assert data.class_names == ["blue", "green", "red"]
    assert {label for _, label in data.parts["validation"].files} == {1, 2}
    assert data.left_out == [{"part": "validation", "path": "red/copy.png",
                              "why": "a copy of red/00.png, which is in training"}]
    assert any("1 validation images are copies of training images, left out of validation" in line
               for line in data.lines)


def test_parts_that_do_not_fit(tmp_path):
    photos.make(tmp_path / "p" / "val", count=2)
    photos.make(tmp_path / "p" / "test", count=2)
    with pytest.raises(DataError, match="no training part; expected train/ beside val/ or test/; found test, val"):
        job_data.find(JobSettings(data=str(tmp_path / "p")))
    photos.make(tmp_path / "q", ("red", "green"), count=2)
    with pytest.raises(DataError, match="class 'blue' is none of the training part's; expected 2 classes: green, red"):
        job_data.find(JobSettings(train=str(tmp_path / "q"), val=str(tmp_path / "p" / "val")))
    with pytest.raises(DataError, match="no such file or folder; expected a folder with one subfolder a class"):
        job_data.find(JobSettings(data=str(tmp_path / "nothing")))


def test_lists_are_split_or_taken_as_they_are(tmp_path):
    root = photos.make(tmp_path / "p", count=5)
    split.write(split.split(root, fraction=0.6), tmp_path / "a")
    given = job_data.prepare(JobSettings(train=str(tmp_path / "a-train.lst"), val=str(tmp_path / "a-val.lst"),
                                        root=str(root)))
    assert [len(part) for part in given.parts.values()] == [9, 6] and given.class_names == ["blue", "green", "red"]
    drawn = job_data.prepare(JobSettings(data=str(tmp_path / "a-train.lst"), root=str(root), validation=0.3))
    assert [len(part) for part in drawn.parts.values()] == [6, 3]


def test_changed_images_are_noticed_on_reopening(tmp_path):
    root, run = photos.make(tmp_path / "p", count=4), tmp_path / "run"
    run.mkdir()
    written = job_data.write(job_data.prepare(JobSettings(data=str(root))), run)
    again = job_data.reopen(run)
    assert again.parts == written.parts and again.class_names == written.class_names
    cv2.imwrite(str(root / "red" / "00.png"), np.zeros((40, 40, 3), np.uint8))
    with pytest.raises(DataError) as error:
        job_data.reopen(run)
    assert str(error.value).startswith(f"{run}: the images have changed since this run began; expected those of "
                                       "data.json; found ")
    assert "1 images with other contents (red/00.png)" in str(error.value)


def test_a_run_inside_of_the_photos_is_refused(tmp_path):
    root = photos.make(tmp_path / "p", count=2)
    with pytest.raises(ConfigError, match="the run's folder would be inside of the photos"):
        job_data.check_outside(root / "runs", JobSettings(data=str(root)))
    job_data.check_outside(tmp_path / "runs", JobSettings(data=str(root)))


def test_lists_of_different_roots_are_compared(tmp_path):
    for name in "ab":
        root = photos.make(tmp_path / name, count=3)
        split.write(split.split(root, fraction=0.5), tmp_path / f"{name}l")
    one, two = job_data.find(JobSettings(train=str(tmp_path / "al-train.lst"), val=str(tmp_path / "bl-train.lst")))
    one.root, two.root = tmp_path / "a", tmp_path / "b"
    with pytest.raises(DataError, match=r"no image is left; found 6 that .* are copies of training images"):
        examine.examine(one, two, "fix")


def test_class_names_of_packed_parts_come_from_their_manifests(tmp_path):
    root = photos.make(tmp_path / "p", count=4)
    split.write(split.split(root, fraction=0.5), tmp_path / "set")
    parts = {part: pack.pack(tmp_path / f"set-{part}.lst", root)[0].rec for part in ("train", "val")}
    (tmp_path / "set.classes.txt").unlink()
    data = job_data.prepare(JobSettings(train=str(parts["train"]), val=str(parts["val"])))
    assert data.class_names == ["blue", "green", "red"]
    assert [part.class_names for part in data.parts.values()] == [data.class_names] * 2


def test_validation_by_name_whatever_training_and_validation_are(tmp_path):
    names = ["blue", "green", "red"]
    packed = {}
    for part, count in (("train", names), ("val", names[1:])):
        folder = photos.make(tmp_path / part, count, 4, seed=len(count))
        lists.write(tmp_path / f"{part}.lst", [lists.Entry(i, (float(count.index(path.parent.name)),),
                                                           f"{path.parent.name}/{path.name}")
                                               for i, path in enumerate(sorted(folder.rglob("*.png")))])
        (tmp_path / f"{part}.classes.txt").write_bytes(lists.classes_to_bytes(count))
        packed[part] = pack.pack(tmp_path / f"{part}.lst", folder, encoding=".png")[0].rec
    for train, val in ((packed["train"], tmp_path / "val"), (tmp_path / "train", packed["val"]),
                       (packed["train"], packed["val"]), (tmp_path / "train", tmp_path / "val")):
        data = job_data.prepare(JobSettings(train=str(train), val=str(val), audit="none"))
        assert sorted(data.parts["validation"].labels.tolist()) == [1] * 4 + [2] * 4, (train, val)
        assert data.class_names == names
        run = tmp_path / f"run-{train.suffix}-{val.suffix}"
        run.mkdir()
        job_data.write(data, run)
        loader = make_loader(job_data.reopen(run).parts["validation"], classes=names, train=False, batch_size=4,
                             preprocessing=Preprocessing(size=32))
        assert sorted(loader.labels.tolist()) == [1] * 4 + [2] * 4, (train, val)


@pytest.mark.parametrize("named", ["train", "val"])
def test_names_on_one_side_only(tmp_path, named):
    for part in ("train", "val"):
        photos.make(tmp_path / part, ("green", "red"), 2)
        lists.write(tmp_path / f"{part}.lst", [lists.Entry(i, (float(i // 2),), f"{part}/{name}/{i % 2:02}.png")
                                               for i, name in enumerate(["green", "green", "red", "red"])])
    (tmp_path / f"{named}.classes.txt").write_bytes(lists.classes_to_bytes(["red", "green"]))
    settings = JobSettings(train=str(tmp_path / "train.lst"), val=str(tmp_path / "val.lst"), audit="none")
    if named == "val":
        with pytest.raises(DataError, match="validation images have class names, the training images have none; .*"
                                            r"name the classes in .*train\.classes\.txt"):
            job_data.prepare(settings)
    else:
        data = job_data.prepare(settings)
        assert data.parts["validation"].labels.tolist() == [0, 0, 1, 1] and data.class_names == ["red", "green"]


def test_a_validation_part_of_one_class_with_an_empty_folder(tmp_path):
    photos.make(tmp_path / "p" / "train", count=4)
    photos.make(tmp_path / "p" / "val", ["red"], 2, seed=1)
    (tmp_path / "p" / "val" / "green").mkdir()
    data = job_data.prepare(JobSettings(data=str(tmp_path / "p")))
    assert data.parts["validation"].labels.tolist() == [2, 2]
