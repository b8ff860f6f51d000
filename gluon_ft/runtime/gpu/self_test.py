"""Tests a card before its first use in a process: one small training step there must give what the CPU gives."""
from __future__ import annotations

from collections.abc import Callable

import mxnet as mx
import numpy as np

from gluon_ft.errors import ConfigError, last_line
from gluon_ft.runtime.gpu import cards

# Largest difference, relative to the largest number; from Ampere on cards may multiply with 10 bits (TF32).
TOLERANCE = 1e-2
_passed: set[str] = set()


def step(device: mx.Context) -> list[np.ndarray]:
    """A convolution, batch normalisation, a dense layer and the loss, with their gradients, and an update of SGD.

    Draws nothing from MXNet's generator.
    """
    draw = np.random.RandomState(0).uniform
    shapes = {"weight": (8, 3, 3, 3), "gamma": (8,), "beta": (8,), "dense": (4, 8)}
    with device:
        values = {name: mx.nd.array(draw(-1, 1, shape), dtype="float32") for name, shape in shapes.items()}
        data, labels = mx.nd.array(draw(-1, 1, (4, 3, 8, 8)), dtype="float32"), mx.nd.array([0, 1, 2, 3])
        mean, variance = mx.nd.zeros(8), mx.nd.ones(8)
        for value in values.values():
            value.attach_grad()
        with mx.autograd.record():
            x = mx.nd.Convolution(data, values["weight"], kernel=(3, 3), pad=(1, 1), num_filter=8, no_bias=True)
            x = mx.nd.BatchNorm(x, values["gamma"], values["beta"], mean, variance, fix_gamma=False)
            x = mx.nd.Pooling(mx.nd.relu(x), kernel=(1, 1), global_pool=True, pool_type="avg")
            x = mx.nd.FullyConnected(x, values["dense"], num_hidden=4, no_bias=True)
            loss = mx.nd.softmax_cross_entropy(x, labels)
        loss.backward()
        for value in values.values():
            mx.nd.sgd_update(value, value.grad, lr=0.1, out=value)
        return [x.asnumpy(), loss.asnumpy(), *(value.asnumpy() for value in values.values())]


def check(device: mx.Context, work: Callable[[mx.Context], list[np.ndarray]] = step) -> None:
    """Raises ConfigError where a step on `device` fails, or gives other numbers than on the CPU.

    It runs once a process and device; the first step of a card takes seconds, since CUDA starts.

    work : what is run on both, `step`.
    """
    if str(device) in _passed:
        return
    expected = work(mx.cpu())
    try:
        found = work(device)
    except mx.MXNetError as error:
        raise ConfigError(f"{device} cannot run a training step", expected="what the CPU gives",
                          found=last_line(error)[:200], remedy=cards.INSTEAD) from error
    # NumPy's max, since Python's passes NaN by.
    apart = np.max([np.abs(a - b).max() / max(np.abs(a).max(), 1e-30) for a, b in zip(expected, found)])
    if not apart <= TOLERANCE:
        raise ConfigError(f"{device} computes wrongly", remedy=cards.INSTEAD,
                          expected=f"the CPU's numbers within {TOLERANCE:g} of the largest",
                          found=f"a difference of {apart:.2g}")
    _passed.add(str(device))
