"""Where a network can be cut: behind the longest part that is frozen, deterministic and ends in one tensor."""
from __future__ import annotations

import re
from dataclasses import dataclass

import mxnet as mx
from mxnet.gluon import Block, HybridBlock, SymbolBlock

from gluon_ft.errors import NetworkError
from gluon_ft.models import registry, tracing
from gluon_ft.models.graph import DATA, Entry, Node
from gluon_ft.runtime.gluon_internals import cached_symbol, parameters_by_path, without_children
from gluon_ft.training.feature_cache import subgraph
from gluon_ft.training.feature_cache.subgraph import NetworkGraph

_BATCHNORM = ("BatchNorm", "BatchNorm_v1", "_contrib_SyncBatchNorm", "_contrib_BatchNormWithReLU", "_npx_batch_norm")
_RANDOM = re.compile(r"random|shuffle|dropout|^_?sample_|_sample$|^custom$|^_npi_custom$|^_customfunction$|^_npi_("
                     r"bernoulli|choice|exponential|gamma|gumbel|logistic|multinomial|normal|normal_n|pareto|"
                     r"rayleigh|uniform|uniform_n|weibull)$|^(normal|uniform)$", re.IGNORECASE)


@dataclass(frozen=True)
class Cut:
    """A network in two parts: `suffix(prefix(x))` is what the network makes of x.

    prefix : HybridBlock, what is frozen and deterministic; suffix : `Suffix`, the rest, to be trained. Both use the
    network's own parameters. shape : of the tensor between them, for one image, None where it depends on an input
    size that is not known. where : the tensor's place ('features.12'). next : what follows and why it is not in the
    prefix ('output.weight is trained'). graph, entry : the network's graph and the tensor in it.
    """

    prefix: HybridBlock
    suffix: Suffix
    shape: tuple[int, ...] | None
    where: str
    next: str
    graph: NetworkGraph
    entry: Entry

    def fingerprint(self) -> str:
        """SHA-256 of the prefix as it is now: its operators, their settings, and the values of its parameters."""
        return subgraph.fingerprint(self.graph, self.entry)

    def shape_for(self, image: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the tensor between the parts for one image of shape (channels, height, width)."""
        return _shape(self.prefix, (1, *image))[1:]


class Suffix(SymbolBlock):
    """The part of a network behind a cut.

    It is trained in the network's place, on features: `collect_params` gives what it uses, which are the network's
    own Parameters; `save_parameters` and `load_parameters` write and read the whole network, with its names.
    """

    def __init__(self, graph: NetworkGraph, entry: Entry, net: Block):
        super().__init__(graph.part(graph.head, entry), subgraph.input_variable(graph), params=graph.parameters)
        # In a function, for a block that is an attribute would become a part of this one.
        self._whole = lambda: net
        output = tracing.output_layer(net).block
        if output.weight.name in self.params:
            # So that `tracing.output_layer` finds it, and labels are compared with its classes.
            self.register_child(output, "output")

    @property
    def whole(self) -> Block:
        """The network that this is a part of."""
        return self._whole()

    def hybridize(self, active: bool = True, **kwargs) -> None:
        # Not the output layer itself, which is the network's.
        with without_children(self):
            super().hybridize(active, **kwargs)

    def _collect_params_with_prefix(self, prefix=""):
        return parameters_by_path(self.whole, prefix)


def cut(net: Block, input_shape: tuple[int, ...] | None = None) -> Cut | None:
    """Cuts a network behind the longest part that gives the same for an image however often it is asked.

    That part has no parameter with a gradient (`grad_req` is 'null' in all of them), no BatchNorm that follows the
    batches, no Dropout and nothing else random, and it ends in one tensor through which everything passes. Found on
    the traced graph, so that neither the names nor the kinds of the blocks matter.

    Parameters
    ----------
    net : HybridBlock
        Initialised, and frozen as it will be trained; cut it again after a change of what is frozen.
    input_shape : (batch, channels, height, width), default what the registry says of the network; for `shape` only

    Returns
    -------
    Cut, or None where there is no such part with weights, or nothing is left behind it: see `obstacle`.

    Raises
    ------
    NetworkError
        For a network that cannot be traced, or has several results.
    """
    graph = subgraph.trace(net)
    fixed = _fixed(graph)
    entry = _last_passage(graph, fixed)
    if entry is None or not _has_weights(graph, entry):
        return None
    suffix = Suffix(graph, entry, net)
    if all(parameter.grad_req == "null" for parameter in suffix.collect_params().values()):
        return None
    suffix.hybridize()
    prefix = subgraph.before(graph, entry)
    prefix.hybridize()
    known = registry.of(net)
    if input_shape is None and known is not None:
        input_shape = registry.input_shape(known.name)
    return Cut(prefix, suffix, _shape(prefix, input_shape)[1:] if input_shape else None, graph.place(entry[0]),
               _reason(graph, fixed), graph, entry)


def obstacle(net: Block) -> str:
    """Why a network has no part to cut off: the first thing in it that is trained or random."""
    graph = subgraph.trace(net)
    return _reason(graph, _fixed(graph)) or "everything is frozen, nothing is left to train"


def _fixed(graph: NetworkGraph) -> set[int]:
    """Indices of the nodes whose result is the same in every step of training."""
    found: set[int] = set()
    for node in graph.nodes:
        if _why_not(graph, node) is None and all(index in found for index in node.inputs):
            found.add(node.index)
    return found


def _from_input(graph: NetworkGraph) -> set[int]:
    """Indices of the nodes whose result depends on the input."""
    found: set[int] = set()
    for node in graph.nodes:
        if (node.op == "null" and node.name == DATA) or any(index in found for index in node.inputs):
            found.add(node.index)
    return found


def _why_not(graph: NetworkGraph, node: Node) -> str | None:
    """What makes a node differ from step to step by itself, None for nothing."""
    if node.op == "null":
        trained = node.name in graph.parameters and graph.parameters[node.name].grad_req != "null"
        return f"{node.name} is trained" if trained else None
    if node.op == "Dropout" and float(node.attrs.get("p", 0.5)) == 0:
        return None
    if _RANDOM.search(node.op) or node.attrs.get("act_type") == "rrelu" or "subgraphs" in node.json or (
            node.op == "RNN" and float(node.attrs.get("p", 0)) > 0):
        return f"{node.name} ({node.op}) is random, or not known to be otherwise"
    held = node.op in _BATCHNORM and node.is_on("use_global_stats", default=False)
    if not held and any(graph.nodes[index].name in graph.auxiliary for index in node.inputs):
        return f"{node.name} ({node.op}) follows the batches"
    return None


def _last_passage(graph: NetworkGraph, fixed: set[int]) -> Entry | None:
    """The last fixed entry through which everything passes on its way from the input to the result.

    Such an entry is alone at its place in the order: whatever comes from the input and is still needed later is that
    entry. (Everything that comes from the input either leads to it or follows it, and orders keep that.)
    """
    from_data = _from_input(graph)
    last_use = {graph.head: len(graph.nodes)}
    for node in graph.nodes:
        for entry in node.entries:
            if entry[0] in from_data:
                last_use[entry] = max(last_use.get(entry, 0), node.index)
    alive: set[Entry] = set()
    passage = None
    for index in sorted(from_data):
        alive = {entry for entry in alive if last_use[entry] > index}
        alive |= {entry for entry in last_use if entry[0] == index}
        if len(alive) == 1:
            (entry,) = alive
            if entry == graph.head:
                break
            if entry[0] in fixed:
                passage = entry
    return passage


def _has_weights(graph: NetworkGraph, entry: Entry) -> bool:
    """Whether anything is computed up to there that is worth keeping: a weight of two dimensions or more."""
    names = (graph.nodes[index].name for index in graph.ancestors(entry))
    return any(name in graph.parameters and len(graph.parameters[name].shape or ()) > 1 for name in names)


def _reason(graph: NetworkGraph, fixed: set[int]) -> str:
    """What the first node that is not fixed is, by its place in the network; '' where all are."""
    for node in graph.nodes:
        why_not = _why_not(graph, node)
        if node.index not in fixed and why_not:
            return why_not.replace(node.name, graph.place(node.index), 1)
    return ""


def _shape(block: HybridBlock, input_shape: tuple[int, ...]) -> tuple[int, ...]:
    known = {p.name: tuple(p.shape) for p in block.collect_params().values() if p.shape and 0 not in p.shape}
    try:
        return tuple(cached_symbol(block).infer_shape(**{DATA: tuple(input_shape)}, **known)[1][0])
    except mx.MXNetError as error:
        raise NetworkError(f"images of shape {tuple(input_shape)[1:]} do not fit the network") from error
