"""Class names and labels: names are compared whatever their Unicode form, labels checked, and carried over by name."""
from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from gluon_ft.errors import DataError, near
from gluon_ft.io.paths import AnyPath


def normal(name: str) -> str:
    """A name in the form in which names are compared, NFC: macOS may write 'é' as two code points, Linux as one."""
    return unicodedata.normalize("NFC", str(name))


def same(first: Iterable[str] | None, second: Iterable[str] | None) -> bool:
    """Whether two lists of names are the same, in the same order; None is the same as None only."""
    if first is None or second is None:
        return first is second
    return [normal(name) for name in first] == [normal(name) for name in second]


def describe(names: Sequence[str]) -> str:
    """'3 classes: a, b, c', cut after eight names."""
    more = ", ..." * (len(names) > 8)
    return f"{len(names)} class{'es' * (len(names) != 1)}: {', '.join(map(str, names[:8]))}{more}"


def places(own: Sequence[str], wanted: Sequence[str], source: AnyPath, whose: str = "of those expected") -> np.ndarray:
    """Where each of the names `own` stands in `wanted`.

    Parameters
    ----------
    own, wanted : sequence of str
        `own` may lack names of `wanted`, and have another order.
    source : path-like
        What has the names `own`; begins the error.
    whose : str
        Whose names `wanted` are, for the error, which says "class 'x' is none of the network's".

    Returns
    -------
    ndarray
        int64 (len(own),).

    Raises
    ------
    DataError
        `wanted` lacks a name, or has it twice.
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
    """Labels as one column (n,): an array, or an NDArray, of that shape or (n, 1).

    Raises DataError for another shape, such as that of one-hot labels. where : begins the error
    """
    shape = tuple(labels.shape)
    if len(shape) == 1:
        return labels
    if len(shape) == 2 and shape[1] == 1:
        return labels.reshape((-1,))
    raise DataError("not one label an image", path=where, expected="labels of shape (n,) or (n, 1)", found=shape,
                    remedy="of one-hot labels take argmax(axis=1)" if len(shape) == 2 else None)


def numbers(labels: Any, where: AnyPath) -> np.ndarray:
    """Labels as a column of numbers (n,). Raises DataError for another shape or type. where : begins the error"""
    labels = column(np.asarray(labels), where)
    if labels.dtype.kind not in "biuf":
        raise DataError("labels are not numbers", path=where, expected="class numbers from 0", found=labels.dtype)
    return labels


def whole(labels: Any, where: AnyPath) -> np.ndarray:
    """Labels as class numbers, int64 (n,).

    Raises DataError for another shape than that of `column`, or what is not a whole number. where : begins the error
    """
    labels = numbers(labels, where)
    wrong = labels[not_whole(labels)]
    if len(wrong):
        raise DataError(f"{len(wrong)} labels are not class numbers", path=where, expected="whole numbers from 0",
                        found=f"{wrong[0]:g}", remedy="correct the labels")
    return labels.astype(np.int64)


def not_whole(labels: np.ndarray) -> np.ndarray:
    """bool (n,): which labels are not whole numbers."""
    # Written so that NaN is not whole; infinity is its own floor.
    return ~((np.floor(labels) == labels) & np.isfinite(labels))


def renumbered(labels: np.ndarray, number: np.ndarray, source: AnyPath) -> np.ndarray:
    """Labels by other names.

    Parameters
    ----------
    labels : (n,)
        Positions in the own names; -1 (no single label) stays.
    number : int (k,)
        As of `places`.
    source : path-like
        What has the labels; begins the error.

    Returns
    -------
    ndarray
        int64 (n,).

    Raises
    ------
    DataError
        A label that is no position in the own names.
    """
    labels = whole(labels, source)
    wrong = labels[(labels < -1) | (labels >= len(number))]
    if len(wrong):
        raise DataError(f"{len(wrong)} labels that none of its class names has", path=source, found=wrong[0],
                        expected=f"0 to {len(number) - 1}", remedy="name every class, or correct the labels")
    return np.where(labels < 0, labels, number[np.maximum(labels, 0)]) if len(number) else labels


def of(source: Any) -> list[str] | None:
    """The class names that a source of images or a loader carries, in label order; None where nothing names them.

    Taken from its `classes`, or the `synsets` of a data set in Gluon's DataLoader (`ImageFolderDataset`). Numbers that
    stand in for names, as where a list has none, are none.
    """
    while source is not None:
        if getattr(source, "numbered", False) or getattr(getattr(source, "source", None), "numbered", False):
            return None
        for attribute in ("class_names", "classes", "synsets"):
            names = getattr(source, attribute, None)
            if isinstance(names, (list, tuple)) and names and all(isinstance(name, str) for name in names):
                return list(names)
        # DataLoader's data set, and the data sets below those that transform, filter or take from another.
        source = getattr(source, "_dataset", None) or getattr(source, "_data", None) \
            if type(source).__module__.startswith("mxnet.gluon.data") else None
    return None
