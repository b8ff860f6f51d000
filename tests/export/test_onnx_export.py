"""ONNX from pixels to probabilities gives what `predict` gives; the proof of it, and what it refuses."""
from __future__ import annotations

import json
import shutil

import mxnet as mx
import numpy as np
import pytest
from export_runs import copied_fixture, make_run, pictures_fixture, run_fixture, whole_fixture  # noqa: F401  (fixtures)
from mxnet.gluon import nn
from small_nets import small
from train_runs import gluon_ft_command

import gluon_ft
from gluon_ft.data.sources.arrays import ArraySource
from gluon_ft.engine import onnx_runtime
from gluon_ft.errors import DataError, DependencyError, NetworkError, WeightsError
from gluon_ft.evaluation.predict import probabilities
from gluon_ft.export import certificate, export_model, onnx_files
from gluon_ft.export.folder import symbol_and_values
from gluon_ft.weights.readers.tensor_files import read_tensors

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

PLAIN = gluon_ft.Preprocessing(size=32, resize=None)


class Op(nn.HybridBlock):
    """One operator as a layer."""

    def __init__(self, op, **settings):
        super().__init__()
        self._op, self._settings = op, settings

    def hybrid_forward(self, F, x):
        return getattr(F, self._op)(x, **self._settings)


def described(net, how=PLAIN, temperature=None):
    net.classes, net.preprocessing, net.temperature = ["a", "b", "c"], how, temperature
    return net


def with_layer(layer):
    net = nn.HybridSequential()
    net.add(small(), layer)
    return net


def grey():
    net = nn.HybridSequential()
    net.add(nn.Conv2D(4, 3, in_channels=1), nn.Activation("relu"), nn.GlobalAvgPool2D(), nn.Dense(3))
    net.initialize(mx.init.Xavier())
    net(mx.nd.zeros((1, 1, 32, 32)))
    return net


def how(**settings):
    return gluon_ft.Preprocessing(**{"size": 32, "resize": None, **settings})


CASES = {
    "as ImageNet": (small, PLAIN, None),
    "calibrated": (small, PLAIN, 5.0),
    "0..255, blue first": (small, how(scale=1.0, channel_order="bgr", mean=(104, 117, 123), std=(60, 61, 62)), None),
    "rotated": (small, how(rotate180=True), None),
    "mirrored": (small, how(mirror=True), 2.5),
    "everything": (small, how(mirror=True, rotate180=True, channel_order="bgr"), 1.3),
    "grey": (grey, how(channel_order="gray", mean=(0.2,), std=(0.3,)), 1.3),
    "softmax in the network": (lambda: with_layer(Op("softmax")), PLAIN, None),
    "softmax in the network, calibrated": (lambda: with_layer(Op("softmax")), how(mirror=True), 4.0),
}


@pytest.mark.parametrize("make, wanted, temperature", CASES.values(), ids=CASES)
def test_from_pixels_to_probabilities(make, wanted, temperature):
    net = described(make(), wanted, temperature)
    shape = (5, 32, 32, 3) if wanted.channels == 3 else (5, 32, 32)
    images = np.random.RandomState(0).randint(0, 256, shape).astype(np.uint8)
    expected, _ = probabilities(net, ArraySource(images, np.zeros(5), None))
    made = onnx_files.models(*symbol_and_values(net), net, "0" * 64)
    session = onnxruntime.InferenceSession(made["model.onnx"].SerializeToString())
    found, = session.run(["probabilities"], {"image": images.reshape(5, 32, 32, wanted.channels)})
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert len(session.run(None, {"image": images[:1].reshape(1, 32, 32, wanted.channels)})[0]) == 1
    props = session.get_modelmeta().custom_metadata_map
    assert json.loads(props["class_names"]) == net.classes and props["source_sha256"] == "0" * 64
    assert gluon_ft.Preprocessing.from_dict(json.loads(props["preprocessing"])) == wanted
    assert json.loads(props["temperature"]) == temperature and props["gluon_ft_version"] == gluon_ft.__version__


def test_from_the_prepared_input_to_the_networks_output():
    net, data = described(small(), how(mirror=True), 2.0), np.random.RandomState(0).randn(3, 3, 32, 32)
    made = onnx_files.models(*symbol_and_values(net), net, "0" * 64)["model-logits.onnx"]
    assert made.opset_import[0].version == 17
    session = onnxruntime.InferenceSession(made.SerializeToString())
    found, = session.run(["logits"], {"data": data.astype(np.float32)})
    expected = net(mx.nd.array(data)).asnumpy()
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_an_operator_without_an_onnx_form_is_named_with_its_layer():
    net = described(with_layer(Op("sort", axis=1)))
    with pytest.raises(NetworkError, match=r"operator sort has no ONNX form; .*found sort '.*sort0'"):
        onnx_files.models(*symbol_and_values(net), net, "0" * 64)


