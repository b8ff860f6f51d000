"""Settings dataclasses to plain values and back, the same way for every one of them."""
from __future__ import annotations

import dataclasses

from gluon_ft.errors import ConfigError, near


def to_dict(settings) -> dict:
    """A dataclass as plain values for JSON and TOML, tuples as lists."""
    return {name: _plain(value) for name, value in dataclasses.asdict(settings).items()}


def from_dict(kind: type, values: dict, what: str):
    """`kind(**values)`; what is missing has its default. ConfigError for an unknown key, with the near ones."""
    known = [field.name for field in dataclasses.fields(kind)]
    for key in values:
        if key not in known:
            raise ConfigError(f"unknown {what}setting '{key}'", remedy=near(key, known))
    return kind(**values)


def _plain(value):
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (tuple, list)) else value
