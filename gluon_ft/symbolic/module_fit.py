"""`symbolic.fit`: trains a symbol with `mx.mod.Module`, with checks, checkpoints and per-parameter multipliers.

It has its own loop over `Module.forward_backward` and `update`, because `Module.fit` trains twice on the images that
pad the last batch, does not save the number of updates, and cannot apply the plan.
"""
from __future__ import annotations

import contextlib
import itertools
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import mxnet as mx

from gluon_ft.data.batches import by_names, every_image, shares
from gluon_ft.data.images.preprocessing import Preprocessing
from gluon_ft.data.sources import class_names
from gluon_ft.engine import fused
from gluon_ft.errors import CheckpointError, ConfigError, DataError
from gluon_ft.io import reporter, signals
from gluon_ft.io.settings import plain
from gluon_ft.models import graph
from gluon_ft.runtime import seeds
from gluon_ft.runtime.distributed.workers import joined
from gluon_ft.symbolic import checkpoints, legacy, module, plan
from gluon_ft.symbolic.head import DATA
from gluon_ft.training import checkpoint
from gluon_ft.training.config import TrainConfig
from gluon_ft.training.fit import Result
from gluon_ft.training.labels import described
from gluon_ft.training.losses import cross_entropy
from gluon_ft.training.metrics import Meter, Metrics, best_epoch, epoch_record, measure, nan_unless_finite, part_of
from gluon_ft.training.rates import LearningRate

# Settings of the published procedure: SGD without momentum or weight decay.
AS_PUBLISHED = TrainConfig(epochs=8, lr=0.01, momentum=0.0, wd=0.0)


@dataclass
class SymbolicResult(Result):
    """What `fit` returns: a `gluon_ft.training.fit.Result` with further attributes.

    `best` and `last` are the paths `model-<epoch>.params`.

    Attributes
    ----------
    symbol, arg_params, aux_params
        The trained network.
    frozen, held : list of str
        Names of the parameters, and of the running statistics, that were not trained.
    classes : list of str or None
        Class names in label order; None if not known.
    """

    symbol: mx.sym.Symbol | None = None
    arg_params: dict = field(default_factory=dict)
    aux_params: dict = field(default_factory=dict)
    frozen: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    classes: list[str] | None = None


