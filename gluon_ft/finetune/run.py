"""Runs a job: `train`, from a folder of photos to a reported network, and `find_lr`, a learning rate for it."""
from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np

from gluon_ft.data.sources.joined import paths_of
from gluon_ft.engine import choice as engines
from gluon_ft.errors import ConfigError, Interrupted, UserError, WeightsError
from gluon_ft.evaluation import linear, model, unknowns
from gluon_ft.evaluation.calibration import tempered
from gluon_ft.evaluation.folds import subset
from gluon_ft.finetune import folder as folders
from gluon_ft.finetune import held_out, job_data, network, pictures, plan, settings
from gluon_ft.finetune.advice import ON_FEATURES
from gluon_ft.finetune.examine import examine
from gluon_ft.finetune.settings import ORIGINS, REASONS, JobSettings
from gluon_ft.io import documents, reporter, signals
from gluon_ft.io.paths import AnyPath
from gluon_ft.models.spec import resolve
from gluon_ft.reporting import Run, data_record, report, run_files
from gluon_ft.reporting import run as reporting
from gluon_ft.reporting.report import Evaluated
from gluon_ft.runtime import devices
from gluon_ft.runtime.distributed import roles
from gluon_ft.runtime.distributed.workers import joined
from gluon_ft.training import checkpoint, lr_finder
from gluon_ft.training.feature_cache import by_image, features
from gluon_ft.training.fit import fit
from gluon_ft.training.metrics import best_epoch

LAST, BEST = "last.params", held_out.BEST
# What may differ when a run goes on: nothing that changes its result.
FREE = {"workers", "save_every", "save_minutes", "keep", "kvstore"}


@dataclass(frozen=True)
class Outcome:
    """A finished run.

    Attributes
    ----------
    folder : Path
    settings : JobSettings
        Resolved.
    result : dict
        What result.json holds.
    report : Path
    """

    folder: Path
    settings: JobSettings
    result: dict
    report: Path


def train(data: AnyPath | None = None, *, run: AnyPath | None = None, runs: AnyPath = "runs", resume: bool = False,
          config: AnyPath | None = None, assignments: Iterable[str] = (), say: Callable[[str], None] = print,
          **options: Any) -> Outcome | None:
    """Fine-tunes a network on a folder of photos; every choice that is not given is made, and explained by `say`.

    Where `gluon-ft launch` has started this process as one of several workers they train together, with kvstore
    'dist_sync' unless another is given: worker 0 decides and writes everything, the others get its settings, take their
    share of each batch, and return None.

    The run's folder then holds config.json (every setting, resolved), environment.json, data.json and the lists,
    metrics.jsonl, last.params and best.params with their cards, best.params.features (see `evaluation.unknowns`),
    predictions.csv, result.json, curves and report.html.

    Parameters
    ----------
    data : path-like, optional
        The photos, see `JobSettings`; or `train` and `val` among the options.
    run : path-like, optional
        Folder of this run, new or empty; by default a new one in `runs`.
    runs : path-like, default 'runs'
        Folder of the runs; made where it is missing. Not used where `run` is given.
    resume : bool, default False
        Go on with the unfinished run in `run`; where there is none yet, begin it.
    config : path-like, optional
        A .toml or .json file with settings, such as config.json of another run.
    assignments : iterable of str
        Texts key=value.
    say : callable(str)
        Gets each line for people.
    **options
        Settings by name; see `settings.collect` for the order of the three.

    Raises
    ------
    UserError
        of all kinds: what is wrong with the settings, the images, the weights, the folder, the training.
    """
    begun = time.perf_counter()
    values, origins = settings.collect(config, assignments, {**options, **({} if data is None else {"data": data})})
    if os.environ.get(roles.ROLE) == roles.WORKER and "kvstore" not in values:
        values["kvstore"], origins["kvstore"] = "dist_sync", "advice"
    with joined(values.get("kvstore", "device")) as workers:
        if workers.rank:
            _assist(workers)
            return None
        return _train(run, runs, resume, config, values, origins, say, begun)


