"""Plans a job: checks what was asked for, decides the rest with reasons, and builds what is trained.

`check` comes before the images are audited, `begin` makes the whole job; `train` and `find-lr` use both alike.
"""
from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass, field, replace
from typing import Any

import mxnet as mx
from mxnet.gluon import HybridBlock

from gluon_ft.data import loader as loaders
from gluon_ft.data.images.augment import PROCEDURES, Augmentation
from gluon_ft.engine import choice as engines
from gluon_ft.engine import fused, precision
from gluon_ft.errors import ConfigError, DataError, near
from gluon_ft.evaluation.task import EVALUATED
from gluon_ft.finetune import advice, held_out, job_data, network, probe, settings
from gluon_ft.finetune import choice as choices
from gluon_ft.finetune.advice import ON_FEATURES
from gluon_ft.finetune.settings import AUTO, ORIGINS, REASONS, JobSettings
from gluon_ft.io import documents
from gluon_ft.io.settings import described
from gluon_ft.models import HEAD_LR_MULT, freezing, registry
from gluon_ft.models.spec import ModelSpec
from gluon_ft.models.stages import stages
from gluon_ft.runtime import devices
from gluon_ft.runtime.distributed.workers import KINDS
from gluon_ft.runtime.processors import threads
from gluon_ft.training import rates
from gluon_ft.training.config import TrainConfig
from gluon_ft.training.feature_cache import select

# What training by steps takes and a classifier fitted to features does not; with the value that means 'not used'.
BY_STEPS = {**{name: one.default for name, one in described(TrainConfig).items()
               if name not in ("seed", "top_k", "allow_empty_classes", "kvstore", "keep", "engine")},
            "dropout": 0.0, "head_lr_mult": 1.0, "augment": "none", "batch_size": None,
            "batchnorm": "train"}
PATHS = ("data", "train", "val", "root", "exclude_files")
VIEWS = 4  # of each image, where frozen parts are computed once and training augments


@dataclass
class Job:
    """What is known of a job once everything is decided.

    Parameters
    ----------
    settings : JobSettings
        Without any 'auto'.
    config : dict
        The settings as config.json has them, with where each came from and why.
    net : HybridBlock
        With its new output, frozen as the settings say.
    notes : list of str
        What the report says beside the results.
    say : callable(str)
        Gets each line for people.
    run : reporting.Run, optional
        Its folder; None where nothing is written.
    """

    settings: JobSettings
    config: dict
    data: job_data.JobData
    net: Any  # a HybridBlock with what this project hangs on it
    contexts: list[mx.Context]
    notes: list[str]
    say: Callable[[str], None]
    run: Any = None
    _evaluated: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def loader(self, part: str, train: bool) -> Any:
        """The images of a part, for training or in evaluation order; None where there is no such part.

        In evaluation order it is the same loader each time, which remembers decoded images.
        """
        if part not in self.data.parts:
            return None
        if train:
            return self._opened(part, True)
        opened = self._evaluated.get(part)
        if opened is None or opened.source is not self.data.parts[part] or \
                opened.transform.preprocessing != self.net.preprocessing:
            opened = self._evaluated[part] = self._opened(part, False)
        return opened

    def _opened(self, part: str, train: bool) -> Any:
        chosen = self.settings
        # JobSettings refuses a seed of None, and `decide` has set the batch size of what is trained in batches.
        seed: Any = chosen.seed
        batch_size: Any = chosen.batch_size if train else EVALUATED
        return loaders.make_loader(self.data.parts[part], classes=self.data.class_names, train=train,
                                   preprocessing=self.net.preprocessing, seed=seed, workers=chosen.workers,
                                   batch_size=batch_size, cache="memory",
                                   augment=augmentation(chosen.augment) if train else None)


