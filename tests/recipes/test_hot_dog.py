"""The hot dog recipe: its networks, its exercises, bad input in one line; and the library parts that came with it."""
from __future__ import annotations

import json
from pathlib import Path

import hot_dog
import mxnet as mx
import numpy as np
import pytest
import recipe_runs
from conftest import shared_data
from PIL import Image
from recipe_runs import result_of

import gluon_ft
from benchmarks.accuracy import record
from gluon_ft.data import split
from gluon_ft.data.datasets import drawings
from gluon_ft.errors import ConfigError, DataError, NetworkError, TrainingError
from gluon_ft.finetune import demo_weights
from gluon_ft.models import class_init, tracing
from gluon_ft.reporting.rate_plots import rate_curve
from gluon_ft.training import lr_finder

run = recipe_runs.runner(hot_dog)


def photos(folder, count=10):
    """Drawings in D2L's layout."""
    for seed, part in enumerate(("train", "test")):
        images, labels = demo_weights.pictures(hot_dog.CLASSES, count, 40 + seed)
        for i, (image, label) in enumerate(zip(images, labels)):
            place = folder / part / hot_dog.CLASSES[label]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place / f"{i:03d}.png")
    return folder


def test_the_published_settings_are_the_defaults():
    assert (hot_dog.PUBLISHED.epochs, hot_dog.PUBLISHED.optimizer, hot_dog.PUBLISHED.lr, hot_dog.PUBLISHED.momentum,
            hot_dog.PUBLISHED.wd) == (5, "sgd", 0.01, 0.0, 0.001)
    given = {p.name: p.default for p in hot_dog.main.params}
    assert (given["scratch_lr"], given["lr_mult"], given["batch_size"], given["lr"]) == (0.1, 10.0, 128, 0.01)
    chosen = hot_dog.settings(data="x", backbone=None, pretrained=None, batch_size=128, freeze_features=False,
                              init_from_class=None, compare=False, lr_sweep=False, quick=False)
    assert (chosen["backbone"], chosen["pretrained"], chosen["batch_size"]) == ("resnet18_v2", True, 128)
    assert chosen["networks"] == ["fine-tuned", "scratch"]


@pytest.mark.slow
def test_everything_compared_on_drawings(run):
    result = result_of(run("--quick", "--compare", "--seed", 3, "--json"))
    rows = {row["name"]: row for row in result["rows"]}
    assert list(rows) == ["fine-tuned", "frozen", "class-initialised", "SVM", "scratch"]
    assert all(row["seed"] == 3 for row in rows.values())
    tuned, scratch = rows["fine-tuned"]["validation_accuracy"], rows["scratch"]["validation_accuracy"]
    assert tuned > 0.7
    assert tuned > scratch
    assert rows["SVM"]["validation_accuracy"] > 0.8
    folder = Path(result["run"])
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {"report.html", "result.json", "metrics.jsonl", "curves.png", "first_and_last.png",
            "class-initialised-3/best.params"} <= names
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {r["lr"] for r in records if r["series"] == "scratch"} == {0.1}
    assert {r["lr"] for r in records if r["series"] == "fine-tuned"} == {0.01}
    leads = record.lead_by_epoch(records)
    assert list(leads) == [1, 2, 3, 4, 5]
    assert leads[5] == [pytest.approx(tuned - scratch)]


def test_only_the_output_of_the_frozen_network_moves():
    options = {"backbone": demo_weights.BACKBONE, "pretrained": str(demo_weights.weights()), "lr_mult": 10.0}
    net = hot_dog.network("frozen", options, mx.cpu())
    before = {k: p.data().asnumpy() for k, p in net._collect_params_with_prefix().items()}
    loader = gluon_ft.loaders.make_loader(demo_weights.pictures(hot_dog.CLASSES, 4, 1), preprocessing=net.preprocessing,
                                          train=True, batch_size=4)
    gluon_ft.fit(net, loader, config=gluon_ft.TrainConfig(epochs=1, lr=0.01, wd=0.001, momentum=0.0))
    moved = {k for k, p in net._collect_params_with_prefix().items() if (p.data().asnumpy() != before[k]).any()}
    assert moved == {"output.weight", "output.bias"}, "BatchNorm's statistics stand still as well"


