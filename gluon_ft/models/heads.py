"""A network's output: replaced or appended to, its dropout and bias, and a network ready to be fine-tuned."""
from __future__ import annotations

import os
import types

import mxnet as mx
from mxnet.gluon import Block, HybridBlock, nn
from mxnet.gluon.contrib.nn import Identity

from gluon_ft.errors import ConfigError, NetworkError
from gluon_ft.models import HEAD_LR_MULT as LR_MULT
from gluon_ft.models import pretrained as weights
from gluon_ft.models import registry, tracing
from gluon_ft.models.batchnorm import freeze_folded
from gluon_ft.models.graph import Graph
from gluon_ft.models.spec import ModelSpec, resolve
from gluon_ft.runtime import gluon_internals
from gluon_ft.weights.catalog import Row

# What may follow the output layer of a linear classifier: means and reshapes of its values.
_LINEAR = {"Flatten", "Reshape", "mean", "squeeze", "identity", "_copy", "Dropout", "_contrib_AdaptiveAvgPooling2D",
           "slice_axis", "transpose", "amp_cast", "Cast"}


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


def replace_output(net: Block, classes: int, lr_mult: float = LR_MULT, init: mx.init.Initializer | None = None,
                   output: str | None = None) -> Block:
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
        The same network, whose `classes` are not known any more.

    Raises
    ------
    ConfigError
        For `classes` below 2.
    NetworkError
        Where there is no such output, with the candidates.
    """
    _check_classes(classes)
    found = tracing.output_at(net, output) if output else tracing.output_layer(net)
    new = _like(found.block, classes)
    new.hybridize(gluon_internals.is_hybridised(found.block), **gluon_internals.hybridise_flags(found.block))
    new.collect_params().setattr("lr_mult", lr_mult)
    for parent, key in found.parents:
        gluon_internals.exchange_child(parent, key, new)
    _initialise(net, new, init)
    if isinstance(getattr(net, "classes", None), (list, tuple)):
        # They were those of the old output.
        net.classes = None
    if getattr(net, "temperature", None) is not None:
        net.temperature = None
    tracing.forget_graphs(net)
    return net


def append_output(net: HybridBlock, classes: int, name: str = "output", lr_mult: float = LR_MULT,
                  init: mx.init.Initializer | None = None) -> Appended:
    """A network that puts a new Dense layer **on top of** the result of `net`, which keeps its own output.

    Parameters
    ----------
    net, classes, lr_mult, init
        As in `replace_output`.
    name : str, default 'output'
        The new layer's attribute and parameter name, such as 'ip2_odd_even'.

    Returns
    -------
    Appended
        `net` itself is its `features`.

    Raises
    ------
    ConfigError
        For `classes` below 2, or a name that is not one.
    NetworkError
        Where the name is taken (the layer was appended already).
    """
    _check_classes(classes)
    if not name.isidentifier():
        raise ConfigError(f"'{name}' cannot be a layer's name", expected="letters, digits and underscores")
    if name in ("features", "output_name") or (isinstance(net, Appended) and name in gluon_internals.children(net)):
        raise NetworkError(f"the network has a part named '{name}' already",
                           remedy="choose another name, or use replace_output to exchange it")
    tracing.symbol(net)
    new = Appended(net, classes, name, prefix="")
    layer = getattr(new, name)
    layer.collect_params().setattr("lr_mult", lr_mult)
    _initialise(net, layer, init)
    if gluon_internals.is_hybridised(net):
        new.hybridize(True, **gluon_internals.hybridise_flags(net))
    return new


def fine_tune_net(backbone: str | ModelSpec, classes: int,
                  pretrained: bool | str | os.PathLike[str] | Row | None = False, lr_mult: float = LR_MULT,
                  ctx: mx.Context | list[mx.Context] | None = None, init: mx.init.Initializer | None = None,
                  **options) -> HybridBlock:
    """A network from the registry with a new output for `classes` classes, initialised and hybridised.

    Parameters
    ----------
    backbone : str or ModelSpec
        A name of `gluon_ft.backbones.names()`, such as 'resnet18_v2' or 'gluoncv/resnet50_v1'. A ModelSpec says what
        the weights are, and `pretrained` is left out.
    classes : int
        At least 2.
    pretrained : False, True, a tag of the catalog such as 'gluon_in1k', 'BACKBONE:TAG', or a path
        False: random weights (Xavier). True: the catalog's preferred weights of this backbone. A path: a file with
        weights of the backbone, Gluon's or PyTorch's (see `weights.readers.tensor_files.read_tensors`). The network
        then has the attributes `preprocessing` and `weights`. Where BatchNorm is folded in the weights, so that it
        could not be trained, it is frozen, with a warning.
    lr_mult, init
        As in `replace_output`.
    ctx : mx.Context or list of them, default mx.cpu()
    options
        Go to the backbone's constructor.

    Returns
    -------
    HybridBlock

    Raises
    ------
    NetworkError
        For an unknown backbone, with the near names.
    WeightsError
        For weights that do not fit.
    DownloadError
        Where the weights cannot be had.
    """
    _check_classes(classes)
    name = backbone.backbone if isinstance(backbone, ModelSpec) else backbone
    net = registry.build(name, **options)
    wanted = resolve(backbone, pretrained)
    if wanted.weights is None:
        net.initialize(init or mx.init.Xavier(), ctx=ctx or mx.cpu())
    else:
        weights.load(net, wanted, ctx=ctx, init=init)
        freeze_folded(net, f"the weights of {name}")
    replace_output(net, classes, lr_mult=lr_mult, init=init)
    net.hybridize()
    return net


def _check_classes(classes: int) -> None:
    if isinstance(classes, bool) or not isinstance(classes, int) or classes < 2:
        raise ConfigError("a classifier needs at least two classes", expected="classes >= 2", found=repr(classes))


def _known_classes(source: Block) -> int:
    return tracing.output_layer(source).classes


def _like(old: HybridBlock, classes: int) -> HybridBlock:
    """A layer of the same kind, input size, bias, data type and name as `old`, with `classes` units or channels."""
    bias = old.bias is not None
    if gluon_internals.is_dense(old):
        new = nn.Dense(classes, use_bias=bias, flatten=gluon_internals.flattens(old), dtype=old.weight.dtype,
                       in_units=old.weight.shape[1], prefix=old.prefix)
    else:
        geometry = gluon_internals.hyperparameters(old)
        channels_last = geometry["layout"].endswith("C")
        new = type(old)(classes, geometry["kernel"], geometry["stride"], geometry["pad"], geometry["dilate"],
                        geometry["num_group"], geometry["layout"], use_bias=bias,
                        in_channels=old.weight.shape[-1 if channels_last else 1] * geometry["num_group"],
                        prefix=old.prefix)
        new.cast(old.weight.dtype)
    if old.act is not None:
        new.act = old.act
    return new


def _initialise(net: Block, new: Block, init: mx.init.Initializer | None) -> None:
    """Initialises the new layer where the network's other parameters are, if they are anywhere yet."""
    fresh = {p.name for p in new.collect_params().values()}
    places = (gluon_internals.contexts_of(p) for p in net.collect_params().values() if p.name not in fresh)
    contexts = next((found for found in places if found), None)
    if contexts:
        new.initialize(init or mx.init.Xavier(), ctx=contexts, force_reinit=True)


