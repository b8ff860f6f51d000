"""Names of ResNets: torchvision's and timm's -> GluonCV's v1b, v1c, v1d, v1s and Gluon's v1; akamaster's for CIFAR."""
from __future__ import annotations

import numpy as np

from gluon_ft.weights.name_maps.maps import Inserted, NameMap

DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
# Units of each of the three stages.
CIFAR_UNITS = {20: 3, 32: 5, 44: 7, 56: 9}
# The width of the first convolution tells v1c, v1d (32) and v1s (64) apart; the middle one of a unit, ResNeXt.
_PLAIN_UNIT = {"layer1.0.conv2.weight": (64, 64, 3, 3)}


def maps():
    """The maps of this family."""
    for depth in DEPTHS:
        for style in ("torchvision", "timm"):
            yield NameMap(f"resnet{depth}_v1b", style, f"resnet{depth}", v1b_layers(depth), "fc", markers=_PLAIN_UNIT)
    for depth in (50, 101, 152):
        for letter, width in (("c", 32), ("d", 32), ("s", 64)):
            yield NameMap(f"resnet{depth}_v1{letter}", "timm", f"resnet{depth}{letter}",
                          v1b_layers(depth, deep_stem=True, pooled=letter == "d"), "fc",
                          markers={**_PLAIN_UNIT, "conv1.0.weight": (width, 3, 3, 3)})
    for depth in (18, 34):
        # The deeper ones of Gluon's own v1 stride in the first 1x1 convolution, and have biases there.
        for zoo in ("", "gluoncv/"):
            for style in ("torchvision", "timm"):
                yield NameMap(f"{zoo}resnet{depth}_v1", style, f"resnet{depth}", _v1_layers(depth), "fc",
                              markers=_PLAIN_UNIT)
    for depth, units in CIFAR_UNITS.items():
        yield NameMap(f"cifar_resnet{depth}_relu", "akamaster", f"resnet{depth}", _cifar_layers(units), "linear",
                      inserted=(_padded_shortcuts(),), markers={"conv1.weight": (16, 3, 3, 3)})


def v1b_layers(depth, deep_stem=False, pooled=False):
    """Modules of a torchvision or timm ResNet; GluonCV's v1b and its relatives have the same names.

    deep_stem : three 3x3 convolutions; pooled : the shortcut begins with an average pooling, which counts.
    """
    stem = ("conv1.0", "conv1.1", "conv1.3", "conv1.4", "conv1.6", "bn1") if deep_stem else ("conv1", "bn1")
    bottleneck = depth >= 50
    names = [*stem, "fc"]
    for stage, units in enumerate(DEPTHS[depth], 1):
        for unit in range(units):
            names += [f"layer{stage}.{unit}.{part}{i}" for i in range(1, 4 if bottleneck else 3)
                      for part in ("conv", "bn")]
        if bottleneck or stage > 1:
            names += [f"layer{stage}.0.downsample.{i}" for i in ((1, 2) if pooled else (0, 1))]
    return {name: name for name in names}


def _v1_layers(depth):
    layers = {"conv1": "features.0", "bn1": "features.1", "fc": "output"}
    for stage, units in enumerate(DEPTHS[depth], 1):
        for unit in range(units):
            layers.update(basic_unit(f"layer{stage}.{unit}", f"features.{stage + 3}.{unit}"))
        if stage > 1:
            layers.update({f"layer{stage}.0.downsample.{i}": f"features.{stage + 3}.0.downsample.{i}" for i in (0, 1)})
    return layers


def basic_unit(there, here):
    """A unit of two 3x3 convolutions: named there, numbered here."""
    return {f"{there}.conv1": f"{here}.body.0", f"{there}.bn1": f"{here}.body.1",
            f"{there}.conv2": f"{here}.body.3", f"{there}.bn2": f"{here}.body.4"}


def _cifar_layers(units):
    layers = {"conv1": "features.0", "bn1": "features.1", "linear": "output"}
    for stage in (1, 2, 3):
        for unit in range(units):
            layers.update(basic_unit(f"layer{stage}.{unit}", f"features.{stage + 2}.{unit}"))
    return layers


def _padded_shortcuts():
    """The 'option A' shortcuts (He et al., 2015): there slices and zeros without parameters, here convolutions."""
    paths = tuple(f"features.{stage}.0.shortcut.kernel" for stage in (4, 5))
    return Inserted(paths, lambda _, shapes: {path: padding_kernel(*shapes[path][:2]) for path in paths},
                    lambda found: all(np.array_equal(found[path], padding_kernel(*found[path].shape[:2]))
                                      for path in paths),
                    "a shortcut that copies every second pixel and pads the channels with zeros")


def padding_kernel(channels, in_channels):
    """Weight of the 1x1 convolution that passes `in_channels` on as the middle ones of `channels`, float32."""
    kernel = np.zeros((channels, in_channels, 1, 1), "float32")
    before = (channels - in_channels) // 2
    kernel[np.arange(in_channels) + before, np.arange(in_channels)] = 1
    return kernel
