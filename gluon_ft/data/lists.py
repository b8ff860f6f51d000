"""Image lists in im2rec's format (`.lst`: index, label, path) and the class names beside them (`.classes.txt`)."""
from __future__ import annotations

import codecs
import glob
import math
import operator
import os
import re
import stat
import unicodedata
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gluon_ft.errors import DataError
from gluon_ft.io import atomic
from gluon_ft.io.paths import AnyPath

MAX_BYTES = 1 << 30  # ImageNet-21k's 14 million lines take about 0.7 GB
MAX_LINE = 1 << 20  # bytes; enough for thousands of boxes in a detection list
MAX_INDEX = (1 << 63) - 1  # stored in 64 bits of the record's header
MAX_LABEL = 1 << 24  # stored as float32 in the record's header, which is exact up to here

COLUMNS = "index, label and path, separated by tabs"
SUFFIXES = (".lst", ".csv", ".tsv", ".txt")  # of lists, see `tables.load`
ONE_CLASS = "one class an image"
SEVERAL = ("training here takes one class an image; gluon-ft pack packs a .lst with several label columns, and MXNet's "
           "ImageRecordIter (label_width) and ImageDetRecordIter read such records")

_INTEGER = re.compile(r"[0-9]{1,19}")
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")


class Entry(NamedTuple):
    """One line of a list. `labels` has one number, the class, or several (for im2rec's `--pack-label`)."""

    index: int
    labels: tuple[float, ...]
    path: str

    @property
    def label(self) -> int:
        """The class. Raises DataError if there are several labels."""
        if len(self.labels) != 1:
            raise DataError("several labels where one class is needed", path=self.path, found=len(self.labels),
                            remedy=SEVERAL)
        return int(self.labels[0])


def list_file(prefix: AnyPath, part: str) -> Path:
    """`<prefix>-<part>.lst`; part is train, val, test or fold<i>-train, fold<i>-val."""
    return Path(f"{os.fspath(prefix)}-{part}.lst")


def classes_file(prefix: AnyPath) -> Path:
    """`<prefix>.classes.txt`, one name a line in label order."""
    return Path(f"{os.fspath(prefix)}.classes.txt")


def is_list(path: AnyPath) -> bool:
    """Whether a path has the suffix of a list: `.lst`, `.csv`, `.tsv` or `.txt`."""
    return os.fspath(path).lower().endswith(SUFFIXES)


def without_suffix(lst: AnyPath) -> Path:
    """The path of a list without its `.lst`, `.csv`, ..."""
    text = os.fspath(lst)
    return Path(text[:-4] if is_list(text) else text)


def sort_key(name: str) -> tuple[str, str]:
    """Sort key that orders names by code point, independent of the locale and of the file system.

    macOS may store 'é' as two code points (NFD) where Linux has one (NFC); both are sorted as NFC. The unchanged name
    comes second, to order two names with the same NFC.
    """
    return unicodedata.normalize("NFC", name), name


def check_spelling(names: Iterable[str], path: AnyPath) -> None:
    """Raises DataError if two class names differ only by case or by Unicode composition."""
    seen: dict[str, str] = {}
    for name in names:
        # NFC again, because casefold can separate a letter from its accent.
        folded = unicodedata.normalize("NFC", sort_key(name)[0].casefold())
        if folded in seen:
            how = "case" if sort_key(name)[0] != sort_key(seen[folded])[0] else "Unicode composition"
            raise DataError(f"two classes differ only by {how}", path=path, found=f"'{seen[folded]}' and '{name}'",
                            remedy="merge or rename one: not every file system keeps them apart")
        seen[folded] = name


def find_lists(prefix: AnyPath) -> list[Path]:
    """The lists of a prefix: `<prefix>.lst`, `<prefix>-*.lst` and `<prefix>_*.lst`; or itself, if it is a list.

    Raises DataError if there are none.
    """
    text = os.fspath(prefix)
    if text.endswith(".lst") or (is_list(text) and os.path.isfile(text)):
        return [Path(text)]
    found = [Path(f"{text}.lst")] if os.path.isfile(f"{text}.lst") else []
    found += sorted(Path(p) for mark in "-_" for p in glob.glob(f"{glob.escape(text)}{mark}*.lst"))
    if not found:
        raise DataError("no list", path=f"{text}.lst", expected=f"it, or {text}-train.lst and the like",
                        remedy="write lists with gluon-ft split")
    return found


def find_class_names(lst: AnyPath) -> list[str] | None:
    """Class names for a list or records, from the `<prefix>.classes.txt` with the longest prefix of its name, or None.

    A prefix ends before a dash, an underscore, a dot, a number, or one of 'train', 'val', 'test' and 'fold'.
    """
    path = without_suffix(lst)
    ends = [match.start() for match in re.finditer("[-_.]|[0-9]+|train|val|test|fold", path.name)]
    for end in [len(path.name), *reversed(ends)]:
        names = path.with_name(f"{path.name[:end]}.classes.txt") if path.name[:end] else None
        if names is not None and names.is_file():
            return read_classes(names)
    return None


