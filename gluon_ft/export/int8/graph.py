"""A float32 ONNX model with its layers in 8-bit integers, as pairs of QuantizeLinear and DequantizeLinear.

ONNX Runtime turns a layer between such pairs into its integer form. Activations have 8 bits and one range a tensor.
Weights have a scale for each output channel, as fine as AVX2 lets it be: without VNNI a processor adds two products of
8 by 8 bits in 16, where two large weights beside each other overflow. What rounding the weights adds to a channel on
average is taken off its bias. What has no integer form stays in float32, as do the steps before and behind the network.
"""
from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gluon_ft.engine.onnx_graph import OUTPUT

if TYPE_CHECKING:
    import onnx

Range = tuple[float, float]
LAYERS = ("Conv", "Gemm")  # with weights
# Integer forms that take their inputs' scales to another.
_OTHERS = ("Add", "Mul", "GlobalAveragePool", "AveragePool", "Concat")
# What moves values, or takes the largest: the result has the scale of the input.
_MOVES = ("MaxPool", "Flatten", "Reshape", "Transpose", "Slice", "Split", "Identity", "Squeeze", "Unsqueeze")
_ACTIVATIONS = ("Relu", "Clip")  # are part of the layer before them
_LEVELS = 255
_MOST_WEIGHT = 127
_MOST_PAIR = 127.5  # of two weights beside each other: times 255 that is less than 2 ** 15, rounding included
_MOST_BIAS = 2 ** 30
_LEAST_SCALE = 1e-30
_LEAST_STEP = 1e-36  # of the bias, the product of two scales: a normal float32


class Plan:
    """Which tensors of a model are held as integers.

    Parameters
    ----------
    model : ModelProto
        In float32, as `onnx_files.models` makes it.
    keep : collection of str
        Names of the nodes with weights that stay in float32.

    Attributes
    ----------
    layers : list of NodeProto
        The nodes with weights that can have an integer form, the kept ones among them.
    tensors : list of str
        Those whose range is needed.
    """

    def __init__(self, model: onnx.ModelProto, keep: Collection[str] = ()):
        self.model = model
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self.maker = {name: node for node in model.graph.node for name in node.output}
        self.users: dict[str, list[Any]] = defaultdict(list)
        for node in model.graph.node:
            for name in node.input:
                self.users[name].append(node)
        inside = [node for node in model.graph.node if not node.name.startswith("gluon_ft/")]
        self.last, behind = self._last()
        self.layers = [node for node in inside if node.op_type in LAYERS and node.input[0] not in self.constants
                       and all(name in self.constants for name in node.input[1:])]
        if self.last is not None and self.last.op_type == "Conv":
            # A convolution has no integer form with a float32 result, and a result of 8 bits is too coarse.
            self.layers = [node for node in self.layers if node is not self.last]
        chosen = {id(node) for node in self.layers if node.name not in keep}
        chosen |= {id(node) for node in inside if node.op_type in _OTHERS
                   and not any(name in self.constants for name in node.input)}
        self.moves = self._moves([node for node in inside if id(node) not in behind], chosen)
        self.integer = [node for node in inside if id(node) in chosen | self.moves]
        self.tensors = self._tensors()

    def _last(self) -> tuple[Any, set[int]]:
        """The node that gives the network's result, and those that only move it afterwards."""
        node, behind = self.maker.get(OUTPUT), set()
        while node is not None and node.op_type in _MOVES:
            behind.add(id(node))
            node = self.maker.get(node.input[0])
        return node, behind

    def _moves(self, nodes: list[Any], chosen: set[int]) -> set[int]:
        """What moves values that are integers already."""
        known, found = {self.end(node) for node in nodes if id(node) in chosen}, set()
        for node in nodes:
            if node.op_type in _MOVES and node.input[0] in known:
                found.add(id(node))
                known.update(node.output)
        return found

    def end(self, node: Any) -> str:
        """The result of a node, or of the activation behind it where nothing else uses the node's."""
        name = node.output[0]
        users = self.users[name]
        if len(users) == 1 and users[0].op_type in _ACTIVATIONS and node.op_type in (*LAYERS, "Add"):
            return users[0].output[0]
        return name

    def inputs(self, node: Any) -> list[str]:
        """Of an integer node, the tensors that are integers."""
        return list(node.input[:1] if node.op_type in LAYERS or id(node) in self.moves else node.input)

    def results(self, node: Any) -> list[str]:
        """Of an integer node, the results that are integers: all but the network's own, whose precision is kept."""
        if node is self.last:
            return []
        return list(node.output) if id(node) in self.moves else [self.end(node)]

    def _tensors(self) -> list[str]:
        found: dict[str, None] = {}
        for node in self.integer:
            found.update(dict.fromkeys([*self.inputs(node), *self.results(node)]))
        return list(found)

    def shared(self, ranges: Mapping[str, Range]) -> dict[str, Range]:
        """The range of each tensor: of one that was only moved, that of where it came from."""
        found = {name: ranges[name] for name in self.tensors}
        for node in self.integer:
            if id(node) in self.moves:
                found.update(dict.fromkeys(self.results(node), found[node.input[0]]))
        return found


