"""From a folder of real photos to a trained epoch, with the commands that README names."""
from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest
from conftest import shared_data
from PIL import Image

import gluon_ft
from gluon_ft import loaders
from gluon_ft.cli.main import main
from gluon_ft.data.images.preprocessing import Preprocessing

SMALL = Preprocessing(mean=(123.7, 116.3, 103.5), std=(58.4, 57.1, 57.4), scale=1, size=64, resize=None)
IM2REC = Path(mx.__file__).parent / "tools" / "im2rec.py"


def command(capsys, *arguments, status=0):
    """What `gluon-ft ... --json` says on its last line."""
    with pytest.raises(SystemExit) as stop:
        main([*map(str, arguments), "--json"])
    printed = capsys.readouterr()
    assert stop.value.code == status, printed.err
    return json.loads(printed.out.splitlines()[-1])


def history_of(train, val, classes, engine):
    """The losses of five epochs through one engine, all images counted."""
    gluon_ft.seed_all(0)
    net = gluon_ft.fine_tune_net("mobilenet0.25", classes, lr_mult=1)
    loader = loaders.make_loader(train, preprocessing=SMALL, train=True, batch_size=32, engine=engine, augment="none")
    held = loaders.make_loader(val, preprocessing=SMALL, train=False, batch_size=32, engine=engine)
    result = gluon_ft.fit(net, loader, held, gluon_ft.TrainConfig(epochs=5, lr=0.01))
    assert gluon_ft.evaluate(net, held).count == len(held.labels)
    return result.history


# The training part of hotdog holds a near-duplicate pair (see its README), which this split tears apart.
@pytest.mark.parametrize(("folder", "classes", "training", "leak"), [
    pytest.param("caltech256", 20, 300, 0, marks=pytest.mark.slow),
    pytest.param("hotdog/train", 2, 120, 1, marks=pytest.mark.slow)])
def test_split_pack_verify_audit_and_train(tmp_path, capsys, folder, classes, training, leak):
    root, prefix = shared_data(folder), tmp_path / "real"
    command(capsys, "split", root, prefix, "--per-class", training // classes, "--seed", 0)
    command(capsys, "pack", prefix, root, "--resize", 72, "--quality", 90, "--workers", 2)
    recs = [tmp_path / f"real-{part}.rec" for part in ("train", "val")]
    for rec in recs:
        command(capsys, "verify", rec)
    command(capsys, "audit", *recs, "--workers", 2, status=leak)
    assert len(loaders.make_loader(recs[0], preprocessing=SMALL, train=True, batch_size=32).labels) == training
    for engine in ("native", "threads"):
        history = history_of(*recs, classes, engine)
        assert min(record["train_loss"] for record in history[1:]) < history[0]["train_loss"]


def test_a_leak_between_the_parts_ends_with_status_1(tmp_path, capsys):
    root = shared_data("hotdog")
    command(capsys, "audit", root / "train", root / "test")
    for name in ("train", "test"):
        for label in ("hotdog", "not-hotdog"):
            (tmp_path / name / label).mkdir(parents=True)
            for path in sorted((root / name / label).iterdir())[:8]:
                (tmp_path / name / label / path.name).write_bytes(path.read_bytes())
    copied = sorted((tmp_path / "train" / "hotdog").iterdir())[3]
    Image.open(copied).convert("RGB").save(tmp_path / "test" / "hotdog" / "again.jpg", quality=60)
    command(capsys, "audit", tmp_path / "train", tmp_path / "test", status=1)


@pytest.mark.slow
def test_records_made_by_mxnets_own_tool_train(tmp_path, capsys):
    rng = np.random.RandomState(0)
    for label, level in (("dark", 60), ("light", 190)):
        (tmp_path / "images" / label).mkdir(parents=True)
        for i in range(12):
            pixels = np.clip(rng.normal(level, 30, (80, 90, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / label / f"{i}.jpg")
    prefix = tmp_path / "theirs"
    code = f"import gluon_ft, runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path({str(IM2REC)!r}, run_name='__main__')"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for options in (["--list", "--recursive"], ["--resize", "72"]):
        subprocess.run([sys.executable, "-c", code, "im2rec", *options, str(prefix), str(tmp_path / "images")],
                       check=True, capture_output=True, env=environment)
    command(capsys, "verify", f"{prefix}.rec")
    for engine in ("native", "threads"):
        history = history_of(f"{prefix}.rec", f"{prefix}.rec", 2, engine)
        assert min(record["train_loss"] for record in history[1:]) < history[0]["train_loss"]
