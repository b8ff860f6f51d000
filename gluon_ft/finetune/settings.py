"""The settings of a whole job, from photos to report, and the layers that they come from."""
from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gluon_ft.errors import ConfigError, near
from gluon_ft.finetune.advice import SETTING_RULES, STRATEGIES
from gluon_ft.io import documents
from gluon_ft.io import settings as schema
from gluon_ft.io.settings import Described, setting
from gluon_ft.models import HEAD_LR_MULT
from gluon_ft.training.config import TrainConfig

AUTO = "auto"
AUDITS = ("fix", "report", "none")
# As `models.freezing` names them, which needs MXNet.
BATCHNORM = ("frozen", "train")
# In config.json beside the settings: where each came from, and why those that were chosen were.
ORIGINS, REASONS = "origins", "reasons"
SOMETIMES = ("wd", "mixup", "balance")  # the advice leaves them alone for most jobs


@schema.documented
@dataclass(frozen=True)
class JobSettings(TrainConfig):
    """Settings of `finetune.train`: those of `TrainConfig`, and these; 'auto' (None for numbers) is decided there.

    Either `data` or `train` (with `val`, unless it is to be split) names the images.
    """

    # Data
    data: str | None = setting(
        None, "Folder with one subfolder a class, or with train/ and val/ (or test/) of that form; or a list "
        "(.lst, .csv, .tsv, .txt).",
        path=True, option=None)
    train: str | None = setting(None, "Training images instead of PHOTOS: a folder, a list or a .rec; split where no "
                                "--val goes with it, unless a .rec. Several are joined: given again, with ';' between, "
                                "by a pattern or as a folder of records.", path=True, several=True)
    val: str | None = setting(None, "Validation images that go with --train, one source or several.", path=True,
                              several=True)
    validation: float = setting(0.2, "Share of each class that is held out where the split is made here; 0: none.",
                                least=0, below=1)
    cross_validate: int | None = setting(None, "Number of folds: each training image is predicted by a network that "
                                         "was trained without its fold, then one is trained on all of them; no images "
                                         "are held out besides.", least=2, most=1000)
    root: str | None = setting(None, "Folder that the paths of a list begin at; by default its own.", path=True)
    exclude: tuple[str, ...] = setting((), "Classes of a folder to leave out, with commas.")
    exclude_files: str | None = setting(None, "Images to leave out: a file with one path a line, or a table with a "
                                        "column 'file', such as the one of gluon-ft audit --labels.", path=True)
    labels_from: str = setting("folder", "Where the classes of a folder's images stand: folder (one subfolder a class) "
                               "or name (cat.0.jpg, as Kaggle packs them).", choices=("folder", "name"))
    classes_are_folders: bool = setting(False, "Take every subfolder for a class, also those called train, val, test "
                                        "and the like.")
    audit: str = setting("fix", "fix (leave out bad files, keep copies on one side of the split), report (only say so) "
                         "or none.", choices=AUDITS)
    # Network
    backbone: str = setting(AUTO, "Network, a name such as resnet18_v1b.",
                            default_words="the best whose weights are at hand")
    pretrained: str = setting(AUTO, "Weights: a tag, BACKBONE:TAG, a file, or none.", default_words="the best at hand")
    strategy: str = setting(AUTO, f"{', '.join(f'{name} ({what})' for name, what in STRATEGIES.items())}.",
                            choices=(AUTO, *STRATEGIES), default_words="by the data")
    freeze: str = setting(AUTO, "none, features (all but the output), or a number of stages from the input on.")
    batchnorm: str = setting("train", "BatchNorm statistics of trainable layers: train (they follow the batches) or "
                             "frozen (the weights' own are held).", choices=BATCHNORM)
    head_lr_mult: float = setting(HEAD_LR_MULT, "Multiplier of the learning rate of the new output.", above=0)
    dropout: float = setting(0.0, "Before the output.", least=0, below=1)
    # Loading and machine
    batch_size: int | None = setting(None, "Images a step, over all devices together; not for strategies linear and "
                                     "svm.", least=1)
    devices: str = setting(AUTO, "cpu, cpu:2 (two contexts), gpu, gpu:8 (the first eight), gpu:0,2 (these cards).",
                           default_words="every GPU, or else the CPU", hidden_option="--device")
    workers: int | None = setting(None, "Threads that decode.", least=0, most=256, default_words="by the processors")
    augment: str = setting(AUTO, "gluon, im2rec, none, or an Augmentation's fields as JSON.", table=True)
    size: int | None = setting(None, "Height and width of the input, pixels.", least=8,
                               default_words="the network's, or as advised")
    mirror: bool | None = setting(None, "In evaluation, prediction and the features of strategies linear and svm: "
                                  "average what the network gives for an image and for its mirror image. Takes twice "
                                  "as long.")

    def __post_init__(self):
        if self.freeze not in (AUTO, "none", "features") and not str(self.freeze).isdecimal():
            raise ConfigError("freeze does not fit", found=repr(self.freeze),
                              expected="'none', 'features', or a number of stages")
        super().__post_init__()
        if self.cross_validate is not None:
            object.__setattr__(self, "validation", 0.0)
        if self.seed is None:
            raise ConfigError("seed does not fit", expected=described()["seed"].range, found=None)
        if (self.data is None) == (self.train is None):
            raise ConfigError("no images" if self.data is None else "two sets of images",
                              found=None if self.data is None else f"{self.data} and {self.train}",
                              expected="a folder of photos, or --train and --val")
        if self.val is not None and self.train is None:
            raise ConfigError("val without train", found=self.val, expected="--train TRAIN --val VAL")

    def check_epochs(self) -> None:
        """Nothing yet, since the advice may set the number of epochs; `training` checks it."""

    def training(self) -> TrainConfig:
        """The part of it that `fit` takes; ConfigError where a phase of it is longer than the training."""
        return TrainConfig(**{name: getattr(self, name) for name in schema.described(TrainConfig)})

    def to_dict(self) -> dict:
        """As plain values, those of the job first."""
        values = schema.to_dict(self)
        return {name: values[name] for name in described()}


