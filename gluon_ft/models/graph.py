"""A symbol as the list of its nodes: walking back from its result, finding layers, cutting out a part, changing it.

The only place that reads or writes MXNet's JSON of a graph.
"""
from __future__ import annotations

import ast
import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import mxnet as mx

from gluon_ft.errors import NetworkError
from gluon_ft.io import documents
from gluon_ft.io.shapes import each, listed, named, text, whole

DATA = "data"  # name of the input variable
BATCHNORM = ("BatchNorm", "BatchNorm_v1", "_contrib_SyncBatchNorm", "CuDNNBatchNorm")
# 'Softmax' is what SoftmaxOutput was called in 2015.
OUTPUTS = ("SoftmaxOutput", "Softmax")
_PROBABILITIES = (*OUTPUTS, "softmax", "SoftmaxActivation")
# Operators behind the layer that makes the classes which keep 'one unit or channel a class'.
KEEP_CLASSES = frozenset({
    "softmax", "SoftmaxActivation", "SoftmaxOutput", "log_softmax", "Flatten", "Reshape", "Activation", "LeakyReLU",
    "Pooling", "mean", "squeeze", "identity", "_copy", "Dropout", "Cast", "amp_cast", "clip", "relu",
    "_contrib_AdaptiveAvgPooling2D"})
_CHANNELS_FIRST = (None, "None", "NCHW", "NCW", "NCDHW")
_POOLING = {"Pooling", "mean", "_contrib_AdaptiveAvgPooling2D"}

Entry = tuple[int, int]  # (index of a node, which of its outputs)

MOST_BYTES = 1 << 24  # of a symbol's JSON; ResNet-152's has 0.3 MB
_MOST_NODES = 100_000
_ENTRY = listed(whole(0, _MOST_NODES), most=3, least=2)
_SETTINGS = each(text(1 << 20))
_DESCRIPTION = named(
    {"nodes": listed(named({"op": text(200), "name": text(1000), "inputs": listed(_ENTRY)},
                           {"attrs": _SETTINGS, "attr": _SETTINGS, "param": _SETTINGS}, others=True), _MOST_NODES),
     "arg_nodes": listed(whole(0, _MOST_NODES)), "heads": listed(_ENTRY)}, others=True)


@dataclass(frozen=True)
class Node:
    """One node of a symbol.

    Attributes
    ----------
    index : int
        Its place in the graph.
    op : str
        Its operator; 'null' for a variable.
    name : str
    attrs : dict of str to str
        Settings of the operator, as text.
    entries : tuple of (index, output)
        Its inputs: which output of which node.
    json : dict
        The node as MXNet wrote it.
    """

    index: int
    op: str
    name: str
    attrs: dict[str, str]
    entries: tuple[Entry, ...]
    json: dict[str, Any] = field(repr=False, compare=False)

    @property
    def inputs(self) -> tuple[int, ...]:
        """Indices of the nodes that it takes its inputs from."""
        return tuple(index for index, _ in self.entries)

    def is_on(self, setting: str, default: bool) -> bool:
        """Whether a setting is true; `default` where the node does not have it."""
        return str(self.attrs.get(setting, default)).lower() in ("true", "1")


