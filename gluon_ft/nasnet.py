"""Makes GluonCV's NASNet trainable on CPUs, where the gradient of its concatenations fails."""
from __future__ import annotations

import types

from mxnet.gluon import HybridBlock


class _PlainConcat:
    """MXNet's F, whose `concat` is followed by an operator that does nothing.

    oneDNN cannot divide a gradient in a blocked layout among inputs whose channels are not multiples of the block
    ("could not construct a sub-memory", as in apache/mxnet#16732). The gradient of slice_axis, which is not oneDNN's,
    arrives in the plain layout.
    """

    def __init__(self, F):
        self._F = F

    def __getattr__(self, name):
        return getattr(self._F, name)

    def concat(self, *inputs, dim):
        return self._F.slice_axis(self._F.concat(*inputs, dim=dim), axis=0, begin=0, end=None)


def make_trainable(net: HybridBlock) -> HybridBlock:
    """Exchanges the operator in the blocks of this network, in place; parameters and results stay the same."""
    def exchange(block):
        if type(block).__module__ == type(net).__module__:
            original = type(block).hybrid_forward
            block.hybrid_forward = types.MethodType(
                lambda self, F, *args, **params: original(self, _PlainConcat(F), *args, **params), block)

    return net.apply(exchange)
