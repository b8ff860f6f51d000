"""What is settled before a symbol is trained: what moves and how fast, the symbol as it is run, the class names."""
from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass

import mxnet as mx

from gluon_ft.errors import ConfigError, NetworkError, TrainingError
from gluon_ft.models import graph
from gluon_ft.symbolic import checks, groups
from gluon_ft.symbolic.head import DATA
from gluon_ft.training.config import TrainConfig
from gluon_ft.training.schedule import OPEN_ENDED

# What of TrainConfig Module's loop here does; another setting than the default of the rest is refused.
USED = ("epochs", "optimizer", "lr", "momentum", "wd", "schedule", "warmup", "lr_factor", "lr_every", "milestones",
        "label_smoothing", "kvstore", "seed", "top_k", "allow_empty_classes")
PADDING = -1.0  # label of rows that are ignored


@dataclass(frozen=True)
class Plan:
    """symbol : as given; running : as it is trained; label : its input for labels; head : the last layer's parameters;
    frozen, held : parameters and running statistics that stay; lr, wd : multipliers of those that are trained."""

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
        """Those that must be the same for a checkpoint to be gone on from."""
        looks_ahead = self.config.schedule not in OPEN_ENDED
        config = {k: v for k, v in self.config.to_dict().items() if k in USED and (looks_ahead or k != "epochs")}
        return {"config": config, "batch_size": self.batch_size, "devices": len(self.contexts), "lr_mult": self.lr,
                "wd_mult": self.wd, "frozen": self.frozen,
                "symbol": hashlib.sha256(self.running.tojson().encode()).hexdigest()}


def make(symbol, batch_size, ctx, config, head_lr_mult, lr_mult, wd_mult, frozen, batchnorm) -> Plan:
    """The plan for the arguments of `symbolic.fit`, see there. The number of classes is checked later, with shapes."""
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
    if "dist" in config.kvstore:
        raise ConfigError(f"kvstore '{config.kvstore}' is not for symbolic.fit", expected="'device' or 'local'",
                          remedy="train on several machines with Gluon")
    label, head = graph.label_name(symbol), graph.find_head(symbol).parameters
    names = [name for name in symbol.list_arguments() if name not in (DATA, label)]
    if DATA not in symbol.list_arguments():
        raise NetworkError("the symbol has no input 'data'", found=", ".join(symbol.list_arguments()[:3]))
    fixed = set(graph.fixed_gammas(symbol))
    own = {what: graph.own_multipliers(symbol, what) for what in ("lr_mult", "wd_mult")}
    never = [n for n in names if own["lr_mult"].get(n) == own["wd_mult"].get(n) == 0]
    stays = [*groups.matching(names, frozen), *never]
    running, held = graph.hold_batchnorm(symbol, stays) if batchnorm == "frozen" else (symbol, [])
    # A scale that BatchNorm takes as 1 has no gradient; weight decay would still move the number in the file.
    trained = [name for name in names if name not in fixed and name not in stays]
    if not trained:
        raise TrainingError("every parameter is frozen", expected="at least the last layer trained",
                            remedy="give patterns that leave some")
    lr, wd = ({**dict.fromkeys(trained, 1.0), **{n: v for n, v in own[what].items() if n in trained},
               **groups.multipliers(trained, given, what)}
              for what, given in (("lr_mult", lr_mult), ("wd_mult", wd_mult)))
    if head_lr_mult is not None:
        of_head = groups.multipliers(list(head), {"": head_lr_mult}, "head_lr_mult")
        lr.update({name: value for name, value in of_head.items() if name in lr})
    running = _with_options(running, config.label_smoothing, len(contexts))
    return Plan(symbol, running, label, head, [n for n in names if n not in lr], held, lr, wd, config, contexts,
                batch_size)


def contexts_of(ctx) -> list[mx.Context]:
    """A context, a list of them, or None for the CPU, as a list."""
    if ctx is None:
        return [mx.cpu()]
    return [ctx] if isinstance(ctx, mx.Context) else list(ctx)


def _with_options(symbol, smoothing, devices):
    """SoftmaxOutput with label smoothing, and with rows to ignore where a batch may have fewer rows than devices."""
    inside, output = graph.result_of(symbol)
    changes = {}
    if smoothing:
        head = inside.nodes[output.inputs[0]]
        classes = int(head.attrs.get("num_hidden", head.attrs.get("num_filter", 0)))
        if not classes:
            raise ConfigError("label smoothing needs the last layer right below SoftmaxOutput",
                              found=f"{head.op} '{head.name}'")
        # SoftmaxOutput spreads alpha over the wrong classes only, TrainConfig's label_smoothing over all.
        changes["smooth_alpha"] = repr(smoothing * (classes - 1) / classes)
    if devices > 1:
        changes.update(use_ignore="True", ignore_label=repr(PADDING))
    return graph.with_attributes(symbol, {output.name: changes}) if changes else symbol


def check(plan: Plan, arg_params, aux_params, train, val, shape, wanted=None):
    """Everything that can be known before the first batch; returns (class names or None, Labels, Labels or None).

    shape : of a batch's data; wanted : class names of a checkpoint. Errors as in `symbolic.fit`.
    """
    inputs = {DATA: (plan.batch_size, *shape[1:]), plan.label: (plan.batch_size,)}
    classes = checks.check_parameters(plan.symbol, arg_params, aux_params, inputs, plan.head)
    names = checks.class_names(classes, train, val, wanted)
    labels = checks.labels_fit(classes, train, "the training set", plan.config.allow_empty_classes)
    return names, labels, None if val is None else checks.labels_fit(classes, val, "the validation set")
