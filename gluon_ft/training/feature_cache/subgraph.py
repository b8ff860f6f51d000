"""A network's traced graph with its parameters: what leads to one tensor, as a block, and its fingerprint."""
from __future__ import annotations

import hashlib
from collections.abc import Callable

import mxnet as mx
import numpy as np
from mxnet.gluon import Block, SymbolBlock

from gluon_ft.errors import NetworkError
from gluon_ft.models import tracing
from gluon_ft.models.graph import DATA, Entry, Graph
from gluon_ft.runtime.gluon_internals import array_of, parameters_by_path


class NetworkGraph(Graph):
    """A network's graph, of one result.

    head : the entry that is the result; auxiliary : names of the running statistics; parameters : the network's Gluon
    parameters by name; places : name of a node -> path in the network, of a parameter, or of the outermost block whose
    result it makes.
    """

    def __init__(self, symbol: mx.sym.Symbol, parameters: mx.gluon.ParameterDict, places: dict[str, str]):
        super().__init__(symbol)
        self.head: Entry = self.heads[0]
        self.auxiliary = frozenset(symbol.list_auxiliary_states())
        self.parameters, self.places = parameters, places

    def place(self, index: int) -> str:
        """Where in the network a node's result is made; its own name where that is not known."""
        name = self.nodes[index].name
        return self.places.get(name, name)


def trace(net: Block) -> NetworkGraph:
    """The graph of a network with one result. NetworkError where it cannot be traced, or has several results."""
    places = {parameter.name: path for path, parameter in parameters_by_path(net).items()}
    hooks = [block.register_forward_hook(_recorder(places, path)) for path, block in tracing.blocks(net) if path]
    try:
        symbol = tracing.symbol(net)
    finally:
        for hook in hooks:
            hook.detach()
    if len(symbol.list_outputs()) != 1:
        raise NetworkError(f"{type(net).__name__} has {len(symbol.list_outputs())} results", expected="one",
                           remedy="build it without its auxiliary heads (use_aux=False, aux_logits=False)")
    return NetworkGraph(symbol, net.collect_params(), places)


def _recorder(places: dict[str, str], path: str) -> Callable[..., None]:
    def hook(_block, _inputs, out):
        # A block's hook runs after those of the blocks in it, so that the outermost one stays.
        if isinstance(out, mx.sym.Symbol) and len(out.list_outputs()) == 1:
            places[out.name] = path
    return hook


def before(graph: NetworkGraph, entry: Entry) -> SymbolBlock:
    """What leads from the input to `entry`, as a block that shares the network's parameters."""
    return SymbolBlock(graph.part(entry), input_variable(graph), params=graph.parameters)


def input_variable(graph: NetworkGraph) -> mx.sym.Symbol:
    """The input 'data', of the type of the network's weights (those of BatchNorm stay float32 in all networks)."""
    types = {str(np.dtype(parameter.dtype)) for parameter in graph.parameters.values()}
    return mx.sym.var(DATA, dtype=next((kind for kind in sorted(types) if kind != "float32"), "float32"))


def input_of(graph: NetworkGraph, weight: str) -> Entry:
    """The entry that the layer whose weight has this name takes. NetworkError where no layer has it."""
    for node in graph.nodes:
        if any(graph.nodes[index].name == weight for index in node.inputs[1:]):
            return node.entries[0]
    raise NetworkError(f"no layer uses {weight}")


# Settings of operators that count in training only: in evaluation BatchNorm takes its running statistics anyway.
_OF_TRAINING = frozenset({"use_global_stats", "momentum"})


def fingerprint(graph: NetworkGraph, end: Entry, training: bool = True) -> str:
    """SHA-256 of the operators that lead to `end`, their settings and the values of their parameters.

    Names don't count, since Gluon numbers networks as they are built: two equal networks have equal fingerprints.

    Parameters
    ----------
    graph : NetworkGraph
    end : Entry
    training : bool, default True
        False: a network whose BatchNorms were frozen has the fingerprint that it had before.
    """
    ignored = frozenset() if training else _OF_TRAINING
    digest, place = hashlib.sha256(), {}
    for number, index in enumerate(graph.ancestors(end)):
        place[index] = number
        node = graph.nodes[index]
        settings = sorted((k, v) for k, v in node.attrs.items() if not k.startswith("__") and k not in ignored)
        inputs = [(place[i], out) for i, out in node.entries]
        digest.update(repr((node.op, settings if node.op != "null" else "", inputs)).encode())
        if node.op == "null" and node.name in graph.parameters:
            value = array_of(graph.parameters[node.name])
            digest.update(repr((value.dtype.str, value.shape)).encode())
            digest.update(np.ascontiguousarray(value).tobytes())
    digest.update(repr(end[1]).encode())
    return digest.hexdigest()


def penultimate_fingerprint(net: Block, training: bool = True) -> str:
    """The fingerprint of what makes the features that a network's output layer takes, see `fingerprint`."""
    graph = trace(net)
    return fingerprint(graph, input_of(graph, tracing.output_layer(net).block.weight.name), training)
