"""The odd/even recipe end to end: its rows, its files, its honesty about bad input."""
from __future__ import annotations

import dataclasses
import gzip
import json
from pathlib import Path

import numpy as np
import odd_or_even
import pytest
import recipe_runs
from conftest import shared_data
from PIL import Image


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GLUON_FT_HOME", str(tmp_path / "home"))


run = recipe_runs.runner(odd_or_even)


def error_of(printed) -> str:
    lines = printed.err.strip().splitlines()
    assert len(lines) == 1, printed.err
    assert printed.out == ""
    return lines[0]


@pytest.mark.parametrize(("options", "of_source", "epochs", "least"), [
    (["--quick"], 4, 5, 0.8), pytest.param([], 10, 30, 0.9, marks=pytest.mark.slow)], ids=["quick", "whole"])
def test_bundled_digits_end_to_end(run, monkeypatch, options, of_source, epochs, least):
    monkeypatch.setattr(odd_or_even, "SOURCE", dataclasses.replace(odd_or_even.SOURCE, epochs=of_source))
    printed = run("--json", "--seed", 1, *options)
    result = recipe_runs.result_of(printed)
    assert result["recipe"] == "odd_or_even"
    rows = {row["name"]: row for row in result["rows"]}
    assert list(rows) == ["fine-tuned", "scratch-default", "scratch-xavier"]
    assert all(row["seed"] == 1 for row in rows.values())
    assert rows["fine-tuned"]["validation_accuracy"] > least
    assert rows["fine-tuned"]["validation_accuracy"] > rows["scratch-xavier"]["validation_accuracy"]
    folder = Path(result["run"])
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {"config.json", "environment.json", "metrics.jsonl", "result.json", "curves.png", "report.html",
            "fine-tuned-1/best.params", "fine-tuned-1/last.params"} <= names
    assert not [name for name in names if name.endswith(".tmp")]
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [r["epoch"] for r in records if r["series"] == "fine-tuned"] == list(range(1, epochs + 1))

    again = recipe_runs.result_of(run("--json", "--seed", 1, *options))
    assert again["rows"] == result["rows"], "the same seed, the source network reused"
    second = [json.loads(line)["series"] for line in (Path(again["run"]) / "metrics.jsonl").read_text().splitlines()]
    assert "ten digits" not in second, "the source network is trained once"


def idx(path, array, length=None):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(int(n).to_bytes(4, "big") for n in array.shape)
    path.write_bytes(gzip.compress((header + array.tobytes())[:length]))


@pytest.mark.parametrize("case", ["missing", "empty", "one class", "broken image", "wrong magic", "truncated"])
def test_bad_data_is_one_line_and_leaves_nothing(run, tmp_path, case):
    data = tmp_path / "data"
    if case != "missing":
        data.mkdir()
    if case in ("one class", "broken image"):
        for digit in range(1 if case == "one class" else 10):
            (data / str(digit)).mkdir()
            for i in range(3):
                Image.fromarray(np.full((28, 28), 20 * digit + i, np.uint8)).save(data / str(digit) / f"{i}.png")
    if case == "broken image":
        (data / "7" / "1.png").write_bytes(b"not an image")
    if case in ("wrong magic", "truncated"):
        images = np.zeros((20, 28, 28), np.uint8)
        idx(data / "t10k-images-idx3-ubyte.gz", images, None if case == "wrong magic" else 5000)
        idx(data / "t10k-labels-idx1-ubyte.gz", np.arange(20, dtype=np.uint8) % 10)
        if case == "wrong magic":
            (data / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"\x00\x01\x08\x01" + bytes(24)))
    line = error_of(run("--data", data, status=2))
    assert line.startswith("error: ")
    assert str(data) in line
    for word in ("found", "expected") if case != "missing" else ():
        assert word in line
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("options", "wording"), [
    (["--sede", 1], "no such option --sede; did you mean --seed"),
    (["--seeds", 0], "--seeds out of range; expected at least 1; found 0"),
    (["--lr", -1], "lr out of range; expected a number above 0"),
    (["--devices", "gpu:64"], "device 'gpu:64' is not there"),
    (["--max-per-class", 0], "expected"),
    (["--validation", 1.5], "expected"),
])
def test_bad_options(run, tmp_path, options, wording):
    assert wording in error_of(run(*options, status=2))
    assert not (tmp_path / "runs").exists()


def test_debug_shows_the_traceback(run):
    printed = run("--seeds", 0, "--debug", status=2)
    assert "Traceback" in printed.err
    assert printed.err.strip().splitlines()[-1].startswith("error: ")


def test_help_has_examples(run):
    assert "\n      python recipes/odd_or_even.py --seeds 5 --json\n" in run("--help").out


@pytest.mark.slow
def test_mnist(run):
    result = recipe_runs.result_of(run("--json", "--data", shared_data("mnist")))
    rows = {row["name"]: row["validation_accuracy"] for row in result["rows"]}
    assert rows["fine-tuned"] > 0.9
    assert rows["fine-tuned"] > rows["scratch-xavier"]
