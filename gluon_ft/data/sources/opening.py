"""What a loader reads: a folder, a list, records, IDX files or arrays, with labels that fit the classes."""
from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np

from gluon_ft.data.images import header
from gluon_ft.data.records.pack import find_classes
from gluon_ft.data.sources import folders, idx, lists
from gluon_ft.data.sources.record_source import Records, decode, open_records
from gluon_ft.errors import DataError, near

MAX_UNNAMED = 1 << 16  # classes that are numbered where nothing names them; ImageNet-21k has 21,843


class Files:
    """Image files with a label each."""

    def __init__(self, name, paths: list[str], labels, classes: list[str] | None):
        self.name, self.paths, self.classes = str(name), paths, classes
        self.labels = np.asarray(labels, dtype=np.int64)

    def where(self, position: int) -> str:
        """The image's name for an error."""
        return self.paths[position]

    def image(self, position: int, channels: int, resize: int) -> np.ndarray:
        """uint8 (height, width, 3) in RGB, or (height, width) for one channel; recprobe.Unreadable with the reason.

        resize : JPEGs may be decoded at reduced scale, to twice that many pixels at least; 0: not.
        """
        return decode(header.read_file(self.paths[position]), channels, resize)

    def contents(self):
        """The bytes of each image, in order; DataError for one that cannot be read."""
        for path in self.paths:
            try:
                yield header.read_file(path)
            except header.Unreadable as error:
                raise DataError(f"image cannot be used: {error}", path=path,
                                remedy="mend it, or remove it from the data") from None


class Arrays:
    """Images in memory: uint8 (n, height, width) grey or (n, height, width, 3) RGB."""

    def __init__(self, pixels, labels, classes: list[str] | None, name="arrays"):
        self.name, self.classes, self.pixels = name, classes, np.asarray(pixels)
        self.labels = _whole_labels(labels, name)
        if self.pixels.dtype != np.uint8 or not (self.pixels.ndim == 3 or self.pixels.shape[3:] in ((1,), (3,))):
            raise DataError("not images", path=name, found=f"{self.pixels.dtype} {self.pixels.shape}",
                            expected="uint8 (n, height, width), (n, height, width, 1) or (n, height, width, 3)",
                            remedy="give arrays that are ready for the network to ArrayLoader")
        if len(self.pixels) != len(self.labels):
            raise DataError("images and labels differ in number", path=name, expected=f"{len(self.pixels)} labels",
                            found=len(self.labels))

    def where(self, position: int) -> str:
        return f"{self.name}: image {position}"

    def image(self, position: int, channels: int, resize: int) -> np.ndarray:
        image = self.pixels[position]
        image = image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image
        if (image.ndim == 3) == (channels == 3):
            return np.ascontiguousarray(image)
        return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB if channels == 3 else cv2.COLOR_RGB2GRAY)

    def contents(self):
        yield str(self.pixels.shape).encode()
        yield np.ascontiguousarray(self.pixels).tobytes()


def _whole_labels(labels, name):
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iuf" or not np.array_equal(labels, np.floor(labels)):
        raise DataError("labels are not classes", path=name, expected="whole numbers, one an image",
                        found=f"{labels.dtype} {labels.shape}")
    return labels.astype(np.int64)


def find(source, root=None, classes=None) -> Files | Records | Arrays:
    """The source that `source` names, see `loaders.open`; labels fit `classes`. DataError where it is none."""
    classes = None if classes is None else list(classes)
    if isinstance(source, (tuple, list)) and len(source) == 2:
        found = _pair(*source, classes)
    elif isinstance(source, (str, os.PathLike)):
        found = _path(Path(source), root, classes)
    else:
        raise DataError("not a source of images", found=type(source).__name__,
                        expected="a folder of classes, a .lst, a .rec, two IDX files or (images, labels)")
    return _checked(found, classes)


def _pair(pixels, labels, classes):
    if isinstance(pixels, (str, os.PathLike)) and isinstance(labels, (str, os.PathLike)):
        return Arrays(*idx.read_pair(pixels, labels), classes, str(pixels))
    return Arrays(pixels, labels, classes)


def _path(path, root, classes):
    suffix = path.suffix.lower()
    if root is not None and suffix != ".lst":
        raise DataError("root is for the paths of a .lst", path=path, found=f"root {root}")
    if path.is_dir():
        return _folder(path, classes)
    if not path.exists() or suffix not in (".lst", ".rec"):
        raise DataError("not a source of images" if path.exists() else "no such file or folder", path=path,
                        expected="a folder of classes, a .lst, a .rec, two IDX files or (images, labels)")
    return _list(path, Path(root) if root is not None else path.parent) if suffix == ".lst" else open_records(path)


def _folder(path, classes):
    scanned = folders.scan(path)
    names, labels = scanned.classes, [label for _, label in scanned.files]
    if classes is not None:
        # A validation folder may lack a class; its labels are still those of training.
        for name in names:
            if name not in classes:
                raise DataError(f"class '{name}' is not expected", path=path, remedy=near(name, classes),
                                expected=shown(classes), found=shown(names))
        labels = [classes.index(names[label]) for label in labels]
    return Files(path, [os.path.join(path, name) for name, _ in scanned.files], labels, classes or names)


def _list(path, root):
    entries = lists.read(path)
    paths = [os.path.join(root, entry.path) for entry in entries]
    missing = [p for p in paths if not os.path.isfile(p)]
    if missing:
        raise DataError(f"{len(missing)} of the {len(paths)} images of the list are missing", path=path,
                        expected=f"them in {root}", found=f"no {missing[0]}",
                        remedy="give the folder that the list's paths begin at as root")
    return Files(path, paths, [entry.label for entry in entries], find_classes(path))


def _checked(found, classes):
    """`found` with its classes settled and its labels compared with them."""
    if not len(found.labels):
        raise DataError("no images", path=found.name, expected="at least one", found="an empty set")
    if classes is not None and found.classes is not None and list(found.classes) != classes:
        raise DataError("other classes than expected", path=found.name, expected=shown(classes),
                        found=shown(found.classes), remedy="take data and network of the same task")
    found.classes = classes if classes is not None else found.classes
    if found.classes is None:
        found.classes = [str(i) for i in range(min(MAX_UNNAMED, max(1, int(found.labels.max()) + 1)))]
    check_labels(found.labels, found.classes, found.name)
    return found


def check_labels(labels, classes, name) -> None:
    """DataError where there is one class only, or a label that no class has."""
    if len(classes) < 2 or len(set(classes)) < len(classes):
        raise DataError("one class only" if len(classes) == 1 else "bad class names", path=name,
                        expected="two or more, each once", found=shown(classes))
    wrong = np.flatnonzero((labels < 0) | (labels >= len(classes)))
    if len(wrong):
        raise DataError(f"{len(wrong)} labels outside the classes", path=name, found=int(labels[wrong[0]]),
                        expected=f"0 to {len(classes) - 1}: {shown(classes)}",
                        remedy=f"the first is image {wrong[0]}; name every class, or correct the labels")


def shown(classes) -> str:
    """'3 classes: a, b, c', cut after eight names."""
    return f"{len(classes)} classes: {', '.join(map(str, classes[:8]))}{', ...' * (len(classes) > 8)}"
