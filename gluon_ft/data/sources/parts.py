"""Lists of data that comes with its own training and test folders, and of folders whose file names say the class."""
from __future__ import annotations

import os
from pathlib import Path

from gluon_ft.data import split
from gluon_ft.data.sources import folders, lists
from gluon_ft.data.sources.folders import SUFFIXES, Folder
from gluon_ft.errors import DataError


def own_parts(folder, train: str = "train", test: str = "test", cap: int | None = None, seed: int = 0) -> split.Split:
    """The data's own two parts as lists 'train' and 'test', each class after class in sorted order.

    Parameters
    ----------
    folder : path-like
        Holds the folders `train` and `test`, each with one folder of images a class.
    cap : most images a class in each part, drawn by `seed`; None: all
    seed : any whole number

    Raises DataError where a part is missing or is not a folder of classes, or the two have different classes.
    """
    folder = Path(folder)
    found = {name: folders.scan(folder / name) for name in (train, test)}
    if found[train].classes != found[test].classes:
        raise DataError(f"{train} and {test} have different classes", path=folder, expected=found[train].classes,
                        found=found[test].classes)
    parts: dict[str, list[lists.Entry]] = {}
    for part, name in (("train", train), ("test", test)):
        files = found[name].files
        if cap is not None:
            files = sorted((file for label in range(len(found[name].classes))
                            for file in sorted((f for f in files if f[1] == label),
                                               key=lambda f: split.draw_key(seed, name, f[0]))[:cap]),
                           key=lambda file: (file[1], folders.sort_key(file[0])))
        before = sum(map(len, parts.values()))
        parts[part] = [lists.Entry(before + i, (float(label),), f"{name}/{path}")
                       for i, (path, label) in enumerate(files)]
    return split.Split(folder, found[train].classes, parts, seed, {"cap": cap})


def scan_names(folder) -> Folder:
    """Images in one folder whose names begin with their class: `cat.0.jpg`, `dog.17.jpg`, as Kaggle packs them.

    Returns what `folders.scan` returns, for `split.split`: its root is the folder above, nothing is moved. Raises
    DataError where no image is named so, or all are of one class.
    """
    folder = Path(folder).absolute()
    names = sorted((entry.name for entry in os.scandir(folder) if not entry.name.startswith(".") and entry.is_file()),
                   key=folders.sort_key) if folder.is_dir() else []
    images = [name for name in names if os.path.splitext(name)[1].lower() in SUFFIXES]
    named = [name for name in images if name.count(".") >= 2]
    classes = sorted({name.partition(".")[0] for name in named}, key=folders.sort_key)
    if len(classes) < 2:
        raise DataError("not images of two classes by name", path=folder, expected="files such as cat.0.jpg, dog.0.jpg",
                        found=f"{len(images)} images" + (f", all '{classes[0]}'" if classes else ""))
    files = sorted(((f"{folder.name}/{name}", classes.index(name.partition(".")[0])) for name in named),
                   key=lambda file: (file[1], folders.sort_key(file[0])))
    return Folder(folder.parent, classes, files, [name for name in names if name not in named])


def scan_either(folder) -> Folder:
    """`scan_names` of a folder of images named by class, or of its `train`; else `folders.scan`, of its `train` too."""
    folder = Path(folder)
    for place in (folder, folder / "train"):
        if place.is_dir() and any(entry.name.count(".") >= 2 and os.path.splitext(entry.name)[1].lower() in SUFFIXES
                                  for entry in os.scandir(place) if entry.is_file()):
            return scan_names(place)
    inside = sorted(p.name.lower() for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
    parts = bool(inside) and set(inside) <= folders.PART_NAMES
    return folders.scan(folder / "train" if parts and (folder / "train").is_dir() else folder)
