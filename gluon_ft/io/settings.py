"""Settings as dataclass fields, each of which holds its own default, range, help and command-line option.

`setting` makes such a field. From it come the checks (`check`), the conversion of text, TOML and JSON values
(`coerce`), the docstring (`documented`), the options of the commands and the table in docs/settings.md.
"""
from __future__ import annotations

import dataclasses
import json
import math
import numbers
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from gluon_ft.errors import ConfigError, near
from gluon_ft.io import documents

_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_NOTHING = ("none", "null", "")
EXPECTED = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}


@dataclass(frozen=True)
class Setting:
    """Describes a setting, apart from its name, type and default.

    Parameters
    ----------
    help : str
        One or two sentences that end with a full stop.
    least, above : float, optional
        The smallest value, or an excluded lower bound.
    most, below : float, optional
        The largest value, or an excluded upper bound.
    choices : tuple of str
        The names that are allowed; empty: any text.
    default_words : str, optional
        The default in words, where the job decides it.
    option : str, optional
        The command-line option; by default the name with dashes. None: the setting has none.
    hidden_option : str, optional
        An earlier name of the option, which still works and is not shown.
    path : bool
        Whether it names a file or a folder.
    several : bool
        Whether several paths may be given; they are kept as one text, separated by ';'.
    table : bool
        Whether a TOML or JSON table is accepted; it is kept as JSON text.
    """

    help: str
    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()
    default_words: str | None = None
    option: str | None = ""
    hidden_option: str | None = None
    path: bool = False
    several: bool = False
    table: bool = False

    def range(self, kind: str) -> str:
        """The range in words, such as '0 to below 1' or 'a whole number of at least 1'; '' where there is none."""
        if self.choices:
            return ", ".join(self.choices)
        low = None if self.least is None and self.above is None else (
            f"above {self.above:g}" if self.least is None else f"{self.least:g}")
        high = f"below {self.below:g}" if self.below is not None else None if self.most is None else f"{self.most:.10g}"
        whole = "a whole number " if kind == "int" else ""
        if low is not None and high is not None:
            return f"{whole}{'from ' if whole else ''}{low} to {high}"
        if self.above is not None:
            return f"a number {low}"
        return f"{whole}{'of ' if whole else ''}at least {low}" if low is not None else ""

    def holds(self, number: float) -> bool:
        """Whether a number is in the range; NaN, infinities and whole numbers beyond 64 bits are not."""
        if _is_huge(number):
            return False
        return bool(math.isfinite(number) and (self.least is None or number >= self.least)
                    and (self.above is None or number > self.above) and (self.most is None or number <= self.most)
                    and (self.below is None or number < self.below))


def _is_huge(number: Any) -> bool:
    return isinstance(number, int) and abs(number) >= 1 << 63


def setting(default: Any, help: str, **known: Any) -> Any:
    """A dataclass field for a setting: its default, its help, and the other parameters of `Setting`."""
    return dataclasses.field(default=default, metadata={"setting": Setting(help, **known)})


@dataclass(frozen=True)
class Described:
    """A setting of a dataclass: name, type as annotated ('int', 'tuple[str, ...]'), default, and its `Setting`."""

    name: str
    kind: str
    default: Any
    about: Setting

    @property
    def plain_kind(self) -> str:
        """The type without '| None'; for a tuple, the type of its items."""
        return _item_kind(_without_none(self.kind)[0]) or _without_none(self.kind)[0]

    @property
    def option(self) -> str | None:
        """The command-line option; None where there is none."""
        return f"--{self.name.replace('_', '-')}" if self.about.option == "" else self.about.option

    @property
    def range(self) -> str:
        """The range of values in words; '' where any value of the type is allowed."""
        return self.about.range(self.plain_kind)


def described(kind: type) -> dict[str, Described]:
    """The settings of a dataclass by name, in the order of its fields."""
    return {field.name: Described(field.name, str(field.type), field.default, field.metadata["setting"])
            for field in dataclasses.fields(kind) if "setting" in field.metadata}


_Kind = TypeVar("_Kind", bound=type)


def documented(kind: _Kind) -> _Kind:
    """Class decorator: adds a dataclass's own settings, not those of its bases, to its docstring as parameters."""
    inherited = {name for base in kind.__mro__[1:] if dataclasses.is_dataclass(base) for name in described(base)}
    lines = [f"    {one.name} : {one.kind}, default {one.default!r}\n        {one.about.help}"
             for one in described(kind).values() if one.name not in inherited]
    kind.__doc__ = "\n".join([(kind.__doc__ or "").rstrip(), "", "    Parameters", "    ----------", *lines, "    "])
    return kind


