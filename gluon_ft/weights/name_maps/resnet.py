"""Names of ResNets, ResNeXts and SENets: torchvision's, timm's, akamaster's and imgclsmob's -> Gluon's and GluonCV's.

Of torchvision and timm: GluonCV's v1b, v1c, v1d, v1s and Gluon's v1; ResNeXt, SE-ResNeXt and SENet-154. Of akamaster:
the networks for CIFAR. Of imgclsmob, whose networks are Gluon's own: v2. Its `preresnet50b` and deeper ones with a 'b'
stride in the 3x3 convolution, as Gluon's v2 do; those without stride in the first 1x1 convolution and have the same
names and shapes: do not load them here.
"""
from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gluon_ft.weights.name_maps.base import Inserted, NameMap

DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
# Units of each of the three stages.
CIFAR_UNITS = {20: 3, 32: 5, 44: 7, 56: 9}
# The width of the first convolution tells v1c, v1d (32) and v1s (64) apart; the middle one of a unit, ResNeXt.
_PLAIN_UNIT = {"layer1.0.conv2.weight": (64, 64, 3, 3)}
_NEXT_UNITS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 154: (3, 8, 36, 3)}
# (depth, groups, width of a group) -> channels of the 3x3 convolution in the first unit
_FORMS = ((50, 32, 4), (101, 32, 4), (101, 64, 4))
_OWN = {name: name for name in ("gamma", "beta", "running_mean", "running_var")}
_EPSILON = 1e-5


def maps() -> Iterator[NameMap]:
    """The maps of these networks."""
    yield from _resnets()
    yield from _resnexts()
    yield from _v2()


def _resnets():
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


def v1b_layers(depth: int, deep_stem: bool = False, pooled: bool = False) -> dict[str, str]:
    """Modules of a torchvision or timm ResNet; GluonCV's v1b and its relatives have the same names.

    Parameters
    ----------
    depth : {18, 34, 50, 101, 152}
    deep_stem : bool, default False
        Three 3x3 convolutions in the place of the first one.
    pooled : bool, default False
        The shortcut begins with an average pooling, which counts in its numbering.

    Returns
    -------
    dict of str to str
        Name there -> name here, both the same.
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


def basic_unit(there: str, here: str) -> dict[str, str]:
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


def padding_kernel(channels: int, in_channels: int) -> np.ndarray:
    """Weight of the 1x1 convolution that passes `in_channels` on as the middle ones of `channels`, float32."""
    kernel = np.zeros((channels, in_channels, 1, 1), "float32")
    before = (channels - in_channels) // 2
    kernel[np.arange(in_channels) + before, np.arange(in_channels)] = 1
    return kernel


def _resnexts():
    for depth, groups, width in _FORMS:
        form = f"{depth}_{groups}x{width}d"
        markers = {"layer1.0.conv2.weight": (groups * width, width, 3, 3)}
        layers = _next_layers(depth, stem={"conv1": "features.0", "bn1": "features.1"}, first=4)
        # torchvision has no 101_32x4d.
        for style in ("torchvision", "timm") if (depth, groups) != (101, 32) else ("timm",):
            yield NameMap(f"resnext{form}", style, f"resnext{form}", layers, "fc", markers=markers)
        yield NameMap(f"se_resnext{form}", "timm", f"seresnext{form}", {**layers, **_attention(depth, 4)}, "fc",
                      markers=markers)
    stem = {f"conv1.{i}": f"features.{i}" for i in (0, 1, 3, 4, 6)}
    yield NameMap("senet_154", "timm", "senet154",
                  {**_next_layers(154, {**stem, "bn1": "features.7"}, first=10), **_attention(154, 10)}, "fc")


def _next_layers(depth, stem, first):
    """first : number of the block here that is the first stage."""
    layers = {**stem, "fc": "output"}
    for stage, units in enumerate(_NEXT_UNITS[depth]):
        for unit in range(units):
            there, here = f"layer{stage + 1}.{unit}", f"features.{first + stage}.{unit}"
            for i in range(3):
                layers[f"{there}.conv{i + 1}"] = f"{here}.body.{3 * i}"
                layers[f"{there}.bn{i + 1}"] = f"{here}.body.{3 * i + 1}"
        there, here = f"layer{stage + 1}.0.downsample", f"features.{first + stage}.0.downsample"
        layers.update({f"{there}.0": f"{here}.0", f"{there}.1": f"{here}.1"})
    return layers


def _attention(depth, first):
    """The two 1x1 convolutions of every squeeze-and-excitation."""
    return {f"layer{stage + 1}.{unit}.se.fc{i + 1}": f"features.{first + stage}.{unit}.se.{2 * i}"
            for stage, units in enumerate(_NEXT_UNITS[depth]) for unit in range(units) for i in (0, 1)}


def _v2():
    for depth in DEPTHS:
        for zoo in ("", "gluoncv/"):
            yield NameMap(f"{zoo}resnet{depth}_v2", "imgclsmob", f"preresnet{depth}{'b' if depth >= 50 else ''}",
                          _v2_layers(depth), "output.1", inserted=(_input_norm(),), batchnorm=_OWN)


def _v2_layers(depth):
    layers = {"features.0.conv": "features.1", "features.0.bn": "features.2", "features.5.bn": "features.9",
              "output.1": "output"}
    for stage, units in enumerate(DEPTHS[depth]):
        there, here = f"features.{stage + 1}", f"features.{stage + 5}"
        for unit in range(units):
            for i in range(1, 4 if depth >= 50 else 3):
                layers.update({f"{there}.{unit}.body.conv{i}.{part}": f"{here}.{unit}.{part}{i}"
                               for part in ("bn", "conv")})
        if stage or depth >= 50:
            layers[f"{there}.0.identity_conv"] = f"{here}.0.downsample"
    return layers


def _input_norm():
    """Gluon's v2 begins with a BatchNorm of the image, which imgclsmob's networks do not have."""
    values = {"features.0.gamma": 1.0, "features.0.beta": 0.0, "features.0.running_mean": 0.0,
              "features.0.running_var": 1.0 - _EPSILON}
    return Inserted(tuple(values),
                    lambda _, shapes: {path: np.full(shapes[path], value, "float32") for path, value in
                                       values.items()},
                    lambda found: all(np.allclose(found[path], value, rtol=0, atol=1e-7)
                                      for path, value in values.items()),
                    "a BatchNorm of the input that changes nothing")
