"""The page in headless Chromium: served, by itself with ONNX Runtime Web inside, and how its script prepares images."""
from __future__ import annotations

import base64
import io
import random
import time
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
from browser import browser
from conftest import shared_data
from export_runs import make_run, pictures_fixture, run_fixture  # noqa: F401  (fixtures)
from PIL import Image

import gluon_ft
from gluon_ft.data.images.decode import decode_rgb
from gluon_ft.data.images.preprocessing import INTERPOLATIONS, Preprocessing
from gluon_ft.data.images.transforms import Transform
from gluon_ft.errors import DownloadError
from gluon_ft.evaluation.predict import predict
from gluon_ft.export import web_runtime
from gluon_ft.export.page import export_page
from gluon_ft.serving.page import page
from gluon_ft.serving.server import Options, serving

pytestmark = pytest.mark.slow
BYTES = "const bytes = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0));\n"
DROP = BYTES + """const dataTransfer = new DataTransfer();
arguments[0].forEach(([name, text]) => dataTransfer.items.add(new File([bytes(text)], name)));
document.querySelector('#drop').dispatchEvent(new DragEvent('drop', { dataTransfer, bubbles: true, cancelable: true }));
"""
CARDS = """const cards = [...document.querySelectorAll('#answers > li')];
return cards.every(card => card.dataset.state) && cards.map(card => ({ ...card.dataset, text: card.innerText }))"""
STATE = "return document.querySelector('#state').textContent"
REQUESTS = "return performance.getEntriesByType('resource').map(entry => entry.name)"
PREPARE = BYTES + """window.result = null;
prepared(new File([bytes(arguments[0])], 'x'), arguments[1]).then(
  data => { window.result = [...data]; }, error => { window.result = String(error); });"""