class Entries(Sequence):
    """The entries of a list, kept as text and parsed on access to save memory.

    As Python objects, ImageNet's 1.3 million entries would take 600 MB; this way each takes 8 bytes beside the text.
    """

    def __init__(self, data: bytes, starts):
        self._data, self._starts = data, starts

    def __len__(self):
        return len(self._starts)

    def __getitem__(self, position):
        if isinstance(position, slice):
            return [self[i] for i in range(*position.indices(len(self)))]
        start = self._starts[position]
        return _parse(self._data[start:self._data.index(b"\n", start)].decode("utf-8"), "")

    def __eq__(self, other):
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(operator.eq, self, other))

    __hash__ = None  # pyright: ignore[reportAssignmentType] - compares equal to lists, which are not hashable


def read(path: AnyPath) -> Entries:
    """Reads a list in im2rec's format. MXNet's `tools/im2rec.py` reads each accepted list in the same way.

    A single label column is the class, a whole number from 0 to 2**24. Several label columns hold any finite numbers;
    all lines must have the same kind. The file is UTF-8 with lines ending in `\\n` or `\\r\\n`. The last line must end
    too, so that a list that was cut short is noticed.

    Raises
    ------
    DataError
        With `path:line`: a column is missing; a label is not a finite number, or is not a class; an index occurs twice;
        the encoding is not UTF-8; a line is empty; some lines have one label and others several. Or the file is
        missing, empty, cut short or larger than `MAX_BYTES`.
    """
    data = contents(path, "an image list")
    starts, indexes, columns = array("q"), array("q"), 0
    for number, start, text in _lines(data, path, "an image list"):
        entry = _parse(text, f"{path}:{number}")
        if columns and (len(entry.labels) > 1) != (columns > 1):
            raise DataError("other label columns than in line 1", path=f"{path}:{number}",
                            expected="one in every line, or several in every line",
                            found=f"{columns} in line 1 and {len(entry.labels)} here")
        columns = columns or len(entry.labels)
        starts.append(start)
        indexes.append(entry.index)
    _check_indexes(np.frombuffer(indexes, dtype=np.int64), path)
    return Entries(data, starts)


def _check_indexes(indexes, path):
    order = np.argsort(indexes, kind="stable")
    twice = np.flatnonzero(np.diff(indexes[order]) == 0)
    if len(twice):
        later = order[twice + 1].min()
        first = np.flatnonzero(indexes == indexes[later])[0]
        raise DataError(f"index {indexes[later]} is there twice", path=f"{path}:{later + 1}",
                        expected="each index once", found=f"it is in line {first + 1} too")


def _parse(text: str, where: str) -> Entry:
    # Blanks around a column are allowed, because im2rec strips them.
    columns = [column.strip() for column in text.split("\t")]
    if len(columns) < 3:
        raise DataError("missing column" if text.strip() else "empty line", path=where, expected=COLUMNS,
                        found=f"{len(columns)} column{'s' * (len(columns) > 1)}: {shown(text)}")
    index, *labels, path = columns
    if not _INTEGER.fullmatch(index) or int(index) > MAX_INDEX:
        raise DataError("bad index", path=where, expected="a whole number from 0 to 2**63 - 1", found=shown(index))
    if not path or "\0" in path:
        raise DataError("bad path", path=where, expected="the path of an image", found=shown(path))
    return Entry(int(index), tuple(_label(label, len(labels) == 1, where) for label in labels), path)


def _label(text: str, is_class: bool, where: str) -> float:
    value = float(text) if NUMBER.fullmatch(text) else math.nan
    if not math.isfinite(value):
        raise DataError("label is not a number", path=where, expected=COLUMNS, found=shown(text))
    if is_class and not (value.is_integer() and 0 <= value <= MAX_LABEL):
        raise DataError("label is not a class", path=where, expected="a whole number from 0 to 2**24",
                        found=shown(text))
    return value


def read_classes(path: AnyPath) -> list[str]:
    """Reads class names, one per line; the line number from 0 is the label.

    Raises DataError, with `path:line`, for an empty or repeated name, a NUL character or another encoding than UTF-8;
    and for a file that is missing, empty, cut short or too large.
    """
    names: list[str] = []
    first_line: dict[str, int] = {}
    what = "class names, one a line"
    for number, _, name in _lines(contents(path, what), path, what):
        where = f"{path}:{number}"
        if not name.strip() or "\0" in name:
            raise DataError("bad class name", path=where, expected="one name a line", found=shown(name))
        plain = sort_key(name)[0]
        if plain in first_line:
            raise DataError(f"class '{name}' is there twice", path=where,
                            found=f"it is in line {first_line[plain]} too")
        first_line[plain] = number
        names.append(name)
    return names


def _lines(data: bytes, path, what: str) -> Iterator[tuple[int, int, str]]:
    """(line number from 1, position of its first byte, text without the line end) of each line of a UTF-8 file."""
    if data.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError("begins with a byte order mark", path=f"{path}:1", expected="plain UTF-8",
                        remedy="save it as UTF-8 without a byte order mark")
    if not data.endswith(b"\n"):
        raise DataError("last line does not end", path=f"{path}:{data.count(10) + 1}", expected="a line end",
                        found="the end of the file",
                        remedy="the file may be cut short: write it again, or end its last line")
    start, number = 0, 0
    while start < len(data):
        number += 1
        end = data.index(b"\n", start)
        yield number, start, decoded(data[start:end], f"{path}:{number}", what)
        start = end + 1


