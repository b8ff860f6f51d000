"""The average is the mean that it says, of every parameter, and changes places with the network's values and back."""
from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn

from gluon_ft import freezing
from gluon_ft.data.batches import ArrayLoader
from gluon_ft.engine.precision import LossScaler
from gluon_ft.errors import CheckpointError, ConfigError, NetworkError
from gluon_ft.training.config import TrainConfig
from gluon_ft.training.ema import Average
from gluon_ft.training.step import Stepper


def network(ctx=None, hybrid=True):
    net = nn.HybridSequential()
    net.add(nn.Conv2D(4, 3, in_channels=1), nn.BatchNorm(in_channels=4), nn.Activation("relu"), nn.Flatten(),
            nn.Dense(3, in_units=4 * 16))
    net.initialize(mx.init.Xavier(), ctx=ctx or mx.cpu())
    if hybrid:
        net.hybridize()
    return net


def values(net):
    return {path: [d.asnumpy() for d in p.list_data()] for path, p in net._collect_params_with_prefix().items()}


def train(net, steps, after=None, lr=0.1, seed=0):
    """`steps` steps on random images; `after` is called after each."""
    rng = np.random.RandomState(seed)
    trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": lr})
    contexts = net[4].weight.list_ctx()
    for _ in range(steps):
        data = mx.nd.array(rng.rand(8, 1, 6, 6) * 3)
        parts = mx.gluon.utils.split_and_load(data, contexts)
        with mx.autograd.record():
            losses = [mx.gluon.loss.SoftmaxCELoss()(net(x), mx.nd.arange(len(x), ctx=x.context) % 3) for x in parts]
        mx.autograd.backward(losses)
        trainer.step(8)
        if after is not None:
            after()


@pytest.mark.parametrize("decay", [0.0, 0.6, 0.999])
def test_equals_the_mean_computed_in_numpy(decay):
    net = network()
    average = Average(net, decay)
    history = [{k: v[0].astype("float64") for k, v in values(net).items()}]

    def after():
        average.update()
        history.append({k: v[0].astype("float64") for k, v in values(net).items()})

    train(net, 12, after)
    expected = history[0]
    for n, now in enumerate(history[1:]):
        rate = min(decay, (1 + n) / (10 + n))
        expected = {path: rate * expected[path] + (1 - rate) * now[path] for path in now}
    got = average.arrays()
    for path, value in expected.items():
        np.testing.assert_allclose(got[path].asnumpy(), value, rtol=1e-4, atol=1e-6)
    for path in ("0.weight", "1.running_mean", "1.running_var", "4.bias"):
        assert not np.array_equal(history[0][path], history[-1][path])
        assert np.array_equal(got[path].asnumpy(), history[-1][path]) is (decay == 0)


def test_swapped_network_computes_with_the_averages_and_gets_its_own_values_back():
    net = network(ctx=[mx.cpu(0), mx.cpu(1)])
    average = Average(net, 0.9)
    train(net, 6, average.update)
    before, x = values(net), mx.nd.random.uniform(shape=(5, 1, 6, 6))
    own = net(x).asnumpy()
    alone = network(hybrid=False)
    average.copy_to(alone)
    with average.swapped():
        for ctx in (mx.cpu(0), mx.cpu(1)):
            np.testing.assert_allclose(net(x.as_in_context(ctx)).asnumpy(), alone(x).asnumpy(), rtol=1e-5, atol=1e-6)
        assert not np.allclose(net(x).asnumpy(), own, rtol=1e-3)
    after = values(net)
    for path in before:
        for a, b in zip(before[path], after[path]):
            np.testing.assert_array_equal(a, b)
    assert not np.array_equal(*before["1.running_mean"]), "devices keep their own statistics"
    np.testing.assert_array_equal(net(x).asnumpy(), own)


def test_values_come_back_after_an_error_inside():
    net = network()
    average = Average(net, 0.9)
    train(net, 3, average.update)
    before = values(net)
    with pytest.raises(RuntimeError), average.swapped():
        raise RuntimeError
    for path, value in values(net).items():
        np.testing.assert_array_equal(value[0], before[path][0])


def test_statistics_of_several_devices_are_averaged():
    net = network(ctx=[mx.cpu(0), mx.cpu(1)])
    average = Average(net, 0.0)
    train(net, 2, average.update)
    for path, data in values(net).items():
        np.testing.assert_allclose(average.arrays()[path].asnumpy(), np.mean(data, axis=0), rtol=1e-6)


