"""Precision: refusals, graphs that compute in it, float16's loss scaling."""
import json

import mxnet as mx
import numpy as np
import pytest

import gluon_ft
from gluon_ft.engine import precision
from gluon_ft.engine.precision import LossScaler
from gluon_ft.errors import ConfigError
from gluon_ft.runtime import hardware


def test_unknown_precision_names_the_near_one():
    with pytest.raises(ConfigError, match=r"unknown precision 'bfloat'.*did you mean bfloat16"):
        precision.check("bfloat", [mx.cpu()])


def test_float32_runs_everywhere():
    precision.check("float32", [mx.cpu(), mx.gpu(3)])


def test_float16_is_for_gpus():
    with pytest.raises(ConfigError, match="float16 is not for this device; expected a GPU; found cpu; use bfloat16"):
        precision.check("float16", [mx.cpu()])
    precision.check("float16", [mx.gpu(0), mx.gpu(1)])


def test_bfloat16_is_for_cpus_that_have_it(monkeypatch):
    monkeypatch.setattr(hardware, "bfloat16_flags", lambda: ["avx512_bf16"])
    precision.check("bfloat16", [mx.cpu()])
    with pytest.raises(ConfigError, match="bfloat16 is not for this device; expected a CPU; found gpu"):
        precision.check("bfloat16", [mx.gpu(0)])
    monkeypatch.setattr(hardware, "bfloat16_flags", list)
    with pytest.raises(ConfigError, match=r"no instructions for bfloat16.*avx512_bf16.*use float32"):
        precision.check("bfloat16", [mx.cpu()])


def _operators(symbol):
    return [node["op"] for node in json.loads(symbol.tojson(remove_amp_cast=False))["nodes"]]


def test_convert_casts_around_convolutions_only_in_its_own_graph():
    symbol = mx.sym.Convolution(mx.sym.var("data"), kernel=(1, 1), num_filter=2, name="c")
    converted = precision.convert(symbol, "bfloat16")
    types = dict(zip(converted.get_internals().list_outputs(), converted.get_internals().infer_type(data="float32")[1]))
    assert types["c_output"] != np.float32 and _operators(converted).count("amp_cast") >= 4
    assert "amp_cast" not in _operators(symbol)
    # amp.init would have changed what this makes.
    assert "amp_cast" not in _operators(mx.sym.Convolution(mx.sym.var("data"), kernel=(1, 1), num_filter=2))
    assert precision.convert(symbol, "float32") is symbol
    assert precision.convert(symbol, "bfloat16", stay=["c"]).infer_type(data="float32")[1] == [np.float32]


def test_float16_graph_has_float32_parameters_and_result():
    symbol = mx.sym.FullyConnected(mx.sym.var("data"), num_hidden=2, name="d")
    converted = precision.convert(symbol, "float16")
    arguments, results, _ = converted.infer_type(data="float32")
    assert set(arguments) == {np.float32} and results == [np.float32]


def _trained(scaler, steps, spoil=()):
    """The weight after some steps on one linear layer; in the steps of `spoil` the loss overflows."""
    net = mx.gluon.nn.Dense(1, in_units=3, use_bias=False)
    net.initialize(mx.init.Constant(0.5))
    trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1, "momentum": 0.9})
    parameters = list(net.collect_params().values())
    for step in range(steps):
        x = mx.nd.array([[1, 2, 3 + step]])
        with mx.autograd.record():
            loss = net(x).square() * (1e38 if step in spoil else 0.01)
            scaled = scaler.scaled([loss]) if scaler else [loss]
        mx.autograd.backward(scaled)
        if scaler is None or scaler.ready(parameters):
            trainer.step(scaler.scale_of_step if scaler else 1)
    return net.weight.data().asnumpy()


def test_scaled_steps_equal_unscaled_ones():
    np.testing.assert_allclose(_trained(LossScaler(2.0 ** 10), 5), _trained(None, 5), rtol=1e-6)


def test_an_overflow_is_left_out_and_halves_the_scale():
    scaler = LossScaler(2.0 ** 10)
    spoiled = _trained(scaler, 3, spoil=(1, 2))
    assert (scaler.scale, scaler.skipped, scaler.good) == (2.0 ** 8, 2, 0)
    np.testing.assert_array_equal(spoiled, _trained(LossScaler(2.0 ** 10), 1))


def test_good_steps_in_a_row_double_the_scale_up_to_the_largest():
    scaler = LossScaler(2.0, every=2)
    _trained(scaler, 4)
    assert scaler.scale == 8.0
    scaler = LossScaler(LossScaler.LARGEST, every=1)
    scaler.good = 0
    weight = mx.gluon.Parameter("w", shape=(1,))
    weight.initialize()
    assert scaler.ready([weight]) and scaler.scale == LossScaler.LARGEST


def test_the_least_scale_is_1():
    scaler = LossScaler(1.0)
    _trained(scaler, 2, spoil=(0, 1))
    assert scaler.scale == 1.0 and scaler.skipped == 2


def test_state_survives_json_and_goes_on_alike():
    first = LossScaler(4.0, every=3)
    _trained(first, 2)
    second = LossScaler()
    second.restore(json.loads(json.dumps(first.state())))
    assert second.state() == first.state()
    _trained(first, 1), _trained(second, 1)
    assert first.scale == second.scale == 8.0


def test_frozen_parameters_are_not_asked_for_gradients():
    net = gluon_ft.fine_tune_net("lenet", 2)
    x = mx.nd.ones(gluon_ft.backbones.input_shape("lenet", 2))
    net(x)
    parameters = list(net.collect_params().values())
    parameters[0].grad_req = "null"
    scaler = LossScaler(8.0)
    with mx.autograd.record():
        loss = net(x).sum()
    mx.autograd.backward(scaler.scaled([loss]))
    assert scaler.ready(parameters)
