"""Converts Gluon networks to symbols and symbols to Gluon blocks, also with a new output layer."""
from __future__ import annotations

import re
from collections.abc import Container, Iterable

import mxnet as mx
from mxnet.gluon import HybridBlock, SymbolBlock, nn

from gluon_ft.errors import NetworkError
from gluon_ft.models import graph, tracing
from gluon_ft.models.heads import LR_MULT
from gluon_ft.runtime.gluon_internals import averaged, is_initialised, parameters_by_path, set_array
from gluon_ft.symbolic import head, plan
from gluon_ft.symbolic.legacy import Parameters, check_aux


class FineTuned(HybridBlock):
    """The lower layers of a symbol (`features`, a SymbolBlock) below a new Dense layer (`output`)."""

    def __init__(self, features, classes, **kwargs):
        super().__init__(**kwargs)
        with self.name_scope():
            self.features = features
            self.output = nn.Dense(classes)

    def hybrid_forward(self, F, x):
        return self.output(self.features(x))


def to_symbol(net: HybridBlock, softmax: bool = False) -> tuple[mx.sym.Symbol, Parameters, Parameters]:
    """Converts a Gluon network to (symbol, arg_params, aux_params) for `get_fine_tune_model` and `symbolic.fit`.

    The parameters have the names that `net.export` gives them, without the network's prefix, which contains a number
    that changes with every network built. The arrays are copies on the CPU, and the input is called 'data'. The symbol
    keeps the multipliers of learning rate and weight decay; both are 0 for a parameter that is frozen or not trainable.

    Parameters
    ----------
    net : HybridBlock
    softmax : bool, default False
        Add a SoftmaxOutput 'softmax' on top, so that the symbol can be trained as it is.

    Raises
    ------
    NetworkError
        The network cannot be traced, or has not run yet, so that its shapes are not known.
    """
    symbol, names = _without_prefix(net)
    if softmax:
        if len(symbol.list_outputs()) != 1:
            raise NetworkError(f"{type(net).__name__} has {len(symbol.list_outputs())} results", expected="one")
        symbol = mx.sym.SoftmaxOutput(symbol, name="softmax")
    arrays, marks = {}, {}
    for parameter in net.collect_params().values():
        if not is_initialised(parameter):
            raise NetworkError(f"parameter '{parameter.name}' has no value yet",
                               remedy="call net.initialize() and run one batch through the network")
        name = names.get(parameter.name, parameter.name)
        arrays[name] = averaged(parameter)
        lr_mult, wd_mult = (0.0, 0.0) if parameter.grad_req == "null" else (parameter.lr_mult, parameter.wd_mult)
        marks[name] = {"__lr_mult__": repr(lr_mult), "__wd_mult__": repr(wd_mult)}
    symbol = graph.with_attributes(symbol, marks, variables=True)
    return (symbol, {n: arrays[n] for n in symbol.list_arguments() if n in arrays},
            {n: arrays[n] for n in symbol.list_auxiliary_states()})


def parameter_names(net: HybridBlock) -> dict[str, str]:
    """Path in the network ('features.0.weight') -> name in the symbol that `to_symbol` returns."""
    names = _without_prefix(net)[1]
    return {path: names.get(str(p.name), str(p.name)) for path, p in parameters_by_path(net).items()}


def frozen_names(net: HybridBlock, patterns: Iterable[str], known: Container[str]) -> list[str]:
    """Converts patterns for a Gluon network's parameters to patterns for the same parameters of its symbol.

    Parameters
    ----------
    net : HybridBlock
    patterns : iterable of str
        Regular expressions for paths such as 'features.0.weight'. Running statistics are ignored.
    known : container of str
        The parameters that the symbol has; others are left out of the result.

    Returns
    -------
    list of str
        One pattern '^name$' for each parameter.

    Raises
    ------
    ConfigError
        `plan.by_pattern` refuses a pattern.
    """
    names = parameter_names(net)
    statistics = {p.name for p in net.collect_params().values() if p.name.endswith(("running_mean", "running_var"))}
    paths = [path for path, p in parameters_by_path(net).items() if p.name not in statistics]
    chosen = [names[path] for path in plan.matching(paths, patterns)]
    return [f"^{re.escape(name)}$" for name in dict.fromkeys(chosen) if name in known]


