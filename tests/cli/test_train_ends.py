"""gluon-ft train refused, stopped by a signal in any phase, or with its folder removed: what it says and leaves."""
from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import cli_runner
from train_runs import TINY, cli, content, images_fixture, quiet, source_fixture  # noqa: F401  (fixtures)

import gluon_ft
from gluon_ft import finetune
from gluon_ft.cli.train import train
from gluon_ft.errors import CheckpointError, UserError
from gluon_ft.reporting import read_metrics

BOTH = [signal.SIGINT, signal.SIGTERM]
COMMAND = [sys.executable, "-c", "from gluon_ft.cli.train import train; print('ready', flush=True); train()"]


def before_call(monkeypatch, target, action, times=1):
    """`action` is called before each of the first calls of `module:name`, which is then called as ever."""
    module, _, name = target.partition(":")
    holder = importlib.import_module(module)
    for part in name.split(".")[:-1]:
        holder = getattr(holder, part)
    right, left = getattr(holder, name.split(".")[-1]), [times]

    def acting(*arguments, **options):
        if left[0]:
            left[0] -= 1
            action()
        return right(*arguments, **options)
    monkeypatch.setattr(holder, name.split(".")[-1], acting)


@pytest.mark.parametrize("given, message", [
    (["epochs=1", "head_epochs=5"], "head_epochs out of range; expected 0 to 1, the epochs; found 5"),
    (["epochs=2", "warmup=3"], "warmup out of range; expected 0 to 2, the epochs; found 3"),
    (["warmup=1000"], "warmup out of range; expected 0 to "),
    (["epochs=3", "unfreeze=2,4"], "unfreeze out of range; expected epochs from 2 to 3, the last"),
    (["epochs=60", "unfreeze=2,3,4,5,6,7,8,9,10"], "unfreeze has more epochs than there are stages"),
    (["kvstore=nope"], "unknown kvstore 'nope'"),
    (["kvstore=dist_sync"], "kvstore 'dist_sync' is for training by several processes"),
    (["kvstore=dist_async"], "kvstore 'dist_async' is for training by several processes"),
    (["kvstore=horovod"], "kvstore 'horovod' is not there"),
    (["kvstore=nccl", "devices=cpu:2"], "kvstore 'nccl' is for GPUs"),
    (["cache_features=memory", "freeze=none"], "no part of the network can be computed once and kept"),
    (["cache_features=memory", "freeze=features", "mixup=0.2"], "kept features cannot be mixed"),
    (["precision=float16"], "float16"), (["devices=gpu:99"], "device 'gpu:99' is not there")])
def test_settings_are_refused_before_anything_is_written(images, source, tmp_path, given, message):
    run = tmp_path / "run"
    err = cli(images, "--pretrained", source, "--run", run, "--audit", "none", "--strategy", "auto", *given, status=2)
    assert err.count("\n") == 1 and message in err, err
    assert not run.exists()


def test_what_training_refuses_leaves_no_run(images, tmp_path, monkeypatch):
    """A lock, settings and the checkpoint before the first step are no run that could go on."""
    def refuse():
        raise UserError("refused")

    before_call(monkeypatch, "gluon_ft.training.step:Stepper.step", refuse)
    for first in ("--run", tmp_path / "run"), ("--runs", tmp_path / "runs"):
        before_call(monkeypatch, "gluon_ft.training.step:Stepper.step", refuse)
        assert cli(images, *first, "epochs=1", "backbone=lenet", "--audit", "none", status=2) == "error: refused\n"
    assert list(tmp_path.iterdir()) == [tmp_path / "runs"] and not list((tmp_path / "runs").iterdir())


