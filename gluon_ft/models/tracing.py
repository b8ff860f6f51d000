"""What a hybrid network looks like from outside: its output layers, its parts in order of execution, its shapes.

Everything is found by passing a symbol through the network, so neither names nor attributes nor the order in which
blocks were registered matter, and nothing is computed or initialised.
"""
from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass

import mxnet as mx
from mxnet.gluon import Block, HybridBlock, SymbolBlock

from gluon_ft.errors import NetworkError
from gluon_ft.models.graph import DATA, KEEP_CLASSES, Graph
from gluon_ft.runtime import gluon_internals

# Besides `KEEP_CLASSES`, what Gluon's networks have behind their output.
_PASS_THROUGH = KEEP_CLASSES | {"sigmoid", "SliceChannel", "slice_axis", "transpose"}
_WEIGHTED = {"FullyConnected", "Convolution"}
_symbols: ContextVar[dict[int, tuple[Block, mx.sym.Symbol]] | None] = ContextVar("symbols", default=None)


@dataclass(frozen=True)
class OutputLayer:
    """The layer whose units or channels are the classes.

    block: the Dense or convolution itself; path: its place, such as 'output' or 'output.0'; parents: every
    (block, key) that holds it.
    """

    block: HybridBlock
    path: str
    parents: tuple[tuple[Block, str], ...]

    @property
    def classes(self) -> int:
        """Number of units or channels."""
        return self.block.weight.shape[0]


@dataclass(frozen=True)
class Part:
    """One step of the network: its path, block, and output shape for the given input (None where unknown)."""

    path: str
    block: Block
    shape: tuple[int, ...] | None


def blocks(net: Block, path: str = "") -> Iterator[tuple[str, Block]]:
    """Yields (path, block) of the network and everything in it, depth first; '' is the network itself."""
    yield path, net
    for key, child in gluon_internals.children(net).items():
        yield from blocks(child, f"{path}.{key}" if path else key)


def forget_graphs(net: Block) -> None:
    """Drops the cached graphs of a block, of everything in it, and of the hybridised networks that it is part of.

    Without it they would go on running as they were before a change. It looks at every living object: call it once
    for a network, not once for each of its layers.
    """
    inside = {id(block) for _, block in blocks(net)}
    # Blocks do not know their parents, and a network that has run holds its children's graph: look for it among all
    # living objects (about 0.1 s), rather than let `freeze(net.features)` silently have no effect.
    for candidate in gc.get_objects():
        if issubclass(type(candidate), HybridBlock) and gluon_internals.has_cached_graph(candidate) and any(
                id(block) in inside for _, block in blocks(candidate)):
            gluon_internals.clear_cached_graph(candidate)


def refuse_numpy_interface() -> None:
    """NetworkError after `npx.set_np()`: networks then run on mx.np arrays alone, and ours are fed with mx.nd."""
    if mx.util.is_np_array():
        raise NetworkError("MXNet's NumPy interface is on", expected="classic arrays, mx.nd", found="npx.set_np()",
                           remedy="leave npx.set_np() out, or call npx.reset_np() before the network is made")


def symbol(net: Block) -> mx.sym.Symbol:
    """The network's graph on an input named 'data'. NetworkError where it cannot be traced."""
    refuse_numpy_interface()
    if isinstance(net, HybridBlock):
        try:
            result = net(mx.sym.var(DATA))
        except (AttributeError, TypeError, ValueError, NotImplementedError, mx.MXNetError) as error:
            raise NetworkError(f"{type(net).__name__} cannot be traced symbolically ({error})",
                               remedy="make it a HybridBlock whose forward uses only its F argument") from error
        return mx.sym.Group(list(result)) if isinstance(result, (list, tuple)) else result
    raise NetworkError(f"{type(net).__name__} is not a HybridBlock", expected="a network that can be hybridised",
                       remedy="derive it from HybridBlock, or build it with HybridSequential")


@contextlib.contextmanager
def unchanged() -> Iterator[None]:
    """Inside of it no network is changed: each is traced once for all that is asked about its output."""
    token = _symbols.set({})
    try:
        yield
    finally:
        _symbols.reset(token)


def result(net: Block) -> mx.sym.Symbol:
    """As `symbol`, which inside of `unchanged` is not made again."""
    known = _symbols.get()
    if known is None:
        return symbol(net)
    if id(net) not in known:
        known[id(net)] = net, symbol(net)  # the network too, so that no other one gets its id
    return known[id(net)][1]


