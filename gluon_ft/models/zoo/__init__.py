"""Our own networks, which neither Gluon's nor GluonCV's zoo has: one architecture a file."""
from __future__ import annotations

import functools
import importlib
from typing import Any

from mxnet.gluon import HybridBlock

# Name -> (module here, what makes the network, the arguments that make it this one).
_ARCHITECTURES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "lenet": ("lenet", "LeNet", {}),
    "mobilenetv2_1.0_bias": ("mobilenet", "mobilenet_v2_bias", {}),
    **{f"cifar_resnet{6 * units + 2}_relu": ("cifar_resnet", "CIFARResNet", {"units": units})
       for units in (3, 5, 7, 9)},
    **{f"efficientnet_lite{number}": ("efficientnet_lite", "EfficientNetLite", {"number": number})
       for number in (0, 1, 2)},
}
NAMES = tuple(_ARCHITECTURES)


def build(name: str, **options: Any) -> HybridBlock:
    """The network called `name`, one of `NAMES`, without weights; `options` go to its constructor (`classes=10`)."""
    module, attribute, own = _ARCHITECTURES[name]
    make = functools.partial(getattr(importlib.import_module(f"{__name__}.{module}"), attribute), **own)
    return make(**options)
