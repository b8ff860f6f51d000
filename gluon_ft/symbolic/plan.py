"""`Plan`: decides before training which parameters are trained and with which multipliers; checks inputs and labels."""
from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mxnet as mx

from gluon_ft.data.batches import by_names
from gluon_ft.data.sources import class_names
from gluon_ft.errors import ConfigError, DataError, NetworkError, TrainingError, WeightsError, last_line
from gluon_ft.models import freezing, graph
from gluon_ft.runtime import devices
from gluon_ft.runtime.distributed.workers import KINDS
from gluon_ft.symbolic.head import DATA
from gluon_ft.symbolic.legacy import Parameters, check_aux
from gluon_ft.training.config import TrainConfig
from gluon_ft.training.labels import LabelCheck
from gluon_ft.training.schedule import OPEN_ENDED
from gluon_ft.training.step import check_workers

# The settings of TrainConfig that `symbolic.fit` supports; the others must have their defaults.
USED = ("epochs", "optimizer", "lr", "momentum", "wd", "schedule", "warmup", "lr_factor", "lr_every", "milestones",
        "label_smoothing", "kvstore", "sync_batchnorm", "seed", "top_k", "allow_empty_classes")
PADDING = -1.0  # label of padding rows, which SoftmaxOutput ignores


@dataclass(frozen=True)
class Plan:
    """How a symbol will be trained.

    Attributes
    ----------
    symbol, running : mx.sym.Symbol
        The symbol as given, and the one that is trained.
    label : str
        Name of the symbol's input for labels.
    head : tuple of str
        Names of the last layer's parameters.
    frozen, held : list of str
        Names of the parameters, and of the running statistics, that are not trained.
    lr, wd : dict of str to float
        Multipliers of learning rate and weight decay for each trained parameter.
    config : TrainConfig
    contexts : list of mx.Context
    batch_size : int
        Images per batch, over all devices together.
    """

    symbol: mx.sym.Symbol
    running: mx.sym.Symbol
    label: str
    head: tuple[str, ...]
    frozen: list[str]
    held: list[str]
    lr: dict[str, float]
    wd: dict[str, float]
    config: TrainConfig
    contexts: list[mx.Context]
    batch_size: int

    def settings(self) -> dict:
        """The settings that must not change when training is resumed from a checkpoint."""
        looks_ahead = self.config.schedule not in OPEN_ENDED
        # Checkpoints of before sync_batchnorm do not have it.
        unsaid = {*(() if looks_ahead else ("epochs",)), *(() if self.config.sync_batchnorm else ("sync_batchnorm",))}
        config = {k: v for k, v in self.config.to_dict().items() if k in USED and k not in unsaid}
        return {"config": config, "batch_size": self.batch_size, "devices": len(self.contexts), "lr_mult": self.lr,
                "wd_mult": self.wd, "frozen": self.frozen,
                "symbol": hashlib.sha256(self.running.tojson().encode()).hexdigest()}


def make(symbol: mx.sym.Symbol, batch_size: int, ctx: mx.Context | list[mx.Context] | None, config: TrainConfig,
         head_lr_mult: float | None, lr_mult: Mapping[str, float] | None, wd_mult: Mapping[str, float] | None,
         frozen: Iterable[str], batchnorm: str) -> Plan:
    """Makes the plan of a training. `check` later compares it with the shapes and the number of classes.

    Parameters
    ----------
    symbol, batch_size, ctx, config, head_lr_mult, lr_mult, wd_mult, frozen, batchnorm
        See `symbolic.fit`.

    Returns
    -------
    Plan

    Raises
    ------
    ConfigError
        An option is out of its range or not supported, or a pattern matches nothing.
    NetworkError
        The symbol has no input 'data', or does not end in a classifier with SoftmaxOutput.
    TrainingError
        Every parameter is frozen.
    """
    contexts = contexts_of(ctx)
    if batchnorm not in ("frozen", "train"):
        raise ConfigError(f"unknown BatchNorm mode '{batchnorm}'", expected="'frozen' or 'train'")
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < len(contexts):
        raise ConfigError("batch_size out of range", found=repr(batch_size),
                          expected=f"a whole number, at least one image for each of {len(contexts)} devices")
    for field in dataclasses.fields(config):
        if field.name not in USED and getattr(config, field.name) != field.default:
            raise ConfigError(f"symbolic.fit has no {field.name}", expected=f"{field.default!r}, the default",
                              found=repr(getattr(config, field.name)), remedy="train with gluon_ft.fit for that")
    check_workers(config)
    devices.check_kvstore(config.kvstore, contexts)
    label, head = graph.label_name(symbol), graph.find_head(symbol).parameters
    names = [name for name in symbol.list_arguments() if name not in (DATA, label)]
    if DATA not in symbol.list_arguments():
        raise NetworkError("the symbol has no input 'data'", found=", ".join(symbol.list_arguments()[:3]))
    fixed = set(graph.fixed_gammas(symbol))
    own = {what: graph.own_multipliers(symbol, what) for what in ("lr_mult", "wd_mult")}
    never = [n for n in names if own["lr_mult"].get(n) == own["wd_mult"].get(n) == 0]
    stays = [*matching(names, frozen), *never]
    running, held = graph.hold_batchnorm(symbol, stays) if batchnorm == "frozen" else (symbol, [])
    # With fix_gamma, BatchNorm takes gamma as 1 and gives it no gradient; weight decay would change the stored value.
    trained = [name for name in names if name not in fixed and name not in stays]
    if not trained:
        raise TrainingError("every parameter is frozen", expected="at least the last layer trained",
                            remedy="give patterns that leave some")
    lr, wd = ({**dict.fromkeys(trained, 1.0), **{n: v for n, v in own[what].items() if n in trained},
               **multipliers(trained, given, what)}
              for what, given in (("lr_mult", lr_mult), ("wd_mult", wd_mult)))
    if head_lr_mult is not None:
        of_head = multipliers(list(head), {"": head_lr_mult}, "head_lr_mult")
        lr.update({name: value for name, value in of_head.items() if name in lr})
    running = _with_softmax_options(running, config.label_smoothing,
                                    len(contexts) > 1 or config.kvstore in KINDS)
    return Plan(symbol, running, label, head, [n for n in names if n not in lr], held, lr, wd, config, contexts,
                batch_size)


