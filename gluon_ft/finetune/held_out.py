"""What a job's networks say of images that they were not trained on: cross-validation, measures, temperature."""
from __future__ import annotations

import io
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gluon_ft.data.sources.base import ImageSource
from gluon_ft.errors import DataError
from gluon_ft.evaluation import calibration, folds, linear, measures
from gluon_ft.evaluation.comparison import NAME, predictions_csv
from gluon_ft.finetune import network, pictures
from gluon_ft.finetune.advice import ON_FEATURES
from gluon_ft.finetune.folder import FOLDS_DONE
from gluon_ft.finetune.settings import JobSettings
from gluon_ft.io import atomic
from gluon_ft.models.spec import resolve
from gluon_ft.training.feature_cache import by_image
from gluon_ft.training.fit import fit

BEST = "best.params"
OUT_OF_FOLD = "out_of_fold.csv"  # in the folder of a run
FOLDS = 5  # that a linear classifier's settings are chosen by, where each class has as many images


@dataclass(frozen=True)
class OutOfFold:
    """Each training image as networks see it that were trained without its fold; what `judge` says of that.

    Attributes
    ----------
    source : ImageSource
    labels, fold : ndarray
        int64 (n,); folds count from 0.
    probabilities, calibrated : ndarray
        float (n, classes), as of `judge`.
    temperature : float or None
    found : dict
        What `judge` found, for result.json.
    """

    source: ImageSource
    labels: np.ndarray
    fold: np.ndarray
    probabilities: np.ndarray
    calibrated: np.ndarray
    temperature: float | None
    found: dict


def check_folds(labels: np.ndarray, groups: np.ndarray | None, settings: JobSettings) -> None:
    """Refuses a cross-validation that cannot be done, before anything is written.

    Parameters
    ----------
    labels : int (n,)
        Of the training images.
    groups : int (n,) or None
        As of `folds.folds`.
    settings : JobSettings
        Resolved.

    Raises
    ------
    ConfigError, DataError
        As `folds.folds` does; a class of which a fold leaves one image, for a classifier on features.
    """
    if settings.cross_validate is None:
        return
    for train, _ in folds.folds(labels, settings.cross_validate, settings.seed or 0, groups):
        least = min(Counter(labels[train].tolist()).values())
        if settings.strategy in ON_FEATURES and least < 2:
            raise DataError(f"too few images of a class for strategy '{settings.strategy}' in "
                            f"{settings.cross_validate} folds", expected="2 or more to train on in every fold",
                            found=least, remedy="add images, ask for more folds, or take strategy head")


def fit_classifier(images: np.ndarray, labels: np.ndarray, settings: JobSettings,
                   groups: np.ndarray | None = None) -> linear.Linear:
    """The linear classifier of a job's strategy, fitted to features.

    Parameters
    ----------
    images : float (n, d)
    labels : int (n,)
    settings : JobSettings
        Resolved.
    groups : int (n,), optional
        Copies have the same number, and stay in one fold of those that choose the classifier; but not for 'svm', the
        published procedure.
    """
    groups = None if settings.strategy == "svm" else groups
    different = np.arange(len(labels)) if groups is None else np.unique(groups, return_index=True)[1]
    if min(Counter(labels[different].tolist()).values()) < 2 or set(labels[different]) != set(labels):
        groups, different = None, np.arange(len(labels))  # a class of copies alone cannot be divided
    smallest = min(Counter(labels[different].tolist()).values())
    return linear.fit(images, labels, settings.strategy, k=min(FOLDS, smallest), seed=settings.seed or 0,
                      groups=groups)


