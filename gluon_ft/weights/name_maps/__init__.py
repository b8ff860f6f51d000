"""Maps of parameter names from PyTorch networks to Gluon networks, and the choice of the map that fits a file.

Each family of architectures has a module whose `maps()` yields a `NameMap` for every network and naming style.
"""
from __future__ import annotations

import functools

from gluon_ft.errors import WeightsError, near
from gluon_ft.weights.name_maps import classic, efficientnet_lite, mobilenet, resnet
from gluon_ft.weights.name_maps.base import NameMap


@functools.cache
def all_maps() -> dict[str, tuple[NameMap, ...]]:
    """All maps by backbone, the most usual style first."""
    table: dict[str, tuple[NameMap, ...]] = {}
    for entry in (*resnet.maps(), *classic.maps(), *mobilenet.maps(), *efficientnet_lite.maps()):
        table[entry.backbone] = (*table.get(entry.backbone, ()), entry)
    return table


def backbones() -> list[str]:
    """Names of the backbones that have a map."""
    return sorted(all_maps())


def of(backbone: str, style: str | None = None) -> tuple[NameMap, ...]:
    """The maps of a backbone, or the one in the given style.

    Raises
    ------
    WeightsError
        The backbone has no map, or none in that style.
    """
    table = all_maps()
    if backbone not in table:
        raise WeightsError(f"no PyTorch network is known that equals '{backbone}'",
                           remedy=near(backbone, table))
    found = tuple(entry for entry in table[backbone] if style in (None, entry.style))
    if not found:
        raise WeightsError(f"no '{style}' names known for '{backbone}'",
                           expected=" or ".join(entry.style for entry in table[backbone]))
    return found


def best(backbone: str, tensors: dict) -> NameMap:
    """The backbone's map that shares most modules with a state dict."""
    return max(of(backbone), key=lambda entry: entry.likeness(tensors))


def looks_like(tensors: dict) -> list[NameMap]:
    """The maps that fit a state dict completely, judged by its names and a few shapes."""
    return [entry for entries in all_maps().values() for entry in entries if entry.fits(tensors)]
