"""What all benchmarks share: where things are, measuring in turn, rows of figures and the files that keep them.

Two ways of doing something are never measured one after the other: each round runs every way once, in an order that
alternates, and a ratio is taken within a round, so that what slows the machine down for a while slows both.
"""
from __future__ import annotations

import csv
import functools
import statistics
import sys
from pathlib import Path

import click

from gluon_ft.cli import console
from gluon_ft.errors import ConfigError, DataError
from gluon_ft.io import reporter
from gluon_ft.reporting.environment import environment

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # noqa: F401

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
RESULTS = Path(__file__).with_name("results")
COMMON = ["date", "commit", "machine", "versions"]
COLUMNS = [*COMMON, "benchmark", "settings", "quantity", "unit", "runs", "median", "min", "max"]
NOTHING_RUN = 3  # exit status where nothing could be measured
# Names an interpreter with torch and Pillow, for the benchmarks against PyTorch.
TORCH_VARIABLE = "GLUON_FT_TORCH_PYTHON"


def shared_data(name: str) -> Path:
    """The folder `name` of ../shared/data; ConfigError where it is not there."""
    if not (SHARED / name).is_dir():
        raise ConfigError("the photos are not there", path=SHARED / name)
    return SHARED / name


def in_turn(ways: dict, rounds: int, desc: str = "", warm_up: int = 0) -> dict[str, list]:
    """Calls each way once a round, forwards in even rounds and backwards in odd ones.

    Parameters
    ----------
    ways : dict
        Name -> function of the round's number, counted from 0.
    rounds : int
        Rounds that count.
    desc : str
        What the progress bar says.
    warm_up : int
        Rounds before these whose results are thrown away; they have the lowest numbers.

    Returns name -> results, one a round that counts.
    """
    found: dict[str, list] = {name: [] for name in ways}
    with reporter.progress(total=(rounds + warm_up) * len(ways), desc=desc, unit="run") as bar:
        for number in range(rounds + warm_up):
            for name in list(ways)[:: -1 if number % 2 else 1]:
                result = ways[name](number)
                if number >= warm_up:
                    found[name].append(result)
                bar.update()
    return found


def ratios(upper, lower) -> list[float]:
    """upper / lower, round by round."""
    return [a / b for a, b in zip(upper, lower)]


def row(benchmark: str, settings: str, quantity: str, unit: str, values) -> dict:
    """One row from the measured values of a quantity (a ratio, a rate, an accuracy)."""
    values = [float(v) for v in values]
    return {"benchmark": benchmark, "settings": settings, "quantity": quantity, "unit": unit, "runs": len(values),
            "median": f"{statistics.median(values):.6g}", "min": f"{min(values):.6g}", "max": f"{max(values):.6g}"}


def append(rows: list[dict], name: str, columns: list[str] = COLUMNS) -> Path:
    """Appends rows to results/<name>.csv; returns its path.

    They get date, commit ('+' where the code differs from it), machine and versions.
    """
    known = environment()
    commit = known["gluon_ft"]["commit"] or "unknown"
    versions = " ".join(f"{k} {known['versions'][k]}" for k in ("mxnet", "mxnet-cu112", "numpy", "gluoncv")
                        if known["versions"].get(k))
    common = {"date": known["date"], "commit": commit[:12] + ("+" if known["gluon_ft"]["dirty"] else ""),
              "machine": f"{known['machine']['cpu']}, {known['machine']['processors']} processors",
              "versions": f"{known['python']} {versions}"}
    path = RESULTS / f"{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with open(path, "a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows({**common, **r} for r in rows)
    return path


def read(path) -> list[dict]:
    """The rows of a results file; DataError where it is not one."""
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
        if not reader.fieldnames or "date" not in reader.fieldnames:
            raise DataError("not a file of results", path=path, expected="a column 'date'",
                            found=", ".join(reader.fieldnames or []) or "nothing")
    short = next((i for i, row in enumerate(rows) if None in row or None in row.values()), None)
    if short is not None:
        raise DataError(f"row {short + 1} has another number of columns", path=path)
    return rows


def latest(rows: list[dict]) -> list[dict]:
    """Of each setting and quantity the last row, in the order in which they first appear."""
    return list({(row["benchmark"], row["settings"], row["quantity"]): row for row in rows}.values())


def show(rows: list[dict]) -> str:
    """The rows as a table."""
    return console.table(rows, ["settings", "quantity", "unit", "runs", "median", "min", "max"])


def record_option(name: str):
    """Adds `--record/--no-record`: append to results/<name>.csv."""
    return click.option("--record/--no-record", default=True, help=f"Append to benchmarks/results/{name}.csv.")


def command(text: str, name: str, repeats: int):
    """Decorator that makes a benchmark's command: options --repeats, --record and --json, table, files and status.

    The function gets `repeats` and its own options and returns (rows, missed): each row is appended to the file named
    by its `benchmark`, and each sentence in `missed` says which target was not reached (exit status 1).
    """
    def decorate(function):
        @console.command(text=text)
        @click.option("--repeats", default=repeats, type=click.IntRange(1), help="Rounds that count.")
        @record_option(name)
        @functools.wraps(function)
        def main(record, as_json, **options):
            rows, missed = function(**options)
            print(show(rows))
            for file in dict.fromkeys(row["benchmark"] for row in rows) if record else ():
                print(f"appended to {append([row for row in rows if row['benchmark'] == file], file)}")
            for sentence in missed:
                print(f"missed: {sentence}")
            console.emit({"benchmark": name, "rows": rows, "missed": missed}, as_json)
            return console.EXIT_FAILURE if missed else 0
        return main
    return decorate
