"""BatchNorm in converted weights: another epsilon, and statistics that were folded away."""
from __future__ import annotations

import numpy as np
from mxnet.gluon import Block, nn

from gluon_ft.models import tracing

FOLDED_NOTE = ("BatchNorm is folded (gamma 1, mean 0, variance 1): use these weights for inference or with BatchNorm "
               "frozen; in training mode they are useless until its statistics are re-estimated")


def batchnorm_is_folded(net: Block) -> bool:
    """Whether every BatchNorm has gamma 1, mean 0 and variance 1 (less epsilon), though the network is trained.

    Such weights are right in inference; in training mode batches are normalised to something that the network was not
    trained with. True also of a network fresh from its initialiser, which is not trained. False without BatchNorm.
    """
    layers = [block for _, block in tracing.blocks(net) if isinstance(block, nn.BatchNorm)]
    return bool(layers) and all(_is_identity(layer) for layer in layers)


def _is_identity(layer) -> bool:
    if layer.running_mean._data is None:
        return False
    gamma, mean, variance = (p.data(p.list_ctx()[0]).asnumpy()
                             for p in (layer.gamma, layer.running_mean, layer.running_var))
    scale = gamma / np.sqrt(variance + layer._kwargs["eps"])
    return bool(np.allclose(gamma, 1, atol=1e-4) and np.allclose(mean, 0, atol=1e-6)
                and np.allclose(scale, 1, atol=2e-4))


def refer_to_epsilon(params: dict[str, np.ndarray], net: Block, epsilon: float) -> None:
    """Changes BatchNorm parameters (path -> array) made for `epsilon` so that the network's own epsilon gives the same.

    The variance is shifted by the difference; where that would be negative, gamma is scaled instead. Exact in
    inference.
    """
    for path, block in tracing.blocks(net):
        key = f"{path}.running_var"
        if not isinstance(block, nn.BatchNorm) or key not in params:
            continue
        own = block._kwargs["eps"]
        shifted = params[key].astype("float64") + epsilon - own
        if shifted.min() >= 0:
            params[key] = shifted.astype("float32")
        else:
            scale = np.sqrt((params[key] + own) / (params[key] + np.float64(epsilon)))
            params[f"{path}.gamma"] = (params[f"{path}.gamma"] * scale).astype("float32")
