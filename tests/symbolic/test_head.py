"""get_fine_tune_model: what it builds, exactly which parameters it keeps, and what it refuses."""
from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest
import symbols

from gluon_ft.errors import ConfigError, NetworkError, WeightsError
from gluon_ft.models import graph
from gluon_ft.symbolic import get_fine_tune_model


def nodes(symbol):
    return {node.name: node for node in graph.nodes(symbol)}


@pytest.mark.parametrize("depth", [18, 50, 152])
def test_published_resnets_get_the_published_head(depth):
    symbol = symbols.resnet(depth)
    args, _ = symbols.parameters(symbol)
    new, kept = get_fine_tune_model(symbol, args, 257, "flatten0")
    assert set(args) - set(kept) == {"fc1_weight", "fc1_bias"}
    assert all(kept[name] is args[name] for name in kept)
    found = nodes(new)
    assert found["fc1"].op == "FullyConnected"
    assert found["fc1"].attrs["num_hidden"] == "257"
    assert found["softmax"].op == "SoftmaxOutput"
    assert new.list_outputs() == ["softmax_output"]
    assert new.infer_shape(data=(2, 3, 32, 32))[1] == [(2, 257)]
    assert get_fine_tune_model(symbol, args, 257, None)[0].tojson() == new.tojson()


def test_names_that_contain_the_heads_name_are_kept():
    data = mx.sym.FullyConnected(mx.sym.var("data"), num_hidden=6, name="fc10")
    data = mx.sym.FullyConnected(data, num_hidden=5, name="stage1_fc1")
    symbol = symbols.headed(mx.sym.Flatten(data, name="flatten0"), 4, "fc1")
    args = {n: mx.nd.ones(s) for n, s in zip(symbol.list_arguments(), symbol.infer_shape(data=(2, 3))[0])
            if n not in ("data", "softmax_label")}
    kept = get_fine_tune_model(symbol, args, 3)[1]
    assert sorted(kept) == ["fc10_bias", "fc10_weight", "stage1_fc1_bias", "stage1_fc1_weight"]


def test_a_head_of_the_same_name_and_size_starts_fresh():
    symbol = symbols.resnet(18, classes=7, width=0.125)
    args, _ = symbols.parameters(symbol)
    assert not {"fc1_weight", "fc1_bias"} & set(get_fine_tune_model(symbol, args, 7)[1])


def test_vgg_keeps_fc6_and_fc7():
    symbol = symbols.vgg()
    args, _ = symbols.parameters(symbol)
    new, kept = get_fine_tune_model(symbol, args, 5, layer_name=None)
    assert set(args) - set(kept) == {"fc8_weight", "fc8_bias"}
    assert nodes(new)["fc1"].inputs[0] == nodes(new)["drop7"].index
    assert set(args) - set(get_fine_tune_model(symbol, args, 5, layer_name="relu6")[1]) == {
        "fc7_weight", "fc7_bias", "fc8_weight", "fc8_bias"}


def test_inception_bn_by_its_layers_name():
    symbol = symbols.inception_bn()
    args, _ = symbols.parameters(symbol)
    new, kept = get_fine_tune_model(symbol, args, 5, layer_name="flatten")
    assert set(args) - set(kept) == {"fc1_weight", "fc1_bias"}
    assert new.list_auxiliary_states() == symbol.list_auxiliary_states()