def described() -> dict[str, Described]:
    """Every setting by name, those of the job first."""
    found, training = schema.described(JobSettings), schema.described(TrainConfig)
    return {name: found[name] for name in [*(name for name in found if name not in training), *training]}


def default_words(name: str) -> str | None:
    """A setting's default for its line of help; None where there is nothing to say."""
    one, advised = described()[name], any(name in rule.settings for rule in SETTING_RULES)
    if one.about.default_words is not None:
        return one.about.default_words
    if advised and name not in SOMETIMES:
        return "as advised"
    if isinstance(one.default, bool):
        return "yes" if one.default else "no"
    if one.default in (None, ()):
        return None
    text = f"{one.default:g}" if isinstance(one.default, float) else str(one.default)
    return f"{text}, or as advised" if name in SOMETIMES else text


def collect(config: str | os.PathLike | None = None, assignments: Iterable[str] = (),
            options: dict | None = None) -> tuple[dict, dict]:
    """Settings that were given, from the weakest to the strongest layer: config file, `key=value`, options.

    Parameters
    ----------
    config : path-like, optional
        A .toml or .json file; a run's config.json is one. Tables in it are errors, but for `augment`.
    assignments : iterable of str
        Texts of the form key=value.
    options : dict, optional
        Name -> value, None where not given.

    Returns
    -------
    values, origins : dict, dict
        Both have the names that were given; an origin is 'config', 'key=value' or 'option'.

    Raises
    ------
    ConfigError
        for an unknown setting, with the near names, and for a value that does not fit its type.
    """
    layers = [("config", {} if config is None else read_config(config)), ("key=value", _assigned(assignments)),
              ("option", {name: value for name, value in (options or {}).items() if value is not None})]
    values, origins, known = {}, {}, described()
    for origin, layer in layers:
        for name, value in layer.items():
            if name not in known:
                raise ConfigError(f"unknown setting '{name}'", path=config if origin == "config" else None,
                                  remedy=near(name, known))
            if name == "pretrained" and isinstance(value, bool):
                # As `fine_tune_net` takes it.
                value = AUTO if value else "none"
            if known[name].about.several and isinstance(value, (list, tuple)):
                value = ";".join(map(str, value))
            path = config if origin == "config" else None
            values[name], origins[name] = _coerced(name, value, known[name], path), origin
    if values.get("data") is not None:
        _one_set_of_images(values, origins)
    return values, origins


def _coerced(name, value, one, path):
    """`coerce` whose error names the file that the value stands in."""
    try:
        return schema.coerce(name, value, one.kind, one.about.table)
    except ConfigError as error:
        raise error.at(path) from None


def _one_set_of_images(values: dict, origins: dict) -> None:
    """Training images replace the PHOTOS of a config; whatever else names two sets is refused, and nothing dropped."""
    others = [name for name in ("train", "val") if values.get(name) is not None]
    if origins["data"] == "config" and "train" in others and origins["train"] != "config":
        del values["data"], origins["data"]
    elif others:
        raise ConfigError(f"two sets of images: PHOTOS and {others[0]}", expected="one of them",
                          found=f"{values['data']} ({origins['data']}) and {others[0]} {values[others[0]]} "
                          f"({origins[others[0]]})", remedy="give --train and --val in the place of PHOTOS, or leave "
                          f"{others[0]} out")


def read_config(path: str | os.PathLike) -> dict:
    """The settings in a .toml or .json file; ConfigError where it cannot be read as one."""
    path = Path(path)
    try:
        read = documents.read_json if path.suffix.lower() == ".json" else documents.read_toml
        values = read(path)
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