def check(wanted: JobSettings, values: dict, origins: dict) -> tuple:
    """Checks settings against each other, the machine and the registry, before images are audited or weights fetched.

    Parameters
    ----------
    wanted : JobSettings
        The settings given, with defaults; how many stages can be frozen is checked where a backbone or weights are
        named.
    values, origins : dict
        Those given, see `settings.collect`.

    Returns
    -------
    tuple
        What `job_data.find` returns.

    Raises
    ------
    ConfigError, NetworkError, WeightsError, DataError
        for settings, for names of networks and of weights, for the images.
    """
    _check_augment(wanted.augment)
    contexts = devices.contexts(wanted.devices)
    precision.check(wanted.precision, contexts)
    engines.check(wanted.engine)
    devices.check_kvstore(wanted.kvstore, contexts)
    if wanted.kvstore in KINDS and wanted.cross_validate is not None:
        raise ConfigError("cross-validation is not divided among workers", expected="kvstore 'device' or 'local'",
                          found=f"'{wanted.kvstore}'", remedy="run it without launch")
    if "epochs" in values:
        wanted.training()
    strategy = network.strategy_of(wanted)
    check_strategy(strategy, by_steps(wanted, values, origins), wanted)
    _check_network(wanted, strategy, contexts)
    if wanted.cross_validate is not None and origins.get("validation") in ("key=value", "option") \
            and values["validation"]:
        raise ConfigError("cross-validation holds no other images out", found=f"validation {values['validation']}",
                          expected=f"one of validation and cross_validate {wanted.cross_validate}")
    train, val = job_data.find(wanted)
    if val is not None and origins.get("validation") in ("key=value", "option"):
        raise ConfigError("validation images are given, so that none are drawn",
                          found=f"validation {wanted.validation}",
                          remedy="leave validation out, or the validation images")
    return train, val


def _check_augment(text):
    found = augmentation(text)
    if isinstance(found, dict):
        Augmentation.from_dict(found)
    elif found != AUTO and found not in PROCEDURES:
        raise ConfigError(f"no augmentation '{found}'", remedy=near(found, PROCEDURES))


def _check_network(wanted, strategy, contexts):
    """What is named must exist and fit together; where nothing is, the choice waits for the images' size."""
    if wanted.backbone == AUTO and wanted.pretrained == AUTO:
        return
    chosen = choices.choose(wanted.backbone, wanted.pretrained, size=wanted.size, gpu=contexts[0].device_type == "gpu",
                            strategy=strategy or AUTO)
    network.strategy_of(replace(wanted, pretrained=chosen.pretrained))
    # Without weights a backbone that is not named depends on the images' size.
    named = wanted.backbone != AUTO or chosen.pretrained != choices.NONE
    if wanted.freeze.isdecimal() and named:
        freezing.freeze_stages(registry.build(chosen.backbone), int(wanted.freeze))


def begin(wanted: JobSettings, values: dict, origins: dict, found: tuple, say: Callable[[str], None]) -> Job:
    """Makes the whole job: images audited and split, network chosen and filled, settings decided, layers frozen.

    Nothing is written; weights may be fetched.

    Parameters
    ----------
    wanted, values, origins
        As of `check`.
    found : tuple
        The result of `check`.
    say : callable(str)
        Gets each line for the reader.

    Returns
    -------
    Job

    Raises
    ------
    ConfigError, DataError, NetworkError, WeightsError, DownloadError
        The images, the network, the weights or the settings do not fit one another.
    """
    data = job_data.prepare(wanted, found)
    _say_data(data, say)
    contexts = devices.contexts(wanted.devices)
    size = job_data.typical_size(data.parts["train"])
    chosen = choices.choose(wanted.backbone, wanted.pretrained, size=wanted.size or size,
                            gpu=contexts[0].device_type == "gpu", strategy=network.strategy_of(wanted) or AUTO)
    say(f"network: {chosen.backbone}, weights: {chosen.pretrained} ({chosen.reason})")
    net, notes = network.build(chosen, data.class_names, contexts, wanted.seed, wanted.size)
    decided = decide(wanted, values, data, chosen, net, contexts, origins)
    held_out.check_folds(data.parts["train"].labels, data.groups, decided.settings)
    say(f"strategy: {decided.settings.strategy}")
    for reason in decided.reasons.values():
        say(f"  {reason}")
    network.apply(net, decided.settings)
    _check_training(net, decided.settings)
    config = {**decided.settings.to_dict(),
              ORIGINS: {name: origins.get(name, decided.origins.get(name, "default")) for name in settings.described()},
              REASONS: {"network": chosen.reason, **decided.reasons}}
    return Job(decided.settings, config, data, net, contexts, [*notes, *data.lines], say)


def _engine(wanted, net, data) -> str:
    """What will run the job's images forward: what was asked for, or the faster one, measured for many images."""
    images = sum(len(part) for part in data.parts.values())
    with engines.using(wanted.engine):
        return fused.settle(net, images, (net.preprocessing.channels, *2 * (net.preprocessing.size,)))


def _check_training(net, chosen):
    """What `fit` would refuse of settings and network, before anything is written."""
    if chosen.strategy in ON_FEATURES:
        return
    training, size = chosen.training(), net.preprocessing.size
    select.check(net, training)
    rates.unfreezing(net, training.head_epochs, training.unfreeze, training.epochs,
                     (1, net.preprocessing.channels, size, size))


