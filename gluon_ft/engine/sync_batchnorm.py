"""SyncBatchNorm: BatchNorm in training over the images of all devices together, as an operator of our own.

MXNet 1.9.1's `_contrib_SyncBatchNorm` hangs or crashes on two CPU contexts, and takes the plain mean of the devices'
means, which is not the mean over the images where the shares differ. Here each device counts by its values. The graph
runs in executors, as Module's: hybridised, one device's gradient now and then waited for others that had not begun.
"""
from __future__ import annotations

import itertools
import threading
from typing import Any

import mxnet as mx
import numpy as np
from mxnet.gluon import Block

from gluon_ft.errors import ConfigError, TrainingError
from gluon_ft.models import graph, tracing
from gluon_ft.runtime import devices
from gluon_ft.runtime.gluon_internals import device_arrays, mark_gradients

MOST_DEVICES = 16  # MXNet runs so many operators written in Python at a time (MXNET_CUSTOM_OP_NUM_THREADS)
_PATIENCE = 600.0  # seconds that a device waits for the others; the first step of a GPU may take minutes
_NAME = "gluon_ft_sync_batchnorm"
_numbers, _places = itertools.count(), itertools.count()


def synchronised(symbol: mx.sym.Symbol, count: int) -> mx.sym.Symbol:
    """The symbol with each BatchNorm that follows the batches normalising over all devices together.

    Layers that are held (`use_global_stats`) stay. With one device the symbol itself is returned. All devices must run
    the result at the same time, in training.

    Parameters
    ----------
    symbol : mx.sym.Symbol
    count : int
        Of devices.

    Raises
    ------
    ConfigError
        More than 16 devices, or a BatchNorm over another axis than 1.
    """
    if count == 1:
        return symbol
    if count > MOST_DEVICES:
        raise ConfigError("sync_batchnorm is for few devices", expected=f"at most {MOST_DEVICES}", found=count)
    # Layers of two networks may have the same names.
    number = next(_numbers)

    def change(node: dict[str, Any]) -> None:
        settings = node.get("attrs", {})
        if node["op"] not in graph.BATCHNORM or _is_on(settings, "use_global_stats", False):
            return
        if str(settings.get("axis", "1")) != "1":
            raise ConfigError("sync_batchnorm is for channels on axis 1", found=f"axis {settings['axis']} of "
                              f"'{node['name']}'", remedy="leave it out")
        kept = {name: value for name, value in settings.items() if name.startswith("__")}
        node.update(op="Custom", attrs={
            **kept, "op_type": _NAME, "eps": settings.get("eps", "0.001"), "momentum": settings.get("momentum", "0.9"),
            "fix_gamma": str(_is_on(settings, "fix_gamma", True)), "key": f"{number}/{node['name']}",
            "devices": str(count)})

    return graph.edited(symbol, change)


def _is_on(settings, name, default) -> bool:
    return str(settings.get(name, default)).lower() in ("true", "1")


def form_for(net: Block, precision: str = "float32") -> Synchronised | None:
    """The network as it trains with `sync_batchnorm`; None where that changes nothing: one device, or no such layer.

    Raises ConfigError for another precision than float32 and as `synchronised`, NetworkError for a network that cannot
    be traced.
    """
    if len(devices.of(net)) == 1:
        return None
    if precision != "float32":
        raise ConfigError("sync_batchnorm is for precision float32", found=precision, remedy="leave one of them out")
    form = Synchronised(net)
    return form if any(node.op == "Custom" and node.attrs.get("op_type") == _NAME for node in graph.nodes(form.symbol)
                       ) else None


class Synchronised:
    """A network in training on several devices at once, with BatchNorm over all of them, on its own parameters.

    Attributes
    ----------
    form : str
        'synchronised'.
    """

    form = "synchronised"

    def __init__(self, net: Block):
        self.contexts, self.net = devices.of(net), net
        self.symbol = synchronised(tracing.symbol(net), len(self.contexts))
        self._arguments = set(self.symbol.list_arguments())
        self._executors: dict[tuple, mx.executor.Executor] = {}
        self._running: list[mx.executor.Executor] = []

    def forward(self, shares: list[mx.nd.NDArray]) -> list[mx.nd.NDArray]:
        """The first output for each device's images, each with room for its gradient, which `backward` takes."""
        self._running = [self._executor(place, share.shape) for place, share in zip(self.contexts, shares)]
        for executor, share in zip(self._running, shares):
            executor.forward(is_train=True, **{graph.DATA: share})
        results = [executor.outputs[0].copy() for executor in self._running]
        for result in results:
            result.attach_grad()
        return results

    def backward(self, gradients: list[mx.nd.NDArray]) -> None:
        """Writes, or adds, the parameters' gradients, from those of each device's first output."""
        for executor, gradient in zip(self._running, gradients):
            executor.backward([gradient, *(mx.nd.zeros_like(other) for other in executor.outputs[1:])])
        for name, parameter in self.net.collect_params().items():
            if parameter.grad_req != "null" and name in self._arguments:
                mark_gradients(parameter)

    def release(self) -> None:
        """Frees the memory of intermediate results."""
        self._executors, self._running = {}, []

    def _executor(self, place, shape):
        if (place, shape) not in self._executors:
            own = self.net.collect_params()
            arguments = {name: own[name] for name in self.symbol.list_arguments() if name != graph.DATA}
            trained = {name: p for name, p in arguments.items() if p.grad_req != "null"}
            self._executors[place, shape] = self.symbol.bind(
                place, {graph.DATA: mx.nd.zeros(shape, ctx=place), **{n: _at(p, place) for n, p in arguments.items()}},
                args_grad={name: p.grad(place) for name, p in trained.items()},
                grad_req={**dict.fromkeys(self.symbol.list_arguments(), "null"),
                          **{name: p.grad_req for name, p in trained.items()}},
                aux_states={name: _at(own[name], place) for name in self.symbol.list_auxiliary_states()})
        return self._executors[place, shape]