def _train(run, runs, resume, config, values, origins, say, begun) -> Outcome:
    going_on = _goes_on(run, resume, values)
    place, wanted, found = Path(run if run is not None else runs), None, None
    with contextlib.ExitStack() as stack:
        stack.enter_context(signals.raised("stopped"))
        if not going_on:
            wanted = JobSettings(**values)
            job_data.check_outside(place, wanted)
            found = plan.check(wanted, values, origins)
        source = None if config is None else data_record.read(Path(config).parent)
        place = place if run is not None else reporting.new_folder(runs, _name(wanted))
        stack.enter_context(_told_how_to_go_on(place))
        folder = stack.enter_context(folders.claimed(place, made=run is None))
        if going_on and folders.state(folder) == "finished":
            with joined(values.get("kvstore", "device")) as workers:
                workers.first()
            return _finished(folder, values, say)
        _refuse_other(folder, going_on)
        job = _resumed(folder, values, say) if going_on else _begun(folder, wanted, values, origins, found, say)
        if source is not None:
            _note_other_data(job, config, source)
        stack.enter_context(engines.using(job.settings.engine))
        return _carried_out(job, going_on, begun)


def _assist(workers) -> None:
    """What the workers but the first do: the job that worker 0 has planned, up to the end of its training."""
    told = workers.first()
    if not told:
        return  # there was nothing to train
    order = documents.parse_json(told)
    values, _ = settings.collect(options=order["settings"])
    origins, wanted = dict.fromkeys(values, "config"), JobSettings(**values)
    with tempfile.TemporaryDirectory() as folder, reporter.silenced(), signals.raised("stopped"):
        job = plan.begin(wanted, values, origins, plan.check(wanted, values, origins), lambda _: None)
        job.data = job_data.write(job.data, folder)
        with engines.using(job.settings.engine):
            fit(job.net, job.loader("train", True), job.loader("validation", False), job.settings.training(),
                ctx=job.contexts, save_to=folder, resume=order["resume"], name=order["name"])


@contextlib.contextmanager
def _told_how_to_go_on(folder: Path) -> Iterator[None]:
    """An interruption says what is left of the run: the command that resumes it, or nothing."""
    try:
        yield
    except Interrupted as stop:
        state = folders.state(folder)
        if state == "finished":
            raise
        left = f": {_resuming(folder)}" if state == "unfinished" else "; nothing is left of the run"
        raise Interrupted(f"{stop}{left}", stop.status) from None


def _resuming(folder) -> str:
    return f"gluon-ft train --run {shlex.quote(str(folder))} --resume"


def find_lr(data: AnyPath | None = None, *, lowest: float = 1e-6, highest: float = 10.0, steps: int = 100,
            config: AnyPath | None = None, assignments: Iterable[str] = (), say: Callable[[str], None] = print,
            **options: Any) -> tuple[lr_finder.Found, JobSettings]:
    """Finds a learning rate for the job that `train` would run with the same settings and a rate of its own.

    The job is planned as by `train` where `lr` is given: same training images, network, frozen layers and cached
    features. Nothing is written but to the cache of features, where `cache_features` is 'disk'. Packed records without
    validation records are taken whole, since they are never split.

    Parameters
    ----------
    data, config, assignments, say, **options
        As of `train`.
    lowest, highest, steps
        As of `training.lr_finder.find_lr`.

    Returns
    -------
    found : training.lr_finder.Found
    settings : JobSettings
        The job's, resolved; `lr` is not the suggestion.

    Raises
    ------
    UserError
        of all kinds, as `train`.
    """
    lr_finder.check(lowest, highest, steps)
    values, origins = settings.collect(config, assignments, {**options, **({} if data is None else {"data": data})})
    values = {"lr": settings.described()["lr"].default, **values}
    origins = {**origins, "lr": "option"}
    images = str(values.get("data") or values.get("train") or "")
    if images and paths_of(images)[0].suffix.lower() == ".rec" and values.get("val") is None:
        values.setdefault("validation", 0.0)
    wanted = JobSettings(**values)
    job = plan.begin(wanted, values, origins, plan.check(wanted, values, origins), say)
    with tempfile.TemporaryDirectory() as folder:
        job.data = job_data.write(job.data, folder)
        found = lr_finder.find_lr(job.net, job.loader("train", True), job.settings.training(), lowest=lowest,
                                  highest=highest, steps=steps, ctx=job.contexts)
    return found, job.settings


def _goes_on(run, resume, values) -> bool:
    """Whether a run that was begun is gone on with."""
    if resume and run is None:
        raise ConfigError("resume needs to know the run", remedy="name its folder with --run")
    going_on = resume and folders.state(run) in ("unfinished", "finished")
    if resume and not going_on and values.get("data") is None and values.get("train") is None:
        raise UserError("no run to go on with", path=run, remedy="check the name, or give PHOTOS to begin it")
    return going_on


def _name(wanted) -> str:
    """A name for the run from that of the photos."""
    name = re.sub(r"[^\w.-]+", "-", job_data.first_of(wanted.data or wanted.train).resolve().stem).strip("-._")
    return name or "train"


