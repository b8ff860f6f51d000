"""report.html of a job: what it shows of the images, how large it gets, and that it works in a browser."""
from __future__ import annotations

import io
import re

import numpy as np
import pytest
from browser import browser, dumped
from PIL import Image
from report_rows import HOSTILE, Page, records, row

from gluon_ft.data.sources.arrays import ArraySource
from gluon_ft.evaluation import label_errors
from gluon_ft.evaluation.measures import measure
from gluon_ft.reporting import report, summarise
from gluon_ft.reporting.report import evaluated, thumbnails, words

ENVIRONMENT = {"date": "2026-11-20T21:12:52+00:00", "gluon_ft": {"version": "1", "commit": None}, "command": "train"}
FEW = ["cat", HOSTILE, "owl \u202e moth"]
LABELS = np.array([0, 0, 0, 1, 1, 2, 2, 2])
PREDICTED = np.array([0, 0, 1, 1, 1, 0, 0, 2])


def probable(predicted, classes, sure=0.82):
    """Probabilities with `sure` for the class predicted, a bit more for each image than for the one before."""
    found = np.full((len(predicted), classes), (1 - sure) / (classes - 1))
    found[np.arange(len(predicted)), predicted] = sure + np.arange(len(predicted)) * 1e-6
    return found / found.sum(1, keepdims=True)


def story(labels, predicted, classes, size=24, **more):
    pixels = np.random.RandomState(0).randint(0, 255, (len(labels), size, size, 3), np.uint8)
    source = ArraySource(pixels, labels, classes)
    found = probable(predicted, len(classes))
    return report.Story("A network.", report.Evaluated(source, "validation images", labels, found, list(classes),
                                                       found), **more)


def page_of(told, series=None, rows=None, **more):
    rows = rows or [row("head", 0, 1.0, 0.6)]
    return report.render("run", rows, summarise(rows), more.pop("pictures", []), {"lr": 0.1}, ENVIRONMENT,
                         series=series, story=told, **more)


@pytest.fixture(scope="module", name="few")
def few_fixture():
    left_out = [{"part": "train", "path": f"{HOSTILE}.jpg", "why": "cannot be read"}]
    told = story(LABELS, PREDICTED, FEW, facts=[HOSTILE], left_out=left_out, hashes={"data (SHA-256)": "abc"})
    told.judged = label_errors.judge(told.evaluated.source, told.evaluated.probabilities, LABELS, FEW)
    return page_of(told, {HOSTILE: records(2), "b": records(1)}, extra={"seconds": 3.0, "total_seconds": 70.0},
                   notes=[HOSTILE, "Few images."])


@pytest.fixture(scope="module", name="large")
def large_fixture():
    """257 classes, 20 runs of 30 epochs, pictures of several megabytes."""
    rng = np.random.RandomState(0)
    labels = np.arange(257).repeat(4)
    predicted = np.where(rng.rand(len(labels)) < 0.7, labels, rng.randint(0, 257, len(labels)))
    classes = [f"{i:03}.class-{i}" for i in range(257)]
    data = io.BytesIO()
    Image.fromarray(rng.randint(0, 255, (800, 1000, 3), np.uint8)).save(data, "PNG")
    rows = [row(f"network {i}", 0, 0.9, 0.5 + i / 100) for i in range(20)]
    series = {f"network {i}": records(1 + i / 10, 30) for i in range(20)}
    told = story(labels, predicted, classes, 120)
    return page_of(told, series, rows, pictures=[report.Picture(data.getvalue(), "noise")] * 3)


def test_the_headline_and_the_classes(few):
    page, measured = Page(few), measure(LABELS, probable(PREDICTED, 3), FEW)
    low, high = measured.interval
    assert "62.5%" in page.text and f"95 % interval: {100 * low:.1f}% to {100 * high:.1f}%" in page.text
    assert "accuracy on 8 validation images, 5 of them right" in page.text and "A network." in page.text
    assert "Took 70 s in all, 3.0 s of them for training." in page.text
    assert page.tables["by-class"][0] == ["Class", "Images", "Precision", "Recall", "F1"]
    assert page.tables["by-class"][1] == ["cat", "3", "50.0%", "66.7%", "57.1%"]
    assert [line[0] for line in page.tables["by-class"][1:]] == ["cat", HOSTILE, "owl \\u202e moth"]