def contexts_of(ctx: mx.Context | Iterable[mx.Context] | None) -> list[mx.Context]:
    """A list of contexts, from one context, several, or None for the CPU; see `devices.tested`."""
    if ctx is None:
        return [mx.cpu()]
    return devices.tested([ctx] if isinstance(ctx, mx.Context) else list(ctx))


def _with_softmax_options(symbol, smoothing, padded):
    """Sets SoftmaxOutput's label smoothing; where rows may be padding, also their label, to be ignored."""
    inside, output = graph.result_of(symbol)
    changes = {}
    if smoothing:
        head = inside.nodes[output.inputs[0]]
        classes = int(head.attrs.get("num_hidden", head.attrs.get("num_filter", 0)))
        if not classes:
            raise ConfigError("label smoothing needs the last layer right below SoftmaxOutput",
                              found=f"{head.op} '{head.name}'")
        # SoftmaxOutput distributes alpha over the wrong classes only, TrainConfig's label_smoothing over all classes.
        changes["smooth_alpha"] = repr(smoothing * (classes - 1) / classes)
    if padded:
        changes.update(use_ignore="True", ignore_label=repr(PADDING))
    return graph.with_attributes(symbol, {output.name: changes}) if changes else symbol


def check(plan: Plan, arg_params: Parameters, aux_params: Parameters, train: Any, val: Any, shape: tuple[int, ...],
          names: Sequence[str] | None = None) -> tuple[LabelCheck, LabelCheck | None]:
    """Checks parameters, class names and known labels before the first step.

    Parameters
    ----------
    plan : Plan
    arg_params, aux_params : dict of str to NDArray
        Only the last layer's parameters may be missing.
    train, val : mx.io.DataIter or loader
        `val` may be None.
    shape : tuple of int
        Shape of a batch's data; its first number is replaced by `plan.batch_size`.
    names : sequence of str, optional
        Class names, see `named`.

    Returns
    -------
    (LabelCheck, LabelCheck or None)
        The checks of training and validation labels.

    Raises
    ------
    DataError, NetworkError, TrainingError, WeightsError
        See `symbolic.fit`.
    """
    inputs = {DATA: (plan.batch_size, *shape[1:]), plan.label: (plan.batch_size,)}
    classes = check_parameters(plan.symbol, arg_params, aux_params, inputs, plan.head)
    check_names(classes, names)
    labels = labels_fit(classes, train, "the training set", plan.config.allow_empty_classes)
    return labels, None if val is None else labels_fit(classes, val, "the validation set")


def check_parameters(symbol: mx.sym.Symbol, arg_params: Parameters, aux_params: Parameters, inputs: dict[str, tuple],
                     may_miss: Sequence[str] = ()) -> int:
    """Compares parameters and running statistics with the shapes that the symbol infers.

    Parameters
    ----------
    symbol : mx.sym.Symbol
    arg_params, aux_params : dict of str to NDArray
    inputs : dict of str to tuple of int
        Shapes of data and labels by name, with the batch dimension first.
    may_miss : sequence of str, default none
        Parameters that may be missing, because they will be initialised.

    Returns
    -------
    int
        Number of classes.

    Raises
    ------
    NetworkError
        The input does not fit the symbol, or the result is not (n, classes).
    WeightsError
        A parameter is missing or has another shape.
    """
    own = [name for name in symbol.list_arguments() if name not in inputs]
    missing = [name for name in own if name not in arg_params and name not in may_miss]
    if missing:
        raise WeightsError(f"{len(missing)} of the symbol's {len(own)} parameters are missing",
                           found=f"no '{missing[0]}'", remedy="give the parameters of this symbol; only those of the "
                           f"new layer{' (' + ', '.join(may_miss) + ')' if may_miss else ''} are initialised")
    check_aux(symbol, aux_params)
    wanted = _shapes(symbol, inputs, arg_params)
    for name, shape in wanted.items():
        found = arg_params.get(name, aux_params.get(name))
        if found is not None and found.shape != shape:
            raise WeightsError(f"parameter '{name}' is another network's", expected=shape, found=found.shape,
                               remedy="give the parameters of this symbol, and images of the size it is for")
    return _classes(symbol, inputs)


