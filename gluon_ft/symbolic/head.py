"""`get_fine_tune_model`: replaces a symbol's last layer, and keeps only the parameters that the new symbol needs."""
from __future__ import annotations

from collections.abc import Mapping, Sequence

import mxnet as mx

from gluon_ft.errors import ConfigError, NetworkError, WeightsError, near
from gluon_ft.models import graph
from gluon_ft.models.graph import DATA


def get_fine_tune_model(symbol: mx.sym.Symbol, arg_params: Mapping[str, mx.nd.NDArray], num_classes: int,
                        layer_name: str | None = "flatten0", head_name: str = "fc1",
                        output_name: str = "softmax") -> tuple[mx.sym.Symbol, dict[str, mx.nd.NDArray]]:
    """Puts a new classifier (FullyConnected and SoftmaxOutput) on top of a layer of a pretrained symbol.

    Parameters
    ----------
    symbol : mx.sym.Symbol
        The pretrained network.
    arg_params : dict of str to NDArray
        Its parameters.
    num_classes : int
        Number of labels, at least 2.
    layer_name : str or None, default 'flatten0'
        The layer below the new one. None: the input of the symbol's last fully connected layer, or of the 1x1
        convolution that takes its place. If the old network averages the output of this convolution over the image,
        the new one averages its input instead, which computes the same function.
    head_name, output_name : str
        Names of the new layers; 'fc1' and 'softmax' are those of the published procedure. Choose others if the symbol
        uses these names already.

    Returns
    -------
    (symbol, arg_params)
        The new symbol, and its parameters. Those of the new layer are left out even if the old layer had the same
        name, so that the new layer is initialised. All others are kept, whatever their names ('fc10', 'stage1_fc1',
        'fc6').

    Raises
    ------
    ConfigError
        `num_classes` is below 2.
    NetworkError
        The layer does not exist (the error gives similar names), or the name of a new layer is taken.
    WeightsError
        Parameters are missing, or have the shapes of another network.
    """
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 2:
        raise ConfigError("a classifier needs at least two classes", expected="num_classes >= 2",
                          found=repr(num_classes))
    below = _below(symbol, layer_name)
    _check_names(below, head_name, output_name)
    net = mx.sym.FullyConnected(data=below, num_hidden=num_classes, name=head_name)
    net = mx.sym.SoftmaxOutput(data=net, name=output_name)
    wanted = [name for name in below.list_arguments() if name != DATA]
    check_parameters(below, wanted, arg_params)
    return net, {name: arg_params[name] for name in wanted}


def _below(symbol: mx.sym.Symbol, layer_name: str | None) -> mx.sym.Symbol:
    if layer_name is not None:
        return _layer(symbol, layer_name)
    head = graph.find_head(symbol)
    inner = symbol.get_internals()
    # get_children returns exactly those outputs that the node uses.
    below = inner[f"{head.node.name}_output"].get_children()[0]
    if head.pooled:
        below = mx.sym.Pooling(below, global_pool=True, pool_type="avg", kernel=(1, 1), name=f"{head.node.name}_pool")
    return below


def _layer(symbol: mx.sym.Symbol, name: str) -> mx.sym.Symbol:
    inner = symbol.get_internals()
    if f"{name}_output" in inner.list_outputs():
        return inner[f"{name}_output"]
    layers = [n.name for n in graph.nodes(symbol) if n.op != "null"]
    raise NetworkError(f"the symbol has no layer '{name}'",
                       remedy=f"{near(name, layers)}; layer_name=None finds the input of the last layer")


def _check_names(below: mx.sym.Symbol, head_name: str, output_name: str) -> None:
    """Raises NetworkError if the part of the symbol that is kept has a node of the same name as a new one."""
    taken = {node.name for node in graph.nodes(below)}
    for option, names in (("head_name", (head_name, f"{head_name}_weight", f"{head_name}_bias")),
                          ("output_name", (output_name, f"{output_name}_label"))):
        for name in names:
            if name in taken:
                raise NetworkError(f"the part of the symbol that is kept has a node '{name}' already",
                                   remedy=f"give the new layer another name: {option}='new_{names[0]}'")


def check_parameters(below: mx.sym.Symbol, wanted: Sequence[str], arg_params: Mapping[str, mx.nd.NDArray]) -> None:
    """Checks that parameters exist and have the shapes that their layers need.

    Parameters
    ----------
    below : mx.sym.Symbol
        The symbol to which the parameters belong.
    wanted : sequence of str
        Names of the parameters that must exist.
    arg_params : dict of str to NDArray

    Raises
    ------
    NetworkError
        The symbol has no input 'data'.
    WeightsError
        A parameter is missing or has another shape.
    """
    if DATA not in below.list_arguments():
        raise NetworkError("the symbol has no input 'data'", found=", ".join(below.list_arguments()[:3]))
    missing = [name for name in wanted if name not in arg_params]
    if missing:
        raise WeightsError(f"{len(missing)} of the network's {len(wanted)} parameters are missing", found=
                           f"no '{missing[0]}'", remedy="give the parameters of this symbol: "
                           f"{near(missing[0], arg_params)}")
    for name, shape in graph.weight_shapes(below).items():
        found = arg_params[name].shape
        if len(found) < len(shape) or any(e not in (None, f) for e, f in zip(shape, found)):
            raise WeightsError(f"parameter '{name}' is another network's", found=found,
                               expected=f"({', '.join('?' if e is None else str(e) for e in shape)})",
                               remedy="give the parameters of this symbol")
