"""Where others are ahead of us, and why: the latest ratios below 1, with the reasons of slower_than_peers.toml."""
from __future__ import annotations

from pathlib import Path

from benchmarks.runner import tomllib
from gluon_ft.errors import DataError

REASONS = Path(__file__).with_name("slower_than_peers.toml")


def ahead_of_us(rows: list[dict]) -> list[dict]:
    """The rows of peers.csv and training_speed.csv that say that another one was faster.

    rows : of results files, the latest of each setting and quantity. A ratio is 'theirs / ours' of times, or
    'gluon_ft ... / torch ...' of rates: below 1 both say that they are ahead.
    """
    return [row for row in rows if row["unit"] == "ratio" and row["benchmark"] in ("peers", "training_speed")
            and float(row["median"]) < 1]


def reason(row: dict, reasons: list[dict]) -> str:
    """Why; DataError where slower_than_peers.toml has nothing on it.

    reasons : `settings` and `quantity` are parts of a row's, `why` the text; the first that fits counts.
    """
    for entry in reasons:
        if entry["settings"] in row["settings"] and entry["quantity"] in row["quantity"]:
            return entry["why"]
    raise DataError("no reason for being behind", path=REASONS, found=f"{row['settings']}; {row['quantity']}: "
                    f"{row['median']}", remedy="find out why, and add it")


def load(path: Path = REASONS) -> list[dict]:
    """The entries of slower_than_peers.toml."""
    return tomllib.loads(path.read_text(encoding="utf-8"))["behind"]
