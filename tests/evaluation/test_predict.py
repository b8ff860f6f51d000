"""Prediction: the model's own preprocessing, every image once, unreadable ones said and left out."""
from __future__ import annotations

import json
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest
from conftest import shared_data
from PIL import Image

import gluon_ft
from gluon_ft import loaders
from gluon_ft.cli.predict import predict as command
from gluon_ft.errors import ConfigError, DataError
from gluon_ft.evaluation.model import save_model
from gluon_ft.evaluation.predict import predict

HOW = gluon_ft.Preprocessing(mean=(0.4, 0.5, 0.6), size=32, resize=36, channel_order="bgr", rotate180=True)
CLASSES = ["cat", "dog", "hen"]


@pytest.fixture(scope="module")
def net():
    mx.random.seed(1)
    found = gluon_ft.fine_tune_net("cifar_resnet20_relu", 3)
    found.classes, found.preprocessing = CLASSES, HOW
    found(mx.nd.zeros((1, 3, 32, 32)))
    return found


@pytest.fixture
def photos(tmp_path):
    """Eight pictures of different sizes in two folders."""
    random = np.random.RandomState(0)
    for i in range(8):
        folder = tmp_path / "photos" / ("a" if i < 5 else "b")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = random.randint(0, 256, (40 + 3 * i, 60 - 2 * i, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.{'png' if i % 2 else 'jpg'}")
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    (tmp_path / "photos" / ".hidden.png").write_bytes(b"")
    return tmp_path / "photos"


def test_as_the_evaluation_loader_sees_them(net, photos):
    loader = loaders.make_loader(photos, preprocessing=HOW, train=False, batch_size=8)
    expected = mx.nd.softmax(net(next(iter(loader)).data)).asnumpy()
    found = predict(net, photos, batch_size=3, top=2)
    assert [p.path for p in found] == [loader.source.where(i) for i in range(8)]
    for prediction, row in zip(found, expected):
        assert prediction.error is None
        assert prediction.name == CLASSES[row.argmax()]
        assert prediction.probability == pytest.approx(row.max(), rel=1e-5)
        assert prediction.top[0] == (prediction.name, prediction.probability)
        assert [name for name, _ in prediction.top] == [CLASSES[i] for i in np.argsort(-row)[:2]]


def test_files_arrays_and_folders_mixed(net, photos):
    pixels = np.asarray(Image.open(photos / "a" / "1.png"))
    found = predict(net, [photos / "a" / "1.png", pixels, np.stack([pixels] * 2), str(photos / "b"), pixels[..., 0]])
    assert [p.path for p in found] == [str(photos / "a" / "1.png"), "array 1", "array 2", "array 3",
                                       *(str(photos / "b" / f"{i}.{'png' if i % 2 else 'jpg'}") for i in (5, 6, 7)),
                                       "array 7"]
    assert {p.probability for p in found[1:4]} == {found[1].probability}
    assert found[0].probability == pytest.approx(found[1].probability, rel=1e-5)
    assert all(len(p.top) == 3 and sum(v for _, v in p.top) == pytest.approx(1, abs=1e-5) for p in found)


def test_several_contexts_and_workers_agree(net, photos, tmp_path):
    path = save_model(net, tmp_path / "m.params")
    one = predict(path, photos, workers=0)
    two = predict(path, photos, workers=2, batch_size=5, ctx=[mx.cpu(0), mx.cpu(1)])
    np.testing.assert_allclose([p.probability for p in one], [p.probability for p in two], rtol=1e-5)


def test_unreadable_images_do_not_stop_the_others(net, photos):
    (photos / "a" / "0.jpg").write_bytes(b"not a picture")
    found = predict(net, [photos, photos / "gone.jpg"])
    wrong = {p.path: p.error for p in found if p.error}
    assert set(wrong) == {str(photos / "a" / "0.jpg"), str(photos / "gone.jpg")}
    assert wrong[str(photos / "gone.jpg")] == "no such file"
    assert wrong[str(photos / "a" / "0.jpg")].startswith("not an image")
    assert len([p for p in found if p.error is None and p.name]) == 7
    assert all(p.name is None and p.probability is None and p.top == [] for p in found if p.error)


@pytest.mark.parametrize(("images", "error", "message"), [
    ([], DataError, "nothing to predict; expected image files"),
    ([3], DataError, "not an image; expected a path, or an array of uint8; found int"),
    (3, DataError, "not an image"),
    (np.zeros((4, 4)), DataError, "array 0: not images; expected uint8"),
])
def test_what_is_no_image(net, images, error, message):
    with pytest.raises(error, match=message):
        predict(net, images)


def test_options_out_of_range(net, photos, tmp_path):
    with pytest.raises(ConfigError, match="batch_size out of range"):
        predict(net, photos, batch_size=0)
    with pytest.raises(ConfigError, match="top out of range"):
        predict(net, photos, top=0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: no images in the folder; expected files ending in \.apng"):
        predict(net, tmp_path / "empty")
    bare = gluon_ft.fine_tune_net("cifar_resnet20_relu", 3)
    with pytest.raises(ConfigError, match="not known what the network takes"):
        predict(bare, photos)


@pytest.fixture
def run(capsys):
    def call(*options, status=0):
        with pytest.raises(SystemExit) as stop:
            command([*map(str, options)])
        printed = capsys.readouterr()
        assert stop.value.code == status, printed.err
        return printed

    return call


def test_the_command(net, photos, tmp_path, run):
    path = save_model(net, tmp_path / "run" / "best.params")
    printed = run(path, photos, "--top", 2, "--json", "--devices", "cpu")
    result = json.loads(printed.out.splitlines()[-1])
    said = (f"left out: 1 files are not images by their suffix, the first {photos / 'notes.txt'} (1 .txt); 1 files "
            f"left out, hidden ({photos / '.hidden.png'})\n")
    assert [len(result["predictions"]), result["unreadable"], printed.err] == [8, [], said]
    assert [Path(one["path"]).name for one in result["left_out"]] == [".hidden.png", "notes.txt"]
    first = result["predictions"][0]
    assert first["path"] == str(photos / "a" / "0.jpg") and first["class"] in CLASSES
    assert first["top"][0] == {"class": first["class"], "probability": first["probability"]}
    assert len(first["top"]) == 2
    assert "0.jpg" in printed.out and "then" in printed.out
    assert max(map(len, printed.out.splitlines()[:-1])) <= 80  # of a terminal that is none
    assert str(photos / "a" / "0.jpg") in run(path, photos, "--wide").out

    (photos / "a" / "0.jpg").write_bytes(b"")
    printed = run(tmp_path / "run", photos, "--json", status=1)
    assert printed.err == said + f"not predicted: {photos / 'a' / '0.jpg'}: empty file (0 bytes)\n"
    result = json.loads(printed.out.splitlines()[-1])
    assert len(result["predictions"]) == 7 and len(result["unreadable"]) == 1

    printed = run(path, photos / "gone.jpg", status=2)
    assert printed.err.splitlines()[-1] == "error: none of the images could be read; found 1 that cannot"
    assert printed.out == ""
    assert "no such model" in run(tmp_path / "x.params", photos, status=2).err
    picture = photos / "a" / "1.png"
    assert run(picture, photos, status=2).err == (
        f"error: {picture}: not a model; expected a .params file with its card beside it, or the folder of a run or of "
        "an export\n")


@pytest.mark.slow
def test_real_photos(monkeypatch):
    monkeypatch.setenv("GLUON_FT_WEIGHTS", str(shared_data("weights")))
    net = gluon_ft.pretrained_net("mobilenetv2_1.0", "coral_rot180")
    found = predict(net, shared_data("hotdog") / "test" / "hotdog")
    # 36 of 45; ImageNet has 999 other names for what else is in the picture.
    assert sum(p.name == "hotdog" for p in found) >= 0.6 * len(found)


def test_one_image_and_a_thousand_agree(net):
    """Many go through the fused form."""
    pixels = np.random.RandomState(0).randint(0, 256, (1000, 32, 32, 3), dtype=np.uint8)
    alone, many = predict(net, pixels[:1])[0], predict(net, pixels)[0]
    assert [name for name, _ in many.top] == [name for name, _ in alone.top]
    assert [p for _, p in many.top] == pytest.approx([p for _, p in alone.top], rel=1e-4)
