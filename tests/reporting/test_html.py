"""report.html: its tables, pictures and notes, and names that are escaped."""
from __future__ import annotations

import base64
import json
import math

import numpy as np
import pytest
from PIL import Image
from report_rows import HOSTILE, Page, pixels, records, row

from gluon_ft.cli import console
from gluon_ft.errors import DataError
from gluon_ft.reporting import Run, curves, image_grid, report, summarise


def logged_run(tmp_path, names=("fine-tuned", "scratch"), seeds=(0, 1, 2), **options):
    run = Run(tmp_path / "runs", "hot_dog", {"lr": 0.01, "head": {"classes": 2}}, **options)
    for number, name in enumerate(names):
        for seed in seeds:
            for record in records(2 - number + 0.1 * seed, seed=seed):
                run.log(name, **record)
    return run


def test_summarise():
    rows = [row("b", 0, 0.9, 0.5), row("a", 0, 1, 0.7), row("b", 1, 0.8, 0.6), row("b", 2, 1.0, None)]
    b, a = summarise(rows)
    assert b == {"name": "b", "seeds": 3, "train_median": 0.9, "train_min": 0.8, "train_max": 1.0,
                 "validation_median": 0.55, "validation_min": 0.5, "validation_max": 0.6}
    assert a["seeds"] == 1 and a["validation_median"] == a["validation_min"] == 0.7
    assert "0.550" in console.table([b, a]).splitlines()[2]
    assert summarise([row("x", 0, 0.5, float("nan"))])[0]["validation_max"] is None
    with pytest.raises(DataError, match=r"row 1 of the result is incomplete.*found no seed, train_accuracy"):
        summarise([rows[0], {"name": "b", "validation_accuracy": 1}])
    with pytest.raises(DataError, match="no rows"):
        summarise([])


def test_report_with_several_seeds(tmp_path):
    run = logged_run(tmp_path)
    image_grid([np.full((8, 8), 200, np.uint8)], ["a dog"], run.folder / "wrong_images.png")
    rows = [row("fine-tuned", s, 0.99, v) for s, v in enumerate((0.96, 0.94, 0.97))]
    rows += [row("scratch", s, 1.0, v, seconds=12.5) for s, v in enumerate((0.8, 0.7, 0.85))]
    report = run.finish(rows, {"source_accuracy": 0.973}, [run.folder / "wrong_images.png"], ["Few images."])
    assert report == run.folder / "report.html"
    assert json.loads((run.folder / "result.json").read_text()) == {"source_accuracy": 0.973, "rows": rows}
    page = Page(report.read_text(encoding="utf-8"))
    assert [[" ".join(c.split()) for c in line] for line in page.tables["result"]] == [
        ["Network", "Seeds", "Training accuracy", "Validation accuracy"],
        ["fine-tuned", "3", "99.0%99.0% to 99.0%", "96.0%94.0% to 97.0%"],
        ["scratch", "3", "100.0%100.0% to 100.0%", "80.0%70.0% to 85.0%"]]
    assert page.tables["runs"][0] == ["name", "seed", "train_accuracy", "validation_accuracy", "seconds"]
    assert page.tables["runs"][-1] == ["scratch", "2", "100.0%", "85.0%", "12.5"]
    assert page.tables["runs"][1][-1] == ""
    assert page.tables["details-more"] == [["source accuracy", "97.3%"]]
    settings = dict(page.tables["configuration"] + page.tables["environment"])
    assert settings["lr"] == "0.01" and settings["head.classes"] == "2"
    assert settings["versions.numpy"] == np.__version__
    assert "Few images." in page.text and "wrong images" in page.text
    assert page.outside == [] and not page.tags & {"link", "iframe"}
    [sample] = page.images
    assert base64.b64decode(sample.split(",")[1], validate=True) == (run.folder / "wrong_images.png").read_bytes()
    assert Image.open(run.folder / "curves.png").size[0] == 1500
    assert not list(run.folder.glob(".*"))
    loss, accuracy = page.charts
    assert [line["name"] for line in loss["lines"]] == [f"{name}, {part}" for name in ("fine-tuned", "scratch")
                                                        for part in ("training", "validation")]
    assert [point[:2] for point in accuracy["lines"][1]["points"]] == [
        [e, pytest.approx(1 - 0.6 / (1 + 2.1 * e), rel=1e-3)] for e in (1, 2, 3, 4)]
    assert accuracy["lines"][1]["points"][0][2] == " (80.0% to 81.2%)"


