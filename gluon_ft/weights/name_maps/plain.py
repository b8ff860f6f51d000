"""Names of VGG, AlexNet and SqueezeNet: torchvision's and timm's -> Gluon's and GluonCV's."""
from __future__ import annotations

from gluon_ft.weights.name_maps.maps import NameMap

# Convolutions of each of the five stages.
VGG = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
# Fire modules: number there -> number here.
_FIRES = {"1.0": {3: 3, 4: 4, 5: 5, 7: 7, 8: 8, 9: 9, 10: 10, 12: 12},
          "1.1": {3: 3, 4: 4, 6: 6, 7: 7, 9: 9, 10: 10, 11: 11, 12: 12}}
_FIRST = {"1.0": (96, 3, 7, 7), "1.1": (64, 3, 3, 3)}


def maps():
    """The maps of this family."""
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
