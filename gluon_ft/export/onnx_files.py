"""A network as two ONNX models: from pixels to probabilities, and from the prepared input to the network's output.

From pixels: what `data.images.transforms` does to the values of an image, and `evaluation.predict` to the network's
output, stands in the graph, in the same order and in float32, so that nobody has to write it again.
"""
from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import mxnet as mx
import numpy as np
from mxnet.gluon import HybridBlock

import gluon_ft
from gluon_ft.data.images.preprocessing import Preprocessing
from gluon_ft.engine import blocks, onnx_runtime
from gluon_ft.engine.onnx_graph import IR_VERSION, OPSET, OUTPUT
from gluon_ft.engine.onnx_operators import convert
from gluon_ft.errors import DependencyError, NetworkError
from gluon_ft.models import heads
from gluon_ft.models.graph import DATA
from gluon_ft.weights import model_folder

if TYPE_CHECKING:
    import onnx

INPUT, PROBABILITIES, LOGITS = "image", "probabilities", "logits"
_LEAST = float(np.finfo(np.float32).tiny)
_END = np.iinfo(np.int64).max


def check_packages() -> None:
    """DependencyError where onnx or onnxruntime is missing."""
    missing = onnx_runtime.missing()
    if missing is not None:
        raise DependencyError(f"ONNX models need the package {missing}", remedy=f"pip install {missing}")


def models(symbol: mx.sym.Symbol, values: Mapping[str, np.ndarray], net: HybridBlock,
           source_sha256: str) -> dict[str, onnx.ModelProto]:
    """The two ONNX models of a network, by the name of their file.

    Parameters
    ----------
    symbol : mx.sym.Symbol
        Of the network, with the input 'data'.
    values : mapping of str to array
        Its parameters.
    net : HybridBlock
        With `classes`, `preprocessing` and `temperature`.
    source_sha256 : str
        Of the parameters that it was exported from; it stands in the files.

    Raises
    ------
    NetworkError
        An operator has no ONNX form; it and its layer are named.
    """
    import onnx

    wanted: Preprocessing = net.preprocessing
    shape = (1, wanted.channels, wanted.size, wanted.size)
    with blocks.quiet():
        graph = convert(symbol, shape, {name: value.shape for name, value in values.items()})
        if len(graph.result[1]) != 1:
            raise NetworkError("the network's result is not one number a class", found=f"shape {graph.result[1]}")
        whole = graph.model(values)
    softmax = heads.gives_probabilities(net)
    size, channels, about = wanted.size, wanted.channels, _metadata(net, source_sha256)
    pixels = _joined(whole, _before(wanted), _behind(wanted, net.temperature, softmax, graph.result[1][0]),
                     [onnx.TensorProto.UINT8, "n", size, size, channels])
    result = _Steps(OUTPUT, "gluon_ft/behind")
    result.add("Identity", output=PROBABILITIES if softmax else LOGITS)
    plain = _joined(whole, _Steps(DATA, "gluon_ft/before"), result, [onnx.TensorProto.FLOAT, "n", *shape[1:]])
    colours = "grey" if channels == 1 else "RGB"
    for model, words in ((pixels, f"uint8 {colours}, resized and cropped as 'preprocessing' says"),
                         (plain, "float32, prepared as 'preprocessing' says, to the last step")):
        onnx.helper.set_model_props(model, {**about, "input": words})
        onnx.checker.check_model(model)
    return {model_folder.ONNX: pixels, model_folder.ONNX_LOGITS: plain}


def _metadata(net: HybridBlock, source_sha256: str) -> dict[str, str]:
    return {"class_names": json.dumps(list(net.classes)),
            "preprocessing": json.dumps(net.preprocessing.to_dict()), "temperature": json.dumps(net.temperature),
            "source_sha256": source_sha256, "gluon_ft_version": gluon_ft.__version__}


class _Steps:
    """ONNX nodes in a row, each on the result of the one before; the constants that they need."""

    def __init__(self, first: str, prefix: str):
        self.first = self.last = first
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._prefix = prefix

    def add(self, op: str, *constants: Any, dtype: Any = np.float32, output: str | None = None, beside: str = "",
            **attributes: Any) -> str:
        from onnx import helper, numpy_helper

        name = f"{self._prefix}/{len(self.nodes)}_{op}"
        inputs = [self.last, *([beside] if beside else [])]
        for value in constants:
            inputs.append(f"{name}/{len(inputs)}")
            self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), inputs[-1]))
        self.last = output or name
        self.nodes.append(helper.make_node(op, inputs, [self.last], name=name, **attributes))
        return self.last


def _before(wanted: Preprocessing) -> _Steps:
    """From pixels to the network's input."""
    from onnx import TensorProto

    steps = _Steps(INPUT, "gluon_ft/before")
    steps.add("Cast", to=TensorProto.FLOAT)
    if wanted.channel_order == "bgr":
        steps.add("Gather", [2, 1, 0], dtype=np.int64, axis=3)
    # Not merged into one scale and shift: so the values are those of MXNet to the last bit.
    steps.add("Div", wanted.scale)
    steps.add("Sub", wanted.mean)
    steps.add("Div", wanted.std)
    steps.add("Transpose", perm=[0, 3, 1, 2])
    if wanted.rotate180:
        _reversed(steps, [2, 3])
    if wanted.mirror:
        plain = steps.last
        mirrored = _reversed(steps, [3])
        steps.last = plain
        steps.add("Concat", beside=mirrored, axis=0)
    steps.add("Identity", output=DATA)
    return steps


def _reversed(steps: _Steps, axes: list[int]) -> str:
    return steps.add("Slice", [-1] * len(axes), [-_END] * len(axes), axes, [-1] * len(axes), dtype=np.int64)


def _behind(wanted: Preprocessing, temperature: float | None, softmax: bool, classes: int) -> _Steps:
    """From the network's output to calibrated probabilities."""
    steps = _Steps(OUTPUT, "gluon_ft/behind")
    if wanted.mirror:
        steps.add("Reshape", [2, -1, classes], dtype=np.int64)
        steps.add("ReduceMean", axes=[0], keepdims=0)
    if softmax and temperature is not None:
        steps.add("Max", _LEAST)
        steps.add("Log")
    if temperature is not None:
        steps.add("Div", temperature)
    if not softmax or temperature is not None:
        steps.add("Softmax", axis=1)
    steps.add("Identity", output=PROBABILITIES)
    return steps


def _joined(whole: onnx.ModelProto, before: _Steps, behind: _Steps, given: list[Any]) -> onnx.ModelProto:
    """The network's model with steps before and behind it; `given` is the type of its input, and the extents."""
    from onnx import TensorProto, helper

    extents = [extent.dim_param or extent.dim_value for extent in whole.graph.output[0].type.tensor_type.shape.dim]
    graph = helper.make_graph(
        [*before.nodes, *whole.graph.node, *behind.nodes], "gluon_ft",
        [helper.make_tensor_value_info(before.first, given[0], given[1:])],
        [helper.make_tensor_value_info(behind.last, TensorProto.FLOAT, extents)],
        [*whole.graph.initializer, *before.constants, *behind.constants])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="gluon_ft",
                              producer_version=gluon_ft.__version__)
    model.ir_version = IR_VERSION
    return model
