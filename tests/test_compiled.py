"""Compute forms: the same parameters, gradients and statistics as the network itself, to rounding."""
import json
import warnings

import numpy as np
import pytest
from mxnet.gluon import HybridBlock, nn

import gluon_ft
from gluon_ft import freezing, hardware, mx, tracing
from gluon_ft.errors import ConfigError, NetworkError
from gluon_ft.training import compiled, compiled_graph

SHAPE = (4, 3, 32, 32)
needs_bfloat16 = pytest.mark.skipif(not hardware.bfloat16_flags(), reason="this CPU has no bfloat16")


class Relu6(HybridBlock):
    """The activation of the MobileNets."""

    def hybrid_forward(self, F, x):
        return F.clip(x, 0, 6)


def small(scale=True, seed=0):
    """Convolutions of 16 and of 24 channels, depthwise ones, BatchNorms with relu6 that clips on both sides."""
    mx.random.seed(seed)
    net = nn.HybridSequential()
    net.add(nn.Conv2D(16, 3, padding=1, use_bias=False), nn.BatchNorm(scale=scale), Relu6())
    net.add(nn.Conv2D(24, 1, use_bias=False), nn.BatchNorm(scale=scale))
    net.add(nn.Conv2D(48, 1, use_bias=False), nn.BatchNorm(scale=scale), Relu6())
    net.add(nn.Conv2D(48, 3, padding=1, strides=2, groups=48, use_bias=False), nn.BatchNorm(scale=scale), Relu6())
    net.add(nn.GlobalAvgPool2D(), nn.Dense(3))
    net.initialize(mx.init.Xavier())
    net(data())
    for name, parameter in net.collect_params().items():
        if name.endswith("gamma") and scale:
            parameter.set_data(mx.nd.random.uniform(1, 4, parameter.shape))
        if name.endswith("beta"):
            parameter.set_data(mx.nd.random.uniform(0, 4, parameter.shape))
    return net


def data(seed=1, shape=SHAPE):
    return mx.nd.array(np.random.RandomState(seed).randn(*shape))


def step(run, net):
    """One step's result, gradients and running statistics; the statistics are put back."""
    parameters = net.collect_params()
    before = {n: p.data().copy() for n, p in parameters.items() if "running" in n}
    for parameter in parameters.values():
        if parameter.grad_req != "null":
            parameter.grad()[:] = 0
    with mx.autograd.record():
        out = run(data())
        loss = mx.gluon.loss.SoftmaxCrossEntropyLoss()(out, mx.nd.array([0, 1, 2, 0]))
    loss.backward()
    gradients = {n: p.grad().asnumpy() for n, p in parameters.items() if p.grad_req != "null"}
    statistics = {n: parameters[n].data().asnumpy() for n in before}
    for name, value in before.items():
        parameters[name].set_data(value)
    return out.asnumpy(), gradients, statistics


def agree(found, expected, gradients, rest):
    """Largest differences: of gradients relative to the largest gradient of all, of results and statistics each to
    the largest of its own."""
    largest = max(np.abs(g).max() for g in expected[1].values())
    assert found[1].keys() == expected[1].keys()
    for name, value in expected[1].items():
        assert np.abs(found[1][name] - value).max() <= gradients * largest, name
    assert np.abs(found[0] - expected[0]).max() <= rest * np.abs(expected[0]).max()
    for name, value in expected[2].items():
        assert np.abs(found[2][name] - value).max() <= rest * max(1, np.abs(value).max()), name


def operators(form):
    nodes = json.loads(form._run._cached_graph[1].tojson(remove_amp_cast=False))["nodes"]
    return [node["op"] for node in nodes if node["op"] != "null"]


def test_relu6_is_made_of_onednns_operators_with_equal_results():
    net = small()
    expected = step(net, net)
    form = compiled.trainable(net, input_shape=SHAPE)
    assert form.form == "rewritten" and "clip" not in operators(form)
    agree(step(form, net), expected, 1e-5, 1e-5)
    moved = [name for name in expected[2] if np.abs(expected[2][name] - net.collect_params()[name].data().asnumpy())
             .max() > 1e-3]
    assert moved, "the statistics that were compared had moved"


def test_both_sides_of_relu6_were_reached():
    net = small()
    before = nn.HybridSequential()
    for block in list(net._children.values())[:2]:
        before.add(block)
    with mx.autograd.record(train_mode=True):
        values = before(data()).asnumpy()
    assert (values < 0).any() and (values > 6).any()


