"""The settings of a whole job, from photos to report, and the layers that they come from."""
from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from gluon_ft.errors import ConfigError, near
from gluon_ft.io import settings as plain_settings
from gluon_ft.io.values import coerce
from gluon_ft.models import freezing
from gluon_ft.training.config import TrainConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

AUTO = "auto"
AUDITS = ("fix", "report", "none")
STRATEGIES = ("svm", "head", "last-stages", "everything", "scratch")
# In config.json beside the settings: where each came from, and why those that were chosen were.
ORIGINS, REASONS = "origins", "reasons"


@dataclass(frozen=True)
class JobSettings(TrainConfig):
    """Settings of `finetune.train`: those of `TrainConfig`, and these; 'auto' (None for numbers) is decided there.

    Data

    data : folder with one subfolder a class, or with train/ and val/ (or test/) of that form; or a .lst.
    train, val : instead of `data`, a folder, a .lst or a .rec each; a `train` without `val` is split, unless a .rec.
    validation : share of each class that is held out where the split is made here, 0 (none) to below 1.
    root : folder that the paths of a .lst begin at, by default its own. exclude : classes of a folder to leave out.
    audit : 'fix' looks for copies and bad files, leaves out what cannot be read, keeps copies on one side of the split
    (or out of a validation set that was given); 'report' only says so; 'none' does not look.

    Network

    backbone : a name of the registry. pretrained : 'none', a tag, BACKBONE:TAG or a file.
    strategy : 'svm', 'head', 'last-stages', 'everything' or 'scratch'.
    freeze : 'none', 'features' (all but the output), or a number of stages from the input on.
    batchnorm : 'frozen' holds BatchNorm's statistics in what is trained as well; 'train' lets them follow the batches.
    head_lr_mult : learning-rate multiplier of the new output. dropout : before the output, 0 to below 1.

    Loading and machine

    batch_size : images a step, over all devices together; not for an SVM. devices : 'cpu', 'cpu:2', 'gpu', 'gpu:4'.
    workers : threads that decode. augment : 'gluon', 'im2rec', 'none', or an Augmentation's fields as JSON.
    size : height and width of the input, pixels.

    Where nothing else was given, frozen parts are computed once (`cache_features` 'memory').
    """

    data: str | None = None
    train: str | None = None
    val: str | None = None
    validation: float = 0.2
    root: str | None = None
    exclude: tuple[str, ...] = ()
    audit: str = "fix"
    backbone: str = AUTO
    pretrained: str = AUTO
    strategy: str = AUTO
    freeze: str = AUTO
    batchnorm: str = "train"
    head_lr_mult: float = 10.0
    dropout: float = 0.0
    batch_size: int | None = None
    devices: str = AUTO
    workers: int | None = None
    augment: str = AUTO
    size: int | None = None

    def __post_init__(self):
        super().__post_init__()
        if (self.data is None) == (self.train is None):
            raise ConfigError("no images" if self.data is None else "two sets of images",
                              found=None if self.data is None else f"{self.data} and {self.train}",
                              expected="a folder of photos, or --train and --val")
        if self.val is not None and self.train is None:
            raise ConfigError("val without train", found=self.val, expected="--train TRAIN --val VAL")
        _known("audit", self.audit, AUDITS)
        _known("batchnorm", self.batchnorm, (freezing.FROZEN, freezing.TRAINED))
        _known("strategy", self.strategy, (AUTO, *STRATEGIES))
        if self.freeze not in (AUTO, "none", "features") and not self.freeze.isdecimal():
            raise ConfigError("freeze does not fit", found=f"'{self.freeze}'",
                              expected="'none', 'features', or a number of stages")
        _within("validation", self.validation, 0 <= self.validation < 1, "0 to below 1")
        _within("dropout", self.dropout, 0 <= self.dropout < 1, "0 to below 1")
        _within("head_lr_mult", self.head_lr_mult, self.head_lr_mult > 0, "above 0")
        _within("batch_size", self.batch_size, self.batch_size is None or self.batch_size >= 1, "1 or more")
        _within("workers", self.workers, self.workers is None or 0 <= self.workers <= 256, "0 to 256")
        _within("size", self.size, self.size is None or self.size >= 8, "8 pixels or more")
        _within("seed", self.seed, self.seed is not None and 0 <= self.seed < 1 << 32, "0 to 2**32 - 1")

    def training(self) -> TrainConfig:
        """The part of it that `fit` takes."""
        return TrainConfig(**{name: getattr(self, name) for name in _names(TrainConfig)})

    def to_dict(self) -> dict:
        """As plain values, those of the job first."""
        values = plain_settings.to_dict(self)
        own = [name for name in values if name not in _names(TrainConfig)]
        return {name: values[name] for name in [*own, *_names(TrainConfig)]}


