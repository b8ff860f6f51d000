"""What is run in each phase of a training: the whole network on images, or its free part on kept features."""
from __future__ import annotations

from typing import NamedTuple

from gluon_ft.errors import ConfigError
from gluon_ft.training.config import TrainConfig
from gluon_ft.training.feature_cache import features
from gluon_ft.training.feature_cache.cut import cut


class Arrangement(NamedTuple):
    """net : the network or a part of it, with the same Parameters; train, val : loaders of what it takes."""

    net: object
    train: object
    val: object


def arrange(net, train, val, config: TrainConfig, contexts) -> Arrangement:
    """As `config.cache_features` says; where stages are set free later on, an unfrozen phase runs on images.

    Raises ConfigError where nothing can be kept, as `features.prepare`.
    """
    if config.cache_features == "none" or (config.in_phases and cut(net) is None):
        return Arrangement(net, train, val)
    return Arrangement(*features.prepare(net, train, val, config, views=config.views, store=config.cache_features,
                                         ctx=contexts))


def tell_loader(train, config: TrainConfig) -> None:
    """Sets how the loader draws, where the configuration says; ConfigError where it cannot."""
    for wanted, attribute, value in ((config.balance == "sampling", "balanced", True),
                                     (config.views > 0, "views", config.views)):
        if wanted:
            if not hasattr(train, attribute):
                raise ConfigError(f"{'balance sampling' if attribute == 'balanced' else 'views'} needs a loader that "
                                  "can", found=type(train).__name__, remedy="use gluon_ft.loaders.make_loader")
            setattr(train, attribute, value)
