"""`open_source`: opens a folder, list, records, IDX files or arrays as an `ImageSource`."""
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
    """Opens images for training or evaluation, and checks that each has one label that fits the class names.

    Parameters
    ----------
    source : path-like, tuple or ImageSource
        One of:

        - a folder with one subfolder of images for each class
        - a list in any format that `tables.load` reads (`.lst`, `.csv`, `.tsv`, `.txt`); class names come from its
          labels or from `<prefix>.classes.txt`
        - a `.rec` made by `pack` or im2rec; class names come from its manifest
        - (images, labels): two IDX files or two arrays, see `arrays.ArraySource`
        - a source that is already open
        - several folders, lists or `.rec` files, which are joined: as a list of paths, as one string with ';' between
          the paths, as a pattern such as `photos_*.rec`, or as a folder of `.rec` files
    root : path-like, optional
        Folder that the paths in a list are relative to; default the folder of the list.
    class_names : list of str, optional
        The expected class names in label order. If the source has class names, its labels are converted by name, and
        it may lack some of the classes. Otherwise its labels are taken as positions in these names.
    partial : bool, default False
        True for images that are only evaluated: allows a single class, and empty class folders.

    Returns
    -------
    ImageSource
        Its `class_names` are set. Without known names they are the class numbers, and `numbered` is true.

    Raises
    ------
    DataError
        `source` is none of these; there are no images, or files of a list are missing; there is only one class; a label
        is out of range; or the classes are not those expected.
    """
    class_names = None if class_names is None else list(class_names)
    if isinstance(source, ImageSource):
        found = source
    elif isinstance(source, (tuple, list)) and len(source) == 2 and not any(map(_is_whole_source, source)):
        found = _open_pair(source[0], source[1], class_names)
    elif isinstance(source, (str, os.PathLike)) or _is_several(source):
        found = _open_paths(paths_of(source), root, partial or class_names is not None)
    else:
        raise DataError("not a source of images", found=type(source).__name__, expected=EXPECTED)
    return _with_checked_labels(found, class_names, least=1 if partial else 2)


def _open_pair(images, labels, class_names) -> ImageSource:
    if isinstance(images, (str, os.PathLike)) and isinstance(labels, (str, os.PathLike)):
        return arrays.from_idx(images, labels, class_names)
    return arrays.ArraySource(images, labels, class_names)


def _is_whole_source(named) -> bool:
    """Whether it is a complete source by itself, rather than one of a pair of IDX files."""
    return isinstance(named, (str, os.PathLike)) and (os.path.isdir(named) or is_list(named)
                                                      or os.fspath(named).lower().endswith(".rec"))


def _is_several(source) -> bool:
    return isinstance(source, (tuple, list)) and bool(source) and all(isinstance(each, (str, os.PathLike))
                                                                      for each in source)


def _open_paths(paths: Sequence[Path], root, partial) -> ImageSource:
    # If several are joined, each may lack classes of the others.
    return join([_open_path(path, root, partial or len(paths) > 1) for path in paths])


def _open_path(path: Path, root, partial) -> ImageSource:
    suffix = path.suffix.lower()
    if root is not None and not is_list(path):
        raise DataError("root is for the paths of a .lst or another list", path=path, found=f"root {root}")
    if path.is_dir():
        return folders.scan(path, partial=partial)
    if not path.exists() or not (is_list(path) or suffix == ".rec"):
        raise DataError("not a source of images" if path.exists() else "no such file or folder", path=path,
                        expected=EXPECTED)
    return _open_list(path, root) if is_list(path) else open_records(path)


def _open_list(path: Path, root) -> FileSource:
    found = from_list(path, root)
    missing = [place for place in found.paths if not os.path.isfile(place)]
    if missing:
        raise DataError(f"{len(missing)} of the {len(found)} images of the list are missing", path=path,
                        expected=f"them in {found.root}", found=f"no {missing[0]}",
                        remedy="give the folder that the list's paths begin at as root")
    return found


def _with_checked_labels(found: ImageSource, names, least) -> ImageSource:
    """Sets the class names of a source and checks its labels against them."""
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
    """Opens images for an audit: files may be missing, and images may have several labels.

    Parameters
    ----------
    path : path-like
        A folder, a list or a `.rec`.
    root : path-like, optional
        Folder that the paths in a list are relative to; default the folder of the list.

    Returns
    -------
    FileSource or RecordSource
        `class_names` is None if the classes have no names; `label_name` gives what is known of each label.

    Raises
    ------
    DataError
        `path` is none of these, or not a folder of classes; the list is damaged, or none of its images exists; or the
        records are damaged.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if path.is_dir():
        return folders.scan(path, partial=True, strict=False)
    if is_list(path):
        return _open_incomplete_list(path, path.parent if root is None else Path(root))
    if suffix == ".rec":
        return scan_records(path)
    raise DataError("no such source" if not path.exists() else "not a source of images", path=path,
                    expected="a folder of classes, a .lst or a .rec, or another list",
                    found="a file" if path.exists() else "nothing there")


def _open_incomplete_list(path: Path, root: Path) -> FileSource:
    found = from_list(path, root, one_label=False)
    if not root.is_dir():
        raise DataError("no such folder", path=root, expected="the folder that the list's paths begin at (--root)")
    if not any(os.path.exists(place) for place in found.paths):
        raise DataError(f"none of the {len(found)} images of the list is there", path=path,
                        expected=f"them in {root}", found=f"no {found.names[0]}",
                        remedy="give the folder that the list's paths begin at with --root")
    return found
