"""What an INT8 model costs: its answers beside those of the float32 model, on images that did not calibrate it."""
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gluon_ft.errors import DataError
from gluon_ft.evaluation.measures import wilson
from gluon_ft.export.certificate import Answers
from gluon_ft.export.int8.images import Calibration
from gluon_ft.weights import model_folder

_NORMAL = 1.96  # standard deviations on either side of a mean that hold 95 %
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Judgement:
    """The INT8 model beside the float32 one.

    Attributes
    ----------
    images : int
        That it was judged on.
    calibration : dict
        `images`, how many calibrated it, and `source`, where they are from.
    layers, kept : int, list of str
        Layers with weights in integers; those that stay in float32 as was asked for.
    accuracy : dict or None
        'float32' and 'int8' -> {accuracy, interval}; None where the images have no labels.
    changed : int
        Images that get another class.
    loss, loss_interval, limit : float, (float, float), float
        Points of accuracy that are lost, or of decisions that changed where there are no labels; the interval in which
        the loss lies in 95 of 100 cases; and the loss that is allowed.
    largest_difference, mean_difference : float
        Of a probability, and of an image's probabilities (half the sum over the classes).
    images_per_second : dict of str to float
        'float32' and 'int8': of the network alone, in ONNX Runtime.
    bytes : dict of str to int
        'float32' and 'int8': of the files.
    """

    images: int
    calibration: dict[str, Any]
    layers: int
    kept: list[str]
    accuracy: dict[str, dict[str, Any]] | None
    changed: int
    loss: float
    loss_interval: tuple[float, float]
    limit: float
    largest_difference: float
    mean_difference: float
    images_per_second: dict[str, float]
    bytes: dict[str, int]

    @property
    def holds(self) -> bool:
        """Whether the loss is allowed."""
        return self.loss <= self.limit + _ROUNDING

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for certificate.json."""
        return asdict(self)


def labels_of(images: Any, names: Sequence[str], classes: Sequence[str]) -> np.ndarray | None:
    """The label of each image, as a position in the classes; None unless all have one.

    Parameters
    ----------
    images : ImageSource
        Its own labels count where its classes are the network's.
    names : sequence of str
        What each image is called: the first folder counts as its class where it has that name.
    classes : sequence of str
        Of the network.
    """
    numbers = {name: number for number, name in enumerate(classes)}
    if images.class_names is not None and not images.numbered:
        found = [numbers.get(images.label_name(position), -1) for position in range(len(images))]
    else:
        found = [numbers.get(name.split("/")[0], -1) if "/" in name else -1 for name in names]
    return None if not found or min(found) < 0 else np.array(found)


def judge(said: Answers, calibration: Calibration, labels: np.ndarray | None, limit: float, *, folder: Path,
          layers: int, kept: Sequence[str]) -> tuple[Judgement, np.ndarray]:
    """What the INT8 model costs, and the positions of the images that judged it.

    Parameters
    ----------
    said : Answers
    calibration : Calibration
        Its images do not judge.
    labels : int array or None
        Of all images.
    limit : float
        Points that may be lost.
    folder : Path
        With both files.
    layers : int
        Layers in integers.
    kept : sequence of str
        Layers in float32.

    Raises
    ------
    DataError
        No image is left to judge on.
    """
    judges = np.array([i for i in said.good if said.pixels[i] not in calibration.pixels], int)
    if not len(judges):
        raise DataError("no images to judge INT8 on beside those that calibrate it",
                        found=f"{len(said.good)} images, all among the {len(calibration.images)} of the "
                              f"{calibration.source} that calibrate", remedy="give others with --check")
    names = {"float32": model_folder.ONNX, "int8": model_folder.ONNX_INT8}
    rows = {kind: said.onnx[name][judges] for kind, name in names.items()}
    best = {kind: values.argmax(axis=1) for kind, values in rows.items()}
    accuracy, changed = None, best["float32"] != best["int8"]
    lost, won = changed, np.zeros_like(changed)
    if labels is not None:
        right = {kind: values == labels[judges] for kind, values in best.items()}
        accuracy = {kind: {"accuracy": float(values.mean()), "interval": wilson(int(values.sum()), len(values))}
                    for kind, values in right.items()}
        lost, won = right["float32"] & ~right["int8"], right["int8"] & ~right["float32"]
    differences = np.abs(rows["float32"] - rows["int8"])
    found = Judgement(
        len(judges), {"images": len(calibration.images), "source": calibration.source}, layers, list(kept), accuracy,
        int(changed.sum()), 100 * float(lost.sum() - won.sum()) / len(judges),
        _interval(int(lost.sum()), int(won.sum()), len(judges)), limit, float(differences.max()),
        float(differences.sum(axis=1).mean() / 2),
        {kind: round(len(said.pixels) / said.network_seconds[name], 1) for kind, name in names.items()},
        {kind: (folder / name).stat().st_size for kind, name in names.items()})
    return found, judges


def _interval(lost: int, won: int, images: int) -> tuple[float, float]:
    """Of a loss in points, 95 %: Wald's for paired shares with half an image added to each cell (Agresti, Min 2005)."""
    a, b, n = lost + 0.5, won + 0.5, images + 2
    mean = (a - b) / n
    half = _NORMAL * math.sqrt((a + b) / n - mean ** 2) / math.sqrt(n)
    return 100 * (mean - half), 100 * (mean + half)
