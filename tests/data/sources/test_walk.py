"""The one walk: which files are taken, what is left out and why; the same for sources, audit, split and predict."""
from __future__ import annotations

import os

import pytest
from class_folders import make

from gluon_ft.data.audit.items import open_source as open_for_audit
from gluon_ft.data.sources import folders, walk
from gluon_ft.data.sources.opening import open_source
from gluon_ft.errors import DataError
from gluon_ft.evaluation.predict import Given

# Name below a class folder -> whether it is an image that is taken, or why not; None: not worth a word.
NAMES = {
    "a.jpg": True, "A.JPEG": True, "b.JfIf": True, "c.avif": True, "d.jp2": True, "deep/er/e.png": True,
    "@other/f.png": True, "#1.jpg": True,
    "notes.txt": walk.SUFFIX, "raw.dng": walk.SUFFIX, "raw.cr2": walk.SUFFIX, "nosuffix": walk.SUFFIX,
    "jpg": walk.SUFFIX, "Thumbs.db": walk.SUFFIX,
    ".hidden.jpg": walk.HIDDEN, "._a.jpg": walk.HIDDEN, ".DS_Store": None, ".git/x.jpg": walk.HIDDEN,
    ".git/config": None, ".thumbnails/t.png": walk.HIDDEN,
    "@eaDir/a.jpg": walk.SYSTEM, "@eaDir/deep/SYNOPHOTO_THUMB_M.jpg": walk.SYSTEM, "@eaDir/a.jpg@SynoEAStream": None,
    "#recycle/old.jpg": walk.SYSTEM, "__MACOSX/._a.jpg": walk.SYSTEM, "$RECYCLE.BIN/r.png": walk.SYSTEM,
}
TAKEN = sorted(name for name, why in NAMES.items() if why is True)


@pytest.fixture
def messy(tmp_path):
    root = make(tmp_path / "photos", cats=list(NAMES), dogs=["d.jpg"])
    make(root, **{"@eaDir": ["SYNO.jpg"], ".cache": ["x.png"]})
    return root


def opened_by_predict(root):
    given = Given(root)
    return [os.path.relpath(given.where(i), root) for i in range(len(given))], {
        os.path.relpath(path, root): why for path, why in given.left_out.items()}


@pytest.mark.parametrize("opened", [
    lambda root: (folders.scan(root).names, folders.scan(root).left_out),
    lambda root: (open_source(root).names, open_source(root).left_out),
    lambda root: ([item.name for item in open_for_audit(0, root).items], open_for_audit(0, root).left_out),
    opened_by_predict], ids=["scan", "open_source", "audit", "predict"])
def test_each_reader_takes_the_same_files_and_says_the_rest(messy, opened):
    names, left_out = opened(messy)
    assert sorted(names) == sorted([*(f"cats/{name}" for name in TAKEN), "dogs/d.jpg"])
    expected = {f"cats/{name}": why for name, why in NAMES.items() if isinstance(why, str)}
    assert left_out == {**expected, "@eaDir/SYNO.jpg": walk.SYSTEM, ".cache/x.png": walk.HIDDEN}


def test_what_is_left_out_is_counted_in_one_line(messy):
    (messy / "cats" / "two\nlines.txt").touch()
    line = walk.said(folders.scan(messy).left_out, " of the folder")
    assert line.startswith("7 files of the folder are not images by their suffix, the first cats/Thumbs.db (2 no "
                           "suffix, 2 .txt, 1 .db, ...); ") and "\n" not in line
    assert "; 5 files left out, hidden (.cache/x.png, cats/._a.jpg, cats/.git/x.jpg, ...)" in line
    (messy / "readme.txt").touch()
    assert "or outside of any class, the first" in walk.said(folders.scan(messy).left_out)
    assert walk.said({}) is None


