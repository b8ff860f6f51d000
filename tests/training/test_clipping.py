"""Clipped gradients have the norm that was asked for, by NumPy's reckoning, and keep their direction."""
from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn

from gluon_ft.errors import ConfigError
from gluon_ft.training.step import clip


def network(ctx=None, dtype="float32"):
    net = nn.HybridSequential()
    net.add(nn.Dense(5, in_units=4, activation="relu"), nn.Dense(3, in_units=5))
    net.initialize(mx.init.Xavier(), ctx=ctx)
    net.cast(dtype)
    return net


def backward(net, n=8, size=10.0):
    contexts, dtype = net[0].weight.list_ctx(), net[0].weight.dtype
    data = mx.nd.array(np.random.RandomState(0).rand(n, 4) * size, dtype=dtype)
    parts = mx.gluon.utils.split_and_load(data, contexts)
    with mx.autograd.record():
        losses = [(net(x) ** 2).sum(axis=1) for x in parts]
    mx.autograd.backward(losses)
    return list(net.collect_params().values())


def gradients(parameters, ctx=None):
    return [p.grad(ctx or mx.cpu()).asnumpy().astype("float64") for p in parameters if p.grad_req != "null"]


def norm(arrays):
    return np.sqrt(sum((a ** 2).sum() for a in arrays))


def test_norm_of_all_gradients_together_over_the_batch_is_at_most_max_norm():
    parameters = backward(network())
    before = gradients(parameters)
    found = clip(parameters, 0.5, 1 / 8)
    after = gradients(parameters)
    assert float(found[0].asscalar()) == pytest.approx(norm(before) / 8, rel=1e-5)
    assert norm(before) / 8 > 0.5
    assert norm(after) / 8 == pytest.approx(0.5, rel=1e-5)
    for a, b in zip(after, before):
        np.testing.assert_allclose(a, b * 0.5 * 8 / norm(before), rtol=1e-5, atol=1e-9)


def test_what_is_small_enough_is_left_bit_for_bit():
    parameters = backward(network())
    before = gradients(parameters)
    clip(parameters, 1.01 * norm(before) / 8, 1 / 8)
    for a, b in zip(gradients(parameters), before):
        np.testing.assert_array_equal(a, b)


def test_a_step_is_as_long_as_the_clipped_gradient():
    net = network()
    before = [p.data().asnumpy() for p in net.collect_params().values()]
    trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1}, update_on_kvstore=False)
    parameters = backward(net)
    trainer.allreduce_grads()
    clip(parameters, 0.5, 1 / 8)
    trainer.update(8)
    length = norm([p.data().asnumpy() - b for p, b in zip(parameters, before)])
    assert length == pytest.approx(0.1 * 0.5, rel=1e-4)


def test_two_devices_clip_the_sum_and_stay_equal():
    contexts = [mx.cpu(0), mx.cpu(1)]
    one, two = network(), network(contexts)
    for a, b in zip(one.collect_params().values(), two.collect_params().values()):
        b.set_data(a.data())
    trainers = [mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1}, kvstore="device",
                                 update_on_kvstore=False) for net in (one, two)]
    for net, trainer in zip((one, two), trainers):
        parameters = backward(net)
        trainer.allreduce_grads()
        assert len(clip(parameters, 0.5, 1 / 8)) == len(net[0].weight.list_ctx())
        trainer.update(8)
    for a, b in zip(one.collect_params().values(), two.collect_params().values()):
        for ctx in contexts:
            np.testing.assert_allclose(b.data(ctx).asnumpy(), a.data().asnumpy(), rtol=1e-5, atol=1e-7)


def test_frozen_parameters_are_passed_over():
    net = network()
    net[0].collect_params().setattr("grad_req", "null")
    parameters = backward(net)
    clip(parameters, 0.5)
    assert norm(gradients(parameters)) == pytest.approx(0.5, rel=1e-5)


def test_half_precision_does_not_overflow_and_types_may_be_mixed():
    net = network(dtype="float16")
    net[1].cast("float32")
    for parameter in net.collect_params().values():
        parameter.grad()[:] = 300  # whose square float16 does not hold
    before = gradients(net.collect_params().values())
    found = clip(net.collect_params().values(), 1.0)
    assert float(found[0].asscalar()) == pytest.approx(norm(before), rel=1e-3)
    assert norm(gradients(net.collect_params().values())) == pytest.approx(1, rel=1e-2)


def test_no_gradient_at_all_stays_none():
    net = network()
    for parameter in net.collect_params().values():
        parameter.grad()[:] = 0
    clip(net.collect_params().values(), 1.0)
    assert norm(gradients(net.collect_params().values())) == 0


@pytest.mark.parametrize(("max_norm", "scale"), [(0, 1), (-1, 1), (1, 0), (float("nan"), 1)])
def test_out_of_range(max_norm, scale):
    with pytest.raises(ConfigError, match="clip_norm and scale are above 0"):
        clip([], max_norm, scale)
