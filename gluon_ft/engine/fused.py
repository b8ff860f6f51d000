"""Runs a network, on its own parameters, through an equal graph that is faster to train or to run forward."""
from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Optional, Union

import mxnet as mx
import numpy as np
from mxnet.gluon import Block, HybridBlock, SymbolBlock

from gluon_ft.engine import blocks, choice, merged, onnx_runtime, rewrite
from gluon_ft.engine import precision as precisions
from gluon_ft.errors import NetworkError
from gluon_ft.io import reporter
from gluon_ft.models import tracing
from gluon_ft.models.batchnorm import has_statistics, statistics_are_held
from gluon_ft.runtime import devices
from gluon_ft.runtime.gluon_internals import clear_cached_graph, first_not_finite, is_initialised, values_of

# Largest difference of fused outputs from plain ones, relative to the largest output: folded BatchNorms round
# otherwise, by some 1e-6 a layer.
TOLERANCE = 1e-3
WORTH_FUSING = 1 << 21  # numbers in all batches; 14 photos of 224 x 224, or 700 of 32 x 32
WORTH_MEASURING = 1 << 23  # the same, for 'auto' to look which engine is faster; 56 photos
_MEASURED = 8  # images that the engines are timed on
_COMPARED = 2  # images of the first batch that both engines run
_said: set[str] = set()


_Run = Union[Block, onnx_runtime.Session]
# What makes the graph for inputs of a shape: (what runs it, None where the shape has to be known; form; reason).
_Make = Callable[..., tuple[Optional[_Run], str, str]]


class Form:
    """A network that runs through another graph: called like the network, on the network's own parameters, not copies.

    Attributes
    ----------
    form : str
        'plain' (the network itself), 'rewritten' (see `engine.rewrite`), 'fused', 'onnxruntime', 'bfloat16' or
        'float16'.
    reason : str
        Why it is plain although another form was tried; else ''.
    net : Block
        The network.
    """

    def __init__(self, net: Block, make: _Make, forward_only: bool, merge: bool = False):
        self.net, self._make, self._forward_only, self._merge = net, make, forward_only, merge
        self._calls: Counter[tuple[int, ...]] = Counter()
        self._merged: dict[tuple[int, ...], Block | None] = {}
        self._run: _Run | None = None
        self._runs: dict[tuple[int, ...], _Run] = {}
        self._is_checked = False
        self._modes = [block for _, block in tracing.blocks(net) if has_statistics(block)]
        self.refresh()

    def refresh(self) -> None:
        """Makes the graph anew from the network as it is now: its parameters, and BatchNorm's mode."""
        self.release()
        self._made_for = self._stamp()
        with mx.autograd.pause():
            self._run, self.form, self.reason = self._make(None)
        self._is_checked = self.form != choice.ONNX_RUNTIME

    def release(self) -> None:
        """Frees the memory of the graph's intermediate results, gigabytes of large batches.

        Without it Python would free them late, since Gluon's blocks refer to themselves. The next call makes the graph
        anew.
        """
        for run in [self._run, *self._runs.values(), *self._merged.values()]:
            if isinstance(run, SymbolBlock) and run is not self.net:
                clear_cached_graph(run)
        self._run, self._runs, self._merged, self._made_for = None, {}, {}, None

    def __call__(self, *inputs: mx.nd.NDArray) -> Any:
        if self._stamp() != self._made_for:
            self.refresh()
        if self._run is None:
            return self._run_for(inputs[0].shape)(*inputs)
        if not self._forward_only:
            return (self._merged_for(inputs[0].shape) or self._run)(*inputs)
        if not self._is_checked:
            self._check_engine(inputs[0][:_COMPARED])
        return _paused(self._run, inputs)

    def _check_engine(self, data):
        """Goes back to MXNet where ONNX Runtime gives something else on the first images."""
        assert self._run is not None, "refresh comes first"
        apart = blocks.apart(_paused(self.net, [data]), _paused(self._run, [data]))
        self._is_checked = True
        if not apart <= onnx_runtime.TOLERANCE:
            _say_once(f"ONNX Runtime's results differ from MXNet's by {apart:.2g} of the largest: MXNet is used")
            make, self._make = self._make, lambda shape: make(shape, choice.MXNET)
            self.refresh()

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

    def _merged_for(self, shape):
        """What trains batches of this shape faster (`engine.merged`), once some of them have come; else None."""
        if not self._merge or not mx.autograd.is_recording():
            return None
        if shape not in self._merged:
            self._calls[shape] += 1
            if self._calls[shape] <= merged.PATIENCE or not merged.is_worth_trying(self.net, shape):
                return None
            with mx.autograd.pause():
                self._merged[shape] = merged.merged(self.net, shape)
            if self._merged[shape] is not None and isinstance(self._run, HybridBlock):
                clear_cached_graph(self._run)
        return self._merged[shape]

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
    return Form(net, lambda shape: _training_form(net, precision, shape or input_shape, shape), forward_only=False,
                merge=precision == "float32" and _traced(net, precision)[0] is not None)


