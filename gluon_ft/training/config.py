"""The training configuration: every setting of `fit`, with its default, range and help."""
from __future__ import annotations

from dataclasses import dataclass

from gluon_ft.errors import ConfigError
from gluon_ft.io import settings
from gluon_ft.io.settings import setting
from gluon_ft.training.schedule import NAMES, Schedule

OPTIMIZERS = ("sgd", "nag", "adam", "rmsprop")
# The types that MXNet's own code makes; Horovod's and BytePS's are registered by name.
KVSTORES = ("local", "device", "nccl", "dist_sync", "dist_device_sync", "dist_async", "horovod", "byteps")
BALANCES = ("none", "weights", "sampling")
CACHES = ("none", "memory", "disk")
PRECISIONS = ("float32", "bfloat16", "float16")
# As `engine.choice` names them, which needs MXNet.
ENGINES = ("auto", "mxnet", "onnxruntime")
# Largest seed that NumPy's generators take.
MAX_SEED = (1 << 32) - 1


@settings.documented
@dataclass(frozen=True)
class TrainConfig:
    """Settings of `fit`.

    Every value is checked when the configuration is made: ConfigError names the setting, what is expected and what was
    found. `head_epochs` and `unfreeze` exclude each other.
    """

    # Optimisation
    epochs: int = setting(5, "Passes over the training images.", least=1)
    optimizer: str = setting("sgd", "sgd, nag, adam or rmsprop.", choices=OPTIMIZERS)
    lr: float = setting(0.01, "Learning rate of parameters with lr_mult 1, which the schedule multiplies.", above=0)
    momentum: float = setting(0.9, "Of sgd and nag.", least=0, below=1)
    wd: float = setting(1e-4, "Weight decay.", least=0)
    decay_bias_and_norm: bool = setting(True, "Weight decay of biases, gamma and beta as well.")
    clip_norm: float = setting(
        0.0, "Largest L2 norm of all gradients of a step together (of the mean over its images); 0: no limit.", least=0)
    accumulate: int = setting(1, "Batches whose gradients are added up to one step.", least=1)
    # Schedule, see `training.schedule`
    schedule: str = setting("constant", "constant, step, multistep, cosine or one-cycle.", choices=NAMES)
    warmup: float = setting(0.0, "Epochs over which the learning rate first rises linearly.", least=0)
    lr_factor: float = setting(0.1, "What each drop of step and multistep multiplies the rate by.", above=0, most=1)
    lr_every: float = setting(1.0, "Epochs between the drops of step.", above=0)
    milestones: tuple[float, ...] = setting((), "Epochs after which multistep drops, with commas.", above=0)
    # Layers
    layer_decay: float = setting(1.0, "Learning rate of each stage over that of the stage above it.", above=0, most=1)
    head_epochs: int = setting(
        0, "Train only the output for so many epochs, then everything that was free at the start.", least=0)
    unfreeze: tuple[int, ...] = setting(
        (), "Epochs at whose beginning one more stage, from the top, is unfrozen, with commas.", least=2)
    # Regularisation
    label_smoothing: float = setting(0.0, "Share of each training label that is spread over all classes.", least=0,
                                     below=1)
    mixup: float = setting(
        0.0, "Alpha of mixup, of the Beta distribution that the share of two images is drawn from; 0: off.", least=0)
    cutmix: float = setting(0.0, "Alpha of cutmix, as of mixup; 0: off.", least=0)
    balance: str = setting("none", "weights (each image's loss by its class's rarity), sampling (classes drawn equally "
                           "often) or none.", choices=BALANCES)
    ema: float = setting(0.0, "Decay of the exponential moving average of the weights (EMA), which is evaluated and "
                         "saved; 0: off.", least=0, below=1)
    patience: int = setting(0, "Stop after so many epochs without a new best, once the schedule no longer changes the "
                            "rate; 0: never.", least=0)
    stop_within_schedule: bool = setting(False, "Let patience end a training whose schedule still changes the rate.")
    # Images and features
    views: int = setting(0, "Draw only so many augmented views of each image, which the epochs take in turn; 0: new "
                         "ones each epoch.", least=0,
                         default_words="4 with frozen stages and augmentation, else 0")
    cache_features: str = setting("none", "Train on cached frozen features, kept in memory or on disk, of `views` "
                                  "augmented views of each image; none: run the frozen layers each epoch.",
                                  choices=CACHES, default_words="memory where something is frozen")
    # Machine
    precision: str = setting("float32", "float32, bfloat16 (CPUs that have it) or float16 (GPUs); parameters stay "
                             "float32.", choices=PRECISIONS)
    engine: str = setting("auto", "What runs the network where it is not trained (evaluation, features): mxnet, "
                          "onnxruntime (CPU, float32), or auto, which measures them for many images.",
                          choices=ENGINES, default_words="the faster one on this machine")
    kvstore: str = setting("device", "KVStore type: how MXNet adds up the gradients of several devices.",
                           choices=KVSTORES)
    sync_batchnorm: bool = setting(False, "Where several devices train: BatchNorm that follows the batches normalises "
                                   "by the images of all of them together (SyncBatchNorm), not by each device's own.")
    seed: int | None = setting(0, "Of everything that is drawn.", least=0, most=MAX_SEED)
    save_every: int = setting(0, "Steps between checkpoints within an epoch; 0: none.", least=0)
    save_minutes: float = setting(0.0, "Minutes between checkpoints within an epoch; 0: none.", least=0)
    keep: int = setting(2, "Latest checkpoints to keep.", least=1)
    # What is reported and checked
    top_k: int = setting(5, "Also report top-k accuracy where there are more than k classes; 0: not.", least=0)
    allow_empty_classes: bool = setting(False, "Allow classes without a training image.")

    def __post_init__(self):
        settings.check(self)
        if self.head_epochs and self.unfreeze:
            raise ConfigError("head_epochs and unfreeze are two ways", expected="one of them",
                              found=f"{self.head_epochs} and {self.unfreeze}", remedy="leave out one of the two")
        if list(self.unfreeze) != sorted(set(self.unfreeze)):
            raise ConfigError("unfreeze out of range", expected="rising epochs from 2 on, such as 2,4",
                              found=self.unfreeze)
        self.lr_schedule()
        self.check_epochs()

    def check_epochs(self) -> None:
        """Raises ConfigError where warm-up, or a phase in which stages are frozen, is longer than the training."""
        whole = f"0 to {self.epochs}, the epochs"
        for name in ("warmup", "head_epochs"):
            if getattr(self, name) > self.epochs:
                raise ConfigError(f"{name} out of range", expected=whole, found=getattr(self, name),
                                  remedy="train for more epochs, or lower it")
        if self.unfreeze and self.unfreeze[-1] > self.epochs:
            raise ConfigError("unfreeze out of range", expected=f"epochs from 2 to {self.epochs}, the last",
                              found=self.unfreeze, remedy="train for more epochs, or leave the later ones out")

    @property
    def in_phases(self) -> bool:
        """Whether stages are unfrozen in the course of the training."""
        return bool(self.head_epochs or self.unfreeze)

    def lr_schedule(self) -> Schedule:
        """What multiplies the learning rate; ConfigError where its settings do not fit together."""
        return Schedule(self.schedule, self.warmup, self.lr_factor, self.lr_every, self.milestones)

    def optimizer_options(self) -> dict[str, float]:
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
