"""The records of a run's metrics.jsonl: reading them, and those of epochs that were done twice."""
from __future__ import annotations

from pathlib import Path

from gluon_ft.errors import DataError, UserError
from gluon_ft.io import documents
from gluon_ft.io.paths import AnyPath
from gluon_ft.reporting import run_files


def read_metrics(path: AnyPath) -> list[dict]:
    """The records of a `metrics.jsonl`, in order; a last line that a crash cut short is left out.

    Raises UserError where there is no such file, DataError where any other line is not a record.
    """
    path = Path(path)
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError("cannot read the metrics", path=path, expected="metrics.jsonl of a run",
                        found=error.strerror) from error
    records = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = documents.parse_json(line)
            run_files.EPOCH(record, "")
        except ValueError as error:
            # A whole line ends with a line feed, so what follows the last one was being written.
            if number == len(lines):
                break
            raise DataError("not a record of metrics", path=f"{path}, line {number}", expected="one JSON object",
                            found=repr(line[:40].decode("utf-8", "replace")),
                            remedy="remove the line to use the others") from error
        records.append(record)
    return records


def without_repeats(records: list[dict]) -> list[dict]:
    """The records, but of those with the same series, seed and epoch only the last, in the place of the first."""
    last: dict = {}
    for number, record in enumerate(records):
        epoch = record.get("epoch")
        last[(record.get("series"), record.get("seed"), epoch) if epoch is not None else number] = record
    return list(last.values())
