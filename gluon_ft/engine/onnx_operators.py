"""MXNet's operators in ONNX: what each node of a graph becomes. The names on the left are MXNet's.

Every function takes the graph that is made, the node, and the names of its inputs; it adds nodes and returns the name
of the result, or the names of several.
"""
from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Union

import mxnet as mx
import numpy as np

from gluon_ft.engine.onnx_graph import OnnxGraph, Values, numbers
from gluon_ft.models.graph import BATCHNORM, Node

Inputs = Sequence[str]
_Result = Union[str, list[str]]
OPERATORS: dict[str, Callable[[OnnxGraph, Node, Inputs], _Result]] = {}
_INT64 = np.int64
_END = np.iinfo(np.int64).max


def convert(symbol: mx.sym.Symbol, input_shape: Sequence[int], shapes: Mapping[str, Sequence[int]]) -> OnnxGraph:
    """A symbol in ONNX.

    Parameters
    ----------
    symbol, input_shape, shapes
        As of `OnnxGraph`; so is the error.
    """
    return OnnxGraph(symbol, input_shape, shapes, OPERATORS)


def _operator(*names: str) -> Callable:
    def add(function):
        for name in names:
            OPERATORS[name] = function
        return function

    return add


# Layers with weights.


@_operator("Convolution")
def _convolution(graph: OnnxGraph, node: Node, inputs: Inputs) -> str:
    kernel = _tuple(node, "kernel")
    if numbers(node, "layout") not in (None, "NCHW", "NCW", "NCDHW"):
        raise graph.refuse(node, f"layout {node.attrs['layout']}")
    pad = _tuple(node, "pad", (0,) * len(kernel))
    front, back = _zeros_around(graph, node)
    cut = (slice(None), slice(None), *(slice(a, k - b) for a, b, k in zip(front, back, kernel)))
    weight, bias = _affine(graph, node, lambda array: array[cut])
    return graph.emit("Conv", [inputs[0], weight, *bias], node.name,
                      kernel_shape=[k - a - b for k, a, b in zip(kernel, front, back)],
                      strides=_tuple(node, "stride", (1,) * len(kernel)),
                      dilations=_tuple(node, "dilate", (1,) * len(kernel)), group=numbers(node, "num_group", 1),
                      pads=[*(p - a for p, a in zip(pad, front)), *(p - b for p, b in zip(pad, back))])


def _zeros_around(graph: OnnxGraph, node: Node) -> tuple[list[int], list[int]]:
    """Rows of a computed kernel that are 0 whatever the parameters (`zoo.layers.SameConv2D`), up to the padding.

    Without them the padding is less on that side, and the kernel smaller.
    """
    pad = _tuple(node, "pad", (0,) * len(_tuple(node, "kernel")))
    none = [0] * len(pad)
    weight = graph.graph.nodes[node.inputs[1]]
    if weight.op == "null" or set(_tuple(node, "dilate", (1,))) != {1}:
        return none, none
    ones = {graph.graph.nodes[i].name: np.ones(graph.shape((i, 0)), np.float32)
            for i in graph.graph.ancestors(node.entries[1]) if graph.graph.nodes[i].op == "null"}
    kernel = _constant(graph, node, 1)(ones)
    front, back = list(none), list(none)
    for axis, most in enumerate(pad):
        used = np.flatnonzero(np.abs(kernel).sum(axis=tuple(i for i in range(kernel.ndim) if i != axis + 2)))
        front[axis] = min(most, int(used[0]))
        back[axis] = min(most, kernel.shape[axis + 2] - 1 - int(used[-1]))
    return front, back


