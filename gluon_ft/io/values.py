"""Values of settings from text (`key=value`, options) and from TOML or JSON, checked against the setting's type."""
from __future__ import annotations

import json
import math

from gluon_ft.errors import ConfigError

_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_NOTHING = ("none", "null", "")
EXPECTED = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}


def coerce(name: str, value, kind: str):
    """`value` as the type that a dataclass's annotation `kind` names; text is read, other types are checked.

    kind : 'int', 'float', 'bool', 'str', one of these with '| None', or 'tuple[int, ...]' and the like. A tuple is read
    from text with commas. For `augment` a dict is kept as JSON text.
    Raises ConfigError naming the setting where the value does not fit.
    """
    plain, optional = _without_none(kind)
    if isinstance(value, dict):
        if name == "augment":
            return json.dumps(value, sort_keys=True)
        raise ConfigError(f"{name} does not fit", expected=EXPECTED.get(plain, "values"), found="a table",
                          remedy="settings stand at the top, in no table")
    if value is None or (optional and isinstance(value, str) and value.strip().lower() in _NOTHING):
        if optional:
            return None
        raise _wrong(name, plain, value)
    if plain.startswith("tuple["):
        return _tuple(name, value, plain[len("tuple["):-1].partition(",")[0].strip())
    return _single(name, value, plain)


def _without_none(kind):
    words = [word.strip() for word in kind.split("|")]
    return next(word for word in words if word != "None"), "None" in words


def _tuple(name, value, item):
    if isinstance(value, str):
        text = value.strip()
        value = _from_json(text) if text.startswith("[") else [part for part in text.strip("()").split(",") if part]
    if not isinstance(value, (list, tuple)):
        value = [value]
    return tuple(_single(name, part.strip() if isinstance(part, str) else part, item) for part in value)


def _single(name, value, kind):
    reader = {"int": _int, "float": _float, "bool": _bool, "str": _str}[kind]
    try:
        return reader(value)
    except (ValueError, TypeError, OverflowError):
        raise _wrong(name, kind, value) from None


def _int(value):
    if isinstance(value, bool):
        raise TypeError
    if isinstance(value, str):
        value = float(value) if any(c in value.lower() for c in ".e") else int(value)
    if value != int(value):
        raise ValueError
    return int(value)


def _float(value):
    if isinstance(value, bool):
        raise TypeError
    number = float(value)
    if not math.isfinite(number):
        raise ValueError
    return number


def _bool(value):
    if isinstance(value, str):
        return _WORDS[value.strip().lower()] if value.strip().lower() in _WORDS else _bool(None)
    if not isinstance(value, bool):
        raise TypeError
    return value


def _str(value):
    if isinstance(value, (bool, list, tuple)) or value is None:
        raise TypeError
    return str(value)


def _from_json(text):
    try:
        return json.loads(text)
    except ValueError:
        return text


def _wrong(name, kind, value):
    expected = EXPECTED.get(kind, f"values separated by commas, each {EXPECTED.get(kind[6:-6], 'text')}")
    return ConfigError(f"{name} does not fit", expected=expected, found=repr(value))
