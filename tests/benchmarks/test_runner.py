"""benchmarks/runner.py: turns, ratios and the common command; and that each benchmark's --help works."""
from __future__ import annotations

import importlib

import pytest
from conftest import ROOT, cli_runner

from benchmarks import runner

SCRIPTS = [path for path in sorted((ROOT / "benchmarks").rglob("*.py")) if "def main(" in path.read_text()
           and "import click" in path.read_text() and path.name != "runner.py"]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_the_first_line_and_the_examples_are_the_help(path):
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    result = cli_runner().invoke(module.main, ["--help"], prog_name=path.name)
    assert result.exit_code == 0, result.output
    assert f"python {path.relative_to(ROOT)}" in result.output


def test_ways_take_turns_and_the_order_alternates():
    done = []
    ways = {name: lambda number, name=name: done.append(f"{name}{number}") or 10 * number for name in "ab"}
    assert runner.in_turn(ways, 2, warm_up=1) == {"a": [10, 20], "b": [10, 20]}
    assert done == ["a0", "b0", "b1", "a1", "a2", "b2"]
    assert runner.ratios([1.0, 3.0], [2.0, 2.0]) == [0.5, 1.5]


def test_a_row_is_median_lowest_and_highest():
    row = runner.row("load", "a net", "rate", "images/s", [3, 1, 2.5])
    assert (row["runs"], row["median"], row["min"], row["max"]) == (3, "2.5", "1", "3")


@pytest.mark.parametrize("missed", [[], ["too slow"]])
def test_the_common_command_prints_appends_and_judges(tmp_path, monkeypatch, missed):
    monkeypatch.setattr(runner, "RESULTS", tmp_path)

    @runner.command("Measures.", "load", repeats=2)
    def main(repeats):
        return [runner.row("load", "a", "rate", "1", range(repeats)), runner.row("pack", "b", "rate", "1", [1])], missed

    for _ in range(2):
        result = cli_runner().invoke(main, ["--repeats", "3"], standalone_mode=False)
        assert result.return_value == int(bool(missed)), result.output
        assert ("missed: too slow" in result.output) == bool(missed)
    [row, _] = runner.read(tmp_path / "load.csv")
    assert (row["settings"], row["runs"], row["median"]) == ("a", "3", "1") and row["machine"] and row["versions"]
    assert len(runner.latest(runner.read(tmp_path / "pack.csv"))) == 1
    assert not cli_runner().invoke(main, ["--no-record"], standalone_mode=False).exception
    assert len(runner.read(tmp_path / "load.csv")) == 2