@_operator("FullyConnected")
def _dense(graph: OnnxGraph, node: Node, inputs: Inputs) -> str:
    weight, bias = _affine(graph, node, lambda array: array)
    rank = len(graph.shape(node.entries[0]))
    if numbers(node, "flatten", True) or rank == 2:
        data = inputs[0] if rank == 2 else graph.emit("Flatten", [inputs[0]], node.name + "_flat", axis=1)
        return graph.emit("Gemm", [data, weight, *bias], node.name, transB=1)
    turned = graph.emit("Transpose", [weight], node.name + "_weight", perm=[1, 0])
    result = graph.emit("MatMul", [inputs[0], turned], node.name)
    return graph.emit("Add", [result, *bias], node.name + "_bias") if bias else result


def _affine(graph: OnnxGraph, node: Node, change: Callable[[np.ndarray], np.ndarray]) -> tuple[str, list[str]]:
    """The weight and the bias, if there is one, with the BatchNorm behind them folded in."""
    weight, norm = _constant(graph, node, 1), graph.norm_behind(node)
    bias = None if numbers(node, "no_bias", False) else _constant(graph, node, 2)
    if norm is None:
        names = [] if bias is None else [graph.computed(node.name + "_bias", bias)]
        return graph.computed(node.name + "_weight", lambda values: change(weight(values))), names
    scale_and_shift = _scale_and_shift(graph, norm)

    def folded_weight(values: Values) -> np.ndarray:
        array = weight(values).astype(np.float64)
        scale, _ = scale_and_shift(values)
        return change((array * scale.reshape(-1, *[1] * (array.ndim - 1))).astype(np.float32))

    def folded_bias(values: Values) -> np.ndarray:
        scale, shift = scale_and_shift(values)
        return (shift + (0 if bias is None else bias(values) * scale)).astype(np.float32)

    return graph.computed(node.name + "_weight", folded_weight), [graph.computed(node.name + "_bias", folded_bias)]


def _scale_and_shift(graph: OnnxGraph, norm: Node) -> Callable[[Values], tuple[np.ndarray, np.ndarray]]:
    """What a BatchNorm multiplies each channel by and adds to it, float64."""
    gamma, beta, mean, var = (_constant(graph, norm, i) for i in range(1, 5))
    fixed, epsilon = norm.is_on("fix_gamma", True), float(numbers(norm, "eps", 1e-3))

    def compute(values: Values) -> tuple[np.ndarray, np.ndarray]:
        scale = (1.0 if fixed else gamma(values).astype(np.float64)) / np.sqrt(var(values).astype(np.float64) + epsilon)
        return scale, beta(values) - mean(values) * scale

    return compute


def _constant(graph: OnnxGraph, node: Node, position: int) -> Callable[[Values], np.ndarray]:
    found = graph.value(node.entries[position])
    if found is None:
        raise graph.refuse(node, f"a {('input', 'weight', 'bias', 'mean', 'variance')[position]} that depends on the "
                                 "input")
    return found


# Normalisation.


@_operator(*BATCHNORM)
def _batchnorm(graph: OnnxGraph, node: Node, inputs: Inputs) -> str:
    if numbers(node, "axis", 1) != 1:
        raise graph.refuse(node, f"BatchNorm over axis {node.attrs['axis']}")
    scale_and_shift = _scale_and_shift(graph, node)
    channels = graph.shape(node.entries[2])[0]
    weights = [graph.computed(f"{node.name}_scale", lambda values: scale_and_shift(values)[0].astype(np.float32)),
               graph.computed(f"{node.name}_shift", lambda values: scale_and_shift(values)[1].astype(np.float32)),
               graph.constant(f"{node.name}_zeros", np.zeros(channels)),
               graph.constant(f"{node.name}_ones", np.ones(channels))]
    # Not Mul and Add: ONNX Runtime keeps its blocked layout in this operator.
    return graph.emit("BatchNormalization", [inputs[0], *weights], node.name, epsilon=0.0)