class Graph:
    """A symbol taken apart.

    Attributes
    ----------
    nodes : list of Node
        In order of execution.
    heads : list of (index, output)
        The results: which output of which node.
    attributes : dict
        Of the graph as a whole.
    """

    def __init__(self, symbol: mx.sym.Symbol):
        described = json.loads(symbol.tojson())
        self.nodes = [Node(i, n["op"], n["name"], n.get("attrs", {}), tuple((e[0], e[1]) for e in n["inputs"]), n)
                      for i, n in enumerate(described["nodes"])]
        self.heads: list[Entry] = [(head[0], head[1]) for head in described["heads"]]
        self.attributes: dict[str, Any] = described.get("attrs", {})

    def behind(self, node: Node, passes: Callable[[Node], bool]) -> tuple[Node, list[Node]]:
        """Walks back from `node` along first inputs to the first node that `passes` is false of.

        Returns
        -------
        (node, passed)
            That node, and those passed on the way, the one next to it last.
        """
        passed = []
        while passes(node):
            passed.append(node)
            node = self.nodes[node.inputs[0]]
        return node, passed

    def users(self) -> dict[int, list[int]]:
        """Index of a node -> indices of the nodes that take a result of it."""
        found: dict[int, list[int]] = {}
        for node in self.nodes:
            for index in node.inputs:
                found.setdefault(index, []).append(node.index)
        return found

    def ancestors(self, end: Entry, begin: Entry | None = None) -> list[int]:
        """Indices of the nodes that `end` needs, its own included, in order of execution; none beyond `begin`."""
        found: set[int] = set()
        waiting = [] if end == begin else [end[0]]
        while waiting:
            index = waiting.pop()
            if index not in found:
                found.add(index)
                waiting += [entry[0] for entry in self.nodes[index].entries if entry != begin]
        return sorted(found)

    def part(self, end: Entry, begin: Entry | None = None) -> mx.sym.Symbol:
        """The symbol that makes `end` from the input, or from a variable 'data' that stands for `begin`."""
        new: list[dict[str, Any]] = []
        place: dict[int, int] = {}
        if begin is not None:
            new.append({"op": "null", "name": DATA, "inputs": []})

        def moved(entry: Entry) -> list[int]:
            return [0, 0, 0] if entry == begin else [place[entry[0]], entry[1], 0]

        for index in self.ancestors(end, begin):
            place[index] = len(new)
            node = self.nodes[index]
            new.append({**node.json, "inputs": [moved(entry) for entry in node.entries]})
        return to_symbol(new, [moved(end)], self.attributes)

    def with_addition(self, end: Entry, place: Entry, name: str) -> mx.sym.Symbol:
        """The symbol of two results, `end` and `place`, where an input called `name` is added to `place`.

        Parameters
        ----------
        end, place : (index, output)
            Results of nodes; `end` needs `place`.
        name : str
            That no other variable has. The gradient of this input is that of `place`.
        """
        new: list[dict[str, Any]] = []
        moved: dict[Entry, list[int]] = {}
        for index in self.ancestors(end):
            node = self.nodes[index]
            inputs = [moved.get(entry, [moved[entry[0], -1][0], entry[1], 0]) for entry in node.entries]
            moved[index, -1] = [len(new), 0, 0]
            new.append({**node.json, "inputs": inputs})
            if index == place[0]:
                new.append({"op": "null", "name": name, "inputs": []})
                new.append({"op": "elemwise_add", "name": f"{name}_added",
                            "inputs": [[len(new) - 2, place[1], 0], [len(new) - 1, 0, 0]]})
                moved[place] = [len(new) - 1, 0, 0]
        return to_symbol(new, [moved.get(end, [moved[end[0], -1][0], end[1], 0]), moved[place]], self.attributes)


def from_json(text: str | bytes) -> mx.sym.Symbol:
    """The symbol in a JSON text that a stranger may have written.

    MXNet's own reader follows some wrong indices out of its memory, so all of them are checked here first.

    Raises
    ------
    ValueError
        It has not the form of a symbol.
    mx.MXNetError
        MXNet does not accept an operator, its settings or its inputs.
    """
    described = documents.parse_json(text, MOST_BYTES)
    _check_description(described)
    _check_outputs(described)
    return _made(described)


def _made(described: dict[str, Any]) -> mx.sym.Symbol:
    # MXNet's reader does not know the escape \u of letters beyond ASCII.
    return mx.sym.load_json(json.dumps(described, ensure_ascii=False))


def _check_outputs(described: dict[str, Any]) -> None:
    """ValueError where a node or a result takes an output that its source does not have."""
    entries = [entry for node in described["nodes"] for entry in node["inputs"]] + described["heads"]
    if not any(output for _, output, *_ in entries):
        return
    # The same nodes with names that tell them apart, each taking first outputs only, which every node has.
    numbered = [{**node, "name": f"n{index}", "inputs": [[entry[0], 0, *entry[2:]] for entry in node["inputs"]]}
                for index, node in enumerate(described["nodes"])]
    heads = [[index, 0, 0] for index in range(len(numbered))]
    whole_graph = _made({**described, "nodes": numbered, "heads": heads})
    counts = Counter(name.partition("_")[0] for name in whole_graph.get_internals().list_outputs())
    for index, output, *_ in entries:
        if output >= counts[f"n{index}"]:
            raise ValueError(f"output {output} of nodes[{index}], which has {counts[f'n{index}']}")


