"""Output blocks: found, replaced, appended, whatever they are called or made of."""
from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn

import gluon_ft
from gluon_ft import backbones, heads
from gluon_ft.errors import ConfigError, NetworkError, WeightsError
from gluon_ft.models import tracing


def images(name="resnet18_v2", size=32):
    return mx.nd.random.uniform(shape=backbones.input_shape(name, 2, size))


def test_published_attributes_and_multiplier():
    net = heads.fine_tune_net("resnet18_v2", 2)
    assert {p.lr_mult for p in net.output.collect_params().values()} == {10}
    assert {p.lr_mult for p in net.features.collect_params().values()} == {1.0}
    net.features.collect_params().setattr("grad_req", "null")
    net.output.collect_params().setattr("lr_mult", 5)
    assert {p.lr_mult for p in net.output.collect_params().values()} == {5}


def test_hybridised_network_uses_the_new_output_at_once():
    net = heads.fine_tune_net("resnet18_v2", 2)
    assert net(images()).shape == (2, 2)
    heads.replace_output(net, 5)
    assert net.output._active
    assert net(images()).shape == (2, 5)


def test_replacing_keeps_names_features_and_bias():
    net = backbones.build("mobilenetv2_0.25")
    net.initialize()
    net(images())
    names = list(net.collect_params())
    before = {k: p.data().asnumpy() for k, p in net.features.collect_params().items()}
    heads.replace_output(net, 4)
    heads.replace_output(net, 7)
    assert list(net.collect_params()) == names
    assert net.output[0].bias is None
    assert net(images()).shape == (2, 7)
    for key, parameter in net.features.collect_params().items():
        np.testing.assert_array_equal(parameter.data().asnumpy(), before[key])


def test_initializer_is_used_for_the_new_layer_only():
    net = backbones.build("resnet18_v2")
    net.initialize(mx.init.One())
    heads.replace_output(net, 2, init=mx.init.Constant(0.25))
    assert (net.output.weight.data().asnumpy() == 0.25).all()
    assert (net.output.bias.data().asnumpy() == 0).all()


def test_uninitialised_network_stays_so():
    net = heads.replace_output(backbones.build("resnet18_v2"), 3)
    net.initialize()
    assert net(images()).shape == (2, 3)


def test_append_keeps_the_source_output_and_round_trips(tmp_path):
    source = backbones.build("lenet")
    source.initialize()
    source.hybridize()
    x = mx.nd.random.uniform(shape=(2, 1, 28, 28))
    ten = source(x)
    net = heads.append_output(source, 2, name="ip2_odd_even")
    assert net(x).shape == (2, 2)
    weight, bias = net.ip2_odd_even.weight.data(), net.ip2_odd_even.bias.data()
    np.testing.assert_allclose(net(x).asnumpy(), (mx.nd.dot(ten, weight.T) + bias).asnumpy(), rtol=1e-4, atol=1e-6)
    assert tracing.output_layer(net).path == "ip2_odd_even"
    net.save_parameters(str(tmp_path / "n.params"))
    again = heads.append_output(backbones.build("lenet"), 2, name="ip2_odd_even")
    again.load_parameters(str(tmp_path / "n.params"))
    np.testing.assert_array_equal(again(x).asnumpy(), net(x).asnumpy())
    net.export(str(tmp_path / "n"))
    loaded = mx.gluon.SymbolBlock.imports(str(tmp_path / "n-symbol.json"), ["data"], str(tmp_path / "n-0000.params"))
    np.testing.assert_allclose(loaded(x).asnumpy(), net(x).asnumpy(), rtol=1e-5)


def test_appending_the_same_name_twice_is_refused():
    net = heads.append_output(backbones.build("lenet"), 2, name="ip2_odd_even")
    with pytest.raises(NetworkError, match=r"part named 'ip2_odd_even' already; choose another name"):
        heads.append_output(net, 2, name="ip2_odd_even")


def test_replace_on_top_of_append_leaves_one_output():
    net = heads.append_output(backbones.build("lenet"), 2, name="ip2_odd_even")
    net.initialize()
    heads.replace_output(net, 3)
    assert net(mx.nd.zeros((1, 1, 28, 28))).shape == (1, 3)
    assert net.features.output.weight.shape == (10, 500)


class Odd(mx.gluon.HybridBlock):
    """A result that no single layer makes: the sum of two."""

    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.left, self.right = nn.Dense(4), nn.Dense(4)

    def hybrid_forward(self, F, x):
        return self.left(x) + self.right(x)


def test_output_that_cannot_be_found_names_the_candidates():
    with pytest.raises(NetworkError, match=r"output of Odd was not found.*left \(Dense \(4, 0\)\), right"):
        heads.replace_output(Odd(), 2)


