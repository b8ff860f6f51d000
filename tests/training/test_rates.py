"""Rates by stage, parameters without decay, stages set free by epoch: what really moves in a Trainer's step."""
from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn

from gluon_ft import freezing
from gluon_ft.errors import ConfigError, NetworkError
from gluon_ft.training import rates

SHAPE = (1, 1, 16, 16)
STEM, STAGE1, STAGE2, OUTPUT = "0.", "2.", "4.", "6."


def network():
    """stem, stage1, stage2, output; each stage a convolution and its BatchNorm."""
    mx.random.seed(0)
    net = nn.HybridSequential()
    for channels, previous in ((4, 1), (6, 4), (8, 6)):
        net.add(nn.Conv2D(channels, 3, strides=2, padding=1, in_channels=previous), nn.BatchNorm(in_channels=channels))
    net.add(nn.Dense(3, in_units=8 * 4))
    net.initialize(mx.init.Xavier())
    net[6].collect_params().setattr("lr_mult", 10)
    net.hybridize()
    net(mx.nd.zeros(SHAPE))
    return net


def parameters(net):
    return net._collect_params_with_prefix()


def stage_of(path):
    return ("stem", "stem", "stage1", "stage1", "stage2", "stage2", "output")[int(path.split(".")[0])]


def snapshot(net):
    return {path: p.data().asnumpy().copy() for path, p in parameters(net).items()}


def moved(net, before):
    return {path for path, value in snapshot(net).items() if not np.array_equal(value, before[path])}


def step(net, trainer=None, **options):
    """One step on random images."""
    trainer = trainer or mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1, **options})
    data = mx.nd.array(np.random.RandomState(1).rand(4, *SHAPE[1:]) * 3)
    with mx.autograd.record():
        loss = mx.gluon.loss.SoftmaxCELoss()(net(data), mx.nd.arange(4) % 3)
    loss.backward()
    trainer.step(4)
    mx.nd.waitall()
    return trainer


def test_each_stage_has_the_rate_of_the_one_above_times_decay():
    net = network()
    assert rates.discriminative(net, 0.5, SHAPE) == {"stem": 0.125, "stage1": 0.25, "stage2": 0.5, "output": 1}
    wanted = {"stem": 0.125, "stage1": 0.25, "stage2": 0.5, "output": 10}
    assert {path: p.lr_mult for path, p in parameters(net).items()} == {
        path: wanted[stage_of(path)] for path in parameters(net)}


def test_a_step_of_the_trainer_follows_the_rates():
    plain, changed = network(), network()
    before = snapshot(plain)
    rates.discriminative(changed, 0.5, SHAPE)
    for net in (plain, changed):
        step(net, wd=0)
    for path, factor in (("0.weight", 0.125), ("2.weight", 0.25), ("4.weight", 0.5), ("6.weight", 1)):
        full = snapshot(plain)[path] - before[path]
        assert np.abs(full).max() > 1e-4
        np.testing.assert_allclose(snapshot(changed)[path] - before[path], factor * full, rtol=1e-3, atol=1e-7)


def test_twice_is_once_and_another_decay_replaces_it():
    net = network()
    rates.discriminative(net, 0.5, SHAPE)
    once = {path: p.lr_mult for path, p in parameters(net).items()}
    rates.discriminative(net, 0.5, SHAPE)
    assert {path: p.lr_mult for path, p in parameters(net).items()} == once
    net[0].weight.lr_mult = 3
    rates.discriminative(net, 0.1, SHAPE)
    assert net[0].weight.lr_mult == pytest.approx(3e-3), "what has been set since is the new base"
    assert net[4].weight.lr_mult == pytest.approx(0.1)
    rates.discriminative(net, 1, SHAPE)
    assert (net[0].weight.lr_mult, net[4].weight.lr_mult, net[6].weight.lr_mult) == (3, 1, 10)


@pytest.mark.parametrize("decay", [0, 1.1, -1, float("nan")])
def test_decay_out_of_range(decay):
    with pytest.raises(ConfigError, match="layer_decay out of range; expected above 0 to 1"):
        rates.discriminative(network(), decay, SHAPE)


def test_a_step_decays_weights_only():
    ours, plain, undecayed = network(), network(), network()
    for net in (ours, plain, undecayed):
        for path, parameter in parameters(net).items():
            if path.endswith(("bias", "beta")):
                parameter.set_data(mx.nd.ones(parameter.shape))
    chosen = rates.without_decay(ours)
    assert rates.without_decay(ours) == chosen
    before = snapshot(ours)
    for net, wd in ((ours, 0.5), (plain, 0.5), (undecayed, 0)):
        step(net, wd=wd)
    trained = {path for path, p in parameters(ours).items() if p.grad_req != "null"}
    one_axis = {path for path in trained if path.endswith(("bias", "gamma", "beta"))}
    assert one_axis == set(chosen) & trained
    for path in trained:
        as_without = np.array_equal(snapshot(ours)[path], snapshot(undecayed)[path])
        as_with = np.array_equal(snapshot(ours)[path], snapshot(plain)[path])
        assert (as_without, as_with) == ((True, False) if path in one_axis else (False, True)), path
    assert moved(ours, before) >= trained - one_axis


def trained_in(net, plan, epochs, trainer):
    """Epoch -> stages of which anything moved in a step of it."""
    found = {}
    for epoch in epochs:
        plan.apply(epoch)
        before = snapshot(net)
        step(net, trainer)
        found[epoch] = {stage_of(path) for path in moved(net, before)}
    return found


def trainer_of(net):
    free = [p for p in net.collect_params().values() if p.grad_req != "null"]
    return mx.gluon.Trainer(free, "sgd", {"learning_rate": 0.1, "momentum": 0.9, "wd": 0.1})


