"""Evaluates a network on labelled images: each image once, labels by class name, unreadable images listed."""
from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
from mxnet.gluon import HybridBlock

from gluon_ft.data.images.preprocessing import Preprocessing
from gluon_ft.data.lists import is_list
from gluon_ft.data.sources import class_names as named
from gluon_ft.data.sources import folders, walk
from gluon_ft.data.sources.arrays import ArraySource
from gluon_ft.data.sources.base import ImageSource, check_labels, numbered_classes
from gluon_ft.data.sources.files import from_list
from gluon_ft.data.sources.joined import paths_of
from gluon_ft.data.sources.opening import open_source
from gluon_ft.errors import DataError
from gluon_ft.evaluation import measures
from gluon_ft.evaluation.comparison import predictions_csv
from gluon_ft.evaluation.measures import Measures
from gluon_ft.evaluation.model import load_model
from gluon_ft.evaluation.predict import check_counts, class_names_of, probabilities
from gluon_ft.io import atomic
from gluon_ft.io.paths import AnyPath


@dataclass(frozen=True)
class Labelled:
    """Labelled images as a network sees them.

    Attributes
    ----------
    source : ImageSource
        The images of classes that the network has.
    labels : ndarray
        int64 (n,), positions in the network's classes.
    unknown : dict of str to int
        Class that the network lacks -> its number of images, which are left out.
    missing : list of str
        Classes of the network without an image.
    unreadable : dict of str to str
        Broken links and folders that cannot be opened -> the reason.
    """

    source: ImageSource
    labels: np.ndarray
    unknown: dict[str, int]
    missing: list[str]
    unreadable: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """The result of `evaluate_model`.

    Attributes
    ----------
    measures : Measures
        Of the images that could be read, with test-time augmentation where it was asked for.
    files : list of str
        What each of these images is called: its path, or its place in a `.rec` or array.
    labels : ndarray
        int64 (n,), positions in `measures.classes`.
    probabilities : ndarray
        float (n, classes).
    unreadable : dict of str to str
        Image -> why it could not be read.
    unknown : dict of str to int
        Class that the network lacks -> its number of images, which are not scored.
    missing : list of str
        Classes of the network without an image.
    seconds : float
        Of decoding and computing, with test-time augmentation where it was asked for.
    tta : dict or None
        With test-time augmentation: views, mirror, and `without`, the Measures without it, in `seconds_without`.
    """

    measures: Measures
    files: list[str]
    labels: np.ndarray
    probabilities: np.ndarray
    unreadable: dict[str, str]
    unknown: dict[str, int]
    missing: list[str]
    seconds: float
    tta: dict[str, Any] | None = None

    def __str__(self) -> str:
        low, high = self.measures.interval
        return (f"accuracy {self.measures.accuracy:.3f} ({low:.3f} to {high:.3f}) on {self.measures.images} images of "
                f"{len(self.measures.classes) - len(self.missing)} classes")

    def to_dict(self) -> dict:
        """As plain values, for JSON; without the predictions for each image."""
        tta = None if self.tta is None else {**self.tta, "without": self.tta["without"].to_dict()}
        return {"measures": self.measures.to_dict(), "seconds": round(self.seconds, 2), "tta": tta,
                "unreadable": [{"path": path, "reason": reason} for path, reason in self.unreadable.items()],
                "unknown_classes": self.unknown, "missing_classes": self.missing}

    def write_csv(self, path: AnyPath, all_probabilities: bool = False) -> Path:
        """Writes a table of all images that were scored, see `comparison.predictions_csv`; whole or not at all."""
        return atomic.write(path, predictions_csv(self.files, self.labels, self.probabilities, self.measures.classes,
                                                  all_probabilities))


def evaluate_model(model: HybridBlock | str | os.PathLike, data: Any, *, tta: int | None = None,
                   mirror: bool | None = None, top_k: Sequence[int] = (measures.TOP_K,), batch_size: int = 32,
                   preprocessing: Preprocessing | None = None, workers: int | None = None,
                   ctx: mx.Context | list[mx.Context] | None = None, **where: Any) -> Evaluation:
    """Measures a network on labelled images. Each image counts once, whatever the order and the number of batches.

    Parameters
    ----------
    model : HybridBlock or path-like
        As `net` of `predict`.
    data : path-like, tuple or ImageSource
        As of `labelled`.
    tta : {2, 4, 5, 10}, optional
        Test-time augmentation, see `data.images.views`; the result then has also the measures without it.
    mirror : bool, optional
        Whether the views include mirror images; default as `Preprocessing.mirror` says.
    top_k : sequence of int, default (5,)
        As of `measures.measure`.
    batch_size, preprocessing, workers, ctx
        As of `predict`.
    **where
        `root`, `labels_from`, `classes_are_folders` and `class_names` of `labelled`.

    Raises
    ------
    DataError
        As `labelled` does, and where none of the images could be read.
    ConfigError, NetworkError, WeightsError
        As `predict` does.
    """
    check_counts(batch_size=batch_size)
    net: Any = model if isinstance(model, HybridBlock) else load_model(model, ctx)
    classes = class_names_of(net)
    images = labelled(data, classes, **where)
    how: dict[str, Any] = {"batch_size": batch_size, "preprocessing": preprocessing, "workers": workers, "ctx": ctx}
    begun = time.perf_counter()
    found, errors = probabilities(net, images.source, **how)
    seconds, augmented, without = time.perf_counter() - begun, None, None
    good = np.array([i for i in range(len(images.labels)) if i not in errors], np.int64)
    unreadable = {**images.unreadable, **{images.source.where(i): errors[i] for i in sorted(errors)}}
    if not len(good):
        raise DataError("none of the images could be read", path=images.source.name,
                        found="; ".join(f"{path}: {reason}" for path, reason in list(unreadable.items())[:2]))
    if tta is not None:
        without = measures.measure(images.labels[good], found[good], classes, top_k), seconds
        begun = time.perf_counter()
        found, _ = probabilities(net, images.source, tta=tta, mirror=mirror, **how)
        seconds = time.perf_counter() - begun
        used = preprocessing or net.preprocessing
        augmented = {"views": tta, "mirror": used.mirror if mirror is None else mirror, "without": without[0],
                     "seconds_without": round(without[1], 2)}
    return Evaluation(measures.measure(images.labels[good], found[good], classes, top_k),
                      [images.source.where(int(i)) for i in good], images.labels[good], found[good], unreadable,
                      images.unknown, images.missing, seconds, augmented)


