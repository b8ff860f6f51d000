"""The run folder: config.json, environment.json, metrics.jsonl, result.json, the curves and report.html."""
from __future__ import annotations

import contextlib
import math
import re
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from gluon_ft.errors import ConfigError, DataError, UserError, near
from gluon_ft.io import documents
from gluon_ft.io.atomic import write as write_atomic
from gluon_ft.io.paths import AnyPath, InUse
from gluon_ft.io.settings import plain
from gluon_ft.reporting import plots, report, run_files
from gluon_ft.reporting.environment import environment
from gluon_ft.reporting.metrics_log import MetricsLog, read_metrics, without_repeats

ROW_KEYS = ("name", "seed", "train_accuracy", "validation_accuracy")


class Run:
    """One run's folder, made at once with `config.json` and `environment.json` in it.

    Parameters
    ----------
    root : path-like, default 'runs'
        Where the folder `<name>-<YYYYmmdd-HHMMSS>` (local time; `-2`, `-3` ... where that is taken) is made.
    name : str, default 'run'
        Letters, digits, '.', '_' and '-'; also the report's title.
    config : dict
        The resolved configuration: every setting with its value.
    folder : path-like, optional
        Exactly this folder instead; it must be missing or empty (but for hidden files, such as a lock).
    resume : bool, default False
        `folder` holds an unfinished run, which goes on: its configuration and metrics stay as they are, `config` is not
        looked at, and this start is added to `resumed` in environment.json (date, command, and what differs from the
        first start).

    Attributes
    ----------
    folder : Path
    name : str
    config, environment : dict
        As in config.json and environment.json.

    Raises
    ------
    UserError
        Where the folder is not empty or cannot be made, or holds no run to resume, or a finished one.
    ConfigError
        For an unusable name.
    """

    def __init__(self, root="runs", name: str = "run", config: dict | None = None, folder=None, resume: bool = False):
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise ConfigError("unusable name of a run", expected="letters, digits, '.', '_' and '-'",
                              found=repr(name))
        self.name, self.config, self.environment = name, plain(config or {}), environment()
        if resume:
            self.folder = _unfinished_folder(folder)
            self.config = run_files.read(self.folder / "config.json")
            first = self.folder / "environment.json"
            if first.is_file():  # a start that was killed at once may not have written it
                self.environment = _resumed(run_files.read(first), self.environment)
        else:
            self.folder = new_folder(root, name) if folder is None else _given_folder(Path(folder))
        with _writing(self.folder):
            self._in_use = InUse(self.folder)
            if not resume:
                _write_json(self.folder / "config.json", self.config)
            _write_json(self.folder / "environment.json", self.environment)
            self._metrics = MetricsLog(self.folder / "metrics.jsonl")

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """For a block that writes into the folder or reads from it: what the file system refuses is a UserError, and so
        is any failure in a folder that was removed or replaced since the run began."""
        self._in_use.check()
        try:
            with _writing(self.folder):
                yield
        except Exception:
            self._in_use.check()
            raise

    def log(self, series: str, **values) -> None:
        """Adds one record to `metrics.jsonl` and syncs it to disk, so meant for epochs rather than batches.

        A record of the same series, seed and epoch is replaced.

        A record of an epoch has `epoch` (1-based), `train_loss`, `train_accuracy`, `validation_loss`,
        `validation_accuracy`, optionally `seed`, `train_top5`, `validation_top5`, `lr` and `seconds`; accuracies
        are 0..1. Numbers that are not finite are written as null; what was not measured is left out.
        """
        record = plain({"series": series, "time": round(time.time(), 3), **values})
        with self.writing():
            self._metrics.append(record)

    def history(self) -> list[dict]:
        """Every record logged so far, in order; of an epoch that was done again after an interruption, the last."""
        path = self.folder / "metrics.jsonl"
        return without_repeats(read_metrics(path)) if path.exists() else []

    def finish(self, rows: list[dict], summary: dict | None = None, pictures: list[Path] | None = None,
               notes: list[str] | None = None, series: list[str] | None = None, title: str | None = None,
               command: str | None = None, begun: float | None = None, story: report.Story | None = None) -> Path:
        """Writes `result.json`, `curves.png` (where epochs were logged) and `report.html`; returns the report's path.

        Parameters
        ----------
        rows : list of dict
            One a network and seed, with at least `name`, `seed`, `train_accuracy` and `validation_accuracy` (0..1).
        summary : dict, optional
            Further keys of `result.json` beside `rows`.
        pictures : list of paths, optional
            PNG, JPEG, GIF or WebP files to show, captioned by their file names.
        notes : list of str, optional
            Warnings for the report. Values that were not finite and unreadable pictures are added to them.
        series : list of str, optional
            The series to draw, in this order; default: all, as logged.
        title : str, default the run's name
        command : str, optional
            What reproduces the run; default: the command that this process was started by.
        begun : float, optional
            When the run began, on `time.perf_counter`'s clock: the summary then has `total_seconds`, the report's
            pictures included.
        story : report.Story, optional
            What the report tells of the images beside the results.

        Raises
        ------
        DataError
            Where a row lacks one of the keys or a series was not logged.
        UserError
            Where the folder cannot be written.
        """
        _check_rows(rows)
        rows, notes, history = plain(rows), list(notes or []), self.history()
        drawn = _by_series(history, series)
        notes += _gap_notes(history) + _row_notes(rows)
        with self.writing():
            self._draw_curves(drawn)
            shown = []
            for path in map(Path, pictures or []):
                try:
                    shown.append(report.Picture(path.read_bytes(), path.stem.replace("_", " ").replace("-", " ")))
                except (OSError, ValueError) as error:
                    notes.append(f"The picture {path.name} could not be shown: {error}")
        found: dict = plain(summary or {})
        if begun is not None:
            found["total_seconds"] = round(time.perf_counter() - begun, 1)
        page = report.render(title=title or self.name, rows=rows, summary=summarise(rows), pictures=shown,
                             config=self.config, environment=self.environment, extra=found, notes=notes,
                             command=command, series=drawn, story=story)
        with self.writing():
            written = write_atomic(self.folder / "report.html", page.encode("utf-8", "backslashreplace"))
            # Last, since it is by this file that a run counts as finished.
            _write_json(self.folder / "result.json", {**found, "rows": rows})
            return written

    def _draw_curves(self, series: dict[str, list[dict]]) -> None:
        """Writes curves.png; nothing where no epoch has a metric that can be drawn."""
        keys = {key for records in series.values() for record in records for key in record}
        metrics = tuple(m for m in plots.LABELS if {f"train_{m}", f"validation_{m}"} & keys)
        if metrics:
            plots.curves(series, self.folder / "curves.png", metrics=metrics)