class _Meeting:
    """Where the devices add up their numbers: each brings a vector and gets the sum, in the same order of addition."""

    known: dict[str, _Meeting] = {}  # noqa: RUF012  (one for all)

    def __init__(self, count: int):
        self.barrier, self.brought, self.sum = threading.Barrier(count, self._add), {}, np.zeros(0)

    def _add(self):
        # In one thread, when all are there; the second time, when all have the sum, there is nothing to add.
        if self.brought:
            self.sum = np.sum([self.brought[place] for place in sorted(self.brought)], axis=0)
            self.brought.clear()

    def total(self, place: int, numbers: np.ndarray) -> np.ndarray:
        self.brought[place] = numbers.astype(np.float64)
        try:
            self.barrier.wait(_PATIENCE)
            total = self.sum
            self.barrier.wait(_PATIENCE)
        except threading.BrokenBarrierError:
            raise TrainingError("sync_batchnorm: the devices lost each other", expected="all of them in each step",
                                found="one that failed, or did not come") from None
        return total


class _Operator(mx.operator.CustomOp):
    def __init__(self, settings: _Settings):
        super().__init__()
        # MXNet makes the devices' operators one after the other, in their order; it calls each CPU context cpu(0).
        self.settings, self.place = settings, next(_places)
        self.meeting = _Meeting.known.setdefault(settings.key, _Meeting(settings.devices))

    def forward(self, is_train, req, in_data, out_data, aux):
        data, gamma, beta = in_data
        if is_train:
            self._meet(self._measure, data, aux)
        else:
            self.mean, self.spread = aux[0], mx.nd.rsqrt(aux[1] + self.settings.eps)
        scale = self.spread if self.settings.fix_gamma else self.spread * gamma
        result = (data - _along(self.mean, data)) * _along(scale, data) + _along(beta, data)
        self.assign(out_data[0], req[0], result)

    def backward(self, req, out_grad, in_data, out_data, in_grad, aux):
        self._meet(self._gradients, req, out_grad[0], in_data, in_grad)

    def _meet(self, work, *arguments):
        try:
            work(*arguments)
        except BaseException:
            self.meeting.barrier.abort()  # the other devices would wait
            raise

    def _total(self, array: mx.nd.NDArray, *more: float) -> np.ndarray:
        return self.meeting.total(self.place, np.concatenate([array.asnumpy(), more]))

    def _measure(self, data, aux):
        *sums, self.count = self._total(_sums(data), data.size / data.shape[1])
        self.mean = mx.nd.array(np.array(sums) / self.count, ctx=data.context)
        centred = data - _along(self.mean, data)
        variance = mx.nd.array(self._total(_sums(centred * centred)) / self.count, ctx=data.context)
        self.spread = mx.nd.rsqrt(variance + self.settings.eps)
        momentum = self.settings.momentum
        for running, new in zip(aux, (self.mean, variance)):
            self.assign(running, "write", running * momentum + new * (1 - momentum))

    def _gradients(self, req, gradient, in_data, in_grad):
        data, gamma, _ = in_data
        normal = (data - _along(self.mean, data)) * _along(self.spread, data)
        of_beta, of_gamma = _sums(gradient), _sums(gradient * normal)
        both = self._total(mx.nd.concat(of_beta, of_gamma, dim=0)) / self.count
        whole, along = (mx.nd.array(part, ctx=data.context) for part in np.split(both, 2))
        scale = self.spread if self.settings.fix_gamma else self.spread * gamma
        self.assign(in_grad[0], req[0], _along(scale, data) * (
            gradient - _along(whole, data) - normal * _along(along, data)))
        self.assign(in_grad[1], req[1], of_gamma * (not self.settings.fix_gamma))
        self.assign(in_grad[2], req[2], of_beta)


def _sums(data):
    """For each channel the sum over images and places."""
    return mx.nd.sum(data, axis=1, exclude=True)


def _along(vector, data):
    """A vector by channel in a shape that goes with the data's."""
    return vector if vector.ndim == data.ndim else vector.reshape((1, -1, *[1] * (data.ndim - 2)))


@mx.operator.register(_NAME)
class _Settings(mx.operator.CustomOpProp):
    def __init__(self, eps, momentum, fix_gamma, key, devices):
        super().__init__(need_top_grad=True)
        self.eps, self.momentum, self.fix_gamma = float(eps), float(momentum), fix_gamma == "True"
        self.key, self.devices = key, int(devices)

    def list_arguments(self):
        return ["data", "gamma", "beta"]

    def list_auxiliary_states(self):
        return ["moving_mean", "moving_var"]

    def infer_shape(self, in_shape):
        channels = [in_shape[0][1]] if len(in_shape[0]) > 1 else in_shape[1]
        return [in_shape[0], channels, channels], [in_shape[0]], [channels, channels]

    def create_operator(self, ctx, in_shapes, in_dtypes):
        return _Operator(self)


def _at(parameter: mx.gluon.Parameter, place: mx.Context) -> mx.nd.NDArray:
    """A parameter's own array on a device."""
    return device_arrays(parameter)[parameter.list_ctx().index(place)]
