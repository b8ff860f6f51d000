"""The network of a run: its strategy, what is frozen, rates, and the size of its images."""
from __future__ import annotations

import pytest

from gluon_ft import backbones, freezing
from gluon_ft.errors import ConfigError, UserError
from gluon_ft.finetune import network
from gluon_ft.finetune.settings import JobSettings
from gluon_ft.models.spec import resolve


@pytest.mark.parametrize("given, implied", [
    ({}, None), ({"freeze": "none"}, "everything"), ({"freeze": "features"}, "head"), ({"freeze": "2"}, "last-stages"),
    ({"pretrained": "none"}, "scratch"), ({"strategy": "svm", "freeze": "features"}, "svm"),
    ({"strategy": "head"}, "head")])
def test_what_is_frozen_implies_the_strategy(given, implied):
    assert network.strategy_of(JobSettings(data="a", **given)) == implied


@pytest.mark.parametrize("given, message", [
    ({"strategy": "head", "freeze": "none"}, "strategy 'head' and freeze 'none' contradict each other"),
    ({"strategy": "svm", "pretrained": "none"}, "strategy 'svm' builds on weights; found pretrained none")])
def test_contradicting_strategies(given, message):
    with pytest.raises(ConfigError, match=message):
        network.strategy_of(JobSettings(data="a", **given))


def test_freezing_and_rates_are_applied():
    net, _ = network.build(resolve("cifar_resnet20_relu", "none"), ["a", "b", "c"], None, 0, None)
    network.apply(net, JobSettings(data="a", freeze="features", head_lr_mult=3.0, dropout=0.5))
    rows = {row["parameter"]: row for row in freezing.describe(net).rows}
    assert [name for name, row in rows.items() if row["lr"]] == ["output.weight", "output.bias"]
    assert rows["output.weight"]["lr"] == 3.0
    assert network.heads.dropout_of(net) == 0.5
    network.freeze(net, "none")
    net, _ = network.build(resolve("cifar_resnet20_relu", "none"), ["a", "b", "c"], None, 0, None)
    network.apply(net, JobSettings(data="a", freeze="1"))
    rows = freezing.describe(net).rows
    assert rows[0]["lr"] == 0 and rows[-1]["lr"] == 10
    with pytest.raises(ConfigError, match="cannot freeze the first 9 stages"):
        network.freeze(net, "9")


def test_images_are_always_resized_to_what_the_network_takes():
    net = backbones.build("cifar_resnet20_relu")
    assert (network.input_of(net, None).size, network.input_of(net, None).resize) == (32, 32)
    assert (network.input_of(net, 48).size, network.input_of(net, 48).resize) == (48, 48)
    net = backbones.build("mobilenet0.25")
    assert (network.input_of(net, 112).size, network.input_of(net, 112).resize) == (112, 128)


def test_a_size_that_the_network_cannot_take(monkeypatch):
    with pytest.raises(UserError, match=r"squeezenet1\.1 cannot take images of 64 pixels; expected 224"):
        network.build(resolve("squeezenet1.1", "none"), ["a", "b"], None, 0, 64)
