"""Leaves images out that a file names: one path a line, or a table such as that of `gluon-ft audit --labels`."""
from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from typing import NamedTuple

from gluon_ft.data import lists, tables
from gluon_ft.data.images.formats import has_image_suffix
from gluon_ft.data.sources.base import ImageSource
from gluon_ft.data.sources.files import FileSource
from gluon_ft.errors import ConfigError, DataError, near
from gluon_ft.io.paths import AnyPath

COLUMN = "file"  # of the tables that are written here
_WHAT = "images to leave out, one path a line"
_SHOWN = 3


class Named(NamedTuple):
    """An image that the file names, and the line on which it does."""

    line: int
    path: str


def read(path: AnyPath) -> list[Named]:
    """Reads the images that a file names.

    The file is text with one path a line, or a table (.csv, .tsv) whose header has a column `file`, `path`, `image` or
    the like. Empty lines count for nothing.

    Raises
    ------
    DataError
        With `path:line`: a row without a path. Or the file is missing, empty, not UTF-8, or has empty lines only. A
        table without rows, as of an audit that suspects no label, names nothing.
    """
    data = lists.contents(path, _WHAT)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError("not UTF-8", path=path, expected=_WHAT, found=f"byte 0x{data[error.start]:02x} at position "
                        f"{error.start}", remedy="save it as UTF-8") from None
    if "\0" in text:
        raise DataError("not text", path=path, expected=_WHAT, found="a zero byte")
    first = text.split("\n", 1)[0].strip()
    for delimiter in tables.DELIMITERS:
        header = [tables.plain(field) for field in next(csv.reader([first], delimiter=delimiter), [])]
        column = next((header.index(name) for name in (COLUMN, *tables.PATH_NAMES) if name in header), None)
        if column is not None and not has_image_suffix(first):
            return _of_table(path, text, delimiter, column)
    found = [Named(number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not found:
        raise DataError("names no image", path=path, expected=_WHAT, found="empty lines")
    return found


def _of_table(path, text, delimiter, column) -> list[Named]:
    reader, found = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), []
    try:
        next(reader)
        for row in reader:
            if any(field.strip() for field in row):
                if len(row) <= column or not row[column].strip():
                    raise DataError("no path", path=f"{path}:{reader.line_num}", expected="one in each row",
                                    found=lists.shown(delimiter.join(row)))
                found.append(Named(reader.line_num, row[column].strip()))
    except csv.Error as error:
        raise DataError("not a table", path=f"{path}:{reader.line_num}", found=str(error)) from None
    return found


def leave_out(sources: Sequence[ImageSource], path: AnyPath) -> list[FileSource]:
    """The sources without the images that a file names; each of these is in `left_out` of its source.

    A path counts from the current folder or from the root of a source, or is absolute.

    Parameters
    ----------
    sources : sequence of ImageSource
        The parts of one data set.
    path : path-like
        See `read`.

    Raises
    ------
    ConfigError
        A source is of packed records, from which nothing can be left out.
    DataError
        As `read` does; a path is of no image, or of one in several parts; no image of a part is left.
    """
    parts = [source for source in sources if isinstance(source, FileSource)]
    if len(parts) < len(sources):
        other = next(source for source in sources if not isinstance(source, FileSource))
        raise ConfigError("nothing can be left out of packed records", found=other.name,
                          expected="a folder or a list", remedy="leave them out before packing")
    places = [{_place(part.where(i)): i for i in range(len(part))} for part in parts]
    names = [{_plain(name): i for i, name in enumerate(part.names)} for part in parts]
    out: list[set[int]] = [set() for _ in parts]
    unknown = []
    for entry in read(path):
        found = [(part, known[_place(entry.path)]) for part, known in enumerate(places)
                 if _place(entry.path) in known]
        found = found or [(part, known[_plain(entry.path)]) for part, known in enumerate(names)
                          if _plain(entry.path) in known]
        if len(found) > 1:
            raise DataError("names an image of several parts", path=f"{path}:{entry.line}", found=entry.path,
                            expected="one image", remedy=f"write its whole path, such as {parts[1].where(found[1][1])}")
        unknown += [] if found else [entry]
        for part, position in found:
            out[part].add(position)
    if unknown:
        shown = ", ".join(f"{entry.path} in line {entry.line}" for entry in unknown[:_SHOWN])
        raise DataError(f"{len(unknown)} paths are of no image of {' or '.join(part.name for part in parts)}",
                        path=path, found=shown + ", ..." * (len(unknown) > _SHOWN), remedy=near(
                            unknown[0].path, [name for part in parts for name in part.names]))
    return [_without(part, positions, path) for part, positions in zip(parts, out)]


def _without(part: FileSource, positions: set[int], path) -> FileSource:
    kept = [i for i in range(len(part)) if i not in positions]
    if not kept:
        raise DataError("no image is left", path=path, found=f"all {len(part)} of {part.name}")
    found = part.take(kept)
    found.left_out.update((part.names[i], why(path)) for i in sorted(positions))
    return found


def why(path: AnyPath) -> str:
    """The reason that `left_out` of a source has for an image that the file at `path` names."""
    return f"named in {os.fspath(path)}"


def _place(path: str) -> str:
    return lists.sort_key(os.path.abspath(path))[0]


def _plain(name: str) -> str:
    name = name.replace("\\", "/") if os.sep == "/" else name
    return lists.sort_key(name[2:] if name.startswith("./") else name)[0]