def _note_other_data(job, config, source):
    """Says where the images are not those of the run whose configuration is used."""
    differs = data_record.difference(source, data_record.read(job.run.folder) or {})
    if differs:
        job.notes.append(f"the data differ from those of {Path(config).parent}: {'; '.join(differs)}")
        job.say(f"note: {job.notes[-1]}")


def _refuse_other(folder, going_on):
    if not going_on and folders.state(folder) != "new":
        state = folders.state(folder)
        remedy = ("go on with --resume, or " if state == "unfinished" else "") + "name another folder, or move it away"
        what = "is not empty" if state == "other" else f"holds a run that is {state}"
        raise UserError(f"the run's folder {what}", path=folder, expected="a new or empty folder", remedy=remedy)


def _begun(folder, wanted, values, origins, found, say) -> plan.Job:
    say(f"run: {folder}")
    job = plan.begin(wanted, values, origins, found, say)
    job.run = Run(name=_name(wanted), folder=folder, config=job.config)
    job.data = job_data.write(job.data, folder, network.weights_of(job.net))
    return job


def _resumed(folder, values, say) -> plan.Job:
    say(f"run: {folder}, resumed")
    run = Run(name=re.sub(r"[^\w.-]+", "-", folder.resolve().name).strip("-._") or "train", folder=folder, resume=True)
    known, _ = settings.collect(folder / "config.json")
    chosen = JobSettings(**{**known, **_same(folder, known, values)})
    data = job_data.reopen(folder)
    fresh = data is None
    data = job_data.prepare(chosen) if fresh else data
    contexts = devices.contexts(chosen.devices)
    began_with = resolve(chosen.backbone, chosen.pretrained)
    net, notes = network.build(began_with, data.class_names, contexts, chosen.seed, chosen.size)
    network.apply(net, chosen)
    if fresh:
        data = job_data.write(data, folder, network.weights_of(net))
    else:
        if chosen.cross_validate is not None or chosen.strategy in ON_FEATURES:
            # The folder does not say which images are copies of each other.
            data.groups = examine(data.parts["train"], None, chosen.audit).groups
        began_from, now = (data_record.read(folder) or {}).get("weights"), network.weights_of(net)
        if began_from != now:
            raise WeightsError("the weights have changed since this run began", path=folder, found=now,
                               expected=began_from, remedy="put them back, or start another run")
    return plan.Job(chosen, run.config, data, net, contexts, [*notes, *data.lines], say, run)


def _same(folder, known, values) -> dict:
    """The settings given that may differ from those of the run; ConfigError for the others that do."""
    values = {**values, **{name: job_data.resolved(values[name]) for name in plan.PATHS if values.get(name)}}
    differ = [name for name in values if values[name] != known.get(name) and values[name] != settings.AUTO]
    refused = [name for name in differ if name not in FREE]
    if refused:
        name = refused[0]
        raise ConfigError("the run was begun with other settings", path=folder / "config.json",
                          expected=f"{name} {known.get(name)}", found=f"{name} {values[name]}",
                          remedy="leave it out to go on, or start another run")
    return {name: values[name] for name in differ if name in FREE}


def _carried_out(job, going_on, begun) -> Outcome:
    folds = None if job.settings.cross_validate is None else held_out.cross_validate(job)
    result = (_on_features if job.settings.strategy in ON_FEATURES else _by_training)(job, going_on)
    with job.run.writing():
        job.net.load_parameters(str(job.run.folder / BEST), ctx=job.contexts)
    fitted = result.pop("fitted", None)
    evaluated, temperature, more = _looked_at(job, folds, result.pop("predicted", None))
    known = _known(job, fitted, temperature, evaluated)
    story = pictures.story(job, evaluated, folds, fitted)
    history, before = result.pop("history"), result.pop("seconds_before")
    row = {"name": job.settings.strategy, "seed": job.settings.seed, "train_accuracy": result["train_accuracy"],
           "validation_accuracy": result["validation_accuracy"], "seconds": result["seconds"]}
    summary = {**result, **more, REASONS: job.run.config.get(REASONS, {}),
               "strategy": job.settings.strategy, "backbone": job.settings.backbone,
               "pretrained": job.settings.pretrained, "classes": len(job.data.class_names),
               "images": {name: len(part) for name, part in job.data.parts.items()}, "audit": job.data.facts}
    with job.run.writing():
        _save_cards(job, history, temperature, known)
    job.run.config = _explained(job.run.config)
    command = f"gluon-ft train --config {shlex.quote(str(job.run.folder / 'config.json'))}"
    report = job.run.finish([row], summary, None, job.notes, title=job.run.folder.resolve().name, command=command,
                            begun=begun - before, story=story)
    held_out.forget_folds(job.run.folder)
    return Outcome(job.run.folder, job.settings, run_files.read(job.run.folder / "result.json"), report)


