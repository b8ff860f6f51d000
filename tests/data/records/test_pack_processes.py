"""pack: the same bytes whatever the workers, and processes that die, are killed, or meet."""
from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT
from record_files import hidden, make, three_files

from gluon_ft.data.records import pack, pool, verify
from gluon_ft.errors import DataError


def test_same_bytes_whatever_the_number_of_workers(tmp_path):
    lst = make(tmp_path, 30)
    made = []
    for workers in (1, 2, 3):
        (done,) = pack.pack(lst, tmp_path / "images", tmp_path / f"w{workers}", resize=16, workers=workers)
        assert done.records == 30
        made.append(three_files(tmp_path / f"w{workers}"))
    assert made[0] == made[1] == made[2]
    assert hidden(tmp_path) == []


def _double(value):
    return 2 * value


def test_worker_processes_give_the_same():
    assert list(pool.ordered(_double, range(20), workers=2)) == list(range(0, 40, 2))


def test_few_tasks_are_taken_ahead():
    taken = []

    def tasks():
        for i in range(200):
            taken.append(i)
            yield i

    for done, _ in enumerate(pool.ordered(_double, tasks(), workers=2)):
        assert len(taken) <= done + 10
    heavy = pool.ordered(_double, (taken.append(i) or i for i in range(200, 260)), workers=2,
                            weight=lambda task: pool.MAX_WEIGHT)
    assert next(heavy) == 400 and taken[-1] <= 202
    heavy.close()


def _die(_):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_dies_is_an_error_and_not_a_hang():
    with pytest.raises(DataError, match="a worker process died; it may have run out of memory: try --workers 1"):
        list(pool.ordered(_die, range(4), workers=2))


def start(tmp_path, **options):
    """Packs the list of `make` in a process of its own; forked, as that takes milliseconds."""
    process = multiprocessing.get_context("fork").Process(
        target=pack.pack, args=(tmp_path / "set-train.lst", tmp_path / "images"), kwargs=options)
    process.start()
    return process


def wait_until_begun(process, tmp_path):
    while process.is_alive() and not (tmp_path / ".set-train.rec.packing").exists():
        time.sleep(0.001)


def _size(path):
    """0 where it is not there: the other process renames it, so that to ask first would be a race."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def kill_while_packing(tmp_path, kills, seed, count=400):
    """Kills a pack at random moments; the target must be absent or whole. Returns the states seen."""
    make(tmp_path, count, size=(300, 200))
    rng, states = random.Random(seed), []
    rec = tmp_path / "set-train.rec"
    begun = time.perf_counter()
    start(tmp_path, workers=2, force=True).join()
    span = time.perf_counter() - begun
    for i in range(kills):
        process = start(tmp_path, workers=2, force=True)
        wait_until_begun(process, tmp_path)
        if i % 2:  # aimed at the end, where the names are given
            while process.is_alive() and not _size(tmp_path / ".set-train.manifest.json.packing"):
                time.sleep(0.0005)
        time.sleep(rng.random() * (0.01 if i % 2 else 0.7 * span))
        process.kill()
        process.join()
        states.append(rec.exists())
        if rec.exists():
            assert verify.verify(rec).ok
            rec.unlink()
    process = start(tmp_path, workers=2, force=True)
    process.join()
    assert process.exitcode == 0 and verify.verify(rec).ok and hidden(tmp_path) == []
    return states


def test_kill_while_packing(tmp_path):
    assert False in kill_while_packing(tmp_path, 4, seed=0, count=150)


@pytest.mark.slow
def test_kill_while_packing_often(tmp_path):
    assert set(kill_while_packing(tmp_path, 40, seed=1)) == {False, True}


def test_workers_end_with_their_parent(tmp_path):
    make(tmp_path, 400, size=(300, 200))
    process = start(tmp_path, workers=2)
    children = []
    while process.is_alive() and len(children) < 2:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        time.sleep(0.01)
    assert len(children) == 2
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    for _ in range(100):
        if not any(Path(f"/proc/{pid}").exists() for pid in children):
            break
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)


def test_a_full_disk_leaves_nothing_behind(tmp_path):
    lst = make(tmp_path, 60, size=(200, 200))
    code = ("import resource, sys; from gluon_ft.cli.records import pack; "
            "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); pack.main()")
    done = subprocess.run([sys.executable, "-c", code, str(lst), str(tmp_path / "images")], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode == 2
    assert "set-train.rec: cannot be written; found File too large; nothing was left behind" in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["images", "set-train.lst", "set.classes.txt"]


def test_two_packs_of_one_target_at_once(tmp_path):
    lst = make(tmp_path, 400, size=(300, 200))
    process = start(tmp_path)
    wait_until_begun(process, tmp_path)
    with pytest.raises(DataError, match="another process is packing this target; wait for it"):
        pack.pack(lst, tmp_path / "images")
    process.join()
    assert process.exitcode == 0 and verify.verify(tmp_path / "set-train.rec").ok
