"""The training configuration: every setting of a run, with its default and its range."""
from __future__ import annotations

import math
from dataclasses import dataclass

from gluon_ft.errors import ConfigError, near
from gluon_ft.io import settings
from gluon_ft.training.schedule import Schedule

OPTIMIZERS = ("sgd", "nag", "adam", "rmsprop")
BALANCES = ("none", "weights", "sampling")
CACHES = ("none", "memory", "disk")
PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class TrainConfig:
    """Settings of `fit`.

    Optimisation

    epochs : passes over the training set, at least 1.
    optimizer : 'sgd', 'nag', 'adam' or 'rmsprop'.
    lr : learning rate of parameters with lr_mult 1, above 0; `schedule` multiplies it.
    momentum : of sgd and nag, 0 to below 1; ignored by the others.
    wd : weight decay (L2), at least 0; decay_bias_and_norm : False keeps it from biases, gamma and beta.
    clip_norm : largest L2 norm of all gradients of a step together (of the mean over its images); 0: no limit.
    accumulate : batches whose gradients are added up to one step.

    Schedule (see `training.schedule`)

    schedule : 'constant', 'step', 'multistep', 'cosine' or 'one-cycle'; warmup : epochs of linear rise before it.
    lr_factor, lr_every, milestones : what 'step' and 'multistep' multiply by, every so many epochs, after which epochs.

    Layers

    layer_decay : each stage's rate is that of the stage above it times this, above 0 to 1 (`training.rates`).
    head_epochs : so many epochs train the output only, then everything that was free at the start.
    unfreeze : epochs at whose beginning one more stage, from the top, is set free.

    Regularisation

    label_smoothing : share of each training label that is spread over all classes, 0 to below 1.
    mixup, cutmix : alpha of the Beta distribution that the share of two images is drawn from; 0: off.
    balance : 'weights' weighs each image's loss by its class's rarity, 'sampling' draws classes equally often.
    ema : decay of the exponential moving average that is evaluated and saved, 0 (off) to below 1.
    patience : epochs without a new best after which to stop; 0: never. While the schedule still changes the rate,
    training goes on unless `stop_within_schedule`.

    views : draw only so many augmented views of each image, which the epochs take in turn; 0: new ones each epoch.

    Machine

    cache_features : 'memory' or 'disk' runs the images through the frozen part once and trains the rest on what it
    made of them (`training.features`): of `views` views, or 0: of the images as in evaluation. 'none': every epoch.
    precision : 'float32', 'bfloat16' (CPUs that have it) or 'float16' (GPUs); parameters stay float32.
    kvstore : MXNet's key-value store that adds up the gradients of several devices.
    seed : of everything that is drawn; None leaves the generators as they are.
    save_every : steps between checkpoints within an epoch, save_minutes : minutes; 0: at the ends of epochs only.
    keep : how many of the latest checkpoints to keep, at least 1.

    What is reported and checked

    top_k : also report top-k accuracy, where there are more classes than that; 0 does not.
    allow_empty_classes : False: a class without training images is an error.
    """

    epochs: int = 5
    optimizer: str = "sgd"
    lr: float = 0.01
    momentum: float = 0.9
    wd: float = 1e-4
    decay_bias_and_norm: bool = True
    clip_norm: float = 0.0
    accumulate: int = 1
    schedule: str = "constant"
    warmup: float = 0.0
    lr_factor: float = 0.1
    lr_every: float = 1.0
    milestones: tuple[float, ...] = ()
    layer_decay: float = 1.0
    head_epochs: int = 0
    unfreeze: tuple[int, ...] = ()
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    balance: str = "none"
    ema: float = 0.0
    patience: int = 0
    stop_within_schedule: bool = False
    views: int = 0
    cache_features: str = "none"
    precision: str = "float32"
    kvstore: str = "device"
    seed: int | None = 0
    save_every: int = 0
    save_minutes: float = 0.0
    keep: int = 2
    top_k: int = 5
    allow_empty_classes: bool = False

    def __post_init__(self):
        for name in ("milestones", "unfreeze"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name, known in (("optimizer", OPTIMIZERS), ("balance", BALANCES), ("precision", PRECISIONS),
                            ("cache_features", CACHES)):
            value = getattr(self, name)
            if value not in known:
                raise ConfigError(f"unknown {name} '{value}'", remedy=near(value, known))
        for name, least in (("epochs", 1), ("accumulate", 1), ("keep", 1), ("head_epochs", 0), ("patience", 0),
                            ("save_every", 0), ("top_k", 0), ("views", 0)):
            value = getattr(self, name)
            _check(isinstance(value, int) and not isinstance(value, bool) and value >= least, name,
                   f"a whole number of at least {least}", value)
        _check(math.isfinite(self.lr) and self.lr > 0, "lr", "a number above 0", self.lr)
        for name in ("momentum", "label_smoothing", "ema"):
            _check(0 <= getattr(self, name) < 1, name, "0 to below 1", getattr(self, name))
        for name in ("wd", "clip_norm", "mixup", "cutmix", "save_minutes"):
            value = getattr(self, name)
            _check(math.isfinite(value) and value >= 0, name, "at least 0", value)
        _check(0 < self.layer_decay <= 1, "layer_decay", "above 0 to 1", self.layer_decay)
        _check(not (self.head_epochs and self.unfreeze), "head_epochs and unfreeze", "one of them",
               f"{self.head_epochs} and {self.unfreeze}")
        _check(all(isinstance(e, int) and e >= 2 for e in self.unfreeze) and list(self.unfreeze) == sorted(
            set(self.unfreeze)), "unfreeze", "rising epochs from 2 on, such as 2,4", self.unfreeze)
        self.lr_schedule()

    @property
    def in_phases(self) -> bool:
        """Whether stages are set free in the course of the training."""
        return bool(self.head_epochs or self.unfreeze)

    def lr_schedule(self) -> Schedule:
        """What multiplies the learning rate; ConfigError where its settings do not fit together."""
        return Schedule(self.schedule, self.warmup, self.lr_factor, self.lr_every, self.milestones)

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
