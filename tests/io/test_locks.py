"""Locks: one holder at a time, errors and notices where another process has it; folders that vanish while in use."""
from __future__ import annotations

import multiprocessing
import time

import pytest

from gluon_ft.errors import CheckpointError, UserError
from gluon_ft.io import locks, reporter
from gluon_ft.io.paths import InUse


def hold(file, begun, seconds):
    with locks.acquire(file):
        begun.set()
        time.sleep(seconds)


@pytest.fixture
def other(tmp_path):
    """Starts a process that holds the lock for some seconds."""
    context, children = multiprocessing.get_context("fork"), []

    def start(file, seconds):
        begun = context.Event()
        children.append(context.Process(target=hold, args=(file, begun, seconds)))
        children[-1].start()
        assert begun.wait(30)
        return children[-1]

    yield start
    for child in children:
        child.kill()
        child.join(30)


def test_busy_is_raised_and_a_killed_process_holds_nothing(tmp_path, other):
    file = locks.beside(tmp_path / "a.rec")
    assert file.name == ".a.rec.lock" and not locks.is_held(file)
    child = other(file, 60)
    assert locks.is_held(file)
    with pytest.raises(UserError, match="in use"), locks.acquire(file, busy=UserError("in use")):
        pass
    child.kill()
    child.join(30)
    assert not locks.is_held(file)
    with locks.acquire(file, busy=UserError("in use")):
        pass


def test_waiting_is_told_once_and_can_be_silenced(tmp_path, other, capsys):
    for silent, told in ((False, "waiting for it\n"), (True, "")):
        child = other(tmp_path / "lock", 2)
        before = reporter.set_reporter(reporter.Silent()) if silent else None
        with locks.acquire(tmp_path / "lock", waiting="waiting for it"):
            assert capsys.readouterr().err == told
        if before:
            reporter.set_reporter(before)
        child.join(30)


def test_a_lock_file_is_gone_after_its_release_and_a_leftover_says_nothing(tmp_path):
    file = tmp_path / ".lock"
    with locks.acquire(file):
        assert file.exists()
    assert not file.exists()
    file.write_text("")
    assert not locks.is_held(file) and not file.exists() and not locks.is_held(tmp_path / "gone" / ".lock")
    with locks.acquire(file):
        # The folder is cleared, and another process takes the lock anew: its file stays.
        file.unlink()
        file.write_text("another's")
    assert file.read_text() == "another's"


def test_a_folder_in_use_notices_that_it_was_removed_or_replaced(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    kept = InUse(folder, CheckpointError)
    kept.check()
    folder.rmdir()
    with pytest.raises(CheckpointError, match=r"removed, or replaced.*found no such file or directory"):
        kept.check()
    folder.mkdir()
    with pytest.raises(CheckpointError, match="found another folder"):
        kept.check()
    assert not kept.is_there() and InUse(folder).is_there()
