"""Names of EfficientNet-Lite 0, 1 and 2: those of the package efficientnet-lite-pytorch (ML Illustrated on GitHub).

They are the names of lukemelas/EfficientNet-PyTorch, from which that package was made. timm names the same networks
(`tf_efficientnet_lite*`) otherwise; its `efficientnet_lite*` are others, padded evenly.
"""
from __future__ import annotations

from collections.abc import Iterator

from gluon_ft.weights.name_maps.base import NameMap

# Units in each of the seven stages, by the network's number.
UNITS = ((1, 2, 2, 3, 3, 4, 1), (1, 3, 3, 4, 4, 5, 1), (1, 3, 3, 4, 4, 5, 1))
# Channels before the last convolution: all that tells 1 and 2 apart by shape.
_LAST = (320, 320, 352)
_EXPANSION = ("_expand_conv", "_bn0", None)
_REST = ("_depthwise_conv", "_bn1", None, "_project_conv", "_bn2")


def maps() -> Iterator[NameMap]:
    """The maps of this family."""
    for number, units in enumerate(UNITS):
        yield NameMap(f"efficientnet_lite{number}", "ml-illustrated", f"efficientnet-lite{number}", _layers(units),
                      "_fc", markers={"_conv_head.weight": (1280, _LAST[number], 1, 1)})


def _layers(units):
    layers = {"_conv_stem": "features.0", "_bn0": "features.1", "_conv_head": "features.10", "_bn1": "features.11",
              "_fc": "output"}
    places = [(stage, unit) for stage, count in enumerate(units) for unit in range(count)]
    for number, (stage, unit) in enumerate(places):
        modules = _REST if stage == 0 else _EXPANSION + _REST
        layers.update({f"_blocks.{number}.{name}": f"features.{stage + 3}.{unit}.body.{place}"
                       for place, name in enumerate(modules) if name})
    return layers
