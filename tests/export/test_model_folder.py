"""The folder of an export: what is in it, loaded by gluon_ft and by MXNet alone, refused where it was changed."""
from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import mxnet as mx
import numpy as np
import pytest
from conftest import ROOT
from export_runs import copied_fixture, make_run, pictures_fixture, run_fixture, whole_fixture  # noqa: F401  (fixtures)
from train_runs import gluon_ft_command

import gluon_ft
from gluon_ft.errors import ConfigError, DataError, WeightsError
from gluon_ft.export import export_model
from gluon_ft.io import atomic
from gluon_ft.weights import model_folder
from gluon_ft.weights.readers.tensor_files import read_tensors

FILES = ["README.md", "certificate.json", "classes.txt", "manifest.json", "model-0000.params",
         "model-0000.params.features", "model-logits.onnx", "model-symbol.json", "model.onnx", "preprocess.json"]

ALONE = """
import json, sys
import gluon_ft  # isort: skip  (what makes `import mxnet` work on this Python)
import mxnet as mx
folder, out = sys.argv[1:]
data = mx.nd.array(mx.nd.arange(2 * 28 * 28).asnumpy().reshape(2, 1, 28, 28) % 7 / 7.0)
net = mx.gluon.SymbolBlock.imports(folder + "/model-symbol.json", ["data"], folder + "/model-0000.params")
symbol, args, states = mx.model.load_checkpoint(folder + "/model", 0)
module = mx.mod.Module(symbol, data_names=["data"], label_names=None)
module.bind([("data", data.shape)], for_training=False)
module.set_params(args, states)
module.forward(mx.io.DataBatch([data]), is_train=False)
mx.nd.save(out, [data, net(data), module.get_outputs()[0]])
print(json.dumps([name for name in sys.modules if name.startswith("gluon_ft.")]))
"""


def test_what_is_in_it(whole, run, pictures):
    assert sorted(whole.files) == FILES
    texts = {name: (whole.folder / name).read_bytes() for name in FILES}
    for name, data in texts.items():
        for path in (run.parent, pictures.parent, whole.folder.parent):
            assert str(path).encode() not in data, f"{name} names a folder of this machine"
    assert texts["classes.txt"].decode() == "blau\ngrün\nred | <b>\n"
    prepared = json.loads(texts["preprocess.json"])
    assert gluon_ft.Preprocessing.from_dict(prepared["preprocessing"]).resize == 32
    assert prepared["temperature"] == 1.7
    assert prepared["steps"][0] == "resize the shorter edge to 32 pixels, the longer one rounded down, bilinear"
    manifest = json.loads(texts["manifest.json"])
    assert sorted([*manifest["files"], "manifest.json"]) == FILES
    assert manifest["run"]["name"] == "fruit" and manifest["data"]["images"] == {"train": 6, "validation": 6}
    assert manifest["source"]["file"] == "best.params" and len(manifest["source"]["sha256"]) == 64


@pytest.mark.parametrize("words", ["| validation | 6 |", "50.0% (20.0% to 80.0%", "0.250 before and 0.125 after",
                                   "On 6 validation images", "grün", r"red \| &lt;b>".replace(r"\|", "|"),
                                   "| decisions that changed | 0 |", "SymbolBlock.imports", "InferenceSession",
                                   'load_model("model/")', "divide by the temperature 1.7", "(n, 28, 28, 1), grey",
                                   "unlike the training images"])
def test_the_model_card_says(whole, words):
    assert words in (whole.folder / "README.md").read_text(encoding="utf-8")


def test_gluon_ft_predicts_as_the_run_does_bit_for_bit(whole, run, pictures):
    ours, theirs = gluon_ft.load_model(run), gluon_ft.load_model(whole.folder)
    np.testing.assert_array_equal(theirs.probabilities(pictures), ours.probabilities(pictures))
    assert theirs.predict(pictures) == ours.predict(pictures)
    assert theirs.predict(pictures)[0].distance is not None
    assert (theirs.classes, theirs.preprocessing, theirs.temperature) == (
        ours.classes, ours.preprocessing, ours.temperature)
    own, other = (read_tensors(path).tensors for path in (run / "best.params", whole.folder / "model-0000.params"))
    assert own.keys() == other.keys() and all(np.array_equal(own[name], other[name]) for name in own)


