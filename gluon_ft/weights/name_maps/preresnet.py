"""Names of pre-activation ResNets: imgclsmob's Gluon networks -> Gluon's and GluonCV's v2.

imgclsmob's `preresnet50b` and deeper ones with a 'b' stride in the 3x3 convolution, as Gluon's v2 do; those without
stride in the first 1x1 convolution and have the same names and shapes: do not load them here.
"""
from __future__ import annotations

import numpy as np

from gluon_ft.weights.name_maps.maps import Inserted, NameMap
from gluon_ft.weights.name_maps.resnet import DEPTHS

_OWN = {name: name for name in ("gamma", "beta", "running_mean", "running_var")}
_EPSILON = 1e-5


def maps():
    """The maps of this family."""
    for depth in DEPTHS:
        for zoo in ("", "gluoncv/"):
            yield NameMap(f"{zoo}resnet{depth}_v2", "imgclsmob", f"preresnet{depth}{'b' if depth >= 50 else ''}",
                          _layers(depth), "output.1", inserted=(_input_norm(),), batchnorm=_OWN)


def _layers(depth):
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
