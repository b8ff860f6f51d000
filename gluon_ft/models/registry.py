"""Registry of backbones: name -> how to build it, its input, its classes."""
from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from mxnet.gluon import HybridBlock
from mxnet.gluon.model_zoo import vision

from gluon_ft.data.images.preprocessing import Preprocessing
from gluon_ft.errors import NetworkError, near
from gluon_ft.io.shapes import Shape, flag, number, whole
from gluon_ft.models import SMALL_EDGE, zoo
from gluon_ft.models.zoo.layers import GroupNorm
from gluon_ft.runtime import gluoncv_fixes, mxnet_import

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Backbone:
    """How to build a network and what it expects.

    Attributes
    ----------
    name : its name here
    zoo : 'gluon', 'gluoncv' or 'gluon_ft'
    zoo_name : its name there
    input_size : height and width that it was made for, pixels
    min_size : the smallest that it accepts, pixels
    channels : of its input, 3 or 1
    classes : of its own output
    mean, std : of the usual preprocessing, a channel each, for input in 0..1; see `usual_preprocessing`
    classes_option : what its constructor calls the number of classes, None where it is fixed
    options : of its constructor
    """

    name: str
    zoo: str
    zoo_name: str
    input_size: int = 224
    min_size: int = 32
    channels: int = 3
    classes: int = 1000
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    classes_option: str | None = "classes"
    options: dict = field(default_factory=dict)


_GLUON = """resnet18_v1 resnet34_v1 resnet50_v1 resnet101_v1 resnet152_v1
resnet18_v2 resnet34_v2 resnet50_v2 resnet101_v2 resnet152_v2 vgg11 vgg13 vgg16 vgg19 vgg11_bn vgg13_bn vgg16_bn
vgg19_bn alexnet densenet121 densenet161 densenet169 densenet201 squeezenet1.0 squeezenet1.1 inceptionv3
mobilenet1.0 mobilenet0.75 mobilenet0.5 mobilenet0.25 mobilenetv2_1.0 mobilenetv2_0.75 mobilenetv2_0.5
mobilenetv2_0.25""".split()

# Those of these that Gluon's zoo has too are called 'gluoncv/<name>'; the two implementations differ.
_GLUONCV = [*_GLUON, *"""resnet18_v1b resnet34_v1b resnet50_v1b  resnet101_v1b
resnet152_v1b resnet50_v1c resnet101_v1c resnet152_v1c resnet50_v1d resnet101_v1d resnet152_v1d resnet50_v1e
resnet101_v1e resnet152_v1e resnet50_v1s resnet101_v1s resnet152_v1s resnet18_v1b_0.89 resnet50_v1d_0.86
resnet50_v1d_0.48 resnet50_v1d_0.37 resnet50_v1d_0.11 resnet101_v1d_0.76 resnet101_v1d_0.73 resnext50_32x4d
resnext101_32x4d resnext101_64x4d resnext101e_64x4d se_resnext50_32x4d se_resnext101_32x4d se_resnext101_64x4d
se_resnext101e_64x4d senet_154 senet_154e se_resnet18_v1 se_resnet34_v1 se_resnet50_v1 se_resnet101_v1
se_resnet152_v1 se_resnet18_v2 se_resnet34_v2 se_resnet50_v2 se_resnet101_v2 se_resnet152_v2 mobilenetv3_large
mobilenetv3_small googlenet xception xception71 nasnet_4_1056 nasnet_5_1538 nasnet_6_4032 nasnet_7_1920 resnest14
resnest26 resnest50 resnest101 resnest200 resnest269 darknet53 dla34 shufflenet_v1 shufflenet_v2
hrnet_w18_small_v1_c hrnet_w18_small_v2_c hrnet_w18_c hrnet_w30_c hrnet_w32_c hrnet_w40_c hrnet_w44_c hrnet_w48_c
hrnet_w64_c residualattentionnet56 residualattentionnet92 residualattentionnet128 residualattentionnet164
residualattentionnet200 residualattentionnet236 residualattentionnet452 cifar_resnet20_v1 cifar_resnet56_v1
cifar_resnet110_v1 cifar_resnet20_v2 cifar_resnet56_v2 cifar_resnet110_v2 cifar_wideresnet16_10
cifar_wideresnet28_10 cifar_wideresnet40_8 cifar_resnext29_32x4d cifar_resnext29_16x64d cifar_residualattentionnet56
cifar_residualattentionnet92 cifar_residualattentionnet452""".split()]