@pytest.mark.slow
def test_mxnet_alone_loads_it(whole, run, tmp_path):
    out = tmp_path / "out.nd"
    done = subprocess.run([sys.executable, "-c", ALONE, str(whole.folder), str(out)], capture_output=True, text=True,
                          cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert not [name for name in loaded if name.startswith(("gluon_ft.models", "gluon_ft.weights", "gluon_ft.export"))]
    data, block, module = mx.nd.load(str(out))
    expected = gluon_ft.load_model(run)(data).asnumpy()
    for found in (block, module):
        np.testing.assert_allclose(found.asnumpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in FILES if name not in ("README.md", "manifest.json")])
def test_a_changed_file_is_refused(copied, name):
    data = (copied / name).read_bytes()
    (copied / name).write_bytes(data[:-2] + bytes([data[-2] ^ 1]) + data[-1:])
    with pytest.raises(WeightsError, match=rf"{name}: changed since the model was exported; expected SHA-256"):
        gluon_ft.load_model(copied)
    (copied / name).unlink()
    with pytest.raises(WeightsError, match=rf"{name}: a file of the exported model cannot be read.*No such file"):
        gluon_ft.load_model(copied / "model-0000.params")


def test_people_may_write_in_the_readme(copied):
    (copied / "README.md").write_text("ours")
    assert gluon_ft.load_model(copied).classes


@pytest.mark.parametrize("change, words", [
    ({"format": "gluon_ft model folder 9"}, "the format is 'gluon_ft model folder 9'"),
    ({"files": {"../classes.txt": "0" * 64}}, r"a file '../classes.txt' outside the folder"),
    ({"files": {}}, "model-symbol.json is not named"),
    ({"network": 3}, "network does not fit"),
    ({"network": {"backbone": "lenet", "head": {
        "classes": 3, "bias": True, "linear": True, "dropout": 0, "options": {}, "appended": [
            {"name": "top", "classes": 3}]}}}, "not the parameters of lenet"),
    ({"network": {"backbone": "lenet", "evil": 1}}, "evil is not known here"),
    ({"network": {"backbone": "nowhere"}}, "does not describe a network"),
])
def test_a_manifest_that_anybody_wrote(copied, change, words):
    manifest = json.loads((copied / "manifest.json").read_text())
    (copied / "manifest.json").write_text(json.dumps({**manifest, **change}))
    with pytest.raises(WeightsError, match=words):
        gluon_ft.load_model(copied)


def test_an_export_is_replaced_and_another_folder_is_not(run, tmp_path):
    place = tmp_path / "model"
    first = export_model(run, place)
    assert export_model(place, place.with_name("again")).manifest["measures"] == first.manifest["measures"]
    (place / "more.txt").write_text("left over")
    assert "more.txt" not in export_model(run, place).files
    (place / "manifest.json").unlink()
    before = sorted(place.iterdir())
    with pytest.raises(DataError, match=r"not empty, and not an export.*--force"):
        export_model(run, place)
    assert sorted(place.iterdir()) == before
    assert "manifest.json" in export_model(run, place, force=True).files
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "model"]


def test_what_a_killed_export_left_is_removed(run, tmp_path):
    for name in (".model.0123abcd.part", ".model.x.0123abcd.part", ".model.mine.part", ".model.4567cdef.old"):
        (tmp_path / name).mkdir()
    export_model(run, tmp_path / "model")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".model.mine.part", ".model.x.0123abcd.part", "model"]


def test_an_export_that_was_put_aside_comes_back(whole, tmp_path):
    """Killed between the two renamings, an export leaves the earlier one under another name."""
    shutil.copytree(whole.folder, tmp_path / ".model.4567cdef.old")
    with pytest.raises(DataError, match="no validation images are known"):
        export_model(tmp_path / ".model.4567cdef.old", tmp_path / "model", onnx=True)
    assert not (tmp_path / "model").exists()
    atomic.remove_leftovers(tmp_path / "model")
    assert gluon_ft.load_model(tmp_path / "model").classes and len(list(tmp_path.iterdir())) == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_stopped_export_leaves_nothing_for_long(run, tmp_path, number):
    """Where it cannot clean up itself, the next one does."""
    slow = ("import sys, time; import gluon_ft.export.folder as folder; "
            "folder.model_card.text = lambda *_: time.sleep(60); "
            "from gluon_ft.cli.main import main; sys.exit(main())")
    process = subprocess.Popen([sys.executable, "-c", slow, "export", str(run), "-o", str(tmp_path / "model")],
                               stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob(".model.*.part/classes.txt")) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    left = sorted(path.name for path in tmp_path.iterdir())
    if number == signal.SIGKILL:
        assert len([name for name in left if name.endswith(".part")]) == 1
        export_model(run, tmp_path / "model")
        assert [path.name for path in tmp_path.iterdir()] == ["model"]
    else:
        assert process.returncode == 128 + number and "Traceback" not in err and "stopped" in err
        assert left == []


