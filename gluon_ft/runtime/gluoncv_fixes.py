"""Fixes for GluonCV's networks: NASNet's gradient on CPUs, ResNeSt's DropBlock in hybridised networks."""
from __future__ import annotations

import types

from mxnet.gluon import HybridBlock


class _PlainConcat:
    """MXNet's F, but with `concat` followed by a slice that keeps everything.

    oneDNN cannot split a gradient in a blocked layout between inputs whose channels are not multiples of the block
    ("could not construct a sub-memory", as in apache/mxnet#16732). slice_axis is not a oneDNN operator, so that its
    gradient arrives in the plain layout.
    """

    def __init__(self, F):
        self._F = F

    def __getattr__(self, name):
        return getattr(self._F, name)

    def concat(self, *inputs, dim):
        return self._F.slice_axis(self._F.concat(*inputs, dim=dim), axis=0, begin=0, end=None)


def plain_concat(net: HybridBlock) -> None:
    """Makes the blocks of a NASNet use `_PlainConcat`, in place; parameters and results stay the same."""
    def exchange(block):
        if type(block).__module__ == type(net).__module__:
            original = type(block).hybrid_forward
            block.hybrid_forward = types.MethodType(
                lambda self, F, *args, **params: original(self, _PlainConcat(F), *args, **params), block)

    net.apply(exchange)


def without_dropblock(net: HybridBlock) -> None:
    """Switches DropBlock off, in place.

    GluonCV's DropBlock decides between training and evaluation when the graph is traced: a hybridised network that is
    first trained goes on dropping in evaluation, and one that is first evaluated never drops. It also allows only one
    input size.
    """
    def switch_off(block):
        if type(block).__name__ == "DropBlock":
            block.drop_prob = 0

    net.apply(switch_off)


# Prefix of the backbone's name -> the fix.
REPAIRS = {"nasnet": plain_concat, "resnest": without_dropblock}


def repair(net: HybridBlock, name: str) -> HybridBlock:
    """Applies the fixes that the backbone `name` needs, in place, and returns the network."""
    for prefix, fix in REPAIRS.items():
        if name.startswith(prefix):
            fix(net)
    return net
