"""The lists of a split: written whole or refused, packed by MXNet's own im2rec, and the command."""
from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest
from class_folders import make
from conftest import ROOT, shared_data
from PIL import Image

from gluon_ft.cli.split import split as command
from gluon_ft.data import lists
from gluon_ft.data.split import split, write
from gluon_ft.errors import ConfigError, DataError, UserError


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
                   capture_output=True, cwd=ROOT, env={**os.environ, "PYTHONUTF8": "1"})
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
    assert "left out: 1 files are not images by their suffix, or outside of any class, the first readme.txt" in out
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
