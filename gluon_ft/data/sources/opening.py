"""`open_source`: from what a user names (a folder, a list, records, IDX files, arrays) to an `ImageSource`."""
from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gluon_ft.data.lists import is_list
from gluon_ft.data.sources import arrays, folders
from gluon_ft.data.sources.base import ImageSource, check_labels, numbered_classes
from gluon_ft.data.sources.files import FileSource, from_list
from gluon_ft.data.sources.joined import join, paths_of
from gluon_ft.data.sources.records import RecordSource, open_records, scan_records
from gluon_ft.errors import DataError
from gluon_ft.io.paths import AnyPath

EXPECTED = "a folder of classes, a .lst, a .rec, two IDX files or (images, labels), or a list as .csv, .tsv or .txt"


def open_source(source: Any, root: AnyPath | None = None, class_names: Sequence[str] | None = None,
                partial: bool = False) -> ImageSource:
    """Opens images to train on or to evaluate: each has one label, which fits the class names.

    Parameters
    ----------
    source : path-like, tuple or ImageSource
        A folder with one subfolder of images a class; a list in a form that `tables.load` reads (`.lst`, `.csv`,
        `.tsv`, `.txt`), with class names from its labels or from `<prefix>.classes.txt`; a `.rec` of ours or of
        im2rec, with class names from its manifest; (images, labels), either two IDX files or arrays, see
        `arrays.ArraySource`; or a source that is open already. Several folders, lists or records are joined: in a
        list, in one text with ';' between them, by a pattern such as `photos_*.rec`, or as a folder of records.
    root : path-like, optional
        Folder that the paths of a list begin at; default its own.
    class_names : list of str, optional
        Expected names in label order. A source that names its classes may lack some of them, and gets its labels by
        name; where nothing names them, its labels are positions in these.
    partial : bool, default False
        True for images that are only evaluated: they may be of one class, and a class folder may be empty.

    Returns
    -------
    ImageSource
        With `class_names` set: where nothing names the classes, their numbers (`numbered` is then true).

    Raises
    ------
    DataError
        Not a source of images; no images, or files of a list that are missing; one class only; a label outside the
        classes; other classes than expected.
    """
    class_names = None if class_names is None else list(class_names)
    if isinstance(source, ImageSource):
        found = source
    elif isinstance(source, (tuple, list)) and len(source) == 2 and not any(map(_is_set, source)):
        found = _pair(source[0], source[1], class_names)
    elif isinstance(source, (str, os.PathLike)) or _is_several(source):
        found = _paths(paths_of(source), root, partial or class_names is not None)
    else:
        raise DataError("not a source of images", found=type(source).__name__, expected=EXPECTED)
    return _checked(found, class_names, least=1 if partial else 2)


def _pair(images, labels, class_names) -> ImageSource:
    if isinstance(images, (str, os.PathLike)) and isinstance(labels, (str, os.PathLike)):
        return arrays.from_idx(images, labels, class_names)
    return arrays.ArraySource(images, labels, class_names)


def _is_set(named) -> bool:
    """Whether it names a set of images, and not one file of two that belong together."""
    return isinstance(named, (str, os.PathLike)) and (os.path.isdir(named) or is_list(named)
                                                      or os.fspath(named).lower().endswith(".rec"))


def _is_several(source) -> bool:
    return isinstance(source, (tuple, list)) and bool(source) and all(isinstance(each, (str, os.PathLike))
                                                                      for each in source)


def _paths(paths: Sequence[Path], root, partial) -> ImageSource:
    # One of several may lack classes that another has.
    return join([_path(path, root, partial or len(paths) > 1) for path in paths])


def _path(path: Path, root, partial) -> ImageSource:
    suffix = path.suffix.lower()
    if root is not None and not is_list(path):
        raise DataError("root is for the paths of a .lst or another list", path=path, found=f"root {root}")
    if path.is_dir():
        return folders.scan(path, partial=partial)
    if not path.exists() or not (is_list(path) or suffix == ".rec"):
        raise DataError("not a source of images" if path.exists() else "no such file or folder", path=path,
                        expected=EXPECTED)
    return _list(path, root) if is_list(path) else open_records(path)


def _list(path: Path, root) -> FileSource:
    found = from_list(path, root)
    missing = [place for place in found.paths if not os.path.isfile(place)]
    if missing:
        raise DataError(f"{len(missing)} of the {len(found)} images of the list are missing", path=path,
                        expected=f"them in {found.root}", found=f"no {missing[0]}",
                        remedy="give the folder that the list's paths begin at as root")
    return found


def _checked(found: ImageSource, names, least) -> ImageSource:
    """`found` with its class names settled and its labels compared with them."""
    if not len(found):
        raise DataError("no images", path=found.name, expected="at least one", found="an empty set")
    if names is not None:
        found = found if found.class_names == names else found.renumbered(names)
    elif found.class_names is None:
        found = copy.copy(found)
        found.class_names, found.numbered = numbered_classes(found.labels, found.name), True
    assert found.class_names is not None
    check_labels(found.labels, found.class_names, found.name, least)
    return found


def open_unchecked(path: AnyPath, root: AnyPath | None = None) -> FileSource | RecordSource:
    """Opens images to look for what is wrong with them: files may be missing, images have several labels.

    Parameters
    ----------
    path : path-like
        A folder, a list or a `.rec`.
    root : path-like, optional
        Folder that the paths of a list begin at; default its own.

    Returns
    -------
    FileSource or RecordSource
        `class_names` is None where nothing names the classes; `label_name` has what is known of each image's label.

    Raises
    ------
    DataError
        None of these; not a folder of classes; a list that is damaged, or none of whose images is there; records that
        are damaged.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if path.is_dir():
        return folders.scan(path, partial=True, strict=False)
    if is_list(path):
        return _list_in_part(path, path.parent if root is None else Path(root))
    if suffix == ".rec":
        return scan_records(path)
    raise DataError("no such source" if not path.exists() else "not a source of images", path=path,
                    expected="a folder of classes, a .lst or a .rec, or another list",
                    found="a file" if path.exists() else "nothing there")


def _list_in_part(path: Path, root: Path) -> FileSource:
    found = from_list(path, root, one_label=False)
    if not root.is_dir():
        raise DataError("no such folder", path=root, expected="the folder that the list's paths begin at (--root)")
    if not any(os.path.exists(place) for place in found.paths):
        raise DataError(f"none of the {len(found)} images of the list is there", path=path,
                        expected=f"them in {root}", found=f"no {found.names[0]}",
                        remedy="give the folder that the list's paths begin at with --root")
    return found