def test_the_matrix_and_its_images(few):
    page = Page(few)
    assert [line[1:] for line in page.tables["matrix"][1:]] == [["2", "1", ""], ["", "2", ""], ["2", "", "1"]]
    assert {"pair-0-1", "pair-2-0", "pair-0-0", "pair-1-1", "pair-2-2"} <= page.ids and "pair-1-0" not in page.ids
    # All eight images are in cells, three are mistakes, and two labels are doubtful.
    assert len(page.images) == 8 + 3 + few.count(", or <strong>")
    assert few.count("in predictions.csv") == 1  # only in the script: no cell has more images than it shows


def test_hostile_names_stay_text(few):
    page = Page(few)
    assert few.count("<script") == 1 and HOSTILE not in few and page.policy_allows_its_script
    assert page.outside == [] and page.unnamed == [] and "\u202e" not in few
    assert page.tables["left-out"][1] == [f"{HOSTILE}.jpg", "train", "cannot be read"]
    # What is a fact of the data is not said again among the notes.
    assert re.findall("<li>([^<]*)</li>", few.split('id="notes"')[1].split("</ul>")[0]) == ["Few images."]
    assert {line["name"] for chart in page.charts[1:] for line in chart["lines"]} >= {f"{HOSTILE}, training"}


def test_labels_are_shown_only_where_they_were_judged(few):
    assert "Doubtful labels" in few and "labels of training images may be wrong" in few
    assert "Doubtful labels" not in page_of(story(LABELS, PREDICTED, FEW))


def test_without_mistakes_and_without_images():
    text = page_of(story(LABELS, LABELS, FEW))
    assert "All 8 validation images are predicted rightly." in text and "There is none." in text
    text = page_of(report.Story("A network."))
    assert "60.0%" in text and "validation accuracy of head" in text and 'id="confusion"' not in text


def test_calibration_is_shown_before_and_after():
    told = story(LABELS, PREDICTED, FEW)
    told.evaluated.uncalibrated = probable(PREDICTED, 3, 0.99)
    [chart] = Page(page_of(told)).charts
    assert [(line["name"], line["points"]) for line in chart["lines"]] == [
        ("after calibration", [[0.82, 0.625, " right of 8 images"]]), ("before", [[0.99, 0.625, " right of 8 images"]])]


def test_heat_maps_stand_beside_mistakes():
    told = story(LABELS, PREDICTED, FEW)
    assert told.evaluated.mistakes == [6, 5, 2] and "Grad-CAM" not in page_of(told)
    told.evaluated.heat = {5: np.zeros((24, 24, 3), np.uint8)}
    text = page_of(told)
    assert text.count('alt="Heat map of ') == 1 and "Grad-CAM" in text
    assert Page(text).images.index(thumbnails.jpeg_address(told.evaluated.heat[5])) > 0


def test_an_image_that_is_gone_is_said():
    told = story(LABELS, PREDICTED, FEW)

    def image(position, channels, resize=0):
        raise thumbnails.Unreadable("gone")

    told.evaluated.source.image = image
    text = page_of(told)
    assert text.count("not readable any more") == 3 and "None of 2 shown" in text


def test_257_classes_and_20_runs_stay_small(large):
    page = Page(large)
    assert page.unnamed == []
    assert len(large.encode()) < 5_000_000
    assert len(page.tables["by-class"]) == 258 and "matrix" not in page.tables and "data-matrix" in large
    assert 0 < len(page.images) <= evaluated.MOST_CELL_IMAGES + evaluated.MOST_MISTAKES + 3
    assert large.count('class="pair"') <= 2 * evaluated.MOST_PAIRS
    assert {len(chart["lines"]) for chart in page.charts} == {1, 40}
    assert sum(len(image) for image in page.images) < 4_000_000


@pytest.mark.parametrize("seconds, said", [(0.25, "0.2 s"), (9.96, "10 s"), (119, "119 s"), (119.7, "2 min"),
                                           (3600, "60 min"), (7260, "2 h 1 min")])