def test_head_first_then_everything():
    net = network()
    plan = rates.unfreezing(net, 2, (), 5, SHAPE)
    every = {"stem", "stage1", "stage2", "output"}
    assert trained_in(net, plan, (1, 2, 3, 4), trainer_of(net)) == {1: {"output"}, 2: {"output"}, 3: every, 4: every}


def test_one_more_stage_at_each_listed_epoch_and_the_others_never():
    net = network()
    plan = rates.unfreezing(net, 0, (2, 4), 6, SHAPE)
    found = trained_in(net, plan, range(1, 7), trainer_of(net))
    two, three = {"output", "stage2"}, {"output", "stage2", "stage1"}
    assert found == {1: {"output"}, 2: two, 3: two, 4: three, 5: three, 6: three}
    assert plan.restore() is True
    assert plan.restore() is False
    before = snapshot(net)
    step(net)
    assert {stage_of(path) for path in moved(net, before)} == {"stem", *three}


def test_first_epoch_can_free_a_stage_and_an_epoch_two():
    net = network()
    plan = rates.unfreezing(net, 0, (1, 3, 3), 3, SHAPE)
    assert trained_in(net, plan, (1, 2, 3), trainer_of(net)) == {
        1: {"output", "stage2"}, 2: {"output", "stage2"}, 3: {"output", "stage2", "stage1", "stem"}}


def test_state_depends_on_the_epoch_only_and_changes_are_told():
    one, two = network(), network()
    plan, later = (rates.unfreezing(net, 0, (2, 4), 6, SHAPE) for net in (one, two))
    assert [plan.apply(epoch) for epoch in (1, 1, 2, 3, 4, 5)] == [True, False, True, False, True, False]
    assert later.apply(5) is True
    assert freezing.describe(one).rows == freezing.describe(two).rows
    plan.apply(1)
    later.apply(1)
    assert freezing.describe(one).rows == freezing.describe(two).rows


def test_what_was_frozen_by_hand_stays_frozen_and_is_not_counted_as_a_stage():
    net = network()
    freezing.freeze(net[4])
    freezing.freeze(net[5])
    net[2].bias.grad_req = "null"
    plan = rates.unfreezing(net, 0, (2,), 3, SHAPE)
    trainer = trainer_of(net)
    assert trained_in(net, plan, (1, 2), trainer) == {1: {"output"}, 2: {"output", "stage1"}}
    before = snapshot(net)
    step(net, trainer)
    assert "2.weight" in moved(net, before)
    assert "2.bias" not in moved(net, before)


def test_batchnorm_returns_to_the_mode_that_it_had():
    net = network()
    freezing.set_batchnorm(net[3], "frozen")
    plan = rates.unfreezing(net, 1, (), 3, SHAPE)
    plan.apply(1)
    assert [net[i]._kwargs["use_global_stats"] for i in (1, 3, 5)] == [True, True, True]
    plan.apply(2)
    assert [net[i]._kwargs["use_global_stats"] for i in (1, 3, 5)] == [False, True, False]
    assert net[3].gamma.grad_req == "write"
    before = snapshot(net)
    step(net)
    assert {"1.running_mean", "5.running_mean"} <= moved(net, before)
    assert "3.running_mean" not in moved(net, before)


def test_states_of_the_optimiser_survive():
    net = network()
    plan = rates.unfreezing(net, 1, (), 3, SHAPE)
    trainer = trainer_of(net)
    plan.apply(1)
    step(net, trainer)
    states = trainer._updaters[0].states
    output = next(i for i, p in enumerate(trainer._params) if p is net[6].weight)
    assert len(states) == 2, "weight and bias of the output"
    momentum = states[output].asnumpy().copy()
    plan.apply(2)
    np.testing.assert_array_equal(states[output].asnumpy(), momentum)
    step(net, trainer)
    assert len(states) == len(trainer._params)


def test_accumulating_gradients_go_on_accumulating():
    net = network()
    net.collect_params().setattr("grad_req", "add")
    plan = rates.unfreezing(net, 1, (), 3, SHAPE)
    plan.apply(1)
    assert net[0].weight.grad_req == "null"
    plan.apply(2)
    assert net[0].weight.grad_req == "add"
    assert net[1].running_mean.grad_req == "null"


def test_no_plan_changes_nothing():
    net = network()
    plan = rates.unfreezing(net, 0, (), 3)
    assert [plan.apply(epoch) for epoch in (1, 2)] == [False, False]


@pytest.mark.parametrize(("arguments", "wording"), [
    ((1, (2,), 5), "head_epochs and unfreeze are two ways; expected one of them; found 1 and"),
    ((6, (), 5), "head_epochs out of range; expected 0 to 5, the epochs; found 6"),
    ((-1, (), 5), "head_epochs out of range"), ((0, (4, 2), 5), "unfreeze out of range or order"),
    ((0, (0,), 5), "unfreeze out of range or order; expected rising epochs from 1 to 5"),
    ((0, (6,), 5), "unfreeze out of range"),
    ((0, (1, 2, 3, 4), 5), "more epochs than there are stages to set free; expected at most 3"),
])
def test_plans_that_cannot_be(arguments, wording):
    with pytest.raises(ConfigError, match=wording):
        rates.unfreezing(network(), *arguments, SHAPE)


def test_a_frozen_or_hidden_output_cannot_be_trained_alone():
    net = network()
    freezing.freeze(net[6])
    with pytest.raises(ConfigError, match="the output is frozen, and it alone would be trained at first; unfreeze it"):
        rates.unfreezing(net, 1, (), 3, SHAPE)
    net = network()
    net.add(nn.BatchNorm())
    with pytest.raises(NetworkError, match="the network's output was not found, so it cannot be trained alone"):
        rates.unfreezing(net, 1, (), 3, SHAPE)
