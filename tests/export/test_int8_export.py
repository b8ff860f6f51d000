"""INT8: made of the float32 graph, judged on images that did not calibrate it, refused where it costs too much."""
from __future__ import annotations

import json
import shutil
import types

import mxnet as mx
import numpy as np
import photos
import pytest
from export_runs import GREY, divide, make_run
from small_nets import small
from train_runs import gluon_ft_command

import gluon_ft
from gluon_ft.data.sources.arrays import ArraySource
from gluon_ft.errors import ConfigError, DataError, NetworkError, WeightsError
from gluon_ft.evaluation.model import save_model
from gluon_ft.export import export_model, onnx_files
from gluon_ft.export.folder import symbol_and_values
from gluon_ft.export.int8 import graph, judgement, ranges

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

CLASSES = ["red", "green", "blue"]


@pytest.fixture(scope="module", name="pictures")
def pictures_fixture(tmp_path_factory):
    return photos.make(tmp_path_factory.mktemp("int8") / "photos", count=6)


@pytest.fixture(scope="module", name="trained")
def trained_fixture(pictures, tmp_path_factory):
    """A run that was trained on 12 of the images, and validated on the other 6."""
    mx.random.seed(0)
    np.random.seed(0)
    folder = make_run(tmp_path_factory.mktemp("int8_run") / "fruit", pictures, classes=CLASSES)
    net = gluon_ft.load_model(folder)
    logits = np.log(net.probabilities(pictures)) * net.temperature
    net.output.bias.set_data(mx.nd.array(-logits.mean(axis=0)))  # so that the images get different classes
    save_model(net, folder / "best.params", preprocessing=GREY, classes=CLASSES, temperature=1.7)
    return divide(folder, pictures, range(4), range(4, 6), CLASSES)


@pytest.fixture(scope="module", name="exported")
def exported_fixture(trained, tmp_path_factory):
    """The export; its network was not trained, so any loss is allowed. Only read."""
    return export_model(trained, tmp_path_factory.mktemp("int8_out") / "model", onnx=True, int8=True, int8_loss=100)


def of(net, images):
    """(plan, ranges) of a network on images."""
    net.classes, net.preprocessing, net.temperature = CLASSES, gluon_ft.Preprocessing(size=32, resize=None), None
    model = onnx_files.models(*symbol_and_values(net), net, "0" * 64)["model.onnx"]
    plan = graph.Plan(model)
    return plan, ranges.measure(plan, [images])


def answer(model, images):
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {"image": images})[0]


def test_what_is_written(exported):
    found = json.loads((exported.folder / "certificate.json").read_text())
    int8 = found["int8"]
    assert exported.files["model-int8.onnx"] < exported.files["model.onnx"] / 2
    assert (int8["images"], int8["calibration"]) == (6, {"images": 12, "source": "training images of the run"})
    assert int8["layers"] == 4 and int8["kept"] == [] and int8["limit"] == 100
    assert set(int8["accuracy"]) == set(int8["images_per_second"]) == {"float32", "int8"}
    assert 0 < int8["mean_difference"] <= int8["largest_difference"] < 0.05
    assert "model-int8.onnx" in found["sha256"] and "model-int8.onnx" in exported.manifest["files"]
    card = (exported.folder / "README.md").read_text(encoding="utf-8")
    for words in ("## INT8", "| images that calibrated | 12 (training images of the run) |", "accuracy, int8",
                  "| layers kept in float32 | none |", "`model-int8.onnx`"):
        assert words in card


def test_its_hash_is_checked(exported, tmp_path):
    copied = shutil.copytree(exported.folder, tmp_path / "model")
    with open(copied / "model-int8.onnx", "r+b") as file:
        file.write(b"\0")
    with pytest.raises(WeightsError, match=r"model-int8\.onnx: changed since the model was exported"):
        gluon_ft.load_model(copied)


