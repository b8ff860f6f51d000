"""gluon-ft train --cross-validate: each image predicted by a network without its fold, then one trained on all."""
from __future__ import annotations

import csv
import json
import shutil

import cv2
import numpy as np
import photos
import pytest
from train_runs import (  # noqa: F401  (fixtures)
    TINY,
    cli,
    content,
    images_fixture,
    parameters,
    quiet,
    same,
    source_fixture,
)

from gluon_ft import finetune
from gluon_ft.data.images.preprocessing import Preprocessing
from gluon_ft.data.records.pack import pack
from gluon_ft.data.sources.records import open_records
from gluon_ft.errors import ConfigError, DataError, Interrupted
from gluon_ft.evaluation import folds, linear
from gluon_ft.evaluation.model import load_model
from gluon_ft.finetune.examine import examine
from gluon_ft.training.feature_cache import features

SVM = {**TINY, "strategy": "svm"}


def rows_of(run):
    return list(csv.DictReader((run / "out_of_fold.csv").open()))


def test_each_image_once_and_the_model_is_that_of_all_images(images, source, tmp_path):
    out = cli(images, "--backbone", "lenet", "--pretrained", source, "--strategy", "svm", "--cross-validate", 5,
              "--run", tmp_path / "cv", "--json").splitlines()
    rows, result = rows_of(tmp_path / "cv"), content(tmp_path / "cv")["cross_validation"]
    assert sorted(row["file"] for row in rows) == sorted(f"{p.parent.name}/{p.name}" for p in images.rglob("*.png"))
    assert json.loads(out[-1])["cross_validation"] == result and any("95 % interval" in line for line in out)
    assert result["folds"] == 5 and result["measures"]["images"] == 30
    assert result["measures"]["accuracy"] == pytest.approx(np.mean([r["label"] == r["prediction"] for r in rows]))
    assert all(sum(float(row[f"p({name})"]) for name in ("blue", "green", "red")) == pytest.approx(1) for row in rows)
    plain = finetune.train(images, run=tmp_path / "all", say=quiet, pretrained=str(source), validation=0.0, **SVM)
    assert same(parameters(tmp_path / "cv"), parameters(plain.folder))
    page = (tmp_path / "cv" / "report.html").read_text()
    assert "95 % interval" in page and "folds, each predicted by a network without it" in page
    assert "Doubtful labels" in page and "Heat map of " not in page  # other networks made these mistakes
    assert not list((tmp_path / "cv").glob("*folds*"))


def test_no_image_had_a_part_in_its_own_prediction(images, source, tmp_path):
    """The same as classifiers fitted by hand to the features of the other folds."""
    done = finetune.train(images, run=tmp_path / "cv", say=quiet, pretrained=str(source), cross_validate=3, **SVM)
    rows = rows_of(done.folder)
    net = load_model(source)
    net.preprocessing = Preprocessing(mean=(0.0,), std=(1.0,), channel_order="gray", size=28, resize=28)
    from gluon_ft import loaders

    x, y = features.extract(net, loaders.make_loader(images, preprocessing=net.preprocessing, train=False,
                                                     batch_size=30))
    for number, (train, held) in enumerate(folds.folds(y, 3, 0, np.arange(30))):
        found = linear.fit(x[train], y[train], "svm", k=5, seed=0).probabilities(x[held])
        assert {int(rows[i]["fold"]) for i in held} == {number + 1}
        np.testing.assert_allclose([float(rows[i]["p(red)"]) for i in held], found[:, 2], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_copies_stay_in_one_fold(images, source, tmp_path):
    folder = shutil.copytree(images, tmp_path / "photos")
    for number in range(4):
        image = cv2.imread(str(folder / "red" / f"0{number}.png"))
        cv2.imwrite(str(folder / "red" / f"copy{number}.png"), cv2.convertScaleAbs(image, alpha=0.97))
    done = finetune.train(folder, run=tmp_path / "cv", say=quiet, pretrained=str(source), cross_validate=4, **SVM)
    fold = {row["file"]: row["fold"] for row in rows_of(done.folder)}
    assert [fold[f"red/0{i}.png"] for i in range(4)] == [fold[f"red/copy{i}.png"] for i in range(4)]


def test_copies_in_packed_records_belong_together(tmp_path):
    folder = photos.make(tmp_path / "photos", classes=("green", "red"), count=3)
    shutil.copy(folder / "red" / "01.png", folder / "red" / "copy.png")
    (tmp_path / "all.classes.txt").write_text("green\nred\n")
    files = sorted(folder.rglob("*.png"))
    (tmp_path / "all.lst").write_text("".join(f"{i}\t{int(path.parent.name == 'red')}\t{path}\n"
                                              for i, path in enumerate(files)))
    pack(tmp_path / "all.lst", folder, encoding=".png")
    groups = examine(open_records(tmp_path / "all.rec"), None, "fix").groups
    same_picture = [i for i, path in enumerate(files) if path.parent.name == "red" and path.stem in ("01", "copy")]
    assert len(set(groups)) == len(files) - 1 and len({groups[i] for i in same_picture}) == 1


def test_an_interrupted_one_goes_on_with_the_next_fold_and_is_calibrated(images, tmp_path):
    """Trained by steps: every fold's network begins from the same weights, whatever was done before it."""
    options = {**TINY, "pretrained": "none", "epochs": 1, "cross_validate": 2, "lr": 0.02}

    def stop(line):
        if line.startswith("fold 1 of 2"):
            raise Interrupted("stopped", 130)

    with pytest.raises(Interrupted, match="--resume"):
        finetune.train(images, run=tmp_path / "cut", say=stop, **options)
    said = []
    cut = finetune.train(run=tmp_path / "cut", resume=True, say=said.append)
    whole = finetune.train(images, run=tmp_path / "whole", say=quiet, **options)
    assert rows_of(cut.folder) == rows_of(whole.folder) and same(parameters(cut.folder), parameters(whole.folder))
    assert [line[:11] for line in said if line.startswith("fold")] == ["fold 1 of 2", "fold 2 of 2"]
    about = whole.result["cross_validation"]["calibration"]
    assert load_model(whole.folder).temperature == pytest.approx(about["temperature"])


@pytest.mark.parametrize("options, error, says", [
    ({"cross_validate": 11}, ConfigError, "more folds than the smallest class has images: 11; expected at most 10"),
    ({"cross_validate": 1}, ConfigError, "cross_validate"),
    ({"cross_validate": 3, "validation": 0.3}, ConfigError, "cross-validation holds no other images out")])
def test_what_cannot_be_cross_validated(images, source, tmp_path, options, error, says):
    with pytest.raises(error, match=says):
        finetune.train(images, run=tmp_path / "run", say=quiet, pretrained=str(source), **SVM, **options)
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_fold_that_leaves_one_image_of_a_class(source, tmp_path):
    folder = photos.make(tmp_path / "photos", count=2)
    with pytest.raises(DataError, match=r"too few images of a class for strategy 'svm' in 2 folds"):
        finetune.train(folder, run=tmp_path / "run", say=quiet, pretrained=str(source), cross_validate=2, **SVM)
