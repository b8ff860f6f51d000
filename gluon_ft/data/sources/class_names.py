"""Compares class names regardless of their Unicode form, checks labels, and converts labels between class orders."""
from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from gluon_ft.errors import DataError, near
from gluon_ft.io.paths import AnyPath


def normal(name: str) -> str:
    """A name in Unicode form NFC, for comparisons: macOS may store 'é' as two code points, Linux as one."""
    return unicodedata.normalize("NFC", str(name))


def same(first: Iterable[str] | None, second: Iterable[str] | None) -> bool:
    """Whether two lists have the same names in the same order; None equals only None."""
    if first is None or second is None:
        return first is second
    return [normal(name) for name in first] == [normal(name) for name in second]


def describe(names: Sequence[str]) -> str:
    """Such as '3 classes: a, b, c'; shows at most eight names."""
    more = ", ..." * (len(names) > 8)
    return f"{len(names)} class{'es' * (len(names) != 1)}: {', '.join(map(str, names[:8]))}{more}"


def places(own: Sequence[str], wanted: Sequence[str], source: AnyPath, whose: str = "of those expected") -> np.ndarray:
    """The position in `wanted` of each name of `own`.

    Parameters
    ----------
    own, wanted : sequence of str
        `own` may lack some names of `wanted`, and have another order.
    source : path-like
        Where the names `own` are from, for errors.
    whose : str
        Describes `wanted` in errors: 'of the network's' gives "class 'x' is none of the network's".

    Returns
    -------
    ndarray
        int64 (len(own),).

    Raises
    ------
    DataError
        `wanted` lacks a name of `own`, or has it twice.
    """
    if same(own, wanted):
        return np.arange(len(own), dtype=np.int64)
    known = {normal(name): place for place, name in enumerate(wanted)}
    times = Counter(map(normal, wanted))
    for name in own:
        if normal(name) not in known:
            raise DataError(f"class '{name}' is none {whose}", path=source, expected=describe(wanted),
                            found=describe(own), remedy=near(name, wanted))
        if times[normal(name)] > 1:
            raise DataError(f"class '{name}' stands for {times[normal(name)]} {whose}", path=source,
                            expected="names that are there once", remedy="rename the classes")
    return np.array([known[normal(name)] for name in own], dtype=np.int64)


def column(labels: Any, where: AnyPath) -> Any:
    """Labels of shape (n,), from an array or NDArray of shape (n,) or (n, 1).

    Raises DataError, which begins with `where`, for any other shape, such as that of one-hot labels.
    """
    shape = tuple(labels.shape)
    if len(shape) == 1:
        return labels
    if len(shape) == 2 and shape[1] == 1:
        return labels.reshape((-1,))
    raise DataError("not one label an image", path=where, expected="labels of shape (n,) or (n, 1)", found=shape,
                    remedy="of one-hot labels take argmax(axis=1)" if len(shape) == 2 else None)


def numbers(labels: Any, where: AnyPath) -> np.ndarray:
    """Labels as an array of numbers (n,). Raises DataError, which begins with `where`, for another shape or type."""
    labels = column(np.asarray(labels), where)
    if labels.dtype.kind not in "biuf":
        raise DataError("labels are not numbers", path=where, expected="class numbers from 0", found=labels.dtype)
    return labels


def whole(labels: Any, where: AnyPath) -> np.ndarray:
    """Labels as class numbers, int64 (n,).

    Raises DataError, which begins with `where`, for a shape that `column` refuses or a label that is not whole.
    """
    labels = numbers(labels, where)
    wrong = labels[not_whole(labels)]
    if len(wrong):
        raise DataError(f"{len(wrong)} labels are not class numbers", path=where, expected="whole numbers from 0",
                        found=f"{wrong[0]:g}", remedy="correct the labels")
    return labels.astype(np.int64)


def not_whole(labels: np.ndarray) -> np.ndarray:
    """bool (n,): which labels are not whole numbers."""
    # NaN fails the comparison; infinity equals its own floor, so it needs a check of its own.
    return ~((np.floor(labels) == labels) & np.isfinite(labels))


def renumbered(labels: np.ndarray, number: np.ndarray, source: AnyPath) -> np.ndarray:
    """Converts labels to another order of the classes.

    Parameters
    ----------
    labels : (n,)
        Positions in the old class names; -1 (no single label) is kept.
    number : int (k,)
        The new position of each old class, from `places`.
    source : path-like
        Where the labels are from, for errors.

    Returns
    -------
    ndarray
        int64 (n,).

    Raises
    ------
    DataError
        A label is not one of the old classes.
    """
    labels = whole(labels, source)
    wrong = labels[(labels < -1) | (labels >= len(number))]
    if len(wrong):
        raise DataError(f"{len(wrong)} labels that none of its class names has", path=source, found=wrong[0],
                        expected=f"0 to {len(number) - 1}", remedy="name every class, or correct the labels")
    return np.where(labels < 0, labels, number[np.maximum(labels, 0)]) if len(number) else labels


def of(source: Any) -> list[str] | None:
    """The class names of an image source or a loader, in label order; None if it has none.

    They are its `class_names`, `classes` or `synsets`, or those of the data set in Gluon's DataLoader
    (`ImageFolderDataset`). Numbers in place of unknown names do not count as names.
    """
    while source is not None:
        if getattr(source, "numbered", False) or getattr(getattr(source, "source", None), "numbered", False):
            return None
        for attribute in ("class_names", "classes", "synsets"):
            names = getattr(source, attribute, None)
            if isinstance(names, (list, tuple)) and names and all(isinstance(name, str) for name in names):
                return list(names)
        # A DataLoader has a data set; data sets that transform, filter or sample wrap another one.
        source = getattr(source, "_dataset", None) or getattr(source, "_data", None) \
            if type(source).__module__.startswith("mxnet.gluon.data") else None
    return None
