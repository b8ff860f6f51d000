"""gluon-ft train --resume: an interrupted run ends as an uninterrupted one; what is refused."""
from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys

import pytest
from train_runs import (  # noqa: F401  (fixtures)
    TINY,
    cli,
    content,
    finished_fixture,
    images_fixture,
    quiet,
    source_fixture,
)

from gluon_ft import finetune
from gluon_ft.errors import ConfigError, UserError
from gluon_ft.evaluation.model import load_model, save_model
from gluon_ft.finetune import folder


def stopped_after(epoch):
    """A `say` that ends the run after an epoch, as a crash would."""
    def say(line):
        if line.startswith(f"epoch {epoch}/"):
            raise RuntimeError("crash")
    return say


@pytest.mark.parametrize("strategy", ["head", pytest.param("everything", marks=pytest.mark.slow)])
def test_a_resumed_run_ends_like_one_that_was_not_interrupted(images, source, tmp_path, strategy):
    options = {"pretrained": str(source), "strategy": strategy, "epochs": 4, "workers": 2}
    whole = finetune.train(images, run=tmp_path / "whole", say=quiet, **options)
    with pytest.raises(RuntimeError, match="crash"):
        finetune.train(images, run=tmp_path / "part", say=stopped_after(2), **options)
    assert folder.state(tmp_path / "part") == "unfinished"
    done = finetune.train(run=tmp_path / "part", resume=True, say=quiet)
    for name in ("last.params", "best.params"):
        assert (done.folder / name).read_bytes() == (whole.folder / name).read_bytes()
    for key in ("train_accuracy", "validation_accuracy", "best_epoch", "epochs"):
        assert done.result[key] == whole.result[key]
    assert done.settings == whole.settings and len(content(done.folder, "environment")["resumed"]) == 1
    again = finetune.train(images, run=tmp_path / "part", resume=True, say=quiet)
    assert again.result == content(done.folder)


def test_resume_begins_a_run_that_is_not_there_or_came_to_nothing(images, tmp_path):
    run = tmp_path / "new"
    run.mkdir()
    (run / ".lock").write_text("")
    done = finetune.train(images, run=run, resume=True, epochs=1, say=quiet, **TINY)
    assert done.result["epochs"] == 1


@pytest.mark.parametrize("given, message", [
    ({"lr": 0.5}, "config.json: the run was begun with other settings; expected lr 0.02; found lr 0.5; leave it out to "
                  "go on, or start another run"),
    ({"assignments": ["epochs=7"]}, "expected epochs 3; found epochs 7"),
    ({"data": "elsewhere"}, "expected data ")])
def test_resuming_with_other_settings_is_refused(finished, tmp_path, given, message):
    shutil.copytree(finished[0], tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    with pytest.raises(ConfigError) as error:
        finetune.train(run=tmp_path / "run", resume=True, say=quiet, **given)
    assert message in str(error.value)


def test_resuming_with_changed_images_is_refused(images, tmp_path):
    own = shutil.copytree(images, tmp_path / "photos")
    with pytest.raises(RuntimeError):
        finetune.train(own, run=tmp_path / "run", epochs=2, say=stopped_after(1), **TINY)
    (own / "red" / "01.png").write_bytes((own / "blue" / "01.png").read_bytes())
    with pytest.raises(UserError, match="the images have changed since this run began"):
        finetune.train(run=tmp_path / "run", resume=True, say=quiet)


def test_resuming_with_changed_weights_is_refused(images, source, tmp_path):
    own = shutil.copy(source, tmp_path / "own.params")
    shutil.copy(f"{source}.json", f"{own}.json")
    with pytest.raises(RuntimeError):
        finetune.train(images, run=tmp_path / "run", pretrained=str(own), strategy="head", epochs=2,
                       say=stopped_after(1))
    net = load_model(own)
    net.collect_params()[next(iter(net.collect_params()))].data()[:] = 0
    save_model(net, own)
    with pytest.raises(UserError, match="the weights have changed since this run began"):
        finetune.train(run=tmp_path / "run", resume=True, say=quiet)


def test_resuming_a_run_that_is_not_there_says_so(tmp_path):
    assert cli("--run", tmp_path / "x", "--resume", status=2) == (
        f"error: {tmp_path}/x: no run to go on with; check the name, or give PHOTOS to begin it\n")
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_sigterm_saves_and_the_run_goes_on(images, source, tmp_path):
    command = [sys.executable, "-c", "from gluon_ft.cli.train import train; train()"]
    options = [str(images), "--pretrained", str(source), "--strategy", "everything", "--epochs", "60"]
    whole = subprocess.run([*command, *options, "--run", str(tmp_path / "whole")], capture_output=True, text=True)
    assert whole.returncode == 0, whole.stderr
    process = subprocess.Popen([*command, *options, "--run", str(tmp_path / "part")], stdout=subprocess.PIPE, text=True,
                               env={**os.environ, "PYTHONUNBUFFERED": "1"}, stderr=subprocess.PIPE)
    for line in process.stdout:
        if line.startswith("epoch 5/"):
            process.send_signal(signal.SIGTERM)
            break
    _, err = process.communicate()
    # The signal comes in a step, whose state is then saved, or while the next epoch begins, with all saved already.
    assert process.returncode == 143 and re.search("stopped (and saved in|before epoch)", err), err
    assert err.endswith(f": gluon-ft train --run {tmp_path}/part --resume\n")
    done = subprocess.run([*command, "--run", str(tmp_path / "part"), "--resume"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "part" / "last.params").read_bytes() == (tmp_path / "whole" / "last.params").read_bytes()
