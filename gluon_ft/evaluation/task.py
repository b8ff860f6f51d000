"""A task: the images to train on and to validate with, as loaders for each seed and each fold."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gluon_ft.data import lists, loader, split
from gluon_ft.data.images.preprocessing import Preprocessing
from gluon_ft.evaluation import folds
from gluon_ft.io.paths import AnyPath

EVALUATED = 64  # images per batch in evaluation; only memory and speed depend on it


@dataclass(frozen=True)
class Sets:
    """Three loaders: `train` shuffles and augments, `plain` has the same images as in evaluation, `val` the others."""

    train: Any
    plain: Any
    val: Any


@dataclass(frozen=True)
class Task:
    """The images to train on and to validate with.

    Attributes
    ----------
    train, val
        Sources, as in `loaders.make_loader`.
    classes : list of str or None
        Class names in label order; None: the sources' own.
    preprocessing : Preprocessing
        Of the network.
    batch_size : int
        Of training.
    root : Path, optional
        Folder that the paths in lists are relative to.
    """

    train: Any
    val: Any
    classes: list[str] | None
    preprocessing: Preprocessing
    batch_size: int
    root: Path | None = None

    def sets(self, seed: int) -> Sets:
        """New loaders, which keep decoded images in memory; order and augmentation depend on `seed`."""
        shared = {"preprocessing": self.preprocessing, "root": self.root, "classes": self.classes, "cache": "memory"}
        return Sets(loader.make_loader(self.train, train=True, seed=seed, batch_size=self.batch_size, **shared),
                    loader.make_loader(self.train, train=False, batch_size=EVALUATED, **shared),
                    loader.make_loader(self.val, train=False, batch_size=EVALUATED, **shared))

    def cross_validate(self, k: int, seed: int,
                       run_fold: Callable[[int, Callable[[], Sets]], list[dict]]) -> list[dict]:
        """Runs each of `k` folds of the training images; the validation images are not used.

        Parameters
        ----------
        k : int
            Number of folds, stratified by class.
        seed : int
            Of the folds and of the loaders.
        run_fold : callable(fold, sets) -> list of dict
            `fold` counts from 0; each call of `sets()` makes new loaders, so that every network begins with the same
            epoch. For the rows see `folds.cross_validate`.

        Returns
        -------
        list of dict
            The rows of all folds, with 'seed' and 'fold'.

        Raises
        ------
        ConfigError, DataError
            As `folds.cross_validate` does.
        """
        whole = self.sets(seed)

        def run(fold, chosen, held_out):
            return run_fold(fold, lambda: Sets(folds.subset(whole.train, chosen),
                                               folds.subset(whole.plain, chosen),
                                               folds.subset(whole.plain, held_out)))

        return folds.cross_validate(k, whole.plain.labels, seed, run).rows


def make(images: Any, folder: AnyPath, preprocessing: Preprocessing, batch_size: int,
         classes: list[str] | None = None) -> Task:
    """Makes a task from a split, whose lists it writes to `<folder>/images-<part>.lst`, or from two pairs of arrays.

    Parameters
    ----------
    images : split.Split or tuple
        A split with the parts 'train' and 'val' or 'test'; or ((images, labels), (images, labels)) as
        `loaders.make_loader` takes them, with `classes` to name the labels.
    folder : path-like
        Folder for the lists; made if it is missing.
    preprocessing : Preprocessing
        Of the network.
    batch_size : int
        Of training.
    classes : list of str, optional
    """
    if not isinstance(images, split.Split):
        train, val = images
        return Task(train, val, classes, preprocessing, batch_size)
    prefix = Path(folder) / "images"
    prefix.parent.mkdir(parents=True, exist_ok=True)
    split.write(images, prefix)
    train, val = (lists.list_file(prefix, part) for part in sorted(images.parts, key=lambda part: part != "train"))
    return Task(train, val, images.classes, preprocessing, batch_size, images.root)