def test_a_guard_is_where_layouts_differ():
    net = small()
    graph = tracing.symbol(net)
    shapes = {n: p.shape for n, p in net.collect_params().items()}
    rewritten, constants = compiled_graph.for_training(graph, shapes)
    nodes = json.loads(rewritten.tojson())["nodes"]
    guards = [n for n in nodes if n["op"] == "slice_axis"]
    # 16 channels before a convolution to 24, and 48 channels between 24 and a depthwise one; not behind the last.
    assert len(guards) == 2
    assert sorted({len(v) for v in constants.values()}) == [16, 48]


def test_the_constants_stay_and_are_not_the_networks():
    net = small()
    names = set(net.collect_params())
    form = compiled.trainable(net, input_shape=SHAPE)
    trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1, "wd": 0.1})
    for _ in range(3):
        with mx.autograd.record():
            loss = form(data()).sum()
        loss.backward()
        trainer.step(4)
    assert set(net.collect_params()) == names
    constants = {n: p for n, p in form._run.collect_params().items() if n not in names}
    assert constants
    for name, parameter in constants.items():
        value = {"gamma": -1, "beta": 6, "mean": 0, "var": 1 - 1e-5}[name.split("_")[-2]]
        assert (parameter.data().asnumpy() == np.float32(value)).all()


@pytest.mark.parametrize("name", ["mobilenetv2_0.25", "mobilenet0.25", "squeezenet1.1", "resnet18_v1"])
def test_backbones_train_alike(name):
    shape = (2, 3, 224, 224) if name.startswith("squeeze") else (4, 3, 64, 64)
    net = gluon_ft.fine_tune_net(name, 3)
    net(data(shape=shape))
    form = compiled.trainable(net, input_shape=shape)
    assert form.form == ("rewritten" if name.startswith("mobile") else "plain")
    x, gradients, results = data(shape=shape), {}, {}
    for which, run in (("net", net), ("form", form)):
        mx.random.seed(0)
        with mx.autograd.record():
            out = run(x)
            loss = (out * mx.nd.arange(1, 4)).sum()
        loss.backward()
        results[which] = out.asnumpy()
        gradients[which] = {n: p.grad().asnumpy() for n, p in net.collect_params().items() if p.grad_req != "null"}
    largest = max(np.abs(g).max() for g in gradients["net"].values())
    if not name.startswith("squeeze"):  # its dropout draws other numbers
        np.testing.assert_allclose(results["form"], results["net"], rtol=1e-3, atol=1e-4)
        for key, value in gradients["net"].items():
            # Through 53 BatchNorms over few numbers, rounding grows.
            assert np.abs(gradients["form"][key] - value).max() <= 1e-2 * largest, key


def test_fixed_gamma_and_clip_elsewhere_stay_as_they_are():
    net = small(scale=False)
    assert "clip" in operators(compiled.trainable(net, input_shape=SHAPE))
    net = nn.HybridSequential()
    net.add(nn.Conv2D(16, 3), Relu6())
    net.initialize()
    assert compiled.trainable(net, input_shape=SHAPE).form == "plain"


def test_frozen_parts_stay_frozen():
    net = small()
    for block in list(net._children.values())[:5]:
        freezing.freeze(block)
    form = compiled.trainable(net, input_shape=SHAPE)
    expected, found = step(net, net), step(form, net)
    agree(found, expected, 1e-5, 1e-5)
    held = list(expected[2])[:4]
    for name in held:
        np.testing.assert_array_equal(found[2][name], net.collect_params()[name].data().asnumpy())
    assert not any(name.startswith(net[0].prefix) for name in found[1])


def test_a_change_of_batchnorms_mode_is_noticed():
    net = small()
    form = compiled.trainable(net, input_shape=SHAPE)
    free = step(form, net)
    freezing.set_batchnorm(net, "frozen")
    held = step(form, net)
    assert np.abs(held[0] - free[0]).max() > 1e-2
    agree(held, step(net, net), 1e-5, 1e-5)
    freezing.set_batchnorm(net, "train")
    np.testing.assert_array_equal(step(form, net)[0], free[0])


def test_shapes_may_be_known_only_from_the_input():
    net = nn.HybridSequential()
    net.add(nn.Conv2D(16, 3, use_bias=False), nn.BatchNorm(), Relu6(), nn.Dense(2))
    net.initialize()
    form = compiled.trainable(net, input_shape=SHAPE)
    assert form.form == "rewritten"
    with mx.autograd.record():
        form(data()).backward()
    assert net[0].weight.grad().shape == (16, 3, 3, 3)


