"""Finds the images of a folder: one subfolder a class, or file names that begin with their class."""
from __future__ import annotations

import contextlib
import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from gluon_ft.data.images.formats import has_image_suffix, suffix_list
from gluon_ft.data.sources.files import FileSource
from gluon_ft.errors import DataError, near
from gluon_ft.io.paths import AnyPath

PART_NAMES = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})

LAYOUT = "one subfolder a class, with the images of that class in it"


def sort_key(name: str) -> tuple[str, str]:
    """Orders names by code point, whatever the locale and however the file system composes accents.

    macOS may store 'é' as two code points (NFD) where Linux has one (NFC); both sort as NFC. The name itself comes
    second, for two names that are equal but for that.
    """
    return unicodedata.normalize("NFC", name), name


def scan(root: AnyPath, exclude: Iterable[str] = (), partial: bool = False) -> FileSource:
    """Lists the images under `root`: each subfolder is a class, with all that is below it.

    Hidden files and folders (a leading dot) are left out, and so are files without an image suffix (`SUFFIXES`, in
    any case). Links are followed, but for loops. No image is opened.

    Parameters
    ----------
    root : path-like
    exclude : iterable of str
        Names of classes to leave out.
    partial : bool, default False
        True for images that are not trained on: there may be one class only, and classes without an image.

    Returns
    -------
    FileSource
        Class names are the subfolders' names in label order: sorted by code point, after NFC. Images are sorted by
        label, then by path. `left_out` are files that are neither hidden nor taken: not an image by their suffix, or
        outside of any class.

    Raises
    ------
    DataError
        `root` is not a folder, cannot be read or is empty; there is one class only, or a class has no image (both but
        for `partial`); the subfolders are `train`, `test` and the like; two classes differ only by case (or by Unicode
        composition); an excluded class does not exist; a link is broken or puts one folder into two classes; a name is
        not valid UTF-8.
    """
    root = Path(root)
    folders, loose = _top(root)
    classes = _keep(root, folders, exclude)
    _check_case(root, classes)
    if len(classes) < (1 if partial else 2):
        raise DataError("one class only" if classes else "no class left", path=root, expected=f"two or more: {LAYOUT}",
                        found=f"'{classes[0]}'" if classes else "none")
    if {name.lower() for name in classes} <= PART_NAMES:
        raise DataError("parts of a split, not classes", path=root, expected=LAYOUT, found=", ".join(classes),
                        remedy=f"give one of them, for example {root / classes[-1]}")
    paths, labels, left_out, owner = [], [], list(loose), {}
    for label, name in enumerate(classes):
        images = _walk(root, name, left_out, owner)
        if not images and not partial:
            raise DataError("class without an image", path=root / name, expected=f"files ending in {suffix_list()}",
                            found="none", remedy=f"add images, or leave the class out (exclude '{name}')")
        paths += sorted(images, key=sort_key)
        labels += [label] * len(images)
    return FileSource(root, root, paths, labels, classes, left_out=sorted(left_out, key=sort_key))


def scan_names(folder: AnyPath) -> FileSource:
    """Images in one folder whose names begin with their class: `cat.0.jpg`, `dog.17.jpg`, as Kaggle packs them.

    Returns what `scan` returns, for `split.split`: its root is the folder above, nothing is moved. Raises
    DataError where no image is named so, or all are of one class.
    """
    folder = Path(folder).absolute()
    names = sorted((entry.name for entry in os.scandir(folder) if not entry.name.startswith(".") and entry.is_file()),
                   key=sort_key) if folder.is_dir() else []
    images = [name for name in names if has_image_suffix(name)]
    named = [name for name in images if name.count(".") >= 2]
    classes = sorted({name.partition(".")[0] for name in named}, key=sort_key)
    if len(classes) < 2:
        raise DataError("not images of two classes by name", path=folder, expected="files such as cat.0.jpg, dog.0.jpg",
                        found=f"{len(images)} images" + (f", all '{classes[0]}'" if classes else ""))
    files = sorted(((f"{folder.name}/{name}", classes.index(name.partition(".")[0])) for name in named),
                   key=lambda file: (file[1], sort_key(file[0])))
    return FileSource(folder, folder.parent, [path for path, _ in files], [label for _, label in files], classes,
                      left_out=[name for name in names if name not in named])


