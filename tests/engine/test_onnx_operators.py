"""Every operator in its ONNX form gives what MXNet gives, with each of its settings."""
from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest

from gluon_ft.engine.onnx_operators import convert
from gluon_ft.errors import NetworkError

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

SHAPE = (3, 4, 7, 6)
data = mx.sym.var("data")


def both(symbol, shape=SHAPE, low=-2.0, high=2.0):
    """(MXNet's result, ONNX Runtime's), for a batch of another size than any that shapes were inferred for."""
    random = np.random.RandomState(0)
    shapes, _, states = symbol.infer_shape(data=shape)
    values = {name: random.uniform(0.5, 1.5, given).astype(np.float32) for name, given in
              [*zip(symbol.list_arguments(), shapes), *zip(symbol.list_auxiliary_states(), states)]
              if name not in ("data", "softmax_label")}
    images = random.uniform(low, high, (5, *shape[1:])).astype(np.float32)
    graph = convert(symbol, shape, {name: value.shape for name, value in values.items()})
    session = onnxruntime.InferenceSession(graph.model(values).SerializeToString(), providers=["CPUExecutionProvider"])
    given = {name: mx.nd.array(value) for name, value in {**values, "data": images}.items()}
    args = {name: given.get(name, mx.nd.zeros(5)) for name in symbol.list_arguments()}
    states = {name: given[name] for name in symbol.list_auxiliary_states()}
    bound = symbol.bind(mx.cpu(), args, aux_states=states)
    return bound.forward(is_train=False)[0].asnumpy(), session.run(None, {"data": images})[0]


def conv(**settings):
    return mx.sym.Convolution(data, name="conv", **{"num_filter": 8, "kernel": (3, 3), **settings})


def pool(**settings):
    return mx.sym.Pooling(data, name="pool", **settings)