def _check_description(described: Any) -> None:
    """ValueError unless this has the form of a symbol, whose nodes take their inputs from earlier ones."""
    _DESCRIPTION(described, "")
    nodes = described["nodes"]
    if not nodes:
        raise ValueError("no nodes")
    for index, node in enumerate(nodes):
        if any(entry[0] >= index for entry in node["inputs"]):
            raise ValueError(f"nodes[{index}] takes an input from itself or from a later node")
    if any(entry[0] >= len(nodes) for entry in described["heads"]) or not described["heads"]:
        raise ValueError(f"heads name no results among the {len(nodes)} nodes")
    if any(index >= len(nodes) or nodes[index]["op"] != "null" for index in described["arg_nodes"]):
        raise ValueError("arg_nodes name something else than variables")


def to_symbol(nodes: list[dict[str, Any]], heads: Iterable[Iterable[int]], attributes: dict[str, Any]) -> mx.sym.Symbol:
    """Makes a symbol of nodes in MXNet's own JSON form.

    Parameters
    ----------
    nodes : list of dict
        With 'op', 'name', 'attrs' and 'inputs' (each [node, output, 0]).
    heads : iterable of [node, output, 0]
        The results: position of the node in `nodes`, and which of its outputs.
    attributes : dict
        Of the whole graph, such as MXNet's version.
    """
    variables = [i for i, node in enumerate(nodes) if node["op"] == "null"]
    return _made({"nodes": nodes, "arg_nodes": variables, "heads": [list(head) for head in heads], "attrs": attributes})


def edited(symbol: mx.sym.Symbol, change: Callable[[dict[str, Any]], None]) -> mx.sym.Symbol:
    """A copy on each of whose nodes, as MXNet writes them, `change` was called."""
    described = json.loads(symbol.tojson())
    for node in described["nodes"]:
        change(node)
    return _made(described)


def draws(symbol: mx.sym.Symbol, but: str = "") -> bool:
    """Whether an operator draws random numbers in training, other than those named `but`."""
    return any(node.op != but and (node.op in ("Dropout", "RNN") or "_random_" in node.op or "_sample_" in node.op)
               for node in nodes(symbol))


@dataclass(frozen=True)
class Head:
    """The layer that makes the classes.

    Attributes
    ----------
    node : Node
    parameters : tuple of str
        Names of its weight, and of its bias where it has one.
    pooled : bool
        Pooling comes behind it: it is a convolution whose map of classes is averaged.
    """

    node: Node
    parameters: tuple[str, ...]
    pooled: bool


def nodes(symbol: mx.sym.Symbol) -> list[Node]:
    """All nodes in order of execution."""
    return Graph(symbol).nodes


def result_of(symbol: mx.sym.Symbol) -> tuple[Graph, Node]:
    """The symbol taken apart, and the node that makes its result. NetworkError where there are several results."""
    graph = Graph(symbol)
    if len(graph.heads) != 1:
        raise NetworkError(f"the symbol has {len(graph.heads)} results", expected="one",
                           found=", ".join(symbol.list_outputs()),
                           remedy="take one of them: symbol.get_internals()['<layer>_output']")
    return graph, graph.nodes[graph.heads[0][0]]


def with_attributes(symbol: mx.sym.Symbol, changes: dict[str, dict[str, str]],
                    variables: bool = False) -> mx.sym.Symbol:
    """Copies a symbol with other attributes on the nodes that are named.

    Parameters
    ----------
    symbol : mx.sym.Symbol
    changes : dict of str to dict
        Name of a node -> attributes to set, all of them text; its others stay. Where empty, `symbol` is returned.
    variables : bool, default False
        The names are those of variables (parameters); False: of operators.
    """
    if not changes:
        return symbol

    def change(node: dict[str, Any]) -> None:
        if (node["op"] == "null") == variables and node["name"] in changes:
            node.setdefault("attrs", {}).update(changes[node["name"]])

    return edited(symbol, change)


