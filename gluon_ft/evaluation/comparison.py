"""Tables of predictions (predictions.csv), and whether two of them differ by more than chance.

Two networks on the same images: McNemar's exact test (1947), which looks at the images that only one of them gets
right; if both were equally good, either would be right on each of these with probability 1/2. Several runs of two
procedures, paired by their seeds: the paired t test of the accuracies. A difference counts from 5 % on: so often
chance alone shows one as large or larger.
"""
from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gluon_ft.errors import DataError
from gluon_ft.io import documents
from gluon_ft.io.paths import AnyPath

LEVEL = 0.05
NAME = "predictions.csv"  # in the folder of a run
_COLUMNS = ("file", "label", "prediction")
_SHOWN = 3


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison.

    Attributes
    ----------
    test : str
        "McNemar's exact test" or 'paired t test'.
    pairs : int
        Shared images, or pairs of runs.
    first, second : float
        Accuracies on the shared images, or mean accuracies, 0..1.
    p_value : float
        How often chance alone would show a difference as large or larger.
    only_first, only_second : int or None
        Shared images that only one of them gets right; None for the t test.
    """

    test: str
    pairs: int
    first: float
    second: float
    p_value: float
    only_first: int | None = None
    only_second: int | None = None

    @property
    def winner(self) -> str | None:
        """'first' or 'second' where the difference is more than chance at 5 %, else None."""
        if self.p_value >= LEVEL or self.first == self.second:
            return None
        return "first" if self.first > self.second else "second"

    def __str__(self) -> str:
        if self.only_first is None:
            how = f"{self.pairs} pairs of runs"
        else:
            how = f"{self.pairs} shared images: {self.only_first} only the first gets right, {self.only_second} only " \
                  "the second"
        said = "no difference can be seen" if self.winner is None else f"the {self.winner} is better"
        return f"{said}: accuracy {self.first:.3f} and {self.second:.3f}, p = {self.p_value:.2g} ({self.test}, {how})"


def mcnemar(first_right: np.ndarray | Sequence[bool], second_right: np.ndarray | Sequence[bool]) -> Comparison:
    """Compares two networks on the same images.

    Parameters
    ----------
    first_right, second_right : bool (n,)
        Which images each predicts rightly, in the same order.

    Raises
    ------
    DataError
        For different numbers of images, or none.
    """
    from scipy.stats import binomtest

    first, second = np.asarray(first_right, bool), np.asarray(second_right, bool)
    if first.shape != second.shape or not len(first):
        raise DataError("predictions of different images", expected="the same images, at least one",
                        found=f"{len(first)} and {len(second)}")
    one, other = int((first & ~second).sum()), int((second & ~first).sum())
    p_value = float(binomtest(one, one + other).pvalue) if one + other else 1.0
    means = float(first.mean()), float(second.mean())
    return Comparison("McNemar's exact test", len(first), *means, p_value, one, other)


def paired_t(first: Sequence[float], second: Sequence[float]) -> Comparison:
    """Compares two procedures by the accuracies of several runs of each, paired.

    Where all differences are equal, they have no spread to be judged by, and the sign test takes the place of the t
    test: p = 2 / 2^n.

    Parameters
    ----------
    first, second : sequence of float
        Accuracies 0..1; those at the same place belong together.

    Raises
    ------
    DataError
        For different numbers, or fewer than two.
    """
    from scipy.stats import ttest_rel

    if len(first) != len(second) or len(first) < 2:
        raise DataError("runs that cannot be paired", expected="as many of the one as of the other, two or more",
                        found=f"{len(first)} and {len(second)}", remedy="give a run of each for every seed")
    differences = np.subtract(first, second)
    means = float(np.mean(first)), float(np.mean(second))
    if np.ptp(differences) <= 1e-12:
        p_value = 1.0 if math.isclose(*means, abs_tol=1e-12) else min(1.0, 2 / 2 ** len(first))
        return Comparison("sign test", len(first), *means, p_value)
    found: Any = ttest_rel(first, second)
    return Comparison("paired t test", len(first), *means, float(found.pvalue))


def predictions_csv(files: Sequence[str], labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str],
                    all_probabilities: bool = False, **columns: Sequence[Any]) -> bytes:
    """A table of predictions as CSV in UTF-8: file, label, prediction, probability.

    Parameters
    ----------
    files : sequence of str
        One an image.
    labels : int (n,)
    probabilities : float (n, classes)
    classes : sequence of str
        Names in label order.
    all_probabilities : bool, default False
        Also one column a class, 'p(<class>)'.
    **columns
        Further columns, behind the file's.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    every = [f"p({name})" for name in classes] if all_probabilities else []
    writer.writerow(["file", *columns, "label", "prediction", "probability", *every])
    best = probabilities.argmax(1)
    for i, (file, *own) in enumerate(zip(files, *columns.values())):
        shown = [probabilities[i, best[i]], *(probabilities[i] if all_probabilities else [])]
        writer.writerow([file, *own, classes[labels[i]], classes[best[i]], *(f"{value:.9g}" for value in shown)])
    return text.getvalue().encode("utf-8", "backslashreplace")


