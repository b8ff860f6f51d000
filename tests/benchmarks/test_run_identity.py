"""benchmarks/accuracy/identity.py: runs with other settings, data or splits, or with leaks, are refused."""
from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from benchmark_runs import configured, finished, pack, packed_fixture, pictures_fixture, target  # noqa: F401  (fixtures)
from PIL import Image

from benchmarks.accuracy import check, targets
from gluon_ft.data import split


def test_a_run_that_is_what_it_says_passes(packed):
    outcome = check.judge(*packed)
    assert (outcome.state, outcome.text) == ("passed", "net, validation accuracy 0.9000")


@pytest.mark.parametrize(("changes", "words"), [
    ({"config__lr": 0.02}, "other settings: config.lr is 0.02, the target's 0.01"),
    ({"config__mixup": 0.4}, "other settings: config.mixup is 0.4, the target's 0.0"),
    ({"per_class": 5}, "other settings: per_class is 5, the target's 4"),
    ({"quick": True}, "it was a trial"),
    ({"frozen": ["conv0"]}, "other settings: frozen is ['conv0'], which the target does not set"),
])
def test_other_settings_are_refused(packed, changes, words):
    configured(packed[1], **changes)
    outcome = check.judge(*packed)
    assert outcome.state == "failed" and outcome.text.startswith("refused: ") and words in outcome.text


def test_another_split_is_refused(packed, pictures):
    pack(packed[1], split.split(pictures, per_class=4, seed=1))
    assert "refused: other split" in check.judge(*packed).text


def test_other_images_are_refused(packed, pictures):
    Image.fromarray(np.full((64, 64, 3), 90, "uint8")).save(pictures / "red" / "3.jpg")
    pack(packed[1], split.split(pictures, per_class=4, seed=0))
    assert "refused: other data: the images of" in check.judge(*packed).text
    (pictures / "red" / "3.jpg").unlink()
    pack(packed[1], split.split(pictures, per_class=4, seed=0))
    assert "has 17 images of 3 classes, pictures has 18 of 3" in check.judge(*packed).text


def test_a_leak_between_the_parts_is_refused(packed, pictures):
    of, run = packed
    drawn = split.split(pictures, per_class=4, seed=0)
    shutil.copy(pictures / drawn.parts["train"][0].path, pictures / drawn.parts["val"][0].path)
    pack(run, split.split(pictures, per_class=4, seed=0))
    known = replace(of, data=replace(of.data, sha256=None))
    assert "refused: leak: 1 images of val are also in train" in check.judge(known, run).text


def test_records_that_were_exchanged_afterwards_are_refused(packed):
    of, run = packed
    with open(run / "data-0" / "images-train.rec", "ab") as file:
        file.write(b"more")
    assert "images-train.rec is not as its manifest says" in check.judge(of, run).text
    manifest = run / "data-0" / "images-val.manifest.json"
    manifest.write_text(manifest.read_text().replace('"records": 6', '"records": 7', 1))
    (run / "data-0" / "images-train.rec").unlink()
    assert "manifest was changed or damaged" in check.judge(of, run).text


def test_folders_with_a_common_image_are_refused(pictures, tmp_path):
    root = tmp_path / "both"
    shutil.copytree(pictures, root / "train")
    for name in ("blue", "red", "green"):
        (root / "test" / name).mkdir(parents=True)
        shutil.move(root / "train" / name / "0.jpg", root / "test" / name / "0.jpg")
    run = finished(tmp_path / "run", [0.9], config={"data": str(root)})
    of = replace(target(targets.Check("net", low=0.8, high=1.0), seeds=1),
                 data=targets.Data("both", "folders", 18, 6))
    assert check.judge(of, run).state == "passed"
    shutil.copy(root / "train" / "red" / "1.jpg", root / "test" / "red" / "0.jpg")
    assert "refused: leak: 1 images of test are also in train" in check.judge(of, run).text
    configured(run, data=str(tmp_path / "gone"))
    assert "is not here any more" in check.judge(of, run).text
