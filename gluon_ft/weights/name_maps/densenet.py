"""Names of DenseNet: torchvision's, which timm has too, -> Gluon's and GluonCV's."""
from __future__ import annotations

from gluon_ft.weights.name_maps.maps import NameMap

_LAYERS = {121: (6, 12, 24, 16), 161: (6, 12, 36, 24), 169: (6, 12, 32, 32), 201: (6, 12, 48, 32)}


def maps():
    """The maps of this family."""
    for zoo in ("", "gluoncv/"):
        for depth in _LAYERS:
            for style in ("torchvision", "timm"):
                yield NameMap(f"{zoo}densenet{depth}", style, f"densenet{depth}", _layers(depth), "classifier")


def _layers(depth):
    layers = {"features.conv0": "features.0", "features.norm0": "features.1", "classifier": "output"}
    for stage, count in enumerate(_LAYERS[depth]):
        # Here blocks and transitions alternate after convolution, norm, activation and pooling.
        place = 4 + 2 * stage
        for layer in range(count):
            there = f"features.denseblock{stage + 1}.denselayer{layer + 1}"
            # In each layer here the first branch passes its input on.
            here = f"features.{place}.{layer}.1"
            layers.update({f"{there}.norm1": f"{here}.0", f"{there}.conv1": f"{here}.2",
                           f"{there}.norm2": f"{here}.3", f"{there}.conv2": f"{here}.5"})
        if stage < 3:
            there, here = f"features.transition{stage + 1}", f"features.{place + 1}"
            layers.update({f"{there}.norm": f"{here}.0", f"{there}.conv": f"{here}.2"})
    layers["features.norm5"] = f"features.{4 + 2 * 3 + 1}"
    return layers
