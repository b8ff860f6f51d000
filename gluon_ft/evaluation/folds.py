"""k-fold cross-validation: folds stratified by class, copies of an image in one fold, mean and spread of results."""
from __future__ import annotations

import copy
import operator
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gluon_ft.data.audit import checks
from gluon_ft.data.audit.report import Report
from gluon_ft.data.batches import ArrayLoader
from gluon_ft.data.loader import Loader
from gluon_ft.data.sources.base import ImageRef
from gluon_ft.data.split import linked
from gluon_ft.data.workers import Memory
from gluon_ft.errors import ConfigError, DataError
from gluon_ft.io import tables


@dataclass(frozen=True)
class CrossValidation:
    """The result of `cross_validate`; str() gives both tables.

    Attributes
    ----------
    rows : list of dict
        The rows of `run_fold`, each with its `fold` (from 0) and `seed`.
    summary : list of dict
        One per name: name, folds (number of rows), train_mean, train_sd, validation_mean, validation_sd,
        validation_min, validation_max (accuracies, 0..1). sd is the standard deviation over the folds (divisor n - 1),
        None for a single row.
    """

    rows: list[dict]
    summary: list[dict]

    def __str__(self) -> str:
        first = ["name", "seed", "fold"]
        columns = [*first, *dict.fromkeys(key for row in self.rows for key in row if key not in first)]
        return f"{tables.table(self.rows, columns)}\n\n{tables.table(self.summary)}"