def fit(symbol: mx.sym.Symbol, arg_params: legacy.Parameters, aux_params: legacy.Parameters, train: Any, val: Any,
        batch_size: int, ctx: mx.Context | list[mx.Context] | None = None, config: TrainConfig = AS_PUBLISHED, *,
        head_lr_mult: float | None = None, lr_mult: Mapping[str, float] | None = None,
        wd_mult: Mapping[str, float] | None = None, frozen: Iterable[str] = (), batchnorm: str = "frozen",
        initializer: mx.init.Initializer | None = None, save_to: str | Path | None = None, resume: bool = False,
        preprocessing: Preprocessing | None = None, on_epoch: Callable[[dict], object] | None = None,
        speedometer: int = 10, name: str = "training") -> SymbolicResult:
    """Trains a symbol that ends in SoftmaxOutput; the given parameters are not changed.

    Parameters
    ----------
    symbol, arg_params, aux_params
        From `get_fine_tune_model` and the checkpoint. Only the last layer's parameters may be missing.
    train, val : mx.io.DataIter or loader
        See `gluon_ft.data.batches.batches`; `val` may be None.
    batch_size : int
        Images per batch, over all devices together. Batches may be smaller but not larger.
    ctx : mx.Context or list of them, default mx.cpu()
    config : TrainConfig, default AS_PUBLISHED
        The default is 8 epochs of SGD with learning rate 0.01 and kvstore 'device'. Weight decay applies to every
        parameter, as in Gluon; for `Module`'s own rule give wd_mult={'_(bias|gamma|beta)$': 0}. Only the settings in
        `plan.USED` are supported; the others must have their defaults. With a kvstore that begins with 'dist', see
        `gluon_ft.fit`.
    head_lr_mult : float, optional
        Learning-rate multiplier of the last layer; by default it has none of its own.
    lr_mult, wd_mult : dict of str to float, optional
        Pattern -> multiplier. The first pattern that is found in a parameter's name counts. The default are the
        multipliers stored in the symbol (`__lr_mult__`, `__wd_mult__`; frozen if both are 0), or else 1.
    frozen : iterable of str
        Patterns for the names of parameters that are not trained.
    batchnorm : {'frozen', 'train'}
        'frozen': a BatchNorm layer whose parameters are all frozen keeps its running statistics and normalises with
        them. 'train': it normalises with and learns the statistics of the batches, as the published program does.
    initializer : mx.init.Initializer, default Xavier(gaussian, in, 2)
        Initialises the last layer's parameters if they are missing.
    save_to : path-like, optional
        Folder for a checkpoint after each epoch, see `symbolic.checkpoints`. SIGINT and SIGTERM then raise
        `errors.Interrupted`, which says what was saved.
    resume : bool, default False
        Continue from the last complete checkpoint in `save_to`. The result is the same as without an interruption.
    preprocessing : Preprocessing, optional
        The preprocessing of `train`, to be stored in the checkpoints.
    on_epoch : callable, optional
        Called with the record of each epoch, such as `run.log`; for its keys see `gluon_ft.training.fit.Result`.
    speedometer : int, default 10
        Batches between lines of `mx.callback.Speedometer` in Python's log (level INFO); 0 for none.
    name : str
        Shown in errors and in the progress bar.

    Returns
    -------
    SymbolicResult

    Raises
    ------
    ConfigError
        An option is out of its range, or a pattern matches nothing.
    NetworkError, WeightsError
        Symbol, parameters and images do not fit together.
    TrainingError
        A label is outside the head, everything is frozen, or a multiplier has no effect.
    DataError
        There are no images, or the class names of `train`, `val` and the checkpoint do not fit together.
    CheckpointError
        The checkpoint was made with other settings, or cannot be read or written.

    Notes
    -----
    Everything is checked before the first step, except labels that are not known before their batch: these are
    checked before the batch is used.
    """
    if resume and save_to is None:
        raise ConfigError("resume needs the folder of the checkpoints", remedy="give save_to")
    with contextlib.ExitStack() as stack:
        workers = stack.enter_context(joined(config.kvstore))
        if workers.rank:
            stack.enter_context(reporter.silenced())
        stop = signals.Stop() if save_to is None else stack.enter_context(signals.caught())
        with stop.at_once(f"{name}: stopped before training"):
            task = plan.make(symbol, batch_size, ctx, config, head_lr_mult, lr_mult, wd_mult, frozen, batchnorm)
            done = _last_checkpoint(save_to, task) if resume and workers.rank == 0 else None
            optimizer_states: dict = {}
            if done is not None and save_to is not None:
                arg_params, aux_params = legacy.load_params(Path(save_to) / checkpoints.PREFIX, done.epoch)
                optimizer_states = checkpoints.load_optimizer(save_to, done.epoch)
            if resume and workers.several:
                done, optimizer_states = _told(workers, done, optimizer_states)
            if done is not None:
                _continue(train, done)
            begun = done.epoch if done else 0
            train, val, names = plan.named(train, val, done.classes if done else None)
            stream, first = _stream(train, config.seed, begun + 1, workers)
            labels, val_labels = plan.check(task, arg_params, aux_params, train, val, first.batch.data.shape, names)
            if workers.several:
                workers.check_alike({"settings": task.settings(), "training images": described(train),
                                     "validation images": described(val)})
            if config.seed is not None:
                seeds.seed_all(config.seed)
            trainee = module.make(task, first.batch.data.shape, arg_params, aux_params, initializer, workers)
            if done is not None:
                module.restore(trainee, optimizer_states, done.updates)
            result = SymbolicResult(symbol=symbol, frozen=task.frozen, held=task.held, classes=names)
            if done is not None:
                result.history, result.best_epoch = list(done.history), done.best_epoch
            arg_params, aux_params = module.parameters(trainee)
            rate = LearningRate(config, train)
            folder = None if save_to is None or workers.rank else checkpoints.made(save_to)
        started = time.perf_counter()
        for epoch in range(begun + 1, config.epochs + 1):
            at, where = time.perf_counter(), f"{name}, epoch {epoch}"
            with stop.at_once(_stopped(name, epoch, save_to)):
                if epoch > begun + 1:
                    stream, first = _stream(train, config.seed, epoch, workers)
                _seed_epoch(config.seed, epoch, workers)
                trained = _train_epoch(trainee, itertools.chain([first], stream), labels, rate,
                                       Meter(where, config.top_k), _speedometer(speedometer, batch_size), epoch,
                                       f"{name} {epoch}/{config.epochs}")
                labels.add_up(workers)
                labels.end_of_epoch()
                arg_params, aux_params = module.synchronised(trainee)
                validated = None if val is None else _evaluate(
                    trainee.module, task.contexts, every_image(val, "the validation set", part_of(workers)),
                    val_labels, Meter(f"{where}, validation", config.top_k), workers)
            record = epoch_record(epoch, trained, validated, rate.at(1, trainee.updates - 1),
                                  time.perf_counter() - at, config.top_k)
            result.history.append(record)
            result.best_epoch = best_epoch(result.history)
            if folder is not None:
                state = checkpoints.State(epoch, trainee.updates, getattr(train, "epoch", None), task.settings(),
                                          result.history, result.best_epoch, names,
                                          preprocessing.to_dict() if preprocessing else None)
                folder.check()
                checkpoints.save(folder.folder, symbol, arg_params, aux_params, module.saved_state(trainee), state)
            if on_epoch is not None and workers.rank == 0:
                on_epoch(record)
    if save_to is not None and workers.rank == 0:
        result.best, result.last = (checkpoints.params_path(save_to, e) for e in
                                    (result.best_epoch, result.history[-1]["epoch"]))
    result.arg_params, result.aux_params = arg_params, aux_params
    result.seconds = time.perf_counter() - started
    return result


