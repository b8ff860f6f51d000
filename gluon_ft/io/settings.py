"""Settings to plain values, for JSON and TOML, and back, the same way for every one of them."""
from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from gluon_ft.errors import ConfigError, near


def to_dict(settings) -> dict:
    """A dataclass as plain values for JSON and TOML, tuples as lists."""
    return plain(dataclasses.asdict(settings))


def from_dict(kind: type, values: dict, what: str):
    """`kind(**values)`; what is missing has its default. ConfigError for an unknown key, with the near ones."""
    known = [field.name for field in dataclasses.fields(kind)]
    for key in values:
        if key not in known:
            raise ConfigError(f"unknown {what}setting '{key}'", remedy=near(key, known))
    return kind(**values)


def plain(value):
    """`value` as what JSON can hold: NaN and infinities become None, NumPy values lists and numbers, others text."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return [plain(item) for item in sorted(value, key=str)]
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return str(value)
