"""Names of Inception v3: torchvision's, which timm has too, -> Gluon's and GluonCV's.

torchvision's own weights expect input with mean and standard deviation 0.5: its network converts from ImageNet's
(`transform_input`). timm's `gluon_in1k` expects ImageNet's.
"""
from __future__ import annotations

from gluon_ft.weights.name_maps.maps import NameMap

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


def maps():
    """The maps of this family."""
    for backbone in ("inceptionv3", "gluoncv/inceptionv3"):
        for style in ("torchvision", "timm"):
            yield NameMap(backbone, style, "inception_v3", _layers(), "fc", dropped=_DROPPED)


def _layers():
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
