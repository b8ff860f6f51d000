"""Rewrites a network's graph so that oneDNN trains it on its fast path: equal results, other operators.

Two things slow down what MXNet 1.9.1 trains on CPUs (found with its profiler and DNNL_VERBOSE=1):

`clip(x, 0, 6)`, the activation of the MobileNets, is not oneDNN's: it and its gradient bring every array into the
plain layout and back. With y = BatchNorm(x; gamma, beta), relu6(y) = relu(6 - relu(6 - y)); 6 - y is a BatchNorm of x
with -gamma and 6 - beta, and the outer 6 - v a BatchNorm with constants, so that only oneDNN's operators remain.

The gradient of BatchNorm runs in oneDNN's reference code, a hundred times slower, where its data and the gradient that
arrives are both blocked but differently (aBcd8b against aBcd16b): behind or before a 1x1 convolution whose channels
are not a multiple of 16. An operator that is not oneDNN's, put there, makes the gradient arrive in the plain layout,
which BatchNorm brings into its own. In bfloat16 the same happens between depthwise and other convolutions; there the
depthwise ones are left in float32, and the casts do it.
"""
from __future__ import annotations

import ast
import math
from typing import Any

import mxnet as mx
import numpy as np

from gluon_ft.models import graph as graphs
from gluon_ft.models.graph import Node

_PREFIX = "gluon_ft_relu6_"
_THROUGH = {"BatchNorm", "Activation", "LeakyReLU", "clip", "elemwise_add"}
# BatchNorm's least epsilon; the constant variance is such that the two add up to 1.
_EPSILON = 1e-5
_NORM_RELU = "_contrib_BatchNormWithReLU"


Shapes = dict[str, tuple[int, ...]]
NewEntry = list[int]  # [index of a new node, which of its outputs, 0], as in MXNet's JSON


def for_training(symbol: mx.sym.Symbol, shapes: Shapes, merge: bool = False) -> tuple[mx.sym.Symbol,
                                                                                      dict[str, np.ndarray]]:
    """The float32 graph that trains faster on CPUs.

    Parameters
    ----------
    symbol : mx.sym.Symbol
    shapes : dict
        Of the parameters, by name.
    merge : bool, default False
        Makes one operator of each BatchNorm and the relu behind it. Its gradient is **wrong** where data and gradient
        arrive in different layouts, which only a trial can tell (see `engine.merged`).

    Returns
    -------
    (symbol, constants)
        The same symbol where nothing is to be gained; the constants are further parameters of the new one, by name.
    """
    graph = _Rewriting(symbol, shapes, merge)
    clips = {node.index for node in graph.nodes if _is_relu6(node) and graph.foldable(node)}
    guarded = {node.index for node in graph.nodes if node.op == "BatchNorm" and graph.layouts_differ(node.index)}
    merged = {node.index for node in graph.nodes if merge and graph.is_merged(node)}
    if not clips and not guarded and not merged:
        return symbol, {}
    folded = {graph.nodes[index].inputs[0] for index in clips | merged}
    for node in graph.nodes:
        if node.index in folded:
            continue
        if node.index in clips:
            norm = node.inputs[0]
            graph.put(node.index, graph.relu6(node.name, graph.nodes[norm], guarded=norm in guarded))
        elif node.index in merged:
            norm = graph.nodes[node.inputs[0]]
            entry = graph.norm_relu(norm.name, norm.attrs, graph.inputs(norm))
            graph.put(node.index, graph.guard(node.name, entry) if norm.index in guarded else entry)
        else:
            entry = graph.keep(node)
            if node.index in guarded:
                graph.put(node.index, graph.guard(node.name, entry))
    return graph.symbol(), graph.constants


def is_merged(symbol: mx.sym.Symbol) -> bool:
    """Whether a graph of `for_training` has a BatchNorm and a relu as one operator."""
    return any(node.op == _NORM_RELU for node in graphs.nodes(symbol))


