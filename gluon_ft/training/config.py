"""The training configuration: every setting of a run, with its default and its range."""
from __future__ import annotations

import math
from dataclasses import dataclass

from gluon_ft import settings
from gluon_ft.errors import ConfigError, near

OPTIMIZERS = ("sgd", "nag", "adam", "rmsprop")


@dataclass(frozen=True)
class TrainConfig:
    """Settings of `fit`.

    epochs : passes over the training set, at least 1.
    optimizer : 'sgd', 'nag', 'adam' or 'rmsprop'.
    lr : learning rate of parameters with lr_mult 1, above 0.
    momentum : of sgd and nag, 0 to below 1; ignored by the others.
    wd : weight decay (L2), at least 0.
    label_smoothing : share of each training label that is spread over all classes, 0 to below 1.
    kvstore : MXNet's key-value store that adds up the gradients of several devices.
    seed : of Python's, NumPy's and MXNet's generators at the start; None leaves them.
    top_k : also report top-k accuracy, where there are more classes than that; 0 does not.
    allow_empty_classes : False: a class without training images is an error.
    """

    epochs: int = 5
    optimizer: str = "sgd"
    lr: float = 0.01
    momentum: float = 0.9
    wd: float = 1e-4
    label_smoothing: float = 0.0
    kvstore: str = "device"
    seed: int | None = 0
    top_k: int = 5
    allow_empty_classes: bool = False

    def __post_init__(self):
        _check(self.epochs >= 1, "epochs", "at least 1", self.epochs)
        if self.optimizer not in OPTIMIZERS:
            raise ConfigError(f"unknown optimizer '{self.optimizer}'", remedy=near(self.optimizer, OPTIMIZERS))
        _check(math.isfinite(self.lr) and self.lr > 0, "lr", "a number above 0", self.lr)
        _check(0 <= self.momentum < 1, "momentum", "0 to below 1", self.momentum)
        _check(math.isfinite(self.wd) and self.wd >= 0, "wd", "at least 0", self.wd)
        _check(0 <= self.label_smoothing < 1, "label_smoothing", "0 to below 1", self.label_smoothing)
        _check(self.top_k >= 0, "top_k", "at least 0", self.top_k)

    def optimizer_options(self) -> dict:
        """What `mxnet.gluon.Trainer` takes as optimizer_params."""
        options = {"learning_rate": self.lr, "wd": self.wd}
        if self.optimizer in ("sgd", "nag"):
            options["momentum"] = self.momentum
        return options

    def to_dict(self) -> dict:
        """As plain values, for config.json."""
        return settings.to_dict(self)

    @classmethod
    def from_dict(cls, values: dict) -> TrainConfig:
        """The way back; ConfigError for an unknown key, with the near names."""
        return settings.from_dict(cls, values, "")


def _check(holds, name, expected, found):
    if not holds:
        raise ConfigError(f"{name} out of range", expected=expected, found=found)