def quantised(plan: Plan, ranges: Mapping[str, Range], means: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """The model with integers.

    Parameters
    ----------
    plan : Plan
    ranges : mapping of str to (float, float)
        Least and largest value of each of the plan's tensors, or of more; values beyond are cut off.
    means : mapping of str to array
        Name of a layer's node -> mean of each channel of its input.
    """
    return _Builder(plan, plan.shared(ranges), means).model()


class _Builder:
    def __init__(self, plan: Plan, ranges: Mapping[str, Range], means: Mapping[str, np.ndarray]):
        self.plan, self._means = plan, means
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}
        self._scales = {name: _activation(*ranges[name]) for name in plan.tensors}
        self._float: dict[str, str] = {}  # tensor -> the one in float32 that stands for it once it was an integer

    def model(self) -> onnx.ModelProto:
        import onnx

        plan = self.plan
        integer = {id(node) for node in plan.integer}
        ends: dict[int, list[str]] = {}
        for node in plan.integer:
            for name in plan.results(node):
                ends.setdefault(id(plan.maker[name]), []).append(name)
        for node in plan.model.graph.node:
            changed = onnx.NodeProto()
            changed.CopyFrom(node)
            if id(node) in integer:
                for position, name in enumerate(plan.inputs(node)):
                    changed.input[position] = self._pair(name)
                if node.op_type in LAYERS:
                    self._weights(node, changed)
            else:
                changed.input[:] = [self._float.get(name, name) for name in node.input]
            self._nodes.append(changed)
            for name in ends.get(id(node), []):
                self._pair(name)
        model = onnx.ModelProto()
        model.CopyFrom(plan.model)
        del model.graph.node[:], model.graph.initializer[:]
        model.graph.node.extend(self._nodes)
        used = {name for node in self._nodes for name in node.input}
        model.graph.initializer.extend(tensor for name, tensor in {**plan.constants, **self._constants}.items()
                                       if name in used)
        return model

    def _constant(self, name: str, value: Any, dtype: Any) -> str:
        from onnx import numpy_helper

        self._constants[name] = numpy_helper.from_array(np.asarray(value, dtype), name)
        return name

    def _pair(self, name: str) -> str:
        """The float32 tensor behind a QuantizeLinear and a DequantizeLinear of it."""
        from onnx import helper

        if name in self._float:
            return self._float[name]
        scale, zero = self._scales[name]
        given = [self._constant(f"{name}/scale", scale, np.float32), self._constant(f"{name}/zero", zero, np.uint8)]
        self._nodes.append(helper.make_node("QuantizeLinear", [name, *given], [f"{name}/uint8"],
                                            name=f"{name}/quantize"))
        self._nodes.append(helper.make_node("DequantizeLinear", [f"{name}/uint8", *given], [f"{name}/float32"],
                                            name=f"{name}/dequantize"))
        self._float[name] = f"{name}/float32"
        return self._float[name]

    def _weights(self, node: Any, changed: Any) -> None:
        from onnx import numpy_helper

        weight = numpy_helper.to_array(self.plan.constants[node.input[1]]).astype(np.float64)
        bias = numpy_helper.to_array(self.plan.constants[node.input[2]]).astype(np.float64) if len(node.input) > 2 \
            else np.zeros(len(weight))
        step = np.float32(self._scales[node.input[0]][0])
        # 32 bits have to hold the bias.
        least = np.maximum(np.abs(bias) / (step * _MOST_BIAS), _LEAST_STEP / step)
        scales = np.maximum(weight_scales(weight), least).astype(np.float32)
        each = scales.astype(np.float64).reshape(-1, *[1] * (weight.ndim - 1))
        integers = np.rint(weight / each).clip(-_MOST_WEIGHT, _MOST_WEIGHT)
        lost = _through(weight - integers * each, self._means[node.name], _groups(node))
        steps = scales * step
        names = [node.input[1], node.input[2] if len(node.input) > 2 else f"{node.name}/bias"]
        changed.input[1:] = [
            self._dequantised(names[0], integers, np.int8, scales),
            self._dequantised(names[1], np.rint((bias + lost) / steps.astype(np.float64)), np.int32, steps)]

    def _dequantised(self, name: str, integers: np.ndarray, dtype: Any, scales: np.ndarray) -> str:
        """A constant of integers, with a scale for each of its first axis; the float32 tensor behind it."""
        from onnx import helper

        given = [self._constant(f"{name}/integers", integers, dtype),
                 self._constant(f"{name}/scale", scales, np.float32),
                 self._constant(f"{name}/zero", np.zeros(len(scales)), dtype)]
        self._nodes.append(helper.make_node("DequantizeLinear", given, [f"{name}/float32"], name=f"{name}/dequantize",
                                            axis=0))
        return f"{name}/float32"