def for_bfloat16(symbol: mx.sym.Symbol, shapes: Shapes, data_shape: tuple[int, ...]) -> tuple[mx.sym.Symbol, list[str]]:
    """The graph before it is cast to bfloat16.

    1x1 convolutions of maps with 17 to 48 positions stay in float32: with Intel's matrix tiles, oneDNN 2.4.4's kernel
    for them writes behind its output and corrupts memory (seen with 27, 33, 36, 39, 42, 45 and 48 positions, of all
    from 1 to 259).

    `clip` has no fast kernel in bfloat16: minimum and relu take its place. The weights of depthwise convolutions pass
    through an operator that brings them into the plain layout: evaluation in float32 leaves them in a blocked one
    ('debcA16a'), from which oneDNN 2.4.4 cannot cast ("could not create a primitive descriptor for a reorder").

    Parameters
    ----------
    symbol : mx.sym.Symbol
    shapes : dict
        Of the parameters, by name.
    data_shape : tuple of int
        Of the input; the result is for this one only.

    Returns
    -------
    (symbol, names)
        The names are those of the nodes that stay in float32.
    """
    graph = _Rewriting(symbol, shapes)
    stay = _small_maps(symbol, data_shape)
    for node in graph.nodes:
        if _is_relu6(node):
            least = graph.emit("_minimum_scalar", node.name + "_min", {"scalar": "6"}, graph.inputs(node))
            graph.put(node.index, graph.emit("Activation", node.name, {"act_type": "relu"}, [least]))
        elif node.op == "Convolution" and _groups(node) > 1:
            data, weight, *bias = graph.inputs(node)
            weight = graph.guard(node.name + "_weight", weight)
            graph.put(node.index, graph.emit(node.op, node.name, node.attrs, [data, weight, *bias]))
            if _groups(node) == int(node.attrs["num_filter"]) and not graph.beside_clip(node):
                stay.append(node.name)
        else:
            graph.keep(node)
    return graph.symbol(), stay


