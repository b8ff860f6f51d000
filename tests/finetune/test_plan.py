"""The plan of a run: what advice decides, what is given, and what is checked before the images."""
from __future__ import annotations

from dataclasses import replace

import mxnet as mx
import photos
import pytest
from train_runs import make_source

from gluon_ft.errors import ConfigError, DataError, UserError
from gluon_ft.finetune import job_data, network, plan
from gluon_ft.finetune.advice import Facts
from gluon_ft.finetune.settings import JobSettings
from gluon_ft.models.spec import resolve


def test_frozen_parts_are_computed_once_where_that_trains_the_same():
    def kept(**options):
        found = plan.cached(JobSettings(data="a", **options), options)
        return found.cache_features, found.views

    assert kept(freeze="features", augment="none") == ("memory", 0) and kept(freeze="none") == ("none", 0)
    assert kept(freeze="2", epochs=3) == ("memory", 3) and kept(freeze="2", epochs=9) == ("memory", 4)
    assert kept(freeze="2", epochs=9, views=2) == ("memory", 2)
    for other in ({"mixup": 0.2}, {"cutmix": 0.2}, {"unfreeze": (2,)}, {"layer_decay": 0.5}, {"strategy": "svm"},
                  {"strategy": "linear"}):
        assert kept(freeze="2", **other) == ("none", 0)


def decided(tmp_path, **options):
    wanted = JobSettings(data=str(photos.make(tmp_path / "p", count=4)), **options)
    data, chosen = job_data.prepare(wanted), resolve("cifar_resnet20_relu", "none")
    net, _ = network.build(chosen, data.class_names, None, 0, None)
    return plan.decide(wanted, {"data": wanted.data, **options}, data, chosen, net, [mx.cpu(0), mx.cpu(1)])


def test_what_is_given_is_not_decided(tmp_path):
    found = decided(tmp_path, lr=0.5, batch_size=2)
    assert (found.settings.lr, found.settings.batch_size, found.settings.strategy) == (0.5, 2, "scratch")
    assert found.settings.lr == 0.5 and found.origins["strategy"] == "advice"
    assert found.settings.devices == "cpu:2" and "auto" not in vars(found.settings).values()
    assert "lr" not in found.origins and found.origins["schedule"] == "advice" and found.settings.schedule == "cosine"
    assert "lr 0.5 in the place of " in found.reasons["given"]
    assert found.reasons["strategy"].startswith("no pretrained weights that fit are at hand (9 images)")


def test_the_advised_rate_is_for_the_batch_that_was_given(tmp_path):
    rates = [decided(tmp_path / name, **options).settings for name, options in (
        ("a", {}), ("b", {"batch_size": 8}), ("c", {"batch_size": 8, "accumulate": 2}))]
    assert [found.batch_size for found in rates] == [4, 8, 8]
    assert [found.lr / rates[0].lr for found in rates] == pytest.approx([1, 2, 4], rel=1e-3)


def tuned(tmp_path, strategy, **options):
    """The settings of a job on a LeNet with weights of its own."""
    images, weights = tmp_path / "p", tmp_path / "source.params"
    images = images if images.exists() else photos.make(images, count=4)
    weights = weights if weights.exists() else make_source(tmp_path)
    wanted = JobSettings(data=str(images), backbone="lenet", strategy=strategy, **options)
    data, chosen = job_data.prepare(wanted), resolve("lenet", str(weights))
    net, _ = network.build(chosen, data.class_names, [mx.cpu()], 0, None)
    return plan.decide(wanted, {"data": wanted.data, "strategy": strategy, **options}, data, chosen, net,
                       [mx.cpu()]).settings


@pytest.mark.parametrize("strategy", ["head", "last-stages"])
def test_the_outputs_rate_goes_by_the_features_for_a_strategy_that_was_asked_for_too(tmp_path, monkeypatch, strategy):
    """But a rate that was given is taken as it is."""
    monkeypatch.setattr(plan.probe, "measure", lambda *args, measure=plan.probe.measure, **options: replace(
        measure(*args, **options), eigenvalue=25.0))
    advised, given = tuned(tmp_path, strategy), tuned(tmp_path, strategy, lr=0.5)
    assert given.lr == 0.5 and given.head_lr_mult == (1.0 if strategy == "head" else 10.0)
    if strategy == "head":
        assert advised.lr == pytest.approx(16 * 0.1 * advised.batch_size / 256, rel=1e-3)
    else:
        assert advised.head_lr_mult == 160.0


