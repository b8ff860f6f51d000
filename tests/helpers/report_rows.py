"""Histories, rows of results and the pixels of pictures, for the tests of reporting."""
from __future__ import annotations

import numpy as np
from PIL import Image

HOSTILE = "<script>alert('x')</script>&\"$_{"


def records(rate, epochs=4, seed=None, **extra):
    return [{"epoch": e, "train_loss": 1 / (1 + rate * e), "train_accuracy": 1 - 0.5 / (1 + rate * e),
             "validation_loss": 1.1 / (1 + rate * e), "validation_accuracy": 1 - 0.6 / (1 + rate * e),
             **({} if seed is None else {"seed": seed}), **extra} for e in range(1, epochs + 1)]


def row(name, seed, train, validation, **extra):
    return {"name": name, "seed": seed, "train_accuracy": train, "validation_accuracy": validation, **extra}


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)
