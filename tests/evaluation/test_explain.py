"""Grad-CAM by contents: the heat lies where the class is; any backbone; nothing of the network changes; the command."""
from __future__ import annotations

import json

import mxnet as mx
import numpy as np
import photos
import pytest
from mxnet.gluon import nn
from PIL import Image
from train_runs import finished_fixture, gluon_ft_command, images_fixture  # noqa: F401  (fixtures)

import gluon_ft
from gluon_ft.data.batches import ArrayLoader
from gluon_ft.data.images.preprocessing import Preprocessing
from gluon_ft.errors import ConfigError, NetworkError
from gluon_ft.evaluation import explain
from gluon_ft.evaluation.explain import _in_image
from gluon_ft.models import freezing, heads
from gluon_ft.training.config import TrainConfig
from gluon_ft.training.fit import fit

SIZE = 32
FAMILIES = ("lenet", "squeezenet1.1", "resnet18_v2", "mobilenet0.25", "mobilenetv2_0.25", "mobilenetv3_small",
            "vgg11_bn", "alexnet", "densenet121", "resnet18_v1b", "cifar_resnet20_v1", "efficientnet_lite0",
            "gluoncv/resnet18_v1")
PLAIN = Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3, size=SIZE, resize=SIZE)


def patches(count, seed=0):
    """Grey noise with a red or a blue patch somewhere: the images, their classes, and the patches' corners."""
    rng = np.random.RandomState(seed)
    images = rng.randint(80, 150, (count, SIZE, SIZE, 3)).astype(np.uint8)
    labels, corners = np.arange(count) % 2, rng.randint(0, SIZE - 10, (count, 2))
    for image, label, (y, x) in zip(images, labels, corners):
        image[y:y + 10, x:x + 10] = (230, 30, 30) if label else (30, 30, 230)
    return images, labels, corners


@pytest.fixture(scope="module", name="trained")
def trained_fixture():
    gluon_ft.seed_all(0)
    net = nn.HybridSequential()
    net.add(nn.Conv2D(8, 3, padding=1), nn.BatchNorm(), nn.Activation("relu"), nn.MaxPool2D(2, 2),
            nn.Conv2D(8, 3, padding=1), nn.BatchNorm(), nn.Activation("relu"), nn.GlobalAvgPool2D(), nn.Dense(2))
    net.initialize(mx.init.Xavier())
    images, labels, _ = patches(64)
    data = (images.transpose(0, 3, 1, 2) / 255 - 0.5) / 0.5
    fit(net, ArrayLoader(data.astype(np.float32), labels, batch_size=16, shuffle=True), None,
        TrainConfig(epochs=8, lr=0.05, top_k=0))
    net.preprocessing, net.classes = PLAIN, ["blue", "red"]
    return net


def test_the_heat_lies_where_the_class_is(trained):
    images, labels, corners = patches(16, seed=1)
    found = explain.explain(trained, images)
    assert [e.name for e in found] == [("blue", "red")[label] for label in labels]
    for each, (y, x) in zip(found, corners):
        assert each.heat.shape == (SIZE, SIZE) and each.heat.dtype == np.float32
        assert each.heat.min() >= 0 and each.heat.max() > 0.7
        inside = each.heat[y:y + 10, x:x + 10].mean()
        assert inside > 4 * (each.heat.sum() - 100 * inside) / (SIZE * SIZE - 100)


def test_another_class_is_explained_on_request(trained):
    images = patches(8, seed=2)[0]
    both = images.copy()
    both[:, :8, :8] = (230, 30, 30)
    both[:, -8:, -8:] = (30, 30, 230)
    for name, here, there in (("red", np.s_[:8, :8], np.s_[-8:, -8:]), ("blue", np.s_[-8:, -8:], np.s_[:8, :8])):
        for each in explain.explain(trained, both, class_name=name):
            assert each.name == name and each.heat[here].mean() > 2 * each.heat[there].mean()


