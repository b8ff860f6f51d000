"""Compute forms for evaluation: the network's outputs, for any input shape and changed parameters."""
import dataclasses
import warnings

import mxnet as mx
import numpy as np
import pytest
from small_nets import SHAPE, data, small

import gluon_ft
from gluon_ft.engine import fused


def test_forward_only_agrees_and_does_not_train(capfd):
    net = small()
    expected = net(data()).asnumpy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        form = fused.forward_only(net, input_shape=SHAPE)
        found = form(data()).asnumpy()
    assert form.form == "fused"
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert capfd.readouterr().err == ""
    before = {n: p.data().asnumpy() for n, p in net.collect_params().items()}
    with mx.autograd.record():
        out = form(data())
    np.testing.assert_array_equal(out.asnumpy(), found)
    for name, value in before.items():
        np.testing.assert_array_equal(net.collect_params()[name].data().asnumpy(), value)


def test_forward_only_takes_any_batch_size_and_map_size():
    net = small()
    form = fused.forward_only(net, input_shape=SHAPE)
    for shape in ((1, 3, 32, 32), (7, 3, 32, 32), (2, 3, 48, 40)):
        np.testing.assert_allclose(form(data(shape=shape)).asnumpy(), net(data(shape=shape)).asnumpy(), rtol=1e-4,
                                   atol=1e-4)


@pytest.mark.parametrize("which", ["weight", "gamma", "beta", "running_mean", "running_var"])
def test_refresh_sees_changed_parameters(which):
    net = small()
    form = fused.forward_only(net, input_shape=SHAPE)
    before = form(data()).asnumpy()
    for name, parameter in net.collect_params().items():
        if name.endswith(which):
            parameter.set_data(parameter.data() * 1.5 + 0.1)
    form.refresh()
    assert form.form == "fused"
    expected = net(data()).asnumpy()
    assert np.abs(expected - before).max() > 1e-3
    np.testing.assert_allclose(form(data()).asnumpy(), expected, rtol=1e-4, atol=1e-4)


def test_a_fused_form_that_is_off_is_not_used(monkeypatch):
    monkeypatch.setattr(fused, "TOLERANCE", -1.0)
    net = small()
    form = fused.forward_only(net, input_shape=SHAPE)
    assert form.form == "plain" and "fused outputs were off by" in form.reason
    np.testing.assert_array_equal(form(data()).asnumpy(), net(data()).asnumpy())


def test_many_images_are_evaluated_in_the_fused_form_few_in_the_plain_one(monkeypatch):
    net, made = small(), []
    forward_only = fused.forward_only
    monkeypatch.setattr(fused, "forward_only", lambda *args: made.append(forward_only(*args)) or made[-1])
    expected = net(data()).asnumpy()
    with fused.evaluating(net, 1, [mx.cpu()]) as run:
        np.testing.assert_array_equal(run(data()).asnumpy(), expected)
    assert not made
    with fused.evaluating(net, fused.WORTH_FUSING // data().size + 1, [mx.cpu()]) as run:
        np.testing.assert_allclose(run(data()).asnumpy(), expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(run(data()[:1]).asnumpy(), expected[:1], rtol=1e-4, atol=1e-4)
    assert [form.form for form in made] == ["fused"]
    assert made[0]._run is None


def test_parameters_in_another_type_than_float32_stay_as_they_are():
    net = small()
    net.cast("float64")
    form = fused.forward_only(net, input_shape=SHAPE)
    assert form.form == "plain" and "float32 only" in form.reason


@pytest.mark.parametrize("number", [1, 10 ** 6])  # plain, and fused
def test_a_mirrored_network_gives_the_mean_over_an_image_and_its_mirror_image(number):
    net = gluon_ft.fine_tune_net("cifar_resnet20_relu", 3)
    net.preprocessing = gluon_ft.Preprocessing(size=32, resize=32)
    data = mx.nd.array(np.random.RandomState(0).normal(size=(4, 3, 32, 32)))
    there, back = net(data).asnumpy(), net(data[:, :, :, ::-1]).asnumpy()
    with fused.evaluating(net, number, [mx.cpu()]) as run:
        np.testing.assert_allclose(run(data).asnumpy(), there, rtol=1e-3, atol=1e-3 * np.abs(there).max())
    net.preprocessing = dataclasses.replace(net.preprocessing, mirror=True)
    with fused.evaluating(net, number, [mx.cpu()]) as run:
        found = [run(data).asnumpy() for _ in range(2)]
    for each in found:
        np.testing.assert_allclose(each, (there + back) / 2, rtol=1e-3, atol=1e-3 * np.abs(there).max())
    assert np.abs(there - back).max() > 0.01 * np.abs(there).max()
