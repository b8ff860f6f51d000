"""Frozen means that nothing moves; groups match each parameter once; the table says what will be trained."""
from __future__ import annotations

import gc
import json

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn

from gluon_ft import backbones, freezing, heads
from gluon_ft.data.batches import ArrayLoader
from gluon_ft.errors import ConfigError, NetworkError
from gluon_ft.models.freezing import Group
from gluon_ft.models.stages import stages
from gluon_ft.training.config import TrainConfig
from gluon_ft.training.fit import fit


def loader(n=6, size=32, seed=0):
    rng = np.random.RandomState(seed)
    return ArrayLoader(rng.rand(n, 3, size, size) * 3 + 1, np.arange(n) % 2, batch_size=3)


def net_of(name="resnet18_v2"):
    net = heads.fine_tune_net(name, 2)
    net(mx.nd.zeros((1, 3, 32, 32)))
    return net


def snapshot(net):
    return {path: p.data().asnumpy().copy() for path, p in net._collect_params_with_prefix().items()}


def moved(net, before):
    return {path for path, value in snapshot(net).items() if not np.array_equal(value, before[path])}


def test_frozen_features_are_bit_identical_after_an_epoch_with_weight_decay():
    net = net_of()
    freezing.freeze(net.features)
    before = snapshot(net)
    fit(net, loader(), None, TrainConfig(epochs=2, wd=0.1, top_k=0))
    assert moved(net, before) == {"output.weight", "output.bias"}


def test_published_way_leaves_batchnorm_in_training_mode():
    published, same, ours = net_of(), net_of(), net_of()
    published.features.collect_params().setattr("grad_req", "null")
    freezing.freeze(same.features, batchnorm="train")
    freezing.freeze(ours.features)
    x = mx.nd.random.uniform(shape=(4, 3, 32, 32))
    for net, differs in ((published, True), (same, True), (ours, False)):
        # The network as a whole has run before, so its graph is cached above the block that was frozen.
        expected = net(x).asnumpy()
        with mx.autograd.train_mode():
            assert np.allclose(net(x).asnumpy(), expected, atol=1e-5) is not differs


@pytest.mark.parametrize("batchnorm", ["train", "frozen"])
def test_statistics_of_a_frozen_part_under_a_gradient_drift_unless_held(batchnorm):
    # MXNet's CPU updates running statistics in BatchNorm's backward pass, so they drift wherever one comes by: here
    # because the stem below is trained. On GPUs they drift in the forward pass as well.
    net = net_of()
    freezing.freeze(net.features, batchnorm=batchnorm)
    freezing.unfreeze(net.features[1])
    before = snapshot(net)
    fit(net, loader(), None, TrainConfig(epochs=1, top_k=0))
    drifted = {path for path in moved(net, before) if "running" in path}
    assert bool(drifted) is (batchnorm == "train")


def test_learning_rate_zero_is_not_frozen():
    net = net_of()
    net.features.collect_params().setattr("lr_mult", 0)
    before = snapshot(net)
    fit(net, loader(), None, TrainConfig(epochs=1, top_k=0))
    assert any("running" in path for path in moved(net, before))


def test_unfreeze_brings_back_what_the_network_was_built_with():
    net = backbones.build("resnet18_v1b")
    net.bn1._kwargs["use_global_stats"] = True
    freezing.freeze(net)
    freezing.unfreeze(net)
    assert net.bn1._kwargs["use_global_stats"] is True
    assert net.layer1[0].bn1._kwargs["use_global_stats"] is False
    assert net.bn1.running_mean.grad_req == "null"
    assert net.bn1.gamma.grad_req == "write"


def test_no_time_is_spent_on_frozen_gradients(tmp_path):
    def convolution_gradients(frozen):
        net = net_of()
        if frozen:
            freezing.freeze(net.features)
        path = tmp_path / f"profile-{frozen}.json"
        mx.profiler.set_config(profile_imperative=True, profile_symbolic=True, aggregate_stats=True,
                               filename=str(path))
        fit(net, loader(), None, TrainConfig(epochs=1, top_k=0))
        mx.nd.waitall()
        mx.profiler.set_state("run")
        fit(net, loader(), None, TrainConfig(epochs=1, top_k=0))
        mx.nd.waitall()
        mx.profiler.set_state("stop")
        stats = json.loads(mx.profiler.dumps(reset=True, format="json"))
        return sum(value["Count"] for domain in stats["Time"].values() for name, value in domain.items()
                   if "backward_Convolution" in name)

    assert convolution_gradients(frozen=False) > 0
    assert convolution_gradients(frozen=True) == 0


def test_stages_are_cut_where_the_size_changes():
    found = stages(net_of())
    assert [s.name for s in found] == ["stem", "stage1", "stage2", "stage3", "stage4", "output"]
    assert [s.size for s in found[:-1]] == [(112, 112), (56, 56), (28, 28), (14, 14), (7, 7)]
    every = [path for stage in found for path in stage.parameters()]
    assert sorted(every) == sorted(net_of()._collect_params_with_prefix())


@pytest.mark.parametrize("name", ["vgg11", "mobilenet0.25", "squeezenet1.1", "resnet18_v1b", "lenet", "densenet121"])
def test_stages_hold_every_parameter_once(name):
    net = backbones.build(name)
    every = [path for stage in stages(net) for path in stage.parameters()]
    assert sorted(every) == sorted(net._collect_params_with_prefix())
    assert stages(net)[-1].name == "output"
    assert len(stages(net)) >= 4