CASES = {
    "convolution": conv(),
    "convolution with stride and padding": conv(stride=(2, 1), pad=(1, 2), no_bias=True),
    "grouped": conv(num_group=4, pad=(1, 1)),
    "dilated": conv(kernel=(2, 2), dilate=(2, 3)),
    "convolution, BatchNorm folded": mx.sym.BatchNorm(conv(), fix_gamma=False, name="bn"),
    "convolution without bias, BatchNorm of fixed gamma": mx.sym.BatchNorm(conv(no_bias=True), name="bn"),
    "convolution that is used twice, BatchNorm": (lambda c: mx.sym.broadcast_add(mx.sym.BatchNorm(c, name="bn"), c))(
        conv()),
    "BatchNorm alone": mx.sym.BatchNorm(data, fix_gamma=False, eps=1e-2, name="bn"),
    "BatchNorm of fixed gamma": mx.sym.BatchNorm(data, name="bn"),
    "computed kernel": mx.sym.Convolution(
        data, mx.sym.concat(mx.sym.var("w", shape=(8, 4, 2, 3)) * 0, mx.sym.var("v", shape=(8, 4, 2, 3)), dim=2),
        kernel=(4, 3), num_filter=8, no_bias=True, pad=(1, 1), name="conv"),
    "dense": mx.sym.FullyConnected(data, num_hidden=5, name="fc"),
    "dense, BatchNorm folded": mx.sym.BatchNorm(mx.sym.FullyConnected(data, num_hidden=5, name="fc"), name="bn"),
    "dense without bias": mx.sym.FullyConnected(data, num_hidden=5, no_bias=True, name="fc"),
    "dense over the last axis": mx.sym.FullyConnected(data, num_hidden=5, flatten=False, name="fc"),
    "max pooling": pool(kernel=(2, 2), stride=(2, 2), pool_type="max"),
    "max pooling, full": pool(kernel=(3, 3), stride=(2, 2), pool_type="max", pooling_convention="full"),
    "max pooling, full and padded": pool(kernel=(3, 2), stride=(3, 2), pad=(1, 1), pool_type="max",
                                         pooling_convention="full"),
    "mean pooling": pool(kernel=(3, 3), stride=(2, 2), pad=(1, 1), pool_type="avg"),
    "mean pooling without padding counted": pool(kernel=(3, 3), stride=(2, 2), pad=(1, 1), pool_type="avg",
                                                 count_include_pad=False),
    "mean pooling, full": pool(kernel=(2, 3), stride=(2, 2), pool_type="avg", pooling_convention="full"),
    "mean pooling, full and padded": pool(kernel=(4, 3), stride=(3, 2), pad=(1, 1), pool_type="avg",
                                          pooling_convention="full"),
    "mean pooling, full, padding not counted": pool(kernel=(4, 3), stride=(3, 2), pad=(1, 1), pool_type="avg",
                                                    pooling_convention="full", count_include_pad=False),
    "global pooling": pool(global_pool=True, pool_type="avg", kernel=(1, 1)),
    "global max pooling": pool(global_pool=True, pool_type="max", kernel=(1, 1)),
    "adaptive pooling to 1": mx.sym.contrib.AdaptiveAvgPooling2D(data, output_size=1),
    "upsampling": mx.sym.UpSampling(data, scale=3, sample_type="nearest"),
    "bilinear": mx.sym.contrib.BilinearResize2D(data, height=13, width=11),
    "bilinear, smaller": mx.sym.contrib.BilinearResize2D(data, height=5, width=4),
    "pad": mx.sym.Pad(data, mode="constant", constant_value=1.5, pad_width=(0, 0, 0, 0, 1, 2, 0, 3)),
    "pad, edge": mx.sym.Pad(data, mode="edge", pad_width=(0, 0, 0, 0, 1, 2, 3, 0)),
    "pad, reflect": mx.sym.Pad(data, mode="reflect", pad_width=(0, 0, 0, 0, 1, 2, 3, 0)),
    "clip": mx.sym.clip(data, 0, 1),
    "dropout": mx.sym.Dropout(data, p=0.9),
    "reshape": mx.sym.reshape(data, shape=(0, 2, -1, 6)),
    "reshape, special": mx.sym.reshape(data, shape=(0, -4, 2, -1, -2)),
    "reshape, merged": mx.sym.reshape(data, shape=(0, -3, -2)),
    "reshape with the batch": mx.sym.reshape(data, shape=(-1, 6)),
    "expand_dims": mx.sym.expand_dims(data, axis=2),
    "squeeze": mx.sym.squeeze(mx.sym.expand_dims(data, axis=2), axis=2),
    "transpose": mx.sym.transpose(data, axes=(0, 2, 3, 1)),
    "swapaxes": mx.sym.SwapAxis(data, dim1=1, dim2=3),
    "concat": mx.sym.concat(data, mx.sym.relu(data), data, dim=2),
    "slice_axis": mx.sym.slice_axis(data, axis=1, begin=1, end=None),
    "slice": mx.sym.slice(data, begin=(None, 0, 1, -4), end=(None, 3, None, -1)),
    "slice with steps": mx.sym.slice(data, begin=(0, 0, 1), end=(None, None, None), step=(1, 1, 2)),
    "split": (lambda s: s[1] - s[0])(mx.sym.SliceChannel(data, num_outputs=2, axis=1)),
    "split, squeezed": (lambda s: s[2] - s[0])(mx.sym.SliceChannel(data, num_outputs=4, axis=1, squeeze_axis=True)),
    "mean": mx.sym.mean(data, axis=(2, 3)),
    "mean, kept": mx.sym.mean(data, axis=1, keepdims=True),
    "sum of the others": mx.sym.sum(data, axis=(0, 1), exclude=True),
    "max over an axis": mx.sym.max(data, axis=-1),
    "softmax": mx.sym.softmax(data, axis=1),
    "softmax with temperature": mx.sym.softmax(data, temperature=2.5),
    "log_softmax": mx.sym.log_softmax(mx.sym.Flatten(data)),
    "SoftmaxOutput": mx.sym.SoftmaxOutput(mx.sym.Flatten(data), name="softmax"),
    "SoftmaxActivation": mx.sym.SoftmaxActivation(data, mode="channel"),
    "ones_like": mx.sym.broadcast_add(mx.sym.ones_like(data), mx.sym.sigmoid(data)),
    "add_n": mx.sym.add_n(data, mx.sym.relu(data), data),
    "L2Normalization": mx.sym.L2Normalization(data, mode="channel"),
    "LRN": mx.sym.LRN(data, nsize=3, alpha=0.1, beta=0.7, knorm=1.5),
    "InstanceNorm": mx.sym.InstanceNorm(data, name="norm", eps=1e-3),
    "GroupNorm": mx.sym.GroupNorm(data, name="norm", num_groups=2),
    "LayerNorm": mx.sym.LayerNorm(data, name="norm", axis=-1),
    "gelu": mx.sym.LeakyReLU(data, act_type="gelu"),
    "prelu": mx.sym.LeakyReLU(data, act_type="prelu", name="prelu"),
    "hard_sigmoid": mx.sym.hard_sigmoid(data, alpha=0.3, beta=0.4),
    "batch_dot": mx.sym.batch_dot(*[mx.sym.reshape(data, shape=(0, 0, -1))] * 2, transpose_b=True),
    **{f"activation {kind}": mx.sym.Activation(data, act_type=kind) for kind in
       ("relu", "sigmoid", "tanh", "softrelu", "softsign")},
    **{f"leaky {kind}": mx.sym.LeakyReLU(data, act_type=kind, slope=0.3) for kind in ("leaky", "elu", "selu")},
    **{name: getattr(mx.sym, name)(data) for name in ("relu", "sigmoid", "tanh", "exp", "negative", "abs", "erf",
                                                      "square", "identity", "BlockGrad", "floor", "ceil")},
    "scalars": 3 - (2.0 / ((data * 0.5 + 4 - 1) / 3)) ** 2,
    "minimum and maximum": mx.sym.maximum(mx.sym.minimum(data, 0.7), -0.3),
    "two arrays": data * mx.sym.sigmoid(data) / mx.sym.exp(data) - data + mx.sym.broadcast_mul(
        data, mx.sym.mean(data, axis=(2, 3), keepdims=True)),
}


