"""Which parameters are trained, and how fast: freezing, layer groups, BatchNorm's mode, and a table of it all.

Frozen means that nothing moves: no gradient is computed (`grad_req='null'`), so weight decay cannot act either, and
BatchNorm normalises by its running statistics instead of updating them (apache/mxnet#8066, #10077). A learning-rate
multiplier of 0 is not the same: the gradient is still computed, and the statistics still drift.
"""
from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from mxnet.gluon import Block, Parameter

from gluon_ft.errors import ConfigError, near
from gluon_ft.io import tables
from gluon_ft.models import batchnorm as modes
from gluon_ft.models import tracing
from gluon_ft.models.batchnorm import FROZEN, TRAINED, set_batchnorm
from gluon_ft.models.stages import Stage, stages
from gluon_ft.runtime.gluon_internals import own_parameters, parameters_by_path


@dataclass(frozen=True)
class Group:
    """Parameters that share their settings.

    pattern : regular expression searched in the parameters' paths ('features.5.0.conv1.weight'); or
    stage : name of a stage of `stages(net)` ('stem', 'stage1', ..., 'output'). Exactly one of the two.
    lr_mult, wd_mult : multipliers, None leaves them. frozen : see `freeze`.
    """

    pattern: str | None = None
    stage: str | None = None
    lr_mult: float | None = None
    wd_mult: float | None = None
    frozen: bool = False


def freeze(net: Block, batchnorm: str = FROZEN) -> Block:
    """Freezes all parameters of a network or block, in place, and returns it.

    Parameters
    ----------
    net : Block
    batchnorm : 'frozen' (default) or 'train'
        'frozen' holds BatchNorm's running statistics as well and normalises by them; 'train' lets them follow the
        batches, as the published examples (unknowingly) do.

    Raises
    ------
    ConfigError
        For another value of `batchnorm`.
    NetworkError
        For a SymbolBlock with BatchNorm, whose mode is in its graph.
    """
    _stop_gradients(net)
    return set_batchnorm(net, batchnorm)


def _stop_gradients(net):
    for parameter in net.collect_params().values():
        parameter.grad_req = "null"


def unfreeze(net: Block, batchnorm: str = TRAINED) -> Block:
    """Sets all parameters of a network or block free, in place; running statistics never have gradients."""
    for parameter in net.collect_params().values():
        # Gluon keeps 'null' for what is not differentiable (running statistics, the gamma of scale=False).
        parameter.grad_req = "write"
    return set_batchnorm(net, batchnorm)


def freeze_stages(net: Block, count: int, batchnorm: str = FROZEN,
                  input_shape: tuple[int, ...] | None = None) -> list[Stage]:
    """Freezes the first stages of a network, in place; the others are left as they are.

    Parameters
    ----------
    net : HybridBlock
    count : int
        0 to all but the output.
    batchnorm, input_shape
        As in `freeze` and `stages`.

    Returns
    -------
    list of Stage
        Those that were frozen.

    Raises
    ------
    ConfigError
        For another count; as `freeze`.
    """
    found = stages(net, input_shape)
    if not 0 <= count < len(found):
        raise ConfigError(f"cannot freeze the first {count} stages", expected=f"0 to {len(found) - 1}",
                          found=", ".join(stage.name for stage in found))
    for stage in found[:count]:
        for block in stage.blocks:
            _stop_gradients(block)
            modes.set_modes(block, batchnorm)
    tracing.forget_graphs(net)
    return found[:count]


def apply_groups(net: Block, groups: list[Group], batchnorm: str = FROZEN,
                 input_shape: tuple[int, ...] | None = None) -> dict[str, Group | None]:
    """Gives each parameter the settings of the first group that matches it, in place.

    Parameters
    ----------
    net : HybridBlock
    groups : list of Group
        In order: a parameter belongs to the first that matches it.
    batchnorm : 'frozen' or 'train'
        What BatchNorm layers do all of whose parameters are in frozen groups, see `freeze`.
    input_shape
        As in `stages`.

    Returns
    -------
    dict
        Path of a parameter -> its group, None where no group matches.

    Raises
    ------
    ConfigError
        For a group that matches nothing, or nothing that an earlier group has not taken (the order is wrong then); for
        an unknown stage, with the near names; for a regular expression that does not compile.
    """
    parameters = parameters_by_path(net)
    members = [_members(net, group, parameters, input_shape) for group in groups]
    named = [f"stage '{group.stage}'" if group.stage else f"pattern '{group.pattern}'" for group in groups]
    first = first_match(list(parameters), list(zip(named, members)), "groups")
    taken = {path: None if number is None else groups[number] for path, number in first.items()}
    for path, group in taken.items():
        if group is not None:
            _set(parameters[path], group)
    _freeze_statistics(net, taken, batchnorm)
    return taken