def test_the_layers_are_integers_and_kept_ones_are_not(exported, trained, tmp_path):
    def kinds(folder):
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        onnxruntime.InferenceSession(str(folder / "model-int8.onnx"), options)
        return [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]

    assert kinds(exported.folder).count("QLinearConv") == 2 and kinds(exported.folder).count("QGemm") == 2
    out = gluon_ft_command("export", trained, "-o", tmp_path / "model", "--onnx", "--int8", "--int8-loss", "100",
                           "--int8-keep", "features.0", "--int8-keep", "output", "--json")
    found = json.loads(out.splitlines()[-1])["certificate"]["int8"]
    assert found["kept"] == ["features.0", "output"] and found["layers"] == 2
    assert kinds(tmp_path / "model").count("QLinearConv") == 1 and kinds(tmp_path / "model").count("QGemm") == 1
    assert "INT8, calibrated on 12 images (training images of the run): accuracy" in out


def test_too_large_a_loss_is_refused_and_the_dearest_layer_named(trained, pictures, tmp_path, monkeypatch):
    right = ranges.measure

    def one_bias_wrong(plan, batches):
        found, name = right(plan, batches), plan.layers[1].name
        return ranges.Ranges(found.of, {**found.means, name: found.means[name] - 100})

    monkeypatch.setattr(ranges, "measure", one_bias_wrong)
    files = [pictures / name / f"0{number}.png" for name in CLASSES for number in (4, 5)]
    with pytest.raises(NetworkError, match=r"INT8 loses \d+ points of decisions; expected at most 20; found \d of 6 "
                                           r"images get another class; layer features\.2 costs most, \d+% of the "
                                           r"difference; keep .* --int8-keep features\.2, or allow more with"):
        export_model(trained, tmp_path / "model", onnx=True, int8=True, check=files, int8_loss=20)
    assert not list(tmp_path.iterdir())
    found = export_model(trained, tmp_path / "model", onnx=True, int8=True, check=files, int8_loss=20,
                         int8_keep=["features.2"])
    assert found.certificate.int8["accuracy"] is None and found.certificate.int8["changed"] <= 1


@pytest.mark.parametrize("options, error, words", [
    ({"int8_keep": ["features.1"]}, ConfigError, r"no layer 'features\.1' to keep in float32; did you mean features"),
    ({"int8_loss": -1}, ConfigError, r"out of range; expected 0 to 100 points of accuracy; found -1"),
    ({"int8_loss": float("nan")}, ConfigError, "out of range"),
    ({"no_check": True}, ConfigError, r"judged on images; export that too \(--onnx\)"),
    ({"onnx": False}, ConfigError, r"made of the ONNX model"),
    ({"int8": False, "int8_keep": ["features.0"]}, ConfigError, "and no such model"),
    ({"check": "train"}, DataError, r"no images to judge INT8 on .*found 12 images, all among the 12 of the training"),
])
def test_what_is_refused(trained, pictures, tmp_path, options, error, words):
    if "check" in options:
        options = {"check": [pictures / name / f"0{number}.png" for name in CLASSES for number in range(4)]}
    with pytest.raises(error, match=words):
        export_model(trained, tmp_path / "model", **{"onnx": True, "int8": True, **options})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words, options", [("--int8 is for --onnx", ["--int8"]),
                                            ("--int8-loss and --int8-keep are for --int8", ["--int8-keep", "x"])])
def test_options_of_the_command(trained, tmp_path, words, options):
    assert words in gluon_ft_command("export", trained, "-o", tmp_path / "model", *options, status=2)


def test_without_the_run_a_third_of_the_checked_images_calibrates(trained, pictures, tmp_path):
    for path in trained.glob("best.params*"):
        shutil.copy(path, tmp_path)
    model = tmp_path / "best.params"
    with pytest.raises(DataError, match="found 6: one in 3 of the 18 images to check on; give 30 or more with --check"):
        export_model(model, tmp_path / "model", onnx=True, int8=True, check=pictures)
    more = photos.make(tmp_path / "more", count=11, seed=5)
    found = export_model(model, tmp_path / "model", onnx=True, int8=True, check=more, int8_loss=100).certificate
    assert found.images == 33 and found.int8["images"] == 22
    assert found.int8["calibration"] == {"images": 11, "source": "images to check on, which do not judge"}
    assert found.int8["accuracy"] is not None


