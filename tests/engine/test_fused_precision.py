"""Compute forms in bfloat16 and float16: float32 parameters, near results, repeatable."""
import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn
from small_nets import SHAPE, agree, data, small, step

from gluon_ft import freezing
from gluon_ft.engine import fused
from gluon_ft.runtime import hardware

needs_bfloat16 = pytest.mark.skipif(not hardware.bfloat16_flags(), reason="this CPU has no bfloat16")


@needs_bfloat16
def test_bfloat16_trains_the_same_float32_parameters():
    net = small()
    expected = step(net, net)
    form = fused.trainable(net, "bfloat16")
    found = step(form, net)
    assert form.form == "bfloat16"
    agree(found, expected, 0.1, 0.05)
    assert not np.array_equal(found[0], expected[0]), "computed in another precision"
    assert all(g.dtype == np.float32 for g in found[1].values()) and found[0].dtype == np.float32
    assert all(p.dtype == np.float32 or str(p.dtype) == "float32" for p in net.collect_params().values())


@needs_bfloat16
@pytest.mark.parametrize("before", ["plain", "fused"])
def test_bfloat16_trains_after_an_evaluation_in_float32(before):
    # Which leaves weights in layouts that are chosen for inference.
    net = small()
    (net if before == "plain" else fused.forward_only(net, input_shape=SHAPE))(data()).wait_to_read()
    found = step(fused.trainable(net, "bfloat16"), net)
    agree(found, step(net, net), 0.1, 0.05)


@needs_bfloat16
def test_bfloat16_frozen_and_forward_only():
    net = small()
    freezing.freeze(net[0]), freezing.freeze(net[1])
    found = step(fused.trainable(net, "bfloat16"), net)
    assert net[0].weight.name not in found[1]
    np.testing.assert_array_equal(found[2][net[1].running_mean.name], net[1].running_mean.data().asnumpy())
    expected = net(data()).asnumpy()
    out = fused.forward_only(net, "bfloat16", SHAPE)(data()).asnumpy()
    assert np.abs(out - expected).max() <= 0.05 * np.abs(expected).max()


@needs_bfloat16
def test_bfloat16_leaves_small_maps_of_1x1_convolutions_in_float32():
    net = nn.HybridSequential()
    net.add(nn.Conv2D(32, 1, use_bias=False, in_channels=16), nn.GlobalAvgPool2D(), nn.Dense(2))
    net.initialize()
    form = fused.trainable(net, "bfloat16")
    for size, low in ((6, False), (7, True), (4, True)):
        x = data(shape=(2, 16, size, size))
        form(x).wait_to_read()
        graph = form._runs[(16, size, size)]._cached_graph[1]
        _, types, _ = graph.get_internals()[f"{net[0].name}_fwd_output"].infer_type(data=np.float32)
        assert (types[0] != np.float32) == low, size
        plain = net(x).asnumpy()
        assert np.abs(form(x).asnumpy() - plain).max() <= 0.05 * np.abs(plain).max() + 1e-3


@needs_bfloat16
def test_bfloat16_repeats_bit_for_bit():
    results = []
    for _ in range(2):
        net = small()
        form = fused.trainable(net, "bfloat16")
        trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.01, "momentum": 0.9})
        for _ in range(3):
            with mx.autograd.record():
                loss = form(data()).sum()
            loss.backward()
            trainer.step(4)
        results.append([p.data().asnumpy() for p in net.collect_params().values()])
    for one, other in zip(*results):
        np.testing.assert_array_equal(one, other)


@pytest.mark.skipif(mx.context.num_gpus() == 0, reason="no GPU: float16 was not run")
def test_float16_on_a_gpu():
    net = small()
    net.collect_params().reset_ctx([mx.gpu(0)])
    form = fused.trainable(net, "float16")
    with mx.autograd.record():
        loss = form(data().as_in_context(mx.gpu(0))).sum()
    loss.backward()
    assert np.isfinite(net[0].weight.grad().asnumpy()).all()