def cross_validate(job: Any) -> OutOfFold:
    """Trains a network of the job's settings without each fold, and has it predict that fold.

    Copies of an image stay in one fold. The networks are made like the job's own; they are not kept, but what
    they said of their folds is, in out_of_fold.csv. After an interruption the folds that are done count.

    Parameters
    ----------
    job : plan.Job
        With its run.
    """
    begun, plain = time.perf_counter(), job.loader("train", False)
    labels, classes = np.asarray(plain.labels, np.int64), job.data.class_names
    drawn = folds.folds(labels, job.settings.cross_validate, job.settings.seed, job.data.groups)
    done, fold = _done(job.run.folder, len(labels), len(classes)), np.empty(len(labels), np.int64)
    predicted = (_classified if job.settings.strategy in ON_FEATURES else _trained)(job, plain, drawn, done)
    for number, (_, held) in enumerate(drawn):
        fold[held] = number
        if np.isnan(done[held]).any():
            done[held] = next(predicted)
            with job.run.writing():
                _keep(job.run.folder, done)
        right = (done[held].argmax(1) == labels[held]).mean()
        job.say(f"fold {number + 1} of {len(drawn)}: accuracy {right:.3f} of {len(held)} images")
    temperature, calibrated, found = judge(done, labels, classes, job.settings.strategy in ON_FEATURES,
                                           job.settings.seed)
    by_fold = [float((done[held].argmax(1) == labels[held]).mean()) for _, held in drawn]
    found = {**found, "folds": len(drawn), "fold_accuracies": by_fold, "seconds": round(time.perf_counter() - begun, 2)}
    with job.run.writing():
        atomic.write(job.run.folder / OUT_OF_FOLD, predictions_csv(
            _names(plain.source), labels, calibrated, classes, all_probabilities=True, fold=(fold + 1).tolist()))
    low, high = found["measures"]["interval"]
    said = f"cross-validated accuracy {found['measures']['accuracy']:.3f} (95 % interval {low:.3f} to {high:.3f}) on " \
           f"{len(labels)} images in {len(drawn)} folds"
    job.say(said)
    job.notes.append(f"{said}; the network itself is trained on all of them")
    return OutOfFold(plain.source, labels, fold, done, calibrated, temperature, found)


def forget_folds(folder: Path) -> None:
    """Removes what `cross_validate` kept for a run to be resumed."""
    (folder / FOLDS_DONE).unlink(missing_ok=True)


def _classified(job, plain, drawn, done) -> Iterator[np.ndarray]:
    """The probabilities of each fold that is not done, by a linear classifier on the features of the others."""
    images, labels = None, np.asarray(plain.labels, np.int64)
    for train, held in drawn:
        if np.isnan(done[held]).any():
            if images is None:
                images, _ = by_image.of_images(job.net, plain, job.contexts, "training features")
            yield fit_classifier(images[train], labels[train], job.settings, _of(job.data.groups, train)).probabilities(
                images[held])


def _of(groups, positions):
    return None if groups is None else np.asarray(groups)[positions]


def _trained(job, plain, drawn, done) -> Iterator[np.ndarray]:
    """The probabilities of each fold that is not done, by a network trained on the others."""
    chosen = job.settings
    for number, (train, held) in enumerate(drawn):
        if not np.isnan(done[held]).any():
            continue
        net, _ = network.build(resolve(chosen.backbone, chosen.pretrained), job.data.class_names, job.contexts,
                               chosen.seed, chosen.size)
        network.apply(net, chosen)
        with tempfile.TemporaryDirectory(prefix=".fold-", dir=job.run.folder) as place:
            fit(net, folds.subset(job.loader("train", True), train), None, chosen.training(), ctx=job.contexts,
                save_to=place, name=f"fold {number + 1}")
            net.load_parameters(str(Path(place) / BEST), ctx=job.contexts)
        yield pictures.predictions(net, folds.subset(plain, held), job.contexts, chosen.precision)[0]


def _done(folder, images, classes) -> np.ndarray:
    """The probabilities of the folds that an interrupted run has done; NaN for all others."""
    try:
        kept = np.load(folder / FOLDS_DONE, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        kept = None
    if kept is None or kept.shape != (images, classes) or kept.dtype != np.float64:
        return np.full((images, classes), np.nan)
    return kept


def _keep(folder, done) -> None:
    data = io.BytesIO()
    np.save(data, done)
    atomic.write(folder / FOLDS_DONE, data.getvalue())


def _names(source) -> list[str]:
    return [source.image_name(i) for i in range(len(source))]


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
    return atomic.write(folder / NAME, predictions_csv(_names(source), labels, probabilities, classes,
                                                       sha256=source.content_hashes()))
