"""Shapes of values read from JSON: what fits, and the place that an error names."""
from __future__ import annotations

import pytest

from gluon_ft.io.shapes import anything, each, flag, listed, maybe, named, number, one_of, row, text, whole

SHAPE = named({"classes": maybe(listed(text(5), 3)), "kind": one_of("a", "b")},
              {"rows": listed(row(text(9), number(0, 1))), "sizes": each(whole(1, 9), 2), "on": flag, "rest": anything})


@pytest.mark.parametrize("value", [
    {"classes": None, "kind": "a"}, {"classes": ["x", "y"], "kind": "b", "rows": [["p", 0.5], ["q", 1]]},
    {"classes": [], "kind": "a", "sizes": {"w": 1, "h": 9}, "on": False, "rest": {"any": ["thing"]}}])
def test_what_fits(value):
    SHAPE(value, "")


@pytest.mark.parametrize(("change", "message"), [
    ({"classes": "abc"}, r"^classes does not fit \(expected a list of at most 3, found 'abc'\)"),
    ({"classes": ["a"] * 4}, "classes does not fit .*found a list of 4"),
    ({"classes": ["a", 1]}, r"^classes\[1\] does not fit \(expected text of at most 5 characters, found 1\)"),
    ({"classes": ["a\0"]}, r"classes\[0\]"), ({"kind": "c"}, "expected one of a, b, found 'c'"),
    ({"kind": ["a"]}, "found a list of 1"), ({"kind": None}, "found null"),
    ({"rows": [["p", 0.5], ["q"]]}, r"^rows\[1\] does not fit \(expected a list of 2"),
    ({"rows": [["p", 1.5]]}, r"^rows\[0\]\[1\] does not fit \(expected a number from 0 to 1, found 1.5\)"),
    ({"rows": [["p", True]]}, "found true"), ({"rows": [["p", float("nan")]]}, "found nan"),
    ({"sizes": {"w": 0}}, r"^sizes.w does not fit \(expected a whole number from 1 to 9, found 0\)"),
    ({"sizes": {"w": 1.0}}, "found 1.0"), ({"sizes": {"a": 1, "b": 1, "c": 1}}, "found an object of 3"),
    ({"on": 1}, "expected true or false, found 1"), ({"new\nline": 1}, r"^new\\nline is not known here"),
    ({"kind": "\x1b]0;" + "x" * 2000}, "found text of 2004 characters")])
def test_what_does_not_fit_is_named_with_its_place(change, message):
    with pytest.raises(ValueError, match=message):
        SHAPE({"classes": None, "kind": "a", **change}, "")


@pytest.mark.parametrize("value", [None, [], "x", 3])
def test_the_whole_may_not_fit(value):
    with pytest.raises(ValueError, match=r"^the whole does not fit"):
        SHAPE(value, "")


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match=r"^kind is missing"):
        SHAPE({"classes": None}, "")