def until(chromium, script: str, seconds: float = 120):
    """What a script returns once that is something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = chromium.run(script)
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"nothing after {seconds} s: {chromium.run(STATE)} {chromium.console}")


def answered(chromium, files) -> list[dict]:
    """The cards of files that are dropped, in their order."""
    chromium.run(DROP, [[path.name, base64.b64encode(path.read_bytes()).decode()] for path in files])
    return until(chromium, CARDS, 30 + 5 * len(files))[::-1][-len(files):]


def ready(chromium, address: str) -> None:
    chromium.visit(address)
    until(chromium, "return document.documentElement.dataset.ready")


def fits(chromium) -> bool:
    """Whether nothing scrolls sideways, on a phone and on a desk, in light and in dark."""
    found = []
    for width in (400, 1200):
        chromium.size(width)
        for scheme in ("light", "dark"):
            chromium.scheme(scheme)
            found.append(chromium.run("return document.documentElement.scrollWidth <= innerWidth"))
    return all(found)


@pytest.fixture(name="runtime")
def runtime_fixture():
    try:
        return web_runtime.get()
    except DownloadError as error:
        pytest.skip(f"ONNX Runtime Web cannot be fetched from npm's registry: {error}")


def test_the_served_page(run, pictures, tmp_path):
    for package in ("starlette", "uvicorn", "python_multipart", "prometheus_client"):
        pytest.importorskip(package)
    files = sorted(pictures.rglob("*.png"))
    with serving(run, Options(port=0)) as server, browser(tmp_path) as chromium:
        ready(chromium, server.url)
        cards = answered(chromium, files)
        expected = predict(run, files)
        assert [card["class"] for card in cards] == [one.name for one in expected]
        assert ["unknown: like nothing" in card["text"] for card in cards] == [one.unlike for one in expected]
        assert "12 answered" in chromium.run(STATE)
        assert fits(chromium)
        assert {urlsplit(address).netloc for address in chromium.run(REQUESTS)} == {urlsplit(server.url).netloc}
        assert chromium.console == []
        (tmp_path / "text.jpg").write_text("no picture")
        assert answered(chromium, [tmp_path / "text.jpg"])[0]["state"] == "unreadable"


def test_the_page_by_itself(runtime, run, pictures, tmp_path):
    files = sorted(pictures.rglob("*.png"))
    made = export_page(run, tmp_path / "page.html")
    (tmp_path / "text.jpg").write_text("no picture")
    with browser(tmp_path) as chromium:
        ready(chromium, made.path.as_uri())
        assert "ms an image in this browser" in chromium.run(STATE)
        cards = answered(chromium, [*files, tmp_path / "text.jpg"])
        assert cards.pop()["text"].endswith("not predicted: not an image that this browser can read")
        expected = predict(run, files)
        assert [card["class"] for card in cards] == [one.name for one in expected]
        assert ["unknown: like nothing" in card["text"] for card in cards] == [one.unlike for one in expected]
        # One grey level of the resize can tell; not more.
        assert [float(card["probability"]) for card in cards] == pytest.approx(
            [one.probability for one in expected], abs=5e-3)
        assert [float(card["distance"]) for card in cards] == pytest.approx(
            [one.distance for one in expected], abs=5e-3)
        assert fits(chromium)
        assert chromium.run(REQUESTS) == [] and chromium.console == []


def test_real_photos_in_the_page(runtime, weights_packages, tmp_path):
    folders = shared_data("hotdog") / "test", shared_data("caltech256")
    photos = [sorted(folder.rglob("*.jpg")) for folder in folders]
    files = [path for each in photos for path in random.Random(0).sample(each, 25)]
    net = gluon_ft.pretrained_net("efficientnet_lite0")
    model = gluon_ft.save_model(net, tmp_path / "lite0.params")
    made = export_page(model, tmp_path / "page.html", no_check=True)
    with browser(tmp_path) as chromium:
        ready(chromium, made.path.as_uri())
        print(chromium.run(STATE))
        cards = answered(chromium, files)
        print(chromium.run(STATE))
        assert chromium.run(REQUESTS) == [] and chromium.console == []
    expected = predict(net, files, top=1000)
    apart = [abs(float(card["probability"]) - dict(one.top)[card["class"]]) for card, one in zip(cards, expected)]
    changed = [path.name for path, card, one in zip(files, cards, expected) if card["class"] != one.name]
    print(f"{made.bytes / 1e6:.1f} MB; largest difference {max(apart):.3g}, median {np.median(apart):.3g}, "
          f"decisions changed: {changed}")
    assert np.median(apart) < 5e-3 and max(apart) < 0.1 and len(changed) <= 1


@pytest.mark.parametrize("channels", [3, 1])
def test_images_are_prepared_as_by_the_library(channels, tmp_path):
    """Every interpolation, smaller and larger, with and without resize, turned, transparent: within few grey levels."""
    harness = tmp_path / "harness.html"
    script = (Path(page.__file__).parent / "resize.js").read_text(encoding="utf-8")
    harness.write_text(f"<!doctype html><meta charset=utf-8><script>{script}</script>", encoding="utf-8")
    with browser(tmp_path) as chromium:
        chromium.open(harness)
        for name, data in pictures_of_all_kinds():
            for interpolation in INTERPOLATIONS:
                for resize in (64, None):
                    how = Preprocessing(size=56, resize=resize, interpolation=interpolation, **(
                        {} if channels == 3 else {"channel_order": "gray", "mean": (0.5,), "std": (0.5,)}))
                    transform = Transform(how)
                    expected = transform.prepare(decode_rgb(data, channels, transform.decode_resize())).reshape(-1)
                    chromium.run(PREPARE, base64.b64encode(data).decode(), how.to_dict())
                    found = until(chromium, "return window.result")
                    assert isinstance(found, list), found
                    apart = np.abs(np.array(found) - expected.astype(int))
                    most = 3 if "reduced" in name else 2
                    assert apart.max() <= most, (name, interpolation, resize, apart.max())


def pictures_of_all_kinds():
    """(name, bytes of a file) of smooth random pictures; JPEGs without chroma subsampling, so that decoders agree."""
    rng = np.random.RandomState(0)

    def picture(height, width, channels=3):
        return cv2.GaussianBlur(rng.randint(0, 256, (height, width, channels)).astype(np.uint8), (5, 5), 0)

    def encoded(pixels, kind, **options):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, kind, **options)
        return file.getvalue()

    for height, width in ((100, 150), (150, 100), (57, 60), (30, 200), (20, 24), (64, 64), (128, 128)):
        yield f"{height} x {width}", encoded(picture(height, width), "PNG")
    alpha = np.tile(np.linspace(0, 255, 90).astype(np.uint8), (90, 1))
    yield "transparent", encoded(np.dstack([picture(90, 90), alpha]), "PNG")
    yield "reduced by 2", encoded(picture(272, 264), "JPEG", quality=95, subsampling=0)
    yield "reduced by 4", encoded(picture(528, 520), "JPEG", quality=95, subsampling=0)
    for orientation in range(2, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        yield f"orientation {orientation}", encoded(picture(96, 120), "JPEG", quality=95, subsampling=0, exif=exif)
