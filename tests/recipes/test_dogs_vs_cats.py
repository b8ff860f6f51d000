"""The dogs-against-cats recipe: `finetune` once and twice, both phases, both layouts of the data, bad input."""
from __future__ import annotations

import json
from pathlib import Path

import dogs_vs_cats
import mxnet as mx
import numpy as np
import pytest
import recipe_runs
from conftest import shared_data
from PIL import Image
from recipe_runs import result_of

import gluon_ft
from gluon_ft.data.sources import folders
from gluon_ft.errors import ConfigError, DataError
from gluon_ft.finetune import demo_weights
from gluon_ft.models import tracing

run = recipe_runs.runner(dogs_vs_cats)


def kaggle(folder, count=6):
    """Drawings named and placed as Kaggle does: train/cat.0.jpg, train/dog.0.jpg, ..."""
    (folder / "train").mkdir(parents=True)
    images, labels = demo_weights.pictures(["cat", "dog"], count, 3)
    for i, (image, label) in enumerate(zip(images, labels)):
        Image.fromarray(image).save(folder / "train" / f"{('cat', 'dog')[label]}.{i}.jpg", quality=95)
    return folder


def small(output="mobilenet0.25", size=64):
    net = gluon_ft.backbones.build(output, classes=5)
    net.initialize(mx.init.Xavier())
    net(mx.nd.zeros((1, 3, size, size)))
    net.classes = list("abcde")
    return net


def trained(net):
    return {path for path, p in net._collect_params_with_prefix().items() if p.grad_req != "null"}


def test_finetune_twice_leaves_one_new_layer_with_what_it_learnt():
    net = dogs_vs_cats.finetune(small(), ["cat", "dog"])
    count = len(net._collect_params_with_prefix())
    assert trained(net) == {"output.weight", "output.bias"}
    net.output.weight.set_data(mx.nd.ones_like(net.output.weight.data()))
    layer = tracing.output_layer(net).block
    again = dogs_vs_cats.finetune(net, ["cat", "dog"])
    assert again is net
    assert tracing.output_layer(net).block is layer
    assert (layer.weight.data().asnumpy() == 1).all()
    assert len(net._collect_params_with_prefix()) == count
    assert trained(net) == {"output.weight", "output.bias"}
    assert net(mx.nd.zeros((2, 3, 64, 64))).shape == (2, 2)


def test_finetune_for_other_classes_exchanges_the_layer():
    net = dogs_vs_cats.finetune(dogs_vs_cats.finetune(small(), ["cat", "dog"]), ["cat", "dog", "bird"])
    assert net(mx.nd.zeros((2, 3, 64, 64))).shape == (2, 3)
    assert trained(net) == {"output.weight", "output.bias"}


def test_everything_but_the_new_layer_stands_still():
    net = dogs_vs_cats.finetune(small(), ["cat", "dog"])
    before = {k: p.data().asnumpy() for k, p in net._collect_params_with_prefix().items()}
    data = gluon_ft.ArrayLoader(np.random.rand(4, 3, 64, 64).astype("float32"), np.array([0, 1, 0, 1]), 2)
    gluon_ft.fit(net, data, config=gluon_ft.TrainConfig(epochs=1, optimizer="rmsprop", lr=1e-3, wd=0.1))
    moved = {k for k, p in net._collect_params_with_prefix().items() if (p.data().asnumpy() != before[k]).any()}
    assert moved == {"output.weight", "output.bias"}


def test_phase_two_frees_the_last_convolutions_of_vgg16_and_what_is_above():
    net = gluon_ft.backbones.build("vgg16", classes=2)
    net.initialize()
    net.classes = ["cat", "dog"]
    dogs_vs_cats.finetune(net, net.classes)
    dogs_vs_cats.free_convolutions(net, 1)
    free = {path.rsplit(".", 1)[0] for path in trained(net)}
    # Convolutions 5_1 to 5_3 are features 24, 26 and 28 of Gluon's VGG-16; the two Dense layers 31 and 33.
    assert free == {"features.24", "features.26", "features.28", "features.31", "features.33", "output"}
    with pytest.raises(ConfigError, match="--free-stages 9: the network has fewer; expected at most 5"):
        dogs_vs_cats.free_convolutions(net, 9)


