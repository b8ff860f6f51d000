"""Frozen parameters and multipliers of a symbol's parameters, by ordered patterns over their names."""
from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

from gluon_ft.errors import ConfigError


def matching(names: list[str], patterns: Iterable[str]) -> list[str]:
    """Those of `names` in which one of the regular expressions is found (`re.search`), in their order.

    Raises ConfigError for a pattern that is none, or that matches nothing.
    """
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    first = first_match(names, patterns)
    return [name for name in names if first[name] is not None]


def multipliers(names: list[str], values: Mapping[str, float] | None, what: str) -> dict[str, float]:
    """name -> multiplier, for the names that a pattern of `values` matches; the first pattern that does counts.

    Raises ConfigError as `matching`, and for a multiplier that is not a number from 0 on.
    """
    values = dict(values or {})
    for pattern, value in values.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
            raise ConfigError(f"{what} of '{pattern}' out of range", expected="a number from 0 on", found=repr(value))
    first = first_match(names, values)
    return {name: float(values[pattern]) for name, pattern in first.items() if pattern is not None}


def first_match(names: list[str], patterns: Iterable[str]) -> dict[str, str | None]:
    """name -> the first pattern found in it, None where there is none.

    Raises ConfigError for a pattern that does not compile, or matches nothing that an earlier one has not taken.
    """
    taken: dict[str, str | None] = dict.fromkeys(names)
    for pattern in patterns:
        try:
            expression = re.compile(pattern)
        except (re.error, TypeError) as error:
            raise ConfigError(f"'{pattern}' is not a regular expression", found=str(error)) from error
        found = [name for name in names if expression.search(name)]
        fresh = [name for name in found if taken[name] is None]
        if not fresh:
            raise ConfigError(f"pattern '{pattern}' matches nothing",
                              found="only parameters of earlier patterns" if found else "no parameter",
                              remedy=f"parameters are named like {', '.join(names[:3])}")
        taken.update(dict.fromkeys(fresh, pattern))
    return taken
