"""`--cross-validate` of the odd/even and Caltech-256 recipes: every image validated once, table of mean and spread."""
from __future__ import annotations

import json
from pathlib import Path

import caltech256
import numpy as np
import odd_or_even
import pytest
from PIL import Image
from recipe_runs import call, result_of


def folded(printed, names, folds):
    result = result_of(printed)
    assert [(row["name"], row["fold"]) for row in result["rows"]] == [(n, f) for f in range(folds) for n in names]
    assert [(line["name"], line["folds"]) for line in result["table"]] == [(name, folds) for name in names]
    for line in result["table"]:
        mine = [row["validation_accuracy"] for row in result["rows"] if row["name"] == line["name"]]
        assert line["validation_mean"] == pytest.approx(np.mean(mine))
        assert line["validation_sd"] == pytest.approx(np.std(mine, ddof=1))
    assert "validation_sd" in printed.out
    records = [json.loads(line) for line in (Path(result["run"]) / "metrics.jsonl").read_text().splitlines()]
    return result, [r for r in records if r["series"] in names]


@pytest.mark.slow
def test_odd_or_even(tmp_path, capsys):
    printed = call(odd_or_even, tmp_path, capsys, "--cross-validate", 3, "--max-per-class", 30, "--epochs", 2, "--json")
    names = ["fine-tuned", "scratch-default", "scratch-xavier"]
    result, records = folded(printed, names, 3)
    assert {r["seed"] for r in records} == {"0-0", "0-1", "0-2"} and len(records) == 18
    assert (Path(result["run"]) / "fine-tuned-0-2" / "best.params").is_file()
    printed = call(odd_or_even, tmp_path / "b", capsys, "--cross-validate", 31, "--max-per-class", 30, status=2)
    assert "more folds than the smallest class has images: 31; expected at most 30" in printed.err
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("path", ["symbolic", pytest.param("gluon", marks=pytest.mark.slow)])
def test_caltech256(tmp_path, capsys, path):
    random = np.random.RandomState(0)
    for label, name in enumerate(("001.red", "002.green", "003.blue")):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(7):
            pixels = random.randint(0, 80, (5, 6, 3))
            pixels[:, :, label] += 150
            picture = Image.fromarray(pixels.astype("uint8")).resize((48, 40), Image.Resampling.BICUBIC)
            picture.save(tmp_path / "images" / name / f"{label}_{i:04d}.jpg")
    given = ("--data", tmp_path / "images", "--backbone", "cifar_resnet20_v1", "--path", path, "--devices", "cpu",
             "--per-class", 6, "--epochs", 2, "--batch-per-device", 4, "--size", 32, "--frozen", r"^features\.[0-4]\.")
    _, records = folded(call(caltech256, tmp_path, capsys, *given, "--cross-validate", 2, "--json"), [path], 2)
    assert {r["seed"] for r in records} == {"0-0", "0-1"} and len(records) == 4
    printed = call(caltech256, tmp_path / "b", capsys, *given, "--cross-validate", 7, status=2)
    assert "more folds than the smallest class has images: 7; expected at most 6" in printed.err
    assert not (tmp_path / "b").exists()