def weight_scales(weight: np.ndarray) -> np.ndarray:
    """The scale of each output channel: the least with which no two products overflow 16 bits.

    Neighbours are so in the order of the channels first or last, as kernels take them; a convolution with one channel
    a group is added in 32 bits.
    """
    flat = weight.reshape(len(weight), -1)
    scales = np.abs(flat).max(axis=1) / _MOST_WEIGHT
    if weight.ndim < 3 or weight.shape[1] > 1:
        for order in (weight, np.moveaxis(weight, 1, -1)):
            scales = np.maximum(scales, _largest_pair(order.reshape(flat.shape)) / _MOST_PAIR)
    return np.maximum(scales, _LEAST_SCALE)


def _largest_pair(flat: np.ndarray) -> np.ndarray:
    """Of each row, the largest sum of two neighbours of one sign."""
    even = np.pad(flat, ((0, 0), (0, flat.shape[1] % 2)))
    signs = [np.maximum(sign * even, 0) for sign in (1, -1)]
    return np.max([(part[:, ::2] + part[:, 1::2]).max(axis=1) for part in signs], axis=0)


def _through(weight: np.ndarray, means: np.ndarray, groups: int) -> np.ndarray:
    """What a layer makes of an input with these means of its channels, the same everywhere."""
    each = weight.reshape(groups, len(weight) // groups, weight.shape[1], -1).sum(axis=-1)
    return np.einsum("goi,gi->go", each, means.reshape(groups, -1)).ravel()


def _groups(node: Any) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)


def _activation(low: float, high: float) -> tuple[float, int]:
    """Scale and zero point of 8 bits for a range, which is widened to hold 0."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32(max((high - low) / _LEVELS, _LEAST_SCALE)))
    return scale, int(np.clip(np.rint(-low / scale), 0, _LEVELS))
