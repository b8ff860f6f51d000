"""What a command's --backbone and --pretrained mean together."""
from __future__ import annotations

from pathlib import Path

from gluon_ft import backbones
from gluon_ft.errors import ConfigError
from gluon_ft.weights import pretrained as weights


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
    if pretrained and ":" in pretrained and not Path(pretrained).is_file():
        named, _, pretrained = pretrained.partition(":")
        if backbone not in (None, named):
            raise ConfigError("two backbones", found=f"{backbone} and {named}", remedy="give one")
        backbone = named
    backbone = backbone or default
    backbones.get(backbone)
    weights.resolve(backbone, pretrained or True)
    return backbone, pretrained or True
