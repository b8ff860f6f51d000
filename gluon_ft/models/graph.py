"""A symbol as the list of its nodes: finding layers in it, and changing attributes of them."""
from __future__ import annotations

import ast
import json
from dataclasses import dataclass

import mxnet as mx

from gluon_ft.errors import NetworkError

BATCHNORM = ("BatchNorm", "BatchNorm_v1", "_contrib_SyncBatchNorm", "CuDNNBatchNorm")
# 'Softmax' is what SoftmaxOutput was called in 2015.
OUTPUTS = ("SoftmaxOutput", "Softmax")
_PROBABILITIES = (*OUTPUTS, "softmax", "SoftmaxActivation")
# Operators between the classifier's layer and the result that keep 'one unit or channel a class'.
_BEHIND_THE_HEAD = {*_PROBABILITIES, "log_softmax", "Flatten", "Reshape", "Activation", "LeakyReLU", "Pooling", "mean",
                    "squeeze", "identity", "_copy", "Dropout", "BlockGrad", "Cast", "amp_cast", "clip", "relu",
                    "_contrib_AdaptiveAvgPooling2D"}
_POOLING = {"Pooling", "mean", "_contrib_AdaptiveAvgPooling2D"}


@dataclass(frozen=True)
class Node:
    """One node: `op` is 'null' for a variable; `inputs` are the indices of the nodes before it."""

    index: int
    op: str
    name: str
    attrs: dict[str, str]
    inputs: tuple[int, ...]


@dataclass(frozen=True)
class Head:
    """The layer that makes the classes: its name, its parameters' names, the index of its input; `pooled` says that
    pooling comes behind it (a convolution whose map of classes is averaged)."""

    node: Node
    parameters: tuple[str, ...]
    pooled: bool


def nodes(symbol: mx.sym.Symbol) -> list[Node]:
    """All nodes in order of execution."""
    described = json.loads(symbol.tojson())
    return [Node(i, n["op"], n["name"], n.get("attrs", {}), tuple(entry[0] for entry in n["inputs"]))
            for i, n in enumerate(described["nodes"])]


def result_node(symbol: mx.sym.Symbol) -> int:
    """Index of the node that makes the result. NetworkError where there are several results."""
    heads = json.loads(symbol.tojson())["heads"]
    if len(heads) != 1:
        raise NetworkError(f"the symbol has {len(heads)} results", expected="one",
                           found=", ".join(symbol.list_outputs()),
                           remedy="take one of them: symbol.get_internals()['<layer>_output']")
    return heads[0][0]


def with_attributes(symbol: mx.sym.Symbol, changes: dict[str, dict[str, str]], variables=False) -> mx.sym.Symbol:
    """A copy in which the named nodes (operators, or else variables) have other attributes."""
    if not changes:
        return symbol
    described = json.loads(symbol.tojson())
    for node in described["nodes"]:
        if (node["op"] == "null") == variables and node["name"] in changes:
            node.setdefault("attrs", {}).update(changes[node["name"]])
    return mx.sym.load_json(json.dumps(described))


def find_head(symbol: mx.sym.Symbol) -> Head:
    """The last fully connected layer, or the convolution that takes its place (SqueezeNet, MobileNetV2).

    Found by walking back from the result through operators that leave classes as they are. NetworkError, naming where
    the walk ended, where there is none.
    """
    graph = nodes(symbol)
    node, pooled = graph[result_node(symbol)], False
    while node.op in _BEHIND_THE_HEAD:
        pooled |= node.op in _POOLING
        node = graph[node.inputs[0]]
    is_head = node.op == "FullyConnected" or (node.op == "Convolution" and _numbers(node, "kernel") in ((1, 1), (1,)))
    if not is_head:
        layers = ", ".join(n.name for n in graph if n.op == "FullyConnected") or "none"
        raise NetworkError("the symbol does not end in a fully connected layer or a 1x1 convolution",
                           found=f"{node.op} '{node.name}' (fully connected: {layers})",
                           remedy="name the layer to build on: layer_name='...'")
    return Head(node, tuple(graph[i].name for i in node.inputs[1:]), pooled)