@_operator("GroupNorm", "InstanceNorm")
def _group_norm(graph: OnnxGraph, node: Node, inputs: Inputs) -> str:
    shape = graph.shape(node.entries[0])
    groups = numbers(node, "num_groups", 1) if node.op == "GroupNorm" else shape[1]
    ones, zeros = (graph.constant(f"{node.name}_{value}", np.full(groups, value)) for value in (1, 0))
    parts = _reshape(graph, node.name + "_groups", inputs[0], [0, groups, -1])
    parts = graph.emit("InstanceNormalization", [parts, ones, zeros], node.name, epsilon=numbers(node, "eps", 1e-5))
    whole = _reshape(graph, node.name + "_whole", parts, [0, *shape[1:]])
    for what, op, position in (("gamma", "Mul", 1), ("beta", "Add", 2)):
        each = _of_channels(_constant(graph, node, position), shape)
        whole = graph.emit(op, [whole, graph.computed(f"{node.name}_{what}", each)], f"{node.name}_{what}_each")
    return whole


def _of_channels(given: Callable[[Values], np.ndarray], shape: tuple[int, ...]) -> Callable[[Values], np.ndarray]:
    """One number a group or a channel as numbers a channel, in a shape that is broadcast over height and width."""
    def compute(values: Values) -> np.ndarray:
        numbers_given = given(values)
        return np.repeat(numbers_given, shape[1] // len(numbers_given)).reshape(-1, *[1] * (len(shape) - 2))

    return compute


@_operator("LayerNorm")
def _layer_norm(graph: OnnxGraph, node: Node, inputs: Inputs) -> str:
    rank = len(graph.shape(node.entries[0]))
    axis = numbers(node, "axis", -1) % rank
    if axis != rank - 1:
        raise graph.refuse(node, f"LayerNorm over axis {axis} of {rank}")
    return graph.emit("LayerNormalization", inputs[:3], node.name, axis=-1, epsilon=numbers(node, "eps", 1e-5))


@_operator("L2Normalization")
def _l2_normalization(graph: OnnxGraph, node: Node, inputs: Inputs) -> str:
    mode, rank = numbers(node, "mode", "instance"), len(graph.shape(node.entries[0]))
    axes = {"instance": range(1, rank), "channel": [1], "spatial": range(2, rank)}[mode]
    squares = graph.emit("Mul", [inputs[0], inputs[0]], node.name + "_squares")
    total = graph.emit("ReduceSum", [squares, _ints(graph, node.name + "_axes", axes)], node.name + "_sum", keepdims=1)
    total = graph.emit("Add", [total, graph.constant(node.name + "_eps", numbers(node, "eps", 1e-10))],
                       node.name + "_plus")
    return graph.emit("Div", [inputs[0], graph.emit("Sqrt", [total], node.name + "_norm")], node.name)


@_operator("LRN")
def _lrn(graph: OnnxGraph, node: Node, inputs: Inputs) -> str:
    return graph.emit("LRN", [inputs[0]], node.name, size=numbers(node, "nsize"), alpha=numbers(node, "alpha", 1e-4),
                      beta=numbers(node, "beta", 0.75), bias=float(numbers(node, "knorm", 2.0)))


# Activations.

_ACTIVATIONS = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "softrelu": "Softplus", "softsign": "Softsign"}
_UNARY = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "exp": "Exp", "log": "Log", "sqrt": "Sqrt",
          "negative": "Neg", "abs": "Abs", "erf": "Erf", "softsign": "Softsign", "reciprocal": "Reciprocal",
          "floor": "Floor", "ceil": "Ceil"}
_BINARY = {"Add": ("elemwise_add", "broadcast_add", "_plus", "_Plus"), "Mul": ("elemwise_mul", "broadcast_mul", "_mul"),
           "Sub": ("elemwise_sub", "broadcast_sub", "_sub"), "Div": ("elemwise_div", "broadcast_div", "_div"),
           "Max": ("broadcast_maximum", "_maximum"), "Min": ("broadcast_minimum", "_minimum"),
           "Pow": ("broadcast_power", "_power")}
