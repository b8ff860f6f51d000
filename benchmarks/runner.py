"""Writes and reads benchmarks/results/*.csv: one row a measured setting, appended, never edited by hand."""
from __future__ import annotations

import csv
import statistics
from pathlib import Path

from gluon_ft.reporting.environment import environment

RESULTS = Path(__file__).with_name("results")
COLUMNS = ["date", "commit", "machine", "versions", "benchmark", "settings", "quantity", "unit", "runs", "median",
           "min", "max"]


def row(benchmark: str, settings: str, quantity: str, unit: str, values) -> dict:
    """One row from the measured values of a quantity (a ratio, a rate, an accuracy)."""
    values = [float(v) for v in values]
    return {"benchmark": benchmark, "settings": settings, "quantity": quantity, "unit": unit, "runs": len(values),
            "median": f"{statistics.median(values):.6g}", "min": f"{min(values):.6g}", "max": f"{max(values):.6g}"}


def append(rows: list[dict], name: str, folder: Path = RESULTS) -> Path:
    """Appends rows to `<name>.csv`, with date, commit ('+' where the code differs from it), machine and versions."""
    known = environment()
    commit = known["gluon_ft"]["commit"] or "unknown"
    versions = " ".join(f"{k} {known['versions'][k]}" for k in ("mxnet", "mxnet-cu112", "numpy", "gluoncv")
                        if known["versions"].get(k))
    common = {"date": known["date"], "commit": commit[:12] + ("+" if known["gluon_ft"]["dirty"] else ""),
              "machine": f"{known['machine']['cpu']}, {known['machine']['processors']} processors",
              "versions": f"{known['python']} {versions}"}
    path = folder / f"{name}.csv"
    folder.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with open(path, "a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows({**common, **r} for r in rows)
    return path


def show(rows: list[dict]) -> str:
    """The rows as a table."""
    from gluon_ft.cli import console

    return console.table(rows, ["settings", "quantity", "unit", "runs", "median", "min", "max"])
