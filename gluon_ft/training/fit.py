"""`fit`: one plain training loop over epochs and batches, whose state can be saved after every step."""
from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mxnet as mx

from gluon_ft.data.batches import batches, by_names, shares
from gluon_ft.data.sources import class_names
from gluon_ft.engine import choice
from gluon_ft.errors import ConfigError
from gluon_ft.io import reporter, signals
from gluon_ft.models import tracing
from gluon_ft.runtime import devices, seeds
from gluon_ft.runtime.distributed.workers import Workers, joined
from gluon_ft.runtime.gluon_internals import averaged, is_deferred, parameters_by_path
from gluon_ft.training import checkpoint, checkpoint_shape, stopping
from gluon_ft.training.config import TrainConfig
from gluon_ft.training.labels import LabelCheck, class_names_of, classes_of, described
from gluon_ft.training.metrics import Meter, best_epoch, epoch_record, evaluate, part_of
from gluon_ft.training.step import Stepper, draws

if TYPE_CHECKING:
    from mxnet.gluon import HybridBlock


@dataclass
class Result:
    """What `fit` returns.

    Attributes
    ----------
    history : list of dict
        One an epoch: epoch (from 1), train_loss, train_accuracy, validation_loss, validation_accuracy, *_top5 where
        there are enough classes, lr, seconds.
    best_epoch : int
        By validation accuracy (training accuracy without a validation set), the earliest of equals.
    best, last : Path or None
        The parameter files, None without `save_to`.
    seconds : float
        Of the whole training, that before an interruption included.
    stopped : str or None
        Why training ended before its last epoch, None where it did not.
    """

    history: list[dict] = field(default_factory=list)
    best_epoch: int = 0
    best: Path | None = None
    last: Path | None = None
    seconds: float = 0.0
    stopped: str | None = None


def fit(net: HybridBlock, train: Any, val: Any = None, config: TrainConfig | None = None, *,
        ctx: list[mx.Context] | None = None, save_to: str | Path | None = None, resume: bool = False,
        on_epoch: Callable[[dict], object] | None = None, name: str = "training") -> Result:
    """Trains `net` in place, on one or several devices, and goes on where it was interrupted.

    With a `kvstore` that begins with 'dist' it is one of several workers (see docs/devices.md), all of which call it
    alike: worker 0 saves, and calls `on_epoch`.

    Parameters
    ----------
    net : HybridBlock
        Initialised; what its `grad_req` freezes stays, `lr_mult` and `wd_mult` are honoured.
    train, val : loaders
        Anything that `gluon_ft.data.batches.batches` takes; `train` decides about shuffling; `val` may be None.
        Class names decide where they are known (`net.classes`, `train.classes`, `val.classes`): labels then go by
        name, and `val` may lack classes. A network without names gets those of `train`.
    config : TrainConfig, default TrainConfig()
    ctx : list of mx.Context, default where the network is
        Each batch is divided among them; the batch size does not grow with their number.
    save_to : folder, optional
        Gets `last.params` after every epoch and `best.params` whenever the validation accuracy is a new best (of the
        moving average, with `config.ema`), and `checkpoints/`; each file is written whole or not at all. SIGINT and
        SIGTERM then save a checkpoint and raise `errors.Interrupted`; a second one ends the process at once.
    resume : bool
        Go on from the last checkpoint in `save_to`: on CPU to the same parameters and metrics, bit for bit, as without
        the interruption (given a seed, and loaders that repeat themselves, as ours do).
    on_epoch : callable(record: dict), optional
        Gets each epoch's record, for instance `run.log`; when resuming, first those of the epochs before.
    name : str
        Shown in the progress bar and in errors.

    Returns
    -------
    Result

    Raises
    ------
    TrainingError
        Nothing is trainable, a label is outside the network's output (before the step that would use it), a loss is
        not finite (the last checkpoint stays), or there is too little memory.
    DataError
        An empty set, a class without training images, or a class that the network, or the training part, has not.
    ConfigError
        Settings that do not fit network, data or machine.
    NetworkError
        After `npx.set_np()`.
    CheckpointError
        A checkpoint cannot be saved, or another process is training there; when resuming: there is no checkpoint, a
        damaged one, or one of another network, configuration or data.
    """
    tracing.refuse_numpy_interface()
    config = config or TrainConfig()
    if resume and save_to is None:
        raise ConfigError("resume needs the folder of the checkpoints", remedy="give save_to")
    with contextlib.ExitStack() as stack:
        workers = stack.enter_context(joined(config.kvstore))
        if workers.rank:
            stack.enter_context(reporter.silenced())
        store = None if save_to is None or workers.rank else checkpoint.Store(save_to, config.keep)
        if store is not None:
            stack.enter_context(store.locked())
        stop = None if save_to is None else stack.enter_context(signals.caught())
        stack.enter_context(stopping.out_of_memory_explained(name, getattr(train, "batch_size", None)))
        stack.enter_context(choice.using(config.engine))
        training = _Training(net, train, val, config, ctx, store, stop, on_epoch, name, workers)
        stack.callback(training.stepper.finish)
        return training.run(resume)


