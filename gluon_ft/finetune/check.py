"""What can be said against a job before its images are audited and anything is fetched, built or written."""
from __future__ import annotations

from dataclasses import replace

from gluon_ft.data.images.augment import PROCEDURES, Augmentation
from gluon_ft.engine import precision
from gluon_ft.errors import ConfigError, near
from gluon_ft.finetune import choice as choices
from gluon_ft.finetune import network, plan, sources
from gluon_ft.finetune.settings import AUTO, JobSettings
from gluon_ft.models import freezing, registry
from gluon_ft.runtime import devices


def check(wanted: JobSettings, values: dict, origins: dict) -> tuple:
    """Checks settings against each other, the machine and the registry; returns what `sources.find` does.

    wanted : the settings given, with defaults; values, origins : those given, of `settings.collect`. How many stages
    can be frozen is checked where a backbone or weights are named. Raises the errors of what it asks: ConfigError for
    settings, NetworkError and WeightsError for names, DataError for the images.
    """
    _augment(wanted.augment)
    contexts = devices.contexts(wanted.devices)
    precision.check(wanted.precision, contexts)
    strategy = network.strategy_of(wanted)
    plan.check_strategy(strategy, plan.by_steps(wanted, values), wanted)
    _network(wanted, strategy, contexts)
    train, val = sources.find(wanted)
    if val is not None and origins.get("validation") in ("key=value", "option"):
        raise ConfigError("validation images are given, so that none are drawn",
                          found=f"validation {wanted.validation}",
                          remedy="leave validation out, or the validation images")
    return train, val


def _augment(text):
    found = plan.augmentation(text)
    if isinstance(found, dict):
        Augmentation.from_dict(found)
    elif found != AUTO and found not in PROCEDURES:
        raise ConfigError(f"no augmentation '{found}'", remedy=near(found, PROCEDURES))


def _network(wanted, strategy, contexts):
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