def read_predictions(path: AnyPath) -> list[dict[str, str]]:
    """The rows of a table of predictions: a file, or that of a run's folder.

    Raises DataError where there is none, or it is not such a table.
    """
    path = Path(path)
    path = path / NAME if path.is_dir() else path
    try:
        text = documents.read_bytes(path, documents.MOST_BYTES_RECORDED).decode("utf-8-sig")
        rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    except FileNotFoundError:
        raise DataError("no predictions of its validation images", path=path,
                        expected=f"{NAME}, which gluon-ft train writes where there are validation images",
                        remedy=f"gluon-ft evaluate {path.parent} IMAGES --csv {path}") from None
    except (OSError, ValueError, csv.Error) as error:
        raise DataError("not a table of predictions", path=path, found=getattr(error, "strerror", None) or error
                        ) from error
    if not rows or any(row.get(column) is None for row in rows for column in _COLUMNS):
        raise DataError("not a table of predictions", path=path, expected=f"columns {', '.join(_COLUMNS)}",
                        found=", ".join(rows[0]) if rows else "no rows")
    return rows


def accuracy(rows: Sequence[dict[str, str]]) -> float:
    """The share of right predictions of a table."""
    return sum(row["label"] == row["prediction"] for row in rows) / len(rows)


def compare_tables(first: Sequence[dict[str, str]], second: Sequence[dict[str, str]]) -> Comparison:
    """McNemar's test on the images that two tables of predictions share.

    Images are the same if their bytes are (column sha256), or, where one of the tables does not tell them, if their
    files have the same name.

    Raises DataError where they share none, or where the label of a shared image differs.
    """
    column = "sha256" if all(row.get("sha256") for row in (*first, *second)) else "file"
    one, other = _by_key(first, column), _by_key(second, column)
    shared = [key for key in one if key in other]
    if not shared:
        raise DataError("no image in common", expected="predictions for the same images", found=f"{len(first)} images "
                        f"and {len(second)} others", remedy="evaluate both on the same images: gluon-ft evaluate RUN "
                        "IMAGES --csv FILE, and compare these files")
    differ = [key for key in shared if one[key]["label"] != other[key]["label"]]
    if differ:
        names = ", ".join(one[key]["file"] for key in differ[:_SHOWN]) + ", ..." * (len(differ) > _SHOWN)
        raise DataError(f"{len(differ)} shared images have another label in the other", expected="the same labels",
                        found=names)
    return mcnemar(*([table[key]["label"] == table[key]["prediction"] for key in shared] for table in (one, other)))


def _by_key(rows, column):
    """Rows by key; of images that are there several times the first, the second, ... by itself."""
    seen: Counter = Counter()
    found = {}
    for row in rows:
        found[row[column], seen[row[column]]] = row
        seen[row[column]] += 1
    return found
