"""Several sources for one part of the data: expands what the user named into paths, and joins the sources into one."""
from __future__ import annotations

import glob
import itertools
import os
import re
from array import array
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from gluon_ft.data import lists
from gluon_ft.data.sources.base import ImageRef, ImageSource
from gluon_ft.data.sources.class_names import describe, normal
from gluon_ft.data.sources.files import FileSource
from gluon_ft.data.sources.records import RecordSource
from gluon_ft.data.sources.walk import Walker
from gluon_ft.errors import DataError
from gluon_ft.io.paths import AnyPath

SEPARATOR = ";"  # between paths in one string, as in MXNet's path_imgrec


def paths_of(named: str | os.PathLike | Iterable[AnyPath]) -> list[Path]:
    """Expands what the user named into paths.

    Parameters
    ----------
    named : path-like or several
        Each is a path, several paths with ';' between them, a pattern such as `photos_*.rec`, or a folder of `.rec`
        files, which stands for these files. If the whole text is an existing path, it is not expanded further. A path
        that does not exist is kept.

    Returns
    -------
    list of Path
        The files of a pattern or folder are sorted by the numbers in their names.

    Raises
    ------
    DataError
        A pattern matches nothing, or a path is given twice.
    """
    texts = [os.fspath(named)] if isinstance(named, (str, os.PathLike)) else [os.fspath(each) for each in named]
    found = [path for text in texts for path in _expand(text)]
    seen: dict[str, Path] = {}
    for path in found:
        real = os.path.realpath(path)
        if real in seen:
            raise DataError("given twice", path=path, expected="each source once", remedy="leave one out")
        seen[real] = path
    return found


def _expand(text: str) -> list[Path]:
    if os.path.isdir(text):
        return _records_in(Path(text)) or [Path(text)]
    if os.path.lexists(text):
        return [Path(text)]
    if SEPARATOR in text:
        return [path for part in text.split(SEPARATOR) if part.strip() for path in _expand(part.strip())]
    if not glob.has_magic(text):
        return [Path(text)]
    matching = sorted(glob.glob(text), key=_numeric_key)
    if not matching:
        raise DataError("no file fits this pattern", path=text, expected="one or more")
    return list(map(Path, matching))


def _records_in(folder: Path) -> list[Path]:
    """The `.rec` files of a folder, sorted by number; none if it has subfolders, which are classes."""
    subfolders, files = Walker(folder, strict=False).top()
    return [] if subfolders else [folder / name for name in sorted(files, key=_numeric_key) if name.endswith(".rec")]


def _numeric_key(name: str) -> list:
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"([0-9]+)", name)]


class JoinedRecords(RecordSource):
    """The images of several `.rec` files, concatenated.

    Attributes
    ----------
    parts : list of RecordSource
    """

    def __init__(self, parts: Sequence[RecordSource], labels: np.ndarray, class_names: Sequence[str] | None):
        offsets = array("Q", itertools.chain.from_iterable(part.offsets for part in parts))
        super().__init__(parts[0].path, offsets, labels, class_names)
        self.parts = list(parts)
        self.name = ", ".join(part.name for part in parts)
        self.remedy = "see all of it with gluon-ft verify"
        self._ends = np.cumsum([len(part) for part in parts])

    def _locate(self, position: int) -> tuple[RecordSource, int]:
        number = int(np.searchsorted(self._ends, position, side="right"))
        return self.parts[number], position - int(self._ends[number - 1] if number else 0)

    def where(self, position: int) -> str:
        part, own = self._locate(position)
        return part.where(own)

    def image_name(self, position: int) -> str:
        part, own = self._locate(position)
        return f"{part.path.name} {part.image_name(own)}"

    def ref(self, position: int) -> ImageRef:
        part, own = self._locate(position)
        return part.ref(own)


def join(found: Sequence[ImageSource]) -> ImageSource:
    """Joins sources into one that has all their images. Labels are matched by class name, not by number.

    Raises
    ------
    DataError
        Image files are mixed with records; images are in memory; or only some of the sources have class names.
    """
    if len(found) == 1:
        return found[0]
    labels, class_names = _merged_labels(found)
    if all(isinstance(source, RecordSource) for source in found):
        return JoinedRecords([source for source in found if isinstance(source, RecordSource)], labels, class_names)
    files = [source for source in found if isinstance(source, FileSource)]
    if len(files) < len(found):
        other = next(source for source in found if not isinstance(source, FileSource))
        raise DataError("sources of two kinds in one part", path=other.name, found=other.kind,
                        expected=f"{files[0].kind if files else 'files'} as {found[0].name}",
                        remedy="pack the files as well (gluon-ft pack), or give only one kind")
    root = os.path.commonpath([os.path.abspath(source.root) for source in files])
    names, left_out = [], {}
    for source in files:
        before = os.path.relpath(os.path.abspath(source.root), root).replace(os.sep, "/")
        before = "" if before == "." else f"{before}/"
        names += [name if os.path.isabs(name) else before + name for name in source.names]
        left_out.update((before + name, why) for name, why in source.left_out.items())
    kind = "folder" if all(source.kind == "folder" for source in files) else "list"
    joined = FileSource(root, root, names, labels, class_names, kind=kind, left_out=left_out)
    joined.name = ", ".join(source.name for source in files)
    return joined


def _merged_labels(found: Sequence[ImageSource]) -> tuple[np.ndarray, list[str] | None]:
    """(all labels, class names): the names of the source that has all classes, or else the sorted union."""
    named = [source for source in found if source.class_names is not None and not source.numbered]
    if not named:
        return np.concatenate([source.labels for source in found]), None
    if len(named) < len(found):
        unnamed = next(source for source in found if source not in named)
        raise DataError("class names are not known here, and elsewhere they are", path=unnamed.name,
                        expected=describe(named[0].class_names or ()), found="numbers",
                        remedy="put its classes.txt or manifest beside it")
    every = [list(source.class_names or ()) for source in found]
    plain = [list(map(normal, names)) for names in every]
    longest = max(range(len(found)), key=lambda i: len(every[i]))
    united = plain[longest]
    if not all(set(names) <= set(united) for names in plain):
        united = sorted({name for names in plain for name in names}, key=lists.sort_key)
    number = {name: i for i, name in enumerate(united)}
    labels = [np.array([number[name] for name in names], dtype=np.int64)[source.labels]
              for source, names in zip(found, plain)]
    shown = dict(zip(plain[longest], every[longest]))
    return np.concatenate(labels), [shown.get(name, name) for name in united]


def check_shards(found: Sequence[ImageSource]) -> None:
    """Raises DataError if the sources include some shards of a packed list but not all of them."""
    packings: dict[tuple, dict[int, RecordSource]] = defaultdict(dict)
    for source in found:
        if isinstance(source, RecordSource) and source.shard is not None:
            number, of, packing = source.shard
            packings[packing, of][number] = source
    for (_, of), here in packings.items():
        missing = [number for number in range(of) if number not in here]
        if missing:
            number, source = next(iter(here.items()))
            pattern = re.sub(rf"_{number}\.rec$", "_*.rec", str(source.path))
            raise DataError(f"shard {number} of {of} (counted from 0), without the others", path=source.path,
                            expected=f"all {of}", found=f"no {', '.join(map(str, missing[:4]))}"
                            + ", ..." * (len(missing) > 4),
                            remedy=f"give all of them, such as '{pattern}', or pack into one file")