@pytest.mark.slow
def test_a_folder_and_two_folds(run, tmp_path):
    result = result_of(run("--data", photos(tmp_path / "data"), "--backbone", demo_weights.BACKBONE, "--pretrained",
                           demo_weights.weights(), "--quick", "--epochs", 1, "--cross-validate", 2, "--json"))
    assert [(row["name"], row["fold"]) for row in result["rows"]] == [
        ("fine-tuned", 0), ("scratch", 0), ("fine-tuned", 1), ("scratch", 1)]
    assert [(row["name"], row["folds"]) for row in result["table"]] == [("fine-tuned", 2), ("scratch", 2)]
    config = json.loads((Path(result["run"]) / "config.json").read_text())
    assert (config["batch_size"], config["config"]["epochs"]) == (16, 1)


def test_the_sweep_ends_at_the_rate_that_breaks_it(run):
    result = result_of(run("--quick", "--lr-sweep", "--lr", 0.1, "--epochs", 2, "--json"))
    outcomes = [row["outcome"] for row in result["table"]]
    assert outcomes[-1] in ("breaks", "not finite")
    assert not {"breaks", "not finite"} & set(outcomes[:-1])
    assert [row["lr"] for row in result["table"]][:3] == [0.1, 0.3, 1.0][:len(outcomes)]
    assert (Path(result["run"]) / "rates.png").stat().st_size > 5000


@pytest.mark.parametrize(("options", "wording"), [
    (["--lr-sweep", "--compare"], "--lr-sweep is of the fine-tuned network alone"),
    (["--lr", 0], "lr out of range; expected a number above 0"),
    (["--backbone", "resnet18_v3"], "unknown backbone 'resnet18_v3'; did you mean"),
    (["--pretrained", "mobilenetv2_1.0:coral"], "no weights 'coral' for backbone 'mobilenetv2_1.0'"),
    (["--cross-validate", 1], "1 is not in the range x>=2"),
])
def test_bad_options_are_one_line(run, tmp_path, options, wording):
    printed = run("--data", photos(tmp_path / "data", 2), *options, status=2)
    assert len(printed.err.strip().splitlines()) == 1, printed.err
    assert wording in printed.err
    assert not (tmp_path / "runs").exists()


def test_bad_data_and_a_class_that_is_not_there(run, tmp_path):
    data = photos(tmp_path / "data", 2)
    (data / "test" / "not-hotdog").rename(data / "test" / "pizza")
    printed = run("--data", data, "--backbone", demo_weights.BACKBONE, "--pretrained", demo_weights.weights(), status=2)
    assert "class 'pizza' is none of those in train" in printed.err
    printed = run("--quick", "--init-from-class", "hotdgo", status=2)
    assert "the network has no class 'hotdgo'; did you mean hotdog?" in printed.err
    printed = run("--quick", "--scratch-lr", -1, status=2)
    assert "lr out of range; expected a number above 0; found -1" in printed.err
    assert not (tmp_path / "runs").exists()


def test_no_weights_says_what_to_fetch(run, tmp_path, monkeypatch):
    monkeypatch.setenv("GLUON_FT_WEIGHTS", str(tmp_path))
    monkeypatch.setattr("gluon_ft.weights.store.fetch", unreachable)
    printed = run("--data", photos(tmp_path / "data", 2), status=2)
    assert "weights resnet18_v2:" in printed.err
    assert f"put the file into one of {tmp_path}" in printed.err
    assert not (tmp_path / "runs").exists()


def unreachable(*_, **__):
    raise gluon_ft.errors.DownloadError("cannot get it", found="no network")


# ---------------------------------------------------------------- an output from the source's classes