def summarise(rows: list[dict]) -> list[dict]:
    """One row a name, in order of appearance, for `console.table`.

    Keys: `name`, `seeds` (number of rows), then `train_median`, `train_min`, `train_max`, `validation_median`,
    `validation_min`, `validation_max` (0..1). Values that are None or not finite are left out; None where no
    other is left. Raises DataError where a row lacks a key.
    """
    _check_rows(rows)
    result = []
    for name in dict.fromkeys(row["name"] for row in rows):
        mine = [row for row in rows if row["name"] == name]
        line = {"name": name, "seeds": len(mine)}
        for part in ("train", "validation"):
            values = [float(row[f"{part}_accuracy"]) for row in mine if _finite(row[f"{part}_accuracy"])]
            for label, function in (("median", statistics.median), ("min", min), ("max", max)):
                line[f"{part}_{label}"] = function(values) if values else None
        result.append(line)
    return result


def _by_series(history: list[dict], wanted: list[str] | None) -> dict[str, list[dict]]:
    """Series -> its records of epochs, those wanted in the order wanted."""
    series: dict[str, list[dict]] = {}
    for record in history:
        if record.get("epoch") is not None and "series" in record:
            series.setdefault(record["series"], []).append(record)
    if wanted is None:
        return series
    for name in wanted:
        if name not in series:
            raise DataError(f"no epoch of a series '{name}' was logged", found=", ".join(series) or "none",
                            remedy=near(name, series) if series else None)
    return {name: series[name] for name in wanted}