def _without_prefix(net: HybridBlock) -> tuple[mx.sym.Symbol, dict[str, str]]:
    """The network's symbol with the network's prefix removed from the names, and old name -> new name."""
    symbol, prefix = tracing.symbol(net), net.prefix
    old = [node.name for node in graph.nodes(symbol)]
    new = {name: name[len(prefix):] for name in old if prefix and name.startswith(prefix) and name != prefix}
    if len({new.get(name, name) for name in old}) < len(set(old)):
        return symbol, {}
    return graph.edited(symbol, lambda node: node.update(name=new.get(node["name"], node["name"]))), new


def to_gluon(symbol: mx.sym.Symbol, arg_params: Parameters, aux_params: Parameters,
             ctx: mx.Context | list[mx.Context] | None = None, frozen: Iterable[str] = (),
             batchnorm: str = "frozen") -> SymbolBlock:
    """Converts a symbol to a Gluon block that returns logits: a SoftmaxOutput or softmax at its end is removed.

    The parameters of the block get the multipliers of learning rate and weight decay that are stored in the symbol.

    Parameters
    ----------
    symbol, arg_params, aux_params
        As `mx.model.load_checkpoint` gives them.
    ctx : mx.Context or list of them, default mx.cpu()
    frozen, batchnorm
        As in `symbolic.fit`. They are set here and not later, because the mode of a SymbolBlock's BatchNorm layers is
        part of its graph.

    Raises
    ------
    NetworkError
        The symbol has no input 'data'.
    WeightsError
        Parameters are missing.
    ConfigError
        A pattern matches nothing.
    """
    return _block(graph.logits(symbol), arg_params, aux_params, ctx, frozen, batchnorm)


def fine_tune_block(symbol: mx.sym.Symbol, arg_params: Parameters, aux_params: Parameters, num_classes: int,
                    layer_name: str | None = "flatten0", lr_mult: float = LR_MULT,
                    ctx: mx.Context | list[mx.Context] | None = None, init: mx.init.Initializer | None = None,
                    frozen: Iterable[str] = (), batchnorm: str = "frozen") -> FineTuned:
    """`get_fine_tune_model` for training with Gluon: a new Dense layer `output` on top of a layer of the symbol.

    Parameters
    ----------
    symbol, arg_params, aux_params
        As `mx.model.load_checkpoint` gives them.
    num_classes : int
        2 or more.
    layer_name : str or None, default 'flatten0'
        The layer below the new one, as in `get_fine_tune_model`.
    lr_mult : float, default `heads.LR_MULT`
        Learning-rate multiplier of the new layer.
    ctx : mx.Context or list of them, default mx.cpu()
    init : Initializer, default Xavier()
        Initialises the new layer.
    frozen, batchnorm
        As in `symbolic.fit`; the patterns are for the names in the symbol.

    Returns
    -------
    FineTuned
        Initialised and hybridised.

    Raises
    ------
    ConfigError, NetworkError, WeightsError
        See `get_fine_tune_model` and `to_gluon`.
    """
    new, kept = head.get_fine_tune_model(symbol, arg_params, num_classes, layer_name, "gluon_ft_head", "gluon_ft_out")
    below = graph.logits(new).get_children()[0]
    features = _block(below, kept, aux_params, ctx, frozen, batchnorm)
    net = FineTuned(features, num_classes, prefix="")
    net.output.collect_params().setattr("lr_mult", lr_mult)
    net.output.initialize(init or mx.init.Xavier(), ctx=ctx or mx.cpu())
    net.hybridize()
    return net


def _block(symbol, arg_params, aux_params, ctx, frozen, batchnorm):
    names = [name for name in symbol.list_arguments() if name != head.DATA]
    head.check_parameters(symbol, names, arg_params)
    check_aux(symbol, aux_params)
    matched = plan.matching(names, frozen)
    if batchnorm == "frozen":
        symbol, _ = graph.hold_batchnorm(symbol, matched)
    # Without a dtype, SymbolBlock warns that it cannot infer one.
    block = SymbolBlock(symbol, mx.sym.var(head.DATA, dtype="float32"))
    contexts = plan.contexts_of(ctx or None)
    arg_params = graph.with_ones(symbol, arg_params)
    fixed = {*matched, *graph.fixed_gammas(symbol)}
    lr_mult, wd_mult = (graph.own_multipliers(symbol, what) for what in ("lr_mult", "wd_mult"))
    for name, parameter in block.collect_params().items():
        set_array(parameter, arg_params[name] if name in arg_params else aux_params[name], contexts)
        parameter.lr_mult, parameter.wd_mult = lr_mult.get(name, 1.0), wd_mult.get(name, 1.0)
        if name in fixed or parameter.lr_mult == parameter.wd_mult == 0:
            parameter.grad_req = "null"
    return block
