"""Runs a network, on its own parameters, through an equal graph that is faster to train or to run forward."""
from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Optional

import mxnet as mx
import numpy as np
from mxnet.gluon import Block, SymbolBlock

from gluon_ft.engine import precision as precisions
from gluon_ft.engine import rewrite
from gluon_ft.errors import NetworkError
from gluon_ft.models import tracing
from gluon_ft.models.batchnorm import has_statistics, statistics_are_held
from gluon_ft.runtime import devices
from gluon_ft.runtime.gluon_internals import clear_cached_graph, first_not_finite, is_initialised, set_array, values_of

# Largest difference of fused outputs from plain ones, relative to the largest output: folded BatchNorms round
# otherwise, by some 1e-6 a layer.
TOLERANCE = 1e-3
WORTH_FUSING = 1 << 21  # numbers in all batches; 14 photos of 224 x 224, or 700 of 32 x 32


# What makes the graph for inputs of a shape: (the block to run, None where the shape has to be known; form; reason).
_Make = Callable[[Optional[tuple[int, ...]]], tuple[Optional[Block], str, str]]


class Form:
    """A network that runs through another graph: called like the network, on the network's own parameters, not copies.

    Attributes
    ----------
    form : str
        'plain' (the network itself), 'rewritten' (see `engine.rewrite`), 'fused', 'bfloat16' or 'float16'.
    reason : str
        Why it is plain although another form was tried; else ''.
    net : Block
        The network.
    """

    def __init__(self, net: Block, make: _Make, forward_only: bool):
        self.net, self._make, self._forward_only = net, make, forward_only
        self._run: Block | None = None
        self._runs: dict[tuple[int, ...], Block] = {}
        self._modes = [block for _, block in tracing.blocks(net) if has_statistics(block)]
        self.refresh()

    def refresh(self) -> None:
        """Makes the graph anew from the network as it is now: its parameters, and BatchNorm's mode."""
        self.release()
        self._made_for = self._stamp()
        with mx.autograd.pause():
            self._run, self.form, self.reason = self._make(None)

    def release(self) -> None:
        """Frees the memory of the graph's intermediate results, gigabytes of large batches.

        Without it Python would free them late, since Gluon's blocks refer to themselves. The next call makes the graph
        anew.
        """
        for run in [self._run, *self._runs.values()]:
            if isinstance(run, SymbolBlock) and run is not self.net:
                clear_cached_graph(run)
        self._run, self._runs, self._made_for = None, {}, None

    def __call__(self, *inputs: mx.nd.NDArray) -> Any:
        if self._stamp() != self._made_for:
            self.refresh()
        if self._run is None:
            return self._run_for(inputs[0].shape)(*inputs)
        if not self._forward_only:
            return self._run(*inputs)
        return _paused(self._run, inputs)

    def _run_for(self, shape):
        """What runs inputs of this shape, where the graph depends on it; with and without gradients."""
        key = shape[1:]
        if key not in self._runs:
            with mx.autograd.pause():
                self._runs[key] = self._make(shape)[0]
        run = self._runs[key]
        if not self._forward_only:
            return run
        return lambda *inputs: _paused(run, inputs)

    def _stamp(self):
        # BatchNorm's mode is part of a graph, and freezing between epochs changes it.
        return tuple(statistics_are_held(block) for block in self._modes)


def _paused(run, inputs):
    # Fused operators have no gradients; it would be a wrong one.
    with mx.autograd.pause():
        return run(*inputs)


