"""merged: one operator for BatchNorm and relu trains to the same bits, and is not used where a trial says otherwise."""
from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn
from small_nets import Relu6

from gluon_ft.engine import fused, merged
from gluon_ft.models.batchnorm import set_batchnorm

SHAPE = (4, 3, 12, 12)


@pytest.fixture(autouse=True)
def small_batches_count(monkeypatch):
    monkeypatch.setattr(merged, "WORTH_TRYING", 1)
    monkeypatch.setattr(merged, "PATIENCE", 1)
    monkeypatch.setattr(merged, "_same", {})


def network(*middle, activation="relu"):
    net = nn.HybridSequential(prefix="")
    act = Relu6() if activation == "relu6" else nn.Activation("relu")
    net.add(nn.Conv2D(16, 3, padding=1, use_bias=False, in_channels=3), *middle, nn.BatchNorm(in_channels=16), act,
            nn.Conv2D(16, 3, padding=1, use_bias=False, in_channels=16), nn.BatchNorm(in_channels=16),
            nn.GlobalAvgPool2D(), nn.Dense(2, in_units=16))
    mx.random.seed(5)
    net.initialize(mx.init.Xavier())
    return net


def after_training(net, steps=4):
    """Whether the last steps ran merged; parameters after some steps, by their order."""
    form = fused.trainable(net)
    trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1, "momentum": 0.9})
    draw = np.random.RandomState(0).uniform
    for _ in range(steps):
        with mx.autograd.record():
            loss = ((form(mx.nd.array(draw(-1, 1, SHAPE))) - mx.nd.array([1, -2])) ** 2).sum()
        loss.backward()
        trainer.step(SHAPE[0])
    found = [parameter.data().asnumpy() for parameter in net.collect_params().values()]
    return form._merged.get(SHAPE) is not None, found


@pytest.mark.parametrize(("activation", "frozen"), [("relu", False), ("relu", True), ("relu6", False), ("relu6", True)])
def test_the_same_bits_with_one_operator_and_with_two(activation, frozen, monkeypatch):
    results = []
    for patience in (1, 100):
        monkeypatch.setattr(merged, "PATIENCE", patience)
        net = network(activation=activation)
        if frozen:
            set_batchnorm(net, "frozen")
        results.append(after_training(net))
    (ran_merged, found), (ran_as_two, expected) = results
    assert ran_merged and not ran_as_two
    assert all(np.array_equal(a, b) for a, b in zip(found, expected))
    assert np.abs(expected[0] - next(iter(network().collect_params().values())).data().asnumpy()).max() > 1e-3


class PlainLayout(mx.gluon.HybridBlock):
    """Brings its input into the plain layout, in which the operator's gradient is wrong behind a blocked one."""

    def hybrid_forward(self, F, x):
        return F.LeakyReLU(x, act_type="selu")


def test_a_trial_with_other_results_leaves_two_operators(monkeypatch):
    ran_merged, found = after_training(network(PlainLayout()))
    monkeypatch.setattr(merged, "PATIENCE", 100)
    _, expected = after_training(network(PlainLayout()))
    assert list(merged._same.values()) == [ran_merged]
    assert all(np.array_equal(a, b) for a, b in zip(found, expected))


def test_a_trial_that_fails_leaves_two_operators(monkeypatch):
    def step(*_):
        raise mx.MXNetError("could not create a primitive descriptor iterator")

    monkeypatch.setattr(merged, "_step", step)
    ran_merged, found = after_training(network())
    monkeypatch.setattr(merged, "PATIENCE", 100)
    assert not ran_merged
    assert all(np.array_equal(a, b) for a, b in zip(found, after_training(network())[1]))


def test_other_gradients_are_noticed(monkeypatch):
    step = merged._step
    monkeypatch.setattr(merged, "_step", lambda *arguments: {
        name: value + (1e-7 if "gamma" in name and merged.rewrite.is_merged(arguments[1][0]) else 0)
        for name, value in step(*arguments).items()})
    assert merged.merged(network(), SHAPE) is None


def test_a_trial_moves_nothing_and_draws_nothing():
    net = network()
    net.add(nn.Dropout(0.5))
    with mx.autograd.record():
        net(mx.nd.ones(SHAPE)).sum().backward()
    before = {name: (p.data().asnumpy(), p.grad_req == "null" or p.grad().asnumpy())
              for name, p in net.collect_params().items()}
    mx.random.seed(3)
    expected = mx.nd.random.uniform(shape=5).asnumpy()
    mx.random.seed(3)
    merged.merged(net, SHAPE)
    assert len(merged._same) == 1, "it was tried"
    assert np.array_equal(mx.nd.random.uniform(shape=5).asnumpy(), expected)
    for name, parameter in net.collect_params().items():
        assert np.array_equal(parameter.data().asnumpy(), before[name][0])
        assert parameter.grad_req == "null" or np.array_equal(parameter.grad().asnumpy(), before[name][1])


def test_few_or_small_batches_are_not_tried(monkeypatch):
    monkeypatch.setattr(merged, "PATIENCE", 4)
    assert not after_training(network(), steps=4)[0] and merged._same == {}
    monkeypatch.setattr(merged, "PATIENCE", 1)
    monkeypatch.setattr(merged, "WORTH_TRYING", 4 * 3 * 12 * 12 + 1)
    assert not after_training(network())[0] and merged._same == {}


def test_a_graph_without_batchnorm_and_relu_has_nothing_to_merge():
    net = nn.HybridSequential()
    net.add(nn.Conv2D(4, 3, in_channels=3), nn.BatchNorm(in_channels=4), nn.Conv2D(4, 3, activation="relu",
                                                                                  in_channels=4))
    net.initialize()
    assert merged.merged(net, SHAPE) is None
