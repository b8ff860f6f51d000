"""The ONNX model of a page: from pixels to probabilities, and to the distance by which unknown images are told."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from mxnet.gluon import HybridBlock

from gluon_ft.errors import NetworkError
from gluon_ft.evaluation.unknowns import NEIGHBOURS, SHORTEST, Known
from gluon_ft.models import tracing
from gluon_ft.runtime.gluon_internals import array_of

if TYPE_CHECKING:
    import onnx

DISTANCE = "distance"
_PREFIX = "gluon_ft/known"


def with_distance(model: onnx.ModelProto, net: HybridBlock, known: Known) -> onnx.ModelProto:
    """A copy of `model.onnx` with a second output, `distance`: float32 (n,), as `Known.distance` computes it.

    Parameters
    ----------
    model : onnx.ModelProto
        From pixels to probabilities.
    net : HybridBlock
        The network that it was made of.
    known : Known

    Raises
    ------
    NetworkError
        The layer that gives the classes is not found in the model.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    found = onnx.ModelProto()
    found.CopyFrom(model)
    graph = found.graph
    layer = _output_layer(graph, array_of(tracing.output_layer(net).block.weight))
    constants = {"vectors": known.vectors, "least": np.float32(SHORTEST), "one": np.float32(1),
                 "neighbours": np.array([NEIGHBOURS], np.int64)}
    nodes, last = [], layer.input[0]

    def add(op: str, *others: str, outputs: int = 1, **attributes: Any) -> str:
        nonlocal last
        name = f"{_PREFIX}/{len(nodes)}_{op}"
        names = [name, *(f"{name}_{i}" for i in range(1, outputs))]
        nodes.append(helper.make_node(op, [last, *others], names, name=name, **attributes))
        last = name
        return name

    if layer.op_type == "Conv":
        add("ReduceMean", axes=[2, 3], keepdims=0)
    if net.preprocessing.mirror:
        width = known.vectors.shape[1]
        constants["pairs"] = np.array([2, -1, width], np.int64)
        add("Reshape", f"{_PREFIX}/pairs")
        add("ReduceMean", axes=[0], keepdims=0)
    features = last
    add("ReduceL2", axes=[1], keepdims=1)
    length = add("Max", f"{_PREFIX}/least")
    last = features
    unit = add("Div", length)
    # Kept as float16, half the size, as beside the model.
    last = f"{_PREFIX}/vectors"
    vectors = add("Cast", to=TensorProto.FLOAT)
    last = unit
    add("Gemm", vectors, transB=1)
    add("TopK", f"{_PREFIX}/neighbours", outputs=2, axis=1)
    similar = add("ReduceMean", axes=[1], keepdims=0)
    nodes.append(helper.make_node("Sub", [f"{_PREFIX}/one", similar], [DISTANCE], name=f"{_PREFIX}/{DISTANCE}"))
    graph.node.extend(nodes)
    graph.initializer.extend(numpy_helper.from_array(np.asarray(value), f"{_PREFIX}/{name}")
                             for name, value in constants.items())
    graph.output.append(helper.make_tensor_value_info(DISTANCE, TensorProto.FLOAT, ["n"]))
    onnx.checker.check_model(found)
    return found


def _output_layer(graph: onnx.GraphProto, weight: np.ndarray) -> onnx.NodeProto:
    """The node with the output layer's weight, whose first input is what the layer takes."""
    from onnx import numpy_helper

    same = {one.name for one in graph.initializer if tuple(one.dims) == weight.shape
            and np.array_equal(numpy_helper.to_array(one), weight)}
    layers = [node for node in graph.node if node.op_type in ("Gemm", "Conv") and node.input[1] in same]
    if len(layers) != 1:
        raise NetworkError("the output layer is not found in the ONNX model", found=f"{len(layers)} layers with its "
                                                                                   "weight", expected="one")
    return layers[0]
