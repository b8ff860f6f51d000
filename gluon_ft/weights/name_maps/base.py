"""`NameMap`: the modules of one PyTorch network, and the Gluon blocks that equal them.

'There' is the other framework's network, usually PyTorch's; 'here' is the Gluon network.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

# Names of BatchNorm's parameters there -> here; other layers' parameters have the same names.
TORCH_BATCHNORM = {"weight": "gamma", "bias": "beta", "running_mean": "running_mean", "running_var": "running_var"}
COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class Inserted:
    """Blocks here without a counterpart there: they get parameters with which they change nothing.

    Parameters
    ----------
    paths : tuple of str
        Paths of their parameters.
    make : callable(mapped, shapes) -> dict
        Makes the parameters (path -> array) from those already mapped (path -> array) and the wanted shapes (path ->
        shape).
    holds : callable(parameters) -> bool
        Whether such parameters (path -> array) still change nothing, so that the network can be converted back.
    why : str
        The reason, for messages.
    """

    paths: tuple[str, ...]
    make: Callable[[dict, dict], dict[str, np.ndarray]]
    holds: Callable[[dict], bool]
    why: str


@dataclass(frozen=True)
class NameMap:
    """One network there, and the backbone here that equals it.

    Parameters
    ----------
    backbone : str
        The name here.
    style : str
        The package whose names it maps: 'torchvision', 'timm', 'akamaster', 'imgclsmob' or 'ml-illustrated'.
    model : str
        The network's name there.
    layers : dict
        Module there -> block here.
    output : str
        The output layer there.
    weight_shapes : dict
        Module there -> shape there, for weights that are matrices there and convolutions here, or the reverse; -1
        stands for the number of rows.
    dropped : dict
        Prefix of names that are left out -> the reason.
    inserted : tuple of Inserted
        Blocks here that have no counterpart there.
    markers : dict
        Name -> shape of some weights, to tell networks with the same names apart; -1 stands for any number of rows.
    batchnorm : dict
        Names of a BatchNorm's parameters, there -> here.
    """

    backbone: str
    style: str
    model: str
    layers: dict[str, str]
    output: str
    weight_shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    inserted: tuple[Inserted, ...] = ()
    markers: dict[str, tuple[int, ...]] = field(default_factory=dict)
    batchnorm: dict[str, str] = field(default_factory=lambda: dict(TORCH_BATCHNORM))

    def fits(self, tensors: dict) -> bool:
        """Whether a state dict has exactly the mapped modules, besides dropped names, and the markers' shapes."""
        found = {name.rpartition(".")[0] for name in tensors if not self.reason_to_drop(name)}
        if any(name.endswith(".gamma") for name in tensors) != ("gamma" in self.batchnorm):
            return False
        return found == set(self.layers) and all(
            name in tensors and tensors[name].shape[1:] == shape[1:] and shape[0] in (-1, tensors[name].shape[0])
            for name, shape in self.markers.items())

    def likeness(self, tensors: dict) -> float:
        """The share of modules that the map and a state dict have in common, 0 to 1."""
        found = {name.rpartition(".")[0] for name in tensors}
        return len(found & set(self.layers)) / max(len(found | set(self.layers)), 1)

    def reason_to_drop(self, name: str) -> str | None:
        """Why a parameter there is left out here; None where it must be mapped."""
        if name.endswith("." + COUNTER):
            return "counts batches, which MXNet's BatchNorm does not"
        return next((reason for start, reason in self.dropped.items() if name.startswith(start)), None)
