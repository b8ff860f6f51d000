"""What a job's network says of images that it was not trained on: how good it is, its temperature, predictions.csv."""
from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from gluon_ft.data.sources.base import ImageSource
from gluon_ft.data.sources.files import FileSource
from gluon_ft.evaluation import calibration, measures
from gluon_ft.evaluation.comparison import NAME, predictions_csv
from gluon_ft.io import atomic


def judge(probabilities: np.ndarray, labels: np.ndarray, classes: list[str], calibrated: bool,
          seed: int = 0) -> tuple[float | None, np.ndarray, dict]:
    """Measures a network on held-out images, and fits the temperature of its probabilities.

    Parameters
    ----------
    probabilities : float (n, classes)
        Uncalibrated.
    labels : int (n,)
    classes : list of str
    calibrated : bool
        Whether the network's own probabilities are calibrated, as those of a linear classifier on features are.
    seed : int, default 0
        Of the folds in which the temperature is judged.

    Returns
    -------
    temperature : float or None
        None where the probabilities are calibrated already, or there is one image only.
    probabilities : float (n, classes)
        Calibrated without the image itself, see `calibration.held_out_tempered`.
    found : dict
        For result.json: `measures` of these probabilities, and `calibration` with the temperature and the log loss and
        calibration error before and after.
    """
    before = measures.measure(labels, probabilities, classes)
    if calibrated or len(labels) < 2:
        return None, probabilities, {"measures": _summary(before)}
    temperature = calibration.fit_temperature(probabilities, labels)
    held_out = calibration.held_out_tempered(probabilities, labels, seed=seed)
    after = measures.measure(labels, held_out, classes)
    return temperature, held_out, {"measures": _summary(after), "calibration": {
        "temperature": temperature, "log_loss_before": before.log_loss, "log_loss_after": after.log_loss,
        "ece_before": before.ece, "ece_after": after.ece}}


def _summary(found: measures.Measures) -> dict:
    return {"images": found.images, "accuracy": found.accuracy, "interval": list(found.interval),
            "mean_class_accuracy": found.mean_class_accuracy, "macro_f1": found.averages["macro"]["f1"],
            "log_loss": found.log_loss, "ece": found.ece, "auc": found.auc}


def write_predictions(folder: Path, source: ImageSource, labels: np.ndarray, probabilities: np.ndarray,
                      classes: list[str]) -> Path:
    """Writes predictions.csv into a run's folder: file, sha256 (of the image's bytes), label, prediction, probability.

    Parameters
    ----------
    folder : Path
    source : ImageSource
        The images, in the order of the next two.
    labels : int (n,)
    probabilities : float (n, classes)
    classes : list of str
    """
    hashes = source.hashes()[0] if isinstance(source, FileSource) else [
        hashlib.sha256(source.read(i)).hexdigest() for i in range(len(source))]
    names = [source.image_name(i) for i in range(len(source))]
    return atomic.write(folder / NAME, predictions_csv(names, labels, probabilities, classes, sha256=hashes))
