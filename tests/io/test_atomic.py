"""Atomic writes: whole or not at all, nothing left behind, and what a killed process left is found."""
from __future__ import annotations

import contextlib
import os
import stat
import threading

import pytest

from gluon_ft.errors import DataError
from gluon_ft.io import atomic
from gluon_ft.io.atomic import remove_leftovers


def test_a_file_that_fails_leaves_the_old_one_and_nothing_else(tmp_path):
    atomic.write(tmp_path / "a", "old")
    with pytest.raises(RuntimeError), atomic.replacing(tmp_path / "a") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a", "old")]


def test_a_folder_appears_whole(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("new", "empty"):
        with atomic.replacing_folder(tmp_path / name) as building:
            (building / "x").write_text("1")
            assert building.parent == tmp_path and not (tmp_path / name / "x").exists()
    with pytest.raises(OSError), atomic.replacing_folder(tmp_path / "new") as building:
        (building / "y").write_text("2")
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")) == ["empty", "empty/x", "new", "new/x"]


@pytest.mark.parametrize("fails", ["never", "in the block", "in the last step"])
def test_a_folder_is_replaced_whole_or_stays(tmp_path, monkeypatch, fails):
    (tmp_path / "a" / "inner").mkdir(parents=True)
    (tmp_path / "a" / "inner" / "x").write_text("old")
    rename, calls = os.replace, []

    def second_one_fails(*names):
        calls.append(names)
        if fails == "in the last step" and len(calls) == 2:
            raise OSError("disk")
        rename(*names)

    monkeypatch.setattr(os, "replace", second_one_fails)
    with contextlib.suppress(OSError), atomic.replacing_folder(tmp_path / "a", replace=True) as building:
        (building / "y").write_text("new")
        if fails == "in the block":
            raise OSError("block")
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert found == (["a", "a/y"] if fails == "never" else ["a", "a/inner", "a/inner/x"])


def test_leftovers_of_a_killed_process_are_removed(tmp_path):
    for name in (".out.12345678.part", "..out.1.part.2.part", ".about.1.part", "out.part"):
        (tmp_path / name).mkdir()
    remove_leftovers(tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".about.1.part", "out.part"]


def test_a_pipe_is_written_to_and_stays(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read = []
    thread = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    thread.start()
    atomic.check_writable(pipe)
    atomic.write(pipe, b"rows")
    thread.join(10)
    assert read == [b"rows"] and stat.S_ISFIFO(pipe.stat().st_mode)
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_a_link_to_a_device_stays(tmp_path):
    link = tmp_path / "nothing"
    link.symlink_to(os.devnull)
    atomic.write(link, "rows")
    assert link.is_symlink() and stat.S_ISCHR(link.stat().st_mode)
    with pytest.raises(DataError, match="not a file"):
        atomic.write_together({link: b"rows"}, force=True)
    assert link.is_symlink()