@pytest.mark.parametrize("place", ["run", "above", "here", "file"])
def test_places_that_are_refused_whatever_is_asked(run, tmp_path, monkeypatch, place):
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    target = {"run": run, "above": run.parent, "here": tmp_path, "file": tmp_path / "file"}[place]
    with pytest.raises(DataError, match="a file, not a folder" if place == "file" else "is in there"):
        export_model(run, target, force=True)
    assert (run / "best.params").is_file() and (tmp_path / "file").is_file()


@pytest.mark.parametrize("options, words", [({"check": "photos"}, "are for the ONNX model"),
                                            ({"check": "photos", "no_check": True, "onnx": True}, "and no check")])
def test_options_that_do_not_go_together(run, tmp_path, options, words):
    with pytest.raises(ConfigError, match=words):
        export_model(run, tmp_path / "model", **options)
    assert not (tmp_path / "model").exists()


def test_a_model_without_a_run(run, tmp_path):
    for name in ("best.params", "best.params.json", "best.params.features"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    text = export_model(tmp_path / "best.params", tmp_path / "model") and (tmp_path / "model" / "README.md").read_text()
    assert "not exported from the folder of its run" in text and "None were recorded" in text


def test_a_class_name_of_two_lines_is_refused(pictures, tmp_path):
    run = make_run(tmp_path / "run", pictures, classes=["a", "b\nc", "d"])
    with pytest.raises(gluon_ft.UserError, match="a class name has several lines"):
        export_model(run, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_class_name_that_is_not_utf_8_survives(pictures, tmp_path):
    pytest.importorskip("onnxruntime")
    names = ["a", "caf\udce9", "猫"]
    run = make_run(tmp_path / "run", pictures, classes=names)
    export_model(run, tmp_path / "model", onnx=True)
    assert (tmp_path / "model" / "classes.txt").read_bytes().splitlines()[1] == b"caf\xe9"
    assert gluon_ft.load_model(tmp_path / "model").classes == names


def test_the_commands_take_it(whole, pictures, tmp_path):
    out = gluon_ft_command("predict", whole.folder, pictures, "--json")
    assert len(json.loads(out.splitlines()[-1])["predictions"]) == 12
    labelled = tmp_path / "labelled"
    for own, name in (("red", "blau"), ("green", "grün")):
        shutil.copytree(pictures / own, labelled / name)
    out = gluon_ft_command("evaluate", whole.folder, labelled, "--json")
    assert json.loads(out.splitlines()[-1])["measures"]["images"] == 8
    gluon_ft_command("explain", whole.folder, pictures / "red" / "00.png", "-o", tmp_path / "heat")
    assert list((tmp_path / "heat").iterdir())


def test_the_command(run, tmp_path):
    out = gluon_ft_command("export", run, "-o", tmp_path / "model", "--json")
    found = json.loads(out.splitlines()[-1])
    assert set(found["files"]) == {*FILES} - {"certificate.json", "model-logits.onnx", "model.onnx"}
    assert found["certificate"] is None and f"exported: {tmp_path / 'model'}" in out
    assert model_folder.is_export(tmp_path / "model")
    assert "--no-check is for --onnx" in gluon_ft_command("export", run, "-o", tmp_path / "x", "--no-check", status=2)
    assert "no such model" in gluon_ft_command("export", tmp_path / "none", "-o", tmp_path / "x", status=2)
    assert "gluon-ft export runs/photos -o model/ --onnx --check val/" in gluon_ft_command("export", "--help")


def test_a_place_that_cannot_be_written(run, tmp_path):
    (tmp_path / "file").write_text("")
    line = gluon_ft_command("export", run, "-o", tmp_path / "file" / "model", status=2)
    assert "file/model: the export cannot be written" in line and line.count("\n") == 1
