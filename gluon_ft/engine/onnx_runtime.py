"""Runs a network in ONNX Runtime, on its own parameters as they are when its session is made."""
from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
from typing import Any

import mxnet as mx
import numpy as np
from mxnet.gluon import Block

from gluon_ft.engine import blocks
from gluon_ft.engine.onnx_graph import OnnxGraph
from gluon_ft.engine.onnx_operators import convert
from gluon_ft.errors import NetworkError
from gluon_ft.models.graph import DATA
from gluon_ft.runtime.gluon_internals import array_of
from gluon_ft.runtime.processors import threads

_PACKAGES = ("onnx", "onnxruntime")
# Largest difference of ONNX Runtime's outputs from MXNet's, relative to the largest output.
TOLERANCE = 1e-4


def missing() -> str | None:
    """The first package that is needed and not installed; None where nothing is missing."""
    return next((name for name in _PACKAGES if importlib.util.find_spec(name) is None), None)


def versions() -> dict[str, str]:
    """Of the packages that the results and the speed depend on."""
    return {name: importlib.metadata.version(name) for name in _PACKAGES}


def thread_count() -> int:
    """As many as MXNet's, which `OMP_NUM_THREADS` says."""
    return int(os.environ.get("OMP_NUM_THREADS") or 0) or threads()


def open_session(model: bytes | str) -> Any:
    """ONNX Runtime's session of a model (its bytes, or its path) on the CPU, with as many threads as MXNet has.

    Raises NetworkError where ONNX Runtime does not take it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = thread_count()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    # ONNX Runtime's own errors have no common class of their own.
    except Exception as error:
        raise NetworkError(f"ONNX Runtime does not take the network ({str(error).splitlines()[0]})") from error


class Session:
    """A network that runs forward in ONNX Runtime: called with a batch, float32 on a CPU.

    Parameters
    ----------
    graph : OnnxGraph
    net : Block
        Whose parameters it gets, as they are now.

    Raises
    ------
    NetworkError
        ONNX Runtime does not take the graph.
    """

    def __init__(self, graph: OnnxGraph, net: Block):
        values = {name: array_of(parameter) for name, parameter in net.collect_params().items()}
        with blocks.quiet():
            model = graph.model(values).SerializeToString()
        self._session = open_session(model)

    def __call__(self, data: mx.nd.NDArray) -> mx.nd.NDArray:
        found, = self._session.run(None, {DATA: data.asnumpy()})
        return mx.nd.from_numpy(np.ascontiguousarray(found))


def session(net: Block, symbol: mx.sym.Symbol, input_shape: tuple[int, ...]) -> Session:
    """A session with the network's parameters of now; the graphs of the last few networks are not made again.

    Parameters
    ----------
    net : Block
    symbol : mx.sym.Symbol
        Of the network.
    input_shape : tuple of int
        Of a batch.

    Raises
    ------
    NetworkError
        The network has no ONNX form.
    """
    shapes = blocks.shapes(net, symbol, input_shape)
    return Session(_converted(symbol.tojson(), input_shape[1:], tuple(sorted(shapes.items()))), net)


@functools.lru_cache(maxsize=4)
def _converted(symbol: str, input_shape: tuple[int, ...], shapes: tuple[tuple[str, tuple[int, ...]], ...]) -> OnnxGraph:
    with blocks.quiet():
        return convert(mx.sym.load_json(symbol), (1, *input_shape), dict(shapes))
