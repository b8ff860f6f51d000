"""Finds images and their classes in a folder: by subfolder, or by the beginning of the file names (`cat.0.jpg`)."""
from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from gluon_ft.data.images.formats import has_image_suffix, suffix_list
from gluon_ft.data.lists import check_spelling, sort_key
from gluon_ft.data.sources.files import FileSource
from gluon_ft.data.sources.walk import LOOSE, SUFFIX, Walker
from gluon_ft.errors import ConfigError, DataError, near
from gluon_ft.io.paths import AnyPath

LAYOUT = "one subfolder a class, with the images of that class in it"
NAMED = re.compile(r"([^.]+)\..*\.[^.]+")  # cat.0.jpg: class, anything, suffix
_PART = re.compile(r"(train|val|test)(?:ing|id|idation)?(?:[-_ ]?(?:set|data|images|part))?[-_ ]?[0-9]*")


def part_of(name: str) -> str | None:
    """'train', 'val' or 'test' for a folder named like a part of a split ('Training', 'valid', 'test1'), else None."""
    found = _PART.fullmatch(name.lower())
    return found[1] if found else None


def scan(root: AnyPath, exclude: Iterable[str] = (), partial: bool = False, *, classes_are_folders: bool = False,
         strict: bool = True) -> FileSource:
    """Lists the images below `root`. Each subfolder is a class, and all images below it belong to that class.

    `walk.Walker` decides which files are used and which links are followed. No image is opened.

    Parameters
    ----------
    root : path-like
    exclude : iterable of str
        Names of classes to leave out.
    partial : bool, default False
        True for images that are not trained on: allows a single class, and classes without images.
    classes_are_folders : bool, default False
        Treat subfolders as classes even if they are named like parts of a split (train, val, test).
    strict : bool, default True
        Whether a broken link or an unreadable folder is an error; if False, it is listed in `left_out`.

    Returns
    -------
    FileSource
        Class names are the names of the subfolders, sorted by code point in Unicode form NFC. Images are sorted by
        label, then by path. `left_out` lists the files that are not used, with the reason.

    Raises
    ------
    DataError
        `root` is not a folder, cannot be read or is empty; there is only one class, or a class has no images (unless
        `partial`); a subfolder is named like a part of a split; two class names differ only by case or Unicode
        composition; an excluded class does not exist; a link is broken or puts one folder into two classes; or a name
        is not valid UTF-8.
    """
    root = Path(root)
    walker = Walker(root, strict)
    folders, loose = _subfolders(root, walker)
    classes = _without_excluded(root, folders, exclude)
    check_spelling(classes, root)
    if len(classes) < (1 if partial else 2):
        raise DataError("one class only" if classes else "no class left", path=root, expected=f"two or more: {LAYOUT}",
                        found=f"'{classes[0]}'" if classes else "none")
    if not classes_are_folders:
        _refuse_parts_of_a_split(root, classes)
    paths, labels = [], []
    for label, name in enumerate(classes):
        images = walker.below(name)
        if not images and not partial:
            raise DataError("class without an image", path=root / name, expected=f"files ending in {suffix_list()}",
                            found="none", remedy=f"add images, or leave the class out (exclude '{name}')")
        paths += sorted(images, key=sort_key)
        labels += [label] * len(images)
    left_out = {**dict.fromkeys(loose, LOOSE), **walker.left_out, **walker.problems}
    return FileSource(root, root, paths, labels, classes,
                      left_out={path: left_out[path] for path in sorted(left_out, key=sort_key)})


def _refuse_parts_of_a_split(root: Path, classes: list[str]) -> None:
    parts = [name for name in classes if part_of(name)]
    if len(parts) == len(classes):
        raise DataError("parts of a split, not classes", path=root, expected=LAYOUT, found=", ".join(classes),
                        remedy=f"give one of them, for example {root / classes[-1]}, or --classes-are-folders where "
                        "they are classes")
    if parts:
        others = [name for name in classes if name not in parts]
        raise DataError(f"'{parts[0]}' is called as a part of a split is, and stands beside other folders", path=root,
                        expected=LAYOUT, found=f"{', '.join(parts[:4])} beside {', '.join(others[:4])}",
                        remedy=f"give the parts themselves, such as {root / parts[0]}, or --classes-are-folders where "
                        "all of them are classes")


