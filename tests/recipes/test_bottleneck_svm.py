"""The SVM recipe end to end: features once, rows and models that predict the same, bad input in one line."""
from __future__ import annotations

import json
from pathlib import Path

import bottleneck_svm
import numpy as np
import pytest
import recipe_runs
from conftest import shared_data
from PIL import Image
from recipe_runs import result_of

from gluon_ft.evaluation.predict import predict
from gluon_ft.finetune import demo_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A small network with random weights, as a file that says what it takes."""
    import mxnet as mx

    import gluon_ft
    from gluon_ft.evaluation.model import save_model

    mx.random.seed(0)
    net = gluon_ft.fine_tune_net("cifar_resnet20_relu", 2)
    net(mx.nd.zeros((1, 3, 32, 32)))
    return save_model(net, tmp_path_factory.mktemp("weights") / "small.params", classes=["x", "y"],
                      preprocessing=gluon_ft.Preprocessing(size=32, resize=36))


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GLUON_FT_HOME", str(tmp_path / "home"))


run = recipe_runs.runner(bottleneck_svm)


def draw(folder, each, seed, names=("blue", "green", "red")):
    random = np.random.RandomState(seed)
    for label, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for i in range(each):
            pixels = random.randint(0, 200, (6, 6, 3))
            pixels[..., 2 - label] += 55
            picture = Image.fromarray(pixels.astype("uint8")).resize((40, 44), Image.Resampling.BICUBIC)
            picture.save(folder / name / f"{seed}-{i}.png")


@pytest.fixture
def photos(tmp_path):
    """One folder of three classes of 12."""
    draw(tmp_path / "photos", 12, 0)
    return tmp_path / "photos"


def test_one_folder_divided_by_the_seed(run, photos, weights):
    given = ("--data", photos, "--backbone", "cifar_resnet20_relu", "--pretrained", weights, "--folds", 3, "--json")
    result = result_of(run(*given, "--seeds", 2))
    assert (result["recipe"], result["images"], result["features"]) == ("bottleneck_svm", 36, 64)
    assert result["classes"] == ["blue", "green", "red"]
    assert [(row["name"], row["seed"]) for row in result["rows"]] == [
        (kind, seed) for seed in (0, 1) for kind in ("svm", "logistic")]
    folder = Path(result["run"])
    names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert {"config.json", "result.json", "report.html", "confusion-svm-0.png", "svm-1/model.params",
            "svm-1/model.params.json", "logistic-0/model.params"} <= names

    # The model says of the photos what the row says: all of them are in one of the two parts.
    for row in result["rows"]:
        found = predict(folder / f"{row['name']}-{row['seed']}" / "model.params", photos)
        right = sum(Path(p.path).parent.name == p.name for p in found)
        assert right == round(27 * row["train_accuracy"] + 9 * row["validation_accuracy"])
        assert all(0.33 < p.probability < 1 for p in found)

    again = result_of(run(*given, "--seed", 1))
    assert again["rows"] == result["rows"][2:], "features from the cache, the same seed"


def test_own_parts_and_cross_validation(run, tmp_path, weights):
    draw(tmp_path / "set" / "train", 9, 1)
    draw(tmp_path / "set" / "val", 4, 2)
    given = ("--data", tmp_path / "set", "--backbone", "cifar_resnet20_relu", "--pretrained", weights, "--folds", 3)
    result = result_of(run(*given, "--json"))
    assert result["images"] == 39
    config = json.loads((Path(result["run"]) / "config.json").read_text())
    assert (config["folds"], config["data"], config["cross_validate"]) == (3, str(tmp_path / "set"), None)

    result = result_of(run(*given, "--cross-validate", 2, "--json"))
    assert [(row["name"], row["fold"]) for row in result["rows"]] == [
        (kind, fold) for fold in (0, 1) for kind in ("svm", "logistic")]
    assert [line["name"] for line in result["table"]] == ["svm", "logistic"]
    assert result["table"][0]["folds"] == 2
    assert result["table"][0]["validation_mean"] == pytest.approx(
        np.mean([row["validation_accuracy"] for row in result["rows"] if row["name"] == "svm"]))
    assert not list(Path(result["run"]).glob("*/model.params")), "folds are for judging, not models"


def test_copies_are_said(run, tmp_path, weights):
    draw(tmp_path / "set" / "train", 4, 1)
    draw(tmp_path / "set" / "test", 3, 2)
    (tmp_path / "set" / "test" / "red" / "copy.png").write_bytes(
        (tmp_path / "set" / "train" / "red" / "1-0.png").read_bytes())
    result = result_of(run("--data", tmp_path / "set", "--backbone", "cifar_resnet20_relu", "--pretrained", weights,
                           "--folds", 2, "--quick", "--json"))
    assert "1 validation images are copies of others" in (Path(result["run"]) / "report.html").read_text()


@pytest.mark.slow
def test_quick_without_data(run, monkeypatch):
    # The network itself is trained in the tests of the recipe that it was made for.
    monkeypatch.setattr(demo_weights, "EACH", 12)
    result = result_of(run("--quick", "--folds", 3, "--json"))
    assert result["images"] == 72 and result["classes"] == ["cat", "dog", "donut"]
    assert all(row["validation_accuracy"] > 0.5 for row in result["rows"]), "three classes"


@pytest.mark.parametrize(("options", "message"), [
    (["--folds", 10], "more folds than the smallest class has images: 10; expected at most 9; found 9 images of class"),
    (["--cross-validate", 13], "more folds than the smallest class has images: 13; expected at most 12"),
    (["--folds", 1], "1 is not in the range x>=2"),
    (["--seed", -1], "-1 is not in the range x>=0"),
    (["--backbone", "cifar_resnet20_reluu"], "cifar_resnet20_reluu"),
    (["--data", "nowhere"], "nowhere: no such file or folder"),
    (["--devices", "gpu:64"], "device 'gpu:64' is not there"),
])
def test_bad_options_are_one_line(run, photos, weights, tmp_path, options, message):
    given = {"--data": photos, "--backbone": "cifar_resnet20_relu", "--pretrained": weights,
             **dict([options])}
    printed = run(*(part for pair in given.items() for part in pair), status=2)
    lines = printed.err.strip().splitlines()
    assert len(lines) == 1, printed.err
    assert message in lines[0]
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_real_hot_dogs(run, monkeypatch):
    monkeypatch.setenv("GLUON_FT_WEIGHTS", str(shared_data("weights")))
    result = result_of(run("--data", shared_data("hotdog"), "--pretrained", "mobilenetv2_1.0:coral_rot180", "--json"))
    assert (result["images"], result["features"]) == (350, 1280)
    # Five seeds: 0.852 to 0.875.
    assert all(0.80 < row["validation_accuracy"] < 0.95 for row in result["rows"])