# Networks whose Dense input or fixed pooling allows one size only, or needs a large one.
_SIZES = {
    "alexnet": (224, 224), "vgg": (224, 32), "densenet": (224, 224), "inceptionv3": (299, 299),
    "squeezenet": (224, 224), "googlenet": (224, 224), "residualattentionnet": (224, 224), "nasnet": (224, 96),
    "xception": (299, 96), "senet": (224, 224), "resnest101": (256, 64), "resnest200": (320, 64),
    "resnest269": (416, 64), "resnest": (224, 64), "resnext101e": (224, 64), "cifar_": (32, 32),
    "efficientnet_lite1": (240, 32), "efficientnet_lite2": (260, 32),
}
# GluonCV's CIFAR recipe normalises with the statistics of CIFAR-10.
_CIFAR_MEAN, _CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
# (x - 127) / 128 for x in 0..255, as Google's networks have it.
_LITE_MEAN, _LITE_STD = (127 / 255,) * 3, (128 / 255,) * 3
# The auxiliary classifier is a second result; fine-tuning has one.
_OPTIONS = {"nasnet": {"use_aux": False}}


@functools.cache
def registry() -> dict[str, Backbone]:
    """Every backbone by name."""
    table = {"lenet": Backbone("lenet", "gluon_ft", "lenet", 28, 28, 1, 10, (0.0,), (1.0,))}
    for depth in (50, 101):
        # GluonCV's own GroupNorm reads shapes while it runs, so that its networks cannot be hybridised or exported.
        name = f"resnet{depth}_v1b_gn"
        table[name] = replace(_entry(name, "gluoncv", f"resnet{depth}_v1b"), options={"norm_layer": GroupNorm})
    for name in [name for name in zoo.NAMES if name not in table]:
        table[name] = _entry(name, "gluon_ft", name)
    for name in _GLUON:
        table[name] = _entry(name, "gluon", name)
    for name in _GLUONCV:
        ours = f"gluoncv/{name}" if name in table else name
        table[ours] = _entry(ours, "gluoncv", name)
    return table


def _entry(name: str, zoo: str, zoo_name: str) -> Backbone:
    size, least = next((v for k, v in _SIZES.items() if zoo_name.startswith(k)), (224, 32))
    options = next((v for k, v in _OPTIONS.items() if zoo_name.startswith(k)), {})
    cifar = zoo_name.startswith("cifar_")
    if zoo == "gluon_ft" and cifar:
        # akamaster's CIFAR recipe normalises with ImageNet's statistics.
        return Backbone(name, zoo, zoo_name, size, least, 3, 10)
    if zoo_name.startswith("efficientnet_lite"):
        return Backbone(name, zoo, zoo_name, size, least, mean=_LITE_MEAN, std=_LITE_STD)
    # HRNet's constructor swallows `classes` without using it.
    classes_option = "num_classes" if zoo_name.startswith("hrnet") else "classes"
    if "_v1d_0." in zoo_name or "_v1b_0." in zoo_name:
        classes_option = None  # the pruned networks' shapes are a table
    return Backbone(name, zoo, zoo_name, size, least, 3, 10 if cifar else 1000, _CIFAR_MEAN if cifar else IMAGENET_MEAN,
                    _CIFAR_STD if cifar else IMAGENET_STD, classes_option, dict(options))


def usual_preprocessing(entry: Backbone) -> Preprocessing:
    """What a backbone's input is taken to be where its weights do not say: of its size and channels, normalised by its
    `mean` and `std`.

    The shorter edge is resized to 8/7 of the input before the centre crop (256 for 224, as usual for ImageNet); for
    networks made for small images, up to `SMALL_EDGE` pixels, to the input itself, so that CIFAR's images stay as they
    are and others fit.
    """
    size = entry.input_size
    return Preprocessing(mean=entry.mean, std=entry.std, channel_order="gray" if entry.channels == 1 else "rgb",
                         size=size, resize=size if size <= SMALL_EDGE else round(size / 0.875))


