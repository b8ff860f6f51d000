"""The run folder, the curves, the grid of samples and report.html."""
from __future__ import annotations

import base64
import io
import json
import math
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import gluon_ft
from gluon_ft import console
from gluon_ft.atomic import write as write_atomic
from gluon_ft.errors import ConfigError, DataError, UserError
from gluon_ft.reporting import Run, curves, environment, html, image_grid, plots, read_metrics, summarise

HOSTILE = "<script>alert('x')</script>&\"$_{"


class Page(HTMLParser):
    """Tables as lists of rows of cell texts (by id or class), images, links to the outside, tags and text."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.images, self.outside, self.tags, self.text = {}, [], [], set(), ""
        self._row = self._cell = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.add(tag)
        self.outside += [v for k, v in attrs.items() if k in ("src", "href", "srcset") and not v.startswith("data:")]
        if tag in ("img", "source"):
            self.images.append(attrs.get("src") or attrs["srcset"])
        if tag == "table":
            self._rows = self.tables.setdefault(attrs.get("id") or attrs.get("class"), [])
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")
            self._cell = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._cell = None

    def handle_data(self, data):
        self.text += data
        if self._cell:
            self._rows[-1][-1] += data


def records(rate, epochs=4, seed=None, **extra):
    return [{"epoch": e, "train_loss": 1 / (1 + rate * e), "train_accuracy": 1 - 0.5 / (1 + rate * e),
             "validation_loss": 1.1 / (1 + rate * e), "validation_accuracy": 1 - 0.6 / (1 + rate * e),
             **({} if seed is None else {"seed": seed}), **extra} for e in range(1, epochs + 1)]


def row(name, seed, train, validation, **extra):
    return {"name": name, "seed": seed, "train_accuracy": train, "validation_accuracy": validation, **extra}


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def logged_run(tmp_path, names=("fine-tuned", "scratch"), seeds=(0, 1, 2), **options):
    run = Run(tmp_path / "runs", "hot_dog", {"lr": 0.01, "head": {"classes": 2}}, **options)
    for number, name in enumerate(names):
        for seed in seeds:
            for record in records(2 - number + 0.1 * seed, seed=seed):
                run.log(name, **record)
    return run


def test_folder_holds_configuration_and_environment_at_once(tmp_path):
    config = {"lr": np.float32(0.5), "data": Path("images"), "steps": (1, 2), "clip": math.inf, "seed": np.int64(3)}
    run = Run(tmp_path / "deep" / "runs", "odd_or_even", config)
    assert run.folder.parent == tmp_path / "deep" / "runs"
    assert run.folder.name.startswith("odd_or_even-20")
    assert sorted(p.name for p in run.folder.iterdir()) == ["config.json", "environment.json"]
    assert json.loads((run.folder / "config.json").read_text()) == {
        "lr": 0.5, "data": "images", "steps": [1, 2], "clip": None, "seed": 3}
    found = json.loads((run.folder / "environment.json").read_text())
    assert found["gluon_ft"]["version"] == gluon_ft.__version__
    assert found["date"].endswith("+00:00")
    assert found["versions"]["numpy"] == np.__version__
    assert found["versions"].keys() & {"mxnet", "mxnet-cu112"}
    assert found["machine"]["processors"] >= 1 and found["machine"]["memory_gib"] > 0 and found["machine"]["cpu"]
    assert found["variables"]["OMP_NUM_THREADS"] == os.environ["OMP_NUM_THREADS"]


def test_environment_names_no_user_and_only_our_variables(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/alice-xyz")
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    monkeypatch.setenv("MXNET_HOME", "/home/alice-xyz/mx")
    monkeypatch.setattr(sys, "orig_argv", ["/usr/bin/python3", "train.py", "--data", "/home/alice-xyz/my pics"],
                        raising=False)
    run = Run(tmp_path, "r", {"data": "/home/alice-xyz/pics"})
    text = (run.folder / "environment.json").read_text()
    assert "alice" not in text and "hunter2" not in text
    found = json.loads(text)
    assert found["variables"]["MXNET_HOME"] == "~/mx"
    assert found["command"] == "python train.py --data '~/my pics'"
    assert all(name.startswith(("MXNET_", "OMP_", "KMP_")) for name in found["variables"])
    report = run.finish([row("a", 0, 1.0, 0.5)]).read_text()
    assert "alice" not in report and "~/pics" in report


@pytest.mark.parametrize("argv, expected", [
    (["/v/bin/python", "recipes/hot_dog.py", "--lr", "0.1"], "python recipes/hot_dog.py --lr 0.1"),
    (["/v/bin/python", "/v/bin/gluon-ft", "doctor"], "gluon-ft doctor"),
    (["/v/bin/python", "-m", "gluon_ft.cli", "doctor"], "python -m gluon_ft.cli doctor"),
    (["/v/bin/python", "-m", "ipykernel_launcher", "-f", "k.json"], None),
    (["/v/bin/python"], None),
    (["/v/bin/python", ""], None),
])
def test_command_line(argv, expected):
    assert environment.command_line(argv) == expected


def test_git_state_of_a_checkout_clean_dirty_and_of_no_checkout(tmp_path):
    project = tmp_path / "project"
    (project / "gluon_ft").mkdir(parents=True)
    git = ["git", "-C", str(project), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    (project / "gluon_ft" / "a.py").write_text("a = 1\n")
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "one"], check=True)
    state = environment.git_state(project)
    assert len(state["commit"]) == 40 and state["dirty"] is False
    (project / "runs").mkdir()
    (project / "runs" / "x").write_text("results are not code")
    assert environment.git_state(project)["dirty"] is False
    (project / "gluon_ft" / "a.py").write_text("a = 2\n")
    assert environment.git_state(project) == {"commit": state["commit"], "dirty": True}
    assert environment.git_state(project / "gluon_ft") == {"commit": None, "dirty": None}
    assert environment.git_state(tmp_path) == {"commit": None, "dirty": None}


def test_two_runs_in_one_second_get_two_folders(tmp_path, monkeypatch):
    monkeypatch.setattr("time.strftime", lambda _format: "20260101-120000")
    names = [Run(tmp_path, "r", {}).folder.name for _ in range(3)]
    assert names == ["r-20260101-120000", "r-20260101-120000-2", "r-20260101-120000-3"]


def test_a_given_folder_must_be_new_or_empty(tmp_path):
    run = Run(name="r", config={}, folder=tmp_path / "mine")
    assert run.folder == tmp_path / "mine"
    with pytest.raises(UserError, match="mine: the run's folder is not empty; expected a new or empty folder; found "
                                        r"config.json, environment.json; name another folder, or move this one away"):
        Run(name="r", config={}, folder=tmp_path / "mine")
    run.finish([row("a", 0, 1.0, 0.5)])
    before = (run.folder / "result.json").read_bytes()
    with pytest.raises(UserError, match="holds a finished run"):
        Run(name="r", config={}, folder=tmp_path / "mine")
    assert (run.folder / "result.json").read_bytes() == before


def test_a_root_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file: cannot write the run's folder; expected a folder that can be written; "
                                        "found a file; name another one"):
        Run(tmp_path / "file", "r", {})
    with pytest.raises(UserError, match=r"x: cannot write the run's folder.*found Not a directory"):
        Run(tmp_path / "file" / "x", "r", {})
    if os.geteuid() != 0:
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(UserError, match="Permission denied"):
            Run(tmp_path / "locked", "r", {})


@pytest.mark.parametrize("name", ["", "a/b", "..", "-x", "a\nb"])
def test_unusable_names(tmp_path, name):
    with pytest.raises(ConfigError, match="unusable name of a run"):
        Run(tmp_path / "runs", name, {})
    assert not (tmp_path / "runs").exists()


def test_metrics_come_back_in_order_and_without_nan(tmp_path):
    run = Run(tmp_path, "r", {})
    assert run.history() == []
    run.log("fine-tuned", epoch=1, train_loss=np.float32(0.5), validation_loss=float("nan"), seed=np.int64(4))
    run.log("scratch", epoch=1, train_loss=math.inf, per_class=np.array([0.25, np.nan]))
    text = (run.folder / "metrics.jsonl").read_text()
    assert "NaN" not in text and "Infinity" not in text
    first, second = run.history()
    assert first.pop("time") > 1.7e9
    assert first == {"series": "fine-tuned", "epoch": 1, "train_loss": 0.5, "validation_loss": None, "seed": 4}
    assert second["train_loss"] is None and second["per_class"] == [0.25, None]


def test_a_half_written_last_line_is_left_out_and_any_other_is_an_error(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"series": "a", "epoch": 1}\n{"series": "a", "epo')
    assert read_metrics(path) == [{"series": "a", "epoch": 1}]
    path.write_bytes(b'{"series": "a"}\n{"series": \n{"series": "b"}\n')
    with pytest.raises(DataError, match=r"metrics.jsonl, line 2: not a record of metrics; expected one JSON object"):
        read_metrics(path)
    with pytest.raises(UserError, match="cannot read the metrics"):
        read_metrics(tmp_path / "none.jsonl")


def test_write_atomic_leaves_the_old_file_where_writing_fails(tmp_path, monkeypatch):
    path = write_atomic(tmp_path / "a.txt", "old")

    def refuse(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, "new")
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"] and path.read_text() == "old"
    run_folder = tmp_path / "r"
    with pytest.raises(UserError, match=r"cannot write the run's folder.*No space left on device"):
        Run(folder=run_folder)


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
    assert page.tables["extra"] == [["source_accuracy", "0.973"]]
    settings = dict(page.tables["keys"])
    assert settings["lr"] == "0.01" and settings["head.classes"] == "2"
    assert settings["versions.numpy"] == np.__version__
    assert "Few images." in page.text and "wrong images" in page.text
    assert page.outside == [] and not page.tags & {"script", "link", "iframe"}
    embedded = [Image.open(io.BytesIO(base64.b64decode(a.split(",")[1], validate=True))) for a in page.images]
    for image in embedded:
        image.load()
    narrow, wide, sample = embedded
    assert wide.size[0] == 1500 and narrow.size[0] == 750 and narrow.size[1] > wide.size[1]
    assert sample.size == Image.open(run.folder / "wrong_images.png").size
    assert base64.b64decode(page.images[1].split(",")[1]) == (run.folder / "curves.png").read_bytes()
    assert not list(run.folder.glob(".*"))


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
    assert "script" not in page.tags and "<script" not in text
    assert page.tables["result"][1][0] == HOSTILE
    assert page.tables["runs"][0][-1] == page.tables["runs"][1][-1] == HOSTILE
    assert page.tables["extra"] == [[HOSTILE, HOSTILE]]
    assert [f"{HOSTILE}.key", HOSTILE] in page.tables["keys"]


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
    assert "Loss and accuracy by epoch: fine-tuned<" in text
    curves({"fine-tuned": [r for r in run.history() if r["series"] == "fine-tuned"]}, tmp_path / "one.png")
    assert (pixels(tmp_path / "one.png") == pixels(run.folder / "curves.png")).all()
    with pytest.raises(DataError, match=r"no epoch of a series 'fine-tund' was logged.*did you mean fine-tuned\?"):
        run.finish([row("fine-tuned", 0, 1.0, 1.0)], series=["fine-tund"])


def test_curves_differ_where_the_histories_do(tmp_path):
    first = {"fine-tuned": records(2), "scratch": records(0.5)}
    path = curves(first, tmp_path / "a.png", title="hot dog")
    assert path == tmp_path / "a.png"
    with Image.open(path) as image:
        assert image.format == "PNG" and image.size[0] == 1500 and 550 < image.size[1] < 800
    curves(first, tmp_path / "same.png", title="hot dog")
    curves({**first, "scratch": records(0.6)}, tmp_path / "b.png", title="hot dog")
    curves(first, tmp_path / "untitled.png", title="other")
    assert (pixels(path) == pixels(tmp_path / "same.png")).all()
    assert (pixels(path) != pixels(tmp_path / "b.png")).any()
    assert (pixels(path) != pixels(tmp_path / "untitled.png")).any()


def colour_count(path, colour):
    wanted = [int(colour[i:i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(pixels(path) - wanted).max(axis=2) <= 2).sum())


def test_each_run_has_its_colour_and_gaps_are_left_out(tmp_path):
    whole = records(2, epochs=12)
    curves({"a": whole, "b": records(0.5, epochs=12)}, tmp_path / "two.png")
    curves({"a": whole}, tmp_path / "one.png")
    assert colour_count(tmp_path / "two.png", plots.COLOURS[0]) > 1000
    assert colour_count(tmp_path / "two.png", plots.COLOURS[1]) > 1000
    assert colour_count(tmp_path / "one.png", plots.COLOURS[1]) == 0
    # The inner epochs missing: the axes stay, only line is lost.
    gap = [{**r, "validation_loss": None, "validation_accuracy": math.nan} if 3 < r["epoch"] < 11 else r for r in whole]
    curves({"a": gap}, tmp_path / "gap.png")
    assert 0 < colour_count(tmp_path / "gap.png", plots.COLOURS[0]) < 0.8 * colour_count(tmp_path / "one.png",
                                                                                         plots.COLOURS[0])


def test_several_seeds_are_a_median_and_a_band():
    seeds = [{"epoch": e, "seed": s, "validation_loss": float(e * 10 + s)} for s in (0, 1, 5) for e in (1, 2, 3)]
    seeds += [{"epoch": 2, "seed": 5, "validation_loss": 29.0}, {"epoch": 3, "seed": 0, "validation_loss": None}]
    epochs, median, low, high, count = plots._median_and_range(seeds, "validation_loss")
    assert epochs.tolist() == [1, 2, 3] and count == 3
    assert median.tolist() == [11, 21, 33] and low.tolist() == [10, 20, 31] and high.tolist() == [15, 29, 35]
    gap = plots._median_and_range([{"epoch": 1, "x": 1.0}, {"epoch": 3, "x": 2.0}], "x")
    assert np.isnan(gap[1]).tolist() == [False, True, False]
    assert plots._median_and_range([{"epoch": 1}], "x") is None


def test_band_is_drawn(tmp_path):
    one = {"a": records(1, seed=0)}
    three = {"a": [r for s in (0.5, 1, 2) for r in records(s, seed=s)]}
    curves(one, tmp_path / "one.png")
    curves(three, tmp_path / "three.png")
    pale = [(np.ptp(pixels(tmp_path / f"{n}.png"), axis=2) > 20).sum() for n in ("one", "three")]
    assert pale[1] > 2 * pale[0]


@pytest.mark.parametrize("series", [
    {"one epoch": records(1, epochs=1)},
    {"all gaps": [{"epoch": 1, "train_loss": None, "validation_accuracy": math.nan}]},
    {HOSTILE: records(1), "_hidden $": records(2), "": records(3)},
    {f"run {i} with quite a long name that goes on and on and never ends": records(i + 1, 300) for i in range(9)},
    {"diverged": [{**r, "train_loss": 10.0 ** r["epoch"], "validation_loss": 10.0 ** r["epoch"]}
                  for r in records(1, 30)]},
], ids=["one", "gaps", "names", "many", "diverged"])
def test_unusual_histories_are_drawn(tmp_path, series, recwarn):
    with Image.open(curves(series, tmp_path / "x.png", title="a $ title")) as image:
        assert image.size[0] == 1500
    # Deprecations inside Matplotlib are not shown to users.
    assert not [str(w.message) for w in recwarn if not issubclass(w.category, DeprecationWarning)]


def test_epochs_are_whole_numbers_and_accuracies_percent(monkeypatch):
    seen = {}

    def keep(figure):
        figure.canvas.draw()
        seen["panels"] = [([t.get_text() for t in a.get_xticklabels()], [t.get_text() for t in a.get_yticklabels()],
                           a.get_xlabel(), a.get_ylabel(), a.get_ylim()) for a in figure.axes]
        return b""

    monkeypatch.setattr(plots, "_png", keep)
    plots.curves_png({"a": records(3, epochs=3)}, metrics=("loss", "accuracy", "top5"))
    loss, accuracy, top5 = seen["panels"]
    assert [t for t in loss[0] if t in "123"] == ["1", "2", "3"] and all(t.isdigit() for t in loss[0])
    assert loss[2:4] == ("epoch", "loss (mean per image)") and top5[3] == "top-5 accuracy"
    assert all(t.endswith("%") for t in accuracy[1]) and accuracy[4][1] <= 1.02


def test_no_curves_to_draw(tmp_path):
    with pytest.raises(DataError, match="there are no curves to draw; expected records with epoch and train_loss"):
        curves({"a": [{"epoch": 1, "lr": 0.1}]}, tmp_path / "x.png")
    with pytest.raises(DataError, match="no curves"):
        curves({}, tmp_path / "x.png")
    assert list(tmp_path.iterdir()) == []


def test_image_grid(tmp_path):
    red = np.zeros((20, 30, 3), np.uint8)
    red[..., 0] = 255
    grey = np.full((8, 8), 128, np.uint8)
    path = image_grid([red, grey, grey], ["red $", "grey", "a name that is far too long for the space it has"],
                      tmp_path / "grid.png", columns=2)
    found = pixels(path)
    assert found.shape[1] == int(2.6 * plots.DPI)
    assert (found == [255, 0, 0]).all(axis=2).sum() > 5000
    assert (found == [128, 128, 128]).all(axis=2).sum() > 2 * 15000
    image_grid([grey] * 3, None, tmp_path / "row.png")
    assert pixels(tmp_path / "row.png").shape[0] < found.shape[0]


@pytest.mark.parametrize("images, titles, message", [
    ([], [], "there are no images to draw"),
    ([np.zeros((2, 2), np.uint8)], ["a", "b"], "images and titles differ in number; expected 1 titles; found 2"),
    ([np.zeros((2, 2), np.float32)], None, "image 0 cannot be drawn; expected uint8 HxW or HxWx3; found float32 2x2"),
    ([np.zeros((3, 4, 5), np.uint8)], None, "found uint8 3x4x5"),
])
def test_image_grid_refuses(tmp_path, images, titles, message):
    with pytest.raises(DataError, match=message):
        image_grid(images, titles, tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()


def test_flatten_and_cells():
    assert html.flatten({"a": {"b": {"c": 1.23456789}, "d": []}, "e": None, "f": True, "g": {}}) == [
        ("a.b.c", "1.235"), ("a.d", "none"), ("e", "none"), ("f", "yes"), ("g", "none")]
    assert html.cell(1, "validation_top5") == "100.0%" and html.cell(3, "seed") == "3"
    assert html.flatten({"x": list(range(1000))})[0][1].endswith("… (1000 values, whole in the JSON file)")


def test_matplotlib_is_left_as_the_user_has_it(tmp_path):
    code = ("import sys, matplotlib as m; m.rcParams['lines.linewidth'] = 7.5; m.rcParams['axes.facecolor'] = 'red'\n"
            "before = dict.__getitem__(m.rcParams, 'backend')\n"
            "from gluon_ft.reporting import curves\n"
            "curves({'a': [{'epoch': 1, 'train_loss': 1.0}, {'epoch': 2, 'train_loss': 0.5}]}, sys.argv[1])\n"
            "assert m.rcParams['lines.linewidth'] == 7.5 and m.rcParams['axes.facecolor'] == 'red'\n"
            "assert 'matplotlib.pyplot' not in sys.modules\n"
            "assert dict.__getitem__(m.rcParams, 'backend') is before, 'backend chosen'\n")
    env = {**os.environ, "MPLBACKEND": "", "DISPLAY": ""}
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "x.png")], capture_output=True, text=True,
                          env=env, check=False, cwd=Path(gluon_ft.__file__).parents[1])
    assert done.returncode == 0, done.stderr
    curves({"a": [{"epoch": 1, "train_loss": 1.0}, {"epoch": 2, "train_loss": 0.5}]}, tmp_path / "y.png")
    assert (pixels(tmp_path / "x.png") == pixels(tmp_path / "y.png")).all()