def _stopped(name, epoch, save_to) -> str:
    kept = f"the epochs before are saved in {save_to}; resume to go on" if epoch > 1 else "nothing was saved yet"
    return f"{name}: stopped in epoch {epoch}; {kept}"


def _told(workers, done, optimizer_states):
    """Worker 0's last epoch, or None, and its optimiser's state."""
    bundle = checkpoint.of_first(workers, None if workers.rank else checkpoint.Bundle(
        {"done": None if done is None else asdict(done)},
        {name: value.asnumpy() for name, value in optimizer_states.items()}))
    told = bundle.values["done"]
    return (None if told is None else checkpoints.State(**told),
            {name: mx.nd.array(value, dtype=value.dtype) for name, value in bundle.arrays.items()})


def _stream(train, seed, epoch, workers):
    """(shares of an epoch's batches, the first of them); random choices depend only on the seed and the epoch."""
    _seed_epoch(seed, epoch)
    stream = shares(train, part_of(workers))
    first = next(stream, None)
    if first is None:
        raise DataError("no images in the training set", expected="at least one", found="an empty loader")
    return stream, first


def _seed_epoch(seed, epoch, workers=None):
    # MXNet's random state cannot be saved; with a seed for each epoch, a resumed run draws the same numbers.
    if seed is not None:
        seeds.seed_all(seeds.seed_of(seed, epoch, worker=workers.rank if workers else 0))


def _last_checkpoint(save_to, task):
    """The state of the last complete epoch, or None."""
    known = checkpoints.epochs(save_to)
    if not known:
        return None
    state = checkpoints.load_state(save_to, known[-1])
    for key, value in plain(task.settings()).items():
        if state.settings.get(key) != value:
            raise CheckpointError(f"the checkpoint was made with another '{key}'", path=save_to,
                                  **_difference(key, state.settings.get(key), value),
                                  remedy="go on with the same settings, or choose another folder")
    return state


def _continue(train, state):
    """Sets the loader to continue after the last complete epoch."""
    if state.passes is not None and hasattr(train, "epoch"):
        train.epoch = state.passes
    else:
        warnings.warn("the training iterator does not count its passes: the order of images after the interruption "
                      "is its own", RuntimeWarning, stacklevel=3)


