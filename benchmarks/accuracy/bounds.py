"""Reads a finished run: the figures that a target bounds, and whether they lie within the bounds."""
from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from pathlib import Path

from benchmarks.accuracy.identity import Refused
from benchmarks.accuracy.targets import Check, Target

TOLERANCE = 1e-9  # of a bound, for what decimal notation loses


@dataclass(frozen=True)
class Measured:
    """What a check found: `values` by seed, and `fault` where a bound is not kept."""

    check: Check
    values: tuple[float, ...]
    fault: str | None


def measure(target: Target, run) -> list[Measured]:
    """Each check of the target on the run folder; bounds of a median are for all of the target's seeds only.

    Refused where the run is not finished or lacks a figure.
    """
    run = Path(run)
    try:
        rows = json.loads((run / "result.json").read_text(encoding="utf-8"))["rows"]
        lines = (run / "metrics.jsonl").read_text(encoding="utf-8") if (run / "metrics.jsonl").is_file() else ""
        history = [json.loads(line) for line in lines.splitlines() if line.strip()]
    except (OSError, ValueError, KeyError) as error:
        raise Refused(f"{run} holds no finished run: {error}") from error
    complete = len({row["seed"] for row in rows}) >= target.seeds
    return [_measured(check, rows, history, run) if complete or check.over != "median" else Measured(check, (), None)
            for check in target.checks]


def _measured(check, rows, history, run):
    if check.ahead_of is not None:
        return _race(check, history, run)
    if check.seed is not None and all(row["seed"] != check.seed for row in rows):
        return Measured(check, (), None)
    values = _values(check, rows, history)
    if not values:
        raise Refused(f"{run} has no {check.label}")
    judged = [statistics.median(values)] if check.over == "median" else values
    out = [value for value in judged if not check.low - TOLERANCE <= value <= check.high + TOLERANCE]
    fault = None
    if out:
        what = "the median of " if check.over == "median" else ""
        fault = f"{what}{check.label} is {span(out)}, outside {check.low:g} to {check.high:g}"
    return Measured(check, tuple(values), fault)


def _values(check, rows, history):
    """By seed: of the rows where they have the quantity, else of the last epoch (or `check.epoch`) of the records."""
    if check.epoch is None:
        found = [row[check.quantity] for row in rows if row["name"] == check.row and _wanted(check, row)
                 and row.get(check.quantity) is not None]
        if found:
            return found
    last = {}
    for record in history:
        if record.get("series") == check.row and _wanted(check, record) and check.epoch in (None, record.get("epoch")):
            last[str(record.get("seed"))] = record.get(check.quantity)
    # None stands for a figure that was not finite.
    return [float("nan") if value is None else value for value in last.values()]


def _wanted(check, record):
    return check.seed is None or str(record.get("seed")) == str(check.seed)


def _race(check, history, run):
    """In each seed and epoch from `from_epoch` on, how far `row` is ahead of `ahead_of`."""
    series = {name: {(str(r.get("seed")), r["epoch"]): r.get(check.quantity) for r in history
                     if r.get("series") == name and r.get("epoch", 0) >= check.from_epoch}
              for name in (check.row, check.ahead_of)}
    ours, theirs = series[check.row], series[check.ahead_of]
    if not ours or set(ours) != set(theirs):
        raise Refused(f"{run} does not have the same epochs of {check.row} and {check.ahead_of}")
    # What was not finite loses.
    leads = {key: (ours[key] if ours[key] is not None else 0.0) - (theirs[key] or 0.0) for key in ours}
    behind = [key for key, lead in leads.items() if lead <= 0]
    fault = None
    if behind:
        seed, epoch = behind[0]
        fault = (f"{check.row} is not ahead of {check.ahead_of} in {len(behind)} of {len(leads)} epochs, such as epoch "
                 f"{epoch} of seed {seed}")
    return Measured(check, tuple(leads.values()), fault)


def span(values) -> str:
    """'0.9733', or '0.9400 to 0.9933'."""
    low, high = min(values), max(values)
    return f"{low:.4f}" if f"{low:.4f}" == f"{high:.4f}" else f"{low:.4f} to {high:.4f}"
