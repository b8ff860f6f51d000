"""What the speed benchmarks time: a network with one batch, a training step of it, and the time of a call."""
from __future__ import annotations

import gluon_ft  # isort: skip  (prepares the import of mxnet)

import time

import mxnet as mx

from gluon_ft.runtime import hardware


def seconds(function) -> float:
    """Time of one call, everything computed."""
    mx.nd.waitall()
    start = time.perf_counter()
    function()
    mx.nd.waitall()
    return time.perf_counter() - start


def network_and_batch(name, batch, size):
    """(network with two classes that has run once, data, labels, precisions that this machine has)."""
    shape = gluon_ft.backbones.input_shape(name, batch, size)
    net = gluon_ft.fine_tune_net(name, 2)
    net.hybridize(static_alloc=True)
    x, y = mx.nd.random.uniform(shape=shape), mx.nd.array([i % 2 for i in range(batch)])
    net(x).wait_to_read()
    return net, x, y, precisions()


def precisions() -> list[str]:
    """What this machine's processor computes in."""
    return ["float32", *(["bfloat16"] if hardware.bfloat16_flags() else [])]


def training_step(run, net, x, y):
    """A function that trains one step through `run`."""
    trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.01, "momentum": 0.9})
    loss_of = mx.gluon.loss.SoftmaxCrossEntropyLoss()

    def step():
        with mx.autograd.record():
            loss = loss_of(run(x), y)
        loss.backward()
        trainer.step(len(y))
    return step
