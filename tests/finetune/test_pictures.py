"""Pictures of predictions: confusions and their drawing."""
from __future__ import annotations

import cv2
import numpy as np

from gluon_ft.finetune import pictures


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