# MXNet's operator -> ONNX's, and whether the scalar comes first.
_SCALARS = {"_plus_scalar": ("Add", False), "_mul_scalar": ("Mul", False), "_minus_scalar": ("Sub", False),
            "_rminus_scalar": ("Sub", True), "_div_scalar": ("Div", False), "_rdiv_scalar": ("Div", True),
            "_power_scalar": ("Pow", False), "_maximum_scalar": ("Max", False), "_minimum_scalar": ("Min", False)}


@_operator("Activation")
def _activation(graph: OnnxGraph, node: Node, inputs: Inputs) -> str:
    return graph.emit(_ACTIVATIONS[node.attrs["act_type"]], [inputs[0]], node.name)


@_operator(*_UNARY)
def _unary(graph: OnnxGraph, node: Node, inputs: Inputs) -> str:
    return graph.emit(_UNARY[node.op], [inputs[0]], node.name)


@_operator("square")
def _square(graph: OnnxGraph, node: Node, inputs: Inputs) -> str:
    return graph.emit("Mul", [inputs[0], inputs[0]], node.name)


@_operator(*(name for names in _BINARY.values() for name in names))
def _binary(graph: OnnxGraph, node: Node, inputs: Inputs) -> str:
    op = next(op for op, names in _BINARY.items() if node.op in names)
    return graph.emit(op, inputs[:2], node.name)


@_operator("add_n", "ElementWiseSum")
def _sum_of_several(graph: OnnxGraph, node: Node, inputs: Inputs) -> str:
    return graph.emit("Sum", inputs[:], node.name)


@_operator(*_SCALARS)
def _with_scalar(graph: OnnxGraph, node: Node, inputs: Inputs) -> str:
    op, first = _SCALARS[node.op]
    scalar = graph.constant(node.name + "_scalar", float(numbers(node, "scalar")))
    return graph.emit(op, [scalar, inputs[0]] if first else [inputs[0], scalar], node.name)


@_operator("clip")
def _clip(graph: OnnxGraph, node: Node, inputs: Inputs) -> str:
    least, most = (graph.constant(f"{node.name}_{what}", float(numbers(node, what))) for what in ("a_min", "a_max"))
    return graph.emit("Clip", [inputs[0], least, most], node.name)


@_operator("LeakyReLU")
def _leaky_relu(graph: OnnxGraph, node: Node, inputs: Inputs) -> str:
    kind, slope = numbers(node, "act_type", "leaky"), numbers(node, "slope", 0.25)
    if kind == "prelu":
        rank = len(graph.shape(node.entries[0]))
        gamma = _constant(graph, node, 1)
        each = graph.computed(node.name + "_slope", lambda values: gamma(values).reshape(-1, *[1] * (rank - 2)))
        return graph.emit("PRelu", [inputs[0], each], node.name)
    if kind == "gelu":
        return _gelu(graph, node, inputs)
    if kind == "rrelu":
        kind, slope = "leaky", (numbers(node, "lower_bound", 0.125) + numbers(node, "upper_bound", 0.334)) / 2
    op, alpha = {"leaky": ("LeakyRelu", {"alpha": float(slope)}), "elu": ("Elu", {"alpha": float(slope)}),
                 "selu": ("Selu", {})}[kind]
    return graph.emit(op, [inputs[0]], node.name, **alpha)


def _gelu(graph, node, inputs):
    """x / 2 (1 + erf(x / sqrt 2)) (Hendrycks and Gimpel, 2016)."""
    scaled = graph.emit("Mul", [inputs[0], graph.constant(node.name + "_root", math.sqrt(0.5))], node.name + "_scaled")
    part = graph.emit("Erf", [scaled], node.name + "_erf")
    part = graph.emit("Add", [part, graph.constant(node.name + "_one", 1.0)], node.name + "_plus")
    half = graph.emit("Mul", [inputs[0], graph.constant(node.name + "_half", 0.5)], node.name + "_x")
    return graph.emit("Mul", [half, part], node.name)