def test_what_cannot_be_traced_is_used_as_it_is_in_float32_only():
    class Plain(mx.gluon.Block):
        def __init__(self):
            super().__init__()
            self.out = nn.Dense(2, in_units=3)

        def forward(self, x):
            return self.out(x)

    net = Plain()
    net.initialize()
    for make in (compiled.trainable, compiled.forward_only):
        form = make(net, input_shape=(2, 3))
        assert form.form == "plain" and "not a HybridBlock" in form.reason and form(mx.nd.ones((2, 3))).shape == (2, 2)
    if hardware.bfloat16_flags():
        with pytest.raises(NetworkError, match="not a HybridBlock"):
            compiled.trainable(net, "bfloat16")


def test_precision_is_checked():
    with pytest.raises(ConfigError, match="float16 is not for this device"):
        compiled.trainable(small(), "float16")
    with pytest.raises(ConfigError, match="unknown precision 'float8'"):
        compiled.forward_only(small(), "float8")


def test_forward_only_agrees_and_does_not_train(capfd):
    net = small()
    expected = net(data()).asnumpy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        form = compiled.forward_only(net, input_shape=SHAPE)
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
    form = compiled.forward_only(net, input_shape=SHAPE)
    for shape in ((1, 3, 32, 32), (7, 3, 32, 32), (2, 3, 48, 40)):
        np.testing.assert_allclose(form(data(shape=shape)).asnumpy(), net(data(shape=shape)).asnumpy(), rtol=1e-4,
                                   atol=1e-4)


@pytest.mark.parametrize("which", ["weight", "gamma", "beta", "running_mean", "running_var"])
def test_refresh_sees_changed_parameters(which):
    net = small()
    form = compiled.forward_only(net, input_shape=SHAPE)
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
    monkeypatch.setattr(compiled, "TOLERANCE", -1.0)
    net = small()
    form = compiled.forward_only(net, input_shape=SHAPE)
    assert form.form == "plain" and "fused outputs were off by" in form.reason
    np.testing.assert_array_equal(form(data()).asnumpy(), net(data()).asnumpy())


def test_making_a_form_leaves_mxnets_random_numbers_alone():
    net, numbers = small(), []
    for make in (lambda: None, lambda: compiled.forward_only(net, input_shape=SHAPE),
                 lambda: compiled.trainable(net, input_shape=SHAPE)):
        mx.random.seed(5)
        make()
        numbers.append(mx.nd.random.uniform(shape=(4,)).asnumpy())
    np.testing.assert_array_equal(numbers[0], numbers[1])
    np.testing.assert_array_equal(numbers[0], numbers[2])


@needs_bfloat16
def test_bfloat16_trains_the_same_float32_parameters():
    net = small()
    expected = step(net, net)
    form = compiled.trainable(net, "bfloat16")
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
    (net if before == "plain" else compiled.forward_only(net, input_shape=SHAPE))(data()).wait_to_read()
    found = step(compiled.trainable(net, "bfloat16"), net)
    agree(found, step(net, net), 0.1, 0.05)


@needs_bfloat16
def test_bfloat16_frozen_and_forward_only():
    net = small()
    freezing.freeze(net[0]), freezing.freeze(net[1])
    found = step(compiled.trainable(net, "bfloat16"), net)
    assert net[0].weight.name not in found[1]
    np.testing.assert_array_equal(found[2][net[1].running_mean.name], net[1].running_mean.data().asnumpy())
    expected = net(data()).asnumpy()
    out = compiled.forward_only(net, "bfloat16", SHAPE)(data()).asnumpy()
    assert np.abs(out - expected).max() <= 0.05 * np.abs(expected).max()


@needs_bfloat16
def test_bfloat16_leaves_small_maps_of_1x1_convolutions_in_float32():
    net = nn.HybridSequential()
    net.add(nn.Conv2D(32, 1, use_bias=False, in_channels=16), nn.GlobalAvgPool2D(), nn.Dense(2))
    net.initialize()
    form = compiled.trainable(net, "bfloat16")
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
        form = compiled.trainable(net, "bfloat16")
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
    form = compiled.trainable(net, "float16")
    with mx.autograd.record():
        loss = form(data().as_in_context(mx.gpu(0))).sum()
    loss.backward()
    assert np.isfinite(net[0].weight.grad().asnumpy()).all()
