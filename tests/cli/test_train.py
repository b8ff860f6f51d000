"""gluon-ft train: from tiny photos to a run folder; overriding and reproducing it; its errors."""
from __future__ import annotations

import csv
import json

import cv2
import mxnet as mx
import numpy as np
import photos
import pytest
from train_runs import (  # noqa: F401  (fixtures)
    TINY,
    cli,
    content,
    finished_fixture,
    images_fixture,
    parameters,
    quiet,
    same,
    source_fixture,
)

import gluon_ft
from gluon_ft import finetune
from gluon_ft.data import split
from gluon_ft.data.lists import list_file
from gluon_ft.data.records import pack
from gluon_ft.errors import ConfigError, UserError
from gluon_ft.evaluation import linear
from gluon_ft.evaluation.model import load_model
from gluon_ft.evaluation.predict import predict
from gluon_ft.finetune import folder
from gluon_ft.finetune import run as runs_module


def test_a_run_folder_holds_everything(finished, images):
    run, out = finished
    result, config = content(run), content(run, "config")
    assert {"train_accuracy", "validation_accuracy", "seconds", "epochs", "best_epoch", "strategy"} <= set(result)
    assert result["epochs"] == 3 and result["strategy"] == "scratch"
    assert result["images"] == {"train": 24, "validation": 6}
    assert config["data"] == str(images) and config["lr"] == 0.02 and config["pretrained"] == "none"
    assert "auto" not in config.values() and config["batch_size"] == 4  # 24 images
    assert (config["origins"]["lr"], config["origins"]["epochs"], config["origins"]["momentum"]) == (
        "key=value", "option", "default")
    history = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in history] == [1, 2, 3]
    assert result["validation_accuracy"] == history[-1]["validation_accuracy"]
    assert result["best_validation_accuracy"] == max(record["validation_accuracy"] for record in history)
    assert content(run, "environment")["versions"]["mxnet"]
    known = content(run, "data")
    assert known["classes"] == ["blue", "green", "red"] and len(known["parts"]["train"]["files"]) == 24
    path, label, digest = known["parts"]["validation"]["files"][0]
    assert (images / path).is_file() and label == 0 and len(digest) == 64
    lines = out.splitlines()
    assert "images: 24 for training, 6 for validation; 3 classes" in lines and "strategy: scratch" in lines
    assert f"report: {run / 'report.html'}" in lines
    last = json.loads(lines[-1])
    assert last["run"] == str(run) and last["rows"] == result["rows"]
    page = (run / "report.html").read_text()
    assert f"<h1>{run.name}</h1>" in page and f"<pre>gluon-ft train --config {run / 'config.json'}</pre>" in page
    assert "data:image/jpeg" in page and "on 6 validation images" in page and known["sha256"] in page
    assert "Heat map of " in page and "Doubtful labels" not in page  # they were not judged
    assert (run / "curves.png").is_file() and (run / "confusion_matrix_of_validation.png").is_file()
    assert "0.02 (given)" in page and "cosine (advised)" in page and "no pretrained weights that fit" in page


def test_the_saved_models_predict(finished, images):
    run, _ = finished
    for name in ("best.params", "last.params"):
        net = load_model(run / name)
        assert net.classes == ["blue", "green", "red"] and net.preprocessing.size == 28
        loaded = {key: p.data().asnumpy() for key, p in net._collect_params_with_prefix().items()}
        assert same(parameters(run, name), loaded)
    val = [images / path for path, _, _ in content(run, "data")["parts"]["validation"]["files"]]
    right = [p.name == path.parent.name for p, path in zip(predict(load_model(run / "best.params"), val), val)]
    assert np.mean(right) == content(run)["best_validation_accuracy"]


def test_the_probabilities_are_calibrated_and_predictions_of_the_validation_images_kept(finished, images):
    run, _ = finished
    net, about = load_model(run / "best.params"), content(run)["calibration"]
    assert net.temperature == pytest.approx(about["temperature"]) and net.temperature > 0
    rows = list(csv.DictReader((run / "predictions.csv").open()))
    files = {path: digest for path, _, digest in content(run, "data")["parts"]["validation"]["files"]}
    assert {row["file"]: row["sha256"] for row in rows} == files
    found = predict(net, [images / row["file"] for row in rows])
    assert [p.name for p in found] == [row["prediction"] for row in rows]
    assert np.mean([row["label"] == row["prediction"] for row in rows]) == content(run)["measures"]["accuracy"]


@pytest.mark.parametrize("strategy", ["head", "svm", *(
    pytest.param(name, marks=pytest.mark.slow) for name in ("scratch", "last-stages", "everything"))])