def source_net(classes=("a", "b", "c", "d")):
    net = gluon_ft.backbones.build("lenet", classes=len(classes))
    net.initialize(mx.init.Xavier())
    net(mx.nd.zeros((1, 1, 28, 28)))
    net.output.bias.set_data(mx.nd.array([1.0, 2.0, 3.0, 6.0][:len(classes)]))
    net.classes = list(classes)
    return net


def test_rows_are_the_named_class_and_the_mean_of_the_others():
    net = source_net()
    weight = net.output.weight.data().asnumpy()
    class_init.output_from_classes(net, ["b", None], lr_mult=7)
    new = tracing.output_layer(net).block
    np.testing.assert_allclose(new.weight.data().asnumpy(), [weight[1], weight[[0, 2, 3]].mean(0)], rtol=1e-6)
    np.testing.assert_allclose(new.bias.data().asnumpy(), [2.0, 10 / 3 + np.log(3)], rtol=1e-6)
    assert {p.lr_mult for p in new.collect_params().values()} == {7}


def test_the_start_is_a_bound_of_the_source_that_ignores_a_common_shift():
    net, x = source_net(), mx.nd.random.uniform(shape=(5, 1, 28, 28))
    logits = net(x).asnumpy()
    weight = net.output.weight.data()
    net.output.weight.set_data(weight + mx.nd.random.normal(shape=weight.shape[1:]).expand_dims(0))
    shifted = net(x).asnumpy()
    np.testing.assert_allclose(mx.nd.softmax(mx.nd.array(logits)).asnumpy(),
                               mx.nd.softmax(mx.nd.array(shifted)).asnumpy(), rtol=1e-3)
    start = class_init.output_from_classes(net, ["b", None])(x).asnumpy()
    others = np.log(np.exp(logits[:, [0, 2, 3]]).sum(1))
    assert (start[:, 0] - start[:, 1] >= logits[:, 1] - others - 1e-4).all()
    np.testing.assert_allclose(start[:, 0] - start[:, 1], logits[:, 1] - logits[:, [0, 2, 3]].mean(1) - np.log(3),
                               rtol=1e-3, atol=1e-4)


def test_an_output_without_a_bias_gets_one():
    net = gluon_ft.backbones.build("mobilenetv2_0.25", classes=4)
    net.initialize(mx.init.Xavier())
    net(mx.nd.zeros((1, 3, 32, 32)))
    net.classes = list("abcd")
    with pytest.warns(UserWarning, match="BatchNorm folded"):  # as in every network that has not learnt yet
        class_init.output_from_classes(net, [None, "a", "c"])
    np.testing.assert_allclose(tracing.output_layer(net).block.bias.data().asnumpy(), [np.log(2), 0, 0], rtol=1e-6)
    assert net(mx.nd.zeros((2, 3, 32, 32))).shape == (2, 3)


@pytest.mark.parametrize(("starts", "kind", "wording"), [
    (["b"], ConfigError, "an output needs at least two entries"),
    ([None, None], ConfigError, "one of them a class"),
    (["a", "e"], NetworkError, "the network has no class 'e'"),
    (["a", "b", "c", "d", None], ConfigError, "no class is left"),
])
def test_starts_that_do_not_fit(starts, kind, wording):
    with pytest.raises(kind, match=wording):
        class_init.output_from_classes(source_net(), starts)


def test_class_names_must_be_known():
    net = source_net()
    net.classes = None
    with pytest.raises(NetworkError, match="expected 4 names; found none"):
        class_init.output_from_classes(net, ["a", None])


# ---------------------------------------------------------------- the sweep, drawings, lists


def test_rates_rise_by_half_powers_of_ten():
    rates = lr_finder.rising(0.01)
    assert [next(rates) for _ in range(5)] == [0.01, 0.03, 0.1, 0.3, 1.0]
    assert list(lr_finder.rising(2000)) == [2000, 3000, 10000]
    with pytest.raises(ConfigError, match="first rate is out of range"):
        next(lr_finder.rising(0))


def test_chance_accuracy_bound():
    assert lr_finder.chance_accuracy_bound([0] * 50 + [1] * 50) == pytest.approx(0.6)
    assert lr_finder.chance_accuracy_bound([0] * 90 + [1] * 10) == pytest.approx(0.96)


