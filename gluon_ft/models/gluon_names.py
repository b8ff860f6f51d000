"""Gluon's own names in parameter files: paths in the network, or the older joined-up names of its parameters."""
from __future__ import annotations

import numpy as np
from mxnet.gluon import HybridBlock

from gluon_ft.models import tracing
from gluon_ft.weights.name_maps.base import TORCH_BATCHNORM, NameMap


def by_path(tensors: dict[str, np.ndarray], net: HybridBlock) -> dict[str, np.ndarray] | None:
    """The tensors by path in `net`, or None where their names are not Gluon's.

    Names may be paths ('features.0.weight', of `save_parameters`) or parameter names with or without the network's
    prefix ('resnetv10_conv0_weight', of `export` and of `save_parameters` before MXNet 1.2). Names that are not
    known are kept as they are.
    """
    own = net._collect_params_with_prefix()
    if _mostly(tensors, own):
        return tensors
    if any("." in name for name in tensors):
        return None
    prefix = _shared_prefix(tensors)
    paths = {p.name[len(net.prefix):]: path for path, p in own.items()}
    for start in ("", prefix):
        renamed = {paths.get(name[len(start):], name): array for name, array in tensors.items()}
        if _mostly(renamed, own):
            return renamed
    return None


def likeness(tensors: dict[str, np.ndarray], net: HybridBlock) -> float:
    """Share of names that a file and a network have in common, 0 to 1."""
    own = set(net._collect_params_with_prefix())
    return len(own & set(tensors)) / len(own | set(tensors))


def own_map(net: HybridBlock, backbone: str) -> NameMap:
    """The map of a network's own names onto themselves."""
    layers = {path.rpartition(".")[0]: path.rpartition(".")[0] for path in net._collect_params_with_prefix()}
    return NameMap(backbone, "gluon", backbone, layers, tracing.output_layer(net).path,
                   batchnorm={name: name for name in TORCH_BATCHNORM.values()})


def _shared_prefix(names) -> str:
    """What all names begin with, up to an underscore: 'resnetv10_'."""
    first, last = min(names), max(names)
    length = next((i for i, (a, b) in enumerate(zip(first, last)) if a != b), min(len(first), len(last)))
    return first[:first.rfind("_", 0, length) + 1]


def _mostly(names, own) -> bool:
    return 2 * sum(name in own for name in names) >= len(names)