@_operator("hard_sigmoid")
def _hard_sigmoid(graph: OnnxGraph, node: Node, inputs: Inputs) -> str:
    return graph.emit("HardSigmoid", [inputs[0]], node.name, alpha=float(numbers(node, "alpha", 0.2)),
                      beta=float(numbers(node, "beta", 0.5)))


@_operator("softmax", "log_softmax")
def _softmax(graph: OnnxGraph, node: Node, inputs: Inputs) -> str:
    if numbers(node, "use_length", False):
        raise graph.refuse(node, "softmax with lengths")
    data, temperature = inputs[0], numbers(node, "temperature")
    if temperature is not None:
        data = graph.emit("Div", [data, graph.constant(node.name + "_temperature", temperature)], node.name + "_scaled")
    return graph.emit("Softmax" if node.op == "softmax" else "LogSoftmax", [data], node.name,
                      axis=numbers(node, "axis", -1))


@_operator("SoftmaxOutput", "Softmax", "SoftmaxActivation")
def _softmax_output(graph: OnnxGraph, node: Node, inputs: Inputs) -> str:
    channels = numbers(node, "mode", "instance") == "channel" or numbers(node, "multi_output", False)
    if not channels and len(graph.shape(node.entries[0])) != 2:
        raise graph.refuse(node, f"{node.op} over several axes")
    return graph.emit("Softmax", [inputs[0]], node.name, axis=1)


# Pooling and resizing.


@_operator("Pooling")
def _pooling(graph: OnnxGraph, node: Node, inputs: Inputs) -> str:
    kind, data = numbers(node, "pool_type", "max"), inputs[0]
    if kind not in ("max", "avg") or numbers(node, "layout") not in (None, "NCHW", "NCW", "NCDHW"):
        raise graph.refuse(node, f"pooling '{kind}' in layout {numbers(node, 'layout')}")
    if numbers(node, "global_pool", False):
        return graph.emit("GlobalMaxPool" if kind == "max" else "GlobalAveragePool", [data], node.name)
    kernel = _tuple(node, "kernel")
    stride, pad = _tuple(node, "stride", (1,) * len(kernel)), list(_tuple(node, "pad", (0,) * len(kernel)))
    size, result = graph.shape(node.entries[0])[2:], graph.shape((node.index, 0))[2:]
    # Behind the padding, where the last window ends beyond it ('full'): not to be counted by a mean.
    beyond = [max(0, (o - 1) * s + k - i - 2 * p) for o, s, k, i, p in zip(result, stride, kernel, size, pad)]
    counted = kind == "avg" and numbers(node, "count_include_pad", True)
    corrected = counted and any(pad) and any(beyond)
    mean = {"count_include_pad": int(corrected or (counted and not any(beyond)))} if kind == "avg" else {}
    found = graph.emit("MaxPool" if kind == "max" else "AveragePool", [data], node.name + "_all" * corrected,
                       kernel_shape=kernel, strides=stride, pads=[*pad, *(p + b for p, b in zip(pad, beyond))], **mean)
    if not corrected:
        return found
    # Not by an operator Pad: ONNX Runtime before 1.20 joins it with the pooling and then leaves the padding out.
    shares = [k / (np.minimum(np.arange(o) * s + k, i + 2 * p) - np.arange(o) * s)
              for o, s, k, i, p in zip(result, stride, kernel, size, pad)]
    factors = graph.constant(node.name + "_counted", functools.reduce(np.multiply.outer, shares))
    return graph.emit("Mul", [found, factors], node.name)