@pytest.mark.slow
def test_both_phases_on_drawings(run):
    result = result_of(run("--quick", "--epochs", 2, "--epochs-2", 1, "--lr-2", 1e-4, "--json"))
    rows = result["rows"]
    assert [row["name"] for row in rows] == ["before", "phase 1", "phase 2"]
    assert [row["trained"] > 0 for row in rows] == [False, True, True]
    assert rows[1]["trained"] < rows[2]["trained"]
    assert rows[1]["validation_accuracy"] > 0.75
    assert rows[1]["validation_accuracy"] > rows[0]["validation_accuracy"]
    folder = Path(result["run"])
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [(r["series"], r["epoch"], r["lr"]) for r in records] == [
        ("phase 1", 1, 0.01), ("phase 1", 2, 0.01), ("phase 2", 3, 0.0001)]
    assert {"report.html", "first_and_last.png", "phase-2-0/best.params", "curves.png"} <= {
        path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_kaggles_layout_in_two_folds(run, tmp_path):
    data = kaggle(tmp_path / "data")
    files = sorted(path.relative_to(data) for path in data.rglob("*"))
    result = result_of(run("--data", data, "--backbone", demo_weights.BACKBONE, "--pretrained", demo_weights.weights(),
                           "--quick", "--validation", 0.34, "--epochs", 1, "--epochs-2", 1, "--cross-validate", 2,
                           "--json"))
    assert [(row["name"], row["fold"]) for row in result["rows"]] == [
        (name, fold) for fold in (0, 1) for name in ("before", "phase 1", "phase 2")]
    assert [row["folds"] for row in result["table"]] == [2, 2, 2]
    assert sorted(path.relative_to(data) for path in data.rglob("*")) == files, "nothing moved"
    lines = (Path(result["run"]) / "data-0" / "images-val.lst").read_text().splitlines()
    assert len(lines) == 4
    assert all(line.split("\t")[2].startswith("train/") for line in lines)


def test_names_or_folders(tmp_path):
    data = kaggle(tmp_path / "kaggle", 3)
    named = folders.scan_either(data)
    assert (named.root, named.class_names, len(named.files)) == (data, ["cat", "dog"], 6)
    assert named.files[0] == ("train/cat.0.jpg", 0)
    assert folders.scan_either(data / "train").files == named.files
    for name in ("cats", "dogs"):
        (tmp_path / "photos" / "train" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "photos" / "train" / name / "a.png")
    assert folders.scan_either(tmp_path / "photos" / "train").class_names == ["cats", "dogs"]
    assert folders.scan_either(tmp_path / "photos").class_names == ["cats", "dogs"], "its train part"
    for path in data.glob("train/dog*"):
        path.unlink()
    with pytest.raises(DataError, match=r"not images of two classes by name; expected files such as cat\.0\.jpg, dog"
                                        r"\.0\.jpg; found 3 images, all 'cat'"):
        folders.scan_either(data)


@pytest.mark.parametrize(("options", "wording"), [
    (["--validation", 1], "--validation out of range; expected a number between 0 and 1"),
    (["--free-stages", 9], "--free-stages 9: the network has fewer"),
    (["--lr-2", 0], "lr out of range"),
    (["--data", "nothing"], "nothing: not a folder"),
    (["--backbone", "vgg61"], "unknown backbone 'vgg61'; did you mean"),
])
def test_bad_options_are_one_line(run, tmp_path, options, wording):
    network = [] if "--backbone" in options else ["--backbone", demo_weights.BACKBONE,
                                                  "--pretrained", demo_weights.weights()]
    data = [] if "--data" in options else ["--data", kaggle(tmp_path / "data")]
    printed = run(*data, *network, *options, status=2)
    assert len(printed.err.strip().splitlines()) == 1, printed.err
    assert wording in printed.err
    assert not (tmp_path / "runs").exists()


def cats_and_dogs_of_cifar(folder):
    """CIFAR-10's own cats and dogs, test part; no photos of Kaggle's set are at hand."""
    for name in ("cat", "dog"):
        (folder / f"{name}s").mkdir(parents=True)
        for path in sorted(shared_data(f"cifar10/test/{name}").iterdir()):
            (folder / f"{name}s" / path.name).symlink_to(path)
    return folder


@pytest.mark.slow
def test_photos_of_cifar_by_a_network_of_cifar(run, tmp_path, monkeypatch):
    monkeypatch.setenv("GLUON_FT_WEIGHTS", str(shared_data("weights")))
    # The network was trained on other images of these two classes, so its features tell them apart from the start.
    result = result_of(run("--data", cats_and_dogs_of_cifar(tmp_path / "data"), "--backbone", "cifar_resnet20_relu",
                           "--validation", 0.5, "--batch-size", 16, "--lr", 0.01, "--epochs", 6, "--lr-2", 1e-4,
                           "--seeds", 3, "--json"))
    found = {name: np.median([row["validation_accuracy"] for row in result["rows"] if row["name"] == name])
             for name in ("before", "phase 1", "phase 2")}
    assert found["phase 1"] > max(0.65, found["before"])
    assert found["phase 2"] > 0.65


@pytest.mark.slow
def test_photos_of_cifar_by_a_network_of_imagenet(run, tmp_path, monkeypatch):
    monkeypatch.setenv("GLUON_FT_WEIGHTS", str(shared_data("weights")))
    result = result_of(run("--data", cats_and_dogs_of_cifar(tmp_path / "data"), "--pretrained",
                           "mobilenetv2_1.0:coral_rot180", "--validation", 0.5, "--per-class", 60, "--batch-size", 16,
                           "--lr", 0.01, "--epochs", 2, "--epochs-2", 1, "--json"))
    assert [row["name"] for row in result["rows"]] == ["before", "phase 1", "phase 2"]
    assert result["rows"][1]["validation_accuracy"] > 0.5
