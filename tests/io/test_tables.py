"""Tables: alignment, numbers, and what is cut where a terminal is narrow."""
from __future__ import annotations

import pytest

from gluon_ft.io.tables import table, terminal_width

ROWS = [{"file": "a/long/path/to/one.jpg", "class": "cat", "share": 0.5, "note": "x" * 60},
        {"file": "b.jpg", "class": "kangaroo", "share": 0.25, "note": None}]


def test_nothing_is_cut_without_a_width():
    lines = table(ROWS, ["file", "class", "share"]).splitlines()
    assert lines == ["file                    class     share", "-" * 22 + "  " + "-" * 8 + "  -----",
                     "a/long/path/to/one.jpg  cat       0.500", "b.jpg                   kangaroo  0.250"]


@pytest.mark.parametrize("width", [200, 80, 60, 45])
def test_the_widest_texts_are_cut_and_numbers_are_not(width):
    lines = table(ROWS, width=width, keep_end=["file"]).splitlines()
    assert max(map(len, lines)) <= width
    assert "0.500" in lines[2] and "kangaroo" in lines[3]
    assert "one.jpg  " in lines[2] and lines[2].startswith("a/long" if width > 60 else "…")
    assert lines[2].endswith("x" if width == 200 else "x…") and lines[3].endswith("-")


def test_columns_keep_eight_characters():
    assert max(map(len, table(ROWS, width=5).splitlines())) == 8 + 8 + 5 + 8 + 3 * 2


def test_whole_columns_are_not_cut():
    lines = table(ROWS, width=40, whole=["file"]).splitlines()
    assert lines[2].startswith("a/long/path/to/one.jpg  cat") and lines[2].endswith("…")


def test_terminal_width(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert terminal_width() == 100
