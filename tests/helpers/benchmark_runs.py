"""Targets and finished run folders for the tests of benchmarks/accuracy/check.py."""
from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from benchmarks.accuracy import identity, targets
from gluon_ft import TrainConfig
from gluon_ft.data import lists, split
from gluon_ft.data.records import pack as records
from gluon_ft.reporting import Run

CONFIG = TrainConfig(epochs=2, lr=0.01, momentum=0.9, wd=0.0)


def finished(folder, accuracies, epochs=(), config=None):
    """A run folder with a row a seed of 'net', and epochs' records (series, seed, epoch, accuracy, loss)."""
    run = Run(folder=folder, config=config)
    for series, seed, epoch, value, loss in epochs:
        run.log(series, seed=seed, epoch=epoch, validation_accuracy=value, train_loss=loss)
    run.finish([{"name": "net", "seed": seed, "train_accuracy": 1.0, "validation_accuracy": value}
                for seed, value in enumerate(accuracies)])
    return run.folder


def target(*checks, seeds=3, **more):
    data = targets.Data("d", "folder", 4, 2)
    return targets.Target("t", "T", "s", "x.py", data, "cpu", 1, seeds, checks, **more)


def make_pictures(tmp_path):
    random = np.random.RandomState(0)
    for name in ("blue", "red", "green"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(6):
            pixels = random.randint(0, 255, (12, 12, 3)).astype("uint8")
            Image.fromarray(pixels).resize((64, 64)).save(tmp_path / "pictures" / name / f"{i}.jpg")
    return tmp_path / "pictures"


def packed_run(pictures, tmp_path):
    """(target, run folder) as recipes/caltech256.py leaves them."""
    run = finished(tmp_path / "run", [0.9], config={"data": str(pictures), "per_class": 4, "frozen": [],
                                                    "config": CONFIG.to_dict()})
    pack(run, split.split(pictures, per_class=4, seed=0))
    sha256 = identity.fingerprint(identity.folder_pairs(pictures))
    data = targets.Data("pictures", "packed", 18, 3, sha256=sha256)
    of = target(targets.Check("net", low=0.8, high=1.0), seeds=1,
                config={"per_class": 4, "config": {"epochs": 2, "momentum": 0.9, "wd": 0.0}})
    return replace(of, data=data), run


def pack(run, drawn):
    shutil.rmtree(run / "data-0", ignore_errors=True)
    (run / "data-0").mkdir()
    split.write(drawn, run / "data-0" / "images")
    for part in ("train", "val"):
        records.pack(lists.list_file(run / "data-0" / "images", part), drawn.root, resize=48, quality=90)


def configured(run, **changes):
    config = json.loads((run / "config.json").read_text())
    for key, value in changes.items():
        table, _, name = key.rpartition("__")
        (config[table] if table else config)[name] = value
    (run / "config.json").write_text(json.dumps(config))


@pytest.fixture(name="pictures")
def pictures_fixture(tmp_path):
    return make_pictures(tmp_path)


@pytest.fixture(name="packed")
def packed_fixture(pictures, tmp_path):
    return packed_run(pictures, tmp_path)
