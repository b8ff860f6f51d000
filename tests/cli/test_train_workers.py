"""`gluon-ft launch -- train`: worker 0 plans and writes, the others take part; the run is that of one process."""
from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

import mxnet as mx
import photos
import pytest
from train_runs import cli

from gluon_ft.finetune import plan
from gluon_ft.finetune.settings import JobSettings
from gluon_ft.reporting import run_files

LAUNCH = [sys.executable, "-m", "gluon_ft.cli.main", "launch", "-n", "2", "--", "train"]
OPTIONS = ["--backbone", "lenet", "--batch-size", "7", "--epochs", "3", "lr=0.02", "workers=0"]


def launched(*arguments, status=0):
    done = subprocess.run([*LAUNCH, *map(str, arguments)], capture_output=True, text=True, timeout=200,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == status, (done.stdout, done.stderr)
    return done.stdout


def results(folder):
    """(parameters, result.json) of a run."""
    return mx.nd.load(str(folder / "last.params")), run_files.read(folder / "result.json")


def same(found, wanted, most):
    for name, value in wanted[0].items():
        assert (found[0][name] - value).abs().max().asscalar() <= most * value.abs().max().asscalar(), name
    assert found[1]["validation_accuracy"] == wanted[1]["validation_accuracy"]


@pytest.mark.slow
def test_a_job_by_two_workers(tmp_path):
    images, run = photos.make(tmp_path / "photos"), tmp_path / "two"
    out = launched(images, *OPTIONS, "--run", run)
    assert "worker 1" not in out and "worker 0  | report: " in out
    cli(images, *OPTIONS, "--run", tmp_path / "one")
    same(results(run), results(tmp_path / "one"), 1e-5)
    assert run_files.read(run / "config.json")["kvstore"] == "dist_sync"
    assert "finished already" in launched("--run", run, "--resume")


@pytest.mark.slow
def test_a_job_that_is_stopped_goes_on(tmp_path):
    images, run = photos.make(tmp_path / "photos"), tmp_path / "cut"
    options = [*OPTIONS[:4], "--epochs", "25", "lr=0.001", "workers=0", "schedule=constant", "warmup=0", "patience=0"]
    process = subprocess.Popen([*LAUNCH, str(images), *options, "--run", str(run)], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    while not list(run.glob("checkpoints/epoch-0003*")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM and "launch:" not in error
    assert re.search(r"worker 0  \| .*stopped and saved in .*: gluon-ft train --run \S+ --resume", error)
    assert not (run / "result.json").exists()
    launched("--run", run, "--resume")
    launched(images, *options, "--run", tmp_path / "whole")
    same(results(run), results(tmp_path / "whole"), 0)


@pytest.mark.parametrize("kvstore, given", [("dist_sync", ["kvstore"]), ("device", [])])
def test_several_workers_train_by_steps(kvstore, given):
    assert plan.by_steps(JobSettings(data="photos", kvstore=kvstore), {"kvstore": kvstore}) == given