def test_frozen_parameters_stay_equal_to_their_average_and_are_followed_once_free():
    net = network()
    freezing.freeze(net[0])
    freezing.freeze(net[1])
    average = Average(net, 0.99)
    train(net, 5, average.update)
    got = average.arrays()
    for path, value in values(net).items():
        assert np.array_equal(got[path].asnumpy(), value[0]) is (not path.startswith("4."))
    freezing.unfreeze(net)
    train(net, 2, average.update)
    freezing.freeze(net[0])
    weight = net[0].weight.data().asnumpy()
    distance = np.abs(average.arrays()["0.weight"].asnumpy() - weight).max()
    assert distance > 0
    train(net, 5, average.update)
    assert np.abs(average.arrays()["0.weight"].asnumpy() - weight).max() < distance, "it goes on to where it stands"


def test_goes_on_exactly_after_restoring(tmp_path):
    straight, first, second = network(), network(), network()
    for net in (first, second):
        for path, p in net._collect_params_with_prefix().items():
            p.set_data(straight._collect_params_with_prefix()[path].data())
    whole, half = Average(straight, 0.9), Average(first, 0.9)
    train(straight, 4, whole.update)
    train(straight, 4, whole.update, seed=1)
    train(first, 4, half.update)
    mx.nd.save(str(tmp_path / "average"), half.arrays())
    first.save_parameters(str(tmp_path / "net"))
    second.load_parameters(str(tmp_path / "net"))
    resumed = Average(second, 0.9)
    resumed.restore(mx.nd.load(str(tmp_path / "average")))
    assert resumed.updates == 4
    train(second, 4, resumed.update, seed=1)
    for path, array in whole.arrays().items():
        np.testing.assert_array_equal(resumed.arrays()[path].asnumpy(), array.asnumpy())


def test_parameters_of_unknown_shape_are_taken_in_at_the_first_update():
    net = nn.HybridSequential()
    net.add(nn.Dense(3), nn.Dense(2))
    net.initialize()
    average = Average(net, 0.9)
    assert "0.weight" not in average.arrays()
    net(mx.nd.ones((2, 5)))
    average.update()
    np.testing.assert_array_equal(average.arrays()["0.weight"].asnumpy(), net[0].weight.data().asnumpy())


def test_half_precision_is_averaged_in_single():
    net = nn.Dense(2, in_units=3)
    net.cast("float16")
    net.initialize(mx.init.One())
    average = Average(net, 0.999)
    average.updates = 20000  # past the rise of the decay
    net.weight.set_data(mx.nd.full((2, 3), 2, dtype="float16"))
    for _ in range(3):
        average.update()
    # Each step adds less than float16 could hold.
    np.testing.assert_allclose(average.arrays()["weight"].asnumpy(), 2 - 0.999 ** 3, rtol=1e-5)
    assert average.arrays()["weight"].dtype == np.float32
    with average.swapped():
        assert net.weight.data().dtype == np.float16


def test_what_does_not_fit():
    net = network()
    average = Average(net, 0.9)
    for decay in (1, -0.1, float("nan")):
        with pytest.raises(ConfigError, match="decay of the average out of range; expected 0 to below 1"):
            Average(net, decay)
    with pytest.raises(CheckpointError, match=r"0\.weight: the average belongs to another network"):
        average.restore({"#updates": mx.nd.array([1])})
    wrong = {**average.arrays(), "4.bias": mx.nd.zeros(7)}
    with pytest.raises(CheckpointError, match=r"4\.bias: .* expected shape \(3,\); found \(7,\)"):
        average.restore(wrong)
    with pytest.raises(CheckpointError, match="has no number of updates"):
        average.restore({k: v for k, v in average.arrays().items() if k != "#updates"})
    with pytest.raises(NetworkError, match="the average belongs to another network"):
        average.copy_to(nn.Dense(3, in_units=2))


def test_a_step_that_loss_scaling_left_out_does_not_move_the_average():
    # float16 itself is for GPUs; loss scaling does the same with float32's gradients.
    net = nn.HybridSequential()
    net.add(nn.Dense(3, in_units=4))
    net.initialize(mx.init.Xavier())
    loader = ArrayLoader(np.random.RandomState(0).randn(8, 4), np.arange(8) % 3, 4)
    stepper = Stepper(net, TrainConfig(lr=0.5, ema=0.9), [mx.cpu()], loader, None, 3)
    stepper.scaler = LossScaler(1.0)
    stepper.begin(1)
    first, second = loader
    stepper.step(first, 1, 0)
    before = {name: array.asnumpy() for name, array in stepper.average.arrays().items()}
    weight = net[0].weight.data().asnumpy()
    stepper.scaler.scale = float("inf")
    stepper.step(second, 1, 1)
    assert stepper.scaler.skipped == 1
    np.testing.assert_array_equal(net[0].weight.data().asnumpy(), weight)
    assert not np.array_equal(before["0.weight"], weight), "there is something to move to"
    for name, array in stepper.average.arrays().items():
        np.testing.assert_array_equal(array.asnumpy(), before[name], err_msg=name)
