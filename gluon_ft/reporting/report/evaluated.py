"""What a report shows of the images that a network was measured on: classes, confusions, mistakes, doubtful labels."""
from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup, escape

from gluon_ft.data.sources.base import ImageSource
from gluon_ft.errors import escaped
from gluon_ft.reporting.report import charts, thumbnails

if TYPE_CHECKING:  # it imports MXNet
    from gluon_ft.evaluation.label_errors import Judged

MOST_MISTAKES, MOST_SUSPECTS = 24, 24
TABLE_CLASSES = 30  # above it the matrix is a picture, with a list of pairs
CELL_EDGE = 96  # pixels of the longer edge of a cell's thumbnails
PER_CELL, PER_RIGHT_CELL = 8, 3  # thumbnails
MOST_CELL_IMAGES, MOST_CELL_BYTES = 320, 2_200_000  # of all cells together
MOST_PAIRS = 250  # cells with a list of their own


@dataclass
class Evaluated:
    """Images with known labels, and what a network that was not trained on them says of each.

    Attributes
    ----------
    source : ImageSource
    what : str
        What they are: 'validation images', ...
    labels : ndarray
        int64 (n,).
    probabilities : ndarray
        float (n, classes), calibrated without the image itself.
    classes : list of str
        In label order.
    uncalibrated : ndarray
        The same before calibration; the same object where nothing was calibrated.
    how : str
        What else there is to say of how they were predicted.
    heat : dict of int to ndarray
        Position of a mistake -> the image with the heat map of Grad-CAM over it, uint8 (height, width, 3).
    """

    source: ImageSource
    what: str
    labels: np.ndarray
    probabilities: np.ndarray
    classes: list[str]
    uncalibrated: np.ndarray
    how: str = ""
    heat: dict[int, np.ndarray] = field(default_factory=dict)

    @property
    def mistakes(self) -> list[int]:
        """Positions of the most confident mistakes, the worst first, as many as a report shows."""
        predicted, sure = self.probabilities.argmax(1), self.probabilities.max(1)
        wrong = [int(i) for i in np.argsort(-sure, kind="stable") if predicted[i] != self.labels[i]]
        return wrong[:MOST_MISTAKES]


@dataclass
class Story:
    """What a report of a job tells beside its results.

    Attributes
    ----------
    about : str
        What was done, in a sentence.
    evaluated : Evaluated or None
    judged : evaluation.label_errors.Judged or None
        Training images whose labels are doubtful, by networks that did not see them.
    facts : list of str
        What was found about the images.
    left_out : list of dict
        {part, path, why} of each image that was not used.
    hashes : dict of str to str
        Of data and weights, by name.
    """

    about: str = ""
    evaluated: Evaluated | None = None
    judged: Judged | None = None
    facts: list[str] = field(default_factory=list)
    left_out: list[dict] = field(default_factory=list)
    hashes: dict[str, str] = field(default_factory=dict)


def view(found: Evaluated) -> dict[str, Any]:
    """All that the template shows of the images.

    Keys: `what`, `how`, `images`, `wrong`, `measures` (`evaluation.measures.Measures`), `matrix` or, of many classes,
    `data`, `pairs`, `more_pairs`, `right`, `mistakes`, `heat` (whether they have heat maps), `reliability` and
    `by_bins` (the names of its lines).
    """
    from gluon_ft.evaluation.measures import measure

    measures = measure(found.labels, found.probabilities, found.classes)
    cells = _cells(found, measures.confusion)
    wrong = [cell for cell in cells if cell["row"] != cell["column"]]
    right = [cell for cell in cells if cell["row"] == cell["column"]]
    by_bins = {"as predicted": measures.reliability}
    if found.uncalibrated is not found.probabilities:
        before = measure(found.labels, found.uncalibrated, found.classes)
        by_bins = {"after calibration": measures.reliability, "before": before.reliability}
    table = len(found.classes) <= TABLE_CLASSES
    return {"what": found.what, "how": found.how, "images": measures.images, "measures": measures,
            "pairs": wrong[:MOST_PAIRS], "more_pairs": max(0, len(wrong) - MOST_PAIRS),
            "right": right[:MOST_PAIRS], "matrix": _table(measures.confusion) if table else None,
            "data": None if table else _data(measures.confusion, found.classes),
            "reliability": charts.reliability("Confidence and accuracy", by_bins), "by_bins": list(by_bins),
            "mistakes": _mistakes(found), "heat": bool(found.heat), "wrong": measures.images - measures.correct}


