"""Aligned text tables, cut to the terminal's width on request."""
from __future__ import annotations

import numbers
import shutil
import unicodedata
from collections.abc import Collection, Sequence
from typing import Any

from gluon_ft.errors import escaped

_LEAST = 8  # characters, below which no column of text is cut
_GAP = "  "


def terminal_width() -> int:
    """Width of the terminal in characters (`COLUMNS` if set); 80 where the output goes to a file or a pipe."""
    return shutil.get_terminal_size((80, 24)).columns


def columns_of(text: str) -> int:
    """How many columns of a terminal the text takes: two for a wide letter, as of Chinese, none for a mark above one.
    """
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.category(c) in ("Mn", "Me") or c == "\u200d" else
               2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def table(rows: Sequence[dict[str, Any]], columns: Sequence[str] | None = None, width: int | None = None,
          keep_end: Collection[str] = (), whole: Collection[str] = ()) -> str:
    """Formats rows as aligned text: floats with three decimals, numbers to the right, missing values as '-'.

    Parameters
    ----------
    rows : sequence of dict
        Values by column.
    columns : sequence of str, optional
        Default: the keys of all rows in the order in which they first appear.
    width : int, optional
        Longest line in characters, for example `terminal_width()`: the widest columns of text are cut, with an
        ellipsis, but none to less than 8 characters, and numbers never. By default nothing is cut.
    keep_end : collection of str
        Columns that are cut at their beginning, as paths should be.
    whole : collection of str
        Columns that are never cut: names that will be typed again.
    """
    columns = list(columns or dict.fromkeys(key for row in rows for key in row))
    cells = [[_cell(row.get(c)) for c in columns] for row in rows]
    widths = [max(map(columns_of, (escaped(c), *(line[i] for line in cells)))) for i, c in enumerate(columns)]
    right = [bool(rows) and all(isinstance(row.get(c), (numbers.Real, type(None))) for row in rows) for c in columns]
    keep_end, whole = set(map(escaped, keep_end)), set(map(escaped, whole))
    columns = list(map(escaped, columns))
    if width is not None:
        texts = [i for i, name in enumerate(columns) if not right[i] and name not in whole]
        _narrow(widths, texts, width - len(_GAP) * (len(columns) - 1))
        cells = [[_cut(text, widths[i], columns[i] in keep_end) for i, text in enumerate(line)] for line in cells]
        columns = [_cut(name, widths[i]) for i, name in enumerate(columns)]
    lines = [columns, ["-" * w for w in widths], *cells]
    return "\n".join(_GAP.join(_filled(t, w, r) for t, w, r in zip(line, widths, right)).rstrip()
                     for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, numbers.Real) and not isinstance(value, (numbers.Integral, bool)):
        return f"{value:.3f}"
    return escaped(value)


def _narrow(widths: list[int], texts: list[int], most: int) -> None:
    """Takes one character after another from the widest columns of text, until the line fits or all are narrow."""
    while sum(widths) > most and texts:
        widest = max(texts, key=lambda i: widths[i])
        if widths[widest] <= _LEAST:
            return
        widths[widest] -= 1


def _cut(text: str, width: int, keep_end: bool = False) -> str:
    if columns_of(text) <= width:
        return text
    kept, taken = 0, len("…")
    for letter in reversed(text) if keep_end else text:
        taken += columns_of(letter)
        if taken > width:
            break
        kept += 1
    return f"…{text[len(text) - kept:]}" if keep_end else f"{text[:kept]}…"


def _filled(text: str, width: int, right: bool) -> str:
    blanks = " " * (width - columns_of(text))
    return blanks + text if right else text + blanks
