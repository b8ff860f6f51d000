"""An output made of rows of the source's own classifier, looked up by the names of its classes."""
from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import mxnet as mx
import numpy as np
from mxnet.gluon import Block

from gluon_ft.errors import ConfigError, NetworkError
from gluon_ft.models import tracing
from gluon_ft.models.batchnorm import freeze_folded
from gluon_ft.models.heads import LR_MULT, make_linear, replace_output
from gluon_ft.runtime.gluon_internals import array_of, own_parameters
from gluon_ft.weights import class_names


def output_from_classes(net: Block, starts: Sequence[str | None], lr_mult: float = LR_MULT,
                        classes: list[str] | None = None) -> Block:
    """Puts a new output in the place of the network's own, whose rows start from the source's classifier; in place.

    An output with a source class starts from that class's weights and bias. An output without one stands for all
    the classes that are not named: it starts from the mean of their rows, and log(n) more in the bias for n of them.
    The source's softmax puts logsumexp of n logits against the named class's one; by Jensen's inequality mean + log(n)
    is the largest linear bound below it that depends on no data, and equal to it where the n logits are equal. Zeros
    would not do: softmax is unchanged when one vector is added to all rows, so that a row by itself means nothing.

    Parameters
    ----------
    net : HybridBlock
        Initialised, with its source's output; `pretrained_net` gives one.
    starts : sequence of str or None
        One entry an output of the new layer, at least two: the name of a source class (see
        `weights.class_names.index`: by name, WordNet id or long name), or None for the classes not named.
    lr_mult : float, default 10
        Learning-rate multiplier of the new layer.
    classes : list of str, default `net.classes`
        Names of all classes of the source's output.

    Returns
    -------
    HybridBlock
        The same network. An output without a bias (MobileNetV2's) has got one; where BatchNorm is folded in the weights
        it is frozen, with a warning, as by `fine_tune_net`.

    Raises
    ------
    ConfigError
        For fewer than two outputs, no name at all, or None where every class is named.
    NetworkError
        Where the class names are not known or do not fit the output, and for a name that is not among them.
    """
    starts, old = list(starts), tracing.output_layer(net)
    if len(starts) < 2 or not any(starts):
        raise ConfigError("an output needs at least two entries, one of them a class", found=repr(starts))
    classes = _class_names(net, classes)
    places = [None if name is None else class_names.index(classes, name) for name in starts]
    make_linear(net)
    rows, biases = _rows(array_of(old.block.weight), array_of(old.block.bias), places)
    freeze_folded(net, "the weights")
    replace_output(net, len(starts), lr_mult=lr_mult)
    new = tracing.output_layer(net).block
    new.weight.set_data(mx.nd.array(rows))
    new.bias.set_data(mx.nd.array(biases))
    net.classes = None
    return net


def select_classes(net: Block, names: Iterable[str], classes: list[str] | None = None) -> Block:
    """Cuts the output down to the classes called `names`, in that order, with their trained weights; in place.

    Parameters
    ----------
    net : HybridBlock
        Initialised, with its source's output; `pretrained_net` gives one.
    names : iterable of str
        At least two, see `weights.class_names.index`.
    classes : list of str, default `net.classes`
        Names of all classes of the output.

    Returns
    -------
    HybridBlock
        The same network; its `classes` are `names`.

    Raises
    ------
    NetworkError
        Where the class names are not known, or do not fit the output.
    """
    classes, names = _class_names(net, classes), list(names)
    places = [class_names.index(classes, name) for name in names]
    old = own_parameters(tracing.output_layer(net).block)
    kept = {key: array_of(parameter)[places] for key, parameter in old.items() if parameter is not None}
    replace_output(net, len(names), lr_mult=1)
    new = own_parameters(tracing.output_layer(net).block)
    for key, array in kept.items():
        new[key].set_data(mx.nd.array(array))
    net.classes = names
    return net


def _class_names(net: Block, given: list[str] | None) -> list[str]:
    """The names given, or the network's own, which have to fit its output."""
    names, count = given or getattr(net, "classes", None), tracing.output_layer(net).classes
    if not names or len(names) != count:
        raise NetworkError("the names of the network's classes are not known", expected=f"{count} names",
                           found=len(names) if names else "none", remedy="give them as classes=[...]")
    return names


def _rows(weight: np.ndarray, bias: np.ndarray, places: list[int | None]) -> tuple[np.ndarray, np.ndarray]:
    """(weights, biases) of the new output."""
    named = {place for place in places if place is not None}
    rest = [place for place in range(len(weight)) if place not in named]
    if not rest and None in places:
        raise ConfigError("no class is left for an output without one", found=f"{len(named)} classes named")
    weights, biases = [], []
    for place in places:
        weights.append(weight[rest].mean(0) if place is None else weight[place])
        biases.append(bias[rest].mean() + math.log(len(rest)) if place is None else bias[place])
    return np.stack(weights), np.array(biases, dtype=bias.dtype)