def test_features_are_looked_at_where_settings_go_by_them_only(tmp_path, monkeypatch):
    nets = []
    monkeypatch.setattr(plan.probe, "measure", lambda source, net, measure=plan.probe.measure, **options: nets.append(
        net) or measure(source, net, **options))
    for strategy in ("linear", "svm", "head", "last-stages", "everything"):
        tuned(tmp_path, strategy)
    assert [net is False for net in nets] == [True, True, False, False, False]


@pytest.mark.parametrize("given, message", [
    ({"backbone": "lenett"}, "unknown backbone 'lenett'; did you mean lenet"),
    ({"backbone": "lenet", "freeze": "9"}, "cannot freeze the first 9 stages; expected 0 to 3"),
    ({"pretrained": "nowhere"}, "no weights 'nowhere' known, and no such file"),
    ({"devices": "gpu:99"}, "device 'gpu:99' is not there"), ({"devices": "tpu"}, "unknown device 'tpu'"),
    ({"augment": "glon"}, "no augmentation 'glon'; did you mean gluon"),
    ({"augment": '{"hues": 1}'}, "unknown augmentation setting 'hues'; did you mean hue"),
    ({"augment": "{hue"}, "augment does not fit; expected 'gluon'"),
    ({"precision": "float16", "devices": "cpu"}, "precision float16 is not for this device"),
    ({"strategy": "svm", "lr": 0.5}, "strategy 'svm' does not train by steps: lr would be ignored; found lr 0.5"),
    ({"strategy": "svm", "batch_size": 8}, "strategy 'svm' does not train by steps: batch_size would be ignored"),
    ({"strategy": "head", "backbone": "lenet"}, "strategy 'head' builds on weights; found pretrained none"),
    ({"strategy": "head", "freeze": "none"}, "strategy 'head' and freeze 'none' contradict each other")])
def test_settings_are_checked_before_the_images(given, message):
    # There is no such folder, so that what is checked later would not come to be said.
    with pytest.raises(UserError) as error:
        plan.check(JobSettings(data="nowhere", **given), given, {})
    assert str(error.value).startswith(message)


def test_what_is_checked_early_is_found_once(tmp_path):
    wanted = JobSettings(data=str(photos.make(tmp_path / "p", count=4)), backbone="lenet", freeze="2", augment="none")
    found = plan.check(wanted, {}, {})
    assert found == job_data.find(wanted) and job_data.prepare(wanted, found).parts == job_data.prepare(wanted).parts


def test_no_classifier_on_features_is_chosen_where_its_settings_would_be_ignored():
    facts = Facts(100, 2, 50, 50, weights="w", stages=5)
    wanted = JobSettings(data="a", epochs=7)
    assert plan._advised(JobSettings(data="a"), facts, None, []).strategy == "linear"
    found = plan._advised(wanted, facts, None, ["epochs"])
    assert found.strategy == "head" and "epochs is for training by steps" in found.reasons[0][0]
    for name in ("linear", "svm"):
        with pytest.raises(ConfigError, match=f"'{name}' does not train by steps: epochs would be ignored; found"):
            plan._advised(wanted, facts, name, ["epochs"])
    assert plan.by_steps(JobSettings(data="a", batch_size=4, dropout=0.0), {"batch_size": 4, "dropout": 0.0}) == [
        "batch_size"]


@pytest.mark.parametrize("name", ["linear", "svm"])
def test_a_classifier_on_features_needs_two_images_of_each_class(name):
    facts = Facts(100, 2, 1, 99, weights="w", stages=5)
    with pytest.raises(DataError, match=f"a class with too few training images for strategy '{name}'; expected 2 or "):
        plan._advised(JobSettings(data="a", strategy=name), facts, name, [])
    found = plan._advised(JobSettings(data="a"), facts, None, [])
    assert found.strategy == "head" and "but a class has one image only" in found.reasons[0][0]


def test_a_strategy_that_follows_from_freeze_says_so():
    facts = Facts(100, 2, 50, 50, weights="w", stages=5)
    found = plan._advised(JobSettings(data="a", freeze="features"), facts, "head", [])
    assert found.reasons[0] == ("'head' follows from freeze features", "you")
    found = plan._advised(JobSettings(data="a", strategy="head", freeze="features"), facts, "head", [])
    assert found.reasons[0] == ("'head' was asked for", "you")