def label_name(symbol: mx.sym.Symbol) -> str:
    """Name of the variable that takes the labels. NetworkError where the symbol does not end in SoftmaxOutput."""
    graph = nodes(symbol)
    node = graph[result_node(symbol)]
    if node.op not in OUTPUTS:
        raise NetworkError("the symbol does not end in SoftmaxOutput, so it has no loss", found=f"{node.op} "
                           f"'{node.name}'", remedy="use get_fine_tune_model, or mx.sym.SoftmaxOutput(data=symbol, "
                                                    "name='softmax')")
    return graph[node.inputs[1]].name


def logits(symbol: mx.sym.Symbol) -> mx.sym.Symbol:
    """The symbol without the softmax at its end, if it has one."""
    graph = nodes(symbol)
    node = graph[result_node(symbol)]
    if node.op not in _PROBABILITIES:
        return symbol
    children = symbol.get_children()
    return children[0]


def fixed_gammas(symbol: mx.sym.Symbol) -> list[str]:
    """Scales that BatchNorm takes as 1 whatever they are: fix_gamma, true unless the symbol says otherwise."""
    graph = nodes(symbol)
    return [graph[n.inputs[1]].name for n in graph if _fixes_gamma(n)]


def with_ones(symbol: mx.sym.Symbol, arg_params: dict) -> dict:
    """The parameters with 1 for the scales of `fixed_gammas`: the operator writes that into them at times anyway."""
    ones = {name: mx.nd.ones_like(arg_params[name]) for name in fixed_gammas(symbol) if name in arg_params}
    return {**arg_params, **ones}


def _fixes_gamma(node):
    return node.op in BATCHNORM and _true(node.attrs.get("fix_gamma", "True"))


def hold_batchnorm(symbol: mx.sym.Symbol, frozen) -> tuple[mx.sym.Symbol, list[str]]:
    """The symbol with use_global_stats in each BatchNorm all of whose trainable parameters are in `frozen`.

    Returns it and the names of these layers' running statistics, which then neither move nor depend on the batch.
    """
    graph, frozen = nodes(symbol), set(frozen)
    changes, held = {}, []
    for node in graph:
        if node.op in BATCHNORM:
            gamma, beta, *statistics = [graph[i].name for i in node.inputs[1:]]
            if {beta} | (set() if _fixes_gamma(node) else {gamma}) <= frozen:
                changes[node.name] = {"use_global_stats": "True"}
                held += statistics
    return with_attributes(symbol, changes), held


def own_multipliers(symbol: mx.sym.Symbol, what: str) -> dict[str, float]:
    """Variable -> the multiplier ('lr_mult' or 'wd_mult') that the symbol itself gives it, where it does."""
    found = {}
    for node in nodes(symbol):
        text = node.attrs.get(f"__{what}__") if node.op == "null" else None
        if text is not None:
            try:
                found[node.name] = float(text)
            except ValueError:
                raise NetworkError(f"the symbol's {what} of '{node.name}' is not a number", found=text) from None
    return found


def weight_shapes(symbol: mx.sym.Symbol) -> dict[str, tuple]:
    """What layers say of their weights' shapes by themselves: units or filters and kernel; None for what depends on
    the input."""
    graph, shapes = nodes(symbol), {}
    for node in graph:
        if node.op == "FullyConnected":
            shapes[graph[node.inputs[1]].name] = (int(node.attrs["num_hidden"]), None)
        elif node.op == "Convolution" and _numbers(node, "layout") is None:
            shapes[graph[node.inputs[1]].name] = (int(node.attrs["num_filter"]), None, *_numbers(node, "kernel"))
    return shapes


def _numbers(node, key):
    """The attribute as a tuple of numbers; None where it is missing, or not numbers, or the default layout."""
    text = node.attrs.get(key)
    if text in (None, "None", "NCHW", "NCW", "NCDHW"):
        return None
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


def _true(text) -> bool:
    return str(text).lower() in ("true", "1")
