"""The output layer's details that a saved model has to bring back: dropout before it, a bias, nothing after it."""
from __future__ import annotations

import json
import types

from mxnet.gluon import Block, HybridBlock, nn
from mxnet.gluon.contrib.nn import Identity

from gluon_ft.errors import ConfigError, NetworkError
from gluon_ft.models import tracing

# What may follow the output layer of a linear classifier: means and reshapes of its values.
_LINEAR = {"Flatten", "Reshape", "mean", "squeeze", "identity", "_copy", "Dropout", "_contrib_AdaptiveAvgPooling2D",
           "slice_axis", "transpose", "amp_cast", "Cast"}


def dropout_of(net: HybridBlock) -> float:
    """The rate that `set_dropout` gave the network's output, 0 without."""
    return getattr(tracing.output_layer(net).block, "input_dropout", 0.0)


def set_dropout(net: HybridBlock, rate: float) -> HybridBlock:
    """Drops a share of the output layer's input in training, 0 to below 1 (0: none again); in place.

    Parameters and their names stay as they are. `replace_output` makes a layer without dropout.
    Raises ConfigError for another rate.
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
    Raises NetworkError where something else follows the output.
    """
    found = tracing.output_layer(net)
    layer = found.block
    if layer.bias is None:
        # Before there was a bias its place was empty: Block.__setattr__ registers the parameter.
        layer.bias = layer.params.get("bias", shape=(found.classes,), init="zeros", allow_deferred_init=True,
                                      dtype=layer.weight.dtype)
        if hasattr(layer, "_kwargs"):
            layer._kwargs["no_bias"] = False
        if layer.weight._data is not None or layer.weight._deferred_init:
            layer.bias.initialize(ctx=layer.weight.list_ctx())
    for parent, key in found.parents:
        behind = list(parent._children).index(key) + 1 if isinstance(parent, nn.HybridSequential) else None
        for name in list(parent._children)[behind:] if behind else []:
            if isinstance(parent._children[name], nn.Activation):
                _exchange(parent, name, Identity())
    tracing.forget_graphs(net)
    follows = after_output(net) - _LINEAR
    if layer.act is not None or follows:
        raise NetworkError("the result is not a linear function of the features", found=", ".join(sorted(follows)),
                           expected="nothing but means and reshapes behind the output")
    return net


def after_output(net: HybridBlock) -> set[str]:
    """The operators between the output layer and the network's result; of poolings, only those that are not means."""
    described = json.loads(tracing.symbol(net).tojson())
    nodes, index, operators = described["nodes"], described["heads"][0][0], set()
    while nodes[index]["op"] not in ("FullyConnected", "Convolution"):
        if nodes[index]["op"] != "Pooling" or nodes[index]["attrs"].get("pool_type", "max") != "avg":
            operators.add(nodes[index]["op"])
        index = nodes[index]["inputs"][0][0]
    return operators


def _exchange(parent: Block, key: str, new: Block) -> None:
    parent._children[key] = new
