"""A network's traced graph taken apart at one tensor: what leads to it, and what follows it."""
from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import mxnet as mx
import numpy as np
from mxnet.gluon import Block, SymbolBlock

from gluon_ft.errors import NetworkError
from gluon_ft.models import tracing

DATA = "data"  # name of the input variable, both of a network and of what follows the cut
Entry = tuple  # (index of a node, which of its outputs)


@dataclass(frozen=True)
class Graph:
    """A network's graph.

    nodes : as in MXNet's JSON, in order of execution; head : the entry that is the result; auxiliary : names of the
    running statistics; parameters : the network's Gluon parameters by name; places : name of a node -> path in the
    network, of a parameter, or of the outermost block whose result it makes; attributes : of the JSON itself.
    """

    nodes: list[dict]
    head: Entry
    auxiliary: frozenset
    parameters: object
    places: dict[str, str]
    attributes: dict

    def name(self, index: int) -> str:
        """Of a node."""
        return self.nodes[index]["name"]

    def inputs(self, index: int) -> list[Entry]:
        """The entries that a node takes."""
        return [(entry[0], entry[1]) for entry in self.nodes[index]["inputs"]]


def trace(net: Block) -> Graph:
    """The graph of a network with one result. NetworkError where it cannot be traced, or has several results."""
    places = {parameter.name: path for path, parameter in net._collect_params_with_prefix().items()}
    hooks = [block.register_forward_hook(_recorder(places, path)) for path, block in tracing.blocks(net) if path]
    try:
        symbol = tracing.symbol(net)
    finally:
        for hook in hooks:
            hook.detach()
    if len(symbol.list_outputs()) != 1:
        raise NetworkError(f"{type(net).__name__} has {len(symbol.list_outputs())} results", expected="one",
                           remedy="build it without its auxiliary heads (use_aux=False, aux_logits=False)")
    described = json.loads(symbol.tojson())
    return Graph(described["nodes"], tuple(described["heads"][0][:2]), frozenset(symbol.list_auxiliary_states()),
                 net.collect_params(), places, described.get("attrs", {}))


def _recorder(places, path):
    def hook(_block, _inputs, out):
        # A block's hook runs after those of the blocks in it, so that the outermost one stays.
        if isinstance(out, mx.sym.Symbol) and len(out.list_outputs()) == 1:
            places[out.name] = path
    return hook


def before(graph: Graph, entry: Entry) -> SymbolBlock:
    """What leads from the input to `entry`, as a block that shares the network's parameters."""
    return SymbolBlock(part(graph, entry), input_variable(graph), params=graph.parameters)


def input_variable(graph: Graph) -> mx.sym.Symbol:
    """The input 'data', of the type of the network's weights (those of BatchNorm stay float32 in all networks)."""
    types = {str(np.dtype(parameter.dtype)) for parameter in graph.parameters.values()}
    return mx.sym.var(DATA, dtype=next((kind for kind in sorted(types) if kind != "float32"), "float32"))


def part(graph: Graph, end: Entry, begin: Entry | None = None) -> mx.sym.Symbol:
    """The symbol that makes `end` from the input, or from a variable named 'data' that stands for `begin`."""
    nodes, place = [], {}
    if begin is not None:
        nodes.append({"op": "null", "name": DATA, "inputs": []})

    def moved(entry):
        return [0, 0, 0] if entry == begin else [place[entry[0]], entry[1], 0]

    for index in ancestors(graph, end, begin):
        place[index] = len(nodes)
        nodes.append({**graph.nodes[index], "inputs": [moved(entry) for entry in graph.inputs(index)]})
    described = {"nodes": nodes, "arg_nodes": [i for i, node in enumerate(nodes) if node["op"] == "null"],
                 "heads": [moved(end)], "attrs": graph.attributes}
    return mx.sym.load_json(json.dumps(described))


def ancestors(graph: Graph, end: Entry, begin: Entry | None = None) -> list[int]:
    """Indices of the nodes that `end` needs, its own included, in order of execution; none beyond `begin`."""
    found, waiting = set(), [] if end == begin else [end[0]]
    while waiting:
        index = waiting.pop()
        if index not in found:
            found.add(index)
            waiting += [entry[0] for entry in graph.inputs(index) if entry != begin]
    return sorted(found)


def input_of(graph: Graph, weight: str) -> Entry:
    """The entry that the layer whose weight has this name takes."""
    for index in range(len(graph.nodes)):
        entries = graph.inputs(index)
        if any(graph.name(i) == weight for i, _ in entries[1:]):
            return entries[0]
    raise NetworkError(f"no layer uses {weight}")


def fingerprint(graph: Graph, end: Entry) -> str:
    """SHA-256 of the operators that lead to `end`, their settings and the values of their parameters.

    Names don't count, since Gluon numbers networks as they are built: two equal networks have equal fingerprints.
    """
    digest, place = hashlib.sha256(), {}
    for number, index in enumerate(ancestors(graph, end)):
        place[index] = number
        node = graph.nodes[index]
        settings = sorted((k, v) for k, v in node.get("attrs", {}).items() if not k.startswith("__"))
        inputs = [(place[i], out) for i, out in graph.inputs(index)]
        digest.update(repr((node["op"], settings if node["op"] != "null" else "", inputs)).encode())
        if node["op"] == "null" and node["name"] in graph.parameters:
            value = graph.parameters[node["name"]].list_data()[0].asnumpy()
            digest.update(repr((value.dtype.str, value.shape)).encode())
            digest.update(np.ascontiguousarray(value).tobytes())
    digest.update(repr(end[1]).encode())
    return digest.hexdigest()
