"""The network of a job: built, filled with weights, given its output, frozen as the strategy says."""
from __future__ import annotations

import warnings
from dataclasses import replace

import mxnet as mx

from gluon_ft.data.images.preprocessing import Preprocessing
from gluon_ft.errors import ConfigError, DownloadError, NetworkError
from gluon_ft.finetune import choice as choices
from gluon_ft.finetune.advice import ON_FEATURES
from gluon_ft.finetune.settings import AUTO, JobSettings
from gluon_ft.models import freezing, heads, registry, tracing
from gluon_ft.models.spec import ModelSpec
from gluon_ft.runtime import devices, seeds
from gluon_ft.training.metrics import first


def build(choice: ModelSpec, classes: list[str], contexts: list[mx.Context] | None, seed: int | None,
          size: int | None) -> tuple[mx.gluon.HybridBlock, list[str]]:
    """The network of a job, with a new output, `classes` and `preprocessing`; nothing is frozen yet.

    Parameters
    ----------
    choice : ModelSpec
    classes : list of str
        Names, in the new output's order.
    contexts : list of mx.Context, default the CPU
    seed : int or None
        Of the new output's weights; None draws on from the generators as they are.
    size : int or None
        Of the input, pixels; None for the network's own.

    Returns
    -------
    (network, notes)
        The notes are what was warned of on the way.

    Raises
    ------
    WeightsError
        Where the weights cannot be had; it names those at hand.
    NetworkError
        For a size that the network cannot take.
    """
    if seed is not None:
        seeds.seed_all(seed)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            net = heads.fine_tune_net(choice, len(classes), ctx=contexts)
        except DownloadError as error:
            raise choices.unobtainable(error, choice) from error
    net.classes = list(classes)
    net.preprocessing = input_of(net, size)
    if not takes(net, net.preprocessing.size):
        raise NetworkError(f"{choice.backbone} cannot take images of {size} pixels",
                           expected=f"{registry.get(choice.backbone).input_size}",
                           remedy="another --size or --backbone")
    return net, [str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)]


def _run(net: mx.gluon.HybridBlock, size: int) -> None:
    """Runs an image of that size; networks without weights get their shapes and first values by that."""
    image = mx.nd.zeros((1, net.preprocessing.channels, size, size), ctx=devices.of(net)[0])
    first(net(image)).wait_to_read()


def takes(net: mx.gluon.HybridBlock, size: int) -> bool:
    """Whether the network takes images of `size` pixels: some have an output for one size only."""
    if size < _entry(net).min_size:
        return False
    try:
        _run(net, size)
    except mx.MXNetError:
        return False
    return True


def weights_of(net: mx.gluon.HybridBlock) -> dict[str, str] | None:
    """{source, sha256} of the weights that a network was filled with, None where they are random."""
    about = getattr(net, "weights", None)
    return None if about is None else {"source": about.source, "sha256": about.source_sha256 or about.sha256}


def apply(net: mx.gluon.HybridBlock, settings: JobSettings) -> None:
    """Freezes what resolved JobSettings say, and sets the output's learning rate and dropout.

    Raises ConfigError for a number of stages that the network has not.
    """
    net.preprocessing = replace(input_of(net, settings.size), mirror=bool(settings.mirror))
    tracing.output_layer(net).block.collect_params().setattr("lr_mult", settings.head_lr_mult)
    if settings.dropout:
        heads.set_dropout(net, settings.dropout)
    if settings.batchnorm == freezing.FROZEN:
        freezing.set_batchnorm(net, freezing.FROZEN)
    freeze(net, settings.freeze)


def input_of(net: mx.gluon.HybridBlock, size: int | None) -> Preprocessing:
    """What the network takes: its weights' own preprocessing, or its backbone's usual one; `size` in place of theirs.

    Images are always resized: some weights for small images say no resize, which is meant for CIFAR's 32 pixels.
    """
    known = getattr(net, "preprocessing", None) or registry.usual_preprocessing(_entry(net))
    if size is not None and size != known.size:
        known = known.with_size(size)
    return known if known.resize is not None else replace(known, resize=known.size)


def _entry(net: mx.gluon.HybridBlock) -> registry.Backbone:
    entry = registry.of(net)
    if entry is None:
        raise NetworkError(f"{type(net).__name__} is not from the registry", expected="a network of fine_tune_net")
    return entry


def freeze(net: mx.gluon.HybridBlock, what: str) -> None:
    """'none', 'features' (everything but the output) or a number of stages from the input on."""
    if what == "features":
        freezing.freeze(net)
        freezing.unfreeze(tracing.output_layer(net).block)
    elif what != "none":
        freezing.freeze_stages(net, int(what))


def strategy_of(settings: JobSettings) -> str | None:
    """The strategy that the settings imply, None where they leave it open. ConfigError where they contradict it."""
    wanted, freeze_ = settings.strategy, settings.freeze
    implied = None if freeze_ == AUTO else {"none": "everything", "features": "head"}.get(freeze_, "last-stages")
    if settings.pretrained == choices.NONE and wanted in (*ON_FEATURES, "head", "last-stages"):
        raise ConfigError(f"strategy '{wanted}' builds on weights", found="pretrained none",
                          remedy="give weights, or --strategy scratch")
    if wanted == AUTO:
        return "scratch" if settings.pretrained == choices.NONE else implied
    also = {"scratch": "none", **dict.fromkeys(ON_FEATURES, "features")}
    if implied not in (None, wanted) and also.get(wanted) != freeze_:
        raise ConfigError(f"strategy '{wanted}' and freeze '{freeze_}' contradict each other", remedy="leave one out")
    return wanted


def describe(net: mx.gluon.HybridBlock) -> str:
    """'12,345 of 2,236,682 numbers are trained', for people."""
    table = freezing.describe(net)
    total = table.trained + table.frozen
    return f"{table.trained:,} of {total:,} numbers are trained"
