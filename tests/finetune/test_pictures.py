"""Pictures of predictions: confusions and their drawing."""
from __future__ import annotations

import contextlib

import cv2
import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn

from gluon_ft import ArrayLoader, evaluate
from gluon_ft.engine import fused
from gluon_ft.finetune import pictures
from gluon_ft.runtime import hardware


def test_pictures_of_predictions(tmp_path):
    classes = ["cat", "dog_$_", "owl"]
    labels = np.array([0, 0, 1, 1, 2, 2])
    probabilities = np.eye(3, dtype=np.float32)[[0, 1, 1, 1, 1, 1]] * 0.8 + 0.05
    assert pictures.confusions(probabilities, labels, classes) == ["owl taken for dog_$_: 2", "cat taken for dog_$_: 1"]
    path = pictures.draw_confusion(probabilities, labels, classes, tmp_path / "c.png")
    assert cv2.imread(str(path)).shape[0] > 200
    many = [str(i) for i in range(40)]
    path = pictures.draw_confusion(np.eye(40), np.arange(40), many, tmp_path / "d.png")
    assert cv2.imread(str(path)).shape[0] > 200


@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=pytest.mark.skipif(
    not hardware.bfloat16_flags(), reason="this CPU has no bfloat16"))])
def test_predictions_go_the_way_of_the_evaluation(monkeypatch, precision):
    """The fused form where the images are many, and the precision that was asked for."""
    asked, plainly = [], fused.evaluating

    @contextlib.contextmanager
    def evaluating(net, number, contexts, precision="float32"):
        with plainly(net, number, contexts, precision) as run:
            asked.append((number, contexts, precision))
            yield lambda data: run(data)

    net = nn.HybridSequential()
    net.add(nn.Conv2D(8, 3, in_channels=3), nn.Activation("relu"), nn.GlobalAvgPool2D(), nn.Dense(2, in_units=8))
    net.initialize(mx.init.Xavier())
    net.hybridize()
    rng = np.random.RandomState(0)
    loader = ArrayLoader(rng.randn(30, 3, 8, 8).astype("float32"), rng.randint(0, 2, 30), 8)
    monkeypatch.setattr(fused, "evaluating", evaluating)
    probabilities, labels = pictures.predictions(net, loader, None, precision)
    found = evaluate(net, loader, precision=precision)
    assert asked == [(4, [mx.cpu()], precision)] * 2
    assert (probabilities.argmax(1) == labels).mean() == pytest.approx(found.accuracy)
    assert -np.log(probabilities[np.arange(30), labels]).mean() == pytest.approx(found.loss, rel=1e-2)
