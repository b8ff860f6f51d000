"""Checks of values read from JSON. A shape is a function that raises ValueError for a value that does not fit.

    check = named({"classes": maybe(listed(text(200)))}, optional={"seed": whole(0)})
    check(values, "")

The second argument says where the value is, for the error: 'parts.train.files[3] does not fit (expected ..., found
...)'.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from gluon_ft.errors import printable

Shape = Callable[[Any, str], None]


def anything(value: Any, place: str) -> None:
    """Fits every value."""


def text(most: int = 4096, least: int = 0) -> Shape:
    """Text of `least` to `most` characters, without NUL."""
    words = f"text of at most {most} characters" if not least else f"text of {least} to {most} characters"
    return _single(lambda v: isinstance(v, str) and least <= len(v) <= most and "\0" not in v, words)


def one_of(*names: str) -> Shape:
    """One of these texts."""
    return _single(lambda v: isinstance(v, str) and v in names, f"one of {', '.join(names)}")


def flag(value: Any, place: str) -> None:
    """True or false."""
    _need(isinstance(value, bool), value, place, "true or false")


def whole(least: int, most: int = (1 << 63) - 1) -> Shape:
    """A whole number from `least` to `most`."""
    words = f"a whole number from {least} to {most}" if most < 1 << 62 else f"a whole number of at least {least}"
    return _single(lambda v: isinstance(v, int) and not isinstance(v, bool) and least <= v <= most, words)


def number(least: float = -math.inf, most: float = math.inf) -> Shape:
    """A finite number from `least` to `most`."""
    bounds = "" if math.isinf(least) and math.isinf(most) else f" from {least:g} to {most:g}"
    return _single(lambda v: isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v)
                   and least <= v <= most, f"a number{bounds}")


def maybe(shape: Shape) -> Shape:
    """null, or what fits `shape`."""
    return lambda value, place: None if value is None else shape(value, place)


def listed(shape: Shape, most: int = 1 << 30, least: int = 0) -> Shape:
    """A list.

    Parameters
    ----------
    shape : Shape
        What each value must fit.
    most, least : int
        Bounds on the list's length.
    """
    def check(value: Any, place: str) -> None:
        few = f"a list of at most {most}" if most < 1 << 30 else "a list"
        _need(isinstance(value, list) and least <= len(value) <= most, value, place, few)
        for position, item in enumerate(value):
            shape(item, f"{place}[{position}]")
    return check


def row(*shapes: Shape) -> Shape:
    """A list with one value for each of these shapes, in order."""
    def check(value: Any, place: str) -> None:
        _need(isinstance(value, list) and len(value) == len(shapes), value, place, f"a list of {len(shapes)}")
        for position, (item, shape) in enumerate(zip(value, shapes)):
            shape(item, f"{place}[{position}]")
    return check


def each(shape: Shape, most: int = 10_000) -> Shape:
    """An object with any names, at most `most`, whose values all fit `shape`."""
    def check(value: Any, place: str) -> None:
        _need(isinstance(value, dict) and len(value) <= most, value, place, f"an object with at most {most} names")
        for name, item in value.items():
            shape(item, _below(place, name))
    return check


def named(required: Mapping[str, Shape], optional: Mapping[str, Shape] | None = None, others: bool = False) -> Shape:
    """An object.

    Parameters
    ----------
    required : mapping of str to shape
        Names that it must have.
    optional : mapping of str to shape
        Names that it may have.
    others : bool
        Whether it may have other names, with any value.
    """
    known = {**required, **(optional or {})}

    def check(value: Any, place: str) -> None:
        _need(isinstance(value, dict), value, place, f"an object with {', '.join(list(known)[:6])}")
        for name in required:
            if name not in value:
                raise ValueError(f"{_below(place, name)} is missing")
        for name, item in value.items():
            if name in known:
                known[name](item, _below(place, name))
            elif not others:
                raise ValueError(f"{_below(place, name)} is not known here")
    return check


def _single(holds: Callable[[Any], bool], words: str) -> Shape:
    return lambda value, place: _need(holds(value), value, place, words)


def _need(holds: bool, value: Any, place: str, words: str) -> None:
    if not holds:
        raise ValueError(f"{place or 'the whole'} does not fit (expected {words}, found {_found(value)})")


def _found(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (int, float)):
        return f"{value}"[:24]
    if isinstance(value, str):
        return f"'{printable(value, 40)}'" if len(value) <= 1000 else f"text of {len(value)} characters"
    kind = "an object" if isinstance(value, dict) else "a list" if isinstance(value, list) else type(value).__name__
    return f"{kind} of {len(value)}" if isinstance(value, (dict, list)) else kind


def _below(place: str, name: str) -> str:
    name = printable(name, 40)
    return f"{place}.{name}" if place else name