def test_report_of_single_runs_has_no_seeds_and_marks_the_best(tmp_path):
    run = logged_run(tmp_path, seeds=(0,))
    text = run.finish([row("fine-tuned", 0, 0.99, 0.96), row("scratch", 0, 1.0, 0.8)]).read_text()
    assert Page(text).tables["result"] == [["Network", "Training accuracy", "Validation accuracy"],
                                           ["fine-tuned", "99.0%", "96.0%"], ["scratch", "100.0%", "80.0%"]]
    assert text.count('class="number best"') == 1
    assert text.index('class="number best"') < text.index(">scratch<")


def test_hostile_names_are_escaped_everywhere(tmp_path):
    run = Run(tmp_path, "r", {HOSTILE: {"key": HOSTILE}, "list": [HOSTILE]})
    for record in records(1):
        run.log(HOSTILE, **record)
    rows = [row(HOSTILE, 0, 0.5, float("nan"), **{HOSTILE: HOSTILE})]
    text = run.finish(rows, {HOSTILE: HOSTILE}, [tmp_path / f"{HOSTILE.replace('/', '')}.png"], [HOSTILE]).read_text()
    page = Page(text)
    assert text.count("<script") == 1 and page.policy_allows_its_script and HOSTILE not in text
    assert page.tables["result"][1][0] == HOSTILE
    assert page.tables["runs"][0][-1] == page.tables["runs"][1][-1] == HOSTILE
    assert page.tables["details-more"] == [[HOSTILE, HOSTILE]]
    assert [f"{HOSTILE}.key", HOSTILE] in page.tables["configuration"]


def test_what_is_missing_is_told_in_the_notes(tmp_path):
    run = Run(tmp_path, "r", {})
    for record in records(1, seed=3):
        run.log("scratch", **{**record, "validation_loss": math.nan if record["epoch"] > 2 else 1.0})
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n not really")
    rows = [row("scratch", 3, 0.5, math.nan), row("scratch", 4, 0.5, 0.5)]
    text = Page(run.finish(rows, pictures=[tmp_path / "broken.png", tmp_path / "none.png"]).read_text()).text
    assert "scratch, seed 3: validation_loss was not a finite number in epochs 3, 4; the curve leaves it out." in text
    assert "scratch: 1 of 2 runs have no validation_accuracy; the table leaves them out." in text
    assert "The picture broken.png could not be shown: not an image that decodes" in text
    assert "The picture none.png could not be shown" in text
    assert json.loads((run.folder / "result.json").read_text())["rows"][0]["validation_accuracy"] is None


def test_report_without_history_or_any_accuracy(tmp_path):
    run = Run(tmp_path, "svm", {})
    run.log("svm", fold=1, accuracy=0.9)
    page = Page(run.finish([row("svm", 0, None, None)]).read_text())
    assert "No history by epoch was recorded" in page.text and page.images == []
    assert page.tables["result"][1] == ["svm", "none", "none"]
    assert not (run.folder / "curves.png").exists()


def test_series_chosen_for_the_curves(tmp_path):
    run = logged_run(tmp_path, names=("source", "fine-tuned"))
    text = run.finish([row("fine-tuned", 0, 1.0, 1.0)], series=["fine-tuned"]).read_text()
    assert {line["name"] for chart in Page(text).charts for line in chart["lines"]} == {"fine-tuned, training",
                                                                                        "fine-tuned, validation"}
    curves({"fine-tuned": [r for r in run.history() if r["series"] == "fine-tuned"]}, tmp_path / "one.png")
    assert (pixels(tmp_path / "one.png") == pixels(run.folder / "curves.png")).all()
    with pytest.raises(DataError, match=r"no epoch of a series 'fine-tund' was logged.*did you mean fine-tuned\?"):
        run.finish([row("fine-tuned", 0, 1.0, 1.0)], series=["fine-tund"])


def test_flatten_and_cells():
    assert report.flatten({"a": {"b": {"c": 1.23456789}, "d": []}, "e": None, "f": True, "g": {}}) == [
        ("a.b.c", "1.235"), ("a.d", "none"), ("e", "none"), ("f", "yes"), ("g", "none")]
    assert report.cell(1, "validation_top5") == "100.0%" and report.cell(3, "seed") == "3"
    assert report.flatten({"x": list(range(1000))})[0][1].endswith("… (1000 values, whole in the JSON file)")


def test_details_are_in_words_and_in_groups():
    found = report.details({"total_seconds": 2.5, "train_accuracy": 0.5, "audit": {"copies_within": 2}, "own_key": 1,
                            "images": {"train": 18}, "reasons": {"settings 1": "few images"}})
    assert found == [("Result", [("training accuracy", "50.0%"), ("time of the whole job", "2.5 s")]),
                     ("Data", [("training images", "18"), ("pairs of copies", "2")]),
                     ("Why", [("these settings 1", "few images")]), ("More", [("own key", "1")])]
