"""ONNX Runtime as the engine of what only runs forward: the same results, chosen by measuring, MXNet where it fails."""
from __future__ import annotations

import json

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn

import gluon_ft
from gluon_ft.engine import choice, fused, onnx_runtime
from gluon_ft.errors import ConfigError
from gluon_ft.io import paths
from gluon_ft.models import registry
from gluon_ft.training.feature_cache import features

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SHAPE = (3, 20, 20)


def network(*behind) -> nn.HybridSequential:
    net = nn.HybridSequential()
    net.add(nn.Conv2D(8, 3, padding=1), nn.BatchNorm(), nn.Activation("relu"), nn.MaxPool2D(), *behind,
            nn.Flatten(), nn.Dense(4))
    net.initialize(mx.init.Xavier())
    return net


class Odd(nn.HybridBlock):
    """An operator without an ONNX form."""

    def hybrid_forward(self, F, x):
        return F.sort(x, axis=1)


def images(number=4):
    return mx.nd.array(np.random.RandomState(0).uniform(-1, 1, (number, *SHAPE)))


@pytest.mark.parametrize("name, size", [("mobilenetv2_0.25", 64), ("resnet18_v1b", 64), ("squeezenet1.1", 224),
                                        ("mobilenetv3_small", 64), ("efficientnet_lite0", 64), ("resnest14", 64),
                                        ("cifar_resnet20_v2", 32), ("lenet", 28)])
def test_a_backbone_of_each_kind(name, size):
    net = gluon_ft.fine_tune_net(name, 3, pretrained=False)
    data = mx.nd.array(np.random.RandomState(0).uniform(-1, 1, (2, registry.get(name).channels, size, size)))
    expected = net(data).asnumpy()
    form = fused.forward_only(net, input_shape=data.shape, engine="onnxruntime")
    assert form.form == "onnxruntime"
    np.testing.assert_allclose(form(data).asnumpy(), expected, atol=1e-5 * np.abs(expected).max())


def test_a_refresh_takes_new_weights_and_statistics():
    net, data = network(), images()
    net(data)
    form = fused.forward_only(net, input_shape=data.shape, engine="onnxruntime")
    before = form(data).asnumpy()
    for parameter in net.collect_params().values():
        parameter.set_data(parameter.data() * 0.5 + 0.1)
    assert np.array_equal(form(data).asnumpy(), before)
    form.refresh()
    np.testing.assert_allclose(form(data).asnumpy(), net(data).asnumpy(), rtol=1e-4, atol=1e-5)


def test_parameters_without_shapes_are_initialised():
    net, data = network(), images()
    form = fused.forward_only(net, input_shape=data.shape, engine="onnxruntime")
    np.testing.assert_allclose(form(data).asnumpy(), net(data).asnumpy(), rtol=1e-4, atol=1e-5)


def test_a_network_without_an_onnx_form_runs_in_mxnet_and_that_is_said_once(capsys, monkeypatch):
    monkeypatch.setattr(fused, "_said", set())
    net, data = network(Odd()), images()
    for _ in range(2):
        form = fused.forward_only(net, input_shape=data.shape, engine="onnxruntime")
        np.testing.assert_allclose(form(data).asnumpy(), net(data).asnumpy(), rtol=1e-4, atol=1e-5)
        assert form.form != "onnxruntime" and "operator sort" in form.reason
    assert capsys.readouterr().err.count("operator sort has no ONNX form") == 1


def test_results_that_differ_are_mxnets(monkeypatch, capsys):
    monkeypatch.setattr(fused, "_said", set())
    net, data = network(), images()
    net(data)
    run = onnx_runtime.Session.__call__
    monkeypatch.setattr(onnx_runtime.Session, "__call__", lambda self, given: run(self, given) * 1.01)
    form = fused.forward_only(net, input_shape=data.shape, engine="onnxruntime")
    np.testing.assert_allclose(form(data).asnumpy(), net(data).asnumpy(), rtol=1e-4, atol=1e-5)
    assert form.form != "onnxruntime"
    assert "MXNet is used" in capsys.readouterr().err


def test_the_faster_engine_is_measured_once_and_remembered(monkeypatch):
    net, data = network(), images()
    net(data)
    form = fused.forward_only(net, input_shape=data.shape, engine="auto")
    known = json.loads((paths.home_folder() / choice.FILE).read_text())
    (key, found), = [(k, v) for k, v in known.items() if v["input"] == list(SHAPE)][-1:]
    assert (form.form == "onnxruntime") == (found["engine"] == "onnxruntime")
    assert set(found["images_per_second"]) == {"mxnet", "onnxruntime"}
    assert found["engine"] == max(found["images_per_second"], key=found["images_per_second"].get)
    monkeypatch.setattr(choice, "fastest", lambda *_: pytest.fail("measured again"))
    for engine, forms in (("onnxruntime", {"onnxruntime"}), ("mxnet", {"fused", "plain"})):
        known[key] = {**found, "engine": engine}
        (paths.home_folder() / choice.FILE).write_text(json.dumps(known))
        assert fused.forward_only(net, input_shape=data.shape, engine="auto").form in forms


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 3}', '{"a": {"engine": "rm -rf"}}'])
def test_a_damaged_memory_counts_as_empty(text, tmp_path, monkeypatch):
    monkeypatch.setenv(paths.HOME_VARIABLE, str(tmp_path))
    (tmp_path / choice.FILE).write_text(text)
    assert choice.remembered("a") is None


def test_the_key_depends_on_network_and_size_but_not_on_names():
    def key(net, size=20):
        data = mx.nd.zeros((1, 3, size, size))
        net(data)
        return choice.key_of(net(mx.sym.var("data")), {n: p.shape for n, p in net.collect_params().items()}, data.shape)

    same = key(network())
    assert key(network()) == same
    assert same not in {key(network(), 24), key(network(nn.Activation("tanh")))}


@pytest.mark.parametrize("engine, number, result", [("auto", 10, "mxnet"), ("auto", 10_000, "auto"),
                                                    ("onnxruntime", 1, "onnxruntime"), ("mxnet", 10_000, "mxnet")])
def test_few_and_small_images_are_not_worth_measuring(engine, number, result):
    with choice.using(engine):
        assert fused.engine_for(number, (3, 64, 64)) == result


def test_without_the_package_auto_is_mxnet_and_asking_for_it_is_an_error(monkeypatch):
    monkeypatch.setattr(onnx_runtime, "missing", lambda: "onnxruntime")
    with choice.using("auto"):
        assert choice.asked() == "mxnet"
    with pytest.raises(ConfigError, match=r"needs the package onnxruntime.*pip install"), choice.using("onnxruntime"):
        pass


def test_an_unknown_engine_is_refused():
    with pytest.raises(ConfigError, match=r"unknown engine 'onyx'.*onnxruntime"), choice.using("onyx"):
        pass


def test_features_by_both_engines_agree():
    data = np.random.RandomState(0).uniform(-1, 1, (40, 3, 32, 32)).astype(np.float32)
    net = gluon_ft.fine_tune_net("cifar_resnet20_relu", 3, pretrained=False)
    loader = gluon_ft.ArrayLoader(data, np.zeros(40, int), batch_size=8)
    found = {}
    for engine in ("mxnet", "onnxruntime"):
        with choice.using(engine):
            found[engine], _ = features.extract(net, loader)
    np.testing.assert_allclose(found["onnxruntime"], found["mxnet"], atol=1e-5 * np.abs(found["mxnet"]).max())
