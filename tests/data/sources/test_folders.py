"""Scanning folders: order, names, links, and errors that say what was found."""
from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from class_folders import make

from gluon_ft.data.sources import folders, walk
from gluon_ft.errors import DataError


def test_scan_takes_images_in_code_point_order(tmp_path):
    make(tmp_path, b=["x.JPG", "a b.png", "t\tab.jpeg", "ä.gif", "Z.bmp", "deep/er/1.tif", ".hidden.jpg",
                      ".git/x.jpg", "notes.txt", "noending"], a=["1.webp", "10.pgm", "2.ppm"], C=["1.jpe", "ß.tiff"])
    (tmp_path / "readme.jpg").touch()
    (tmp_path / ".cache").mkdir()
    found = folders.scan(tmp_path)
    assert found.class_names == ["C", "a", "b"]  # by code point: capitals first, whatever the locale says
    assert found.files == [("C/1.jpe", 0), ("C/ß.tiff", 0), ("a/1.webp", 1), ("a/10.pgm", 1), ("a/2.ppm", 1),
                           ("b/Z.bmp", 2), ("b/a b.png", 2), ("b/deep/er/1.tif", 2), ("b/t\tab.jpeg", 2),
                           ("b/x.JPG", 2), ("b/ä.gif", 2)]
    assert found.left_out == {"b/.git/x.jpg": walk.HIDDEN, "b/.hidden.jpg": walk.HIDDEN, "b/noending": walk.SUFFIX,
                              "b/notes.txt": walk.SUFFIX, "readme.jpg": walk.LOOSE}
    assert found.of_class(1) == ["a/1.webp", "a/10.pgm", "a/2.ppm"]
    assert folders.scan(tmp_path, exclude=["a"]).class_names == ["C", "b"]


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
    assert folders.scan(case, exclude=["Dog"]).class_names == ["cat", "dog"]
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
    for folder in (tmp_path, *tmp_path.parents):
        # pytest's own folders, which may be three deep; /tmp itself is open to everybody.
        if os.geteuid() == 0 and not os.stat(folder).st_mode & 0o001:
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