def _table(matrix) -> list[list[dict]]:
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    return [[{"count": int(count), "shade": round(float(share) ** 0.5 * 0.55, 3)} for count, share in zip(*line)]
            for line in zip(matrix, shares)]


def _data(matrix, classes) -> Markup:
    """The cells that are not empty, and the names, for the page's script."""
    rows, columns = np.nonzero(matrix)
    cells = np.stack([rows, columns, matrix[rows, columns]], 1).ravel().tolist()
    names = [escaped(name) for name in classes]
    return Markup(escape(json.dumps({"names": names, "cells": cells}, separators=(",", ":"))))


def _cells(found, matrix) -> list[dict]:
    """The cells that are not empty, the largest first, with thumbnails of some of their images: the most confident
    ones, one for each confusion before there are second ones, and right predictions last."""
    predicted, sure = found.probabilities.argmax(1), found.probabilities.max(1)
    rows, columns = np.nonzero(matrix)
    cells = {(int(r), int(c)): {"row": int(r), "column": int(c), "count": int(matrix[r, c]), "pictures": [],
                                "label": found.classes[r], "predicted": found.classes[c]}
             for r, c in zip(rows, columns)}
    ordered = sorted(cells, key=lambda place: -cells[place]["count"])
    members: dict[tuple, list[int]] = {place: [] for place in cells}
    for i in np.argsort(-sure, kind="stable"):
        members[int(found.labels[i]), int(predicted[i])].append(int(i))
    confused, right = [p for p in ordered if p[0] != p[1]], [p for p in ordered if p[0] == p[1]]
    turns = [(place, turn) for turn in range(PER_CELL) for place in confused[:MOST_PAIRS]]
    turns += [(place, turn) for turn in range(PER_RIGHT_CELL) for place in right[:MOST_PAIRS]]
    images = size = 0
    for place, turn in turns:
        if turn >= len(members[place]):
            continue
        if images >= MOST_CELL_IMAGES or size >= MOST_CELL_BYTES:
            break
        i = members[place][turn]
        address = thumbnails.of_source(found.source, i, CELL_EDGE)
        if address is not None:
            cells[place]["pictures"].append({"address": address, "name": found.source.image_name(i),
                                             "sure": float(sure[i])})
            images, size = images + 1, size + len(address)
    return [cells[place] for place in ordered]


def _mistakes(found) -> list[dict]:
    predicted, own = found.probabilities.argmax(1), found.probabilities[np.arange(len(found.labels)), found.labels]
    return [{"address": thumbnails.of_source(found.source, i), "name": found.source.image_name(i),
             "heat": thumbnails.jpeg_address(thumbnails.thumbnail(found.heat[i])) if i in found.heat else None,
             "label": found.classes[found.labels[i]], "predicted": found.classes[predicted[i]],
             "sure": float(found.probabilities[i].max()), "own": float(own[i])} for i in found.mistakes]


def suspects(judged: Judged) -> dict[str, Any]:
    """The labels that are doubtful: `total`, of how many `images`, `notes`, and the first of them as `cards`."""
    return {"total": len(judged.suspects), "images": len(judged.labels), "notes": judged.notes, "cards": [
        {"address": thumbnails.of_source(judged.source, one.position), "name": one.file, "label": one.label,
         "suggested": one.suggested, "reason": one.reason} for one in judged.suspects[:MOST_SUSPECTS]]}
