"""`load`: reads image lists in several formats: im2rec's, tables such as CSV, text with a path and label per line."""
from __future__ import annotations

import csv
import math
import os
import re
from collections.abc import Sequence
from typing import NamedTuple

from gluon_ft.data import lists
from gluon_ft.data.images.formats import SUFFIXES, has_image_suffix
from gluon_ft.data.lists import NUMBER, Entry
from gluon_ft.errors import DataError, near
from gluon_ft.io.paths import AnyPath

# Known column names, in lower case without '_', '-' and blanks. Earlier names take precedence.
PATH_NAMES = ("image", "images", "imagepath", "imgpath", "path", "filepath", "filename", "file", "files", "imagename",
              "imgname", "img", "imageid", "imgid", "photo", "picture", "url", "id")
LABEL_NAMES = ("classname", "labelname", "class", "label", "labels", "category", "categoryname", "target", "species",
               "breed", "classid", "labelid", "categoryid", "y")
SPLIT_NAMES = ("split", "set", "subset", "part", "partition", "fold", "usage", "isvalid", "isval", "istest", "istrain")
DELIMITERS = "\t,;|"
SNIFFED = 20  # lines from which the delimiter is guessed

_PATH_FIRST = re.compile(r"(.*?(?:" + "|".join(re.escape(suffix) for suffix in sorted(SUFFIXES)) + r"))\s+(\S.*)",
                         re.IGNORECASE)


class Listed(NamedTuple):
    """The entries of a list, and its class names in label order; None if the classes have no names."""

    entries: Sequence[Entry]
    class_names: list[str] | None


class _Row(NamedTuple):
    number: int  # line number
    path: str
    label: str


def load(path: AnyPath) -> Listed:
    """Reads an image list in one of several formats.

    - im2rec's `.lst`, in which images may have several labels, see `lists.read`
    - tables with tabs, commas, semicolons or bars between the columns, with or without a header such as `image,label`
    - text with one path and one label per line, in either order

    A label is a class number from 0, or a class name. The class names come from the `.classes.txt` beside the list, see
    `lists.find_class_names`; without one they are the sorted labels, if these are names.

    Raises
    ------
    DataError
        With `path:line`, if a line is wrong: it has no image or no label, another number of columns, an unknown class,
        or several labels. Or it is not clear which column of a table is which, a table contains several parts of a
        split, the encoding is not UTF-8, or the file is missing, empty or too large.
    """
    first = _first_line(path)
    if _is_im2rec(first):
        return Listed(lists.read(path), lists.find_class_names(path))
    try:
        rows = _rows(path)
    except _NoTable as reason:
        if os.fspath(path).endswith(".lst"):
            return Listed(lists.read(path), None)  # which says what is wrong with its line
        raise DataError("not a source of images: it does not show which column is which", path=path, found=reason,
                        expected="a header such as image,label; or images with a suffix and one label a line",
                        remedy="write the header as the first line") from None
    if not rows:
        raise DataError("no images", path=path, expected="one a line", found="a header only")
    return _with_class_numbers(rows, path)


class _NoTable(Exception):
    """Text that cannot be read as a table of images and labels."""


def _first_line(path) -> str:
    data = lists.contents(path, "an image list")
    return data[:data.find(b"\n") if b"\n" in data else len(data)][:lists.MAX_LINE].decode("utf-8", "replace").strip()


def _is_im2rec(line: str) -> bool:
    columns = [part.strip() for part in line.split("\t")]
    if len(columns) < 3:
        return False
    index, *labels, _ = columns
    return index.isdecimal() and all(NUMBER.fullmatch(label) for label in labels)


def _rows(path) -> list[_Row]:
    lines = _numbered_lines(path)
    if not lines:
        raise DataError("no images", path=path, expected="one a line", found="blank lines only")
    delimiter = _delimiter([text for _, text in lines[:SNIFFED]])
    if delimiter is None:
        return [_text_row(path, number, text) for number, text in lines]
    table = [(number, _columns(path, number, text, delimiter)) for number, text in lines]
    width = len(table[0][1])
    for number, fields in table:
        if len(fields) != width:
            raise DataError("another number of columns than in line 1", path=f"{path}:{number}", expected=width,
                            found=len(fields))
    if _is_header(table[0][1]):
        return _with_header(path, table)
    return _without_header(path, table)


def _numbered_lines(path) -> list[tuple[int, str]]:
    """(line number from 1, text) of each line that is not blank."""
    data = lists.contents(path, "an image list")
    data = data[3:] if data.startswith(b"\xef\xbb\xbf") else data
    found = []
    for number, raw in enumerate(data.split(b"\n"), 1):
        text = lists.decoded(raw, f"{path}:{number}", "an image list")
        if "\0" in text:
            raise DataError("not text", path=f"{path}:{number}", expected="an image list", found="a zero byte")
        if text.strip():
            found.append((number, text))
    return found


def _delimiter(lines: list[str]) -> str | None:
    """The first delimiter that gives all these lines the same number of columns; None for text without one."""
    for delimiter in DELIMITERS:
        widths = {len(_fields(line, delimiter) or []) for line in lines}
        if len(widths) == 1 and not widths & {0, 1}:
            return delimiter
    # With a header it is a table, even if a line has the wrong number of columns.
    for delimiter in DELIMITERS:
        fields = _fields(lines[0], delimiter) or []
        if len(fields) > 1 and _is_header(fields):
            return delimiter
    return None


def _fields(text: str, delimiter: str) -> list[str] | None:
    """The columns of a line; None if `csv` refuses it (too long, or unbalanced quotes)."""
    try:
        return [field.strip() for field in next(csv.reader([text], delimiter=delimiter), [])]
    except csv.Error:
        return None


