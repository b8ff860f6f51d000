"""Rows as an aligned table of text."""
from __future__ import annotations

import numbers


def table(rows: list[dict], columns: list[str] | None = None) -> str:
    """Rows as aligned text; floats with three decimals, numbers to the right, missing values as '-'.

    `columns` defaults to the keys of all rows in the order in which they first appear.
    """
    columns = columns or list(dict.fromkeys(key for row in rows for key in row))
    cells = [[_cell(row.get(c)) for c in columns] for row in rows]
    widths = [max(len(text) for text in (c, *(line[i] for line in cells))) for i, c in enumerate(columns)]
    right = [bool(rows) and all(isinstance(row.get(c), (numbers.Real, type(None))) for row in rows) for c in columns]
    lines = [columns, ["-" * w for w in widths], *cells]
    return "\n".join("  ".join(t.rjust(w) if r else t.ljust(w) for t, w, r in zip(line, widths, right)).rstrip()
                     for line in lines)


def _cell(value) -> str:
    if value is None:
        return "-"
    if isinstance(value, numbers.Real) and not isinstance(value, (numbers.Integral, bool)):
        return f"{value:.3f}"
    return str(value)
