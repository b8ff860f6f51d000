"""A small network, its input, one training step of it, and agreement of two steps."""
import mxnet as mx
import numpy as np
from mxnet.gluon import HybridBlock, nn

SHAPE = (4, 3, 32, 32)


class Relu6(HybridBlock):
    """The activation of the MobileNets."""

    def hybrid_forward(self, F, x):
        return F.clip(x, 0, 6)


def small(scale=True, seed=0):
    """Convolutions of 16 and of 24 channels, depthwise ones, BatchNorms with relu6 that clips on both sides."""
    mx.random.seed(seed)
    net = nn.HybridSequential()
    net.add(nn.Conv2D(16, 3, padding=1, use_bias=False), nn.BatchNorm(scale=scale), Relu6())
    net.add(nn.Conv2D(24, 1, use_bias=False), nn.BatchNorm(scale=scale))
    net.add(nn.Conv2D(48, 1, use_bias=False), nn.BatchNorm(scale=scale), Relu6())
    net.add(nn.Conv2D(48, 3, padding=1, strides=2, groups=48, use_bias=False), nn.BatchNorm(scale=scale), Relu6())
    net.add(nn.GlobalAvgPool2D(), nn.Dense(3))
    net.initialize(mx.init.Xavier())
    net(data())
    for name, parameter in net.collect_params().items():
        if name.endswith("gamma") and scale:
            parameter.set_data(mx.nd.random.uniform(1, 4, parameter.shape))
        if name.endswith("beta"):
            parameter.set_data(mx.nd.random.uniform(0, 4, parameter.shape))
    return net


def data(seed=1, shape=SHAPE):
    return mx.nd.array(np.random.RandomState(seed).randn(*shape))


def step(run, net):
    """One step's result, gradients and running statistics; the statistics are put back."""
    parameters = net.collect_params()
    before = {n: p.data().copy() for n, p in parameters.items() if "running" in n}
    for parameter in parameters.values():
        if parameter.grad_req != "null":
            parameter.grad()[:] = 0
    with mx.autograd.record():
        out = run(data())
        loss = mx.gluon.loss.SoftmaxCrossEntropyLoss()(out, mx.nd.array([0, 1, 2, 0]))
    loss.backward()
    gradients = {n: p.grad().asnumpy() for n, p in parameters.items() if p.grad_req != "null"}
    statistics = {n: parameters[n].data().asnumpy() for n in before}
    for name, value in before.items():
        parameters[name].set_data(value)
    return out.asnumpy(), gradients, statistics


def agree(found, expected, gradients, rest):
    """Largest differences: of gradients relative to the largest gradient of all, of results and statistics each to
    the largest of its own."""
    largest = max(np.abs(g).max() for g in expected[1].values())
    assert found[1].keys() == expected[1].keys()
    for name, value in expected[1].items():
        assert np.abs(found[1][name] - value).max() <= gradients * largest, name
    assert np.abs(found[0] - expected[0]).max() <= rest * np.abs(expected[0]).max()
    for name, value in expected[2].items():
        assert np.abs(found[2][name] - value).max() <= rest * max(1, np.abs(value).max()), name
