"""`gluon-ft export --page`: what stands in the file, and that its model tells what `predict` tells."""
from __future__ import annotations

import base64
import gzip
import json
import re

import numpy as np
import pytest
from conftest import cli_runner
from export_runs import make_run, pictures_fixture, run_fixture, whole_fixture  # noqa: F401  (fixtures)

import gluon_ft  # isort: skip
import mxnet as mx

from gluon_ft.cli.main import main
from gluon_ft.data.images.decode import decode_rgb
from gluon_ft.data.images.transforms import Transform
from gluon_ft.errors import DataError, DownloadError, NetworkError
from gluon_ft.evaluation import unknowns
from gluon_ft.evaluation.model import load_model
from gluon_ft.evaluation.predict import predict
from gluon_ft.export import page as pages
from gluon_ft.export import page_model, web_runtime

MODULE = "var a=1,bc=class{};export{a as env,bc as Tensor,bc as default};\n//# sourceMappingURL=x.mjs.map\n"
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(autouse=True)
def _small_runtime(monkeypatch):
    """In place of what npm's registry has; the slow tests take that."""
    small = web_runtime.WebRuntime(web_runtime.as_object(MODULE, "x.mjs"), b"\0asm" * 100)
    monkeypatch.setattr(web_runtime, "get", lambda: small)


def payload(text: str, name: str) -> bytes:
    return gzip.decompress(base64.b64decode(re.search(rf'id="{name}">([^<]*)<', text)[1]))


def test_the_page_has_the_model_and_may_ask_nobody(whole, pictures, tmp_path):
    made = pages.export_page(whole.folder, tmp_path / "page.html")
    text = made.path.read_text(encoding="utf-8")
    assert made.bytes == made.path.stat().st_size and made.unknowns is None and made.milliseconds > 0
    assert made.certificate["images"] == 6 and made.certificate["decisions_changed"] == []
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    assert "default-src 'none'" in policy and "connect-src 'none'" in policy and "'unsafe-eval'" not in policy
    assert "http:" not in text and re.findall(r'(?:src|href)="(?!data:)', text) == []
    assert web_runtime.LICENCE in text and f"version {web_runtime.VERSION}" in text
    about = json.loads(re.search(r'id="about">(.*?)</script>', text, re.DOTALL)[1])
    assert about["names"] == ["blau", "grün", "red | <b>"] and "<b>" not in text
    assert payload(text, "runtime") == b"\0asm" * 100
    # The model gives what predict gives, from the pixels that predict takes.
    net, session = load_model(whole.folder), onnxruntime.InferenceSession(payload(text, "model"))
    files = sorted(pictures.rglob("*.png"))
    expected = predict(net, files)
    images = [Transform(net.preprocessing).prepare(decode_rgb(path.read_bytes(), 1, 32)) for path in files]
    shares, distances = session.run(["probabilities", "distance"], {"image": np.stack(images)[..., None]})
    assert np.abs(shares.max(axis=1) - [one.probability for one in expected]).max() < 1e-5
    assert np.abs(distances - [one.distance for one in expected]).max() < 1e-3
    assert [bool(far > about["limit"]) for far in distances] == [one.unlike for one in expected]


@pytest.mark.parametrize("name", ["lenet", pytest.param("mobilenetv2_0.25", marks=pytest.mark.slow)])
def test_the_distance_of_a_dense_and_of_a_1x1_output_with_mirror_images(name, pictures, tmp_path):
    how = gluon_ft.Preprocessing(size=64, resize=64, mirror=True)
    if name == "lenet":
        how = gluon_ft.Preprocessing(mean=(0.1,), std=(0.5,), channel_order="gray", size=28, resize=32, mirror=True)
    net = gluon_ft.fine_tune_net(name, 3, pretrained=False)
    net(mx.nd.zeros((1, how.channels, how.size, how.size)))
    run = make_run(tmp_path / "run", pictures, net, how)
    made = pages.export_page(run, tmp_path / "page.html", no_check=True)  # which compares the distances
    assert made.unknowns is None and made.certificate is None


def test_a_model_without_features_says_so(pictures, run, tmp_path):
    net = load_model(run)
    bare = gluon_ft.save_model(net, tmp_path / "bare.params")
    done = cli_runner().invoke(main, ["export", str(bare), "-o", str(tmp_path / "page.html"), "--page", "--no-check"])
    assert done.exit_code == 0, done.stderr
    assert "the page does not tell unknown images: the model keeps nothing of its training images" in done.stdout
    assert "MB (the model" in done.stdout and "ms an image" in done.stdout


def test_a_wrong_distance_is_not_exported(whole):
    net = load_model(whole.folder)
    known = unknowns.of(net)
    other = unknowns.Known(known.vectors[:10], known.distances, known.scores)
    model = page_model.with_distance(onnx.load(str(whole.folder / "model.onnx")), net, other)
    with pytest.raises(NetworkError, match="tells unknown images differently"):
        pages._check_distance(net, model.SerializeToString())


def test_where_a_page_is_not_written(whole, tmp_path):
    (tmp_path / "mine.html").write_text("<p>mine</p>")
    with pytest.raises(DataError, match="not a page of gluon_ft"):
        pages.export_page(whole.folder, tmp_path / "mine.html")
    assert (tmp_path / "mine.html").read_text() == "<p>mine</p>"
    done = cli_runner().invoke(main, ["export", str(whole.folder), "-o", str(tmp_path / "page"), "--page"])
    assert (done.exit_code, done.stderr) == (
        2, "error: a page is one file; expected a name that ends in .html; found page\n")
    done = cli_runner().invoke(main, ["export", str(whole.folder), "-o", "p.html", "--page", "--onnx"])
    assert done.exit_code == 2 and "one file" in done.stderr


def test_a_modules_exports_become_one_object():
    assert web_runtime.as_object(MODULE, "x").endswith("return { env: a, Tensor: bc };\n})();\n")
    with pytest.raises(DownloadError, match="not the script that is expected"):
        web_runtime.as_object("export default 1", "x")