def _say_data(data, say):
    counts = ", ".join(f"{len(part)} for {'training' if name == 'train' else name}"
                       for name, part in data.parts.items())
    say(f"images: {counts}; {len(data.class_names)} classes")
    if data.facts and not any(data.facts.values()):
        say("  audited: no copies, no bad files")
    for line in data.lines:
        say(f"  {line}")


@dataclass(frozen=True)
class Decided:
    """What `decide` returns.

    Attributes
    ----------
    settings : JobSettings
        Without any 'auto'.
    origins : dict of str to str
        Where the settings that were decided here come from.
    reasons : dict of str to str
        What was decided -> why.
    """

    settings: JobSettings
    origins: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)


def augmentation(text: str) -> str | dict:
    """What `loaders.make_loader` takes: the name of a procedure, or a dict from JSON. ConfigError for other JSON."""
    if not text.lstrip().startswith("{"):
        return text
    try:
        return documents.parse_json(text)
    except ValueError as error:
        raise ConfigError("augment does not fit", found=text,
                          expected="'gluon', 'im2rec', 'none' or fields of Augmentation as JSON") from error


def decide(wanted: JobSettings, values: dict, data: job_data.JobData, choice: ModelSpec, net: HybridBlock,
           contexts: list[mx.Context], origins: dict | None = None) -> Decided:
    """Every setting of a job: what was given stays, the rest is as advised for the data and the strategy.

    Where the strategy or its rates depend on the features, up to 300 training images are run through the network
    (`probe.measure`).

    Parameters
    ----------
    wanted : JobSettings
        The settings given, with defaults.
    values, origins : dict
        Those that were given, by name.
    data : job_data.JobData
    choice : ModelSpec
    net : HybridBlock
        With weights and a new output.
    contexts : list of mx.Context
    """
    strategy = network.strategy_of(replace(wanted, pretrained=choice.pretrained))
    given = {name for name, value in values.items() if value is not None and value != AUTO}
    wanted = replace(wanted, engine=_engine(wanted, net, data))
    with engines.using(wanted.engine):
        facts = _facts(data, choice, net, wanted, probing=strategy not in (*ON_FEATURES, "scratch"))
    if "lr" in given:
        # The output's share of a rate that was asked for is not ours to stretch.
        facts = replace(facts, eigenvalue=None)
    advised = _advised(wanted, facts, strategy, by_steps(wanted, values, origins))
    taken = {name: value for name, value in advised.settings.items() if name not in given}
    if "size" in taken and not network.takes(net, taken["size"]):
        del taken["size"]
    names = ["strategy", *(f"settings {number}" for number in range(1, len(advised.reasons)))]
    reasons = {name: f"{text} ({source})" for name, (text, source) in zip(names, advised.reasons)}
    other = [f"{name} {getattr(wanted, name)} in the place of {value}" for name, value in advised.settings.items()
             if name in given and getattr(wanted, name) != value]
    if other:
        reasons["given"] = f"as asked for: {', '.join(other)}"
    origins = dict.fromkeys(taken, "advice")
    if wanted.strategy == AUTO:
        origins["strategy"] = "freeze" if strategy not in (None, "scratch") else "advice"
    taken = {**_rest(wanted, facts, net, advised.strategy, contexts, given), **taken}
    taken.update(strategy=advised.strategy, backbone=choice.backbone, pretrained=choice.pretrained)
    settings = replace(wanted, **taken)
    if "cache_features" not in given:
        settings = cached(settings, given)
    if settings.cache_features != "none":
        views = f"of {settings.views} augmented views of each image" if settings.views else "of the images as they are"
        reasons["cache"] = f"what is frozen is computed once, {views} (cache_features {settings.cache_features})"
    return Decided(settings, origins, reasons)


def by_steps(wanted: JobSettings, values: dict, origins: dict | None = None) -> list[str]:
    """Names the settings given that a classifier fitted to features has no use for, sorted.

    Parameters
    ----------
    wanted : JobSettings
        The settings given, with defaults.
    values : dict
        Those that were given, by name; None and 'auto' do not count, nor does a default, except for a learning rate.
    origins : dict, optional
        Name -> where it was given; a learning rate counts as asked for in 'key=value' and 'option'.
    """
    named = (origins or {}).get("lr") in ("key=value", "option")  # a rate is asked for even where it is the default
    together = ["kvstore"] if wanted.kvstore in KINDS else []  # several workers have steps to divide
    return together + sorted(name for name, value in values.items() if name in BY_STEPS and value not in (None, AUTO)
                  and (getattr(wanted, name) != BY_STEPS[name] or (name == "lr" and named)))