def labelled(data: Any, classes: Sequence[str], *, root: AnyPath | None = None, labels_from: str = "folder",
             classes_are_folders: bool = False, class_names: Sequence[str] | None = None) -> Labelled:
    """Opens labelled images for a network: class names decide which label is which.

    Parameters
    ----------
    data : path-like, tuple or ImageSource
        As `open_source` takes it. Files of a list that are missing, and broken links, count as unreadable images.
    classes : sequence of str
        The network's, in its output's order.
    root : path-like, optional
        Folder that the paths of a list begin at; default its own.
    labels_from : {'folder', 'name'}
        Where the classes of a folder's images stand, see `folders.scan_by`.
    classes_are_folders : bool, default False
        As of `folders.scan`.
    class_names : sequence of str, optional
        What the labels of data without class names stand for, in label order. Without it the labels of arrays and IDX
        files are positions in `classes`, and those of lists and records are the names '0', '1', ...

    Raises
    ------
    DataError
        As `open_source` does; no class in common with the network; images of one class only.
    """
    source = _opened(data, root, labels_from, classes_are_folders)
    own = _names(source, classes, class_names)
    check_labels(source.labels, own, source.name, least=1)
    place = {named.normal(name): number for number, name in enumerate(classes)}
    counts = np.bincount(source.labels, minlength=len(own))
    common = [name for name, count in zip(own, counts) if count and named.normal(name) in place]
    if not common:
        raise DataError("no class in common with the network", path=source.name, expected=named.describe(classes),
                        found=named.describe([name for name, count in zip(own, counts) if count]),
                        remedy=_remedy(source))
    number = np.full(len(own), -1, np.int64)
    known = [i for i, name in enumerate(own) if named.normal(name) in place]
    # `places` refuses a name that stands for two of the network's classes.
    number[known] = named.places([own[i] for i in known], classes, source.name, "of the network's")
    labels = number[source.labels]
    if len(common) < 2:
        raise DataError("images of one class only", path=source.name, found=f"'{common[0]}'", expected="two or more of "
                        f"{named.describe(classes)}", remedy="gluon-ft predict says the class of each image")
    unknown = {name: int(count) for name, count, at in zip(own, counts, number) if at < 0 and count}
    present = set(labels.tolist())
    problems = {os.path.join(source.name, path): why for path, why in source.left_out.items()
                if why.startswith((walk.BROKEN, walk.UNREADABLE))}
    known_images = np.flatnonzero(labels >= 0)
    used = source if len(known_images) == len(source) else source.subset(known_images)
    return Labelled(used, labels[known_images], unknown,
                    [name for i, name in enumerate(classes) if i not in present], problems)


def _opened(data, root, labels_from, classes_are_folders) -> ImageSource:
    paths = paths_of(data) if isinstance(data, (str, os.PathLike)) else []
    if len(paths) == 1 and paths[0].is_dir():
        options = {} if labels_from == "name" else {"partial": True, "strict": False,
                                                    "classes_are_folders": classes_are_folders}
        found = folders.scan_by(paths[0], labels_from, **options)
    elif len(paths) == 1 and is_list(paths[0]) and paths[0].is_file():
        found = from_list(paths[0], root)
    else:
        return open_source(data, root, partial=True)
    if not len(found):
        raise DataError("no images", path=found.name, expected="at least one", found="none")
    return found


def _names(source: ImageSource, classes, given) -> list[str]:
    """The class names of a source, in its labels' order."""
    if source.class_names is not None and not source.numbered:
        return source.class_names
    if given is None and not isinstance(source, ArraySource):
        return numbered_classes(source.labels, source.name)
    return list(classes if given is None else given)


def _remedy(source: ImageSource) -> str:
    if source.class_names is None or source.numbered:
        return "name the classes in a .classes.txt beside it, one a line in label order"
    return "check that these are the images, and this the model, that belong together"