def _by_training(job, going_on) -> dict:
    """Trains by gradient descent; what result.json holds of it, and `history` and `seconds_before`, of the training
    before an interruption."""
    chosen = job.settings
    inputs = (job.net, job.loader("train", True), job.loader("validation", False))
    job.say(network.describe(job.net))
    resume, begun = going_on and bool(checkpoint.Store(job.run.folder).paths()), time.perf_counter()
    with joined(chosen.kvstore) as workers:
        order = {"settings": chosen.to_dict(), "resume": resume, "name": job.run.name}
        workers.first(json.dumps(order).encode())
    found = fit(*inputs, chosen.training(), ctx=job.contexts, save_to=job.run.folder, resume=resume,
                on_epoch=lambda record: _log(job, record), name=job.run.name)
    before = found.seconds - (time.perf_counter() - begun)
    last, best = found.history[-1], found.history[found.best_epoch - 1]
    if found.stopped:
        job.notes.append(f"stopped after epoch {last['epoch']}: {found.stopped}")
    return {"history": found.history, "train_accuracy": last["train_accuracy"],
            "validation_accuracy": last.get("validation_accuracy"), "epochs": last["epoch"],
            "best_epoch": found.best_epoch, "best_validation_accuracy": best.get("validation_accuracy"),
            "seconds": round(found.seconds, 2), "seconds_before": max(0.0, before)}


def _log(job, record):
    job.run.log(job.settings.strategy, seed=job.settings.seed, **record)
    parts = [f"{part} {record[f'{key}_accuracy']:.3f}" for part, key in (("training", "train"),
                                                                        ("validation", "validation"))
             if f"{key}_accuracy" in record]
    job.say(f"epoch {record['epoch']}/{job.settings.epochs}: accuracy {', '.join(parts)}; loss "
            f"{record['train_loss']:.4f}; {record['seconds']:.1f} s")


def _on_features(job, going_on) -> dict:
    """Fits a linear classifier to the features of the last layer but one, and puts it in the place of the output."""
    begun = time.perf_counter()
    images, labels = by_image.of_images(job.net, job.loader("train", False), job.contexts, "training features")
    strategy, found = job.settings.strategy, held_out.fit_classifier(images, labels, job.settings, job.data.groups)
    linear.set_output(job.net, *found.dense(), job.data.class_names)
    for name in (LAST, BEST):
        checkpoint.save_parameters(job.net, job.run.folder / name)
    predicted, best = _classified(job, found), max(found.scores, key=lambda score: score["mean"])
    return {"history": [], "train_accuracy": float((found.logits(images).argmax(1) == labels).mean()),
            "validation_accuracy": None if predicted is None else
            float((predicted[0].argmax(1) == predicted[1]).mean()), "predicted": predicted,
            **({"classifier": linear.WORDS[found.kind, found.scaling]} if strategy == "linear" else {}),
            "fitted": (images, labels, found.held_out), "epochs": 0, "best_epoch": 0, "C": found.C,
            "cross_validated_accuracy": best["mean"],
            "seconds": round(time.perf_counter() - begun, 2), "seconds_before": 0.0}


def _classified(job, found) -> tuple[np.ndarray, np.ndarray] | None:
    """Probabilities and labels of the validation images, by the classifier from their features; None without images.

    It is what the network with the classifier in it says, to rounding, in one pass through its other layers.
    """
    validation = job.loader("validation", False)
    if validation is None:
        return None
    images, labels = by_image.of_images(job.net, validation, job.contexts, "validation features")
    weight, bias = found.dense()
    return np.asarray(mx.nd.softmax(mx.nd.array(images @ weight.T + bias)).asnumpy()), labels