@pytest.mark.parametrize("case", CASES)
def test_operator(case):
    mxnet, onnx = both(CASES[case])
    assert onnx.shape == mxnet.shape
    np.testing.assert_allclose(onnx, mxnet, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("symbol, words", [
    (mx.sym.topk(data, k=2, name="best"), ["operator topk", "topk 'best'"]),
    (mx.sym.Pooling(data, pool_type="lp", p_value=2, kernel=(2, 2), name="pool"), ["pooling 'lp'", "'pool'"]),
    (mx.sym.Dropout(data, mode="always", name="drop"), ["Dropout", "'drop'"]),
    (mx.sym.Convolution(data, mx.sym.slice_axis(data, axis=0, begin=0, end=2), kernel=(7, 6), num_filter=2,
                        no_bias=True, name="own"), ["weight that depends on the input", "'own'"]),
    (mx.sym.contrib.AdaptiveAvgPooling2D(data, output_size=4, name="odd"), ["adaptive pooling", "'odd'"]),
])
def test_what_has_no_onnx_form_is_named_with_its_layer(symbol, words):
    with pytest.raises(NetworkError) as error:
        both(symbol)
    assert all(word in str(error.value) for word in words)


def test_zeros_of_a_computed_kernel_become_padding():
    weight = mx.sym.var("w", shape=(8, 4, 3, 3))
    padded = mx.sym.concat(mx.sym.slice_axis(weight, axis=2, begin=0, end=1) * 0, weight, dim=2)
    symbol = mx.sym.Convolution(data, padded, kernel=(4, 3), num_filter=8, no_bias=True, pad=(1, 1), stride=(2, 2))
    graph = convert(symbol, SHAPE, {"w": (8, 4, 3, 3)})
    nodes = graph.model({"w": np.ones((8, 4, 3, 3), np.float32)}).graph.node
    node, = (node for node in nodes if node.op_type == "Conv")
    found = {attribute.name: list(attribute.ints) for attribute in node.attribute}
    assert (found["kernel_shape"], found["pads"]) == ([3, 3], [0, 1, 1, 1])
    np.testing.assert_allclose(*both(symbol), rtol=1e-5, atol=1e-5)
