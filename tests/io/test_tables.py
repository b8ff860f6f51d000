"""Tables: alignment, numbers, and what is cut where a terminal is narrow."""
from __future__ import annotations

import pytest

from gluon_ft.io.tables import columns_of, table, terminal_width

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


@pytest.mark.parametrize(("text", "columns"), [
    ("cat", 3), ("", 0), ("\u732b", 2), ("\uff21\uff71", 3), ("\uff71", 1), ("Zo\u00eb", 3), ("Zoe\u0308", 3),
    ("\U0001f436", 2), ("\ud55c\uad6d", 4), ("\u043a\u043e\u0442", 3), ("\u0e01\u0e34", 1),
])
def test_columns_of_a_terminal(text, columns):
    assert columns_of(text) == columns


def test_wide_letters_leave_the_columns_aligned_and_are_cut_whole():
    rows = [{"class": "\u732b" * 9, "n": 1}, {"class": "cat", "n": 22}, {"class": "e\u0301te", "n": 3}]
    assert [columns_of(line) for line in table(rows).splitlines()] == [18 + 2 + 2] * 5
    cut = table(rows, width=14).splitlines()
    assert [columns_of(line) for line in cut] == [14] * 5 and cut[2] == "\u732b" * 4 + "\u2026    1"
    assert table(rows, width=14, keep_end=["class"]).splitlines()[2] == "\u2026" + "\u732b" * 4 + "    1"