class _Rewriting(graphs.Graph):
    """A symbol's nodes, and the list of new nodes that takes their place."""

    def __init__(self, symbol: mx.sym.Symbol, shapes: Shapes, merge: bool = False):
        super().__init__(symbol)
        self._merge = merge
        self._shapes, self._users = shapes, self.users()
        self._new: list[dict[str, Any]] = []
        # Index of a node -> index of the new node that has its results; constants by name.
        self._at: dict[int | str, int] = {}
        self.constants: dict[str, np.ndarray] = {}

    def inputs(self, node: Node) -> list[NewEntry]:
        """The new entries that a node takes."""
        # The third number, of states that operators change, is not among a Node's entries.
        return [[self._at[entry[0]], *entry[1:]] for entry in node.json["inputs"]]

    def emit(self, op: str, name: str, attrs: dict[str, Any] | None, inputs: list[NewEntry]) -> NewEntry:
        """Adds a new node; its first result."""
        node: dict[str, Any] = {"op": op, "name": name, "inputs": [list(entry) for entry in inputs]}
        if attrs:
            node["attrs"] = {key: str(value) for key, value in attrs.items()}
        self._new.append(node)
        return [len(self._new) - 1, 0, 0]

    def put(self, index: int | str, entry: NewEntry) -> None:
        """Lets a new node's result stand for that of the node `index`."""
        self._at[index] = entry[0]

    def keep(self, node: Node) -> NewEntry:
        """Adds a node as it was."""
        self._new.append({**node.json, "inputs": self.inputs(node)})
        self._at[node.index] = len(self._new) - 1
        return [self._at[node.index], 0, 0]

    def symbol(self) -> mx.sym.Symbol:
        """The symbol of the new nodes."""
        heads = [[self._at[index], output, 0] for index, output in self.heads]
        return graphs.to_symbol(self._new, heads, self.attributes)

    def guard(self, name: str, entry: NewEntry) -> NewEntry:
        """Does nothing, outside oneDNN."""
        return self.emit("slice_axis", name + "_plain", {"axis": 0, "begin": 0, "end": None}, [entry])

    def relu6(self, name: str, norm: Node, guarded: bool) -> NewEntry:
        """relu6 of a BatchNorm, made of the BatchNorm's inputs."""
        data, gamma, beta, *statistics = self.inputs(norm)
        channels = self._shape(norm.inputs[2])[0]
        gamma = self.emit("negative", name + "_gamma", None, [gamma])
        beta = self.emit("_rminus_scalar", name + "_beta", {"scalar": "6"}, [beta])
        below = self.norm_relu(norm.name, norm.attrs, [data, gamma, beta, *statistics])
        constants = [self._constant(what, channels, value) for what, value in (
            ("gamma", -1.0), ("beta", 6.0), ("mean", 0.0), ("var", 1.0 - _EPSILON))]
        result = self.norm_relu(name + "_turned", {"eps": _EPSILON, "fix_gamma": False, "axis": 1,
                                                   "use_global_stats": True}, [below, *constants])
        return self.guard(name, result) if guarded else result

    def norm_relu(self, name: str, settings: dict[str, Any], inputs: list[NewEntry]) -> NewEntry:
        """A BatchNorm with these settings and a relu behind it, as one operator or as two."""
        if self._merge:
            return self.emit(_NORM_RELU, name, settings, inputs)
        return self.emit("Activation", name + "_relu", {"act_type": "relu"},
                         [self.emit("BatchNorm", name, settings, inputs)])

    def _constant(self, what: str, channels: int, value: float) -> NewEntry:
        name = f"{_PREFIX}{what}_{channels}"
        if name not in self.constants:
            self.constants[name] = np.full(channels, value, np.float32)
            self.put(name, self.emit("null", name, {"__shape__": f"({channels},)"}, []))
        return [self._at[name], 0, 0]

    def foldable(self, clip: Node) -> bool:
        """Whether a clip stands behind a BatchNorm over channels that nothing else uses."""
        norm = self.nodes[clip.inputs[0]]
        return (self._is_norm_only_for(norm, clip) and not norm.is_on("fix_gamma", default=True)
                and bool(self._shape(norm.inputs[2])))

    def is_merged(self, relu: Node) -> bool:
        """Whether a node is the relu of maps (n, channels, height, width) from a BatchNorm that nothing else uses."""
        if relu.op != "Activation" or relu.attrs.get("act_type") != "relu":
            return False
        norm = self.nodes[relu.inputs[0]]
        if not self._is_norm_only_for(norm, relu):
            return False
        node, _ = self.behind(norm, lambda passed: passed.op in _THROUGH)
        return node.op == "Convolution" and len(ast.literal_eval(node.attrs["kernel"])) == 2

    def _is_norm_only_for(self, norm: Node, user: Node) -> bool:
        """Whether a node is a BatchNorm over channels whose result nothing but `user` takes."""
        return (norm.op == "BatchNorm" and norm.attrs.get("axis", "1") == "1"
                and not norm.is_on("output_mean_var", default=False)
                and self._users[norm.index] == [user.index] and all(index != norm.index for index, _ in self.heads))

    def layouts_differ(self, index: int) -> bool:
        """Whether a BatchNorm's data and gradient come in different blocked layouts."""
        before = self._block_before(index)
        return before is not None and bool(self._blocks_after(index) - {before})

    def beside_clip(self, node: Node) -> bool:
        """Whether the activation before this node is a relu6."""
        return any(_is_relu6(self.nodes[index]) for index in node.inputs)

    def _block_before(self, index: int) -> int | None:
        node, _ = self.behind(self.nodes[index], lambda passed: passed.op in _THROUGH)
        return self._block(node) if node.op == "Convolution" else None

    def _blocks_after(self, index: int, depth: int = 4) -> set[int]:
        found: set[int | None] = set()
        for user in self._users.get(index, []):
            node = self.nodes[user]
            if node.op == "Convolution":
                found.add(self._block(node))
            elif node.op in _THROUGH and depth:
                found |= self._blocks_after(user, depth - 1)
        return {block for block in found if block is not None}

    def _block(self, convolution: Node) -> int | None:
        """Channels in a block of the layout that oneDNN chooses for a float32 convolution on AVX-512 (2.4.4)."""
        weight = self._shape(convolution.inputs[1])
        if len(weight) != 4:
            return None
        filters, inputs = int(convolution.attrs["num_filter"]), weight[1]
        pointwise = _groups(convolution) == 1 and ast.literal_eval(convolution.attrs["kernel"]) == (1, 1)
        return 16 if filters % 16 == 0 and (inputs % 16 == 0 or not pointwise) else 8

    def _shape(self, index: int) -> tuple[int, ...]:
        shape = tuple(self._shapes.get(self.nodes[index].name) or ())
        return shape if 0 not in shape and -1 not in shape else ()


def _small_maps(symbol: mx.sym.Symbol, data_shape: tuple[int, ...]) -> list[str]:
    """Names of the 1x1 convolutions whose results have 17 to 48 positions."""
    inner = symbol.get_internals()
    _, found, _ = inner.infer_shape(data=data_shape)
    shapes = dict(zip(inner.list_outputs(), found))
    return [node.name for node in graphs.nodes(symbol) if node.op == "Convolution"
            and set(ast.literal_eval(node.attrs["kernel"])) == {1}
            and 17 <= math.prod(shapes[node.name + "_output"][2:]) <= 48]


def _is_relu6(node: Node) -> bool:
    return node.op == "clip" and float(node.attrs["a_min"]) == 0 and float(node.attrs["a_max"]) == 6


def _groups(convolution: Node) -> int:
    return int(convolution.attrs.get("num_group", "1"))
