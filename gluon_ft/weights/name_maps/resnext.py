"""Names of ResNeXt, SE-ResNeXt and SENet-154: torchvision's and timm's -> GluonCV's."""
from __future__ import annotations

from gluon_ft.weights.name_maps.maps import NameMap

_UNITS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 154: (3, 8, 36, 3)}
# (depth, groups, width of a group) -> channels of the 3x3 convolution in the first unit
_FORMS = ((50, 32, 4), (101, 32, 4), (101, 64, 4))


def maps():
    """The maps of this family."""
    for depth, groups, width in _FORMS:
        form = f"{depth}_{groups}x{width}d"
        markers = {"layer1.0.conv2.weight": (groups * width, width, 3, 3)}
        layers = _layers(depth, stem={"conv1": "features.0", "bn1": "features.1"}, first=4)
        # torchvision has no 101_32x4d.
        for style in ("torchvision", "timm") if (depth, groups) != (101, 32) else ("timm",):
            yield NameMap(f"resnext{form}", style, f"resnext{form}", layers, "fc", markers=markers)
        yield NameMap(f"se_resnext{form}", "timm", f"seresnext{form}", {**layers, **_attention(depth, 4)}, "fc",
                      markers=markers)
    stem = {f"conv1.{i}": f"features.{i}" for i in (0, 1, 3, 4, 6)}
    yield NameMap("senet_154", "timm", "senet154",
                  {**_layers(154, {**stem, "bn1": "features.7"}, first=10), **_attention(154, 10)}, "fc")


def _layers(depth, stem, first):
    """first : number of the block here that is the first stage."""
    layers = {**stem, "fc": "output"}
    for stage, units in enumerate(_UNITS[depth]):
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
            for stage, units in enumerate(_UNITS[depth]) for unit in range(units) for i in (0, 1)}
