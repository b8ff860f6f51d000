"""Evaluation on real photos: figures equal scikit-learn's on the same predictions, each image counted once."""
from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from conftest import cli_runner, shared_data
from sklearn import metrics

from gluon_ft.cli.main import main


def run(*arguments):
    result = cli_runner().invoke(main, [*map(str, arguments), "--json"], prog_name="gluon-ft")
    assert result.exit_code == 0, (result.output, result.exception)
    return json.loads(result.stdout.splitlines()[-1])


def equal_to_scikit_learn(values, table, classes, images):
    """The measures of `evaluate --json` against those of the table that `--csv --all-probabilities` wrote."""
    rows = list(csv.DictReader(table.open(encoding="utf-8")))
    assert len(rows) == images == values["images"] and len({row["file"] for row in rows}) == images
    probabilities = np.array([[float(row[f"p({name})"]) for name in classes] for row in rows])
    labels = np.array([classes.index(row["label"]) for row in rows])
    predicted = np.array([classes.index(row["prediction"]) for row in rows])
    report = metrics.classification_report(labels, predicted, target_names=classes, output_dict=True, zero_division=0)
    for row in values["by_class"]:
        theirs = report[row["class"]]
        assert [row[key] for key in ("precision", "recall", "f1")] == pytest.approx(
            [theirs[key] for key in ("precision", "recall", "f1-score")], abs=1e-6)
    assert values["accuracy"] == pytest.approx(report["accuracy"], abs=1e-6)
    assert values["averages"]["macro"]["f1"] == pytest.approx(report["macro avg"]["f1-score"], abs=1e-6)
    assert values["averages"]["weighted"]["recall"] == pytest.approx(report["weighted avg"]["recall"], abs=1e-6)
    assert values["mean_class_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(labels, predicted), abs=1e-6)
    assert values["confusion"] == metrics.confusion_matrix(labels, predicted).tolist()
    exact = probabilities / probabilities.sum(1, keepdims=True)
    assert values["log_loss"] == pytest.approx(metrics.log_loss(labels, exact), abs=1e-6)
    if len(classes) == 2:
        assert values["auc"] == pytest.approx(metrics.roc_auc_score(labels, probabilities[:, 1]), abs=1e-6)
    else:
        assert values["top_k"]["5"] == pytest.approx(metrics.top_k_accuracy_score(labels, probabilities, k=5), abs=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("weights_packages")
def test_hot_dogs(tmp_path):
    run("train", shared_data("hotdog") / "train", "--strategy", "linear", "--no-mirror", "--run", tmp_path / "run")
    values = run("evaluate", tmp_path / "run", shared_data("hotdog") / "test", "--csv", tmp_path / "p.csv",
                 "--all-probabilities")
    assert values["measures"]["accuracy"] > 0.85
    equal_to_scikit_learn(values["measures"], tmp_path / "p.csv", ["hotdog", "not-hotdog"], 88)


@pytest.mark.slow
@pytest.mark.usefixtures("weights_packages")
def test_twenty_classes_of_caltech_from_a_list_and_from_records(tmp_path):
    photos, prefix = shared_data("caltech256"), tmp_path / "cal"
    run("split", photos, prefix, "--fraction", 0.6, "--seed", 0)
    run("pack", f"{prefix}-val.lst", photos)
    run("train", "--train", f"{prefix}-train.lst", "--root", photos, "--validation", 0, "--strategy", "linear",
        "--no-mirror", "--run", tmp_path / "run")
    classes = sorted(path.name for path in photos.iterdir() if path.is_dir())
    images = len((tmp_path / "cal-val.lst").read_text().splitlines())
    values = run("evaluate", tmp_path / "run", f"{prefix}-val.lst", "--root", photos, "--csv", tmp_path / "p.csv",
                 "--all-probabilities")
    assert values["measures"]["accuracy"] > 0.9
    equal_to_scikit_learn(values["measures"], tmp_path / "p.csv", classes, images)
    packed = run("evaluate", tmp_path / "run", f"{prefix}-val.rec")["measures"]
    assert packed["images"] == images and packed["accuracy"] == pytest.approx(values["measures"]["accuracy"], abs=0.02)
