"""Gluon to symbol and back: equal outputs, heads exchanged on either side, loaders as iterators, sources by name."""
from __future__ import annotations

import re

import mxnet as mx
import numpy as np
import pytest
import symbols
from test_symbolic_fit import CLASSES, QUIET, fit, model, moved, pictures

import gluon_ft
from gluon_ft import symbolic
from gluon_ft.data.batches import ArrayLoader
from gluon_ft.data.images.preprocessing import Preprocessing
from gluon_ft.errors import ConfigError, DataError, NetworkError, WeightsError
from gluon_ft.models import graph
from gluon_ft.symbolic import sources


def run(symbol, args, aux, data):
    inputs = {"data": data, **{n: mx.nd.zeros(len(data)) for n in symbol.list_arguments() if n.endswith("_label")}}
    bound = symbol.bind(mx.cpu(), {**args, **inputs}, aux_states=aux, grad_req="null")
    return bound.forward(is_train=False)[0].asnumpy()


def zoo(name="mobilenetv2_0.25", size=32):
    net = gluon_ft.backbones.build(name, classes=10)
    net.initialize(mx.init.Xavier())
    data = mx.nd.random.uniform(shape=(2, 3, size, size))
    net(data)
    return net, data


@pytest.mark.parametrize("name", ["mobilenetv2_0.25", "resnet18_v2", "squeezenet1.1", "gluoncv/resnet18_v1"])
def test_a_network_of_the_zoo_there_and_back(name):
    net, data = zoo(name, 224 if "squeeze" in name else 32)
    symbol, args, aux = symbolic.to_symbol(net)
    assert not [n for n in args if n.startswith(net.prefix)]
    wanted = net(data).asnumpy()
    # MXNet joins operators where a graph is only run forward, so the last bits differ.
    np.testing.assert_allclose(run(symbol, args, aux, data), wanted, rtol=1e-4, atol=1e-5)
    back = symbolic.to_gluon(symbol, args, aux)
    np.testing.assert_allclose(back(data).asnumpy(), wanted, rtol=1e-4, atol=1e-5)
    assert set(symbolic.parameter_names(net).values()) == set(args) | set(aux)
    again = gluon_ft.backbones.build(name, classes=10)
    again.initialize()
    again(data)
    assert symbolic.to_symbol(again)[0].list_arguments() == symbol.list_arguments(), "whatever was built before"


@pytest.mark.parametrize("name", ["mobilenetv2_0.25", "squeezenet1.1"])
def test_the_head_exchanged_on_either_side_has_the_same_features_below(name):
    net, data = zoo(name, 224 if "squeeze" in name else 32)
    symbol, args, aux = symbolic.to_symbol(net)
    new, kept = symbolic.get_fine_tune_model(symbol, args, CLASSES, None)
    below = graph.logits(new).get_children()[0]
    features = run(below, kept, aux, data).reshape(2, -1)
    if "mobilenet" in name:
        np.testing.assert_allclose(features, net.features(data).asnumpy().reshape(2, -1), rtol=1e-4, atol=1e-5)
    block = symbolic.fine_tune_block(symbol, args, aux, CLASSES, None, lr_mult=7)
    assert block(data).shape == (2, CLASSES)
    np.testing.assert_allclose(block.features(data).asnumpy().reshape(2, -1), features, rtol=1e-4, atol=1e-5)
    assert {p.lr_mult for p in block.output.collect_params().values()} == {7}
    assert gluon_ft.heads.replace_output(block, 3)(data).shape == (2, 3), "as any other network"
    round_trip = symbolic.to_symbol(block)
    np.testing.assert_allclose(run(*round_trip, data), block(data).asnumpy(), rtol=1e-5, atol=1e-6)


def test_a_symbol_as_a_block_gives_logits_trains_and_is_saved(tmp_path):
    new, args, aux = model()
    data = mx.nd.array(pictures(4)[0])
    block = symbolic.to_gluon(new, args, aux, frozen=["^bn_data", "^conv0", "^bn0", "^stage[12]"])
    np.testing.assert_allclose(block(data).softmax().asnumpy(), run(new, args, aux, data), rtol=1e-5, atol=1e-7)
    gluon_ft.fit(block, ArrayLoader(*pictures(), 8), None, QUIET)
    _, after, statistics = symbolic.to_symbol(block)
    before = {**args, **aux}
    went = {n for n, a in {**after, **statistics}.items() if not np.array_equal(a.asnumpy(), before[n].asnumpy())}
    assert not [n for n in went - {"bn_data_gamma"} if n.startswith(("stage1", "stage2", "bn0", "bn_data"))]
    assert {"stage3_unit1_bn1_moving_mean", "fc1_weight"} <= went
    block.save_parameters(str(tmp_path / "a.params"))
    other = symbolic.to_gluon(new, args, aux)
    other.load_parameters(str(tmp_path / "a.params"))
    np.testing.assert_array_equal(other(data).asnumpy(), block(data).asnumpy())


def test_what_gluon_had_frozen_stays_frozen_in_the_symbol():
    net, _ = zoo()
    gluon_ft.freeze(net.features)
    symbol, args, aux = symbolic.to_symbol(net, softmax=True)
    result = fit((symbol, args, aux), ArrayLoader(*pictures(), 8), config=QUIET.__class__(
        epochs=1, top_k=0, allow_empty_classes=True))
    assert moved((symbol, args, aux), result) == {"output_pred_weight"}
    back = symbolic.to_gluon(symbol, args, aux)
    assert [name for name, p in back.collect_params().items() if p.grad_req != "null"] == ["output_pred_weight"]