def test_nothing_of_the_network_changes(trained):
    freezing.freeze(trained)
    parameters = trained.collect_params()
    before = {name: p.data().asnumpy() for name, p in parameters.items()}
    images = patches(4)[0]
    frozen = explain.explain(trained, images)
    assert all(p.grad_req == "null" for p in parameters.values())
    assert all(np.array_equal(p.data().asnumpy(), before[name]) for name, p in parameters.items())
    freezing.unfreeze(trained)
    for parameter in parameters.values():
        if parameter.grad_req != "null":
            parameter.grad()[:] = 7
    free = explain.explain(trained, images)
    assert all(np.array_equal(a.heat, b.heat) for a, b in zip(frozen, free))
    assert all((p.grad().asnumpy() == 7).all() for p in parameters.values() if p.grad_req != "null")
    assert all(np.array_equal(p.data().asnumpy(), before[name]) for name, p in parameters.items())


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in ("lenet", "squeezenet1.1") else
                                               pytest.mark.slow) for name in FAMILIES])
def test_any_backbone(name):
    gluon_ft.seed_all(1)
    net = heads.fine_tune_net(name, 3)
    entry = gluon_ft.backbones.get(name)
    size = entry.min_size
    net.preprocessing = Preprocessing(mean=(0.5,) * entry.channels, std=(0.5,) * entry.channels, size=size, resize=size,
                                      channel_order="rgb" if entry.channels == 3 else "gray")
    found, = explain.explain(net, np.random.RandomState(0).randint(0, 255, (size + 9, size + 20, 3)).astype(np.uint8))
    assert found.heat.shape == (size + 9, size + 20) and np.isfinite(found.heat).all() and found.name in "012"
    assert found.heat[:, 0].max() == 0  # outside of the crop
    assert explain.overlay(found).shape == (size + 9, 2 * (size + 20), 3)


def test_a_network_without_a_map_is_refused():
    net = nn.HybridSequential()
    net.add(nn.Flatten(), nn.Dense(4, activation="relu"), nn.Dense(2))
    net.initialize()
    net.preprocessing = PLAIN
    with pytest.raises(NetworkError, match="no convolution whose result has height and width"):
        explain.explain(net, patches(1)[0])


@pytest.mark.parametrize(("extent", "size", "resize", "box"), [
    ((100, 100), 224, 224, (0, 0, 100, 100)), ((100, 200), 224, 224, (0, 50, 100, 100)),
    ((256, 256), 224, 256, (16, 16, 224, 224)), ((28, 28), 28, None, (0, 0, 28, 28)),
    ((40, 60), 32, None, (4, 14, 32, 32)), ((20, 20), 32, None, (0, 0, 20, 20)), ((1, 900), 224, 256, (0, 449, 1, 1))])
def test_where_the_map_lies_in_the_image(extent, size, resize, box):
    found = _in_image(np.ones((7, 7), np.float32), extent, Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3, size=size,
                                                                        resize=resize))
    top, left, height, width = box
    expected = np.zeros(extent, np.float32)
    expected[top:top + height, left:left + width] = 1
    assert np.array_equal(found, expected)


def test_a_class_that_there_is_not(trained):
    with pytest.raises(ConfigError, match="did you mean red"):
        explain.explain(trained, patches(1)[0], class_name="redd")


def test_the_command_writes_one_picture_an_image(finished, tmp_path):
    folder = photos.make(tmp_path / "photos", count=1)
    (folder / "bad.png").write_bytes(b"no image")
    out = tmp_path / "heat"
    done = gluon_ft_command("explain", finished[0], folder, "-o", out, "--json", status=1)
    last = json.loads(done.splitlines()[-1])
    # Three images called 00.png, each in its class's folder.
    assert sorted(path.name for path in out.iterdir()) == ["00-2.png", "00-3.png", "00.png"]
    assert {Image.open(each["picture"]).size for each in last["explanations"]} == {(80, 40)}
    assert [each["path"] for each in last["unreadable"]] == [str(folder / "bad.png")]
    refused = gluon_ft_command("explain", finished[0], folder, "-o", out, "--class", "nobody", status=2)
    assert "no class 'nobody'" in refused
    assert "none of the images" in gluon_ft_command("explain", finished[0], folder / "bad.png", "-o", out, status=2)
    assert "--class cat" in gluon_ft_command("explain", "--help")