def test_output_given_by_path_is_used():
    net = heads.replace_output(heads.replace_output(Odd(), 3, output="left"), 3, output="right")
    net.initialize()
    assert net(mx.nd.zeros((1, 6))).shape == (1, 3)
    with pytest.raises(NetworkError, match=r"no Dense or convolution at 'middle' in Odd; found left"):
        heads.replace_output(Odd(), 3, output="middle")


def test_auxiliary_heads_are_refused_with_the_option():
    with pytest.raises(NetworkError, match=r"has 2 results; expected one.*use_aux=False"):
        heads.replace_output(backbones.build("nasnet_4_1056", use_aux=True), 2)


def test_plain_block_and_symbol_block_are_refused(tmp_path):
    class Plain(mx.gluon.Block):
        pass

    with pytest.raises(NetworkError, match="Plain is not a HybridBlock"):
        heads.replace_output(Plain(), 2)
    net = heads.fine_tune_net("lenet", 2)
    net(mx.nd.zeros((1, 1, 28, 28)))
    net.export(str(tmp_path / "n"))
    block = mx.gluon.SymbolBlock.imports(str(tmp_path / "n-symbol.json"), ["data"], str(tmp_path / "n-0000.params"))
    with pytest.raises(NetworkError, match="SymbolBlock, whose layers cannot be exchanged"):
        heads.replace_output(block, 3)


@pytest.mark.parametrize("classes", [1, 0, -3, 2.0, True, "2"])
def test_too_few_classes(classes):
    with pytest.raises(ConfigError, match="at least two classes; expected classes >= 2"):
        heads.fine_tune_net("lenet", classes)


def test_unknown_backbone_suggests():
    with pytest.raises(NetworkError, match=r"unknown backbone 'resnet18v2'; did you mean .*resnet18_v2"):
        heads.fine_tune_net("resnet18v2", 2)


def test_options_that_the_constructor_does_not_take():
    with pytest.raises(NetworkError, match="backbone 'resnet18_v2' cannot be built with"):
        backbones.build("resnet18_v2", colour="red")


def test_pretrained_from_a_path(tmp_path):
    source = backbones.build("lenet")
    source.initialize(mx.init.Normal(0.3))
    source(mx.nd.zeros((1, 1, 28, 28)))
    path = tmp_path / "lenet.params"
    source.save_parameters(str(path))
    net = heads.fine_tune_net("lenet", 2, pretrained=path)
    np.testing.assert_array_equal(net.features[0].weight.data().asnumpy(), source.features[0].weight.data().asnumpy())
    with pytest.raises(WeightsError, match=r"resnet18_v2"):
        heads.fine_tune_net("resnet18_v2", 2, pretrained=path)
    with pytest.raises(WeightsError, match=r"no weights .* for backbone 'lenet'; expected a tag of the catalog, or a "
                                           r"file"):
        heads.fine_tune_net("lenet", 2, pretrained=tmp_path / "none.params")


def test_two_contexts():
    net = heads.fine_tune_net("lenet", 2, ctx=[mx.cpu(0), mx.cpu(1)])
    assert net.output.weight.list_ctx() == [mx.cpu(0), mx.cpu(1)]
    heads.replace_output(net, 3)
    assert net.output.weight.list_ctx() == [mx.cpu(0), mx.cpu(1)]


def test_group_norm_equals_gluoncv():
    from gluon_ft.models.zoo import layers
    from gluon_ft.runtime import mxnet_import

    mxnet_import.import_gluoncv()
    from gluoncv.nn import GroupNorm

    ours, theirs = layers.GroupNorm(in_channels=64), GroupNorm(in_channels=64)
    for layer in (ours, theirs):
        layer.initialize()
    for name in ("gamma", "beta"):
        value = mx.nd.random.normal(shape=(64,))
        getattr(ours, name).set_data(value)
        getattr(theirs, name).set_data(value)
    x = mx.nd.random.normal(loc=2, shape=(2, 64, 5, 5))
    ours.hybridize()
    np.testing.assert_allclose(ours(x).asnumpy(), theirs(x).asnumpy(), atol=1e-5)


@pytest.mark.parametrize("call", [
    lambda: heads.fine_tune_net("lenet", 2), lambda: gluon_ft.fit(nn.Dense(2), [])], ids=["an output", "training"])
def test_the_numpy_interface_is_refused_in_one_line(call):
    """It stands in the first lines of D2L's notebooks."""
    mx.util.set_np()
    try:
        with pytest.raises(NetworkError, match=r"found npx.set_np\(\); leave npx.set_np\(\) out"):
            call()
    finally:
        mx.util.reset_np()
