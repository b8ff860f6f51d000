"""Reads untrusted JSON and TOML within limits on length, nesting and numbers, and without duplicate names.

The functions raise a plain ValueError with a short reason; the caller, who knows what the file should be, makes a
UserError of it. Nothing else in the package reads JSON files.
"""
from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Iterable
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]  (installed on these Pythons only)

MOST_BYTES = 1 << 20  # of files that people write, and of cards
MOST_BYTES_RECORDED = 1 << 30  # of files that grow with the images: 40 million records, 5 million rows of data.json
MOST_LEVELS = 32  # of nested objects and lists; gluon_ft's own files have 6
_MOST_DIGITS = 100
_MOST_DOTS = 64
_INTEGERS = range(-(1 << 63), 1 << 64)

# A string up to its end (or the text's, if it is not closed), or a bracket. None of these patterns backtracks.
_JSON_TOKENS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|[\[{]|[\]}]', re.DOTALL)
_TOML_TOKENS = re.compile(r'"""|\'\'\'|"[^"\\\n]*(?:\\.[^"\\\n]*)*"?|\'[^\'\n]*\'?|#[^\n]*|[\[{]|[\]}]')
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
# Without U+DC80 to U+DCFF, which os.fsdecode makes of bytes in a file name that are not UTF-8.
_LONE_SURROGATE = re.compile("[\ud800-\udc7f\udd00-\udfff]")


def read_json(path: str | os.PathLike, most_bytes: int = MOST_BYTES) -> Any:
    """The value in a JSON file. Raises OSError, and ValueError as `parse_json` does.

    most_bytes : the largest file that is read
    """
    return parse_json(read_bytes(path, most_bytes), most_bytes)


def read_toml(path: str | os.PathLike, most_bytes: int = MOST_BYTES) -> dict[str, Any]:
    """The table in a TOML file. Raises OSError, and ValueError as `parse_toml` does.

    most_bytes : the largest file that is read
    """
    return parse_toml(read_bytes(path, most_bytes))


def read_bytes(path: str | os.PathLike, most_bytes: int = MOST_BYTES) -> bytes:
    """The bytes of a file; ValueError where there are more than `most_bytes`. Raises OSError."""
    with open(path, "rb") as file:
        data = file.read(most_bytes + 1)
    _check_length(len(data), most_bytes)
    return data


def parse_json(text: str | bytes, most_bytes: int = MOST_BYTES, most_levels: int = MOST_LEVELS) -> Any:
    """The value in a JSON text.

    Parameters
    ----------
    text : str or bytes
        Bytes are UTF-8, with or without a byte order mark.
    most_bytes : int
        Limit on the length, in bytes or characters.
    most_levels : int
        Limit on nested objects and lists.

    Raises
    ------
    ValueError
        The text is too long, nested too deeply, not UTF-8 or not JSON; or it has the same name twice in one object,
        NaN, infinity, a number beyond 64 bits, or a lone surrogate. Surrogates that stand for a byte of a file name
        that is not UTF-8, such as `\\udcff`, are allowed.
    """
    _check_length(len(text), most_bytes)
    text = _decoded(text)
    _check_levels(text, _JSON_TOKENS, most_levels)
    try:
        value = json.loads(text, object_pairs_hook=_distinct, parse_int=_integer, parse_float=_float,
                           parse_constant=_no_number)
    except RecursionError:
        raise ValueError(f"nested more than {most_levels} levels deep") from None
    if _ESCAPED_SURROGATE.search(text):
        _check_texts(value)
    return value


def parse_toml(text: str | bytes) -> dict[str, Any]:
    """The table in a TOML text, with the limits of `parse_json`. Raises ValueError."""
    _check_length(len(text), MOST_BYTES)
    text = _decoded(text)
    _check_levels(text, _TOML_TOKENS, MOST_LEVELS)
    # tomllib takes quadratic time and memory for the parts of a dotted name.
    if any(part.count(".") > _MOST_DOTS for line in text.splitlines() for part in line.split(",")):
        raise ValueError(f"a name of more than {_MOST_DOTS} parts")
    try:
        table = tomllib.loads(text)
    except RecursionError:
        raise ValueError(f"nested more than {MOST_LEVELS} levels deep") from None
    for value, level in _walk(table):
        if level > MOST_LEVELS:
            raise ValueError(f"nested more than {MOST_LEVELS} levels deep")
        if isinstance(value, int) and value not in _INTEGERS:
            raise ValueError("a number that 64 bits do not hold")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"a number that is not finite ({value})")
    return table


def encoded(value: Any, indent: int | None = None) -> bytes:
    """`value` as JSON in UTF-8; bytes of file names that are not UTF-8 are kept, as `\\udcff`.

    Raises ValueError for NaN and infinity.
    """
    return json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace")


def _check_length(length: int, most: int) -> None:
    if length > most:
        raise ValueError(f"longer than {most:,} bytes")


def _decoded(text: str | bytes) -> str:
    if isinstance(text, str):
        return text
    if text[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ValueError("the text is UTF-16; save it as UTF-8")
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 (byte {error.object[error.start]:#04x} at {error.start})") from None


def _check_levels(text: str, tokens: re.Pattern[str], most: int) -> None:
    if text.count("[") + text.count("{") <= most:
        return
    level, quotes = 0, None
    for match in tokens.finditer(text):
        token = match[0]
        if token in ('"""', "'''"):
            quotes = None if quotes == token else quotes or token
        elif quotes is None and token in "[{":
            level += 1
            if level > most:
                raise ValueError(f"nested more than {most} levels deep")
        elif quotes is None and token in "]}":
            level = max(0, level - 1)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ValueError(f"'{twice[:60]}' is given twice")
    return made


def _integer(digits: str) -> int:
    if len(digits) > _MOST_DIGITS or int(digits) not in _INTEGERS:
        raise ValueError(f"a number that 64 bits do not hold ({digits[:24]}...)")
    return int(digits)


def _float(digits: str) -> float:
    if len(digits) > _MOST_DIGITS or not math.isfinite(float(digits)):
        raise ValueError(f"a number that 64 bits do not hold ({digits[:24]}...)")
    return float(digits)


def _no_number(word: str) -> float:
    raise ValueError(f"a number that is not finite ({word})")


def _check_texts(value: Any) -> None:
    for item, _ in _walk(value):
        texts: Iterable[str] = item if isinstance(item, dict) else [item] if isinstance(item, str) else []
        if any(_LONE_SURROGATE.search(text) for text in texts):
            raise ValueError("half of a character (a lone surrogate)")


def _walk(value: Any) -> Iterable[tuple[Any, int]]:
    """Every value in nested dicts and lists with its nesting level; without recursion."""
    waiting = [(value, 0)]
    while waiting:
        item, level = waiting.pop()
        yield item, level
        if isinstance(item, dict):
            waiting += [(part, level + 1) for part in item.values()]
        elif isinstance(item, list):
            waiting += [(part, level + 1) for part in item]
