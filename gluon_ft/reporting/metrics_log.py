"""A run's metrics.jsonl: a record a line, and of each epoch one, however often the run was killed and resumed."""
from __future__ import annotations

from pathlib import Path

from gluon_ft.errors import DataError, UserError
from gluon_ft.io import atomic, documents
from gluon_ft.io.paths import AnyPath
from gluon_ft.io.settings import plain
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


class MetricsLog:
    """Writes a run's metrics.jsonl.

    Parameters
    ----------
    path : path-like
        What is there already is tidied: a last line that was cut short goes, and so do earlier records of an epoch
        that was logged twice.

    Raises
    ------
    OSError
        Where it cannot be written; as `read_metrics` where what is there cannot be read.
    """

    def __init__(self, path: AnyPath) -> None:
        self.path = Path(path)
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            text = b""
        found = read_metrics(self.path) if text else []
        self._records = {_key(record, number): record for number, record in enumerate(found)}
        self._count = len(found)
        if text and text != self._text():
            atomic.write(self.path, self._text())

    def append(self, record: dict) -> None:
        """Adds a record, synced to the disk. One of the same series, seed and epoch gives way to it, unless it is the
        same but for its time: a training that is resumed tells its earlier epochs again."""
        key, self._count = _key(record, self._count), self._count + 1
        known = self._records.get(key)
        if known is not None and {**known, "time": None} == {**record, "time": None}:
            return
        self._records[key] = record
        if known is not None:
            atomic.write(self.path, self._text())
            return
        with open(self.path, "ab") as file:
            file.write(_line(record))
            atomic.sync(file)

    def _text(self) -> bytes:
        return b"".join(map(_line, self._records.values()))


def _line(record: dict) -> bytes:
    return documents.encoded(plain(record)) + b"\n"


def _key(record: dict, number: int) -> object:
    """What two records of the same epoch share; the record's number where it is not of an epoch."""
    epoch = record.get("epoch")
    return (str(record.get("series")), str(record.get("seed")), str(epoch)) if epoch is not None else number


def without_repeats(records: list[dict]) -> list[dict]:
    """The records, but of those with the same series, seed and epoch only the last, in the place of the first."""
    return list({_key(record, number): record for number, record in enumerate(records)}.values())
