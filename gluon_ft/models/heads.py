"""Replaces or appends a network's output block, and builds a network ready to be fine-tuned."""
from __future__ import annotations

import warnings

import mxnet as mx
from mxnet.gluon import Block, HybridBlock, nn

from gluon_ft.errors import ConfigError, NetworkError
from gluon_ft.models import HEAD_LR_MULT as LR_MULT
from gluon_ft.models import freezing, registry, tracing
from gluon_ft.models import pretrained as weights
from gluon_ft.models.batchnorm import batchnorm_is_folded


class Appended(HybridBlock):
    """A source network with one more Dense layer on top of its result.

    `features` is the source network, whole and with its own output; the new layer is an attribute with the given
    name, so that it is found in parameter files as `<name>.weight` and `<name>.bias`.
    """

    def __init__(self, source, classes, name, **kwargs):
        super().__init__(**kwargs)
        self.output_name = name
        with self.name_scope():
            self.features = source
            setattr(self, name, nn.Dense(classes, in_units=_known_classes(source), prefix=f"{name}_"))

    def hybrid_forward(self, F, x):
        return getattr(self, self.output_name)(self.features(x))


def replace_output(net: Block, classes: int, lr_mult: float = LR_MULT, init=None, output: str | None = None) -> Block:
    """Puts a new output layer for `classes` classes in the place of the network's own, in place.

    The new layer is of the old one's kind (Dense, or a 1x1 convolution as in SqueezeNet and MobileNetV2), with the
    same input size, bias, name and hybridisation, so that the network equals one built with `classes` from the
    start: `export`, `save_parameters` and `load_parameters` round-trip, and replacing again leaves one output.

    Parameters
    ----------
    net : HybridBlock
        Any classifier; a network whose output is not the last thing it does is refused.
    classes : int
        At least 2.
    lr_mult : float, default 10
        Learning-rate multiplier of the new layer's parameters.
    init : mx.init.Initializer, default Xavier()
        Of the new weights; biases start at 0. Not applied to a network that is not initialised yet.
    output : str, optional
        Path of the layer, such as 'output.0', where it cannot be found by itself.

    Returns
    -------
    net
        The same network.

    Raises
    ------
    ConfigError for `classes` below 2; NetworkError, with the candidates, where there is no such output.
    """
    _check_classes(classes)
    found = tracing.output_at(net, output) if output else tracing.output_layer(net)
    new = _like(found.block, classes)
    new.hybridize(found.block._active, **dict(found.block._flags))
    new.collect_params().setattr("lr_mult", lr_mult)
    for parent, key in found.parents:
        _exchange(parent, key, found.block, new)
    _initialise(net, new, init)
    tracing.forget_graphs(net)
    return net


def append_output(net: HybridBlock, classes: int, name: str = "output", lr_mult: float = LR_MULT,
                  init=None) -> Appended:
    """A network that puts a new Dense layer **on top of** the result of `net`, which keeps its own output.

    Parameters as in `replace_output`; `name` is the new layer's attribute and parameter name (such as
    'ip2_odd_even'). Raises NetworkError where the name is taken (the layer was appended already).
    """
    _check_classes(classes)
    if not name.isidentifier():
        raise ConfigError(f"'{name}' cannot be a layer's name", expected="letters, digits and underscores")
    if name in ("features", "output_name") or (isinstance(net, Appended) and name in net._children):
        raise NetworkError(f"the network has a part named '{name}' already",
                           remedy="choose another name, or use replace_output to exchange it")
    tracing.symbol(net)
    new = Appended(net, classes, name, prefix="")
    layer = getattr(new, name)
    layer.collect_params().setattr("lr_mult", lr_mult)
    _initialise(net, layer, init)
    if net._active:
        new.hybridize(True, **dict(net._flags))
    return new


def fine_tune_net(backbone: str, classes: int, pretrained=False, lr_mult: float = LR_MULT, ctx=None, init=None,
                  **options) -> HybridBlock:
    """A network from the registry with a new output for `classes` classes, initialised and hybridised.

    Parameters
    ----------
    backbone : str
        A name of `gluon_ft.backbones.names()`, such as 'resnet18_v2' or 'gluoncv/resnet50_v1'.
    classes : int
        At least 2.
    pretrained : False, True, a tag of the catalog such as 'gluon_in1k', or a path
        False: random weights (Xavier). True: the catalog's preferred weights of this backbone. A path: a file with
        weights of the backbone, Gluon's or PyTorch's (see `weights.readers.tensor_files.read_tensors`). The network
        then has the attributes `preprocessing` and `weights`. Where BatchNorm is folded in the weights, so that it
        could not be trained, it is frozen, with a warning.
    lr_mult, init
        As in `replace_output`.
    ctx : mx.Context or list of them, default mx.cpu()
    options
        Go to the backbone's constructor.

    Raises
    ------
    NetworkError for an unknown backbone (with the near names), WeightsError for weights that do not fit,
    DownloadError where they cannot be had.
    """
    _check_classes(classes)
    net = registry.build(backbone, **options)
    if pretrained is False or pretrained is None:
        net.initialize(init or mx.init.Xavier(), ctx=ctx or mx.cpu())
    else:
        weights.load(net, backbone, pretrained, ctx=ctx, init=init)
        if batchnorm_is_folded(net):
            freezing.set_batchnorm(net, freezing.FROZEN)
            warnings.warn(f"the weights of {backbone} have their BatchNorm folded: it is useless in training mode and "
                          "has been frozen", stacklevel=2)
    replace_output(net, classes, lr_mult=lr_mult, init=init)
    net.hybridize()
    return net


def _check_classes(classes):
    if isinstance(classes, bool) or not isinstance(classes, int) or classes < 2:
        raise ConfigError("a classifier needs at least two classes", expected="classes >= 2", found=repr(classes))


def _known_classes(source) -> int:
    return tracing.output_layer(source).classes


def _like(old, classes):
    """A layer of the same kind, input size, bias, data type and name as `old`, with `classes` units or channels."""
    bias = old.bias is not None
    if hasattr(old, "_units"):
        new = nn.Dense(classes, use_bias=bias, flatten=old._flatten, dtype=old.weight.dtype,
                       in_units=old.weight.shape[1], prefix=old.prefix)
    else:
        geometry = old._kwargs
        channels_last = geometry["layout"].endswith("C")
        new = type(old)(classes, geometry["kernel"], geometry["stride"], geometry["pad"], geometry["dilate"],
                        geometry["num_group"], geometry["layout"], use_bias=bias,
                        in_channels=old.weight.shape[-1 if channels_last else 1] * geometry["num_group"],
                        prefix=old.prefix)
        new.cast(old.weight.dtype)
    if old.act is not None:
        new.act = old.act
    return new


def _exchange(parent, key, old, new):
    names = [name for name, value in vars(parent).items() if value is old]
    for name in names:
        setattr(parent, name, new)
    parent._children[key] = new


def _initialise(net, new, init):
    """Initialises the new layer where the network's other parameters are, if they are anywhere yet."""
    fresh = {p.name for p in new.collect_params().values()}
    contexts = next((_contexts(p) for p in net.collect_params().values() if p.name not in fresh and _contexts(p)), None)
    if contexts:
        new.initialize(init or mx.init.Xavier(), ctx=contexts, force_reinit=True)


def _contexts(parameter):
    if parameter._data is not None:
        return parameter.list_ctx()
    return parameter._deferred_init[1] if parameter._deferred_init else None
