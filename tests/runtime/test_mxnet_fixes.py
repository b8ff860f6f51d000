"""mxnet_fixes: what is too slow for the table of features."""
from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import data, nn


@pytest.mark.slow
def test_quantised_by_entropy():
    """Its thresholds are arrays of shape (1,), which NumPy 2.4 no longer converts to numbers."""
    from mxnet.contrib.quantization import quantize_net

    net = nn.HybridSequential()
    net.add(nn.Conv2D(4, 3, activation="relu"), nn.Dense(4))
    net.initialize(mx.init.Xavier())
    net.hybridize()
    images = np.random.RandomState(0).randn(32, 3, 8, 8).astype("float32")
    expected = net(mx.nd.array(images)).asnumpy()
    batches = data.DataLoader(data.ArrayDataset(images, np.zeros(32, "float32")), 32)
    quantised = quantize_net(net, calib_mode="entropy", calib_data=batches, num_calib_examples=32, ctx=mx.cpu())
    # Thresholds by entropy cut the largest values off.
    assert np.corrcoef(quantised(mx.nd.array(images)).asnumpy().ravel(), expected.ravel())[0, 1] > 0.99
