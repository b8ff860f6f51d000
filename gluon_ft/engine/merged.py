"""Trains with each BatchNorm and the relu behind it as one operator, where a trial has given the same bits.

The two together take half of the memory traffic of one after the other, a fifth of a step of MobileNetV2. But the
gradient of MXNet 1.9.1's operator is wrong where the data and the gradient arrive in different layouts of oneDNN's, and
which ones these are depends on the processor and on every shape. So a graph with it is used only after one step on
copies of the parameters has given the same outputs, gradients and statistics as the graph without it, to the last bit.
"""
from __future__ import annotations

import hashlib
import math
from typing import Any

import mxnet as mx
import numpy as np
from mxnet.gluon import Block, ParameterDict, SymbolBlock

from gluon_ft.engine import blocks, rewrite
from gluon_ft.models import graph as graphs
from gluon_ft.models import tracing
from gluon_ft.runtime import devices
from gluon_ft.runtime.gluon_internals import clear_cached_graph, values_of

PATIENCE = 8  # batches of one shape before a trial, which takes as long as about three
WORTH_TRYING = 1 << 20  # numbers in a batch: 7 photos of 224 x 224
_Graph = tuple[mx.sym.Symbol, dict[str, np.ndarray]]
# What was tried: (graph, shape, what is trained) -> whether the results were the same.
_same: dict[tuple[str, tuple[int, ...], tuple[str, ...]], bool] = {}


def merged(net: Block, shape: tuple[int, ...]) -> SymbolBlock | None:
    """A block that trains on batches of this shape faster, to the same bits, on the network's own parameters.

    Parameters
    ----------
    net : HybridBlock
        Which can be traced, with initialised parameters, in float32 on one CPU.
    shape : tuple of int
        Of a batch.

    Returns
    -------
    SymbolBlock or None
        None where there is nothing to merge, or a trial gives other results.
    """
    symbol = tracing.symbol(net)
    known = blocks.shapes(net, symbol, shape)
    one, two = (rewrite.for_training(symbol, known, merge=merge) for merge in (True, False))
    if not rewrite.is_merged(one[0]) or graphs.draws(symbol, but="Dropout"):
        return None
    trained = tuple(sorted(name for name, parameter in net.collect_params().items() if parameter.grad_req != "null"))
    key = (hashlib.sha256(symbol.tojson().encode()).hexdigest(), shape, trained)
    if key not in _same:
        _same[key] = _gives_the_same(net, one, two, shape)
    return blocks.block(net, *one) if _same[key] else None


def is_worth_trying(net: Block, shape: tuple[int, ...]) -> bool:
    """Whether batches of this shape are large enough, and the network is on one CPU in float32."""
    return (math.prod(shape) >= WORTH_TRYING and [device.device_type for device in devices.of(net)] == ["cpu"]
            and all(np.dtype(parameter.dtype) == np.float32 for parameter in net.collect_params().values()))


def _gives_the_same(net: Block, one: _Graph, two: _Graph, shape: tuple[int, ...]) -> bool:
    try:
        found, expected = _step(net, one, shape), _step(net, two, shape)
    except mx.MXNetError:  # oneDNN has no such operator for some layouts
        return False
    return all(np.array_equal(found[name], expected[name]) for name in expected)


def _step(net: Block, graph: _Graph, shape: tuple[int, ...]) -> dict[str, Any]:
    """Outputs, gradients and statistics of a step on copies of the parameters; draws no random number of MXNet's."""
    symbol, constants = graph
    dropouts = {node.name: {"p": "0"} for node in graphs.nodes(symbol) if node.op == "Dropout"}
    block = blocks.block(net, graphs.with_attributes(symbol, dropouts), constants, _copies(net))
    draw = np.random.RandomState(0).uniform
    device = devices.of(net)[0]
    with mx.autograd.record():
        outputs = block(mx.nd.array(draw(-1, 1, shape), ctx=device))
        outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
    mx.autograd.backward(outputs, [mx.nd.array(draw(-1, 1, output.shape), ctx=device) for output in outputs])
    mx.nd.waitall()
    found = {f"output {number}": output.asnumpy() for number, output in enumerate(outputs)}
    for name, parameter in block.collect_params().items():
        array = values_of(parameter)[0] if parameter.grad_req == "null" else parameter.grad(device)
        found[name] = array.asnumpy()
    clear_cached_graph(block)
    return found


def _copies(net: Block) -> ParameterDict:
    """The network's parameters with arrays of their own."""
    copies = ParameterDict()
    for name, parameter in net.collect_params().items():
        trained = parameter.grad_req != "null"
        copy = copies.get(name, shape=parameter.shape, grad_req="write" if trained else "null", differentiable=trained)
        copy.initialize(mx.init.Zero(), ctx=devices.of(net))
        copy.set_data(values_of(parameter)[0])
    return copies