def check(settings: Any) -> None:
    """Checks every setting of a dataclass against its type, range and choices; turns sequences into tuples.

    Raises
    ------
    ConfigError
        It names the setting, what is expected and what was found.
    """
    for one in described(type(settings)).values():
        value, (kind, optional) = getattr(settings, one.name), _without_none(one.kind)
        if value is None and optional:
            continue
        if _item_kind(kind) is None:
            check_value(one, value)
            continue
        if isinstance(value, (str, Mapping)) or not isinstance(value, Iterable):
            raise ConfigError(f"{one.name} does not fit", expected=f"several values, each {EXPECTED[one.plain_kind]}",
                              found=repr(value))
        value = tuple(value)
        object.__setattr__(settings, one.name, value)  # the dataclass is frozen
        for each in value:
            check_value(one, each)


def check_value(one: Described, value: Any) -> None:
    """Checks one value of a setting, not None, or one item of a tuple. Raises as `check` does."""
    kind = one.plain_kind
    if not _is_a(kind, value, one.about):
        raise ConfigError(f"{one.name} does not fit", found=repr(value),
                          expected=(f"one of {one.range}" if one.about.choices else one.range) or EXPECTED[kind])
    if one.about.choices and value not in one.about.choices:
        raise ConfigError(f"unknown {one.name} '{value}'", remedy=near(value, one.about.choices))
    if kind in ("int", "float") and not one.about.holds(value):
        raise ConfigError(f"{one.name} out of range", expected=one.range or EXPECTED[kind],
                          found="a number beyond 64 bits" if _is_huge(value) else value)


def _is_a(kind, value, about) -> bool:
    if kind == "bool":
        return isinstance(value, bool)
    if kind == "str":
        return isinstance(value, str) or (about.path and isinstance(value, os.PathLike))
    return isinstance(value, numbers.Integral if kind == "int" else numbers.Real) and not isinstance(value, bool)


def to_dict(settings: Any) -> dict:
    """A dataclass as plain values for JSON and TOML, tuples as lists."""
    return plain(dataclasses.asdict(settings))


def from_dict(kind: Callable, values: Mapping, what: str) -> Any:
    """Makes a dataclass from plain values; missing fields take their defaults.

    Parameters
    ----------
    kind : dataclass
    values : mapping of str to value
        Values by field name.
    what : str
        Words before 'setting' in the error, such as 'augmentation '.

    Returns
    -------
    An instance of `kind`

    Raises
    ------
    ConfigError
        A key is unknown (similar ones are named), or `kind` itself refuses a value.
    """
    known = [field.name for field in dataclasses.fields(kind)]  # pyright: ignore[reportArgumentType]
    for key in values:
        if key not in known:
            raise ConfigError(f"unknown {what}setting '{key}'", remedy=near(key, known))
    return kind(**values)


def plain(value: Any) -> Any:
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
    if hasattr(value, "tolist") and not isinstance(value, type):
        return plain(value.tolist())
    return str(value)


def coerce(name: str, value: Any, kind: str, table: bool = False) -> Any:
    """Converts `value` to the type that an annotation names: text is parsed, other types are checked.

    Parameters
    ----------
    name : str
        The setting's name, for errors.
    value : object
        Text, from an option or from key=value, or a value from TOML or JSON.
    kind : str
        'int', 'float', 'bool', 'str', one of these with '| None', or 'tuple[int, ...]' and the like. The text of a
        tuple has commas between its items.
    table : bool
        Whether a dict is accepted, and kept as JSON text.

    Raises
    ------
    ConfigError
        The value does not fit; it names the setting.
    """
    bare, optional = _without_none(kind)
    if isinstance(value, dict):
        if table:
            return json.dumps(value, sort_keys=True)
        raise ConfigError(f"{name} does not fit", expected=EXPECTED.get(bare, "values"), found="a table",
                          remedy="settings stand at the top, in no table")
    if value is None or (optional and isinstance(value, str) and value.strip().lower() in _NOTHING):
        if optional:
            return None
        raise _wrong(name, bare, value)
    item = _item_kind(bare)
    return _single(name, value, bare) if item is None else _tuple(name, value, item)


def _without_none(kind):
    words = [word.strip() for word in kind.split("|")]
    return next(word for word in words if word != "None"), "None" in words


def _item_kind(kind):
    """The type of a tuple's items; None for other types."""
    return kind[len("tuple["):-1].partition(",")[0].strip() if kind.startswith("tuple[") else None


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
        return documents.parse_json(text)
    except ValueError:
        return text


def _wrong(name, kind, value):
    expected = EXPECTED.get(kind, f"values separated by commas, each {EXPECTED.get(kind[6:-6], 'text')}")
    return ConfigError(f"{name} does not fit", expected=expected, found=repr(value))