def folds(labels: np.ndarray | Sequence[int], k: int, seed: int = 0,
          groups: np.ndarray | Sequence[int] | None = None) -> list[tuple[np.ndarray, np.ndarray]]:
    """Draws `k` folds; every image is in the validation part of exactly one.

    Each class has nearly the same share in every fold (scikit-learn's StratifiedKFold, or StratifiedGroupKFold).

    Parameters
    ----------
    labels : int (n,)
    k : int
        Number of folds: at least 2, at most the number of images of the smallest class.
    seed : int, default 0
        Of the random draw, 0 to 2**32 - 1.
    groups : (n,), optional
        Images with equal entries stay in one fold, see `groups_of`; classes are then spread as evenly as that allows.

    Returns
    -------
    list of (ndarray, ndarray)
        Training positions and validation positions of each fold, int64, sorted.

    Raises
    ------
    ConfigError
        `k` out of its range.
    DataError
        Labels and groups differ in number, or a class would be missing from a training part.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    labels = np.asarray(labels, dtype=np.int64)
    k = _checked(labels, k)
    if groups is not None and len(groups) != len(labels):
        raise DataError("groups and labels differ in number", expected=f"{len(labels)} groups", found=len(groups))
    together = groups is not None and len(np.unique(groups)) < len(labels)
    splitter = (StratifiedGroupKFold if together else StratifiedKFold)(k, shuffle=True, random_state=seed)
    drawn = [(train.astype(np.int64), val.astype(np.int64))
             for train, val in splitter.split(np.zeros((len(labels), 1)), labels, groups if together else None)]
    for number, (train, val) in enumerate(drawn):
        missing = np.setdiff1d(labels, labels[train])
        if len(missing) or not len(val):
            raise DataError(f"fold {number} cannot be made: copies of images belong together", expected=
                            "images of every class to train on, and some to validate with",
                            found=f"no training image of class {missing[0]}" if len(missing) else "none to validate",
                            remedy="ask for fewer folds, or remove the copies (gluon-ft audit)")
    return drawn


def cross_validate(k: int, labels: np.ndarray | Sequence[int], seed: int, run_fold: Callable,
                   groups: np.ndarray | Sequence[int] | None = None) -> CrossValidation:
    """Trains and validates `k` times, so that each image is validated once.

    Parameters
    ----------
    k, labels, seed, groups
        As in `folds`.
    run_fold : callable(fold, train positions, val positions) -> dict or list of dict
        A row, or a list of rows (one per network), with at least `name`, `train_accuracy` and `validation_accuracy`
        (0..1).

    Raises
    ------
    ConfigError, DataError
        As `folds` does.
    """
    rows = []
    for fold, (train, val) in enumerate(folds(labels, k, seed, groups)):
        found = run_fold(fold, train, val)
        rows += [{**row, "seed": seed, "fold": fold} for row in ([found] if isinstance(found, dict) else found)]
    return CrossValidation(rows, summarise_folds(rows))


def cross_validate_loaders(k: int, train: Any, plain: Any, seed: int, run_fold: Callable, audited: Sequence = ()
                           ) -> CrossValidation:
    """Runs `cross_validate` on the images of a loader; raises as `folds` does.

    Parameters
    ----------
    k, seed : int
        As in `folds`.
    train, plain : ArrayLoader or Loader
        Two loaders of the same images, the first for training, the second for evaluation; see `subset`.
    run_fold : callable(fold, training loader, validation loader) -> dict or list of dict
    audited : sequence
        The sources that the loaders read (a folder, a list, packed records). If given, they are audited, and copies of
        an image stay in one fold.
    """
    groups = groups_of(checks.audit(audited), plain) if audited else None
    return cross_validate(k, plain.labels, seed, lambda fold, chosen, held_out: run_fold(
        fold, subset(train, chosen), subset(plain, held_out)), groups)


def summarise_folds(rows: list[dict]) -> list[dict]:
    """The `CrossValidation.summary` of rows, which may come from several cross-validations."""
    summary = []
    for name in dict.fromkeys(row["name"] for row in rows):
        line = {"name": name, "folds": sum(row["name"] == name for row in rows)}
        for part in ("train", "validation"):
            values = [float(row[f"{part}_accuracy"]) for row in rows if row["name"] == name]
            line[f"{part}_mean"] = statistics.fmean(values)
            line[f"{part}_sd"] = statistics.stdev(values) if len(values) > 1 else None
        summary.append({**line, "validation_min": min(values), "validation_max": max(values)})
    return summary


def subset(loader: ArrayLoader | Loader, positions: np.ndarray | Sequence[int],
           batch_size: int | None = None) -> ArrayLoader | Loader:
    """A loader of the same kind over some of the images only, as if there were no others.

    Parameters
    ----------
    loader : ArrayLoader or Loader
        What `loaders.make_loader` returns for the engines 'threads' and 'dataset'.
    positions : int (n,)
        Positions in the loader's source.
    batch_size : int, optional
        Default: the loader's.

    Raises
    ------
    ConfigError
        For another kind of loader.
    """
    positions = np.asarray(positions, dtype=np.int64)
    if isinstance(loader, ArrayLoader):
        part = ArrayLoader(loader.data[positions], loader.labels[positions], batch_size or loader.batch_size,
                           loader.shuffle, loader.seed)
        part.balanced = getattr(loader, "balanced", False)
        return part
    if not isinstance(loader, Loader):
        raise ConfigError(f"a {type(loader).__name__} cannot be divided", expected="an ArrayLoader, or "
                          "loaders.make_loader with engine 'threads' or 'dataset'")
    part = copy.copy(loader)
    part.source = loader.source.subset(positions)
    part.labels, part.batch_size, part.epoch = part.source.labels, batch_size or loader.batch_size, 0
    part.memory = None if loader.memory is None else Memory(loader.memory.limit)
    return part


def groups_of(report: Report, *loaders) -> np.ndarray:
    """A group number for each image of the loaders' sources, int64 (n,); copies and near duplicates share a number.

    Images that are linked by a chain of pairs are one group.

    Parameters
    ----------
    report : Report
        The audit (`data.audit.checks.audit`) of the sources that the loaders read.
    loaders : Loader
        Their images are numbered one loader after the other.

    Raises
    ------
    DataError
        For a report of other images.
    """
    refs = [loader.source.ref(i) for loader in loaders for i in range(len(loader.source))]
    position = {ref.absolute(): i for i, ref in enumerate(refs) if ref is not None}
    pairs = []
    for pair in report.pairs:
        ends = [position.get(ImageRef(item.path, item.offset).absolute()) for item in (pair.first, pair.second)]
        if None in ends:
            raise DataError("the audit is of other images", path=loaders[0].source.name,
                            found=", ".join(report.sources), remedy="audit what the loaders read")
        pairs.append(tuple(ends))
    return linked(len(refs), pairs)


def _checked(labels: np.ndarray, k) -> int:
    try:
        k = operator.index(k) if not isinstance(k, bool) else 0
    except TypeError:
        k = 0
    if k < 2:
        raise ConfigError("number of folds out of range", expected="a whole number, 2 or more", found=k)
    values, counts = np.unique(labels, return_counts=True)
    if len(values) < 2:
        raise DataError("images of one class only", expected="two or more", found=f"{len(values)} classes")
    if k > counts.min():
        raise ConfigError(f"more folds than the smallest class has images: {k}", expected=f"at most {counts.min()}",
                          found=f"{counts.min()} images of class {values[counts.argmin()]}",
                          remedy="ask for fewer folds, or add images")
    return k
