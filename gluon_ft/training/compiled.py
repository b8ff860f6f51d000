"""Compute forms of a network: the same parameters behind a graph that is faster to train, or to run forward."""
from __future__ import annotations

import os
import warnings
from contextlib import contextmanager

import mxnet as mx
import numpy as np
from mxnet.gluon import SymbolBlock

from gluon_ft import tracing
from gluon_ft.errors import NetworkError
from gluon_ft.training import devices
from gluon_ft.training import precision as precisions

# Largest difference of fused outputs from plain ones, relative to the largest output: rounding of folded BatchNorms.
TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2, "float16": 5e-2}


class Form:
    """A network in another form: called like the network, on its own parameters (not copies).

    form : 'plain' (the network itself), or what was done, such as 'bfloat16' or 'fused'; reason : why it is plain,
    where something else was asked for or tried; net : the network.
    """

    def __init__(self, net, make, snapshot=False):
        self.net, self._make, self._snapshot = net, make, snapshot
        self._modes = [block for _, block in tracing.blocks(net) if hasattr(block, "running_mean")]
        self.refresh()

    def refresh(self) -> None:
        """Makes the form anew from the network as it is now."""
        self._made_for = self._stamp()
        self._run, self.form, self.reason = self._make()

    def __call__(self, *inputs):
        if self._stamp() != self._made_for:
            self.refresh()
        return self._run(*inputs)

    def _stamp(self):
        # BatchNorm's mode is part of the graph; freezing between epochs changes it.
        return tuple(block._kwargs["use_global_stats"] for block in self._modes)


def trainable(net, precision: str = "float32", input_shape=None) -> Form:
    """The form of a network for training's forward pass.

    The parameters are the network's: gradients arrive in them, BatchNorm's running statistics are updated, what is
    frozen stays, in float32 whatever the precision. A change of BatchNorm's mode (freezing) is noticed; after a layer
    was exchanged, make a new form.

    precision : see `precision.check`, which is called. input_shape : of a batch, (n, channels, height, width).

    Raises ConfigError and NetworkError where the precision cannot be had; in float32 a network that cannot be traced
    is used as it is.
    """
    precisions.check(precision, devices.of(net))

    def make():
        try:
            symbol = tracing.symbol(net)
        except NetworkError as error:
            if precision != "float32":
                raise
            return net, "plain", str(error)
        if precision == "float32":
            return net, "plain", ""
        return _block(net, precisions.convert(symbol, precision)), precision, ""
    return Form(net, make)


def forward_only(net, precision: str = "float32", input_shape=None) -> Form:
    """The form of a network for evaluation, prediction and frozen parts: operators fused, BatchNorms folded, where
    that is faster and gives the same outputs on a sample.

    It is a snapshot of the parameters: after they or the running statistics have changed, call `refresh()`, or make
    a new form. input_shape : of a batch, (n, channels, height, width); without it nothing is fused.
    """
    precisions.check(precision, devices.of(net))
    return Form(net, lambda: _forward_form(net, precision, input_shape), snapshot=True)


def _forward_form(net, precision, input_shape):
    try:
        symbol = tracing.symbol(net)
    except NetworkError as error:
        if precision != "float32":
            raise
        return net, "plain", str(error)
    if precision != "float32":
        return _block(net, precisions.convert(symbol, precision)), precision, ""
    context = devices.of(net)[0]
    if context.device_type != "cpu" or input_shape is None:
        return net, "plain", "fused for CPUs only, and for a known input shape"
    sample = mx.nd.random.uniform(-1, 1, shape=(1, *input_shape[1:]), ctx=context)
    fused = _block(net, symbol)
    with _quiet():
        fused.optimize_for(sample, backend="MKLDNN", static_alloc=True)
        apart = _apart(net(sample), fused(sample))
    if not apart <= TOLERANCE[precision]:
        return net, "plain", f"fused outputs were off by {apart:.2g}"
    return fused, "fused", ""


def _apart(expected, found) -> float:
    """Largest difference relative to the largest expected number."""
    expected, found = (r if isinstance(r, (list, tuple)) else [r] for r in (expected, found))
    pairs = [(a.asnumpy(), b.asnumpy()) for a, b in zip(expected, found)]
    return max(float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-30)) for a, b in pairs)


def _block(net, symbol) -> SymbolBlock:
    """A block that runs the symbol on the network's own parameters."""
    with _quiet():
        block = SymbolBlock(symbol, mx.sym.var("data", dtype="float32"), params=net.collect_params())
    block.hybridize(static_alloc=True)
    return block


@contextmanager
def _quiet():
    """Without SymbolBlock's warnings about types, and without oneDNN's lines about what it has fused."""
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