def decoded(raw: bytes, where: str, what: str) -> str:
    """Decodes one line of a UTF-8 text file, and removes its `\\r`.

    Parameters
    ----------
    raw : bytes
        The line without its `\\n`.
    where, what : str
        The place of the line and the kind of file, for errors.

    Raises
    ------
    DataError
        The line is too long, is not UTF-8, or contains another `\\r`.
    """
    if len(raw) > MAX_LINE:
        raise DataError("line is too long", path=where, expected=f"at most {MAX_LINE} bytes", found=len(raw))
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError("not UTF-8", path=where, expected=f"{what} in UTF-8",
                        found=f"byte 0x{raw[error.start]:02x} at position {error.start}",
                        remedy="save it as UTF-8") from None
    text = text[:-1] if text.endswith("\r") else text
    if "\r" in text:
        # im2rec would begin a new line here, as Python does in text mode.
        raise DataError("carriage return inside a line", path=where, found=shown(text), remedy="end each line once")
    return text


def contents(path: AnyPath, what: str) -> bytes:
    """Reads a text file; DataError, which calls it `what`, if it is missing, empty, not a file or over `MAX_BYTES`."""
    try:
        # Checked before opening, because opening a pipe would wait for its writer.
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise DataError("not a file", path=path, expected=what,
                            found="a folder" if stat.S_ISDIR(status.st_mode) else "a device or a pipe")
        if status.st_size > MAX_BYTES:
            raise DataError("file is too large", path=path, expected=f"{what}, at most {MAX_BYTES} bytes",
                            found=f"{status.st_size} bytes")
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise DataError("no such file", path=path, expected=what) from None
    except OSError as error:
        raise DataError("file cannot be read", path=path, expected=what, found=error.strerror or error) from error
    if not data:
        raise DataError("file is empty", path=path, expected=what)
    return data


def shown(text: str) -> str:
    """Text from a file for use in an error: quoted, with control characters escaped, cut to 80 characters."""
    quoted = repr(text)
    return quoted if len(quoted) <= 80 else f"{quoted[:77]}..."


def to_bytes(entries: Iterable[Entry], name: str | os.PathLike = "image list") -> bytes:
    """A list with one class per image, byte for byte as `tools/im2rec.py --list` writes it.

    Raises DataError if there are no entries, an index occurs twice, a label is not a class, or a path cannot be written
    in a list: it contains a tab or a line end, or begins or ends with a blank, which MXNet's readers strip.
    """
    lines, seen = [], set()
    for entry in entries:
        index, (label, *more), path = entry
        if not path or path != path.strip() or any(c in path for c in "\t\n\r\0") or not _is_utf8(path):
            raise DataError("cannot stand in an image list", path=repr(path),
                            expected="a path without tabs, line ends or blanks at its ends",
                            remedy="rename the file or its folder")
        if more or not 0 <= label <= MAX_LABEL or label != int(label):
            raise DataError("label is not a class", path=repr(path), expected="a whole number from 0 to 2**24",
                            found=entry.labels)
        if index in seen or not 0 <= index <= MAX_INDEX:
            raise DataError(f"index {index} is out of range or there twice", path=name, expected="each index once")
        seen.add(index)
        lines.append(f"{index:d}\t{label:f}\t{path}\n")
    if not lines:
        raise DataError("nothing to list", path=name, expected="one image or more")
    return "".join(lines).encode("utf-8")


def _is_utf8(text: str) -> bool:
    # Python represents a file name that is not UTF-8 with lone surrogates.
    return text.encode("utf-8", "ignore").decode("utf-8") == text


def classes_to_bytes(names: Iterable[str], name: str | os.PathLike = "class names") -> bytes:
    """Class names as text for `read_classes`; DataError for a name that it could not read back."""
    names = list(names)
    for each in names:
        if not each.strip() or any(c in each for c in "\n\r\0") or not _is_utf8(each):
            raise DataError("class name cannot stand in a list", path=name, expected="one line that is not blank",
                            found=repr(each), remedy="rename the folder")
    if len(set(names)) != len(names) or len(names) < 2:
        raise DataError("bad class names", path=name, expected="two or more, each once", found=f"{len(names)} names")
    return "".join(f"{each}\n" for each in names).encode("utf-8")


def write(path: AnyPath, entries: Iterable[Entry], *, force: bool = False) -> None:
    """Writes one list atomically.

    Parameters
    ----------
    path : path-like
        Usually ends in `.lst`; the folder must exist.
    entries : iterable of Entry
        Each with a single label.
    force : bool, default False
        Replace an existing file.

    Raises
    ------
    DataError
        The file exists and `force` is False; it cannot be written; or `to_bytes` refuses an entry.
    """
    atomic.write_together({Path(path): to_bytes(entries, path)}, force=force)