@_operator("_contrib_AdaptiveAvgPooling2D")
def _adaptive_pooling(graph: OnnxGraph, node: Node, inputs: Inputs) -> str:
    size, result = graph.shape(node.entries[0])[2:], graph.shape((node.index, 0))[2:]
    if result == (1, 1):
        return graph.emit("GlobalAveragePool", [inputs[0]], node.name)
    if any(a % b for a, b in zip(size, result)):
        raise graph.refuse(node, f"adaptive pooling of {size} to {result}")
    step = [a // b for a, b in zip(size, result)]
    return graph.emit("AveragePool", [inputs[0]], node.name, kernel_shape=step, strides=step)


@_operator("UpSampling")
def _upsampling(graph: OnnxGraph, node: Node, inputs: Inputs) -> str:
    if numbers(node, "sample_type") != "nearest" or len(inputs) != 1:
        raise graph.refuse(node, f"UpSampling '{node.attrs.get('sample_type')}' of {len(inputs)}")
    scale = numbers(node, "scale")
    return graph.emit("Resize", [inputs[0], "", graph.constant(node.name + "_scales", [1, 1, scale, scale])], node.name,
                      mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")


@_operator("_contrib_BilinearResize2D")
def _bilinear(graph: OnnxGraph, node: Node, inputs: Inputs) -> str:
    size, result = graph.shape(node.entries[0])[2:], graph.shape((node.index, 0))[2:]
    # A little more than the ratio, since the extent is rounded down; aligned corners don't go by it.
    scales = [1, 1, *((b + 1e-3) / a for a, b in zip(size, result))]
    corners = "align_corners" if numbers(node, "align_corners", True) else "half_pixel"
    return graph.emit("Resize", [inputs[0], "", graph.constant(node.name + "_scales", scales)], node.name,
                      mode="linear", coordinate_transformation_mode=corners)


@_operator("Pad", "pad")
def _pad(graph: OnnxGraph, node: Node, inputs: Inputs) -> str:
    width, mode = _tuple(node, "pad_width"), numbers(node, "mode", "constant")
    value = graph.constant(node.name + "_value", float(numbers(node, "constant_value", 0)))
    pads = _ints(graph, node.name + "_pads", [*width[::2], *width[1::2]])
    return graph.emit("Pad", [inputs[0], pads, value], node.name, mode=mode)


# Shapes.


@_operator("Dropout", "identity", "_copy", "BlockGrad", "stop_gradient", "Cast", "amp_cast", "make_loss")
def _identity(graph: OnnxGraph, node: Node, inputs: Inputs) -> str:
    if numbers(node, "mode", "training") == "always" or numbers(node, "dtype", "float32") != "float32":
        raise graph.refuse(node, f"{node.op} in this form")
    return inputs[0]


@_operator("Flatten", "flatten")
def _flatten(graph: OnnxGraph, node: Node, inputs: Inputs) -> str:
    return graph.emit("Flatten", [inputs[0]], node.name, axis=1)


@_operator("Reshape", "reshape", "expand_dims", "squeeze")
def _to_shape(graph: OnnxGraph, node: Node, inputs: Inputs) -> str:
    target = graph.target((node.index, 0))
    if target.count(-1) > 1:
        raise graph.refuse(node, "a shape that depends on the number of images in several places")
    # 0 copies the number of images, so that no extent has to be computed.
    return _reshape(graph, node.name, inputs[0], [0, *target[1:]] if target[:1] == [-1] and graph.shape(
        node.entries[0])[0] == graph.shape((node.index, 0))[0] else target)


def _reshape(graph, name, data, shape) -> str:
    return graph.emit("Reshape", [data, _ints(graph, name + "_shape", shape)], name)


@_operator("transpose", "SwapAxis", "swapaxes")
def _transpose(graph: OnnxGraph, node: Node, inputs: Inputs) -> str:
    rank = len(graph.shape(node.entries[0]))
    order = list(range(rank))
    if node.op == "transpose":
        order = list(_tuple(node, "axes", ()) or reversed(order))
    else:
        a, b = numbers(node, "dim1", 0), numbers(node, "dim2", 0)
        order[a], order[b] = order[b], order[a]
    return graph.emit("Transpose", [inputs[0]], node.name, perm=order)


@_operator("Concat", "concat")
def _concat(graph: OnnxGraph, node: Node, inputs: Inputs) -> str:
    return graph.emit("Concat", inputs[:], node.name, axis=numbers(node, "dim", 1))


@_operator("SliceChannel", "split")
def _split(graph: OnnxGraph, node: Node, inputs: Inputs) -> list[str]:
    count, axis = numbers(node, "num_outputs"), numbers(node, "axis", 1)
    first = graph.emit("Split", [inputs[0]], node.name, outputs=count, axis=axis)
    results = [first, *(f"{first}:{i}" for i in range(1, count))]
    if not numbers(node, "squeeze_axis", False):
        return results
    return [graph.emit("Squeeze", [result, _ints(graph, node.name + "_axis", [axis])], node.name + "_squeezed")
            for result in results]


@_operator("slice_axis")
def _slice_axis(graph: OnnxGraph, node: Node, inputs: Inputs) -> str:
    return _sliced(graph, node, inputs[0], [numbers(node, "begin")], [numbers(node, "end")], [1],
                   [numbers(node, "axis")])


@_operator("slice", "crop")
def _slice(graph: OnnxGraph, node: Node, inputs: Inputs) -> str:
    begin, end = _tuple(node, "begin"), _tuple(node, "end")
    step = _tuple(node, "step", ()) or (1,) * len(begin)
    return _sliced(graph, node, inputs[0], begin, end, [s or 1 for s in step], range(len(begin)))


def _sliced(graph, node, data, begin, end, step, axes) -> str:
    if any(s < 0 for s in step):
        raise graph.refuse(node, "a slice backwards")
    limits = [("begin", [b or 0 for b in begin]), ("end", [_END if e is None else e for e in end]), ("axes", axes),
              ("step", step)]
    return graph.emit("Slice", [data, *(_ints(graph, f"{node.name}_{what}", value) for what, value in limits)],
                      node.name)


@_operator("mean", "sum", "sum_axis", "max", "min")
def _reduce(graph: OnnxGraph, node: Node, inputs: Inputs) -> str:
    rank = len(graph.shape(node.entries[0]))
    axes = numbers(node, "axis", ())
    axes = [a % rank for a in (axes if isinstance(axes, tuple) else range(rank) if axes is None else (axes,))]
    axes = axes or list(range(rank))
    if numbers(node, "exclude", False):
        axes = [a for a in range(rank) if a not in axes]
    keep = int(bool(numbers(node, "keepdims", False)))
    if node.op.startswith("sum"):
        return graph.emit("ReduceSum", [inputs[0], _ints(graph, node.name + "_axes", axes)], node.name, keepdims=keep)
    op = {"mean": "ReduceMean", "max": "ReduceMax", "min": "ReduceMin"}[node.op]
    return graph.emit(op, [inputs[0]], node.name, axes=axes, keepdims=keep)


@_operator("ones_like", "zeros_like")
def _like(graph: OnnxGraph, node: Node, inputs: Inputs) -> str:
    # Of one image: it is broadcast where it is used.
    shape = graph.shape((node.index, 0))
    return graph.constant(node.name, np.full((1, *shape[1:]), float(node.op == "ones_like")))


@_operator("dot", "batch_dot")
def _dot(graph: OnnxGraph, node: Node, inputs: Inputs) -> str:
    data = []
    for which, (name, setting) in enumerate(zip(inputs, ("transpose_a", "transpose_b"))):
        rank = len(graph.shape(node.entries[which]))
        if node.op == "dot" and rank != 2:
            raise graph.refuse(node, f"dot of {rank} axes")
        order = [*range(rank - 2), rank - 1, rank - 2]
        data.append(graph.emit("Transpose", [name], f"{node.name}_{setting}", perm=order)
                    if numbers(node, setting, False) else name)
    return graph.emit("MatMul", data, node.name)


def _tuple(node: Node, setting: str, default: Any = None) -> tuple[Any, ...]:
    value = numbers(node, setting, default)
    value = value if isinstance(value, (tuple, list)) else (value,)
    return tuple(value) or tuple(default or ())


def _ints(graph: OnnxGraph, name: str, value: Any) -> str:
    return graph.constant(name, list(value), _INT64)