def _shapes(symbol, inputs, arg_params):
    # When inference fails, MXNet prints the arguments to standard output.
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            arguments, _, auxiliary = symbol.infer_shape(**inputs)
        except mx.MXNetError as error:
            raise NetworkError(f"the symbol does not take this input: {last_line(error)[:200]}",
                               found=", ".join(f"{k} {v}" for k, v in inputs.items())) from error
    names = [*symbol.list_arguments(), *symbol.list_auxiliary_states()]
    return {name: tuple(shape) for name, shape in zip(names, [*arguments, *auxiliary]) if name not in inputs}


def _classes(symbol, inputs) -> int:
    shape = symbol.infer_shape(**inputs)[1][0]
    if len(shape) != 2:
        raise NetworkError("the symbol's result is not one row of classes an image", found=shape)
    return shape[1]


def labels_fit(classes: int, source: Any, what: str, allow_empty: bool = True) -> LabelCheck:
    """Checks the labels of a source against the number of classes, see `LabelCheck`.

    Parameters
    ----------
    classes : int
        Number of classes of the last layer.
    source : mx.io.DataIter or loader
    what : str
        Describes the source in errors, such as 'the training set'.
    allow_empty : bool, default True
        Whether there may be classes without images.

    Raises
    ------
    TrainingError, DataError
        See `LabelCheck`.
    """
    return LabelCheck(classes, source, what, allow_empty, growing="call get_fine_tune_model with num_classes=N")


def named(train: Any, val: Any = None, wanted: Sequence[str] | None = None) -> tuple[Any, Any, list[str] | None]:
    """Makes both loaders use the same class names for their labels.

    Parameters
    ----------
    train, val : mx.io.DataIter or loader
        `data.sources.class_names.of` finds their class names; `val` may be None.
    wanted : sequence of str, optional
        Class names of the symbol's outputs, such as those in a checkpoint; default those of `train`, else of `val`.

    Returns
    -------
    (train, val, list of str or None)
        The loaders with converted labels, and the class names in label order; None if they are not known.

    Raises
    ------
    DataError
        A loader has a class that is not among the names.
    """
    names = list(wanted) if wanted is not None else class_names.of(train)
    if names is None:
        return train, val, class_names.of(val)
    whose = "of the training part's" if wanted is None else "of the checkpoint's"
    return (by_names(train, names, "the training set", whose),
            None if val is None else by_names(val, names, "the validation set", whose), names)


def check_names(classes: int, names: Sequence[str] | None) -> None:
    """Raises DataError if there are class names, but not as many as the symbol has outputs."""
    if names is not None and len(names) != classes:
        raise DataError("the class names do not fit the head", expected=f"{classes} classes",
                        found=class_names.describe(names),
                        remedy=f"call get_fine_tune_model with num_classes={len(names)}")


def matching(names: list[str], patterns: Iterable[str]) -> list[str]:
    """The names that match one of the patterns, in order; see `by_pattern`."""
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    return [name for name, pattern in by_pattern(names, patterns).items() if pattern is not None]


def multipliers(names: list[str], values: Mapping[str, float] | None, what: str) -> dict[str, float]:
    """Finds the multiplier of each parameter that a pattern matches.

    Parameters
    ----------
    names : list of str
        Names of the parameters.
    values : dict of str to float, or None
        Regular expression -> multiplier, 0 or more. The first expression that is found in a name counts.
    what : str
        Name of the option in errors, such as 'lr_mult'.

    Returns
    -------
    dict of str to float
        Name -> multiplier, only for names that a pattern matches.

    Raises
    ------
    ConfigError
        A multiplier is out of its range, or `by_pattern` refuses a pattern.
    """
    values = dict(values or {})
    for pattern, value in values.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
            raise ConfigError(f"{what} of '{pattern}' out of range", expected="a number from 0 on", found=repr(value))
    first = by_pattern(names, list(values))
    return {name: float(values[pattern]) for name, pattern in first.items() if pattern is not None}


def by_pattern(names: list[str], patterns: list[str]) -> dict[str, str | None]:
    """Each name -> the first of the regular expressions that is found in it, or None.

    Raises ConfigError for a pattern that does not compile, or that matches no name left over by earlier patterns.
    """
    claims = [(f"pattern '{pattern}'", freezing.matching(names, pattern)) for pattern in patterns]
    first = freezing.first_match(names, claims, "patterns")
    return {name: None if number is None else patterns[number] for name, number in first.items()}
