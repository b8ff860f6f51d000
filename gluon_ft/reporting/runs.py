"""Finished and unfinished runs: what is in a folder of them, and what differs between two."""
from __future__ import annotations

from pathlib import Path
from typing import Any

from gluon_ft.errors import DataError
from gluon_ft.evaluation.comparison import accuracy, read_predictions
from gluon_ft.io import locks
from gluon_ft.io.paths import AnyPath
from gluon_ft.reporting import data_record, run_files
from gluon_ft.reporting.report import flatten

# What differs between any two runs and says nothing about them.
_TRIVIAL = {"environment": ("date", "command"), "configuration": ("origins.", "reasons"), "result": ("reasons",)}


def find(root: AnyPath = "runs") -> list[dict]:
    """The runs in a folder, oldest first; or the run itself, where `root` is one.

    Each is a dict: name (of the folder), folder (Path), date (UTC, ISO 8601, None where not recorded), state
    ('finished', 'unfinished', or 'running' while a process holds its lock), strategy (None for runs without),
    train_accuracy, validation_accuracy (0..1; of several rows those of the row that validates best; None while not
    finished), seconds (of all rows), rows (their number). A damaged file of a run counts as missing.

    Raises DataError where there is no such folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError("no such folder of runs", path=root, expected="a folder with runs, such as runs/")
    folders = [root] if is_run(root) else [path for path in root.iterdir() if path.is_dir() and is_run(path)]
    return sorted(map(describe, folders), key=lambda run: (run["date"] or "", run["name"]))


def is_run(folder: AnyPath) -> bool:
    """Whether a folder holds a run: config.json and environment.json."""
    return all((Path(folder) / name).is_file() for name in ("config.json", "environment.json"))


def describe(folder: AnyPath) -> dict:
    """One entry of `find`."""
    folder = Path(folder)
    config, environment, result = (_read(folder / f"{name}.json") for name in ("config", "environment", "result"))
    rows = [row for row in result.get("rows", []) if isinstance(row, dict)]
    best = max(rows, key=lambda row: _number(row.get("validation_accuracy"), -1.0), default={})
    state = "finished" if result else "running" if locks.is_held(folder / locks.RUN) else "unfinished"
    seconds = [row["seconds"] for row in rows if _number(row.get("seconds"), None) is not None]
    return {"name": folder.resolve().name, "folder": folder, "date": environment.get("date"), "state": state,
            "strategy": config.get("strategy"), "train_accuracy": best.get("train_accuracy"),
            "validation_accuracy": best.get("validation_accuracy"), "rows": len(rows),
            "seconds": round(sum(seconds), 1) if seconds else None}


def compare(first: AnyPath, second: AnyPath) -> dict[str, list[dict] | list[str] | None]:
    """What differs between two runs.

    `configuration`, `environment` and `result` are lists of dicts: key (dotted), first, second (as text, None where
    the run has not got it). `data` is a list of sentences, or None where one of the runs has not recorded its data.
    Raises DataError where a folder holds no run.
    """
    for folder in (first, second):
        if not is_run(folder):
            raise DataError("not a run", path=folder, expected="a folder with config.json and environment.json",
                            remedy="see gluon-ft runs ROOT")
    files = {"configuration": "config.json", "environment": "environment.json", "result": "result.json"}
    pairs = {what: [_read(Path(folder) / name) for folder in (first, second)] for what, name in files.items()}
    pairs["result"] = _by_name(pairs["result"])
    found = {what: _differences(*(_flat(value, _TRIVIAL.get(what, ())) for value in pair))
             for what, pair in pairs.items()}
    return {"configuration": found["configuration"], "environment": found["environment"],
            "data": _data(Path(first), Path(second)), "result": found["result"]}


def members(place: AnyPath) -> list[Path]:
    """The runs that `place` stands for: itself (a run, or a table of predictions), or those in the folder, by name.

    Raises DataError where there are none.
    """
    place = Path(place)
    inside = sorted(path for path in place.iterdir() if is_run(path)) if place.is_dir() and not is_run(place) else []
    if inside or is_run(place) or place.is_file():
        return inside or [place]
    raise DataError("not a run" if place.exists() else "no such run", path=place,
                    expected="a run's folder, a folder of runs, or a table of predictions",
                    remedy="see gluon-ft runs ROOT")


def paired_accuracies(first: list[Path], second: list[Path]) -> tuple[list[float], list[float]]:
    """The accuracies on validation images of two groups of runs, in pairs of the same seed.

    Raises DataError where a run has no predictions, or the seeds of the groups are not the same ones, each once.
    """
    seeds: list[list[Any]] = [[_read(run / "config.json").get("seed") if run.is_dir() else None for run in group]
                              for group in (first, second)]
    if None in (*seeds[0], *seeds[1]) or any(len(set(own)) < len(own) for own in seeds) or set(seeds[0]) != \
            set(seeds[1]):
        raise DataError("runs that cannot be paired by their seeds", expected="the same seeds in both, each once",
                        found=" and ".join(", ".join(map(str, own)) for own in seeds),
                        remedy="train both with the same seeds (--seed)")
    by_seed = [dict(zip(own, group)) for own, group in zip(seeds, (first, second))]
    found = [[accuracy(read_predictions(runs[seed])) for seed in sorted(by_seed[0])] for runs in by_seed]
    return found[0], found[1]


def _by_name(results):
    """Their rows by name and seed rather than by place; single rows say nothing that is not in the result itself."""
    several = any(len(result.get("rows", [])) > 1 or set(result) <= {"rows"} for result in results)
    found = []
    for result in results:
        rows = {f"{row.get('name')}, seed {row.get('seed')}": {key: value for key, value in row.items()
                                                              if key not in ("name", "seed")}
                for row in result.get("rows", []) if several}
        found.append({**{key: value for key, value in result.items() if key != "rows"}, **rows})
    return found


def _flat(value: dict, trivial: tuple[str, ...]) -> dict[str, str]:
    return {key: text for key, text in flatten(value) if not key.startswith(trivial or "\0")}


def _differences(one, other):
    return [{"key": key, "first": one.get(key), "second": other.get(key)} for key in dict.fromkeys([*one, *other])
            if one.get(key) != other.get(key)]


def _data(first, second):
    one, other = data_record.read(first), data_record.read(second)
    return None if one is None or other is None else data_record.difference(one, other)


def _read(path: Path) -> dict:
    try:
        return run_files.parse(path)
    except (OSError, ValueError):
        return {}


def _number(value, default):
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else default