# Where a signal comes, and whether there is a run afterwards; without one, every file of it is gone.
PHASES = {"images are looked for": ("gluon_ft.finetune.job_data:find", False),
          "audit": ("gluon_ft.finetune.job_data:examine", False),
          "network": ("gluon_ft.finetune.network:build", False),
          "probe": ("gluon_ft.finetune.probe:measure", False),
          "lists": ("gluon_ft.finetune.job_data:write", False),
          "cached features": ("gluon_ft.training.feature_cache.features:cached", True),
          "step": ("gluon_ft.training.step:Stepper.step", True),
          "validation": ("gluon_ft.training.metrics:measure", True),
          "checkpoint": ("gluon_ft.training.checkpoint:gather", True),
          "pictures": ("gluon_ft.finetune.pictures:predictions", True),
          "cards": ("gluon_ft.evaluation.model:save_model", True),
          "report": ("gluon_ft.reporting.report:render", True)}


QUICK = [("audit", signal.SIGTERM), ("step", signal.SIGINT), ("report", signal.SIGTERM)]


@pytest.mark.parametrize("phase, number", [*QUICK, *(
    pytest.param(phase, number, marks=pytest.mark.slow) for phase in PHASES for number in BOTH
    if (phase, number) not in QUICK)])
def test_a_signal_ends_the_run_in_every_phase(images, source, tmp_path, monkeypatch, phase, number):
    target, left = PHASES[phase]
    run = tmp_path / "my run"
    options = [images, "--pretrained", source, "--strategy", "head", "--epochs", 2, "--run", run, "--workers", 1]
    with monkeypatch.context() as patch:
        before_call(patch, target, lambda: os.kill(os.getpid(), number))
        result = cli_runner().invoke(train, list(map(str, options)), prog_name="gluon-ft train")
    assert result.exit_code == 128 + number, (result.output, result.exception)
    last = result.stderr.strip().splitlines()[-1]
    name = signal.Signals(number).name
    assert "Traceback" not in result.stderr and f"(after {name})" in last
    assert not list(tmp_path.rglob("*lock"))
    if not left:
        assert last.endswith(f"(after {name}); nothing is left of the run") or phase == "images are looked for"
        assert not run.exists()
        return
    assert last.endswith(f": gluon-ft train --run '{run}' --resume")
    cli("--run", run, "--resume")
    assert [record["epoch"] for record in read_metrics(run / "metrics.jsonl")] == [1, 2]


def test_metrics_hold_each_epoch_once_however_often_a_run_was_killed(images, tmp_path):
    """Killed while a record was half written, and again later; what an earlier checkpoint tells again counts once."""
    def killed_after(epoch):
        def say(line):
            if line.startswith(f"epoch {epoch}/"):
                raise RuntimeError("killed")
        return say

    run = tmp_path / "run"
    for epoch, options in ((2, {"data": images, "epochs": 5, **TINY}), (3, {}), (4, {})):
        with pytest.raises(RuntimeError, match="killed"):
            finetune.train(run=run, resume=epoch > 2, say=killed_after(epoch), **options)
        with open(run / "metrics.jsonl", "ab") as file:
            file.write(b'{"series": "scratch", "epo')
    # As after a crash that damaged the newest checkpoint, which was then deleted.
    max(run.glob("checkpoints/*.ckpt")).unlink()
    finetune.train(run=run, resume=True, say=quiet)
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [1, 2, 3, 4, 5]
    whole = finetune.train(images, run=tmp_path / "whole", epochs=5, say=quiet, **TINY)
    untimed = [[{k: v for k, v in record.items() if k not in ("time", "seconds")} for record in found]
               for found in (records, read_metrics(whole.folder / "metrics.jsonl"))]
    assert untimed[0] == untimed[1]


@pytest.mark.parametrize("phase, replaced", [
    ("step", False), ("report", True), *(pytest.param(phase, replaced, marks=pytest.mark.slow)
                                         for phase in ("step", "checkpoint", "validation", "pictures", "report")
                                         for replaced in (False, True))])