def trainable(net: Block, precision: str = "float32", input_shape: tuple[int, ...] | None = None) -> Form:
    """A network for training's forward pass: in float32 on CPUs rewritten, see `engine.rewrite`.

    Gradients arrive in the network's parameters, which stay float32 whatever the precision; BatchNorm's running
    statistics are updated; what is frozen stays. A change of `grad_req` or of BatchNorm's mode is noticed; after a
    layer was exchanged or the network moved to another device, make a new one.

    Parameters
    ----------
    net : HybridBlock
        In float32 a network that cannot be traced is used as it is.
    precision : str, default 'float32'
        See `precision.check`, which is called.
    input_shape : tuple of int, optional
        Of a batch, (n, channels, height, width); needed only where parameters do not know their shapes yet.

    Raises
    ------
    ConfigError, NetworkError
        Where the precision cannot be had.
    """
    precisions.check(precision, devices.of(net))
    return Form(net, lambda shape: _training_form(net, precision, shape or input_shape, shape), forward_only=False)


def forward_only(net: Block, precision: str = "float32", input_shape: tuple[int, ...] | None = None) -> Form:
    """A network for evaluation, prediction and frozen parts: in float32 on CPUs with operators fused and BatchNorms
    folded (`optimize_for(backend='MKLDNN')`), where that gives the same outputs on a sample.

    It never records gradients. A fused graph is a **snapshot**: MXNet keeps the folded weights, so that neither a
    change of parameters nor of running statistics is seen. After either, call `refresh()` (milliseconds), or make a new
    one.

    Parameters
    ----------
    net, precision
        As in `trainable`.
    input_shape : tuple of int, optional
        Of a batch, (n, channels, height, width); without it nothing is fused.

    Raises
    ------
    ConfigError, NetworkError
        As `trainable`.
    """
    precisions.check(precision, devices.of(net))
    return Form(net, lambda shape: _forward_form(net, precision, shape or input_shape, shape), forward_only=True)


def is_mirrored(net: Block) -> bool:
    """Whether a network's result for an image is the mean of those for it and its mirror image (`Preprocessing`)."""
    return bool(getattr(getattr(net, "preprocessing", None), "mirror", False))


@contextmanager
def evaluating(net: Block, number: int, contexts: list[mx.Context], precision: str = "float32",
               mirror: bool | None = None) -> Iterator[Callable[[mx.nd.NDArray], Any]]:
    """Prepares a network for running forward on a number of batches of one shape; a context manager.

    On one CPU and for many images the fused graph is used (see `forward_only`); for few and small ones making it would
    take longer than it saves. The network must not change meanwhile. At the end the graph's memory is given back.

    Parameters
    ----------
    net : Block
    number : int
        Of batches, which decides whether fusing is worth it.
    contexts : list of mx.Context
        Nothing is fused for more than one in float32.
    precision : str, default 'float32'
        As in `forward_only`.
    mirror : bool, optional
        Whether the result is the mean over an image and its mirror image, which takes twice as long; default as
        `net.preprocessing.mirror` says.

    Yields
    ------
    callable(NDArray)
        Runs the network on images (n, channels, height, width); the first batch says the shape of all.

    Raises
    ------
    ConfigError, NetworkError
        As of `forward_only`, with the first batch; at the end, for a parameter that is not finite.
    """
    run, mirror = None, is_mirrored(net) if mirror is None else mirror

    def forward(data):
        nonlocal run
        if run is None:
            worth = (1 + mirror) * number * math.prod(data.shape) >= WORTH_FUSING and len(contexts) == 1
            run = forward_only(net, precision, data.shape) if worth or precision != "float32" else net
        return _mean(run(data), run(mx.nd.flip(data, axis=3))) if mirror else run(data)

    try:
        yield forward
        check_parameters({name: values_of(parameter)[0] for name, parameter in net.collect_params().items()
                          if is_initialised(parameter)})
    finally:
        if isinstance(run, Form):
            run.release()


def check_parameters(arrays: Mapping[str, mx.nd.NDArray]) -> None:
    """NetworkError where a parameter, by name, is not finite. Outputs do not always show it: oneDNN's ReLU makes NaN 0.
    """
    wrong = first_not_finite(arrays)
    if wrong is not None:
        raise NetworkError(f"parameter '{wrong}' is not finite", expected="numbers", found="NaN or infinity",
                           remedy="take the weights of before: these were spoilt in training or on the way")


