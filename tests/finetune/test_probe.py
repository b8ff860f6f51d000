"""The probe: counts and sizes, separability, which network, the command, and its refusals."""
from __future__ import annotations

import json

import cv2
import mxnet as mx
import numpy as np
import pytest
from conftest import shared_data

import gluon_ft
from gluon_ft.cli.advise import advise, command
from gluon_ft.data.images.preprocessing import Preprocessing
from gluon_ft.errors import ConfigError, DataError
from gluon_ft.finetune import advice, probe
from gluon_ft.training.feature_cache import features
from gluon_ft.weights.card import Card


@pytest.fixture(autouse=True)
def _no_weights(monkeypatch):
    monkeypatch.delenv("GLUON_FT_WEIGHTS", raising=False)


def folder(path, counts=(12, 8), size=(40, 30), grey=False):
    """Photos of random colours around a different one in each class."""
    rng = np.random.RandomState(0)
    for label, count in enumerate(counts):
        (path / f"class{label}").mkdir(parents=True)
        for i in range(count):
            image = rng.randint(0, 100, (size[1], size[0], 3)) + 100 * np.eye(3, dtype=int)[label % 3]
            image = image[..., :1].repeat(3, 2) if grey else image
            cv2.imwrite(str(path / f"class{label}" / f"{i}.png"), image.astype(np.uint8))
    return path


def network(channels=3):
    """A small network that says of itself that it is pretrained."""
    mx.random.seed(1)
    net = gluon_ft.fine_tune_net("cifar_resnet20_relu", 10)
    net.preprocessing = Preprocessing(size=32, resize=32)
    net.weights = Card("cifar_resnet20_relu", net.preprocessing, source="cifar_resnet20_relu:test")
    return net


def test_counts_sizes_and_probe(tmp_path):
    net = network()
    before = {name: p.data().asnumpy() for name, p in net.collect_params().items()}
    facts = probe.measure(folder(tmp_path / "photos"), net)
    assert (facts.images, facts.classes, facts.smallest_class, facts.largest_class) == (20, 2, 8, 12)
    assert (facts.width, facts.height, facts.grey, facts.edge) == (40, 30, False, 30)
    assert facts.weights == "cifar_resnet20_relu:test" and facts.input_size == 32
    assert facts.stages == len(gluon_ft.stages(net))
    assert facts.pixels == 1.0 and facts.chance == 0.6 and 0.5 < facts.probe <= 1.0 and facts.seconds > 0
    assert all((p.data().asnumpy() == before[name]).all() for name, p in net.collect_params().items())


def test_the_eigenvalue_is_that_of_the_second_moments(tmp_path):
    photos, net = folder(tmp_path / "photos"), network()
    rows, _ = features.extract(net, gluon_ft.loaders.make_loader(photos, preprocessing=net.preprocessing, train=False,
                                                                 batch_size=8))
    expected = np.linalg.eigvalsh(np.mean([np.outer(row, row) for row in rows.astype(float)], axis=0)).max()
    assert probe.measure(photos, net).eigenvalue == pytest.approx(expected, rel=1e-4)


def test_a_probe_repeats(tmp_path):
    photos = folder(tmp_path / "photos")
    first, second = (probe.measure(photos, network(), seed=3).to_dict() for _ in range(2))
    assert {**first, "seconds": 0} == {**second, "seconds": 0}


def test_a_loader_and_arrays_give_the_same_as_the_folder(tmp_path):
    photos, net = folder(tmp_path / "photos"), network()
    loader = gluon_ft.loaders.make_loader(photos, preprocessing=net.preprocessing, train=True, batch_size=4)
    files = sorted(photos.glob("*/*.png"), key=lambda p: loader.source.paths.index(str(p)))
    arrays = np.stack([cv2.imread(str(p))[..., ::-1] for p in files]), loader.labels
    expected = {**probe.measure(photos, net).to_dict(), "seconds": 0}
    for source in (loader, arrays):
        assert {**probe.measure(source, net).to_dict(), "seconds": 0} == expected


def test_grey_images(tmp_path):
    assert probe.measure(folder(tmp_path / "photos", grey=True), False).grey


def test_no_weights_at_hand_is_said_and_not_probed(tmp_path):
    facts = probe.measure(folder(tmp_path / "photos"))
    assert facts.weights is None and facts.probe is None
    assert "no pretrained weights at hand" in facts.notes[0]
    assert probe.measure(folder(tmp_path / "others"), False).notes == ()


def test_a_network_without_pretrained_weights_is_not_probed(tmp_path):
    assert probe.measure(folder(tmp_path / "photos"), gluon_ft.fine_tune_net("cifar_resnet20_relu", 2)).weights is None


def test_unreadable_images_are_counted_and_left_out(tmp_path):
    photos = folder(tmp_path / "photos")
    (photos / "class0" / "0.png").write_bytes(b"nothing")
    facts = probe.measure(photos, network())
    assert facts.images == 20 and facts.probe is not None
    assert "1 of 20 images cannot be read, the first: " in facts.notes[0] and "0.png" in facts.notes[0]