def matching(names: Sequence[str], pattern: str) -> list[str]:
    """Those of `names` in which a regular expression is found (`re.search`), in their order.

    Raises ConfigError where it does not compile.
    """
    try:
        expression = re.compile(pattern)
    except (re.error, TypeError) as error:
        raise ConfigError(f"'{pattern}' is not a regular expression", found=str(error)) from error
    return [name for name in names if expression.search(name)]


def first_match(names: Sequence[str], claims: Sequence[tuple[str, Sequence[str]]], kind: str) -> dict[str, int | None]:
    """Which of several ordered claims each name belongs to: the first that has it.

    Parameters
    ----------
    names : sequence of str
        Of all parameters.
    claims : sequence of (str, sequence of str)
        What a claim is called in an error, and the names that it matches.
    kind : str
        What the claims are, for an error: 'groups', 'patterns'.

    Returns
    -------
    dict
        Name -> number of its claim, None where no claim has it.

    Raises
    ------
    ConfigError
        For a claim that matches nothing, or nothing that an earlier one has not taken.
    """
    taken: dict[str, int | None] = dict.fromkeys(names)
    for number, (what, found) in enumerate(claims):
        fresh = [name for name in found if taken[name] is None]
        if not fresh:
            raise ConfigError(f"{what} matches nothing",
                              found=f"only parameters of earlier {kind}" if found else "no parameter",
                              remedy=f"parameters are named like {', '.join(names[:3])}")
        taken.update(dict.fromkeys(fresh, number))
    return taken


def _members(net: Block, group: Group, parameters: dict[str, Parameter], input_shape) -> list[str]:
    if (group.pattern is None) == (group.stage is None):
        raise ConfigError("a group needs either a pattern or a stage", found=repr(group))
    if group.stage is not None:
        found = {stage.name: stage for stage in stages(net, input_shape)}
        if group.stage not in found:
            raise ConfigError(f"no stage '{group.stage}'", remedy=near(group.stage, found))
        return [path for path in found[group.stage].parameters() if path in parameters]
    return matching(list(parameters), group.pattern or "")


def _set(parameter: Parameter, group: Group) -> None:
    if group.frozen:
        parameter.grad_req = "null"
    if group.lr_mult is not None:
        parameter.lr_mult = group.lr_mult
    if group.wd_mult is not None:
        parameter.wd_mult = group.wd_mult


def _freeze_statistics(net, taken, batchnorm):
    """BatchNorm layers all of whose parameters are in frozen groups hold their statistics."""
    for path, block in tracing.blocks(net):
        if modes.has_statistics(block):
            own = [f"{path}.{key}" if path else key for key in own_parameters(block)]
            if all(taken[key] is not None and taken[key].frozen for key in own if not key.endswith(
                    ("running_mean", "running_var"))):
                modes.set_mode(block, batchnorm)
    tracing.forget_graphs(net)


@dataclass(frozen=True)
class Description:
    """The table of `describe`: `rows` are dicts (parameter, shape, count, grad_req, lr, wd); str() prints it."""

    rows: list[dict] = field(default_factory=list)
    trained: int = 0
    frozen: int = 0
    statistics: int = 0

    def __str__(self) -> str:
        lines = [tables.table([{**row, "lr": f"{row['lr']:g}", "wd": f"{row['wd']:g}"} for row in self.rows]), "",
                 f"{self.trained:,} numbers trained, {self.frozen:,} frozen, {self.statistics:,} running statistics"]
        return "\n".join(lines)


def describe(net: Block, lr: float = 1.0, wd: float = 1.0) -> Description:
    """What will be trained: each parameter's path, shape, grad_req and effective learning rate and weight decay.

    Frozen parameters have 0 in both columns whatever their multipliers. A shape that is not known before the first
    forward pass has no count and is not in the totals.

    Parameters
    ----------
    net : Block
    lr, wd : float, default 1
        The optimiser's; with the default the columns show the multipliers themselves.

    Returns
    -------
    Description
        `print` shows it as a table.
    """
    rows, totals = [], {"trained": 0, "frozen": 0, "statistics": 0}
    held = {f"{path}.running_mean" if path else "running_mean" for path, block in tracing.blocks(net)
            if modes.has_statistics(block) and modes.statistics_are_held(block)}
    for path, parameter in parameters_by_path(net).items():
        count = math.prod(parameter.shape) if parameter.shape and 0 not in parameter.shape else None
        statistics = path.endswith(("running_mean", "running_var"))
        trained = parameter.grad_req != "null"
        totals["statistics" if statistics else "trained" if trained else "frozen"] += count or 0
        stem = path.rsplit(".", 1)[0] + ".running_mean" if "." in path else "running_mean"
        state = ("held" if stem in held else "updated") if statistics else parameter.grad_req
        rows.append({"parameter": path, "shape": "x".join(map(str, parameter.shape or ())), "count": count,
                     "grad_req": state, "lr": lr * parameter.lr_mult if trained else 0.0,
                     "wd": wd * parameter.wd_mult if trained else 0.0})
    return Description(rows, **totals)
