"""The small network and sets that the tests of resuming train, and how results are compared."""
from __future__ import annotations

import mxnet as mx
import numpy as np
from mxnet.gluon import nn

from gluon_ft.data.batches import ArrayLoader


def network(seed=3, dropout=0.3, width=4, ctx=None):
    """Convolution, BatchNorm, dropout, output."""
    mx.random.seed(seed)
    net = nn.HybridSequential(prefix="")
    net.add(nn.Conv2D(width, 3, in_channels=1), nn.BatchNorm(in_channels=width), nn.Activation("relu"),
            nn.GlobalAvgPool2D(), nn.Flatten(), nn.Dropout(dropout), nn.Dense(3, in_units=width))
    net.initialize(mx.init.Xavier(), ctx=ctx or mx.cpu())
    net.hybridize()
    return net


def sets(seed=0, count=26, batch_size=4):
    rng = np.random.RandomState(seed)
    labels = np.arange(count) % 3
    images = (rng.rand(count, 1, 6, 6) + labels[:, None, None, None]).astype("float32")
    return (ArrayLoader(images, labels, batch_size, shuffle=True, seed=seed), ArrayLoader(images[:9], labels[:9], 4))


def parameters(net):
    return {path: p.data(p.list_ctx()[0]).asnumpy() for path, p in net._collect_params_with_prefix().items()}


def same(first, second):
    assert first.keys() == second.keys()
    for path, value in first.items():
        np.testing.assert_array_equal(value, second[path], err_msg=path)
