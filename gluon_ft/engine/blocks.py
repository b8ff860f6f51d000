"""Blocks that run another graph on a network's own parameters."""
from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mxnet as mx
import numpy as np
from mxnet.gluon import Block, ParameterDict, SymbolBlock

from gluon_ft.runtime import devices
from gluon_ft.runtime.gluon_internals import set_array


def shapes(net: Block, symbol: mx.sym.Symbol, input_shape: tuple[int, ...] | None) -> dict[str, tuple[int, ...]]:
    """Shapes of the parameters, inferred from the input's where they are not known yet.

    Parameters
    ----------
    net : Block
    symbol : mx.sym.Symbol
        Its graph.
    input_shape : tuple of int or None
        Of a batch, where it is known.
    """
    known = {name: p.shape for name, p in net.collect_params().items() if p.shape and 0 not in p.shape
             and -1 not in p.shape}
    given = {**known, **({"data": tuple(input_shape)} if input_shape is not None else {})}
    names = set(symbol.list_inputs())
    try:
        arguments, _, _ = symbol.infer_shape_partial(**{name: shape for name, shape in given.items() if name in names})
    except mx.MXNetError:
        # Some operators (Pad, UpSampling) cannot do without the input's shape; then only what is known counts.
        arguments = None
    return {**dict(zip(symbol.list_arguments(), arguments or ())), **known}


def block(net: Block, symbol: mx.sym.Symbol, constants: dict[str, np.ndarray],
          parameters: ParameterDict | None = None) -> SymbolBlock:
    """A block that runs the symbol on the network's own parameters, and constants of its own.

    Parameters
    ----------
    net : Block
    symbol : mx.sym.Symbol
        With the input 'data'.
    constants : dict of str to ndarray
        Values of the variables that are not the network's.
    parameters : ParameterDict, default the network's own
        What to run it on.
    """
    parameters = net.collect_params() if parameters is None else parameters
    with quiet():
        made = SymbolBlock(symbol, mx.sym.var("data", dtype="float32"), params=parameters)
    own = made.collect_params()
    for name, value in constants.items():
        own[name].grad_req = "null"
        set_array(own[name], value, devices.of(net))
    made.hybridize(static_alloc=True)
    return made


def apart(expected: Any, found: Any) -> float:
    """Largest difference relative to the largest expected number."""
    expected, found = (r if isinstance(r, (list, tuple)) else [r] for r in (expected, found))
    pairs = [(a.asnumpy(), b.asnumpy()) for a, b in zip(expected, found)]
    return max(float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-30)) for a, b in pairs)


@contextmanager
def quiet() -> Iterator[None]:
    """Without SymbolBlock's warnings about types, and without MXNet's lines about what it has fused."""
    before = os.environ.get("MXNET_SUBGRAPH_VERBOSE")
    os.environ["MXNET_SUBGRAPH_VERBOSE"] = "0"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if before is None:
            del os.environ["MXNET_SUBGRAPH_VERBOSE"]
        else:
            os.environ["MXNET_SUBGRAPH_VERBOSE"] = before