def dropout_of(net: HybridBlock) -> float:
    """The rate that `set_dropout` gave the network's output, 0 without."""
    return getattr(tracing.output_layer(net).block, "input_dropout", 0.0)


def set_dropout(net: HybridBlock, rate: float) -> HybridBlock:
    """Drops a share of the output layer's input in training, 0 to below 1 (0: none again); in place.

    Parameters and their names stay as they are. `replace_output` makes a layer without dropout.

    Raises
    ------
    ConfigError
        For another rate.
    """
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate < 1:
        raise ConfigError("dropout out of range", expected="0 to below 1", found=rate)
    layer = tracing.output_layer(net).block
    layer.input_dropout = float(rate)
    if "hybrid_forward" not in vars(layer):
        layer.hybrid_forward = types.MethodType(_dropping, layer)
    tracing.forget_graphs(net)
    return net


def _dropping(self, F, x, **parameters):
    x = F.Dropout(x, p=self.input_dropout) if self.input_dropout else x
    return type(self).hybrid_forward(self, F, x, **parameters)


def has_bias(net: HybridBlock) -> bool:
    """Whether the output layer has a bias."""
    return tracing.output_layer(net).block.bias is not None


def make_linear(net: HybridBlock) -> HybridBlock:
    """Gives the output a bias and takes away an activation behind it (SqueezeNet's ReLU), in place.

    The result is then a linear function of the penultimate features, as of a Dense layer.

    Raises
    ------
    NetworkError
        Where something else follows the output.
    """
    found = tracing.output_layer(net)
    layer = found.block
    if layer.bias is None:
        # Before there was a bias its place was empty: Block.__setattr__ registers the parameter.
        layer.bias = layer.params.get("bias", shape=(found.classes,), init="zeros", allow_deferred_init=True,
                                      dtype=layer.weight.dtype)
        if not gluon_internals.is_dense(layer):
            gluon_internals.hyperparameters(layer)["no_bias"] = False
        if gluon_internals.contexts_of(layer.weight):
            layer.bias.initialize(ctx=layer.weight.list_ctx())
    for parent, key in found.parents:
        if isinstance(parent, nn.HybridSequential):
            children = gluon_internals.children(parent)
            for name in list(children)[list(children).index(key) + 1:]:
                if isinstance(children[name], nn.Activation):
                    gluon_internals.exchange_child(parent, name, Identity())
    tracing.forget_graphs(net)
    follows = after_output(net) - _LINEAR
    if layer.act is not None or follows:
        raise NetworkError("the result is not a linear function of the features", found=", ".join(sorted(follows)),
                           expected="nothing but means and reshapes behind the output")
    return net


def after_output(net: HybridBlock) -> set[str]:
    """The operators between the output layer and the network's result; of poolings, only those that are not means."""
    graph = Graph(tracing.result(net))
    result = graph.nodes[graph.heads[0][0]]
    _, passed = graph.behind(result, lambda node: node.op not in ("FullyConnected", "Convolution"))
    return {node.op for node in passed if node.op != "Pooling" or node.attrs.get("pool_type", "max") != "avg"}


def gives_probabilities(net: HybridBlock) -> bool:
    """Whether a softmax is part of the network, behind its output layer."""
    return bool(after_output(net) & {"softmax", "SoftmaxOutput", "Softmax", "SoftmaxActivation"})