def find_head(symbol: mx.sym.Symbol) -> Head:
    """The last fully connected layer, or the convolution that takes its place (SqueezeNet, MobileNetV2).

    Found by walking back from the result through operators that leave classes as they are. NetworkError, naming where
    the walk ended, where there is none.
    """
    graph, result = result_of(symbol)
    node, passed = graph.behind(result, lambda n: n.op in KEEP_CLASSES or n.op in ("Softmax", "BlockGrad"))
    is_head = node.op == "FullyConnected" or (node.op == "Convolution" and _numbers(node, "kernel") in ((1, 1), (1,)))
    if not is_head:
        layers = ", ".join(n.name for n in graph.nodes if n.op == "FullyConnected") or "none"
        raise NetworkError("the symbol does not end in a fully connected layer or a 1x1 convolution",
                           found=f"{node.op} '{node.name}' (fully connected: {layers})",
                           remedy="name the layer to build on: layer_name='...'")
    return Head(node, tuple(graph.nodes[i].name for i in node.inputs[1:]), any(n.op in _POOLING for n in passed))


def label_name(symbol: mx.sym.Symbol) -> str:
    """Name of the variable that takes the labels. NetworkError where the symbol does not end in SoftmaxOutput."""
    graph, node = result_of(symbol)
    if node.op not in OUTPUTS:
        raise NetworkError("the symbol does not end in SoftmaxOutput, so it has no loss", found=f"{node.op} "
                           f"'{node.name}'", remedy="use get_fine_tune_model, or mx.sym.SoftmaxOutput(data=symbol, "
                                                    "name='softmax')")
    return graph.nodes[node.inputs[1]].name


def logits(symbol: mx.sym.Symbol) -> mx.sym.Symbol:
    """The symbol without the softmax at its end, if it has one."""
    _, node = result_of(symbol)
    return symbol.get_children()[0] if node.op in _PROBABILITIES else symbol


def fixed_gammas(symbol: mx.sym.Symbol) -> list[str]:
    """Scales that BatchNorm takes as 1 whatever they are: fix_gamma, true unless the symbol says otherwise."""
    graph = nodes(symbol)
    return [graph[n.inputs[1]].name for n in graph if _fixes_gamma(n)]


def with_ones(symbol: mx.sym.Symbol, arg_params: dict[str, mx.nd.NDArray]) -> dict[str, mx.nd.NDArray]:
    """Sets the scales of `fixed_gammas` to 1 in a copy of the parameters; the operator itself does so at times."""
    ones = {name: mx.nd.ones_like(arg_params[name]) for name in fixed_gammas(symbol) if name in arg_params}
    return {**arg_params, **ones}


def _fixes_gamma(node: Node) -> bool:
    return node.op in BATCHNORM and node.is_on("fix_gamma", default=True)


def hold_batchnorm(symbol: mx.sym.Symbol, frozen: Iterable[str]) -> tuple[mx.sym.Symbol, list[str]]:
    """Sets use_global_stats in each BatchNorm all of whose trainable parameters are frozen.

    Parameters
    ----------
    symbol : mx.sym.Symbol
    frozen : iterable of str
        Names of parameters.

    Returns
    -------
    (symbol, list of str)
        The symbol so changed, and the names of these layers' running statistics, which then neither move nor depend on
        the batch.
    """
    graph, frozen = nodes(symbol), set(frozen)
    changes: dict[str, dict[str, str]] = {}
    held: list[str] = []
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


def weight_shapes(symbol: mx.sym.Symbol) -> dict[str, tuple[int | None, ...]]:
    """The shapes of weights as far as their layers tell them without an input.

    Returns
    -------
    dict of str to tuple
        Weight -> (units, None) or (filters, None, *kernel); None is what depends on the input.
    """
    graph = nodes(symbol)
    shapes: dict[str, tuple[int | None, ...]] = {}
    for node in graph:
        # A weight may be computed (see `zoo.layers.SameConv2D`): then its shape is not a parameter's.
        if len(node.inputs) < 2 or graph[node.inputs[1]].op != "null":
            continue
        if node.op == "FullyConnected":
            shapes[graph[node.inputs[1]].name] = (int(node.attrs["num_hidden"]), None)
        elif node.op == "Convolution" and node.attrs.get("layout") in _CHANNELS_FIRST:
            kernel = _numbers(node, "kernel") or ()
            shapes[graph[node.inputs[1]].name] = (int(node.attrs["num_filter"]), None, *kernel)
    return shapes


def _numbers(node: Node, setting: str) -> tuple[int, ...] | None:
    """A setting as a tuple of numbers; None where it is missing, or nothing of the kind."""
    try:
        value = ast.literal_eval(node.attrs.get(setting, "None"))
    except (ValueError, SyntaxError):
        return None
    return None if value is None else tuple(value) if isinstance(value, (list, tuple)) else (value,)
