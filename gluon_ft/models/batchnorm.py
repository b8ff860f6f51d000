"""BatchNorm: whether its statistics move or are held, weights in which it is folded, and another epsilon."""
from __future__ import annotations

import warnings

import numpy as np
from mxnet.gluon import Block, SymbolBlock, nn

from gluon_ft.errors import ConfigError, NetworkError
from gluon_ft.models import tracing
from gluon_ft.runtime.gluon_internals import array_of, hyperparameters, is_initialised, own_parameters

FROZEN, TRAINED = "frozen", "train"
FOLDED_NOTE = ("BatchNorm is folded (gamma 1, mean 0, variance 1): use these weights for inference or with BatchNorm "
               "frozen; in training mode they are useless until its statistics are re-estimated")


def set_batchnorm(net: Block, mode: str) -> Block:
    """Sets how every BatchNorm of a network or block works in training, in place, and returns the network.

    mode : 'frozen': it normalises by its running statistics and leaves them alone; 'train': as the network was built.
    Raises ConfigError for another mode, NetworkError for a SymbolBlock with BatchNorm that is to be frozen.
    """
    set_modes(net, mode)
    tracing.forget_graphs(net)
    return net


def set_modes(net: Block, mode: str) -> None:
    """`set_batchnorm`, but networks that have run go on as before until `tracing.forget_graphs` is called."""
    if mode not in (FROZEN, TRAINED):
        raise ConfigError(f"unknown BatchNorm mode '{mode}'", expected="'frozen' or 'train'")
    for path, block in tracing.blocks(net):
        if has_statistics(block):
            set_mode(block, mode)
        elif isinstance(block, SymbolBlock) and mode == FROZEN and any(
                name.endswith(("moving_mean", "running_mean")) for name in block.params):
            raise NetworkError(f"'{path or type(block).__name__}' is a SymbolBlock with BatchNorm, whose mode is fixed "
                               "in its graph", remedy="freeze the network before it is exported, or build it from the "
                                                      "registry and load the parameters")


def set_mode(block: Block, mode: str) -> None:
    """Sets the mode of one BatchNorm layer; see `set_modes`."""
    settings = hyperparameters(block)
    # What the block was built with comes back with 'train': some networks are made with fixed statistics.
    if not hasattr(block, "_built_with_global_stats"):
        block._built_with_global_stats = settings["use_global_stats"]
    settings["use_global_stats"] = True if mode == FROZEN else block._built_with_global_stats


def has_statistics(block: Block) -> bool:
    """Whether a block keeps running statistics: BatchNorm, and what derives from it."""
    return isinstance(block, nn.BatchNorm) or hasattr(block, "running_mean")


def statistics_are_held(block: Block) -> bool:
    """Whether a BatchNorm layer normalises by its running statistics in training too, and so leaves them alone."""
    return hyperparameters(block)["use_global_stats"]


def freeze_folded(net: Block, what: str) -> None:
    """Freezes BatchNorm where it is folded into the weights, and warns of that; `what` begins the warning."""
    if batchnorm_is_folded(net):
        set_batchnorm(net, FROZEN)
        warnings.warn(f"{what} have their BatchNorm folded: it is useless in training mode and has been frozen",
                      stacklevel=3)


def batchnorm_is_folded(net: Block) -> bool:
    """Whether every BatchNorm has gamma 1, mean 0 and variance 1 (less epsilon): it was folded into other weights.

    Such weights are right in inference; in training mode batches would be normalised, which the trained network never
    saw. A network fresh from its initialiser gives True as well, one without BatchNorm False.
    """
    layers = [block for _, block in tracing.blocks(net) if isinstance(block, nn.BatchNorm)]
    return bool(layers) and all(_is_identity(layer) for layer in layers)


def _is_identity(layer: nn.BatchNorm) -> bool:
    own = own_parameters(layer)
    if not is_initialised(own["running_mean"]):
        return False
    gamma, mean, variance = (array_of(own[name]) for name in ("gamma", "running_mean", "running_var"))
    scale = gamma / np.sqrt(variance + hyperparameters(layer)["eps"])
    return bool(np.allclose(gamma, 1, atol=1e-4) and np.allclose(mean, 0, atol=1e-6)
                and np.allclose(scale, 1, atol=2e-4))


def refer_to_epsilon(params: dict[str, np.ndarray], net: Block, epsilon: float) -> None:
    """Changes BatchNorm parameters made for another epsilon so that the network computes the same with its own.

    The variance is shifted by the difference; where that would be negative, gamma is scaled instead. Exact in
    inference.

    Parameters
    ----------
    params : dict of str to float32 ndarray
        By path in the network ('features.1.running_var'); changed in place.
    net : Block
        Its BatchNorm layers have the epsilon that will be used.
    epsilon : float
        That `params` were made for.
    """
    for path, block in tracing.blocks(net):
        key = f"{path}.running_var"
        if not isinstance(block, nn.BatchNorm) or key not in params:
            continue
        own = hyperparameters(block)["eps"]
        shifted = params[key].astype("float64") + epsilon - own
        if shifted.min() >= 0:
            params[key] = shifted.astype("float32")
        else:
            scale = np.sqrt((params[key] + own) / (params[key] + np.float64(epsilon)))
            params[f"{path}.gamma"] = (params[f"{path}.gamma"] * scale).astype("float32")