def _finite(value) -> bool:
    return value is not None and math.isfinite(value)


def _check_rows(rows):
    if not rows:
        raise DataError("a result has no rows", expected="at least one")
    for number, row in enumerate(rows):
        missing = [key for key in ROW_KEYS if key not in row]
        if missing:
            raise DataError(f"row {number} of the result is incomplete", expected=", ".join(ROW_KEYS),
                            found=f"no {', '.join(missing)}")


def _gap_notes(history) -> list[str]:
    """A sentence for each series, seed and metric that was not a finite number in some epoch."""
    gaps: dict[tuple, list[int]] = {}
    for record in history:
        for key, value in record.items():
            if "epoch" in record and value is None and key.startswith(("train_", "validation_")):
                gaps.setdefault((record["series"], record.get("seed"), key), []).append(record["epoch"])
    return [f"{series}{'' if seed is None else f', seed {seed}'}: {key} was not a finite number in "
            f"epoch{'s' if len(epochs) > 1 else ''} {', '.join(map(str, epochs[:6]))}"
            f"{', ...' if len(epochs) > 6 else ''}; the curve leaves it out."
            for (series, seed, key), epochs in gaps.items()]


def _row_notes(rows) -> list[str]:
    notes = []
    for name in dict.fromkeys(row["name"] for row in rows):
        mine = [row for row in rows if row["name"] == name]
        for key in ROW_KEYS[2:]:
            missing = sum(not _finite(row[key]) for row in mine)
            if missing:
                notes.append(f"{name}: {missing} of {len(mine)} runs have no {key}; the table leaves them out.")
    return notes


def new_folder(root: AnyPath, name: str) -> Path:
    """Makes `<root>/<name>-<YYYYmmdd-HHMMSS>`, with `-2`, `-3` ... where that is taken. UserError where it cannot."""
    root = Path(root)
    stem, number = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}", 1
    with _writing(root):
        root.mkdir(parents=True, exist_ok=True)
        while True:
            folder = root / (stem if number == 1 else f"{stem}-{number}")
            try:
                folder.mkdir()
                return folder
            except FileExistsError:
                number += 1


def _given_folder(folder: Path) -> Path:
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        found = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    if found:
        kind = "holds a finished run" if "result.json" in found else "is not empty"
        raise UserError(f"the run's folder {kind}", path=folder, expected="a new or empty folder",
                        found=f"{', '.join(found[:3])}{', ...' if len(found) > 3 else ''}",
                        remedy="name another folder, or move this one away")
    return folder


def _unfinished_folder(folder) -> Path:
    folder = Path(folder) if folder is not None else Path()
    if not (folder / "config.json").is_file():
        raise UserError("no run to resume", path=folder, expected="a folder with config.json",
                        remedy="check its name, or start a new run without resuming")
    if (folder / "result.json").is_file():
        raise UserError("the run is finished", path=folder, expected="an unfinished run to resume",
                        found="result.json", remedy="start another one in a new folder")
    return folder


def _resumed(first: dict, now: dict) -> dict:
    """The environment of the first start, with what differs in this one."""
    before = dict(report.flatten({key: value for key, value in first.items() if key != "resumed"}))
    changed = {key: text for key, text in report.flatten(now)
               if before.get(key) != text and key not in ("date", "command")}
    start = {"date": now["date"], "command": now["command"], "changed": changed}
    return {**first, "resumed": [*first.get("resumed", []), start]}


@contextlib.contextmanager
def _writing(folder: Path):
    """Turns what the file system refuses into a UserError that names the folder."""
    try:
        yield
    except OSError as error:
        found = "a file" if folder.is_file() else error.strerror or str(error)
        raise UserError("cannot write the run's folder", path=folder, expected="a folder that can be written",
                        found=found, remedy="name another one, or make room in it") from error


def _write_json(path: Path, value) -> None:
    write_atomic(path, documents.encoded(plain(value), indent=2) + b"\n")
