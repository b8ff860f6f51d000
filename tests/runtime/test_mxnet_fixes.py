"""mxnet_fixes: what is too slow for the table of features."""
from __future__ import annotations

import multiprocessing
import sys
import types

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import data, nn

from gluon_ft.runtime import mxnet_fixes


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


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere workers are not forked")
def test_workers_are_forked_on_python_3_14_unless_the_program_says_otherwise(monkeypatch):
    module = types.SimpleNamespace(multiprocessing=multiprocessing)
    monkeypatch.setattr(sys, "version_info", (3, 13, 0, "final", 0))
    mxnet_fixes.fork_workers(module)
    assert module.multiprocessing is multiprocessing
    monkeypatch.setattr(sys, "version_info", (3, 14, 0, "final", 0))
    mxnet_fixes.fork_workers(module)
    chosen = None
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda allow_none: chosen)
    assert module.multiprocessing.get_context().get_start_method() == "fork"
    assert module.multiprocessing.Process.__name__ == "ForkProcess"
    chosen = "spawn"
    assert module.multiprocessing.get_context().get_start_method() == "spawn"
    assert module.multiprocessing.queues is multiprocessing.queues