def test_the_certificate(whole):
    found = json.loads((whole.folder / "certificate.json").read_text())
    assert found["images"] == 6 and found["source"] == "the run's validation part"
    assert found["largest_difference"] <= 1e-6 and found["logits_difference"] <= 1e-6
    assert found["decisions_changed"] == [] and found["unreadable"] == {}
    assert sorted(found["images_per_second"]) == ["mxnet", "onnxruntime"]
    assert min(found["images_per_second"].values()) > 0
    manifest = json.loads((whole.folder / "manifest.json").read_text())
    assert {name: manifest["files"][name] for name in found["sha256"]} == found["sha256"]


def skewed(monkeypatch, factor):
    """The ONNX models get other parameters than the network has."""
    models = onnx_files.models
    monkeypatch.setattr(onnx_files, "models", lambda symbol, values, *rest: models(
        symbol, {name: value * factor if value.ndim == 2 else value for name, value in values.items()}, *rest))


@pytest.mark.parametrize("factor, words", [(-1.0, r"images get another class; .*found (red|green|blue)/0\d.png: \S+ in "
                                                  "place of"),
                                           (1.02, r"probabilities differ on \d of 6 images.*/0\d.png: 0\.0")])
def test_another_answer_fails_with_the_images_and_writes_nothing(run, tmp_path, monkeypatch, factor, words):
    skewed(monkeypatch, factor)
    (tmp_path / "model").mkdir()
    with pytest.raises(NetworkError, match=f"not exported: the ONNX model answers differently, .*{words}"):
        export_model(run, tmp_path / "model", onnx=True)
    assert not list((tmp_path / "model").iterdir()) and len(list(tmp_path.iterdir())) == 1
    line = gluon_ft_command("export", run, "-o", tmp_path / "model", "--onnx", status=2)
    assert line.startswith("error: ") and line.count("\n") == 1 and not list((tmp_path / "model").iterdir())


def test_an_earlier_export_stays_where_the_new_one_fails(run, copied, monkeypatch):
    before = {path.name: path.read_bytes() for path in copied.iterdir()}
    skewed(monkeypatch, -1.0)
    with pytest.raises(NetworkError):
        export_model(run, copied, onnx=True)
    assert {path.name: path.read_bytes() for path in copied.iterdir()} == before


def test_a_difference_that_is_not_a_number_counts():
    found = certificate.Certificate(3, "x", float("nan"), 0.0, [], [{"image": "a.png", "difference": float("nan")}], {},
                                    {})
    with pytest.raises(NetworkError, match=r"a\.png: nan"):
        found.check("model")


@pytest.mark.parametrize("kind", ["folder", "files", "list", "class folder"])
def test_images_to_check_on(run, pictures, tmp_path, kind):
    listed = tmp_path / "some.lst"
    listed.write_text(f"0\t0\t{pictures}/red/00.png\n1\t1\t{pictures}/green/00.png\n")
    given = {"folder": [pictures], "files": sorted((pictures / "red").iterdir())[:2], "list": [listed],
             "class folder": [pictures / "blue"]}[kind]
    checks = [word for path in given for word in ("--check", path)]
    out = gluon_ft_command("export", run, "-o", tmp_path / "model", "--onnx", *checks, "--json")
    found = json.loads(out.splitlines()[-1])["certificate"]
    assert found["images"] == {"folder": 12, "files": 2, "list": 2, "class folder": 4}[kind]
    assert found["source"] == {"folder": "photos", "files": "images that were given", "list": "some.lst",
                               "class folder": "blue"}[kind]