def test_networks_that_have_no_values_or_no_symbol():
    net = gluon_ft.backbones.build("resnet18_v1")
    with pytest.raises(NetworkError, match=r"parameter 'resnetv.*' has no value yet; call net.initialize"):
        symbolic.to_symbol(net)
    new, args, aux = model()
    with pytest.raises(WeightsError, match=r"1 auxiliary states .*no 'bn0_moving_var'"):
        symbolic.to_gluon(new, args, {k: v for k, v in aux.items() if k != "bn0_moving_var"})
    with pytest.raises(WeightsError, match="parameters are missing; found no 'conv0_weight'"):
        symbolic.to_gluon(new, {k: v for k, v in args.items() if k != "conv0_weight"}, aux)
    with pytest.raises(ConfigError, match="pattern 'stage9' matches nothing"):
        symbolic.to_gluon(new, args, aux, frozen=["stage9"])


def test_a_loader_serves_modules_own_fit_and_score():
    data, labels = pictures(10)
    batches = symbolic.LoaderIter(ArrayLoader(data, labels, 4))
    assert batches.provide_data[0].shape == (4, 3, 32, 32)
    for _ in range(2):
        assert [b.pad for b in batches] == [0, 0, 2]
        batches.reset()
    new, args, aux = model()
    module = mx.mod.Module(new)
    module.fit(batches, num_epoch=1, arg_params=args, aux_params=aux, optimizer_params={"learning_rate": 0.01})
    assert module.predict(batches).shape == (10, CLASSES)
    with pytest.raises(DataError, match="a batch of the loader is too large; expected at most 3; found 4"):
        symbolic.LoaderIter(ArrayLoader(data, labels, 4), batch_size=3)
    with pytest.raises(DataError, match="batch size not known; give batch_size"):
        symbolic.LoaderIter([(mx.nd.array(data), mx.nd.array(labels))])
    with pytest.raises(DataError, match="no images"):
        symbolic.LoaderIter([], batch_size=3)


def test_sources_by_backbone_and_by_checkpoint(tmp_path):
    found = symbolic.find_source("cifar_resnet20_v1")
    assert (found.preprocessing.size, found.checkpoint) == (32, None)
    symbol, _, _, frozen = found.symbolic(4, frozen=["features.0"])
    assert frozen
    assert all(any(re.search(p, n) for n in symbol.list_arguments()) for p in frozen)
    assert found.gluon(4, 10, frozen=["features.0"])(mx.nd.zeros((1, 3, 32, 32))).shape == (1, 4)
    published = symbols.resnet(18, width=0.125)
    mx.model.save_checkpoint(str(tmp_path / "resnet"), 0, published, *symbols.parameters(published))
    raw = symbolic.find_source(checkpoint=(tmp_path / "resnet", "0"))
    assert raw.preprocessing == sources.RAW, "bn_data normalises"
    assert raw.name == "resnet-0000"
    assert raw.gluon(4, 1, frozen=["^stage1"])(mx.nd.zeros((1, 3, 32, 32))).shape == (1, 4)
    assert raw.symbolic(4, "flatten0")[0].list_outputs() == ["softmax_output"]
    plain = symbols.vgg()
    mx.model.save_checkpoint(str(tmp_path / "vgg"), 0, plain, *symbols.parameters(plain))
    with pytest.raises(ConfigError, match=r"not known what the network of .*vgg takes; expected raw or imagenet"):
        symbolic.find_source(checkpoint=(tmp_path / "vgg", 0))
    assert symbolic.find_source(checkpoint=(tmp_path / "vgg", 0), preprocessing=Preprocessing()).checkpoint


def test_published_weights_of_the_catalog_are_found_beside(tmp_path, monkeypatch):
    symbol = symbols.resnet(18, width=0.125)
    args, aux = symbols.parameters(symbol)
    symbol.save(str(tmp_path / "imagenet1k-resnet-18-symbol.json"))
    mx.nd.save(str(tmp_path / "imagenet1k-resnet-18-0000.params"),
               {**{f"arg:{k}": v for k, v in args.items()}, **{f"aux:{k}": v for k, v in aux.items()}})
    monkeypatch.setenv("GLUON_FT_WEIGHTS", str(tmp_path))
    found = symbolic.find_source(weights="resnet-18:imagenet1k")
    assert found.preprocessing.range == (0, 255)
    assert set(found.checkpoint[1]) == set(args)


@pytest.mark.parametrize(("given", "message"), [
    ({}, "no network given; expected a backbone, weights of the catalog or a checkpoint"),
    ({"backbone": "resnet18_v1", "checkpoint": ("a", 0)}, "a checkpoint has its network and weights; found also"),
    ({"backbone": "resnet18_v1", "weights": "resnet50_v1b:gluon_in1k"}, "weights of another backbone; expected weights "
     "of resnet18_v1; found resnet50_v1b:gluon_in1k for resnet18_v1; give resnet50_v1b, or other weights"),
    ({"checkpoint": ("a", "last")}, "the checkpoint's epoch is not a number"),
    ({"backbone": "resnet18"}, "unknown backbone 'resnet18'; did you mean"),
    ({"weights": "mobilenetv2_1.0:coral"}, "no weights 'coral' for backbone 'mobilenetv2_1.0'"),
])
def test_networks_that_are_not_there(given, message):
    with pytest.raises(gluon_ft.UserError, match=message):
        symbolic.find_source(**given)