def test_refusals(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: no classes; expected one subfolder a class"):
        probe.measure(tmp_path / "empty")
    with pytest.raises(DataError, match="one class only"):
        probe.measure(folder(tmp_path / "one", (5,)))
    with pytest.raises(DataError, match="missing: "):
        probe.measure(tmp_path / "missing")
    bad = folder(tmp_path / "bad", (3, 3))
    for path in bad.glob("*/*.png"):
        path.write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"no image can be read; found .*png: not an image"):
        probe.measure(bad)
    with pytest.raises(ConfigError, match="too few images to probe with; expected 20 or more; found 5"):
        probe.measure(bad, most=5)


def test_drawing_is_stratified_seeded_and_bounded():
    labels = np.repeat([0, 1, 2], [500, 40, 10])
    chosen = probe.draw(labels, 90, seed=1)
    assert len(set(chosen)) == len(chosen) <= 90
    assert np.bincount(labels[chosen]).tolist() == [40, 40, 10]
    assert (probe.draw(labels, 90, seed=1) == chosen).all() and (probe.draw(labels, 90, seed=2) != chosen).any()
    assert (probe.draw(labels, 1000) == np.arange(550)).all()
    many = probe.draw(np.arange(1000) // 10, 50)
    assert len(many) == 50 and np.unique(np.bincount(many // 10)[np.bincount(many // 10) > 0]).tolist() == [5]


def test_separability_of_what_is_known():
    rng = np.random.RandomState(0)
    labels = np.repeat([0, 1, 2], 40)
    apart = rng.normal(size=(120, 20)) + 10 * np.eye(3, 20)[labels]
    accuracy, spread, chance = probe.separability(apart, labels)
    assert accuracy == 1.0 and spread == 0.0 and chance == pytest.approx(1 / 3)
    noise = probe.separability(rng.normal(size=(120, 20)), labels)
    assert noise[0] < 0.55 and noise[1] > 0


def test_separability_leaves_single_images_out():
    values = np.array([[0.0], [0.1], [5.0], [5.1], [9.0]])
    assert probe.separability(values, [0, 0, 1, 1, 2])[2] == 0.5
    assert probe.separability(values, [0, 1, 2, 3, 3]) is None


def test_the_network_at_hand_that_fits(monkeypatch):
    monkeypatch.setenv("GLUON_FT_WEIGHTS", str(shared_data("weights")))
    assert probe.choose(32).weights.source.startswith("cifar_resnet")
    assert probe.choose(300).weights.source == "mobilenetv2_1.0:coral_rot180"


def test_the_nearest_is_taken_where_none_is_of_the_right_kind(monkeypatch):
    monkeypatch.setenv("GLUON_FT_WEIGHTS", str(shared_data("weights")))
    rows = [row for row in probe.choices.at_hand() if row.backbone.startswith("cifar")]
    monkeypatch.setattr(probe.choices, "at_hand", lambda: rows)
    notes = []
    assert probe.choose(300, notes).weights.source in {row.name for row in rows}
    assert "is the nearest at hand, made for 32 pixels" in notes[0]


def call(*arguments) -> int:
    """Exit status of the command."""
    with pytest.raises(SystemExit) as ended:
        advise.main([str(argument) for argument in arguments])
    return ended.value.code


def test_the_command(tmp_path, capsys):
    assert call(folder(tmp_path / "photos"), "--json") == 0
    printed = capsys.readouterr().out
    found = json.loads(printed.splitlines()[-1])
    assert found["strategy"] == "scratch" and found["facts"]["images"] == 20 and found["settings"]["freeze"] == "none"
    assert all(reason["text"] and reason["source"] for reason in found["reasons"])
    for text in ("20 images of 2 classes, 8 to 12 each", "weights: none", "strategy: scratch", "note: no pretrained",
                 "why:", f"to do so: gluon-ft train {tmp_path / 'photos'}"):
        assert text in printed


def test_the_command_to_train_with():
    assert command("my photos", "auto", "auto") == "gluon-ft train 'my photos'"
    assert command("a.rec", "auto", "n:t") == "gluon-ft train --train a.rec --val VALIDATION.rec --pretrained n:t"


def test_the_commands_errors_are_one_line(tmp_path, capsys):
    photos = folder(tmp_path / "photos", (4, 4))
    for arguments, expected in (((tmp_path / "missing",), "missing: "), ((photos, "--most", 3), "too few images"),
                                ((photos, "--pretrained", "nosuch"), "no weights 'nosuch' known, and no such file"),
                                ((photos, "--backbone", "resnet18_v9"), "unknown backbone 'resnet18_v9'; did you")):
        assert call(*arguments) == 2
        printed = capsys.readouterr()
        assert printed.err.startswith("error: ") and printed.err.count("\n") == 1 and expected in printed.err
        assert printed.out == ""


def test_weights_that_are_not_to_be_used(tmp_path, capsys):
    assert call(folder(tmp_path / "photos"), "--pretrained", "none") == 0
    assert "weights: none" in capsys.readouterr().out


@pytest.mark.slow
def test_hot_dogs_are_told_apart(monkeypatch):
    monkeypatch.setenv("GLUON_FT_WEIGHTS", str(shared_data("weights")))
    facts = probe.measure(shared_data("hotdog/train"), most=100)
    assert facts.weights == "mobilenetv2_1.0:coral_rot180" and facts.stages == 6
    assert facts.probe > 0.8 > facts.pixels and not facts.different
    assert advice.advise(facts).strategy == "linear"