def test_durations(seconds, said):
    assert words.duration(seconds) == said


# Each text's colour and that of its background, as [red, green, blue]; a see-through one counts with what is below it.
COLOURS = r"""
const rgba = text => [...text.match(/[\d.]+/g).map(Number), 1].slice(0, 4);
const behind = element => {
  if (!element) return [255, 255, 255];
  const [r, g, b, a] = rgba(getComputedStyle(element).backgroundColor);
  const below = a < 1 ? behind(element.parentElement) : [0, 0, 0];
  return [r, g, b].map((value, i) => value * a + below[i] * (1 - a));
};
const texts = [...document.querySelectorAll('body *')].filter(element => element.checkVisibility() &&
  !element.closest('svg, script') && [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim()));
return texts.map(element => [element.className || element.tagName,
                             rgba(getComputedStyle(element).color).slice(0, 3), behind(element)]);
"""


def contrast(one, other):
    """WCAG 2's ratio of two colours."""
    def light(colour):
        parts = [v / 255 / 12.92 if v <= 10.31 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in colour]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_script_opens_the_cell_of_an_address(few, tmp_path):
    (tmp_path / "few.html").write_text(few, encoding="utf-8")
    found = Page(dumped(tmp_path / "few.html", "#pair-0-1", tmp_path / "profile"))
    assert f"cat taken for {HOSTILE}: 1" in found.text
    assert len(found.images) == len(Page(few).images) + 1  # the cell's own, shown again beside the matrix


@pytest.mark.slow
def test_the_page_works_in_a_browser(few, large, tmp_path):
    """No error in the console, cells show their images by click and by keys, tables sort, nothing scrolls sideways."""
    (tmp_path / "few.html").write_text(few, encoding="utf-8")
    (tmp_path / "large.html").write_text(large, encoding="utf-8")
    with browser(tmp_path) as chromium:
        chromium.open(tmp_path / "few.html")
        shown = "return document.querySelector('#cell h3').textContent + document.querySelectorAll('#cell img').length"
        assert chromium.run(shown) == "owl \\u202e moth taken for cat: 22"  # the most frequent confusion, 2 images
        chromium.click("[data-row='0'][data-column='1']")
        assert chromium.run(shown) == f"cat taken for {HOSTILE}: 11"
        chromium.keys("[data-row='0'][data-column='1']", "\ue014" * 2 + "\ue015")  # right, right, down
        assert chromium.run(shown) == f"{HOSTILE}: 2 right2"
        column = "return [...document.querySelectorAll('#by-class tbody tr')].map(row => row.cells[3].textContent)"
        chromium.click("#by-class th:nth-child(4) button")
        assert chromium.run(column) == ["100.0%", "66.7%", "33.3%"]
        chromium.click("#by-class th:nth-child(4) button")
        assert chromium.run(column) == ["33.3%", "66.7%", "100.0%"]
        chromium.keys("#curves svg", "\ue012")
        assert chromium.run("return document.querySelector('#curves .at').textContent").startswith("epoch 3; ")
        dark = "return getComputedStyle(document.body).backgroundColor"
        chromium.scheme("light")
        before = chromium.run(dark)
        chromium.click("#theme")
        assert chromium.run(dark) != before
        for scheme in ("light", "dark"):
            chromium.run(f"document.documentElement.dataset.theme = '{scheme}'")
            texts = chromium.run(COLOURS)
            assert len(texts) > 100
            assert [text for text in texts if contrast(*text[1:]) < 4.5] == []  # WCAG 2, level AA
        chromium.open(tmp_path / "few.html", "#pair-2-2")
        assert chromium.run(shown) == "owl \\u202e moth: 1 right1"
        for name in ("few.html", "large.html"):
            chromium.size(400)
            chromium.open(tmp_path / name)
            assert chromium.run("return document.documentElement.scrollWidth <= innerWidth"), name
        chromium.size(1200)
        chromium.keys("canvas", "\ue014" * 3 + "\ue015")
        first = chromium.run(shown)
        chromium.click("canvas")
        assert chromium.run(shown) != first
        assert re.search(r"(taken for .*|): \d+", chromium.run(shown))
        assert chromium.console == []
