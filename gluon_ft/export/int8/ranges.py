"""What the tensors of a network are like on images: the range of their values, and the means of their channels."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gluon_ft.engine import onnx_runtime
from gluon_ft.errors import NetworkError
from gluon_ft.export.int8.graph import Plan, Range
from gluon_ft.export.onnx_files import INPUT

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Ranges:
    """What `measure` found.

    Attributes
    ----------
    of : dict of str to (float, float)
        Tensor -> its least and its largest value.
    means : dict of str to array
        Name of a layer's node -> the mean of each channel of its input.
    """

    of: dict[str, Range]
    means: dict[str, np.ndarray]


def measure(plan: Plan, batches: Iterable[np.ndarray]) -> Ranges:
    """Runs images through the float32 model of a plan.

    Parameters
    ----------
    plan : Plan
    batches : iterable of uint8 array
        Images as the model takes them; at least one batch.

    Raises
    ------
    NetworkError
        A value of the network is not finite.
    """
    watched = _Watched(plan)
    session = onnx_runtime.open_session(watched.model.SerializeToString())
    count, images = len(plan.tensors), 0
    least, largest = np.full(count, np.inf), np.full(count, -np.inf)
    sums: list[Any] = [0.0] * len(plan.layers)
    for batch in batches:
        found = session.run(watched.names, {INPUT: batch})
        least, largest = np.minimum(least, found[:count]), np.maximum(largest, found[count:2 * count])
        if not (np.isfinite(least).all() and np.isfinite(largest).all()):
            raise NetworkError("the network's values are not finite on the calibration images")
        sums = [total + mean.astype(np.float64) * len(batch) for total, mean in zip(sums, found[2 * count:])]
        images += len(batch)
    return Ranges({name: (float(a), float(b)) for name, a, b in zip(plan.tensors, least, largest)},
                  {node.name: total / images for node, total in zip(plan.layers, sums)})


class _Watched:
    """The model with the least and the largest value of each tensor, and the means, as its results."""

    def __init__(self, plan: Plan):
        import onnx
        from onnx import helper

        self.model: onnx.ModelProto = onnx.ModelProto()
        self.model.CopyFrom(plan.model)
        self.names: list[str] = []
        nodes: list[Any] = []
        for op in ("ReduceMin", "ReduceMax"):
            nodes += [helper.make_node(op, [name], [f"{name}/{op}"], keepdims=0) for name in plan.tensors]
        for layer in plan.layers:
            rank = len(next(tensor.dims for tensor in plan.model.graph.initializer if tensor.name == layer.input[1]))
            nodes.append(helper.make_node("ReduceMean", [layer.input[0]], [f"{layer.name}/means"], keepdims=0,
                                          axes=[0, *range(2, rank)]))
        for node in nodes:
            self.model.graph.node.append(node)
            self.names.append(node.output[0])
            self.model.graph.output.append(onnx.ValueInfoProto(name=node.output[0]))
