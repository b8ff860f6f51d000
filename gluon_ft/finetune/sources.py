"""What a job trains on: which folders, lists or records, and the images and classes in them."""
from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path

from gluon_ft.data import lists
from gluon_ft.data.lists import find_class_names
from gluon_ft.data.sources import folders
from gluon_ft.data.sources.base import describe_classes
from gluon_ft.errors import ConfigError, DataError, near

TRAIN_NAMES = ("train", "training")
# The first of these that is there; 'test' only where nothing else is.
VAL_NAMES = ("val", "valid", "validation", "test", "testing")


@dataclass(frozen=True)
class Source:
    """Images of one part before it is read.

    path : as given. root : that the paths of `files` begin at. classes : names in label order. files : (path below
    root, label). Of a .rec only `path` and `classes` are known here, `files` is None, and what is in it stays in it.
    """

    path: Path
    root: Path | None
    classes: list[str] | None
    files: list[tuple[str, int]] | None
    left_out: list[str] = field(default_factory=list)

    @property
    def packed(self) -> bool:
        return self.files is None

    def of_class(self, label: int) -> list[str]:
        """The paths of one class, in order."""
        return [path for path, of in self.files if of == label]


def find(settings) -> tuple[Source, Source | None]:
    """The training source and the validation source (None: a split is to be made) that the settings name.

    Raises DataError for what is not a source of images, for parts without training images or with other classes;
    ConfigError for options that do not go with them.
    """
    first, second = (settings.train, settings.val) if settings.data is None else _parts(Path(settings.data))
    train = _open(Path(first), settings)
    val = None if second is None else _open(Path(second), settings)
    if train.packed and val is None and settings.validation:
        raise ConfigError("packed records are not split here", found=first, expected="val records as well (--val)",
                          remedy="split before packing (gluon-ft split), or --validation 0 to train without")
    return train, val if val is None else _same_classes(train, val)


def _parts(folder):
    """(train, val or None): the folder itself, or the parts in it."""
    if not folder.is_dir():
        return folder, None
    inside = {entry.name.lower(): entry.path for entry in os.scandir(folder)
              if entry.is_dir() and not entry.name.startswith(".")}
    if not inside or not set(inside) <= folders.PART_NAMES:
        return folder, None
    train = next((inside[name] for name in TRAIN_NAMES if name in inside), None)
    if train is None:
        raise DataError("no training part", path=folder, expected="train/ beside val/ or test/",
                        found=", ".join(sorted(inside)))
    return train, next((inside[name] for name in VAL_NAMES if name in inside), None)


def _open(path, settings):
    suffix = path.suffix.lower()
    if path.is_dir():
        if settings.root is not None and settings.data is not None:
            raise ConfigError("root is for the paths of a .lst", found=f"the folder {path}")
        found = folders.scan(path, settings.exclude)
        return Source(path, path, found.class_names, found.files, found.left_out)
    if settings.exclude:
        raise ConfigError("classes can be excluded from a folder only", found=str(path))
    if suffix == ".lst":
        return _list(path, Path(settings.root) if settings.root is not None else path.parent)
    if suffix == ".rec" and path.is_file():
        return Source(path, None, find_class_names(path), None)
    raise DataError("no such file or folder" if not path.exists() else "not a source of images", path=path,
                    expected=f"a folder with {folders.LAYOUT}, a .lst or a .rec",
                    found=None if not path.exists() else "a file")


def _list(path, root):
    entries = lists.read(path)
    files = [(entry.path, entry.label) for entry in entries]
    classes = find_class_names(path) or [str(i) for i in range(max(label for _, label in files) + 1)]
    if max(label for _, label in files) >= len(classes):
        raise DataError("a label that no class has", path=path, expected=f"0 to {len(classes) - 1}: {describe_classes(classes)}",
                        found=max(label for _, label in files))
    return Source(path, root, classes, files)


def _same_classes(train, val):
    """`val` with its labels by the training part's classes, of which it may lack some."""
    if train.packed or val.packed:
        # The loader compares what records hold with the classes that it is given.
        return val
    for name in val.classes:
        if name not in train.classes:
            raise DataError(f"class '{name}' is not in the training part", path=val.path, expected=describe_classes(train.classes),
                            found=describe_classes(val.classes), remedy=near(name, train.classes))
    label = [train.classes.index(name) for name in val.classes]
    return replace(val, classes=train.classes, files=[(path, label[of]) for path, of in val.files])