def test_the_order_is_that_of_reading_a_folder():
    paths = ["b/a.jpg", "b.jpg", "a/z/1.jpg", "a/y.jpg", "a/é.jpg", "a/z.jpg", "B/1.jpg"]
    assert sorted(paths, key=walk.walk_order) == ["b.jpg", "B/1.jpg", "a/y.jpg", "a/z.jpg", "a/é.jpg", "a/z/1.jpg",
                                                  "b/a.jpg"]


@pytest.fixture
def linked(tmp_path):
    root = make(tmp_path / "photos", cats=["a.jpg"], dogs=["b.jpg"])
    make(tmp_path, elsewhere=["c.jpg"])
    (root / "cats" / "link").symlink_to(tmp_path / "elsewhere")
    (root / "cats" / "round").symlink_to(root)
    (root / "cats" / "self").symlink_to(root / "cats")
    (root / "cats" / "one.jpg").symlink_to(root / "dogs" / "b.jpg")
    return root


def test_links_are_followed_once_by_every_reader(linked):
    names = ["cats/a.jpg", "cats/link/c.jpg", "cats/one.jpg", "dogs/b.jpg"]
    assert folders.scan(linked).names == names
    assert sorted(opened_by_predict(linked)[0]) == names
    assert opened_by_predict(linked)[1] == {"cats/round": walk.LINK, "cats/self": walk.LINK}


def test_what_cannot_be_reached_is_an_error_or_is_named(linked, tmp_path):
    (linked / "cats" / "gone.jpg").symlink_to(tmp_path / "unmounted.jpg")
    (linked / "cats" / "far").symlink_to(tmp_path / "unmounted")
    if hasattr(os, "mkfifo"):
        os.mkfifo(linked / "cats" / "pipe.jpg")
    with pytest.raises(DataError, match="far: broken link"):
        folders.scan(linked)
    assert {why for path, why in open_for_audit(0, linked).left_out.items() if path in ("cats/far", "cats/gone.jpg")
            } == {walk.BROKEN}
    given = Given(linked)
    errors = {}
    for position in range(len(given)):
        try:
            given.read(position)
        except ValueError as error:
            errors[os.path.relpath(given.where(position), linked)] = str(error)
    assert {path for path, why in errors.items() if why == "broken link"} == {"cats/gone.jpg", "cats/far"}
    assert len(given) == 6 and all("pipe" not in path for path in errors)


def test_a_folder_that_cannot_be_opened_is_named(tmp_path, monkeypatch):
    root = make(tmp_path / "photos", cats=["a.jpg"], dogs=["b.jpg"])
    scandir = os.scandir

    def refusing(path):
        if os.fspath(path).endswith("dogs"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(DataError, match="dogs: folder cannot be read; found Permission denied"):
        folders.scan(root)
    given = Given(root)
    assert [os.path.relpath(given.where(i), root) for i in range(len(given))] == ["dogs", "cats/a.jpg"]
    with pytest.raises(ValueError, match="folder cannot be read: Permission denied"):
        given.read(0)


PARTS = ["train", "Training", "train_images", "val", "valid", "validation", "test", "test1", "testing", "Test_Set",
         "trainset"]


@pytest.mark.parametrize("name", PARTS)
def test_a_folder_that_is_called_as_a_part_is_no_class_unless_told(tmp_path, name):
    root = make(tmp_path / "photos", **{name: 2, "cats": 2})
    with pytest.raises(DataError, match=f"'{name}' is called as a part of a split is, and stands beside other folders; "
                                        "expected one subfolder a class.*--classes-are-folders"):
        folders.scan(root)
    assert len(folders.scan(root, classes_are_folders=True)) == 4
    assert len(folders.scan(make(tmp_path / "other", **{name: 2, "a": 1, "b": 1}), exclude=[name])) == 2


@pytest.mark.parametrize("name", ["trains", "tests", "trainers", "valley", "contest", "train-station", "test tube"])
def test_other_names_are_classes(tmp_path, name):
    assert folders.scan(make(tmp_path / "photos", **{name: 1, "cats": 1})).class_names == sorted([name, "cats"])