def _known(job, fitted, temperature, evaluated) -> unknowns.Known | None:
    """What is kept of the images that the network knows; None where every image has trained its features.

    Features that were not trained tell of each image by the others; else validation images tell.
    """
    if fitted is not None:
        images, labels, out_of_fold = fitted
        return unknowns.fit(images, labels, scores=unknowns.conformal_scores(out_of_fold, labels))
    frozen, validation = job.settings.freeze == "features", job.loader("validation", False)
    if validation is None and not frozen:
        return None
    whole = job.loader("train", False)
    part = subset(whole, unknowns.drawn(whole.labels)) if len(whole.labels) > unknowns.MOST_IMAGES else whole
    # Of frozen layers they are kept with those of other jobs.
    extract = by_image.of_images if frozen else features.extract
    images, labels = extract(job.net, part, job.contexts, "features of known images")
    others = None if frozen else features.extract(job.net, validation, job.contexts, "features of validation images")[0]
    scores = None if evaluated is None else unknowns.conformal_scores(tempered(evaluated.uncalibrated, temperature),
                                                                      evaluated.labels)
    return unknowns.fit(images, labels, others, scores)


def _looked_at(job, folds, predicted) -> tuple[Evaluated | None, float | None, dict]:
    """What the network says of held-out images, the temperature of the best parameters, and what result.json has of it.

    These images are those for validation, or, where there are none, the training images out of fold (held_out.OutOfFold
    or None).
    """
    more = {} if folds is None else {"cross_validation": folds.found}
    loader, what = job.loader("validation", False), "validation"
    if loader is not None:
        probabilities, labels = predicted or pictures.predictions(job.net, loader, job.contexts,
                                                                  job.settings.precision)
        temperature, calibrated, found = held_out.judge(probabilities, labels, job.data.class_names,
                                                        job.settings.strategy in ON_FEATURES, job.settings.seed)
        more.update(found)
    elif folds is not None:
        loader, what, labels, temperature = job.loader("train", False), "cross_validation", folds.labels, \
            folds.temperature
        probabilities, calibrated = folds.probabilities, folds.calibrated
    else:
        job.notes.append("no validation images: how good this network is on others is not known")
        return None, None, {}
    folder, classes = job.run.folder, job.data.class_names
    with job.run.writing():
        held_out.write_predictions(folder, loader.source, labels, calibrated, classes)
        pictures.draw_confusion(probabilities, labels, classes, folder / f"confusion_matrix_of_{what}.png")
        pictures.draw_mistakes(probabilities, labels, loader, folder / "most_confident_mistakes.png")
    evaluated = Evaluated(loader.source, "validation images", labels, calibrated, classes, probabilities)
    if folds is not None and what != "validation":
        evaluated.what, evaluated.how = "training images", \
            f"{folds.found['folds']} folds, each predicted by a network without it"
    return evaluated, temperature, {
        "confusions": pictures.confusions(probabilities, labels, classes), **more}


def _save_cards(job, history, temperature, known):
    """Writes last.params and best.params again, with the cards that they are loaded by.

    The temperature is that of the best parameters: the last ones have it where they are the same. What is known of the
    images is kept with the best ones.
    """
    by_epoch = {record["epoch"]: record for record in history}
    same = not history or best_epoch(history) == history[-1]["epoch"]
    for name in (BEST, LAST) if history else (BEST,):
        job.net.load_parameters(str(job.run.folder / name), ctx=job.contexts)
        kept: dict[str, Any] = {} if known is None or name != BEST else {
            unknowns.CARD_KEY: unknowns.write(known, job.run.folder / name)}
        model.save_model(job.net, job.run.folder / name, **kept, strategy=job.settings.strategy,
                         run=job.run.folder.name, epochs=len(by_epoch),
                         temperature=temperature if name == BEST or same else None)
    if not history:  # a classifier on features has no last epoch that differs from the best one
        model.copy_model(job.run.folder / BEST, job.run.folder / LAST, without=(unknowns.CARD_KEY,))


def _explained(config) -> dict:
    """The configuration for the report: each setting with where it came from, unless that is its default."""
    shown = {"key=value": "given", "option": "given", "config": "from the configuration", "advice": "advised",
             "freeze": "follows from freeze"}
    settled = {name: value for name, value in config.items() if name not in (ORIGINS, REASONS)}
    origins = {name: shown[origin] for name, origin in config.get(ORIGINS, {}).items() if origin in shown}
    leaves = sorted(report.flatten(settled), key=lambda leaf: leaf[0] not in origins)
    return {name: f"{text} ({origins[name]})" if name in origins else text for name, text in leaves}


def _finished(folder, values, say) -> Outcome:
    known, _ = settings.collect(folder / "config.json")
    _same(folder, known, values)
    say(f"run: {folder}, finished already")
    result = run_files.read(folder / "result.json", run_files.FINISHED)
    return Outcome(folder, JobSettings(**known), result, folder / "report.html")
