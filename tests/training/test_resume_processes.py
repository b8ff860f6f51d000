"""Training in a process of its own: signals, SIGKILL at any moment, too little memory."""
from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import HELPERS

from gluon_ft.training import checkpoint

CHILD = HELPERS / "resume_child.py"


def child(folder, *options, wait=True, **environment):
    process = subprocess.Popen([sys.executable, str(CHILD), str(folder), *options], text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **environment})
    if not wait:
        return process
    out, error = process.communicate()
    return process.returncode, out, error


def test_signals_end_the_process_with_a_line_and_a_second_at_once(tmp_path):
    process = child(tmp_path / "run", "--endless", wait=False)
    folder = tmp_path / "run" / "checkpoints"
    while not list(folder.glob("epoch-0002*.ckpt")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.strip().splitlines()[-1].startswith("training: stopped and saved in ")
    assert "Traceback" not in error
    process = child(tmp_path / "deaf", "--deaf", wait=False)
    assert process.stdout.readline() == "asleep\n"
    process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == -signal.SIGTERM


def test_out_of_memory_says_the_batch_size(tmp_path):
    # One thread: libgomp ends the process where the limit keeps it from starting another, before MXNet can say a word.
    code, _, error = child(tmp_path / "run", "--memory", OMP_NUM_THREADS="1")
    assert code == 2, error
    line = error.strip().splitlines()[-1]
    assert "out of memory with a batch of 4096" in line
    assert "try batch size 2048 with accumulate=2" in line


@pytest.mark.slow
def test_killed_fifty_times(tmp_path):
    """SIGKILL at random moments, saving included; measured last: see the closing note of issue 6."""
    code, wanted, error = child(tmp_path / "whole")
    assert code == 0, error
    rng, folder, kills, rounds = random.Random(7), tmp_path / "killed", 0, 0
    saving = 0
    while kills < 50:
        options = ["--resume"] if list((folder / "checkpoints").glob("*.ckpt")) else []
        process = child(folder, *options, wait=False)
        assert process.stdout.readline() == "ready\n", process.communicate()[1]
        time.sleep(rng.uniform(0, 0.6))
        process.kill()
        out, error = process.communicate()
        saving += bool(list((folder / "checkpoints").glob(".*.tmp")))
        for path in (folder / "checkpoints").glob("*.ckpt"):
            checkpoint.read(path)
        if process.returncode == 0:
            assert out == wanted.replace("ready\n", "")
            shutil.rmtree(folder)
            rounds += 1
        else:
            assert process.returncode == -signal.SIGKILL, error
            kills += 1
    code, out, error = child(folder, *(["--resume"] if list((folder / "checkpoints").glob("*.ckpt")) else []))
    assert (code, out) == (0, wanted), error
    print(f"50 kills, {saving} of them while saving, {rounds} trainings ended between them")
