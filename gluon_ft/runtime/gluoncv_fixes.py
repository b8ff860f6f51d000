"""Fixes of GluonCV's networks: NASNet's gradient on CPUs, ResNeSt's DropBlock in hybridised networks."""
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


def plain_concat(net: HybridBlock) -> None:
    """Exchanges the operator in the blocks of a NASNet, in place; parameters and results stay the same."""
    def exchange(block):
        if type(block).__module__ == type(net).__module__:
            original = type(block).hybrid_forward
            block.hybrid_forward = types.MethodType(
                lambda self, F, *args, **params: original(self, _PlainConcat(F), *args, **params), block)

    net.apply(exchange)


def without_dropblock(net: HybridBlock) -> None:
    """Switches DropBlock off, in place.

    GluonCV's asks whether it is being trained while the graph is made: a hybridised network that is first used in
    training goes on dropping, at random, in evaluation, and one that is first evaluated never drops. It also allows
    one input size only.
    """
    def switch_off(block):
        if type(block).__name__ == "DropBlock":
            block.drop_prob = 0

    net.apply(switch_off)


# By the beginning of the backbone's name.
REPAIRS = {"nasnet": plain_concat, "resnest": without_dropblock}


def repair(net: HybridBlock, name: str) -> HybridBlock:
    """Applies what the backbone called `name` needs, in place, and returns the network."""
    for beginning, function in REPAIRS.items():
        if name.startswith(beginning):
            function(net)
    return net
