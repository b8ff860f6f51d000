"""Names of MobileNetV2 (width 1.0): torchvision's and timm's -> Gluon's and GluonCV's.

Two differences are bridged. Both zoos' output has no bias: `mobilenetv2_1.0_bias` is GluonCV's network with one. And
Gluon's (not GluonCV's) first unit has a 1x1 'expansion' by the factor 1, which the others leave out: it gets the
identity.
"""
from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from gluon_ft.weights.name_maps.base import Inserted, NameMap

_EPSILON = 1e-5
# Units with the same number of channels, in timm's numbering.
_GROUPS = (1, 2, 3, 4, 3, 3, 1)


def maps() -> Iterator[NameMap]:
    """The maps of this family."""
    for backbone, expanded in (("mobilenetv2_1.0_bias", False), ("gluoncv/mobilenetv2_1.0", False),
                               ("mobilenetv2_1.0", True)):
        inserted = (_identity(),) if expanded else ()
        yield NameMap(backbone, "torchvision", "mobilenet_v2", _torchvision(expanded), "classifier.1",
                      weight_shapes={"classifier.1": (-1, 1280)}, inserted=inserted)
        yield NameMap(backbone, "timm", "mobilenetv2_100", _timm(expanded), "classifier",
                      weight_shapes={"classifier": (-1, 1280)}, inserted=inserted)


def _torchvision(expanded):
    layers = {"features.0.0": "features.0", "features.0.1": "features.1", "features.18.0": "features.20",
              "features.18.1": "features.21", "classifier.1": "output.0"}
    for unit in range(17):
        there = ("conv.0.0", "conv.0.1", "conv.1", "conv.2") if unit == 0 else (
            "conv.0.0", "conv.0.1", "conv.1.0", "conv.1.1", "conv.2", "conv.3")
        layers.update(_unit(f"features.{unit + 1}", there, unit, expanded))
    return layers


def _timm(expanded):
    layers = {"conv_stem": "features.0", "bn1": "features.1", "conv_head": "features.20", "bn2": "features.21",
              "classifier": "output.0"}
    places = [(group, i) for group, count in enumerate(_GROUPS) for i in range(count)]
    for unit, (group, i) in enumerate(places):
        there = ("conv_dw", "bn1", "conv_pw", "bn2") if unit == 0 else (
            "conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3")
        layers.update(_unit(f"blocks.{group}.{i}", there, unit, expanded))
    return layers


def _unit(there, modules, unit, expanded):
    """Convolutions and norms in turn, an activation after each pair; the first unit may have one pair more here."""
    first = 3 if unit == 0 and expanded else 0
    places = [first + 3 * pair + part for pair in range(len(modules) // 2) for part in (0, 1)]
    return {f"{there}.{name}": f"features.{unit + 3}.out.{place}" for name, place in zip(modules, places)}


def _identity():
    paths = ("features.3.out.0.weight", *(f"features.3.out.1.{name}" for name in (
        "gamma", "beta", "running_mean", "running_var")))

    def make(mapped, shapes):
        # What comes in has been through a BatchNorm and a ReLU6. Its mean and variance follow from that norm's beta
        # and gamma; with them as statistics this norm is the identity in inference and nearly so in training too,
        # which gamma 1 and mean 0 would not be.
        mean, variance = relu6_moments(mapped["features.1.beta"], mapped["features.1.gamma"])
        values = (np.eye(shapes[paths[0]][0])[:, :, None, None], np.sqrt(variance + _EPSILON), mean, mean, variance)
        return {path: np.asarray(value, "float32") for path, value in zip(paths, values)}

    def holds(found):
        weight, gamma, beta, mean, variance = (found[path].astype("float64") for path in paths)
        return (np.array_equal(weight[:, :, 0, 0], np.eye(len(weight))) and np.allclose(
            gamma, np.sqrt(variance + _EPSILON), rtol=1e-5) and np.allclose(beta, mean, rtol=0, atol=1e-6))

    return Inserted(paths, make, holds, "an expansion by the factor 1")


def relu6_moments(mean: np.ndarray, deviation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of min(max(x, 0), 6) for x normal with the given means and standard deviations (arrays)."""
    mean, deviation = np.asarray(mean, "float64"), np.maximum(np.abs(np.asarray(deviation, "float64")), 1e-12)
    low, high = (0 - mean) / deviation, (6 - mean) / deviation
    below = np.vectorize(lambda x: 0.5 * math.erfc(-x / math.sqrt(2)))
    density = lambda x: np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)  # noqa: E731
    inside, over = below(high) - below(low), 1 - below(high)
    edge = density(low) - density(high)
    first = mean * inside + deviation * edge + 6 * over
    second = ((mean ** 2 + deviation ** 2) * inside + 2 * mean * deviation * edge
              + deviation ** 2 * (low * density(low) - high * density(high)) + 36 * over)
    return first, np.maximum(second - first ** 2, 0)
