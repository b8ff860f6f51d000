"""Runs: reopening an unfinished one, listing them, comparing two; `gluon-ft runs`."""
from __future__ import annotations

import json

import pytest
from conftest import cli_runner

from gluon_ft.cli.runs import runs as command
from gluon_ft.errors import DataError, UserError
from gluon_ft.finetune import folder
from gluon_ft.reporting import Run, data_record, runs


def finished(root, name, accuracy=0.5, config=None, images=None, rows=None):
    run = Run(folder=root / name, name="photos", config=config or {"strategy": "head", "lr": 0.1})
    run.log("head", epoch=1, train_accuracy=accuracy, validation_accuracy=accuracy)
    if images is not None:
        part = {"source": "a", "root": "b", "images": len(images), "sha256": str(images), "files": images}
        data_record.write(run.folder, {"classes": ["a", "b"], "parts": {"train": part}, "left_out": [], "sha256": ""})
    run.finish(rows or [{"name": "head", "seed": 0, "train_accuracy": accuracy, "validation_accuracy": accuracy,
                         "seconds": 2.5}], {"validation_accuracy": accuracy, "epochs": 1})
    return run


def test_an_unfinished_run_is_reopened_as_it_is(tmp_path):
    first = Run(folder=tmp_path / "a", name="photos", config={"lr": 0.1})
    first.log("head", epoch=1, train_accuracy=0.1)
    first.log("head", epoch=2, train_accuracy=0.2)
    again = Run(folder=tmp_path / "a", name="photos", config={"lr": 0.7}, resume=True)
    assert again.config == {"lr": 0.1} and len(again.environment["resumed"]) == 1
    assert again.environment["date"] == first.environment["date"]
    assert again.environment["resumed"][0]["changed"] == {}
    again.log("head", epoch=2, train_accuracy=0.3)
    again.log("head", epoch=3, train_accuracy=0.4)
    assert [(r["epoch"], r["train_accuracy"]) for r in again.history()] == [(1, 0.1), (2, 0.3), (3, 0.4)]
    third = Run(folder=tmp_path / "a", resume=True)
    assert len(third.environment["resumed"]) == 2


