"""Converts a network's graph into ONNX: static shapes but for the batch, BatchNorms folded into convolutions.

MXNet's own exporter (`mxnet.onnx`) needs an `onnx` before 1.19, lists the parameters among the graph's inputs, where
ONNX Runtime folds nothing into them, and knows no computed weights. The operators are in `onnx_operators`; a graph that
uses others has no ONNX form, and the error names the operator and the layer.
"""
from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import mxnet as mx
import numpy as np

from gluon_ft.errors import NetworkError
from gluon_ft.models.graph import BATCHNORM, DATA, Entry, Graph, Node, to_symbol

if TYPE_CHECKING:
    import onnx

# Taken by ONNX Runtime since 1.15, OpenVINO since 2023.1 and TensorRT since 8.6.
OPSET, IR_VERSION = 17, 8
OUTPUT = "output"

Values = Mapping[str, np.ndarray]  # parameters by name
_Compute = Callable[[Values], np.ndarray]
_BATCHES = (2, 3)  # shapes are inferred for both: an extent that differs depends on the batch


class OnnxGraph:
    """A symbol in ONNX, whose weights are filled in by `model`, as often as they change (`onnx_operators.convert`).

    Parameters
    ----------
    symbol : mx.sym.Symbol
        With the input 'data' and one result. Only what the result is in evaluation counts: dropout does nothing,
        BatchNorm goes by its running statistics.
    input_shape : tuple of int
        Of a batch, (n, channels, height, width); n does not count.
    shapes : mapping of str to tuple
        Of the parameters.
    operators : mapping of str to callable(OnnxGraph, Node, inputs)
        Name of MXNet's operator -> what adds its ONNX nodes, and returns the name or names of the results.

    Attributes
    ----------
    result : (name, shape)
        Of the result; the shape is of one image's part.

    Raises
    ------
    NetworkError
        An operator, or one of its settings, has no ONNX form here.
    """

    def __init__(self, symbol: mx.sym.Symbol, input_shape: Sequence[int], shapes: Mapping[str, Sequence[int]],
                 operators: Mapping[str, Callable]):
        self.graph = Graph(symbol)
        if len(self.graph.heads) != 1:
            raise NetworkError(f"the network has {len(self.graph.heads)} results", expected="one")
        self.input_shape = tuple(input_shape)[1:]
        self._users = self.graph.users()
        self._shapes = [_inferred(self.graph, (batch, *self.input_shape), shapes) for batch in _BATCHES]
        self._taken = {DATA, OUTPUT}
        self._nodes: list[onnx.NodeProto] = []
        self._computed: dict[str, _Compute] = {}  # initialisers
        self._names: dict[Entry, str] = {}
        self._constants = self._find_constants()
        self._folded = self._find_folded()
        for node in self.graph.nodes:
            self._convert(node, operators)
        head = self.graph.heads[0]
        self.result = (self._names[head], self.shape(head)[1:])

    def model(self, values: Values) -> onnx.ModelProto:
        """The ONNX model with these parameters.

        Parameters
        ----------
        values : mapping of str to float32 array
            The parameters and running statistics, by name.
        """
        from onnx import TensorProto, helper, numpy_helper

        name, shape = self.result
        nodes = [*self._nodes, helper.make_node("Identity", [name], [OUTPUT])]
        used = {given for node in nodes for given in node.input}
        initialisers = [numpy_helper.from_array(np.ascontiguousarray(compute(values)), given)
                        for given, compute in self._computed.items() if given in used]
        graph = helper.make_graph(
            nodes, "gluon_ft", [helper.make_tensor_value_info(DATA, TensorProto.FLOAT, ["n", *self.input_shape])],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["n", *shape])], initialisers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="gluon_ft")
        model.ir_version = IR_VERSION
        return model

    # What the operators use.

    def shape(self, entry: Entry) -> tuple[int, ...]:
        """Of a result, for the smaller of the two batches."""
        return self._shapes[0][entry]

    def target(self, entry: Entry) -> list[int]:
        """Of a result, for ONNX's Reshape: -1 where the extent depends on the batch."""
        return [a if a == b else -1 for a, b in zip(*(shapes[entry] for shapes in self._shapes))]

    def emit(self, op: str, inputs: Sequence[str], name: str, outputs: int = 1, **attributes: Any) -> str:
        """Adds a node; the name of its (first) result.

        Parameters
        ----------
        op : str
            ONNX operator.
        inputs : sequence of str
            Names of results, parameters and constants.
        name : str
            Of the node, and of its first result; a number is added where it is taken.
        outputs : int, default 1
            The others are called `<name>:1`, ...
        **attributes
            Of the operator.
        """
        from onnx import helper

        unique = self._unique(name)
        results = [unique, *(f"{unique}:{i}" for i in range(1, outputs))]
        self._nodes.append(helper.make_node(op, list(inputs), results, name=unique, **attributes))
        return unique

    def _unique(self, name: str) -> str:
        unique, number = name, 1
        while unique in self._taken:
            number += 1
            unique = f"{name}_{number}"
        self._taken.add(unique)
        return unique

    def constant(self, name: str, value: Any, dtype: Any = np.float32) -> str:
        """Adds a constant; its name.

        Parameters
        ----------
        name : str
            A number is added where it is taken.
        value : array-like
        dtype : default float32
        """
        array = np.asarray(value, dtype)
        return self.computed(name, lambda _: array)

    def computed(self, name: str, compute: _Compute) -> str:
        """Adds what is computed from the parameters when the model is made; its name."""
        unique = self._unique(name)
        self._computed[unique] = compute
        return unique

    def value(self, entry: Entry) -> _Compute | None:
        """What computes an entry that does not depend on the input; None for others."""
        return self._constants.get(entry)

    def norm_behind(self, node: Node) -> Node | None:
        """The BatchNorm that is folded into this convolution or dense layer, if one is."""
        return self._folded.get(node.index)

    def refuse(self, node: Node, what: str) -> NetworkError:
        """The error for a node that has no ONNX form here."""
        return NetworkError(f"{what} has no ONNX form", found=f"{node.op} '{node.name}'",
                            expected="the operators of gluon_ft's backbones", remedy="use the network with MXNet")

    # How it is made.

    def _find_constants(self) -> dict[Entry, _Compute]:
        """What does not depend on the input: parameters, and what is computed from them alone, by MXNet."""
        found: dict[Entry, _Compute] = {}
        fixed: set[int] = set()
        for node in self.graph.nodes:
            if node.op == "null":
                if node.name == DATA:
                    continue
                fixed.add(node.index)
                found[(node.index, 0)] = _lookup(node.name)
            elif all(index in fixed for index in node.inputs) and (node.op not in BATCHNORM):
                fixed.add(node.index)
                found[(node.index, 0)] = _evaluation(self.graph.part((node.index, 0)))
        return found

    def _find_folded(self) -> dict[int, Node]:
        found, heads = {}, {index for index, _ in self.graph.heads}
        for node in self.graph.nodes:
            if node.op in BATCHNORM and node.attrs.get("axis", "1") == "1":
                before = self.graph.nodes[node.inputs[0]]
                alone = self._users[before.index] == [node.index] and before.index not in heads
                if before.op in ("Convolution", "FullyConnected") and alone and all(
                        entry in self._constants for entry in (*before.entries[1:], *node.entries[1:])):
                    found[before.index] = node
        return found

    def _convert(self, node: Node, operators: Mapping[str, Callable]) -> None:
        first = (node.index, 0)
        if node.op == "null" and node.name == DATA:
            self._names[first] = DATA
        elif first in self._constants:
            # Added on first use: most are folded into others.
            pass
        elif node.op in BATCHNORM and node in self._folded.values():
            self._names[first] = self._names[node.entries[0]]
        elif node.op not in operators:
            raise self.refuse(node, f"operator {node.op}")
        else:
            results = operators[node.op](self, node, _Inputs(self, node))
            for output, name in enumerate([results] if isinstance(results, str) else results):
                self._names[node.index, output] = name

    def _name_of(self, entry: Entry) -> str:
        if entry not in self._names:
            if entry not in self._constants:
                raise self.refuse(self.graph.nodes[entry[0]], f"result {entry[1]} of {self.graph.nodes[entry[0]].op}")
            self._names[entry] = self.computed(self.graph.nodes[entry[0]].name, self._constants[entry])
        return self._names[entry]