def at(accuracies):
    found = iter(accuracies)

    def train_at(_lr):
        value = next(found)
        if value is None:
            raise TrainingError("the loss became nan", expected="a finite loss")
        return [{"validation_accuracy": value}]
    return train_at


@pytest.mark.parametrize(("accuracies", "outcomes"), [
    ([0.5, 0.9, 0.7, 0.55, 0.9], ["too low", "learns", "learns", "breaks"]),
    ([0.9, 0.95, None, 0.9], ["learns", "learns", "not finite"]),
])
def test_the_sweep_stops_where_it_breaks(accuracies, outcomes, tmp_path):
    rates, rows = lr_finder.sweep(at(accuracies), 0.01, 0.6)
    assert [rate["outcome"] for rate in rates] == outcomes
    assert [row["validation_accuracy"] for row in rows] == [a for a in accuracies[:len(outcomes)] if a is not None]
    assert Image.open(rate_curve(rates, tmp_path / "r.png", 0.6)).size[0] == 900


def test_the_sweep_passes_other_errors_on():
    with pytest.raises(TrainingError, match="nan"):
        lr_finder.sweep(at([None]), 0.01, 0.6)

    def frozen(_lr):
        raise TrainingError("every parameter is frozen")
    with pytest.raises(TrainingError, match="frozen"):
        lr_finder.sweep(frozen, 0.01, 0.6)


def test_drawings_repeat_and_differ():
    a, b = drawings.draw(["hotdog", "cat", "hotdog"], 1), drawings.draw(["hotdog", "cat"], 1)
    assert (a.dtype, a.shape) == (np.uint8, (3, 32, 32, 3))
    np.testing.assert_array_equal(a[:2], b)
    assert (a[0] != a[2]).any()
    assert (drawings.draw(["hotdog"], 2)[0] != a[0]).any()
    with pytest.raises(ConfigError, match="did you mean hotdog"):
        drawings.draw(["hotdgo"])


def test_own_parts_and_their_cap(tmp_path):
    data = photos(tmp_path / "data", 4)
    whole, some = split.own_parts(data), split.own_parts(data, cap=2, seed=5)
    assert [len(entries) for entries in whole.parts.values()] == [8, 8]
    assert [len(entries) for entries in some.parts.values()] == [4, 4]
    assert {e.path for e in some.parts["train"]} < {e.path for e in whole.parts["train"]}
    assert [e.label for e in some.parts["train"]] == [0, 0, 1, 1]
    assert some.parts == split.own_parts(data, cap=2, seed=5).parts
    with pytest.raises(DataError, match="not a folder"):
        split.own_parts(data, test="val")


def test_leads_need_both_networks():
    records = [{"series": s, "seed": "0", "epoch": 1, "validation_accuracy": v} for s, v in (
        ("fine-tuned", 0.8), ("scratch", 0.5))]
    assert record.lead_by_epoch(records) == {1: [pytest.approx(0.3)]}
    with pytest.raises(DataError, match="1 of fine-tuned, 0 of scratch"):
        record.lead_by_epoch(records[:1])


@pytest.mark.slow
def test_photos_with_weights_of_imagenet(run, monkeypatch):
    monkeypatch.setenv("GLUON_FT_WEIGHTS", str(shared_data("weights")))
    result = result_of(run("--data", shared_data("hotdog"), "--pretrained", "mobilenetv2_1.0:coral_rot180",
                           "--batch-size", 16, "--lr", 0.001, "--init-from-class", "hotdog", "--json"))
    rows = {row["name"]: row["validation_accuracy"] for row in result["rows"]}
    assert rows["fine-tuned"] > rows["scratch"]
    assert min(rows["fine-tuned"], rows["class-initialised"]) > 0.75
    records = [json.loads(line) for line in (Path(result["run"]) / "metrics.jsonl").read_text().splitlines()]
    leads = record.lead_by_epoch(records)
    assert all(min(values) > 0 for epoch, values in leads.items() if epoch >= 2)
