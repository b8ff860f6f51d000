"""One task's images as the loaders that training and validation need, by seed and by fold."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gluon_ft.data import lists, loader, split
from gluon_ft.data.images.preprocessing import Preprocessing
from gluon_ft.evaluation import folds

EVALUATED = 64  # images a batch in evaluation, of which nothing depends but memory and speed


@dataclass(frozen=True)
class Sets:
    """Loaders: `train` shuffles and augments; `plain` are the same images as they are evaluated; `val` the others."""

    train: object
    plain: object
    val: object


@dataclass(frozen=True)
class Task:
    """What to train on and to validate with.

    train, val : sources as `loaders.make_loader` takes them
    classes : class names in label order
    preprocessing : of the network
    batch_size : of training
    root : folder that the paths of lists begin at
    """

    train: object
    val: object
    classes: list[str]
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
        """Rows of `run_fold(fold, sets)` for each of `k` folds of the training images; the others are not used.

        sets : a function that makes the fold's loaders anew, so that each network begins with the same epoch.
        Folds are stratified by class, see `cross_validation.cross_validate`, whose errors it raises.
        """
        whole = self.sets(seed)

        def run(fold, chosen, held_out):
            return run_fold(fold, lambda: Sets(folds.subset(whole.train, chosen),
                                               folds.subset(whole.plain, chosen),
                                               folds.subset(whole.plain, held_out)))

        return folds.cross_validate(k, whole.plain.labels, seed, run).rows


def make(images, folder, preprocessing: Preprocessing, batch_size: int, classes: list[str] | None = None) -> Task:
    """The task of a split, whose lists are written to `<folder>/images-<part>.lst`; or of two pairs of arrays.

    images : a `split.Split` with the parts 'train' and 'val' or 'test'; or ((images, labels), (images, labels)) as
    `loaders.make_loader` takes them, with `classes` to name the labels.
    """
    if not isinstance(images, split.Split):
        return Task(*images, classes, preprocessing, batch_size)
    prefix = Path(folder) / "images"
    prefix.parent.mkdir(parents=True, exist_ok=True)
    split.write(images, prefix)
    train, val = (lists.list_file(prefix, part) for part in sorted(images.parts, key=lambda part: part != "train"))
    return Task(train, val, images.classes, preprocessing, batch_size, images.root)