def test_packed_records_are_checked_on_by_name_and_as_a_runs_validation_part(run, pictures, tmp_path):
    gluon_ft_command("split", pictures, tmp_path / "set", "--fraction", "0.5", "--seed", "0")
    gluon_ft_command("pack", tmp_path / "set", pictures, "--resize", "32")
    found = export_model(run, tmp_path / "first", onnx=True, check=tmp_path / "set-val.rec").certificate
    assert (found.images, found.source) == (6, "set-val.rec")
    again = tmp_path / "again"
    shutil.copytree(run, again)
    record = json.loads((again / "data.json").read_text())
    record["parts"]["validation"].update(source=str(tmp_path / "set-val.rec"), root=None, files=None)
    (again / "data.json").write_text(json.dumps(record))
    assert export_model(again, tmp_path / "second", onnx=True).certificate.images == 6
    (tmp_path / "set-val.rec").unlink()
    with pytest.raises(DataError, match=r"the run's validation images cannot be opened.*set-val\.rec.*--no-check"):
        export_model(again, tmp_path / "third", onnx=True)


def test_images_that_cannot_be_read_are_listed(run, pictures, tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / "mixed").mkdir(exist_ok=True)
        (tmp_path / "mixed" / name).write_bytes((pictures / "red" / "00.png").read_bytes()[:(None, 40)[name < "b"]])
    found = export_model(run, tmp_path / "model", onnx=True, check=tmp_path / "mixed").certificate
    assert found.images == 1 and list(found.unreadable) == ["a.png"]
    (tmp_path / "mixed" / "b.png").unlink()
    with pytest.raises(DataError, match=r"none of the images to check the export on can be read.*--check"):
        export_model(run, tmp_path / "second", onnx=True, check=tmp_path / "mixed")
    assert not (tmp_path / "second").exists()


@pytest.mark.parametrize("case, words", [("no run", "no validation images are known.*--check, or --no-check"),
                                         ("no part", "no validation images are known"),
                                         ("gone", "gone.png: a validation image of the run is not there any more.*"
                                                  "1 of 6 missing.*--check")])
def test_no_images_to_check_on(run, tmp_path, case, words):
    for path in run.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    record = json.loads((tmp_path / "data.json").read_text())
    if case == "no run":
        (tmp_path / "data.json").unlink()
    elif case == "no part":
        del record["parts"]["validation"]
    else:
        record["parts"]["validation"]["files"][3][0] = "gone.png"
    if case != "no run":
        (tmp_path / "data.json").write_text(json.dumps(record))
    with pytest.raises(DataError, match=words):
        export_model(tmp_path, tmp_path / "out", onnx=True)
    assert not (tmp_path / "out").exists()
    found = export_model(tmp_path, tmp_path / "out", onnx=True, no_check=True)
    assert found.certificate is None and "certificate.json" not in found.files and "model.onnx" in found.files


def test_a_missing_package_is_named_before_anything_is_done(run, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_runtime, "missing", lambda: "onnxruntime")
    with pytest.raises(DependencyError, match=r"need the package onnxruntime; pip install onnxruntime"):
        export_model(tmp_path / "none", tmp_path / "model", onnx=True)


def test_safetensors_with_pytorchs_names(run, pictures, tmp_path):
    with pytest.raises(WeightsError, match="no PyTorch network is known that equals 'lenet'"):
        export_model(run, tmp_path / "model", safetensors=True)
    assert not (tmp_path / "model").exists()
    net = gluon_ft.fine_tune_net("cifar_resnet20_relu", 3, pretrained=False)
    net(mx.nd.zeros((1, 3, 32, 32)))
    cifar = make_run(tmp_path / "cifar", pictures, net, PLAIN)
    assert "model.safetensors" in export_model(cifar, tmp_path / "model", safetensors=True, onnx=True).files
    tensors = read_tensors(tmp_path / "model" / "model.safetensors").tensors
    np.testing.assert_array_equal(tensors["linear.weight"], net.output.weight.data().asnumpy())
    assert gluon_ft.load_model(tmp_path / "model").classes
    assert "for akamaster's resnet20, in PyTorch" in (tmp_path / "model" / "README.md").read_text(encoding="utf-8")


def test_openvino_answers_the_same(whole, run):
    openvino = pytest.importorskip("openvino")
    net = gluon_ft.load_model(run)
    given = {"model.onnx": certificate.prepared(net, ArraySource(
        np.random.RandomState(0).randint(0, 256, (4, 28, 28)).astype(np.uint8), np.zeros(4), None), np.arange(4)),
        "model-logits.onnx": np.random.RandomState(0).randn(4, 1, 28, 28).astype(np.float32)}
    for name, data in given.items():
        session = onnx_runtime.open_session(str(whole.folder / name))
        expected, = session.run(None, {session.get_inputs()[0].name: data})
        found = openvino.Core().compile_model(str(whole.folder / name), "CPU")(data)[0]
        np.testing.assert_allclose(found, expected, atol=1e-5)