def output_layer(net: Block) -> OutputLayer:
    """The layer that produces the classes, found by walking back from the network's result.

    Raises NetworkError, naming the candidates, where there are several results (auxiliary heads), where the layer
    is inside a SymbolBlock, or where no Dense or convolution leads to the result.
    """
    graph = result(net)
    if len(graph.list_outputs()) != 1:
        raise NetworkError(f"{type(net).__name__} has {len(graph.list_outputs())} results", expected="one",
                           found=", ".join(graph.list_outputs()),
                           remedy="build it without its auxiliary heads (use_aux=False, aux_logits=False)")
    weight = _last_weight(graph)
    places = [(path, block) for path, block in blocks(net) if _owns_weight(block, weight)]
    if not places:
        raise NetworkError(f"the output of {type(net).__name__} was not found", expected=
                           "a Dense or a convolution that leads to the result through pooling, reshaping or "
                           "activations only", found=_candidates(net),
                           remedy=_remedy(net))
    path, block = places[0]
    return OutputLayer(block, path, _parents(net, block))


def output_at(net: Block, path: str) -> OutputLayer:
    """The layer at a given path; NetworkError with the candidates where it is not a Dense or a convolution."""
    found = dict(blocks(net)).get(path)
    if found is None or not _is_layer(found):
        raise NetworkError(f"no Dense or convolution at '{path}' in {type(net).__name__}", found=_candidates(net))
    return OutputLayer(found, path, _parents(net, found))


def parts(net: Block, input_shape: tuple[int, ...]) -> list[Part]:
    """The network's top-level steps in order of execution, `features` opened up, with output shapes.

    input_shape : (batch, channels, height, width), or whatever the network takes.
    """
    flow = list(_flow(net))
    outputs: dict[str, mx.sym.Symbol] = {}
    hooks = [block.register_forward_hook(_recorder(outputs, path)) for path, block in flow]
    try:
        symbol(net)
    finally:
        for hook in hooks:
            hook.detach()
    block_at = dict(flow)
    return [Part(path, block_at[path], _shape(out, input_shape)) for path, out in outputs.items()]


def _flow(net: Block, path: str = "") -> Iterator[tuple[str, Block]]:
    for key, child in gluon_internals.children(net).items():
        where = f"{path}.{key}" if path else key
        if key == "features" and gluon_internals.children(child):
            yield from _flow(child, where)
        else:
            yield where, child


def _recorder(outputs: dict[str, mx.sym.Symbol], path: str) -> Callable[..., None]:
    def hook(_block, _inputs, out):
        # A block that runs twice is placed where it ran last.
        outputs.pop(path, None)
        outputs[path] = out[0] if isinstance(out, (list, tuple)) else out
    return hook


def _shape(out, input_shape):
    _, shapes, _ = out.infer_shape_partial(data=input_shape)
    return tuple(shapes[0]) if shapes and shapes[0] else None


def _last_weight(symbol: mx.sym.Symbol) -> str | None:
    """Name of the weight of the weighted operator nearest to the result, None where something else stands between."""
    graph = Graph(symbol)
    node, _ = graph.behind(graph.nodes[graph.heads[0][0]], lambda passed: passed.op in _PASS_THROUGH)
    return graph.nodes[node.inputs[1]].name if node.op in _WEIGHTED else None


def _is_layer(block: Block) -> bool:
    return not isinstance(block, SymbolBlock) and hasattr(block, "weight") and (
        gluon_internals.is_dense_or_convolution(block))


def _owns_weight(block: Block, name: str | None) -> bool:
    return name is not None and _is_layer(block) and block.weight.name == name


def _parents(net, block):
    return tuple((parent, key) for _, parent in blocks(net)
                 for key, child in gluon_internals.children(parent).items() if child is block)


def _remedy(net) -> str:
    if any(isinstance(block, SymbolBlock) for _, block in blocks(net)):
        return ("put a new output on its symbol: gluon_ft.symbolic.fine_tune_block(*gluon_ft.symbolic.to_symbol(net), "
                "classes, None)")
    return "give the layer that makes the classes by its path: output='...'"


def _candidates(net) -> str:
    layers = [f"{path or type(block).__name__} ({type(block).__name__} {block.weight.shape})"
              for path, block in blocks(net) if _is_layer(block)]
    if any(isinstance(block, SymbolBlock) for _, block in blocks(net)):
        layers.append("a SymbolBlock, whose layers cannot be exchanged one by one")
    return ", ".join(layers[-4:]) or "no Dense and no convolution"
