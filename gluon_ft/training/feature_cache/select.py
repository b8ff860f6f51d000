"""What `fit` runs in each phase: the whole network on images, or its trainable part on cached frozen features."""
from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from gluon_ft.errors import ConfigError
from gluon_ft.models import tracing
from gluon_ft.runtime import devices
from gluon_ft.training.config import TrainConfig
from gluon_ft.training.feature_cache import features
from gluon_ft.training.feature_cache import store as features_store
from gluon_ft.training.feature_cache.cut import cut, obstacle

if TYPE_CHECKING:
    import mxnet as mx
    from mxnet.gluon import HybridBlock


class Running(NamedTuple):
    """What `fit` runs.

    Attributes
    ----------
    net : HybridBlock
        The network, or a part of it with the same Parameters.
    train, val : loaders
        Of what `net` takes; `val` may be None.
    """

    net: HybridBlock
    train: Any
    val: Any


def select(net: HybridBlock, train: Any, val: Any, config: TrainConfig, contexts: list[mx.Context]) -> Running:
    """Decides by `config.cache_features` what `fit` runs: the network on images, or its trainable part on features.

    Where stages are unfrozen in the course of the training, a phase without a frozen part runs on images.

    Parameters
    ----------
    net : HybridBlock
        As it is frozen now.
    train, val : loaders
        As `prepare` takes them; `val` may be None.
    config : TrainConfig
    contexts : list of mx.Context
        Devices that compute the features.

    Returns
    -------
    Running

    Raises
    ------
    ConfigError
        Caching was asked for and is not possible, as of `prepare`.
    """
    if config.cache_features == "none" or (config.in_phases and cut(net) is None):
        return Running(net, train, val)
    return prepare(net, train, val, config, views=config.views, store=config.cache_features, ctx=contexts)


def check(net: HybridBlock, config: TrainConfig) -> None:
    """Raises ConfigError where `select` would: caching was asked for, and mixing or the network does not allow it."""
    if config.cache_features != "none":
        _refuse_mixing(config)
        if not config.in_phases:
            _parts(net)


def _refuse_mixing(config):
    if config.mixup or config.cutmix:
        raise ConfigError("kept features cannot be mixed as images are", expected="mixup=0 and cutmix=0",
                          found=f"mixup={config.mixup:g}, cutmix={config.cutmix:g}", remedy="train on images, or "
                                                                                            "without mixing")


def _parts(net):
    """The frozen part of the network and the rest; ConfigError where there is no frozen part."""
    parts = cut(net)
    if parts is None:
        raise ConfigError("no part of the network can be computed once and kept",
                          expected="its first layers frozen, BatchNorm included, and no dropout among them",
                          found=obstacle(net),
                          remedy="freeze them (gluon_ft.freeze, freeze_stages), or train on images")
    return parts


def prepare(net: HybridBlock, train: Any, val: Any = None, config: TrainConfig | None = None, *, views: int = 0,
            store: str | os.PathLike = "memory", ctx: list[mx.Context] | None = None,
            limit_bytes: int = features_store.MEMORY_BYTES, disk_bytes: int = features_store.DISK_BYTES) -> Running:
    """Runs the images through the frozen part of a network once; the rest is then trained on its features.

        trainable, train_features, val_features = prepare(net, train, val)
        fit(trainable, train_features, val_features, config)

    ends with the same parameters of `net`, to rounding, as fit(net, train, val, config) with `train.views` set to the
    same number of views, in a fraction of the time. It is what `config.cache_features` does.

    The features are those of a training step, to the last bit, unless the output layer alone is trained from beginning
    to end: training more than that amplifies roundings, as it does any other difference; training one layer, which is
    convex, does not.

    Parameters
    ----------
    net : HybridBlock
        As it will be trained: what is frozen now stays so, and its Parameters are those that are trained.
    train, val : of `loaders.make_loader` (engines 'threads' and 'dataset'), or ArrayLoader
    config : TrainConfig, default TrainConfig()
        Of the training, to refuse at once what mixes images.
    views, store, ctx, disk_bytes : see `features.cached`
    limit_bytes : int
        Of memory, for both sets together.

    Raises
    ------
    ConfigError
        Where no part can be computed beforehand, with the first thing in the network that is trained or random; for
        mixup and cutmix; and as `features.cached`, whose other errors are raised as well.
    """
    config = config or TrainConfig()
    _refuse_mixing(config)
    parts = _parts(net)
    options = {"exact": config.in_phases or not _only_output_trained(net), "precision": config.precision,
               "store": store, "ctx": ctx or devices.of(net), "disk_bytes": disk_bytes}
    trained = features.cached(train, parts, views=views, limit_bytes=limit_bytes, title="training features", **options)
    validated = None if val is None else features.cached(
        val, parts, limit_bytes=max(0, limit_bytes - trained.bytes_in_memory), title="validation features", **options)
    return Running(parts.suffix, trained, validated)


def _only_output_trained(net):
    output = {parameter.name for parameter in tracing.output_layer(net).block.collect_params().values()}
    return all(name in output for name, parameter in net.collect_params().items() if parameter.grad_req != "null")
