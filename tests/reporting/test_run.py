"""The run folder: configuration, environment, names, and metrics that come back."""
from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from report_rows import row

import gluon_ft
from gluon_ft.errors import ConfigError, DataError, UserError
from gluon_ft.io.atomic import write as write_atomic
from gluon_ft.reporting import Run, environment, read_metrics


def test_folder_holds_configuration_and_environment_at_once(tmp_path):
    config = {"lr": np.float32(0.5), "data": Path("images"), "steps": (1, 2), "clip": math.inf, "seed": np.int64(3)}
    run = Run(tmp_path / "deep" / "runs", "odd_or_even", config)
    assert run.folder.parent == tmp_path / "deep" / "runs"
    assert run.folder.name.startswith("odd_or_even-20")
    assert sorted(p.name for p in run.folder.iterdir()) == ["config.json", "environment.json"]
    assert json.loads((run.folder / "config.json").read_text()) == {
        "lr": 0.5, "data": "images", "steps": [1, 2], "clip": None, "seed": 3}
    found = json.loads((run.folder / "environment.json").read_text())
    assert found["gluon_ft"]["version"] == gluon_ft.__version__
    assert found["date"].endswith("+00:00")
    assert found["versions"]["numpy"] == np.__version__
    assert found["versions"].keys() & {"mxnet", "mxnet-cu112"}
    assert found["machine"]["processors"] >= 1 and found["machine"]["memory_gib"] > 0 and found["machine"]["cpu"]
    assert found["variables"]["OMP_NUM_THREADS"] == os.environ["OMP_NUM_THREADS"]


def test_environment_names_no_user_and_only_our_variables(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/alice-xyz")
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    monkeypatch.setenv("MXNET_HOME", "/home/alice-xyz/mx")
    monkeypatch.setattr(sys, "orig_argv", ["/usr/bin/python3", "train.py", "--data", "/home/alice-xyz/my pics"],
                        raising=False)
    run = Run(tmp_path, "r", {"data": "/home/alice-xyz/pics"})
    text = (run.folder / "environment.json").read_text()
    assert "alice" not in text and "hunter2" not in text
    found = json.loads(text)
    assert found["variables"]["MXNET_HOME"] == "~/mx"
    assert found["command"] == "python train.py --data '~/my pics'"
    assert all(name.startswith(("MXNET_", "OMP_", "KMP_")) for name in found["variables"])
    report = run.finish([row("a", 0, 1.0, 0.5)]).read_text()
    assert "alice" not in report and "~/pics" in report


@pytest.mark.parametrize("argv, expected", [
    (["/v/bin/python", "recipes/hot_dog.py", "--lr", "0.1"], "python recipes/hot_dog.py --lr 0.1"),
    (["/v/bin/python", "/v/bin/gluon-ft", "doctor"], "gluon-ft doctor"),
    (["/v/bin/python", "-m", "gluon_ft.cli", "doctor"], "python -m gluon_ft.cli doctor"),
    (["/v/bin/python", "-m", "ipykernel_launcher", "-f", "k.json"], None),
    (["/v/bin/python"], None),
    (["/v/bin/python", ""], None),
])
def test_command_line(argv, expected):
    assert environment.command_line(argv) == expected


def test_git_state_of_a_checkout_clean_dirty_and_of_no_checkout(tmp_path):
    project = tmp_path / "project"
    (project / "gluon_ft").mkdir(parents=True)
    git = ["git", "-C", str(project), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    (project / "gluon_ft" / "a.py").write_text("a = 1\n")
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "one"], check=True)
    state = environment.git_state(project)
    assert len(state["commit"]) == 40 and state["dirty"] is False
    (project / "runs").mkdir()
    (project / "runs" / "x").write_text("results are not code")
    assert environment.git_state(project)["dirty"] is False
    (project / "gluon_ft" / "a.py").write_text("a = 2\n")
    assert environment.git_state(project) == {"commit": state["commit"], "dirty": True}
    assert environment.git_state(project / "gluon_ft") == {"commit": None, "dirty": None}
    assert environment.git_state(tmp_path) == {"commit": None, "dirty": None}


def test_two_runs_in_one_second_get_two_folders(tmp_path, monkeypatch):
    monkeypatch.setattr("time.strftime", lambda _format: "20260101-120000")
    names = [Run(tmp_path, "r", {}).folder.name for _ in range(3)]
    assert names == ["r-20260101-120000", "r-20260101-120000-2", "r-20260101-120000-3"]


def test_a_given_folder_must_be_new_or_empty(tmp_path):
    run = Run(name="r", config={}, folder=tmp_path / "mine")
    assert run.folder == tmp_path / "mine"
    with pytest.raises(UserError, match="mine: the run's folder is not empty; expected a new or empty folder; found "
                                        r"config.json, environment.json; name another folder, or move this one away"):
        Run(name="r", config={}, folder=tmp_path / "mine")
    run.finish([row("a", 0, 1.0, 0.5)])
    before = (run.folder / "result.json").read_bytes()
    with pytest.raises(UserError, match="holds a finished run"):
        Run(name="r", config={}, folder=tmp_path / "mine")
    assert (run.folder / "result.json").read_bytes() == before


def test_a_root_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file: cannot write the run's folder; expected a folder that can be written; "
                                        "found a file; name another one"):
        Run(tmp_path / "file", "r", {})
    with pytest.raises(UserError, match=r"x: cannot write the run's folder.*found Not a directory"):
        Run(tmp_path / "file" / "x", "r", {})
    if os.geteuid() != 0:
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(UserError, match="Permission denied"):
            Run(tmp_path / "locked", "r", {})


@pytest.mark.parametrize("name", ["", "a/b", "..", "-x", "a\nb"])
def test_unusable_names(tmp_path, name):
    with pytest.raises(ConfigError, match="unusable name of a run"):
        Run(tmp_path / "runs", name, {})
    assert not (tmp_path / "runs").exists()


def test_metrics_come_back_in_order_and_without_nan(tmp_path):
    run = Run(tmp_path, "r", {})
    assert run.history() == []
    run.log("fine-tuned", epoch=1, train_loss=np.float32(0.5), validation_loss=float("nan"), seed=np.int64(4))
    run.log("scratch", epoch=1, train_loss=math.inf, per_class=np.array([0.25, np.nan]))
    text = (run.folder / "metrics.jsonl").read_text()
    assert "NaN" not in text and "Infinity" not in text
    first, second = run.history()
    assert first.pop("time") > 1.7e9
    assert first == {"series": "fine-tuned", "epoch": 1, "train_loss": 0.5, "validation_loss": None, "seed": 4}
    assert second["train_loss"] is None and second["per_class"] == [0.25, None]


def test_a_half_written_last_line_is_left_out_and_any_other_is_an_error(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"series": "a", "epoch": 1}\n{"series": "a", "epo')
    assert read_metrics(path) == [{"series": "a", "epoch": 1}]
    path.write_bytes(b'{"series": "a"}\n{"series": \n{"series": "b"}\n')
    with pytest.raises(DataError, match=r"metrics.jsonl, line 2: not a record of metrics; expected one JSON object"):
        read_metrics(path)
    with pytest.raises(UserError, match="cannot read the metrics"):
        read_metrics(tmp_path / "none.jsonl")


def test_write_atomic_leaves_the_old_file_where_writing_fails(tmp_path, monkeypatch):
    path = write_atomic(tmp_path / "a.txt", "old")

    def refuse(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, "new")
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"] and path.read_text() == "old"
    run_folder = tmp_path / "r"
    with pytest.raises(UserError, match=r"cannot write the run's folder.*No space left on device"):
        Run(folder=run_folder)