def check_strategy(strategy: str | None, given: list[str], wanted: JobSettings) -> None:
    """Refuses settings that a classifier fitted to features would ignore.

    Parameters
    ----------
    strategy : str or None
        That was asked for; all but 'linear' and 'svm' pass.
    given : list of str
        As of `by_steps`.
    wanted : JobSettings
        Has the values, for the error.

    Raises
    ------
    ConfigError
    """
    if strategy in ON_FEATURES and given:
        raise ConfigError(f"strategy '{strategy}' does not train by steps: {given[0]} would be ignored",
                          found=f"{given[0]} {getattr(wanted, given[0])}",
                          remedy="leave it out, or take strategy head")


def _advised(wanted, facts, strategy, given) -> advice.Advice:
    """The advice; no classifier on features where settings that it has not are given, or a class has one image."""
    check_strategy(strategy, given, wanted)
    if strategy in ON_FEATURES and facts.smallest_class < 2:
        raise DataError(f"a class with too few training images for strategy '{strategy}'",
                        expected="2 or more of each class", found=facts.smallest_class,
                        remedy="add images, leave the class out (--exclude), or take strategy head")
    # Without weights 'scratch' is what the advice says itself, with its reason.
    found = advice.advise(facts, None if strategy == "scratch" and wanted.strategy == AUTO else strategy)
    if wanted.strategy == AUTO and strategy in ("head", "last-stages", "everything"):
        why = (f"'{strategy}' follows from freeze {wanted.freeze}", "you")
        return replace(found, reasons=[why, *found.reasons[1:]])
    if found.strategy not in ON_FEATURES or strategy in ON_FEATURES or not (given or facts.smallest_class < 2):
        return found
    other = advice.advise(facts, "head")
    why = (f"{given[0]} is for training by steps", "you") if given else ("a class has one image only", "ours")
    why = (f"so few images ({facts.images:,}) are for a linear classifier, but {why[0]}: the output is trained on "
           "frozen features", why[1])
    return replace(other, reasons=[why, *other.reasons[1:]])


def _facts(data, choice, net, wanted, probing):
    facts = probe.measure(data.parts["train"], net if probing else False, seed=wanted.seed)
    facts = replace(facts, batch=wanted.batch_size, accumulate=wanted.accumulate)
    if choice.pretrained == choices.NONE or facts.weights is not None:
        return facts
    return replace(facts, weights=choice.pretrained, input_size=registry.get(choice.backbone).input_size,
                   stages=len(stages(net)))


def _rest(wanted, facts, net, strategy, contexts, given) -> dict:
    """What the advice leaves open."""
    found = {"batch_size": None if strategy in ON_FEATURES else advice.batch_size(facts), "workers": threads(),
             "size": net.preprocessing.size,
             "augment": "none" if net.preprocessing.channels == 1 or strategy in (*ON_FEATURES, "head") else "gluon",
             "head_lr_mult": 1.0 if strategy in ("head", "scratch", *ON_FEATURES) else HEAD_LR_MULT,
             "freeze": "features" if strategy in ("head", *ON_FEATURES) else "none", "mirror": False}
    if strategy == "last-stages":
        found["freeze"] = advice.all_but_last_stage(facts)
    always = {"devices": devices.name(contexts),
              **{name: job_data.resolved(getattr(wanted, name)) for name in PATHS if getattr(wanted, name)}}
    return {**{name: value for name, value in found.items() if name not in given}, **always}


def cached(settings: JobSettings, given: Container[str] = ()) -> JobSettings:
    """Lets frozen parts be computed once, where that trains the same; else the settings stay as they are.

    It would not with mixup and cutmix, since mixing images is not mixing features; nor with rates by stage or with
    stages that are unfrozen later, which need the whole network. Workers do not divide the making of features.
    """
    frozen = settings.freeze not in ("none", "0") and settings.strategy not in ON_FEATURES
    if not frozen or settings.mixup or settings.cutmix or settings.layer_decay != 1 or settings.in_phases \
            or settings.kvstore in KINDS:
        return settings
    views = settings.views if "views" in given or settings.augment == "none" else min(VIEWS, settings.epochs)
    return replace(settings, cache_features="memory", views=views)