def names() -> list[str]:
    """Every setting, those of the job first."""
    training = _names(TrainConfig)
    return [*(name for name in _names(JobSettings) if name not in training), *training]


def kinds() -> dict[str, str]:
    """Setting -> its type, as annotated."""
    return {field.name: field.type for field in dataclasses.fields(JobSettings)}


def defaults() -> dict:
    """Setting -> its default; 'auto' and None are decided by the job."""
    return {field.name: field.default for field in dataclasses.fields(JobSettings)}


def collect(config=None, assignments=(), options: dict | None = None) -> tuple[dict, dict]:
    """Settings that were given, from the weakest to the strongest layer: config file, `key=value`, options.

    Parameters
    ----------
    config : path of a .toml or .json file; a run's config.json is one. Tables in it are errors, but for `augment`.
    assignments : texts of the form key=value
    options : name -> value, None where not given

    Returns (values, origins): both have the names that were given; an origin is 'config', 'key=value' or 'option'.
    Raises ConfigError for an unknown setting, with the near names, and for a value that does not fit its type.
    """
    layers = [("config", {} if config is None else read_config(config)), ("key=value", _assigned(assignments)),
              ("option", {name: value for name, value in (options or {}).items() if value is not None})]
    values, origins, known = {}, {}, kinds()
    for origin, layer in layers:
        for name, value in layer.items():
            if name not in known:
                raise ConfigError(f"unknown setting '{name}'", path=config if origin == "config" else None,
                                  remedy=near(name, known))
            if name == "pretrained" and isinstance(value, bool):
                # As `fine_tune_net` takes it.
                value = AUTO if value else "none"
            path = config if origin == "config" else None
            values[name], origins[name] = _coerced(name, value, known[name], path), origin
    # A folder named in a stronger layer replaces the lists of a weaker one, and the other way round.
    for one, others in (("data", ("train", "val")), ("train", ("data",))):
        for other in others:
            if values.get(one) is not None and values.get(other) is not None and _stronger(origins, one, other, layers):
                del values[other], origins[other]
    return values, origins


def _coerced(name, value, kind, path):
    """`coerce` whose error names the file that the value stands in."""
    try:
        return coerce(name, value, kind)
    except ConfigError as error:
        raise ConfigError(error.message, path=path, expected=error.expected, found=error.found,
                          remedy=error.remedy) from None


def _stronger(origins, one, other, layers):
    order = [origin for origin, _ in layers]
    return order.index(origins[one]) > order.index(origins[other])


def read_config(path) -> dict:
    """The settings in a .toml or .json file; ConfigError where it cannot be read as one."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except OSError as error:
        raise ConfigError("configuration cannot be read", path=path, expected="a .toml or .json file",
                          found=error.strerror) from error
    except ValueError as error:
        form = "JSON" if path.suffix.lower() == ".json" else "TOML"
        raise ConfigError("not a configuration", path=path, expected=form, found=str(error)) from error
    if not isinstance(values, dict):
        raise ConfigError("not a configuration", path=path, expected="names and values", found=type(values).__name__)
    return {name: value for name, value in values.items() if name not in (ORIGINS, REASONS)}


def _assigned(assignments):
    found = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"'{text}' is not a setting", expected="key=value")
        name = name.strip().replace("-", "_")
        if name in found:
            raise ConfigError(f"setting '{name}' is given twice", found=f"{found[name]} and {value}")
        found[name] = value.strip()
    return found


def _names(kind):
    return [field.name for field in dataclasses.fields(kind)]


def _known(name, value, known):
    if value not in known:
        raise ConfigError(f"unknown {name} '{value}'", remedy=near(value, known))


def _within(name, value, holds, expected):
    if not holds:
        raise ConfigError(f"{name} out of range", expected=expected, found=value)
