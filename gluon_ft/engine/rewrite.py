"""Rewriting a network's graph so that oneDNN trains it without leaving its fast path: equal results, other operators.

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
import json
import math

import mxnet as mx
import numpy as np

_PREFIX = "gluon_ft_relu6_"
_THROUGH = {"BatchNorm", "Activation", "LeakyReLU", "clip", "elemwise_add"}
# BatchNorm's least epsilon; the constant variance is such that the two add up to 1.
_EPSILON = 1e-5


def for_training(symbol: mx.sym.Symbol, shapes: dict[str, tuple]) -> tuple[mx.sym.Symbol, dict[str, np.ndarray]]:
    """The float32 graph that trains faster on CPUs, and the constants it needs; the same symbol where nothing is to
    be gained.

    shapes : of the parameters, by name.
    """
    graph = _Graph(symbol, shapes)
    clips = {i for i, n in enumerate(graph.nodes) if _is_relu6(n) and graph.foldable(n)}
    guarded = {i for i, n in enumerate(graph.nodes) if n["op"] == "BatchNorm" and graph.layouts_differ(i)}
    if not clips and not guarded:
        return symbol, {}
    folded = {graph.nodes[i]["inputs"][0][0] for i in clips}
    for i, node in enumerate(graph.nodes):
        if i in folded:
            graph.skip(i)
        elif i in clips:
            norm = node["inputs"][0][0]
            graph.put(i, graph.relu6(node["name"], graph.nodes[norm], guarded=norm in guarded))
        else:
            entry = graph.keep(i)
            if i in guarded:
                graph.put(i, graph.guard(node["name"], entry))
    return graph.symbol(), graph.constants


def for_bfloat16(symbol: mx.sym.Symbol, shapes: dict[str, tuple], data_shape: tuple) -> tuple[mx.sym.Symbol,
                                                                                           list[str]]:
    """The graph before it is cast to bfloat16, and the names of the nodes that stay in float32.

    1x1 convolutions of maps with 17 to 48 positions stay: with Intel's matrix tiles, oneDNN 2.4.4's kernel for them
    writes behind its output and corrupts memory (seen with 27, 33, 36, 39, 42, 45 and 48 positions, of all from 1 to
    259). data_shape : the input's; the result is for this one only.

    `clip` has no fast kernel in bfloat16: minimum and relu take its place. The weights of depthwise convolutions pass
    through an operator that brings them into the plain layout: evaluation in float32 leaves them in a blocked one
    ('debcA16a'), from which oneDNN 2.4.4 cannot cast ("could not create a primitive descriptor for a reorder").
    """
    graph = _Graph(symbol, shapes)
    stay = _small_maps(symbol, data_shape)
    for i, node in enumerate(graph.nodes):
        if _is_relu6(node):
            least = graph.emit("_minimum_scalar", node["name"] + "_min", {"scalar": "6"}, graph.inputs(node))
            graph.put(i, graph.emit("Activation", node["name"], {"act_type": "relu"}, [least]))
        elif node["op"] == "Convolution" and _groups(node) > 1:
            data, weight, *bias = graph.inputs(node)
            weight = graph.guard(node["name"] + "_weight", weight)
            graph.put(i, graph.emit(node["op"], node["name"], node.get("attrs"), [data, weight, *bias]))
            if _groups(node) == int(node["attrs"]["num_filter"]) and not graph.beside_clip(i):
                stay.append(node["name"])
        else:
            graph.keep(i)
    return graph.symbol(), stay


class _Graph:
    """A symbol's nodes, and the list of nodes that is to take their place."""

    def __init__(self, symbol, shapes):
        self._described = json.loads(symbol.tojson())
        self.nodes, self._shapes = self._described["nodes"], shapes
        self._users: dict[int, list[int]] = {}
        for i, node in enumerate(self.nodes):
            for entry in node["inputs"]:
                self._users.setdefault(entry[0], []).append(i)
        self._heads = {head[0] for head in self._described["heads"]}
        self._new: list[dict] = []
        self._at: dict[int, int | None] = {}
        self.constants: dict[str, np.ndarray] = {}

    def inputs(self, node) -> list[list[int]]:
        return [[self._at[entry[0]], entry[1], entry[2] if len(entry) > 2 else 0] for entry in node["inputs"]]

    def emit(self, op, name, attrs, inputs) -> list[int]:
        node = {"op": op, "name": name, "inputs": [list(entry) for entry in inputs]}
        if attrs:
            node["attrs"] = {key: str(value) for key, value in attrs.items()}
        self._new.append(node)
        return [len(self._new) - 1, 0, 0]

    def put(self, index, entry):
        self._at[index] = entry[0]

    def skip(self, index):
        self._at[index] = None

    def keep(self, index) -> list[int]:
        node = self.nodes[index]
        self._new.append({**node, "inputs": self.inputs(node)})
        self._at[index] = len(self._new) - 1
        return [self._at[index], 0, 0]

    def symbol(self) -> mx.sym.Symbol:
        variables = [i for i, node in enumerate(self._new) if node["op"] == "null"]
        heads = [[self._at[head[0]], head[1], 0] for head in self._described["heads"]]
        return mx.sym.load_json(json.dumps({"nodes": self._new, "arg_nodes": variables, "heads": heads,
                                            "attrs": self._described.get("attrs", {})}))

    def guard(self, name, entry) -> list[int]:
        """Does nothing, outside oneDNN."""
        return self.emit("slice_axis", name + "_plain", {"axis": 0, "begin": 0, "end": None}, [entry])

    def relu6(self, name, norm, guarded) -> list[int]:
        """relu6 of a BatchNorm, made of the BatchNorm's inputs."""
        data, gamma, beta, *statistics = self.inputs(norm)
        channels = self._shape(norm["inputs"][2][0])[0]
        gamma = self.emit("negative", name + "_gamma", None, [gamma])
        beta = self.emit("_rminus_scalar", name + "_beta", {"scalar": "6"}, [beta])
        below = self.emit("BatchNorm", norm["name"], norm.get("attrs"), [data, gamma, beta, *statistics])
        below = self.emit("Activation", name + "_below", {"act_type": "relu"}, [below])
        constants = [self._constant(what, channels, value) for what, value in (
            ("gamma", -1.0), ("beta", 6.0), ("mean", 0.0), ("var", 1.0 - _EPSILON))]
        result = self.emit("BatchNorm", name + "_turned", {"eps": _EPSILON, "fix_gamma": False, "axis": 1,
                                                           "use_global_stats": True}, [below, *constants])
        result = self.emit("Activation", name, {"act_type": "relu"}, [result])
        return self.guard(name, result) if guarded else result

    def _constant(self, what, channels, value):
        name = f"{_PREFIX}{what}_{channels}"
        if name not in self.constants:
            self.constants[name] = np.full(channels, value, np.float32)
            self.put(name, self.emit("null", name, {"__shape__": f"({channels},)"}, []))
        return [self._at[name], 0, 0]

    def foldable(self, clip) -> bool:
        """Whether a clip stands behind a BatchNorm over channels that nothing else uses."""
        index = clip["inputs"][0][0]
        norm = self.nodes[index]
        attrs = norm.get("attrs", {})
        return (norm["op"] == "BatchNorm" and attrs.get("fix_gamma", "True") in ("False", "0")
                and attrs.get("axis", "1") == "1" and attrs.get("output_mean_var", "False") in ("False", "0")
                and self._users[index] == [self.nodes.index(clip)] and index not in self._heads
                and bool(self._shape(norm["inputs"][2][0])))

    def layouts_differ(self, index) -> bool:
        """Whether a BatchNorm's data and gradient come in different blocked layouts."""
        before = self._behind(index)
        after = self._ahead(index)
        return before is not None and bool(after - {before})

    def beside_clip(self, index) -> bool:
        """Whether the activation before this node is a relu6."""
        return any(_is_relu6(self.nodes[entry[0]]) for entry in self.nodes[index]["inputs"])

    def _behind(self, index):
        while self.nodes[index]["op"] in _THROUGH:
            index = self.nodes[index]["inputs"][0][0]
        return self._block(index) if self.nodes[index]["op"] == "Convolution" else None

    def _ahead(self, index, depth=4) -> set[int]:
        found = set()
        for user in self._users.get(index, []):
            op = self.nodes[user]["op"]
            if op == "Convolution":
                found.add(self._block(user))
            elif op in _THROUGH and depth:
                found |= self._ahead(user, depth - 1)
        return found - {None}

    def _block(self, index):
        """Channels in a block of the layout that oneDNN chooses for a float32 convolution on AVX-512 (2.4.4)."""
        node = self.nodes[index]
        weight = self._shape(node["inputs"][1][0])
        if len(weight) != 4:
            return None
        filters, inputs = int(node["attrs"]["num_filter"]), weight[1]
        if _groups(node) > 1:
            return 16 if filters % 16 == 0 else 8
        if ast.literal_eval(node["attrs"]["kernel"]) != (1, 1):
            return 16 if filters % 16 == 0 else 8
        return 16 if filters % 16 == 0 and inputs % 16 == 0 else 8

    def _shape(self, index) -> tuple:
        shape = tuple(self._shapes.get(self.nodes[index]["name"]) or ())
        return shape if 0 not in shape and -1 not in shape else ()


def _small_maps(symbol, data_shape) -> list[str]:
    """Names of the 1x1 convolutions whose results have 17 to 48 positions."""
    inner = symbol.get_internals()
    _, found, _ = inner.infer_shape(data=data_shape)
    shapes = dict(zip(inner.list_outputs(), found))
    return [node["name"] for node in json.loads(symbol.tojson())["nodes"] if node["op"] == "Convolution"
            and set(ast.literal_eval(node["attrs"]["kernel"])) == {1}
            and 17 <= math.prod(shapes[node["name"] + "_output"][2:]) <= 48]


def _is_relu6(node) -> bool:
    return node["op"] == "clip" and float(node["attrs"]["a_min"]) == 0 and float(node["attrs"]["a_max"]) == 6


def _groups(node) -> int:
    return int(node["attrs"].get("num_group", "1"))