@pytest.mark.parametrize("pooled", [False, True])
def test_a_convolution_as_head_is_found_and_its_function_expressible(pooled):
    body = mx.sym.Convolution(mx.sym.var("data"), num_filter=6, kernel=(3, 3), name="conv1")
    if not pooled:
        body = mx.sym.Pooling(body, global_pool=True, kernel=(1, 1), pool_type="avg", name="pool")
    body = mx.sym.Convolution(body, num_filter=4, kernel=(1, 1), name="conv2")
    if pooled:
        body = mx.sym.Pooling(body, global_pool=True, kernel=(1, 1), pool_type="avg", name="pool")
    symbol = mx.sym.SoftmaxOutput(mx.sym.Flatten(body), name="softmax")
    args, _ = symbols.parameters(symbol, size=8)
    new, kept = get_fine_tune_model(symbol, args, 4, None)
    assert set(kept) == {"conv1_weight", "conv1_bias"}
    same = {**kept, "fc1_weight": args["conv2_weight"].reshape((4, 6)), "fc1_bias": args["conv2_bias"]}
    data = mx.nd.random.normal(shape=(2, 3, 8, 8))
    results = [s.bind(mx.cpu(), {**a, "data": data, "softmax_label": mx.nd.zeros(2)}, grad_req="null").forward()[0]
               for s, a in ((symbol, args), (new, same))]
    np.testing.assert_allclose(results[0].asnumpy(), results[1].asnumpy(), rtol=1e-5, atol=1e-6)


def small():
    symbol = symbols.resnet(18, width=0.125)
    return symbol, symbols.parameters(symbol)[0]


def test_a_wrong_layer_lists_the_near_ones():
    with pytest.raises(NetworkError, match="the symbol has no layer 'flaten0'; did you mean flatten0"):
        get_fine_tune_model(*small(), 5, "flaten0")
    with pytest.raises(NetworkError, match="no layer 'flatten0_output'; did you mean flatten0"):
        get_fine_tune_model(*small(), 5, "flatten0_output")


def test_a_taken_name_is_told_and_another_may_be_given():
    symbol, args = small()
    with pytest.raises(NetworkError, match="has a node 'fc1' already; give the new layer another name: head_name='new"):
        get_fine_tune_model(symbol, args, 5, "fc1")
    with pytest.raises(NetworkError, match=r"has a node 'softmax' already; .*output_name='new_softmax'"):
        get_fine_tune_model(symbol, args, 5, "softmax", head_name="fc2")
    new, kept = get_fine_tune_model(symbol, args, 5, "fc1", head_name="fc2")
    assert set(kept) == set(args)
    assert {"fc1", "fc2"} <= set(nodes(new))


def test_parameters_of_another_network_are_refused():
    symbol, args = small()
    other = symbols.resnet(18, width=0.25)
    with pytest.raises(WeightsError, match=r"'conv0_weight' is another network's; expected \(8, \?, 7, 7\); found"):
        get_fine_tune_model(symbol, symbols.parameters(other)[0], 5)
    vgg = symbols.parameters(symbols.vgg())[0]
    with pytest.raises(WeightsError, match="59 of the network's 59 parameters are missing; found no 'bn_data_gamma'"):
        get_fine_tune_model(symbol, vgg, 5)
    del args["stage2_unit1_conv1_weight"]
    with pytest.raises(WeightsError, match=r"1 of the network's 59 .*did you mean stage\d_unit\d_conv1_weight"):
        get_fine_tune_model(symbol, args, 5)


@pytest.mark.parametrize("classes", [1, 0, True, 2.0, "5"])
def test_fewer_than_two_classes_are_refused(classes):
    with pytest.raises(ConfigError, match="at least two classes; expected num_classes >= 2"):
        get_fine_tune_model(*small(), classes)


def test_a_symbol_without_a_classifier_at_its_end():
    body = mx.sym.Convolution(mx.sym.var("data"), num_filter=3, kernel=(3, 3), name="conv1")
    with pytest.raises(NetworkError, match="does not end in a fully connected layer or a 1x1 convolution; found Conv"):
        get_fine_tune_model(body, {}, 5, None)
    both = mx.sym.Group([body, mx.sym.Flatten(body, name="flat")])
    with pytest.raises(NetworkError, match="the symbol has 2 results; expected one; found conv1_output, flat_output"):
        get_fine_tune_model(both, {}, 5, None)
    image = mx.sym.FullyConnected(mx.sym.var("image"), num_hidden=3, name="fc9")
    with pytest.raises(NetworkError, match="the symbol has no input 'data'; found image"):
        get_fine_tune_model(mx.sym.FullyConnected(image, num_hidden=2, name="fc1"), {}, 5, "fc9")
