"""EfficientNet-Lite: TensorFlow's padding at any size, in every graph and in training; parts, names and input."""
from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn

from gluon_ft.engine import fused
from gluon_ft.errors import WeightsError
from gluon_ft.models import conversion, graph, registry, stages, tracing
from gluon_ft.models.zoo.layers import SameConv2D, same_padding
from gluon_ft.runtime.gluon_internals import hyperparameters
from gluon_ft.weights import name_maps

# (size, kernel, stride) and the zeros before and after, as tf.nn.conv2d's documentation counts them.
PADDINGS = [((224, 3, 2), (0, 1)), ((225, 3, 2), (1, 1)), ((56, 5, 2), (1, 2)), ((15, 5, 2), (2, 2)),
            ((14, 5, 1), (2, 2)), ((7, 3, 1), (1, 1)), ((8, 1, 2), (0, 0)), ((10, 3, 3), (1, 1)), ((8, 2, 1), (0, 1))]


@pytest.mark.parametrize(("geometry", "expected"), PADDINGS)
def test_same_padding(geometry, expected):
    size, _, stride = geometry
    before, after = same_padding(*geometry)
    assert (before, after) == expected
    assert (size + before + after - geometry[1]) // stride + 1 == -(-size // stride)


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize(("size", "kernel", "stride"),
                         [(8, 3, 2), (9, 3, 2), (8, 5, 2), (7, 5, 2), (6, 5, 1), (6, 2, 1)])
def test_convolution_and_its_gradients_equal_those_of_a_padded_input(size, kernel, stride, groups):
    mx.random.seed(size)
    layer = SameConv2D(4, kernel, stride, size, groups=groups, in_channels=4)
    plain = nn.Conv2D(4, kernel, stride, groups=groups, in_channels=4, use_bias=False, params=layer.params)
    layer.initialize(mx.init.Xavier())
    assert layer.weight.shape[2:] == (kernel, kernel)
    data = np.random.RandomState(0).randn(2, 4, size, size).astype("float32")
    sides = same_padding(size, kernel, stride)
    padded = np.pad(data, ((0, 0), (0, 0), sides, sides))
    expected, own = _run(plain, padded)
    for hybrid in (False, True):
        layer.hybridize(hybrid)
        found, gradients = _run(layer, data)
        assert found.shape[2:] == (-(-size // stride),) * 2
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(gradients[0], own[0], rtol=1e-4, atol=1e-4)
        inside = slice(sides[0], sides[0] + size)
        np.testing.assert_allclose(gradients[1], own[1][:, :, inside, inside], rtol=1e-5, atol=1e-5)


def _run(layer, data):
    data = mx.nd.array(data)
    data.attach_grad()
    with mx.autograd.record():
        result = layer(data)
        (result * result).sum().backward()
    return result.asnumpy(), (layer.weight.grad().asnumpy(), data.grad.asnumpy())


def test_fused_and_rewritten_graphs_compute_the_same():
    mx.random.seed(0)
    net = registry.build("efficientnet_lite0", classes=5, size=64)
    net.initialize(mx.init.Xavier())
    data = mx.nd.random.uniform(-1, 1, (2, 3, 64, 64))
    _take_statistics(net, data)
    expected = net(data).asnumpy()
    assert np.abs(expected).max() > 0.01
    for make, form in ((fused.forward_only, "fused"), (fused.trainable, "rewritten")):
        run = make(net, input_shape=data.shape)
        assert (run.form, run.reason) == (form, "")
        np.testing.assert_allclose(run(data).asnumpy(), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def _take_statistics(net, data):
    """Without running statistics of the data nothing but zeros would come out."""
    norms = [block for _, block in tracing.blocks(net) if isinstance(block, nn.BatchNorm)]
    for norm in norms:
        hyperparameters(norm)["momentum"] = 0
    with mx.autograd.record():
        net(data).sum().backward()
    for norm in norms:
        hyperparameters(norm)["momentum"] = 0.99


def test_stages_and_input():
    net = registry.build("efficientnet_lite0")
    assert [(stage.name, stage.size) for stage in stages.stages(net)] == [
        ("stem", (112, 112)), ("stage1", (56, 56)), ("stage2", (28, 28)), ("stage3", (14, 14)), ("stage4", (7, 7)),
        ("output", None)]
    sizes = [registry.usual_preprocessing(registry.get(f"efficientnet_lite{n}")) for n in (0, 1, 2)]
    assert [(one.size, one.mean[0] * 255, one.std[0] * 255) for one in sizes] == [
        (224, 127, 128), (240, 127, 128), (260, 127, 128)]
    norms = [block for block in net.features if isinstance(block, nn.BatchNorm)]
    assert all(hyperparameters(norm)["eps"] == 1e-3 and hyperparameters(norm)["momentum"] == 0.99 for norm in norms)


def test_computed_kernels_do_not_stand_in_the_way_of_a_symbols_new_output():
    symbol = tracing.symbol(registry.build("efficientnet_lite0"))
    shapes = graph.weight_shapes(symbol)
    assert set(shapes) <= set(symbol.list_arguments()) and len(shapes) == 50 - 5


def test_names_tell_the_three_apart():
    net = registry.build("efficientnet_lite2", classes=3)
    net.initialize()
    tensors = conversion.to_torch(net, "efficientnet_lite2")
    assert [entry.model for entry in name_maps.looks_like(tensors)] == ["efficientnet-lite2"]
    with pytest.raises(WeightsError, match="they look like efficientnet_lite2"):
        conversion.to_gluon(tensors, "efficientnet_lite0")
    tensors["_conv_head.weight"] = np.zeros((1280, 320, 1, 1), "float32")
    assert [entry.model for entry in name_maps.looks_like(tensors)] == ["efficientnet-lite1"]
