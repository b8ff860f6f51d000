"""What a command's --backbone and --pretrained mean together."""
from __future__ import annotations

from pathlib import Path

from gluon_ft.errors import ConfigError
from gluon_ft.models import pretrained as weights
from gluon_ft.models import registry


def choose(backbone: str | None, pretrained: str | None, default: str) -> tuple[str, str | bool]:
    """(backbone, pretrained) as `fine_tune_net` takes them.

    Parameters
    ----------
    backbone : a name of the registry, or None
    pretrained : a tag of the catalog or a file for that backbone, 'BACKBONE:TAG', or None for the preferred weights
    default : the backbone where neither names one

    Raises NetworkError for an unknown backbone, ConfigError where two are named, WeightsError where there are no such
    weights. Nothing is fetched.
    """
    backbone, pretrained = parted(backbone, pretrained)
    backbone = backbone or default
    registry.get(backbone)
    weights.resolve(backbone, pretrained or True)
    return backbone, pretrained or True


def parted(backbone: str | None, weights: str | None) -> tuple[str | None, str | None]:
    """(backbone, weights), with 'BACKBONE:TAG' taken apart; ConfigError where it is the tag of another backbone."""
    if not weights or ":" not in weights or Path(weights).is_file():
        return backbone, weights
    named, _, tag = weights.partition(":")
    if backbone not in (None, named):
        raise ConfigError("two backbones", found=f"{backbone} and {named}", remedy="give one")
    return named, tag
