"""One task's images as the loaders that training and validation need, by seed and by fold."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gluon_ft.data import lists, loader, split
from gluon_ft.data.images.preprocessing import Preprocessing
from gluon_ft.evaluation import folds
from gluon_ft.io.paths import AnyPath

EVALUATED = 64  # images a batch in evaluation; nothing but memory and speed depends on it


@dataclass(frozen=True)
class Sets:
    """Loaders: `train` shuffles and augments; `plain` are the same images as they are evaluated; `val` the others."""

    train: Any
    plain: Any
    val: Any


@dataclass(frozen=True)
class Task:
    """What to train on and to validate with.

    Attributes
    ----------
    train, val
        Sources as `loaders.make_loader` takes them.
    classes : list of str or None
        Class names in label order; None: as the sources name them.
    preprocessing : Preprocessing
        Of the network.
    batch_size : int
        Of training.
    root : Path, optional
        Folder that the paths of lists begin at.
    """

    train: Any
    val: Any
    classes: list[str] | None
    preprocessing: Preprocessing
    batch_size: int
    root: Path | None = None

    def sets(self, seed: int) -> Sets:
        """New loaders, whose images are decoded once and kept; order and augmentation depend on `seed`."""
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
            `fold` is from 0; `sets()` makes the fold's loaders anew, so that each network begins with the same epoch.
            For the rows see `folds.cross_validate`.

        Returns
        -------
        list of dict
            The rows of all folds, with 'seed' and 'fold'.

        Raises
        ------
        ConfigError, DataError
            As of `folds.cross_validate`.
        """
        whole = self.sets(seed)

        def run(fold, chosen, held_out):
            return run_fold(fold, lambda: Sets(folds.subset(whole.train, chosen),
                                               folds.subset(whole.plain, chosen),
                                               folds.subset(whole.plain, held_out)))

        return folds.cross_validate(k, whole.plain.labels, seed, run).rows


def make(images: Any, folder: AnyPath, preprocessing: Preprocessing, batch_size: int,
         classes: list[str] | None = None) -> Task:
    """The task of a split, whose lists are written to `<folder>/images-<part>.lst`; or of two pairs of arrays.

    Parameters
    ----------
    images : split.Split or tuple
        A split with the parts 'train' and 'val' or 'test'; or ((images, labels), (images, labels)) as
        `loaders.make_loader` takes them, with `classes` to name the labels.
    folder : path-like
        Where the lists are put; made where it is missing.
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