def _difference(key, old, new):
    if isinstance(old, dict) and isinstance(new, dict):
        part = next(k for k in {**old, **new} if old.get(k) != new.get(k))
        return {"expected": f"{part} {old.get(part)}", "found": f"{part} {new.get(part)}"}
    return {"expected": str(old)[:80], "found": str(new)[:80]} if key != "frozen" else {
        "expected": f"{len(old or ())} parameters", "found": f"{len(new)}"}


def _train_epoch(trainee, stream, labels, rate, meter, speedometer, epoch, title):
    loss_of = cross_entropy(trainee.plan.config.label_smoothing)
    for batch, images in reporter.progress(stream, desc=title, unit="batch"):
        batch = batch.trimmed()
        labels.check(batch, meter.steps + 1)
        trainee.optimizer.set_learning_rate(rate.at(1, trainee.updates))
        found = module.step(trainee, batch, images)
        meter.update([] if found is None else [(*found, loss_of(*found))])
        meter.wait()
        if speedometer is not None:
            speedometer(mx.model.BatchEndParam(epoch - 1, meter.steps, None, None))
    module.end_of_epoch(trainee)
    return meter.result(trainee.workers)


def _speedometer(frequent, batch_size):
    return mx.callback.Speedometer(batch_size, frequent) if frequent else None


def _evaluate(mod, contexts, stream, labels, meter, workers=None) -> Metrics:
    loss_of = cross_entropy()

    def predicted(batch):
        logits, label = module.predict(mod, contexts, batch)
        return [(logits, label, loss_of(logits, label) + nan_unless_finite(logits))]

    found = measure(stream, predicted, meter, lambda batch: labels.check(batch, meter.steps + 1), workers)
    labels.end_of_epoch()
    return found


def evaluate(symbol: mx.sym.Symbol, arg_params: legacy.Parameters, aux_params: legacy.Parameters, source: Any,
             batch_size: int, ctx: mx.Context | list[mx.Context] | None = None, top_k: int = 0,
             classes: Sequence[str] | None = None) -> Metrics:
    """Measures the loss and accuracy of a symbol that ends in SoftmaxOutput. Each image counts once, padding does not.

    Parameters
    ----------
    symbol, arg_params, aux_params
        As in `fit`, but no parameter may be missing.
    source : mx.io.DataIter or loader
        If it has class names, there must be as many as the symbol has outputs, or all must be among `classes`.
    batch_size : int
        Images per batch, over all devices together.
    ctx : mx.Context or list of them, default mx.cpu()
    top_k : int, default 0
        The k of top-k accuracy; 0 for none.
    classes : sequence of str, optional
        Class names in the order of the symbol's outputs, such as `SymbolicResult.classes`. If the source has class
        names, its labels are converted by name, and it may lack some of the classes.

    Returns
    -------
    gluon_ft.training.metrics.Metrics

    Raises
    ------
    DataError
        There are no images, or the class names do not fit.
    NetworkError, WeightsError
        Symbol, parameters and images do not fit together.
    TrainingError
        A label is outside the head, or a loss is not finite.
    """
    contexts, label = plan.contexts_of(ctx), graph.label_name(symbol)
    if classes is not None:
        source = by_names(source, classes, "the evaluation", "of the symbol's")
    stream = every_image(source, "the evaluation")
    first = next(stream, None)
    if first is None:
        raise DataError("no images in the evaluation", expected="at least one", found="an empty loader")
    shape = (batch_size, *first.data.shape[1:])
    count = plan.check_parameters(symbol, arg_params, aux_params, {DATA: shape, label: (batch_size,)})
    plan.check_names(count, classes if classes is not None else class_names.of(source))
    labels = plan.labels_fit(count, source, "the evaluation")
    fused.check_parameters({**arg_params, **aux_params})
    mod = module.bind(symbol, label, contexts, shape)
    mod.set_params({k: v for k, v in arg_params.items() if k in set(symbol.list_arguments())},
                   {k: aux_params[k] for k in symbol.list_auxiliary_states()})
    return _evaluate(mod, contexts, itertools.chain([first], stream), labels, Meter("the evaluation", top_k))
