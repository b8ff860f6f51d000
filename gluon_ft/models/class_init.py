"""An output made of rows of the source's own classifier, looked up by the names of its classes."""
from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence

import mxnet as mx
import numpy as np
from mxnet.gluon import Block

from gluon_ft.errors import ConfigError, NetworkError
from gluon_ft.models import freezing, output, tracing
from gluon_ft.models.batchnorm import batchnorm_is_folded
from gluon_ft.models.heads import LR_MULT, replace_output
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

    An output without a bias (MobileNetV2's) gets one. Returns the network. Where BatchNorm is folded in the weights it
    is frozen, with a warning, as `fine_tune_net` does.

    Raises ConfigError for fewer than two outputs, no name at all, or None where every class is named; NetworkError
    where the class names are not known or do not fit the output, and for a name that is not among them.
    """
    starts, old = list(starts), tracing.output_layer(net)
    classes = classes or getattr(net, "classes", None)
    if len(starts) < 2 or not any(starts):
        raise ConfigError("an output needs at least two entries, one of them a class", found=repr(starts))
    if not classes or len(classes) != old.classes:
        raise NetworkError("the names of the network's classes are not known", expected=f"{old.classes} names",
                           found=len(classes) if classes else "none", remedy="give them as classes=[...]")
    places = [None if name is None else class_names.index(classes, name) for name in starts]
    output.make_linear(net)
    rows, biases = _rows(_array(old.block.weight), _array(old.block.bias), places)
    if batchnorm_is_folded(net):
        freezing.set_batchnorm(net, freezing.FROZEN)
        warnings.warn("the weights have their BatchNorm folded: it is useless in training mode and has been frozen",
                      stacklevel=2)
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

    Returns the network; its `classes` are `names`. Raises NetworkError where the class names are not known, or do not
    fit the output.
    """
    classes, names = classes or getattr(net, "classes", None), list(names)
    old = tracing.output_layer(net)
    if not classes or len(classes) != old.classes:
        raise NetworkError("the names of the network's classes are not known", expected=f"{old.classes} names",
                           found=len(classes) if classes else "none", remedy="give them as classes=[...]")
    places = [class_names.index(classes, name) for name in names]
    kept = {key: p.data(p.list_ctx()[0]).asnumpy()[places] for key, p in old.block._reg_params.items() if p is not None}
    replace_output(net, len(names), lr_mult=1)
    new = tracing.output_layer(net).block
    for key, array in kept.items():
        new._reg_params[key].set_data(mx.nd.array(array))
    net.classes = names
    return net


def _rows(weight, bias, places):
    """(weights, biases) of the new output."""
    named = {place for place in places if place is not None}
    rest = [place for place in range(len(weight)) if place not in named]
    if not rest and None in places:
        raise ConfigError("no class is left for an output without one", found=f"{len(named)} classes named")
    other = (weight[rest].mean(0), bias[rest].mean() + math.log(len(rest))) if None in places else None
    rows = [other if place is None else (weight[place], bias[place]) for place in places]
    return np.stack([row for row, _ in rows]), np.array([shift for _, shift in rows], dtype=bias.dtype)


def _array(parameter):
    return parameter.data(parameter.list_ctx()[0]).asnumpy()