def _columns(path, number: int, text: str, delimiter: str) -> list[str]:
    fields = _fields(text, delimiter)
    if fields is None:
        raise DataError("not a line of a table", path=f"{path}:{number}", expected="columns of at most 131072 letters",
                        found=lists.shown(text))
    return fields


def plain(field: str) -> str:
    """A column's name in lower case, without blanks, '_' and '-'."""
    return re.sub(r"[ _-]", "", field.lower())


def _is_header(fields: list[str]) -> bool:
    return not any(map(has_image_suffix, fields)) and any(plain(field) in (*PATH_NAMES, *LABEL_NAMES)
                                                          for field in fields)


def _with_header(path, table) -> list[_Row]:
    header = table[0][1]
    known = list(map(plain, header))
    parts = [header[known.index(name)] for name in SPLIT_NAMES if name in known]
    if parts:
        raise DataError("a table of several parts", path=f"{path}:1", found=f"a column '{parts[0]}'",
                        expected="the images of one part", remedy="write each part to a file of its own")
    image = next((known.index(name) for name in PATH_NAMES if name in known), None)
    label = next((known.index(name) for name in LABEL_NAMES if name in known), None)
    if len(known) == 2 and (image is None) != (label is None):
        image, label = (1 - label, label) if label is not None else (image, 1 - (image or 0))
    if image is None:
        raise DataError("no column of images", path=f"{path}:1", found=", ".join(header),
                        expected="one that is called image, path, filename or the like")
    if label is not None:
        return [_row(path, number, fields[image], fields[label]) for number, fields in table[1:]]
    others = [i for i in range(len(known)) if i != image]
    if len(others) < 2 or any(fields[i] not in ("0", "1", "0.0", "1.0") for _, fields in table[1:] for i in others):
        raise DataError("no column of labels", path=f"{path}:1", found=", ".join(header),
                        expected="one that is called label, class, category or the like")
    return [_one_hot(path, number, fields, image, others, header) for number, fields in table[1:]]


def _one_hot(path, number, fields, image, others, header) -> _Row:
    chosen = [header[i] for i in others if float(fields[i])]
    if len(chosen) != 1:
        raise several_labels(f"{path}:{number}", ", ".join(chosen) or "none")
    return _row(path, number, fields[image], chosen[0])


def _without_header(path, table) -> list[_Row]:
    first = table[0][1]
    image = [i for i, field in enumerate(first) if has_image_suffix(field)]
    # The first of three or more columns is an index if it holds only numbers, as in im2rec's lists.
    others = [i for i in range(len(first)) if i not in image and not (i == 0 and len(first) > 2 and
              all(fields[0].isdecimal() for _, fields in table))]
    if len(image) != 1 or not others:
        raise _NoTable(f"columns {lists.shown(', '.join(first))}")
    if len(others) > 1:
        if all(NUMBER.fullmatch(first[i]) for i in others):
            raise several_labels(f"{path}:{table[0][0]}", ", ".join(first[i] for i in others))
        raise _NoTable(f"{len(first)} columns: {lists.shown(', '.join(first))}")
    return [_row(path, number, fields[image[0]], fields[others[0]]) for number, fields in table]


def _text_row(path, number: int, line: str) -> _Row:
    """Splits a line of text into image and label; both may contain blanks."""
    line = line.strip()
    if has_image_suffix(line):
        label, _, image = line.partition(" " if " " in line else "\t")
    else:
        found = _PATH_FIRST.fullmatch(line)
        if found is None:
            raise _NoTable(f"line {number}: {lists.shown(line)}")
        image, label = found.groups()
    if len(label.split()) > 1 and all(map(NUMBER.fullmatch, label.split())):
        raise several_labels(f"{path}:{number}", label)
    return _row(path, number, image, label)


def _row(path, number: int, image: str, label: str) -> _Row:
    where = f"{path}:{number}"
    image, label = image.strip(), label.strip()
    if not image or not label:
        raise DataError("no image" if not image else "no label", path=where, expected="an image and its label",
                        found=lists.shown(image or label))
    if "|" in label or ";" in label:
        raise several_labels(where, label)
    # Paths in lists written on Windows have backslashes.
    return _Row(number, image.replace("\\", "/") if os.sep == "/" else image, label)


def several_labels(where: str, found: str) -> DataError:
    """The error for an image with several labels."""
    return DataError("several labels an image", path=where, expected=lists.ONE_CLASS, found=lists.shown(found),
                     remedy=lists.SEVERAL)


def _with_class_numbers(rows: list[_Row], path) -> Listed:
    names = lists.find_class_names(path)
    if all(NUMBER.fullmatch(row.label) for row in rows):
        labels = [_class_number(row, path) for row in rows]
    else:
        plain = [lists.sort_key(row.label)[0] for row in rows]
        if names is None:
            names = sorted(set(plain), key=lists.sort_key)
            lists.check_spelling(names, path)
        number = {lists.sort_key(name)[0]: i for i, name in enumerate(names)}
        for row, name in zip(rows, plain):
            if name not in number:
                raise DataError(f"class '{row.label}' is not known", path=f"{path}:{row.number}",
                                expected=f"one of the {len(names)} in its .classes.txt", remedy=near(name, names))
        labels = [float(number[name]) for name in plain]
    return Listed([Entry(i, (label,), row.path) for i, (row, label) in enumerate(zip(rows, labels))], names)


def _class_number(row: _Row, path) -> float:
    value = float(row.label)
    if not math.isfinite(value) or not value.is_integer() or not 0 <= value <= lists.MAX_LABEL:
        raise DataError("label is not a class", path=f"{path}:{row.number}", expected="a whole number from 0 to 2**24, "
                        "or names", found=lists.shown(row.label))
    return value