def test_what_cannot_be_resumed(tmp_path):
    with pytest.raises(UserError, match=r"no run to resume; expected a folder with config\.json"):
        Run(folder=tmp_path / "none", resume=True)
    finished(tmp_path, "a")
    with pytest.raises(UserError, match=r"the run is finished; expected an unfinished run to resume; found"):
        Run(folder=tmp_path / "a", resume=True)
    Run(folder=tmp_path / "b")
    (tmp_path / "b" / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json: cannot be read; expected what a run wrote"):
        Run(folder=tmp_path / "b", resume=True)


def test_a_lock_does_not_make_a_folder_used(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ".lock").write_text("")
    assert Run(folder=tmp_path / "a").folder == tmp_path / "a"


def test_runs_are_listed_with_their_states(tmp_path):
    finished(tmp_path, "b", 0.9)
    Run(folder=tmp_path / "c", config={"strategy": "svm"})
    Run(folder=tmp_path / "d")
    (tmp_path / "no run").mkdir()
    (tmp_path / "file").write_text("")
    with folder.claimed(tmp_path / "d"):
        found = {run["name"]: run for run in runs.find(tmp_path)}
    assert {name: run["state"] for name, run in found.items()} == {"b": "finished", "c": "unfinished", "d": "running"}
    assert (found["b"]["strategy"], found["b"]["validation_accuracy"], found["b"]["seconds"]) == ("head", 0.9, 2.5)
    assert (found["c"]["strategy"], found["c"]["validation_accuracy"]) == ("svm", None)
    assert [run["name"] for run in runs.find(tmp_path / "b")] == ["b"]
    with pytest.raises(DataError, match="no such folder of runs"):
        runs.find(tmp_path / "file")


def test_of_several_rows_the_best_is_listed(tmp_path):
    rows = [{"name": name, "seed": seed, "train_accuracy": 1.0, "validation_accuracy": value, "seconds": 1.0}
            for name, seed, value in (("a", 0, 0.2), ("b", 0, None), ("b", 1, 0.8))]
    finished(tmp_path, "x", rows=rows)
    (found,) = runs.find(tmp_path)
    assert (found["validation_accuracy"], found["rows"], found["seconds"]) == (0.8, 3, 3.0)


def test_two_runs_are_compared(tmp_path):
    finished(tmp_path, "a", 0.5, {"lr": 0.1, "seed": 0, "origins": {"lr": "advice"}}, [["x.jpg", 0, "1"]])
    finished(tmp_path, "b", 0.5, {"lr": 0.2, "seed": 0, "origins": {"lr": "option"}},
             [["x.jpg", 0, "2"], ["y.jpg", 1, "3"]])
    environment = tmp_path / "b" / "environment.json"
    environment.write_text(environment.read_text().replace('"mxnet": "1.9.1"', '"mxnet": "1.9.0"'))
    found = runs.compare(tmp_path / "a", tmp_path / "b")
    assert found == {
        "configuration": [{"key": "lr", "first": "0.1", "second": "0.2"}],
        "environment": [{"key": "versions.mxnet", "first": "1.9.1", "second": "1.9.0"}],
        "data": ["train: 1 images only in the second (y.jpg), 1 images with other contents (x.jpg)"], "result": []}
    finished(tmp_path, "c", 0.75, {"lr": 0.1, "seed": 0})
    found = runs.compare(tmp_path / "a", tmp_path / "c")
    assert found["data"] is None and found["configuration"] == []
    assert found["result"] == [{"key": "validation_accuracy", "first": "0.5", "second": "0.75"}]
    with pytest.raises(DataError, match=r"nowhere: not a run; expected a folder with config\.json and environ"):
        runs.compare(tmp_path / "a", tmp_path / "nowhere")


@pytest.mark.parametrize("other, text", [
    ([["x.jpg", 1, "1"]], "train: 1 images with another label (x.jpg)"),
    ([["z.jpg", 0, "1"]], "train: 1 images only in the first (x.jpg), 1 images only in the second (z.jpg)"),
    (None, None)])
def test_differences_of_data(other, text):
    def data(files):
        return {"classes": ["a"], "parts": {"train": {"images": 1, "sha256": str(files), "files": files}}}

    one, same = data([["x.jpg", 0, "1"]]), data([["x.jpg", 0, "1"]])
    assert data_record.difference(one, data(other) if other else same) == ([text] if text else [])
    assert data_record.difference(one, {"classes": ["b"], "parts": {}}) == [
        "classes: a only in the first, b only in the second", "train: only in the first"]


def run(*arguments, status=0):
    result = cli_runner().invoke(command, [str(a) for a in arguments], prog_name="gluon-ft runs")
    assert result.exit_code == status, (result.output, result.exception)
    return result.stdout if status == 0 else result.stderr


def test_the_command(tmp_path, monkeypatch):
    finished(tmp_path / "runs", "a", 0.5, {"strategy": "head", "lr": 0.1})
    finished(tmp_path / "runs", "b", 0.5, {"strategy": "head", "lr": 0.2})
    monkeypatch.chdir(tmp_path)
    lines = run("--json").splitlines()
    assert lines[0].split() == ["name", "date", "state", "strategy", "train", "validation", "seconds"]
    assert lines[2].split()[0] == "a" and lines[2].split()[-5:] == ["finished", "head", "0.500", "0.500", "2.500"]
    assert [entry["name"] for entry in json.loads(lines[-1])["runs"]] == ["a", "b"]
    out = run("runs/a", "runs/b", "--json")
    assert "configuration:\nkey  a    b\n---  ---  ---\nlr   0.1  0.2\n" in out
    assert "\nenvironment: the same\n" in out and "\ndata: not recorded in both\n" in out
    assert json.loads(out.splitlines()[-1])["configuration"] == [{"key": "lr", "first": "0.1", "second": "0.2"}]
    assert run("a", "b", "--json").splitlines()[:-1] == out.splitlines()[:-1]
    assert [entry["name"] for entry in json.loads(run("a", "--json").splitlines()[-1])["runs"]] == ["a"]
    assert run("a", "b", "c", status=2) == (
        "error: one folder of runs, or two runs to compare, are expected; found 3; see gluon-ft runs --help\n")
    assert run("nowhere", status=2).startswith("error: nowhere: no such folder of runs; expected a folder with runs")
    (tmp_path / "empty").mkdir()
    assert run("empty") == "no runs\n"


def with_predictions(root, name, right, seed=0, images=20):
    """A finished run that predicts so many of the images rightly, the first ones."""
    folder = finished(root, name, config={"strategy": "head", "seed": seed}).folder
    rows = "".join(f"{i}.png,{i:064x},a,{'a' if i < right else 'b'},0.9\n" for i in range(images))
    (folder / "predictions.csv").write_text(f"file,sha256,label,prediction,probability\n{rows}")
    return folder


def test_the_list_has_a_name_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    finished(tmp_path / "runs", "a")
    assert run("list") == run() == run("list", "runs") and run("list", "--json") == run("--json")
    assert "list" in run("--help") and "--wide" in run("list", "--help")


def test_two_runs_are_compared_on_their_shared_images(tmp_path):
    first, second = with_predictions(tmp_path, "first", 20), with_predictions(tmp_path, "second", 10)
    said = run("compare", first, second, "--json").splitlines()
    values = json.loads(said[-1])
    assert (values["winner"], values["only_first"], values["only_second"]) == ("first", 10, 0)
    assert values["p_value"] == pytest.approx(2 / 2 ** 10) and said[-2].startswith("the first is better")
    third = with_predictions(tmp_path, "third", 18)
    assert "no difference can be seen: accuracy 1.000 and 0.900" in run("compare", first, third)
    assert "no difference can be seen" in run("compare", first / "predictions.csv", third)
    assert "note" not in run("compare", first, third)


def test_it_is_said_that_few_images_are_shared(tmp_path):
    """As of two runs with different seeds."""
    first, second = with_predictions(tmp_path, "first", 20), with_predictions(tmp_path, "second", 3, images=3)
    assert "note: this is of the 3 images that both were evaluated on, of 20 and 3;" in run("compare", first, second)


def test_procedures_are_compared_over_their_seeds(tmp_path):
    for seed, (one, other) in enumerate([(18, 10), (17, 10), (19, 10)]):
        with_predictions(tmp_path / "a", f"run{seed}", one, seed)
        with_predictions(tmp_path / "b", f"run{2 - seed}", other, seed)
    folders = run("compare", tmp_path / "a", "--with", tmp_path / "b", "--json").splitlines()
    runs_of = [[str(tmp_path / letter / f"run{i}") for i in range(3)] for letter in "ab"]
    one_by_one = run("compare", *runs_of[0], "--with", *runs_of[1], "--json").splitlines()
    assert json.loads(folders[-1]) == json.loads(one_by_one[-1])
    assert (json.loads(folders[-1])["winner"], json.loads(folders[-1])["test"]) == ("first", "paired t test")


@pytest.mark.parametrize("arguments, says", [
    (["a"], "two runs to compare, or others --with, are expected; found 1"),
    (["a", "nowhere"], "no such run"), (["a", "old"], "no predictions of its validation images"),
    (["a", "b", "--with", "c"], "the same seeds in both, each once; found 0, 1 and 0"),
    (["a", "c", "--with", "a", "b"], "found 0, 0 and 0, 1"), (["a", "--with"], "--with")])
def test_what_cannot_be_compared(tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    for name, seed in (("a", 0), ("b", 1), ("c", 0)):
        with_predictions(tmp_path, name, 10, seed)
    finished(tmp_path, "old")
    result = cli_runner().invoke(command, ["compare", *arguments], prog_name="gluon-ft runs")
    assert result.exit_code == 2 and says in result.stderr and len(result.stderr.splitlines()) == 1, result.stderr
