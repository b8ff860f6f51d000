"""Names in scripts that Matplotlib's font lacks: drawn in another font, or as an escape, without a raw warning."""
from __future__ import annotations

import warnings

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from gluon_ft.data.images.contact_sheet import contact_sheet
from gluon_ft.finetune.pictures import draw_confusion
from gluon_ft.reporting import lettering, plots

NAMES = ["猫", "犬😀", "한국어", "fil\x1bm", "caf\udce9", "a$b$c", "x\u202ey", "ꙮ", "กขค", "👩\u200d👧"]


@pytest.fixture(autouse=True)
def no_raw_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture
def without_other_fonts(monkeypatch):
    lettering.font_of.cache_clear()
    monkeypatch.setattr(lettering, "_others", list)
    yield
    lettering.font_of.cache_clear()


@pytest.mark.usefixtures("without_other_fonts")
def test_what_no_font_has_is_an_escape():
    assert [lettering.drawable(name) for name in NAMES[:7]] == [
        "\\u732b", "\\u72ac😀", "\\ud55c\\uad6d\\uc5b4", "fil\\x1bm", "caf\\xe9", "a$b$c", "x\\u202ey"]


def test_letters_of_another_font_are_drawn_in_it(monkeypatch):
    # U+02EF is in STIX, which comes with Matplotlib, and not in its own font.
    lettering.font_of.cache_clear()
    stix = next(entry for entry in lettering.font_manager.fontManager.ttflist if entry.name == "STIXGeneral")
    letter = next(chr(code) for code in lettering.font_manager.get_font(stix.fname).get_charmap()
                  if code > 255 and lettering.font_of(chr(code)) not in (None, lettering.OWN))
    monkeypatch.setattr(lettering, "_others", lambda: [(stix.name, stix.fname)])
    lettering.font_of.cache_clear()
    figure = Figure()
    figure.subplots().set_title(f"a{letter}")
    assert lettering.drawable(letter) == letter
    assert lettering.choose_fonts(figure) == [lettering.OWN, "STIXGeneral"]
    assert plots.png(figure).startswith(b"\x89PNG")
    lettering.font_of.cache_clear()


@pytest.mark.parametrize("fonts", ["installed", "none"])
def test_every_picture_of_a_run_takes_any_name(tmp_path, request, fonts):
    if fonts == "none":
        request.getfixturevalue("without_other_fonts")
    count = len(NAMES)
    draw_confusion(np.eye(count)[::-1], np.arange(count), NAMES, tmp_path / "confusion.png")
    titles = [f"{name} not {name}" for name in NAMES]
    plots.image_grid([np.zeros((8, 8), "uint8")] * count, titles, tmp_path / "grid.png")
    records = [{"epoch": e, "train_loss": 1.0 / e, "validation_loss": 1.0} for e in (1, 2)]
    plots.curves(dict.fromkeys(NAMES, records), tmp_path / "curves.png", title="猫の\x1b写真", metrics=("loss",))
    assert {path.name for path in tmp_path.iterdir()} == {"confusion.png", "grid.png", "curves.png"}


def test_a_contact_sheet_takes_any_caption():
    picture = Image.new("RGB", (8, 8))
    assert contact_sheet([(picture, name) for name in NAMES], title="\x1b]0;\udcff猫").width > 8