def test_the_stored_configuration_reproduces_the_run(images, source, tmp_path, strategy):
    options = {} if strategy == "scratch" else {"pretrained": str(source), "strategy": strategy}
    if strategy != "svm":
        options.update(epochs=2, dropout=0.3)
    first = finetune.train(images, run=tmp_path / "a", say=quiet, workers=2, **{"backbone": "lenet", **options})
    again = finetune.train(config=tmp_path / "a" / "config.json", run=tmp_path / "b", say=quiet)
    assert again.settings == first.settings and first.settings.strategy == strategy
    for name in ("last.params", "best.params"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    timeless = [{k: v for k, v in r.result.items() if k not in ("seconds", "total_seconds", "rows", "reasons")}
                for r in (first, again)]
    assert timeless[0] == timeless[1]


def test_another_seed_gives_another_split_and_other_parameters(finished, tmp_path):
    said = []
    other = finetune.train(config=finished[0] / "config.json", run=tmp_path / "a", say=said.append, seed=1, epochs=1)
    assert any(line.startswith(f"note: the data differ from those of {finished[0]}: train: ") for line in said)
    assert content(other.folder, "data")["sha256"] != content(finished[0], "data")["sha256"]
    assert not same(parameters(other.folder), parameters(finished[0]))


def test_what_a_strategy_freezes_stays_as_it_was(images, source, tmp_path):
    before = {key: array.asnumpy() for key, array in mx.nd.load(str(source)).items()}

    def moved(strategy):
        done = finetune.train(images, run=tmp_path / strategy, pretrained=str(source), strategy=strategy, epochs=1,
                              lr=0.05, augment="none", say=quiet)
        after = parameters(done.folder)
        out = {key for key in after if after[key].shape != before[key].shape}
        return {key for key in set(after) - out if not np.array_equal(after[key], before[key])}, out

    assert moved("head")[0] == set()
    everything, output = moved("everything")
    assert everything | output == set(before) and len(output) == 2
    some = moved("last-stages")[0]
    assert some and some < everything


def test_errors_of_the_command(images, finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    used = finished[0]
    for part in ("train", "val"):
        photos.make(images.parent / "parts" / part, count=2, seed=len(part))
    for arguments, message in (
            ((), "no images; expected a folder of photos, or --train and --val"),
            ((images, "--epoch", "3"), "no such option --epoch; did you mean --epochs"),
            ((images, "epoch=3"), "unknown setting 'epoch'; did you mean epochs"),
            ((images, "--epochs", "few"), "epochs does not fit; expected a whole number; found 'few'"),
            ((images, "--backbone", "resnet"), "unknown backbone 'resnet'; did you mean "),
            ((images, images / "red"), "one folder of photos is expected, found "),
            ((tmp_path / "none",), f"{tmp_path}/none: no such file or folder; expected a folder with one subfolder"),
            ((images, "--resume"), "resume needs to know the run; name its folder with --run"),
            ((images, "--run", used), f"{used}: the run's folder holds a run that is finished; expected a new or "),
            ((images, "--run", images / "run"), "the run's folder would be inside of the photos"),
            ((images, "--backbone", "lenet", "--freeze", "9"), "cannot freeze the first 9 stages; expected 0 to 3"),
            ((images / ".." / "parts", "--validation", "0.3", "--backbone", "lenet"), "validation images are given"),
            ((images, "--devices", "gpu:7", "--backbone", "lenet"), "device 'gpu:7' is not there")):
        err = cli(*arguments, status=2)
        assert err.count("\n") == 1 and err.startswith("error: ") and message in err, (arguments, err)
    assert not (tmp_path / "runs").exists()


def test_a_run_that_fails_before_training_leaves_nothing(images, tmp_path, monkeypatch):
    monkeypatch.setattr(runs_module, "fit", lambda *a, **k: (_ for _ in ()).throw(UserError("it does not begin")))
    with pytest.raises(UserError, match="it does not begin"):
        finetune.train(images, runs=tmp_path / "runs", say=quiet, **TINY)
    assert list((tmp_path / "runs").iterdir()) == []
    with pytest.raises(UserError, match="it does not begin"):
        finetune.train(images, run=tmp_path / "run", say=quiet, **TINY)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("strategy", ["linear", "svm"])
def test_a_linear_classifier_of_few_images_a_class(source, tmp_path, strategy):
    images = photos.make(tmp_path / "few", count=4)
    done = finetune.train(images, run=tmp_path / "run", pretrained=str(source), strategy=strategy, say=quiet)
    assert done.result["images"] == {"train": 9, "validation": 3} and done.settings.batch_size is None


@pytest.mark.parametrize("given, mirrored", [
    ({}, True), pytest.param({"mirror": False}, False, marks=pytest.mark.slow)])
def test_what_a_linear_classifier_was_fitted_to_is_what_it_predicts_with(tmp_path, given, mirrored):
    """By default the mean features of an image and its mirror image, which evaluation and prediction then take too."""
    weights = gluon_ft.save_model(gluon_ft.fine_tune_net("cifar_resnet20_relu", 3), tmp_path / "w.params",
                                  classes=list("abc"), preprocessing=gluon_ft.Preprocessing(size=32, resize=32))
    images = photos.make(tmp_path / "photos", count=6)
    done = finetune.train(images, run=tmp_path / "run", pretrained=str(weights), strategy="linear", say=quiet, **given)
    assert content(done.folder, "config")["mirror"] is mirrored
    assert done.result["classifier"] in linear.WORDS.values()
    assert "Doubtful labels" in done.report.read_text()
    net = load_model(done.folder / "best.params")
    assert net.preprocessing.mirror is mirrored
    files = sorted(images.glob("*/*.png"))
    found = [dict(one.top) for one in gluon_ft.predict(net, files, top=3)]
    flipped = [np.ascontiguousarray(cv2.imread(str(file))[:, ::-1, ::-1]) for file in files]
    other = [dict(one.top) for one in gluon_ft.predict(net, flipped, top=3)]
    apart = max(abs(a[name] - b[name]) for a, b in zip(found, other) for name in a)
    assert apart < 1e-3 if mirrored else apart > 1e-3
    loader = gluon_ft.loaders.make_loader(images, train=False, batch_size=8, preprocessing=net.preprocessing)
    right = np.mean([max(one, key=one.get) == file.parent.name for one, file in zip(found, files)])
    assert gluon_ft.evaluate(net, loader).accuracy == pytest.approx(right)


def test_a_folder_in_use_is_refused(images, tmp_path):
    with folder.claimed(tmp_path / "run"):
        err = cli(images, "--run", tmp_path / "run", status=2)
    assert err == (f"error: {tmp_path}/run: the run's folder is in use by another process; expected one process a "
                   "folder; wait for it or end it, or name another folder\n")


def test_runs_are_named_after_the_photos(images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cli(images, "--backbone", "lenet", "--epochs", "1")
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name.startswith("my-photos-20") and content(run)["epochs"] == 1


def test_without_validation(images, tmp_path):
    done = finetune.train(images, run=tmp_path / "run", validation=0, epochs=1, say=quiet, **TINY)
    assert done.result["validation_accuracy"] is None and done.result["images"] == {"train": 30}
    assert "no validation images: how good this network is on others is not known" in done.report.read_text()


def test_packed_records_and_lists(images, tmp_path):
    drawn = split.split(images, fraction=0.8)
    split.write(drawn, tmp_path / "p")
    packed = {part: pack.pack(list_file(tmp_path / "p", part), images, workers=1)[0].rec
              for part in ("train", "val")}
    by_records = finetune.train(train=packed["train"], val=packed["val"], run=tmp_path / "rec", epochs=1, say=quiet,
                                **TINY)
    by_lists = finetune.train(train=tmp_path / "p-train.lst", val=tmp_path / "p-val.lst", root=images, epochs=1,
                              run=tmp_path / "lst", say=quiet, **TINY)
    assert by_records.result["images"] == by_lists.result["images"] == {"train": 24, "validation": 6}
    assert load_model(by_records.folder / "best.params").classes == ["blue", "green", "red"]
    with pytest.raises(ConfigError, match="packed records are not split here"):
        finetune.train(train=packed["train"], run=tmp_path / "one", say=quiet, **TINY)
    assert not (tmp_path / "one").exists()


def test_options_reach_the_training(images, source, tmp_path):
    done = finetune.train(images, run=tmp_path / "run", pretrained=str(source), freeze="none", epochs=2, batch_size=6,
                          schedule="cosine", mixup=0.2, label_smoothing=0.1, ema=0.9, balance="weights", clip_norm=1.0,
                          augment='{"crop": "centre", "flip": false, "rotation": 10}', devices="cpu:2", say=quiet)
    assert done.settings.strategy == "everything" and done.settings.devices == "cpu:2"
    assert done.settings.cache_features == "none"
    config = content(done.folder, "config")
    assert config["mixup"] == 0.2 and json.loads(config["augment"])["rotation"] == 10
    again = finetune.train(config=done.folder / "config.json", run=tmp_path / "again", say=quiet)
    assert same(parameters(again.folder), parameters(done.folder))