def scan_names(folder: AnyPath) -> FileSource:
    """Lists the images of a folder whose file names begin with their class: `cat.0.jpg`, `dog.17.jpg`, as in Kaggle's.

    The result is like that of `scan`, except that its root is the parent folder. No file is moved. Raises DataError if
    no image is named like this, or all are of one class.
    """
    folder = Path(folder).absolute()
    walker = Walker(folder)
    subfolders, names = walker.top() if folder.is_dir() else ([], [])
    images = [name for name in names if has_image_suffix(name)]
    named = {name: found[1] for name, found in ((name, NAMED.fullmatch(name)) for name in images) if found}
    classes = sorted(set(named.values()), key=sort_key)
    if len(classes) < 2:
        raise DataError("not images of two classes by name", path=folder, expected="files such as cat.0.jpg, dog.0.jpg",
                        found=f"{len(images)} images" + (f", all '{classes[0]}'" if classes else ""))
    check_spelling(classes, folder)
    files = sorted(((f"{folder.name}/{name}", classes.index(own)) for name, own in named.items()),
                   key=lambda file: (file[1], sort_key(file[0])))
    left_out = {name: SUFFIX if name not in images else "not named by a class" for name in names if name not in named}
    left_out.update(dict.fromkeys(subfolders, "a folder beside images that are named by their class"))
    return FileSource(folder, folder.parent, [path for path, _ in files], [label for _, label in files], classes,
                      left_out={**left_out, **walker.left_out})


def scan_by(folder: AnyPath, labels_from: str = "folder", exclude: Iterable[str] = (), **options: bool) -> FileSource:
    """Calls `scan_names` or `scan`, depending on `labels_from`.

    Parameters
    ----------
    folder : path-like
    labels_from : {'folder', 'name'}
        Whether the classes are given by the names of the subfolders or of the files.
    exclude : iterable of str
        Classes to leave out; only with labels_from='folder'.
    **options
        `classes_are_folders` and `strict`, see `scan`.

    Raises
    ------
    ConfigError
        `exclude` is given with labels_from='name'.
    DataError
        See `scan` and `scan_names`.
    """
    if labels_from != "name":
        return scan(folder, exclude, **options)
    if exclude:
        raise ConfigError("classes can be excluded from a folder of classes only", found=", ".join(exclude),
                          remedy="leave out exclude, or labels-from name")
    return scan_names(folder)


def named_by_class(folder: AnyPath) -> bool:
    """Whether a folder contains images named by their class, such as `cat.0.jpg`."""
    folder = Path(folder)
    return folder.is_dir() and any(has_image_suffix(name) and NAMED.fullmatch(name)
                                   for name in Walker(folder, strict=False).top()[1])


def scan_either(folder: AnyPath) -> FileSource:
    """Scans a folder, or its subfolder `train` if it is split into parts, with `scan_names` or `scan` as fits."""
    folder = Path(folder)
    for place in (folder, folder / "train"):
        if named_by_class(place):
            return scan_names(place)
    inside = Walker(folder, strict=False).top()[0] if folder.is_dir() else []
    parts = bool(inside) and all(map(part_of, inside))
    return scan(folder / "train" if parts and (folder / "train").is_dir() else folder)


def _subfolders(root: Path, walker: Walker) -> tuple[list[str], list[str]]:
    """(subfolders of `root`, files beside them), by name."""
    if not root.is_dir():
        found = "a file" if root.exists() else "nothing there"
        raise DataError("not a folder", path=root, expected=f"a folder with {LAYOUT}", found=found)
    folders, loose = walker.top()
    if not folders:
        images = sum(map(has_image_suffix, loose))
        found = f"{images} images in the folder itself" if images else "an empty folder" if not loose else \
            f"{len(loose)} files and no subfolder"
        remedy = "make one subfolder a class and put its images there" if images else None
        if any(has_image_suffix(name) and NAMED.fullmatch(name) for name in loose):
            remedy = f"{remedy}, or --labels-from name where names such as {loose[0]} begin with the class"
        raise DataError("no classes", path=root, expected=LAYOUT, found=found, remedy=remedy)
    return folders, loose


def _without_excluded(root: Path, folders: list[str], exclude: Iterable[str]) -> list[str]:
    exclude = [exclude] if isinstance(exclude, str) else list(exclude)
    known = {sort_key(name)[0] for name in folders}
    for name in exclude:
        if sort_key(name)[0] not in known:
            raise DataError(f"no class '{name}' to exclude", path=root, remedy=near(name, folders))
    out = {sort_key(name)[0] for name in exclude}
    return sorted((name for name in folders if sort_key(name)[0] not in out), key=sort_key)