def forward_only(net: Block, precision: str = "float32", input_shape: tuple[int, ...] | None = None,
                 engine: str = choice.MXNET) -> Form:
    """A network for evaluation, prediction and frozen parts: in float32 on a CPU by ONNX Runtime, or by MXNet with
    operators fused and BatchNorms folded (`optimize_for(backend='MKLDNN')`), where that gives the same outputs.

    It never records gradients. Both are **snapshots** with folded weights, so that neither a change of parameters nor
    of running statistics is seen. After either, call `refresh()` (a fraction of a second), or make a new one.

    Parameters
    ----------
    net, precision
        As in `trainable`.
    input_shape : tuple of int, optional
        Of a batch, (n, channels, height, width); without it nothing is fused.
    engine : {'mxnet', 'onnxruntime', 'auto'}, default 'mxnet'
        'auto' takes the faster one, which it measures unless it is remembered; what `engine_for` says for so many
        images. A network that has no ONNX form, or whose results on the first two images differ by more than 1e-4 of
        the largest, is run by MXNet, and a notice says so.

    Raises
    ------
    ConfigError, NetworkError
        As `trainable`.
    """
    precisions.check(precision, devices.of(net))

    def make(shape, engine=engine):
        return _forward_form(net, precision, shape or input_shape, shape, engine)

    return Form(net, make, forward_only=True)


def engine_for(images: int, shape: tuple[int, ...]) -> str:
    """The engine for so many images: what `choice.using` says, but in place of 'auto' MXNet's for few and small ones.

    Parameters
    ----------
    images : int
    shape : tuple of int
        Of one image.
    """
    engine = choice.asked()
    return choice.MXNET if engine == choice.AUTO and images * math.prod(shape) < WORTH_MEASURING else engine


def settle(net: Block, images: int, shape: tuple[int, ...]) -> str:
    """The engine that will run so many images, 'mxnet' or 'onnxruntime', measured now where that is not known.

    Parameters
    ----------
    net : HybridBlock
    images : int
    shape : tuple of int
        Of one image.
    """
    engine = engine_for(images, shape)
    if engine == choice.MXNET:
        return engine
    if len(devices.of(net)) > 1 or not _engines_differ(net, (1, *shape)):
        if engine == choice.ONNX_RUNTIME:
            _say_once(f"engine {engine} is for one CPU and float32: MXNet is used")
        return choice.MXNET
    if engine == choice.AUTO:
        known = choice.remembered(_key(net, tracing.symbol(net), (1, *shape)))
        if known is not None:
            return known
        form = forward_only(net, input_shape=(1, *shape), engine=engine)
        engine = choice.ONNX_RUNTIME if form.form == choice.ONNX_RUNTIME else choice.MXNET
        form.release()
    return engine


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
            images = (1 + mirror) * number * len(data)
            worth = images * math.prod(data.shape[1:]) >= WORTH_FUSING and len(contexts) == 1
            run = forward_only(net, precision, data.shape, engine_for(images, data.shape[1:])) \
                if worth or precision != "float32" else net
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
    faster, constants = rewrite.for_training(symbol, blocks.shapes(net, symbol, input_shape))
    return (blocks.block(net, faster, constants), "rewritten", "") if faster is not symbol else (net, "plain", "")


def _forward_form(net, precision, input_shape, seen, engine):
    symbol, why_not = _traced(net, precision)
    if symbol is None:
        return net, "plain", why_not
    if precision != "float32":
        return _low_precision(net, symbol, precision, seen), precision, ""
    if not _engines_differ(net, input_shape):
        return net, "plain", "fused on CPUs and in float32 only, for a known input shape"
    # From a generator of its own: MXNet's must go on as if nothing had happened.
    sample = np.random.RandomState(0).uniform(-1, 1, (_MEASURED, *input_shape[1:]))
    sample = mx.nd.array(sample, ctx=devices.of(net)[0], dtype="float32")
    if not all(map(is_initialised, net.collect_params().values())):
        net(sample[:1])
    key = ""
    if engine == choice.AUTO:
        key = _key(net, symbol, input_shape)
        engine = choice.remembered(key) or engine
    session, why_not = (None, "") if engine == choice.MXNET else _session(net, symbol, input_shape)
    if engine == choice.ONNX_RUNTIME:
        if session is not None:
            return session, engine, ""
        _say_once(f"ONNX Runtime cannot run this network, MXNet does: {why_not}")
    found = _fused_form(net, symbol, sample[:1])
    if session is not None:
        for run in (found[0], session):
            run(sample).wait_to_read()
        if choice.fastest({choice.MXNET: found[0], choice.ONNX_RUNTIME: session}, sample, key) != choice.MXNET:
            return session, choice.ONNX_RUNTIME, ""
    return found[0], found[1], found[2] or why_not


def _key(net, symbol, input_shape) -> str:
    return choice.key_of(symbol, blocks.shapes(net, symbol, input_shape), input_shape)


def _engines_differ(net, input_shape) -> bool:
    """Whether anything but the network itself can run it forward."""
    return (devices.of(net)[0].device_type == "cpu" and input_shape is not None and all(
        np.dtype(parameter.dtype) == np.float32 for parameter in net.collect_params().values()))


def _session(net, symbol, input_shape):
    """(a session of ONNX Runtime, None where there can be none; why not)."""
    try:
        return onnx_runtime.session(net, symbol, input_shape), ""
    except NetworkError as error:
        return None, str(error)


def _say_once(text: str) -> None:
    if text not in _said:
        _said.add(text)
        reporter.notice(text)


def _fused_form(net, symbol, sample):
    expected = net(sample)
    fused = blocks.block(net, symbol, {})
    try:
        with blocks.quiet():
            fused.optimize_for(sample, backend="MKLDNN", static_alloc=True)
            apart = blocks.apart(expected, fused(sample))
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
        return blocks.block(net, precisions.convert(symbol, precision), {})
    if seen is None:
        return None
    symbol, stay = rewrite.for_bfloat16(symbol, blocks.shapes(net, symbol, seen), seen)
    return blocks.block(net, precisions.convert(symbol, precision, stay), {})