def test_too_few_training_images(trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    record = json.loads((run / "data.json").read_text())
    record["parts"]["train"]["files"] = record["parts"]["train"]["files"][:9]
    (run / "data.json").write_text(json.dumps(record))
    with pytest.raises(DataError, match="expected at least 10 that can be read; found 9 of the run's training images"):
        export_model(run, tmp_path / "model", onnx=True, int8=True)


def test_every_kind_of_layer_answers_nearly_as_in_float32():
    images = np.random.RandomState(0).randint(0, 256, (12, 32, 32, 3)).astype(np.uint8)
    plan, found = of(small(), images)
    expected = answer(plan.model, images)
    got = answer(graph.quantised(plan, found.of, found.means), images)
    assert 0 < np.abs(got - expected).max() < 0.05
    none = graph.Plan(plan.model, [node.name for node in plan.layers])
    assert np.abs(answer(graph.quantised(none, found.of, found.means), images) - expected).max() < np.abs(
        got - expected).max()


@pytest.mark.parametrize("shape", [(8, 16, 1, 1), (8, 5, 3, 3), (8, 1, 3, 3), (8, 33)])
def test_no_two_products_overflow_16_bits(shape):
    weight = np.random.RandomState(0).standard_t(2, shape)
    integers = np.rint(weight / graph.weight_scales(weight).reshape(-1, *[1] * (weight.ndim - 1)))
    assert np.abs(integers).max() <= 127
    if weight.ndim == 4 and shape[1] == 1:
        assert np.abs(integers).reshape(8, -1).max(axis=1).tolist() == [127] * 8
        return
    for order in (integers, np.moveaxis(integers, 1, -1)):
        rows = order.reshape(8, -1)
        rows = np.pad(rows, ((0, 0), (0, rows.shape[1] % 2)))
        assert (255 * np.abs(rows[:, ::2] + rows[:, 1::2])).max() < 2 ** 15


@pytest.mark.parametrize("factor", [1e-9, 0])
def test_a_large_bias_on_small_weights_fits_32_bits(factor):
    net = small()
    net[0].weight.data()[:] *= factor
    images = np.random.RandomState(0).randint(0, 256, (4, 32, 32, 3)).astype(np.uint8)
    plan, found = of(net, images)
    np.testing.assert_allclose(answer(graph.quantised(plan, found.of, found.means), images),
                               answer(plan.model, images), atol=0.05)


def said(float32, int8, tmp_path):
    """Answers on as many images, by the class that each gets."""
    for name in ("model.onnx", "model-int8.onnx"):
        (tmp_path / name).write_bytes(b"x")
    rows = {"model.onnx": np.eye(3)[float32], "model-int8.onnx": np.eye(3)[int8]}
    return types.SimpleNamespace(onnx=rows, good=list(range(len(float32))), network_seconds=dict.fromkeys(rows, 1.0),
                                 pixels=[bytes([number]) for number in range(len(float32))])


def test_what_counts_as_a_loss(tmp_path):
    answers = said([0, 1, 2, 0, 1, 2], [0, 1, 1, 1, 1, 2], tmp_path)
    calibration = types.SimpleNamespace(pixels={b"\x05"}, images=[0], source="x")
    judge = lambda labels, limit: judgement.judge(  # noqa: E731
        answers, calibration, labels, limit, folder=tmp_path, layers=1, kept=[])[0]
    found = judge(np.array([0, 1, 2, 1, 1, 0]), 1.0)  # of five, one is lost and one is won
    assert (found.images, found.changed, found.loss, found.holds) == (5, 2, 0.0, True)
    assert found.loss_interval[0] < -20 and found.loss_interval[1] > 20
    assert found.accuracy["float32"]["accuracy"] == found.accuracy["int8"]["accuracy"] == 0.8
    assert (judge(None, 1.0).loss, judge(None, 40.0).holds, judge(None, 39.0).holds) == (40.0, True, False)
    assert judge(np.array([0, 1, 2, 0, 1, 0]), 40.0).loss == 40.0


@pytest.mark.parametrize("names, known, expected", [
    (["b/x.png", "a/deep/y.png"], None, [1, 0]), (["b/x.png", "other/y.png"], None, None), (["b", "a"], None, None),
    (["x", "y"], ["c", "b"], [2, 1]), (["b/x.png", "a/y.png"], ["z", "y"], None)])
def test_labels_of_the_images(names, known, expected):
    source = ArraySource(np.zeros((2, 4, 4), np.uint8), [0, 1], known)
    found = judgement.labels_of(source, names, ["a", "b", "c"])
    assert (found is None) == (expected is None) and (found is None or found.tolist() == expected)