def names() -> list[str]:
    """Names of all backbones, sorted."""
    return sorted(registry())


def get(name: str) -> Backbone:
    """The entry called `name`; NetworkError with the near names where there is none."""
    table = registry()
    if name not in table:
        raise NetworkError(f"unknown backbone '{name}'", remedy=near(name, table))
    return table[name]


def build(name: str, **options) -> HybridBlock:
    """The network with its own output and no weights yet.

    Parameters
    ----------
    name : str
        One of `names()`.
    options
        Go to its constructor (`classes=10`, `norm_layer=...`).

    Raises
    ------
    NetworkError
        For an unknown name, or options that it does not take.
    """
    entry = get(name)
    options = {**entry.options, **options}
    if "classes" in options and entry.classes_option is None:
        raise NetworkError(f"backbone '{name}' is built with {entry.classes} classes only",
                           remedy="exchange its output: fine_tune_net, or replace_output")
    if "classes" in options:
        options[entry.classes_option] = options.pop("classes")
    try:
        net = _constructor(entry)(**options)
    except (TypeError, KeyError) as error:
        raise NetworkError(f"backbone '{name}' cannot be built with {options}", found=str(error)) from error
    net.backbone = entry
    return gluoncv_fixes.repair(net, name)


# What a model's card may say of how its backbone was built, with what each may be. Never where weights come from, on
# which device, or a class or function.
_PLAIN_OPTIONS: dict[str, Shape] = {
    **dict.fromkeys(("thumbnail", "last_gamma", "use_se", "use_global_stats", "deep_stem", "avg_down", "dilated"),
                    flag),
    **dict.fromkeys(("final_drop", "dropout", "dropblock_prob"), number(0, 0.999)), "stem_width": whole(1, 256),
    "bn_size": whole(1, 16), "dilation": whole(1, 4), "output_stride": whole(8, 32), "classes": whole(2, 100_000)}


def check_plain_options(name: str, options: dict[str, Any]) -> None:
    """NetworkError unless these are architecture options that the constructor of a backbone takes, of their types.

    What a card says goes through here before it reaches the constructor.
    """
    if not options:
        return
    known = {option for block in type(build(name)).__mro__ for option in inspect.signature(block.__init__).parameters}
    known = [option for option in _PLAIN_OPTIONS if option in known]
    for option, value in options.items():
        if option not in known:
            raise NetworkError(f"backbone '{name}' has no architecture option '{option[:100]}'",
                               remedy=near(option, known))
        try:
            _PLAIN_OPTIONS[option](value, option)
        except ValueError as error:
            raise NetworkError(f"backbone '{name}' cannot be built: {error}") from error


def _constructor(entry: Backbone) -> Callable[..., HybridBlock]:
    if entry.zoo == "gluon_ft":
        return functools.partial(zoo.build, entry.zoo_name)
    if entry.zoo == "gluon":
        return functools.partial(vision.get_model, entry.zoo_name, pretrained=False)
    mxnet_import.import_gluoncv()
    from gluoncv.model_zoo import get_model

    return functools.partial(get_model, entry.zoo_name, pretrained=False)


def of(net: HybridBlock) -> Backbone | None:
    """The registry's entry that `net` (or the network that it was appended to) was built from, if it was."""
    while net is not None and not hasattr(net, "backbone"):
        net = getattr(net, "features", None)
    return net.backbone if net is not None else None


def input_shape(name: str, batch: int = 1, size: int | None = None) -> tuple[int, int, int, int]:
    """Shape of the input of a backbone: (batch, channels, height, width).

    Parameters
    ----------
    name : str
        Of the backbone.
    batch : int, default 1
    size : int, optional
        Height and width, pixels; default what the backbone is made for.

    Raises
    ------
    NetworkError
        The name is unknown.
    """
    entry = get(name)
    size = size or entry.input_size
    return (batch, entry.channels, size, size)
