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
    net.add(nn.Conv2D(2, 3), nn.Dense(2))
    net.initialize()
    net.hybridize()
    images = np.random.RandomState(0).rand(2, 3, 4, 4).astype("float32")
    expected = net(mx.nd.array(images)).asnumpy()
    batches = data.DataLoader(data.ArrayDataset(images, np.zeros(2, "float32")), 2)
    quantised = quantize_net(net, calib_mode="entropy", calib_data=batches, num_calib_examples=2, ctx=mx.cpu())
    assert np.allclose(quantised(mx.nd.array(images)).asnumpy(), expected, atol=0.1 * np.abs(expected).max())