class _Inputs(Sequence):
    """The names of a node's inputs; constants become initialisers when they are asked for."""

    def __init__(self, graph: OnnxGraph, node: Node):
        self._graph, self._node = graph, node

    def __len__(self) -> int:
        return len(self._node.entries)

    def __getitem__(self, position):
        if isinstance(position, slice):
            return [self[i] for i in range(*position.indices(len(self)))]
        return self._graph._name_of(self._node.entries[position])


def numbers(node: Node, setting: str, default: Any = None) -> Any:
    """A node's setting as Python's literal: a number, a tuple, True, None; text where it is none.

    Parameters
    ----------
    node : Node
    setting : str
    default
        Where it is missing.
    """
    text = node.attrs.get(setting)
    if text is None:
        return default
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _lookup(name: str) -> _Compute:
    return lambda values: np.asarray(values[name], np.float32)


def _evaluation(symbol: mx.sym.Symbol) -> _Compute:
    names = symbol.list_inputs()

    def compute(values: Values) -> np.ndarray:
        with mx.autograd.pause():
            given = {name: mx.nd.array(values[name]) for name in names}
            return symbol.eval(ctx=mx.cpu(), **given)[0].asnumpy()

    return compute


def _inferred(graph: Graph, data: tuple[int, ...],
              shapes: Mapping[str, Sequence[int]]) -> dict[Entry, tuple[int, ...]]:
    """The shape of every visible result of every node."""
    # Under names that say which node a result is of.
    nodes = [{**node.json, "name": f"n{node.index}"} for node in graph.nodes]
    inner = to_symbol(nodes, [[*head, 0] for head in graph.heads], graph.attributes).get_internals()
    given = {f"n{node.index}": tuple(data if node.name == DATA else shapes[node.name]) for node in graph.nodes
             if node.op == "null" and (node.name == DATA or node.name in shapes)}
    _, found, _ = inner.infer_shape(**given)
    if found is None:
        raise NetworkError("the shapes of the network's layers cannot be inferred", found=f"input {data}")
    inferred: dict[Entry, tuple[int, ...]] = {}
    counts: Counter[int] = Counter()
    for name, shape in zip(inner.list_outputs(), found):
        index = int(name[1:].partition("_")[0])
        inferred[index, counts[index]] = tuple(shape)
        counts[index] += 1
    return inferred