def test_a_folder_that_disappears_ends_the_run(images, source, tmp_path, monkeypatch, phase, replaced):
    run = tmp_path / "run"

    def remove():
        shutil.rmtree(run)
        if replaced:
            run.mkdir()

    before_call(monkeypatch, PHASES[phase][0], remove)
    err = cli(images, "--pretrained", source, "--strategy", "everything", "--epochs", 2, "--run", run, "--workers", 0,
              "--audit", "none", status=2)
    assert err == (f"error: {run}: the folder was removed, or replaced, while it was written to; expected the folder "
                   f"of the beginning; found {'another folder' if replaced else 'no such file or directory'}; put it "
                   "back and resume, or start again\n")
    assert not run.exists() if not replaced else not list(run.iterdir())


def test_fit_and_its_folder(tmp_path):
    """The library's own: what is refused leaves nothing and keeps an earlier training; a folder that goes ends it."""
    from resume_nets import network, sets

    earlier, config = tmp_path / "earlier", gluon_ft.TrainConfig(epochs=2, lr=0.05)
    gluon_ft.fit(network(), *sets(), config, save_to=earlier)
    kept = sorted(path.name for path in earlier.rglob("*"))
    assert "lock" not in kept
    for folder in (earlier, tmp_path / "new"):
        with pytest.raises(UserError, match="no part of the network"):
            gluon_ft.fit(network(), *sets(), gluon_ft.TrainConfig(cache_features="memory"), save_to=folder)
    assert sorted(path.name for path in earlier.rglob("*")) == kept and not (tmp_path / "new").exists()
    with pytest.raises(CheckpointError, match="the folder was removed, or replaced, while it was written to"):
        gluon_ft.fit(network(), *sets(), config, save_to=tmp_path / "new",
                     on_epoch=lambda record: shutil.rmtree(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_the_whole_job_is_timed(images, source, tmp_path, monkeypatch):
    """Audit, probe and report count; of a resumed run the training before as well."""
    for target in ("gluon_ft.finetune.job_data:examine", "gluon_ft.finetune.probe:measure",
                   "gluon_ft.reporting.plots:curves"):
        before_call(monkeypatch, target, lambda: time.sleep(0.4))
    begun = time.perf_counter()
    done = finetune.train(images, run=tmp_path / "run", pretrained=str(source), strategy="head", epochs=1, say=quiet)
    took = time.perf_counter() - begun
    assert done.result["seconds"] + 1.1 < done.result["total_seconds"] <= took + 0.1
    assert content(done.folder)["total_seconds"] == done.result["total_seconds"]
    page = (done.folder / "report.html").read_text()
    assert "time of the whole job" in page


@pytest.mark.slow
@pytest.mark.parametrize("number", BOTH)
@pytest.mark.parametrize("line", ["ready", "run: ", "images: ", "network: ", "strategy: ", r"[\d,]+ of ", "epoch 1/",
                                  "epoch 9/"])
def test_signals_in_real_processes(images, source, tmp_path, line, number):
    """A signal after a line that the command printed: it ends, and can be begun or resumed."""
    run = tmp_path / "run"
    options = [images, "--pretrained", source, "--strategy", "everything", "--epochs", "9", "--run", run]
    options = list(map(str, options))
    process = subprocess.Popen([*COMMAND, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env={**os.environ, "PYTHONUNBUFFERED": "1"})
    while not re.match(line, process.stdout.readline()):
        assert process.poll() is None, process.communicate()
    time.sleep(0.2)  # somewhere behind it, and with the handlers in place
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    last = err.strip().splitlines()[-1]
    assert process.returncode == 128 + number and "Traceback" not in err, err
    assert not list(tmp_path.rglob("*lock"))
    if "--resume" in last:
        assert last.endswith(f": gluon-ft train --run {run} --resume")
        options = ["--run", str(run), "--resume"]
    else:
        assert re.search(r"interrupted( \(after SIG\w+\))?$|stopped \(after SIG\w+\)(; nothing is left of the run)?$",
                         last), err
        assert not run.exists()
    done = subprocess.run([*COMMAND, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [record["epoch"] for record in read_metrics(run / "metrics.jsonl")] == list(range(1, 10))
