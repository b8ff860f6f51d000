"""The curves and the grid of samples."""
from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_rows import HOSTILE, pixels, records

import gluon_ft
from gluon_ft.errors import DataError
from gluon_ft.reporting import curves, image_grid, plots


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
    epochs, median, low, high, count = plots.median_and_range(seeds, "validation_loss")
    assert epochs.tolist() == [1, 2, 3] and count == 3
    assert median.tolist() == [11, 21, 33] and low.tolist() == [10, 20, 31] and high.tolist() == [15, 29, 35]
    gap = plots.median_and_range([{"epoch": 1, "x": 1.0}, {"epoch": 3, "x": 2.0}], "x")
    assert np.isnan(gap[1]).tolist() == [False, True, False]
    assert plots.median_and_range([{"epoch": 1}], "x") is None


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

    monkeypatch.setattr(plots, "png", keep)
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