def scan_either(folder: AnyPath) -> FileSource:
    """`scan_names` of a folder of images named by class, or of its `train`; else `scan`, of its `train` too."""
    folder = Path(folder)
    for place in (folder, folder / "train"):
        if place.is_dir() and any(entry.name.count(".") >= 2 and has_image_suffix(entry.name)
                                  for entry in os.scandir(place) if entry.is_file()):
            return scan_names(place)
    inside = sorted(p.name.lower() for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
    parts = bool(inside) and set(inside) <= PART_NAMES
    return scan(folder / "train" if parts and (folder / "train").is_dir() else folder)


def _top(root: Path) -> tuple[list[str], list[str]]:
    """The names of the subfolders of `root`, and of the files beside them."""
    if not root.is_dir():
        found = "a file" if root.exists() else "nothing there"
        raise DataError("not a folder", path=root, expected=f"a folder with {LAYOUT}", found=found)
    folders, loose = [], []
    for entry in _entries(root, root):
        (folders if _is_folder(entry) else loose).append(entry.name)
    if not folders:
        images = sum(has_image_suffix(name) for name in loose)
        found = f"{images} images in the folder itself" if images else "an empty folder" if not loose else \
            f"{len(loose)} files and no subfolder"
        raise DataError("no classes", path=root, expected=LAYOUT, found=found,
                        remedy="make one subfolder a class and put its images there" if images else None)
    return folders, loose


def _keep(root: Path, folders: list[str], exclude: Iterable[str]) -> list[str]:
    exclude = [exclude] if isinstance(exclude, str) else list(exclude)
    known = {sort_key(name)[0] for name in folders}
    for name in exclude:
        if sort_key(name)[0] not in known:
            raise DataError(f"no class '{name}' to exclude", path=root, remedy=near(name, folders))
    out = {sort_key(name)[0] for name in exclude}
    return sorted((name for name in folders if sort_key(name)[0] not in out), key=sort_key)


def _check_case(root: Path, classes: list[str]) -> None:
    seen: dict[str, str] = {}
    for name in classes:
        # A second NFC: folding can leave a base letter and an accent apart.
        folded = unicodedata.normalize("NFC", sort_key(name)[0].casefold())
        if folded in seen:
            how = "case" if sort_key(name)[0] != sort_key(seen[folded])[0] else "Unicode composition"
            raise DataError(f"two classes differ only by {how}", path=root, found=f"'{seen[folded]}' and '{name}'",
                            remedy="merge or rename one: not every file system keeps them apart")
        seen[folded] = name


def _walk(root: Path, name: str, left_out: list[str], owner: dict[str, str]) -> list[str]:
    """The images below the class `root`/`name`; other files are added to `left_out`.

    `owner` holds which class each real folder belongs to. A folder that is met again is not entered again, and a link
    to a folder above is not followed: both would go round for ever, or give this class the images of the others.
    Linked folders come last, so that the path taken does not depend on which name is listed first.
    """
    above = _and_above(os.path.realpath(root)) | _and_above(os.path.dirname(os.path.realpath(root / name)))
    images, folders, links = [], [(name, os.path.realpath(root / name))], []
    while folders or links:
        inside, real = folders.pop() if folders else links.pop(0)
        if real in above or owner.get(real) == name:
            continue
        if real in owner:
            raise DataError("one folder in two classes, by a link", path=root / inside,
                            found=f"classes '{owner[real]}' and '{name}'", remedy="remove the link")
        owner[real] = name
        for entry in _entries(root, root / inside):
            path = f"{inside}/{entry.name}"
            if not _is_folder(entry):
                (images if _is_image(entry) else left_out).append(path)
            elif entry.is_symlink():
                links.append((path, os.path.realpath(entry.path)))
            else:
                # Asking the system for the real path of every folder is slow in deep trees.
                folders.append((path, os.path.join(real, entry.name)))
    return images


def _and_above(path: str) -> set[str]:
    return {path, *map(str, Path(path).parents)}


def _entries(root: Path, folder: Path) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as listing:
            entries = sorted((e for e in listing if not e.name.startswith(".")), key=lambda e: sort_key(e.name))
    except OSError as error:
        raise DataError("folder cannot be read", path=folder, found=error.strerror or str(error),
                        remedy="check its permissions") from error
    for entry in entries:
        try:
            entry.name.encode("utf-8")
        except UnicodeEncodeError:
            raise DataError("name is not valid UTF-8", path=root, found=ascii(os.path.relpath(entry.path, root)),
                            remedy="rename it") from None
    return entries


def _is_folder(entry: os.DirEntry) -> bool:
    with contextlib.suppress(OSError):
        if entry.is_dir():
            return True
    if entry.is_symlink() and not os.path.exists(entry.path):
        # It may have been a whole class, on a disk that is not there today.
        raise DataError("broken link", path=entry.path, expected="an image or a folder at its end",
                        found="nothing", remedy="remove the link, or put back what it leads to")
    return False


def _is_image(entry: os.DirEntry) -> bool:
    return has_image_suffix(entry.name) and entry.is_file()
