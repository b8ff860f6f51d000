"""Class names of pretrained weights: the lists that the catalog refers to, and the index of a name in them."""
from __future__ import annotations

import functools

from gluon_ft.data.sources.class_names import normal
from gluon_ft.errors import NetworkError, near
from gluon_ft.runtime import mxnet_import

CIFAR_10 = "airplane automobile bird cat deer dog frog horse ship truck".split()


@functools.cache
def _imagenet() -> tuple[list[str], list[str], list[str]]:
    """(names, WordNet ids, long names) of ImageNet-1k's classes in the usual order, from GluonCV."""
    mxnet_import.import_gluoncv()
    from gluoncv.data import ImageNet1kAttr

    attributes = ImageNet1kAttr()
    return list(attributes.classes), list(attributes.synset), list(attributes.classes_long)


def named(list_name: str) -> list[str] | None:
    """The class names of a list in the catalog, in the output's order; None where they are not known.

    Known are 'imagenet-1k' (1,000 names, of which 'crane' and 'maillot' stand for two classes each) and 'cifar-10'.
    """
    if list_name == "imagenet-1k":
        return list(_imagenet()[0])
    return list(CIFAR_10) if list_name == "cifar-10" else None


def index(classes: list[str], name: str) -> int:
    """The index of a class in the output, by its name; for ImageNet-1k also by its WordNet id or long name.

    Raises
    ------
    NetworkError
        There is no such name (similar ones are given), or it stands for two classes.
    """
    places = [i for i, known in enumerate(classes) if normal(known) == normal(name)]
    if not places and len(classes) == 1000 and list(classes) == _imagenet()[0]:
        places = [i for known in _imagenet()[1:] for i, other in enumerate(known) if other == name]
    if not places:
        raise NetworkError(f"the network has no class '{name}'", remedy=near(name, classes))
    if len(places) > 1:
        ids = [f"{i} ({_imagenet()[1][i]})" if len(classes) == 1000 else str(i) for i in places]
        raise NetworkError(f"class '{name}' is there {len(places)} times", found=", ".join(ids),
                           remedy="give the WordNet id")
    return places[0]
