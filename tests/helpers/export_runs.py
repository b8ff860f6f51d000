"""A run's folder, made without training, and its export with everything in it."""
from __future__ import annotations

import json
import shutil

import mxnet as mx
import numpy as np
import photos
import pytest

import gluon_ft
from gluon_ft.data.sources.files import FileSource
from gluon_ft.evaluation import unknowns
from gluon_ft.evaluation.model import save_model
from gluon_ft.export import export_model
from gluon_ft.models import tracing
from gluon_ft.reporting import data_record

CLASSES = ["blau", "grün", "red | <b>"]
GREY = gluon_ft.Preprocessing(mean=(0.1,), std=(0.5,), channel_order="gray", size=28, resize=32)


def make_run(folder, images, net=None, how=GREY, **card):
    """A run's folder: model, what it knows, and the records that an export reads; its validation part has 6 images."""
    folder.mkdir(parents=True)
    if net is None:
        net = gluon_ft.fine_tune_net("lenet", 3, pretrained=False)
        net(mx.nd.zeros((1, how.channels, how.size, how.size)))
    width = int(np.prod(tracing.output_layer(net).block.weight.shape[1:]))
    random = np.random.RandomState(0)
    known = unknowns.fit(random.rand(40, width), np.arange(40) % 3, random.rand(30, width),
                         np.sort(random.rand(30)).astype(np.float32))
    path = folder / "best.params"
    save_model(net, path, preprocessing=how, known=unknowns.write(known, path),
               **{"classes": CLASSES, "temperature": 1.7, **card})
    names = [f"{name}/{number:02}.png" for name in ("red", "green", "blue") for number in range(2)]
    part = FileSource(images, images, names, np.arange(6) // 2, CLASSES)
    data_record.write(folder, data_record.describe({"train": part, "validation": part}, CLASSES, []))
    measures = {"images": 6, "accuracy": 0.5, "interval": [0.2, 0.8], "macro_f1": 0.4, "log_loss": 1.0, "auc": None}
    (folder / "result.json").write_text(json.dumps({"rows": [], "measures": measures, "calibration": {
        "temperature": 1.7, "ece_before": 0.25, "ece_after": 0.125}}))
    return folder


def divide(run, images, train, validation, classes=CLASSES):
    """Has the run trained and validated on the images of these numbers in the folder of each colour."""
    parts = {}
    for part, numbers in (("train", train), ("validation", validation)):
        names = [f"{name}/{number:02}.png" for name in ("red", "green", "blue") for number in numbers]
        parts[part] = FileSource(images, images, names, np.repeat(range(3), len(numbers)), classes)
    data_record.write(run, data_record.describe(parts, classes, []))
    return run


@pytest.fixture(scope="session", name="pictures")
def pictures_fixture(tmp_path_factory):
    return photos.make(tmp_path_factory.mktemp("export") / "photos", count=4)


@pytest.fixture(scope="session", name="run")
def run_fixture(pictures, tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("export_run") / "fruit", pictures)


@pytest.fixture(scope="session", name="whole")
def whole_fixture(run, tmp_path_factory):
    """The export with ONNX, as `export_model` returns it. Only read."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    return export_model(run, tmp_path_factory.mktemp("exported") / "model", onnx=True)


@pytest.fixture(name="copied")
def copied_fixture(whole, tmp_path):
    """A copy of the export, to be changed."""
    return shutil.copytree(whole.folder, tmp_path / "model")