@dataclass
class _Place:
    """How far training is: `batches` of `epoch` (from 1) are done, `meter` has their sums, `begun` is when the epoch
    began on `time.perf_counter`'s clock, time spent before an interruption included."""

    epoch: int
    batches: int = 0
    meter: Meter | None = None
    begun: float = 0.0


class _Training:
    """A training and how far it is; see `fit` for the arguments."""

    def __init__(self, net, train, val, config: TrainConfig, ctx, store: checkpoint.Store | None,
                 stop: signals.Stop | None, on_epoch, name: str, workers: Workers) -> None:
        self.given, self.workers = train, workers
        train, val = _by_names(net, train, val)
        self.net, self.train, self.val, self.config, self.name = net, train, val, config, name
        # All workers save together, each what it knows, though worker 0 alone writes.
        self.store, self.stop, self.saves = store, stop, stop is not None
        self.on_epoch = on_epoch if workers.rank == 0 else None
        self.contexts = devices.placed(net, ctx)
        if getattr(net, "temperature", None) is not None:
            net.temperature = None  # it calibrated the network as it was before this training
        if config.seed is not None:
            seeds.seed_all(config.seed)
        shape = _completed(net, train, self.contexts, config)
        classes = classes_of(net)
        self.labels = LabelCheck(classes, train, "the training set", config.allow_empty_classes, name)
        self.stepper = Stepper(net, config, self.contexts, train, val, classes, shape, workers)
        self.draws, self.first_pass = draws(net), getattr(train, "epoch", 0)
        self.patience = stopping.Patience(config.patience, self.stepper.learning_rate.moves_after,
                                          config.stop_within_schedule)
        self.result, self.begun, self.saved_at = Result(), time.perf_counter(), time.monotonic()
        self.stopping = self.saving = False
        self.identity = {"config": config.to_dict(), "devices": len(self.contexts)}
        if store is not None:
            self.identity.update(train=_identity(train), val=_identity(val))

    def run(self, resume: bool) -> Result:
        """Trains to the end; see `fit`."""
        if self.workers.several:
            _check_alike(self.workers, self.net, self.train, self.val, self.config)
        place = self._resumed() if resume else self._fresh()
        self.stepper.join()
        while place.epoch <= self.config.epochs and self.result.stopped is None:
            place.begun = place.begun or time.perf_counter()
            trained = self._train(place)
            try:
                self._end_epoch(place, trained)
            except _StopAsked:
                self.stopping = True
                self._save(place)
                self._stop_if_asked()
            place = _Place(place.epoch + 1)
            self._save(place)
            if self.on_epoch is not None:
                self.on_epoch(self.result.history[-1])
            if place.epoch <= self.config.epochs:
                self.stopping = self.workers.total([bool(self.stop)])[0] > 0
                self._stop_if_asked()
        if self.stepper.average is not None:
            self.stepper.average.copy_to(self.net)
        if self.given is not self.train and hasattr(self.given, "epoch"):
            self.given.epoch = self.train.epoch
        self.result.seconds = time.perf_counter() - self.begun
        return self.result

    def _train(self, place):
        """Trains on the rest of an epoch's batches; returns the epoch's Metrics."""
        epoch, config = place.epoch, self.config
        if config.seed is not None:
            seeds.seed_all(seeds.seed_of(config.seed, epoch))
        self._begin(epoch)
        meter = place.meter = place.meter or Meter(f"{self.name}, epoch {epoch}", config.top_k)
        train = self.stepper.running.train
        if hasattr(train, "epoch"):
            train.epoch = self.first_pass + epoch - 1
        stream = shares(train, part_of(self.workers), place.batches)
        total = len(train) if hasattr(train, "__len__") else None
        with reporter.progress(total=total, initial=place.batches, desc=f"{self.name} {epoch}/{config.epochs}",
                              unit="batch") as bar:
            while (share := self._next(stream, place)) is not None:
                batch = share.batch.trimmed()
                self.labels.check(batch, place.batches + 1)
                meter.update(self.stepper.step(batch, epoch, place.batches, share.images))
                meter.wait()
                place.batches += 1
                bar.update()
                if self._due(place):
                    self._save(place)
                    self._stop_if_asked()
        self.stepper.end(epoch, place.batches)
        self.labels.add_up(self.workers)
        self.labels.end_of_epoch()
        return meter.result(self.workers)

    def _next(self, stream, place):
        # MXNet's random state cannot be saved; so every step that draws has a seed of its own.
        if self.draws and self.config.seed is not None:
            mx.random.seed(seeds.seed_of(self.config.seed, place.epoch, place.batches + 1, self.workers.rank))
        return next(stream, None)

    def _end_epoch(self, place, trained):
        """Evaluates, records, and saves the parameters."""
        config, average = self.config, self.stepper.average
        _average_statistics(self.net, self.workers)
        with contextlib.nullcontext() if average is None else average.swapped():
            running = self.stepper.running
            validated = None if self.val is None else evaluate(
                running.net, running.val, self.contexts, config.top_k, f"{self.name}, epoch {place.epoch}, validation",
                None if self.workers.several else self._watch, config.precision, self.workers)
            rate = self.stepper.rate(place.epoch, (place.batches - 1) // config.accumulate)
            seconds = time.perf_counter() - place.begun
            self.result.history.append(epoch_record(place.epoch, trained, validated, rate, seconds, config.top_k))
            self.result.best_epoch = best_epoch(self.result.history)
            if self.store is not None:
                self.result.last, self.result.best = self.store.save_parameters(
                    self.net, is_best=self.result.best_epoch == place.epoch)
        if self.patience.update(place.epoch, (validated or trained).accuracy):
            self.result.stopped = f"no better epoch in {config.patience}"

    def _watch(self):
        if self.stop:
            raise _StopAsked

    def _due(self, place):
        """Whether to save in the middle of an epoch: only between steps, when no gradient waits to be used."""
        if not self.saves or self.workers.asynchronous:
            return False
        config, late = self.config, time.monotonic() - self.saved_at
        late = bool(config.save_minutes and late >= 60 * config.save_minutes)
        stopping, saving = self.workers.agree(bool(self.stop), late and self.workers.rank == 0)
        self.stopping, self.saving = self.stopping or stopping, self.saving or saving
        if self.stepper.pending:
            return False
        return self.stopping or self.saving or bool(config.save_every and place.batches % config.save_every == 0)

    def _save(self, place):
        if not self.saves:
            return
        self.saving = False
        if place.batches and place.meter is not None and self.workers.several:
            place.meter.hand_over(self.workers, self.contexts)
            self.labels.add_up(self.workers, keep=False)
            _average_statistics(self.net, self.workers)
        if self.store is not None:
            self.store.save(place.epoch, place.batches, self._bundle(place), self.result.best_epoch)
        self.saved_at = time.monotonic()

    def _bundle(self, place):
        values = {"identity": self.identity, "epoch": place.epoch, "batches": place.batches,
                  "in_epoch": time.perf_counter() - place.begun if place.batches else 0.0,
                  "seconds": time.perf_counter() - self.begun, "history": self.result.history,
                  "stopped": self.result.stopped, "patience": self.patience.state(), "first_pass": self.first_pass,
                  "label_counts": None if self.labels.done else self.labels.counts.tolist(),
                  "classes": getattr(self.net, "classes", None), "about": _about(self.net)}
        return checkpoint.gather(self.stepper, values, place.meter if place.batches else None)

    def _begin(self, epoch):
        """Caching features may take minutes; meanwhile the last checkpoint has everything, so a signal ends it there.
        """
        message = f"{self.name}: stopped before epoch {epoch}; resume to go on"
        # Several workers stop at the same step or not at all; and they cache nothing.
        with contextlib.nullcontext() if self.stop is None or self.workers.several else self.stop.at_once(message):
            self.stepper.begin(epoch)

    def _stop_if_asked(self):
        if self.stopping and self.stop is not None:
            saved = "" if self.store is None else f" and saved in {self.store.folder}; resume to go on"
            raise self.stop.error(f"{self.name}: stopped{saved}")

    def _fresh(self):
        if self.store is not None:
            self.store.clear()
        place = _Place(1)
        if self.workers.several:
            # All begin with the parameters of worker 0.
            bundle = checkpoint.of_first(self.workers, None if self.workers.rank else self._bundle(place))
            checkpoint.restore(self.stepper, bundle, Path("worker 0"))
        self._save(place)
        return place

    def _resumed(self):
        path, bundle = (Path("worker 0"), None) if self.store is None else self.store.latest()
        if self.store is not None and bundle is not None:
            with checkpoint.reading(path):
                checkpoint_shape.check(bundle)
            checkpoint.check_same(bundle.values["identity"], self.identity, path)
        bundle = checkpoint.of_first(self.workers, bundle)
        values = bundle.values
        # First, since stages that are frozen in that epoch have no optimiser's state to put back.
        self._begin(min(values["epoch"], self.config.epochs))
        checkpoint.restore(self.stepper, bundle, path)
        self.result.history, self.result.stopped = values["history"], values["stopped"]
        self.patience.restore(values["patience"])
        self.first_pass, self.begun = values["first_pass"], time.perf_counter() - values["seconds"]
        first = self.workers.rank == 0
        with checkpoint.reading(path):
            counts = values["label_counts"]
            self.labels.restore(counts if first or counts is None else [0] * len(counts))
        if self.result.history:
            self.result.best_epoch = best_epoch(self.result.history)
            if self.store is not None:
                self.result.last, self.result.best = self.store.last, self.store.best
        if self.on_epoch is not None:
            for record in self.result.history:
                self.on_epoch(record)
        place = _Place(values["epoch"], values["batches"])
        if values["meter"]:
            place.begun = time.perf_counter() - values["in_epoch"]
            place.meter = Meter(f"{self.name}, epoch {place.epoch}", self.config.top_k)
            count, steps = values["meter"]
            place.meter.restore(bundle.under("meter/") if first else {}, count if first else 0, steps, self.contexts)
        return place


def _check_alike(workers, net, train, val, config):
    shapes = {path: parameter.shape for path, parameter in parameters_by_path(net).items()}
    workers.check_alike({"settings": config.to_dict(), "network": shapes, "training images": described(train),
                         "validation images": described(val)})


def _average_statistics(net, workers):
    """BatchNorm's running statistics become the mean of all workers', each of which has seen other images."""
    if workers.several:
        running = [p for path, p in parameters_by_path(net).items() if path.endswith(("running_mean", "running_var"))]
        for parameter, mean in zip(running, workers.mean([averaged(parameter).asnumpy() for parameter in running])):
            parameter.set_data(mx.nd.array(mean, dtype=mean.dtype))


class _StopAsked(Exception):
    """A signal came during the evaluation."""


def _by_names(net, train, val):
    """The loaders with their labels by the network's class names; a network without gets the training part's."""
    names = class_names_of(net)
    if names is not None:
        return (by_names(train, names, "the training set"),
                None if val is None else by_names(val, names, "the validation set"))
    names = class_names.of(train)
    if names is not None and len(names) == classes_of(net):
        net.classes = names
    return train, None if val is None else by_names(val, names, "the validation set", "of the training part's")


def _completed(net, train, contexts, config):
    """Initialises what waits for a batch to know its shape; the shape of one image as a batch, None where not needed.
    """
    waiting = any(is_deferred(parameter) for parameter in net.collect_params().values())
    if not (waiting or config.in_phases or config.layer_decay < 1):
        return None
    passes = getattr(train, "epoch", None)
    batch = next(batches(train), None)
    if passes is not None:
        train.epoch = passes
    if batch is None:
        return None
    for ctx in contexts if waiting else ():
        net(batch.data[:1].as_in_context(ctx))
    return (1, *batch.data.shape[1:])


def _identity(source):
    """What the loader's batches depend on, as it says; of other loaders what can be seen."""
    if source is None:
        return None
    if hasattr(source, "identity"):
        return source.identity()
    return {"type": type(source).__name__, "batches": len(source) if hasattr(source, "__len__") else None}


def _about(net):
    """The network's preprocessing and the weights that it began with, where it knows them."""
    preprocessing = getattr(net, "preprocessing", None)
    return {"preprocessing": preprocessing.to_dict() if preprocessing is not None else None,
            "weights": str(getattr(net, "weights", None) or "") or None}