def _mean(one, other):
    """The mean of two results of a network, each an array or several."""
    if isinstance(one, (list, tuple)):
        return [_mean(a, b) for a, b in zip(one, other)]
    return (one + other) / 2


def _training_form(net, precision, input_shape, seen):
    symbol, why_not = _traced(net, precision)
    if symbol is None:
        return net, "plain", why_not
    on_cpu = devices.of(net)[0].device_type == "cpu"
    if precision != "float32":
        return _low_precision(net, symbol, precision, seen), precision, ""
    if not on_cpu:
        return net, "plain", "rewritten for CPUs only"
    faster, constants = rewrite.for_training(symbol, _shapes(net, symbol, input_shape))
    return (_block(net, faster, constants), "rewritten", "") if faster is not symbol else (net, "plain", "")


def _forward_form(net, precision, input_shape, seen):
    symbol, why_not = _traced(net, precision)
    if symbol is None:
        return net, "plain", why_not
    if precision != "float32":
        return _low_precision(net, symbol, precision, seen), precision, ""
    context = devices.of(net)[0]
    if context.device_type != "cpu" or input_shape is None:
        return net, "plain", "fused for CPUs only, and for a known input shape"
    if any(np.dtype(parameter.dtype) != np.float32 for parameter in net.collect_params().values()):
        return net, "plain", "fused in float32 only"
    # From a generator of its own: MXNet's must go on as if nothing had happened.
    sample = np.random.RandomState(0).uniform(-1, 1, (1, *input_shape[1:]))
    sample = mx.nd.array(sample, ctx=context, dtype="float32")
    expected = net(sample)
    fused = _block(net, symbol, {})
    try:
        with _quiet():
            fused.optimize_for(sample, backend="MKLDNN", static_alloc=True)
            apart = _apart(expected, fused(sample))
    except mx.MXNetError as error:
        return net, "plain", f"cannot be fused ({str(error).splitlines()[0]})"
    if not apart <= TOLERANCE:
        return net, "plain", f"fused outputs were off by {apart:.2g}"
    return fused, "fused", ""


def _traced(net, precision):
    try:
        return tracing.symbol(net), ""
    except NetworkError as error:
        if precision != "float32":
            raise
        return None, str(error)


def _low_precision(net, symbol, precision, seen):
    """The block to run; None for bfloat16 while no input has been seen, on whose shape it depends."""
    if precision != "bfloat16":
        return _block(net, precisions.convert(symbol, precision), {})
    if seen is None:
        return None
    symbol, stay = rewrite.for_bfloat16(symbol, _shapes(net, symbol, seen), seen)
    return _block(net, precisions.convert(symbol, precision, stay), {})


def _shapes(net: Block, symbol: mx.sym.Symbol, input_shape: tuple[int, ...] | None) -> dict[str, tuple[int, ...]]:
    """Shapes of the parameters, inferred from the input's where they are not known yet."""
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


def _block(net: Block, symbol: mx.sym.Symbol, constants: dict[str, np.ndarray]) -> SymbolBlock:
    """A block that runs the symbol on the network's own parameters, and constants of its own."""
    with _quiet():
        block = SymbolBlock(symbol, mx.sym.var("data", dtype="float32"), params=net.collect_params())
    own = block.collect_params()
    for name, value in constants.items():
        own[name].grad_req = "null"
        set_array(own[name], value, devices.of(net))
    block.hybridize(static_alloc=True)
    return block


def _apart(expected, found) -> float:
    """Largest difference relative to the largest expected number."""
    expected, found = (r if isinstance(r, (list, tuple)) else [r] for r in (expected, found))
    pairs = [(a.asnumpy(), b.asnumpy()) for a, b in zip(expected, found)]
    return max(float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-30)) for a, b in pairs)


@contextmanager
def _quiet() -> Iterator[None]:
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
