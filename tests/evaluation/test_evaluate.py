"""Evaluation of a saved network: every image once, labels by name, unreadable images listed, clear errors."""
from __future__ import annotations

import copy
import csv
import dataclasses
import json
import pickle
import re
import shutil
import unicodedata

import mxnet as mx
import numpy as np
import photos
import pytest
from conftest import cli_runner
from PIL import Image

import gluon_ft
from gluon_ft.cli.evaluate import evaluate as command
from gluon_ft.data.records.pack import pack
from gluon_ft.errors import DataError, UserError, WeightsError
from gluon_ft.evaluation.evaluate import evaluate_model, labelled
from gluon_ft.evaluation.model import save_model
from gluon_ft.evaluation.trained import TrainedModel

HOW = gluon_ft.Preprocessing(mean=(0.4, 0.5, 0.6), size=32, resize=36)
CAFE, CAFE_NFD = unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café")
CLASSES = ["red", "green", CAFE]  # in another order than folders have


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model folder of three classes, with a temperature in its card."""
    mx.random.seed(1)
    net = gluon_ft.fine_tune_net("cifar_resnet20_relu", 3)
    net.classes, net.preprocessing = CLASSES, HOW
    net(mx.nd.zeros((1, 3, 32, 32)))
    return save_model(net, tmp_path_factory.mktemp("model") / "model.params", temperature=2.0).parent


@pytest.fixture(scope="module")
def model(saved):
    return gluon_ft.load_model(saved)


@pytest.fixture
def folder(tmp_path):
    return photos.make(tmp_path / "photos", classes=("red", "green"), count=5)


def run(*arguments, status=0):
    result = cli_runner().invoke(command, [str(a) for a in arguments], prog_name="gluon-ft evaluate")
    assert result.exit_code == status, (result.output, result.exception)
    return result


def test_the_object_is_a_network_with_methods(model, folder):
    assert isinstance(model, mx.gluon.HybridBlock) and isinstance(model, TrainedModel)
    assert model.classes == CLASSES and model.temperature == 2.0
    assert type(model).__name__ == type(gluon_ft.backbones.build("cifar_resnet20_relu")).__name__
    images = sorted(folder.rglob("*.png"))
    rows = model.probabilities(images)
    assert rows.dtype == np.float32 and rows.shape == (10, 3)
    loader = gluon_ft.loaders.make_loader(folder, preprocessing=HOW, train=False, batch_size=10)
    assert [loader.source.where(i) for i in range(10)] == list(map(str, images))
    expected = mx.nd.softmax(model(next(iter(loader)).data) / 2).asnumpy()
    np.testing.assert_allclose(rows, expected, rtol=1e-5)
    found = model.predict(images[:2], top=2)
    assert [p.probability for p in found] == pytest.approx(rows[:2].max(1), rel=1e-5) and len(found[0].top) == 2
    assert np.isnan(model.probabilities([folder / "none.png", images[0]])[0]).all()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_a_copy_is_the_same(saved, model, folder, copied):
    again = copied(gluon_ft.load_model(saved))  # one that has not run: Gluon's graph of one that has cannot be copied
    assert isinstance(again, TrainedModel) and again.classes == CLASSES
    np.testing.assert_array_equal(again.probabilities(folder), model.probabilities(folder))


def test_a_temperature_changes_no_decision_and_ends_with_the_output(saved, folder):
    images = sorted(folder.rglob("*.png"))
    net = gluon_ft.load_model(saved)
    tempered = net.probabilities(images)
    net.temperature = None
    plain = net.probabilities(images)
    assert np.array_equal(plain.argmax(1), tempered.argmax(1)) and not np.allclose(plain, tempered)
    np.testing.assert_allclose(tempered, np.sqrt(plain) / np.sqrt(plain).sum(1, keepdims=True), rtol=1e-5)
    net.temperature = 2.0
    gluon_ft.replace_output(net, 4)
    assert net.temperature is None


def sources(folder, tmp_path):
    """The same ten images as a folder, a list with class names, packed records, a table, and arrays."""
    files = [(path, path.parent.name) for path in sorted(folder.rglob("*.png"))]
    (tmp_path / "images.csv").write_text("".join(f"{path},{name}\n" for path, name in [("image", "label"), *files]))
    (tmp_path / "l.lst").write_text("".join(f"{i}\t{'green red'.split().index(name)}\t{path}\n"
                                            for i, (path, name) in enumerate(files)))
    (tmp_path / "l.classes.txt").write_text("green\nred\n")
    pack(tmp_path / "l.lst", folder, encoding=".png")
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB")) for path, _ in files])
    return {"folder": folder, "csv": tmp_path / "images.csv", "lst": tmp_path / "l.lst", "rec": tmp_path / "l.rec",
            "arrays": (pixels, np.array([CLASSES.index(name) for _, name in files]))}


def test_each_image_once_from_every_kind_of_source(model, folder, tmp_path):
    found = {kind: evaluate_model(model, data, batch_size=3) for kind, data in sources(folder, tmp_path).items()}
    first = found["folder"]
    assert first.measures.images == 10 and first.missing == [CAFE] and len(set(first.files)) == 10
    assert first.measures.correct == sum(p.name == label.parent.name for p, label in zip(
        model.predict(folder), sorted(folder.rglob("*.png"))))
    for kind, other in found.items():
        assert other.measures.confusion.tolist() == first.measures.confusion.tolist(), kind
        np.testing.assert_allclose(np.sort(other.probabilities, 0), np.sort(first.probabilities, 0), rtol=1e-4)


def test_unknown_and_missing_classes_are_said_and_forms_of_a_name_are_one(model, folder):
    shutil.copytree(folder / "red", folder / CAFE_NFD)
    shutil.copytree(folder / "red", folder / "zebra")
    found = evaluate_model(model, folder)
    assert found.unknown == {"zebra": 5} and found.missing == [] and found.measures.images == 15
    assert [row["images"] for row in found.measures.by_class] == [5, 5, 5]
    assert not any("zebra" in file for file in found.files)


def test_unreadable_images_do_not_stop_the_others(saved, folder, tmp_path):
    (folder / "red" / "00.png").write_bytes(b"no image")
    (folder / "red" / "broken.png").symlink_to(folder / "nowhere.png")
    table = tmp_path / "p.csv"
    result = run(saved, folder, "--csv", table, "--all-probabilities", "--by-class", "--json", status=1)
    assert "not evaluated" in result.stderr and "00.png" in result.stderr and "broken.png" in result.stderr
    values = json.loads(result.stdout.splitlines()[-1])
    assert values["measures"]["images"] == 9 and len(values["unreadable"]) == 2
    rows = list(csv.DictReader(table.open(encoding="utf-8")))
    assert len(rows) == 9 and list(rows[0]) == ["file", "label", "prediction", "probability", "p(red)", "p(green)",
                                                f"p({CAFE})"]
    assert all(float(row["probability"]) == max(float(row[f"p({name})"]) for name in CLASSES) for row in rows)
    assert sum(row["label"] == row["prediction"] for row in rows) == values["measures"]["correct"]


def test_a_file_of_a_list_that_is_missing_is_an_unreadable_image(model, folder, tmp_path):
    path = sources(folder, tmp_path)["csv"]
    (folder / "red" / "01.png").unlink()
    found = evaluate_model(model, path)
    assert found.measures.images == 9 and [*found.unreadable] == [str(folder / "red" / "01.png")]


def test_numbers_are_no_names_of_a_network_that_has_others(model, folder, tmp_path):
    path = sources(folder, tmp_path)["lst"]
    (tmp_path / "l.classes.txt").unlink()
    with pytest.raises(DataError, match=r"no class in common.*2 classes: 0, 1.*classes\.txt"):
        labelled(path, model.classes)
    assert labelled(path, model.classes, class_names=["green", "red"]).labels.tolist() == [1] * 5 + [0] * 5
    assert labelled(path, ["1", "0"]).labels.tolist() == [1] * 5 + [0] * 5


@pytest.mark.parametrize("label", ["2", "-1", "70000"])
def test_a_label_outside_the_classes_of_its_list(model, folder, tmp_path, label):
    path = sources(folder, tmp_path)["lst"]
    path.write_text(path.read_text().replace("0\t1\t", f"0\t{label}\t", 1).replace("9\t1\t", f"9\t{label}\t"))
    with pytest.raises(DataError, match=r"label"):
        labelled(path, model.classes)


def renamed(folder, *names):
    for path, name in zip(sorted(folder.iterdir()), names):
        path.rename(folder / name)
    return folder


@pytest.mark.parametrize("make, says", [
    (lambda folder: folder / "nothing", "no such file or folder"),
    (lambda folder: folder / "red", "no classes"),
    (lambda folder: renamed(folder, "cat", "dog"), "no class in common"),
    (lambda folder: renamed(folder, "green", "dog"), "images of one class only"),
    (lambda folder: (folder / "empty").mkdir() or folder / "empty", "no classes.*an empty folder"),
    (lambda folder: ((folder / "e" / "red").mkdir(parents=True), (folder / "e" / "green").mkdir())
     and folder / "e", "no images")])
def test_bad_data_is_one_line(saved, folder, make, says):
    result = run(saved, make(folder), status=2)
    assert len(result.stderr.splitlines()) == 1 and re.search(says, result.stderr), result.stderr


def test_none_that_can_be_read(model, folder):
    for path in folder.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="none of the images could be read"):
        evaluate_model(model, folder)


def test_a_model_whose_file_was_changed(saved, folder, tmp_path):
    copy = shutil.copytree(saved, tmp_path / "copy")
    data = bytearray((copy / "model.params").read_bytes())
    data[-3] ^= 1
    (copy / "model.params").write_bytes(bytes(data))
    with pytest.raises(WeightsError, match="not the parameters that their card describes"):
        evaluate_model(copy, folder)


@pytest.mark.parametrize("options, says", [
    (["--all-probabilities"], "--csv"), (["--no-mirror"], "--tta"), (["--tta", "3"], "--tta"),
    (["--csv", "no/such/folder/x.csv"], "no/such/folder")])
def test_options_that_do_not_fit(saved, folder, options, says):
    assert says in run(saved, folder, *options, status=2).stderr


@pytest.mark.parametrize("mirror", [True, False])
def test_views_are_said_with_and_without(saved, folder, mirror):
    result = run(saved, folder, "--tta", 4, "--mirror" if mirror else "--no-mirror", "--json")
    values = json.loads(result.stdout.splitlines()[-1])
    assert (values["tta"]["views"], values["tta"]["mirror"]) == (4, mirror) and "4 views" in result.stdout
    plain = evaluate_model(saved, folder).measures
    assert values["tta"]["without"]["log_loss"] == pytest.approx(plain.log_loss, rel=1e-5)
    assert values["measures"]["log_loss"] != pytest.approx(plain.log_loss, rel=1e-5)


@pytest.mark.parametrize("mirror", [True, False])
def test_views_are_averaged_and_then_calibrated(saved, folder, mirror):
    """Of two views with mirror images: those of the image as in evaluation, and of it mirrored."""
    net = gluon_ft.load_model(saved)
    net.preprocessing = dataclasses.replace(HOW, mirror=mirror)
    images = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.rglob("*.png"))]
    found = net.probabilities(images, tta=2)
    assert [p.probability for p in net.predict(images, tta=2)] == pytest.approx(found.max(1), rel=1e-5)
    net.temperature, net.preprocessing = None, HOW
    other = [image[:, ::-1] for image in images]
    seen = (net.probabilities(images) + net.probabilities(other)) / 2
    wanted = np.sqrt(seen) / np.sqrt(seen).sum(1, keepdims=True)  # the model's temperature is 2
    assert np.allclose(found, wanted, rtol=1e-4) == mirror


def test_errors_are_the_librarys_own(model, folder):
    with pytest.raises(UserError, match="no such number of views"):
        model.evaluate(folder, tta=3)
