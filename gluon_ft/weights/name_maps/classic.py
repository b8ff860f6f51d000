"""Names of AlexNet, VGG, SqueezeNet, DenseNet and Inception v3: torchvision's and timm's -> Gluon's and GluonCV's.

torchvision's own weights of Inception v3 expect input with mean and standard deviation 0.5: its network converts from
ImageNet's (`transform_input`). timm's `gluon_in1k` expects ImageNet's.
"""
from __future__ import annotations

from collections.abc import Iterator

from gluon_ft.weights.name_maps.base import NameMap

# Convolutions of each of the five stages.
VGG = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
# Fire modules: number there -> number here.
_FIRES = {"1.0": {3: 3, 4: 4, 5: 5, 7: 7, 8: 8, 9: 9, 10: 10, 12: 12},
          "1.1": {3: 3, 4: 4, 6: 6, 7: 7, 9: 9, 10: 10, 11: 11, 12: 12}}
_FIRST = {"1.0": (96, 3, 7, 7), "1.1": (64, 3, 3, 3)}
# Layers of each of the four dense blocks.
_DENSENETS = {121: (6, 12, 24, 16), 161: (6, 12, 36, 24), 169: (6, 12, 32, 32), 201: (6, 12, 48, 32)}
# Inception v3.
_STEM = {"Conv2d_1a_3x3": 0, "Conv2d_2a_3x3": 1, "Conv2d_2b_3x3": 2, "Conv2d_3b_1x1": 4, "Conv2d_4a_3x3": 5}
# Kind of block -> for each branch its convolutions in order; the place of a branch is its place here.
_BRANCHES = {
    "A": (("branch1x1",), ("branch5x5_1", "branch5x5_2"), ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"),
          ("branch_pool",)),
    "B": (("branch3x3",), ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"), ()),
    "C": (("branch1x1",), ("branch7x7_1", "branch7x7_2", "branch7x7_3"),
          ("branch7x7dbl_1", "branch7x7dbl_2", "branch7x7dbl_3", "branch7x7dbl_4", "branch7x7dbl_5"),
          ("branch_pool",)),
    "D": (("branch3x3_1", "branch3x3_2"), ("branch7x7x3_1", "branch7x7x3_2", "branch7x7x3_3", "branch7x7x3_4"), ()),
}
# The last two blocks split two of their branches in two: place of each convolution here, within the block.
_E = {"branch1x1": "0.0", "branch3x3_1": "1.0.0", "branch3x3_2a": "1.1.0.0", "branch3x3_2b": "1.1.1.0",
      "branch3x3dbl_1": "2.0.0", "branch3x3dbl_2": "2.0.1", "branch3x3dbl_3a": "2.1.0.0",
      "branch3x3dbl_3b": "2.1.1.0", "branch_pool": "3.1"}
# Block there -> (place here, kind).
_BLOCKS = {"Mixed_5b": (7, "A"), "Mixed_5c": (8, "A"), "Mixed_5d": (9, "A"), "Mixed_6a": (10, "B"),
           "Mixed_6b": (11, "C"), "Mixed_6c": (12, "C"), "Mixed_6d": (13, "C"), "Mixed_6e": (14, "C"),
           "Mixed_7a": (15, "D"), "Mixed_7b": (16, "E"), "Mixed_7c": (17, "E")}
_DROPPED = {"AuxLogits.": "the auxiliary classifier is used in training from scratch only"}


def maps() -> Iterator[NameMap]:
    """The maps of these networks."""
    yield from _inceptions()
    yield from _plain()
    yield from _densenets()


def _plain():
    for zoo in ("", "gluoncv/"):
        for depth in VGG:
            for norm in (False, True):
                yield from _vgg(zoo, depth, norm)
        yield NameMap(f"{zoo}alexnet", "torchvision", "alexnet", {
            "features.0": "features.0", "features.3": "features.2", "features.6": "features.4",
            "features.8": "features.5", "features.10": "features.6", "classifier.1": "features.9",
            "classifier.4": "features.11", "classifier.6": "output"}, "classifier.6")
        for version in _FIRES:
            yield NameMap(f"{zoo}squeezenet{version}", "torchvision", "squeezenet" + version.replace(".", "_"),
                          _squeezenet(version), "classifier.1", markers={"features.0.weight": _FIRST[version]})


def _vgg(zoo, depth, norm):
    name = f"vgg{depth}{'_bn' if norm else ''}"
    features, place = {}, 0
    for count in VGG[depth]:
        for _ in range(count):
            features[f"features.{place}"] = f"features.{place}"
            if norm:
                features[f"features.{place + 1}"] = f"features.{place + 1}"
            place += 3 if norm else 2
        place += 1
    # torchvision begins a new list after the last pooling; here the list goes on: dense, dropout, dense, dropout.
    dense = (f"features.{place}", f"features.{place + 2}", "output")
    yield NameMap(f"{zoo}{name}", "torchvision", name,
                  {**features, **dict(zip(("classifier.0", "classifier.3", "classifier.6"), dense))}, "classifier.6")
    # timm has the first two as convolutions, 7x7 and 1x1.
    yield NameMap(f"{zoo}{name}", "timm", name,
                  {**features, **dict(zip(("pre_logits.fc1", "pre_logits.fc2", "head.fc"), dense))}, "head.fc",
                  weight_shapes={"pre_logits.fc1": (-1, 512, 7, 7), "pre_logits.fc2": (-1, 4096, 1, 1)})


def _squeezenet(version):
    layers = {"features.0": "features.0", "classifier.1": "output.0"}
    for there, here in _FIRES[version].items():
        layers.update({f"features.{there}.squeeze": f"features.{here}.0.0",
                       f"features.{there}.expand1x1": f"features.{here}.1.0.0",
                       f"features.{there}.expand3x3": f"features.{here}.1.1.0"})
    return layers


def _densenets():
    for zoo in ("", "gluoncv/"):
        for depth in _DENSENETS:
            for style in ("torchvision", "timm"):
                yield NameMap(f"{zoo}densenet{depth}", style, f"densenet{depth}", _densenet(depth), "classifier")


def _densenet(depth):
    layers = {"features.conv0": "features.0", "features.norm0": "features.1", "classifier": "output"}
    for stage, count in enumerate(_DENSENETS[depth]):
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


def _inceptions():
    for backbone in ("inceptionv3", "gluoncv/inceptionv3"):
        for style in ("torchvision", "timm"):
            yield NameMap(backbone, style, "inception_v3", _inception(), "fc", dropped=_DROPPED)


def _inception():
    places = {there: f"features.{here}" for there, here in _STEM.items()}
    for block, (place, kind) in _BLOCKS.items():
        inside = _E if kind == "E" else _inside(_BRANCHES[kind])
        places.update({f"{block}.{there}": f"features.{place}.{here}" for there, here in inside.items()})
    layers = {"fc": "output"}
    for there, here in places.items():
        layers.update({f"{there}.conv": f"{here}.0", f"{there}.bn": f"{here}.1"})
    return layers


def _inside(branches):
    places = {}
    for branch, convolutions in enumerate(branches):
        for i, name in enumerate(convolutions):
            # A pooling without parameters comes first in its branch.
            places[name] = f"{branch}.{i + 1 if name == 'branch_pool' else i}"
    return places
