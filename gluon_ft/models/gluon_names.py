"""Gluon's own names in parameter files: paths in the network, or the older joined-up names of its parameters."""
from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from mxnet.gluon import HybridBlock

from gluon_ft.errors import printable
from gluon_ft.models import registry, tracing
from gluon_ft.runtime.gluon_internals import parameters_by_path

_MOST_OF_OUTPUT = 4  # parameters of an output layer, and what has a weight beside it
_FEWEST_WITH_BATCHNORM = 50  # tensors of a network in the registry
_WITHOUT_BATCHNORM = ("lenet", "alexnet", "vgg", "squeezenet")
# Of a BatchNorm, which PyTorch calls weight and bias.
_MARKS = ("gamma", "beta", "moving_mean", "moving_var")
# GluonCV's that are tried, beside Gluon's and ours; all of them would take half a minute.
_GLUONCV = ("resnet", "resnext", "se_resne", "mobilenetv3", "gluoncv/", "cifar_resnet", "darknet", "xception")


@dataclass(frozen=True)
class Likeness:
    """The network that a file of Gluon's parameters belongs to.

    backbone : its name, None where no network here has these names; features_only : whether the output layer is
    missing; inner : whether the file was saved from `net.features`; words : what the file is, for an error.
    """

    backbone: str | None
    features_only: bool
    inner: bool
    words: str

    def remedy(self, backbone: str) -> str:
        """What to do with the file for somebody who wants `backbone`."""
        if self.backbone is None:
            return ("load it with net.load_parameters of the network that it was saved from, or a symbol's checkpoint "
                    "with gluon_ft.symbolic.load_checkpoint")
        if self.backbone != backbone:
            return f"give --backbone {self.backbone}, or a file of {backbone}"
        if self.inner:
            return "load it with net.features.load_parameters"
        return "leave the output out (--without-output; fine_tune_net makes a new one), or give the whole file"


def by_path(tensors: dict[str, np.ndarray], net: HybridBlock) -> dict[str, np.ndarray] | None:
    """The tensors by path in `net`, or None where their names are not Gluon's.

    Names may be paths ('features.0.weight', of `save_parameters`) or parameter names with or without the network's
    prefix ('resnetv10_conv0_weight', of `export` and of `save_parameters` before MXNet 1.2). Names that are not
    known are kept as they are.
    """
    own = parameters_by_path(net)
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


def looks_like(tensors: dict[str, np.ndarray]) -> Likeness | None:
    """What network of the registry a file with Gluon's names is of, by names and shapes; None for other names."""
    marked = [name for name in tensors if name.endswith(_MARKS)]
    for name in _candidates(bool(marked), len(tensors)):
        net = registry.build(name)
        own = parameters_by_path(net)
        if not 0 <= len(own) - len(tensors) <= max(_MOST_OF_OUTPUT, sum(not p.startswith("features.") for p in own)):
            continue
        for inner, renamed in _forms(tensors, net):
            found = _compared(name, net, own, renamed, inner)
            if found is not None:
                return found
    return Likeness(None, False, False, f"Gluon's names, of a network that is not known here ({printable(marked[0])}, "
                                        f"{len(tensors)} parameters)") if marked else None


def _candidates(marked: bool, count: int) -> Iterator[str]:
    """Names of networks to build and compare; few, where BatchNorm's own names or the number of tensors say so."""
    table = registry.registry()
    if not marked or count < _FEWEST_WITH_BATCHNORM:
        yield from (name for name in table if not marked and name.startswith(_WITHOUT_BATCHNORM))
        return
    for zoo in ("gluon", "gluon_ft", "gluoncv"):
        yield from (name for name, entry in table.items() if entry.zoo == zoo and (
            zoo != "gluoncv" or name.startswith(_GLUONCV)))


def _forms(tensors, net):
    """(whether saved from `net.features`, tensors by path in the network) of each way to read the names."""
    renamed = by_path(tensors, net)
    if renamed is not None:
        yield False, renamed
    if all(name.split(".")[0].isdigit() for name in tensors):
        yield True, {f"features.{name}": array for name, array in tensors.items()}


def _compared(name, net, own, renamed, inner) -> Likeness | None:
    if not set(renamed) <= set(own):
        return None
    odd = [path for path, p in own.items() if path not in renamed or not _fits(p.shape, renamed[path].shape)]
    output = f"{tracing.output_layer(net).path}." if odd else ""
    if not all(path.startswith(output) for path in odd):
        return None
    missing = [path for path in own if path not in renamed]
    if not missing:
        return Likeness(name, False, False, f"what looks like {name}" + (" with another output" if odd else ""))
    what = f"features only: what looks like {name} without its output ({missing[0]} is missing)"
    return Likeness(name, True, inner, f"{what}, saved from net.features" if inner else what)


def _fits(shape, other) -> bool:
    """0 stands for an extent that is not known before a network has run."""
    return len(shape or ()) == len(other) and all(a in (0, -1, b) for a, b in zip(shape, other))


def _shared_prefix(names: Iterable[str]) -> str:
    """What all names begin with, up to an underscore: 'resnetv10_'."""
    first, last = min(names), max(names)
    length = next((i for i, (a, b) in enumerate(zip(first, last)) if a != b), min(len(first), len(last)))
    return first[:first.rfind("_", 0, length) + 1]


def _mostly(names: Collection[str], own: Collection[str]) -> bool:
    return 2 * sum(name in own for name in names) >= len(names)