def test_stages_of_a_network_that_is_not_in_the_registry():
    net = nn.HybridSequential()
    net.add(nn.Conv2D(4, 3, strides=2, in_channels=1), nn.Conv2D(4, 3, strides=2), nn.Flatten(), nn.Dense(2))
    assert [s.name for s in stages(net)] == ["stem", "stage1", "output"]


def test_freeze_first_stages():
    net = net_of()
    frozen = freezing.freeze_stages(net, 3)
    assert [s.name for s in frozen] == ["stem", "stage1", "stage2"]
    before = snapshot(net)
    fit(net, loader(), None, TrainConfig(epochs=1, top_k=0))
    paths = {path for stage in frozen for path in stage.parameters()}
    assert not moved(net, before) & paths
    assert {"features.7.0.conv1.weight", "features.8.1.bn2.running_mean", "output.weight"} <= moved(net, before)
    with pytest.raises(ConfigError, match=r"first 6 stages; expected 0 to 5; found stem, stage1"):
        freezing.freeze_stages(net, 6)


def test_groups_match_in_order_and_take_effect():
    net = net_of()
    freezing.apply_groups(net, [Group(stage="stem", frozen=True), Group(pattern=r"bias$|gamma$|beta$", wd_mult=0),
                                Group(stage="output", lr_mult=7), Group(pattern="", lr_mult=0.5)])
    rows = {row["parameter"]: row for row in freezing.describe(net, lr=0.1, wd=0.01).rows}
    assert rows["features.1.weight"]["grad_req"] == "null"
    assert rows["features.2.running_mean"]["grad_req"] == "held"
    assert rows["features.5.0.bn1.running_mean"]["grad_req"] == "updated"
    assert rows["features.5.0.bn1.gamma"]["wd"] == 0
    assert rows["output.weight"]["lr"] == pytest.approx(0.7)
    assert rows["output.bias"]["lr"] == pytest.approx(1.0), "the second group took the bias, which keeps lr_mult=10"
    assert rows["features.8.0.conv1.weight"]["lr"] == pytest.approx(0.05)


def test_multipliers_really_change_the_step():
    net = nn.HybridSequential()
    net.add(nn.Dense(4, in_units=3, use_bias=False), nn.Dense(2, in_units=4, use_bias=False))
    steps = {}
    for multiplier in (1, 10):
        net.initialize(mx.init.Constant(0.1), force_reinit=True)
        net[1].weight.set_data(mx.nd.array([[1, 2, 3, 4], [4, 3, 2, 1]]) / 10)
        freezing.apply_groups(net, [Group(pattern=r"^1\.", lr_mult=multiplier)])
        before = snapshot(net)
        fit(net, ArrayLoader(np.eye(3), [0, 1, 0], 3), None, TrainConfig(epochs=1, momentum=0, wd=0, top_k=0))
        steps[multiplier] = {k: v - before[k] for k, v in snapshot(net).items()}
    np.testing.assert_allclose(steps[10]["1.weight"], 10 * steps[1]["1.weight"], rtol=1e-4)
    np.testing.assert_allclose(steps[10]["0.weight"], steps[1]["0.weight"], rtol=1e-4)


@pytest.mark.parametrize(("groups", "wording"), [
    ([Group(pattern="fc7")], "pattern 'fc7' matches nothing; found no parameter; parameters are named like features"),
    ([Group(pattern=""), Group(pattern="weight")], "'weight' matches nothing; found only parameters of earlier"),
    ([Group(stage="stag1")], "no stage 'stag1'; did you mean stage1"),
    ([Group(pattern="(")], "'\\(' is not a regular expression"),
    ([Group()], "either a pattern or a stage"),
])
def test_groups_that_cannot_work(groups, wording):
    with pytest.raises(ConfigError, match=wording):
        freezing.apply_groups(net_of(), groups)


def test_describe_counts_and_prints():
    net = net_of()
    total = sum(p.data().size for p in net.collect_params().values())
    freezing.freeze(net.features)
    table = freezing.describe(net, lr=0.01, wd=0.001)
    assert table.trained == 512 * 2 + 2
    assert table.trained + table.frozen + table.statistics == total
    assert "1,026 numbers trained" in str(table)
    assert "output.weight" in str(table)
    assert "0.1" in next(line for line in str(table).splitlines() if "output.weight" in line)


def test_symbol_block_with_batchnorm_is_refused(tmp_path):
    net = net_of()
    net.export(str(tmp_path / "n"))
    block = mx.gluon.SymbolBlock.imports(str(tmp_path / "n-symbol.json"), ["data"], str(tmp_path / "n-0000.params"))
    with pytest.raises(NetworkError, match="SymbolBlock with BatchNorm, whose mode is fixed in its graph"):
        freezing.freeze(block)
    with pytest.raises(ConfigError, match="unknown BatchNorm mode 'off'"):
        freezing.freeze(net, batchnorm="off")


def test_the_living_objects_are_looked_through_once_however_many_stages_are_frozen(monkeypatch):
    net = backbones.build("resnet18_v1b")
    calls, search = [], gc.get_objects
    monkeypatch.setattr(gc, "get_objects", lambda: calls.append(1) or search())
    assert len(freezing.freeze_stages(net, 4)) == 4
    assert len(calls) == 1
