"""Numbers and types of NumPy's where MXNet's own tests have them: equal results with NumPy 1 and NumPy 2."""
from __future__ import annotations

import copy
import json
import pickle

import mxnet as mx
import numpy as np
import pytest
import scipy.sparse
from mxnet import autograd, gluon, nd, test_utils
from mxnet.gluon import nn
from mxnet.gluon.data.vision import transforms

I8, I32, I64, U8 = np.int8, np.int32, np.int64, np.uint8
F16, F32, F64 = np.float16, np.float32, np.float64
ROWS = np.arange(12, dtype="float32").reshape(3, 4)
DATA = mx.sym.var("data")


def changed(key, value, dtype="float32"):
    array = nd.array(ROWS, dtype=dtype)
    array[key] = value
    return array.asnumpy()


def shape(layer, *given):
    layer.initialize()
    layer.hybridize()
    return layer(nd.ones(given)).shape


def filled(initializer):
    array = nd.zeros((4, 4))
    initializer(mx.init.InitDesc("x_weight"), array)
    return array.asnumpy()


def looked_up(array, key):
    return array[key].asnumpy()


N = nd.array(ROWS)
INDICES = {
    "an array": np.array([0, 2]),
    "two arrays": (np.array([0, 2]), np.array([1, 3])), "lists": ([I64(0), I32(2)], [1, 3]), "negative": I64(-1),
    "a two-dimensional array": np.array([[0, 1], [2, 0]]), "with None": (None, I64(1)), "ellipsis": (..., I64(2)),
    "uint8 slices": (slice(U8(0), U8(3)), slice(U8(3), U8(0), I8(-1))), "an array and a number": ([0, 2], I64(1)),
}
CHANGES = {
    "an array of rows": (np.array([0, 2]), np.ones((2, 4))), "columns": ((slice(None), np.array([1, 3])), F16(4)),
    "a list of lists": (slice(None), [[1] * 4] * 3), "a range": ((..., I64(0)), range(3)),
}
WRAPPED = {
    "nd.array": lambda: nd.array([300, -1], dtype="uint8").asnumpy(),
    "one number": lambda: [*nd.array([[300]], dtype=U8).asnumpy().ravel().tolist(), 255],
    "floats": lambda: nd.array([300.9, -1.2], dtype="uint8").asnumpy(),
    "mx.np.array": lambda: mx.np.array([300, -1], dtype="uint8").asnumpy(),
    "a changed row": lambda: changed(1, [300, -1, 3, 4], "uint8")[1, :2],
    "csr": lambda: nd.sparse.csr_matrix(([300, -1], [0, 1], [0, 2]), shape=(1, 2), dtype="uint8").asnumpy().ravel(),
}
OPERATORS = {
    "kernel of an array's numbers": lambda: (nd.Pooling(nd.ones((1, 1, 4, 4)), kernel=list(np.array([2, 2]))).shape,
                                             (1, 1, 3, 3)),
    "histogram": lambda: (nd.histogram(N, bins=I64(3), range=(F32(0), F64(12)))[0].asnumpy().tolist(), [4, 4, 4]),
    "while_loop": lambda: (nd.contrib.while_loop(lambda i: i < 3, lambda i: ([i], [i + 1]), [nd.array([0])],
                                                 max_iterations=I64(3))[0][0].asnumpy().ravel().tolist(), [0, 1, 2]),
    "foreach": lambda: (nd.contrib.foreach(lambda x, s: (x + s, s + F32(1)), N, nd.zeros(4))[1].asnumpy().tolist(),
                        [3] * 4),
    "seeds": lambda: (mx.random.seed(np.random.randint(0, 2 ** 31)), None),
    "random counts": lambda: (nd.random.multinomial(nd.array([.5, .5]), shape=I64(4)).shape, (4,)),
    "random sizes": lambda: (nd.random.poisson(F32(2), shape=tuple(np.array([2, 3]))).shape, (2, 3)),
    "symbol: split_v2": lambda: (mx.sym.split_v2(DATA, (I64(1), I64(2)), axis=I64(1)).attr("axis"), "1"),
    "symbol: scalars": lambda: ({(DATA * F32(2)).attr("scalar"), (I64(2) ** DATA).attr("scalar")}, {"2.0", "2"}),
    "symbol: inferred shapes": lambda: ((DATA + 1).infer_shape(data=(I64(2), U8(3)))[1], [(2, 3)]),
    "symbol: variable": lambda: (mx.sym.var("x", shape=(I64(1),), lr_mult=F32(.5)).attr("__shape__"), "(1,)"),
    "symbol: reshaped executor": lambda: (reshaped_executor(), (3, 2)),
    "sgd in half precision": lambda: (half_precision().dtype, np.float16),
    "pickled optimiser": lambda: (pickle.loads(pickle.dumps(mx.optimizer.SGD(learning_rate=F32(.5)))).lr, .5),
    "constant initialiser": lambda: (filled(mx.init.Constant(F32(3)))[0, 0], 3),
    "dumped initialiser": lambda: (json.loads(mx.init.Xavier(magnitude=F64(2)).dumps())[1]["magnitude"], 2),
    "compressed gradients": lambda: (mx.kv.create("device").set_gradient_compression(
        {"type": "2bit", "threshold": F32(.5)}), None),
    "profiler": lambda: (counted(), None),
    "csr from SciPy": lambda: (nd.sparse.csr_matrix(scipy.sparse.csr_matrix(ROWS)).asscipy().sum(), ROWS.sum()),
    "quantised": lambda: (nd.contrib.quantize_v2(N, min_calib_range=F32(0), max_calib_range=F64(12))[0].dtype, I8),
}
LAYERS = {
    "transposed": lambda: (shape(nn.Conv2DTranspose(2, I64(3), output_padding=I64(1), strides=I64(2)), 1, 2, 4, 4),
                           (1, 2, 10, 10)),
    "reflected": lambda: (shape(nn.ReflectionPad2D(I64(2)), 1, 2, 5, 5), (1, 2, 9, 9)),
    "group norm": lambda: (shape(nn.GroupNorm(I64(2)), 1, 4, 2, 2), (1, 4, 2, 2)),
    "pixel shuffle": lambda: (shape(gluon.contrib.nn.PixelShuffle2D((I64(2), I64(1))), 1, 4, 2, 2), (1, 2, 4, 2)),
    "bidirectional LSTM": lambda: (shape(gluon.rnn.LSTM(I64(3), I64(2), bidirectional=np.bool_(True)), 3, 1, 2),
                                   (3, 1, 6)),
    "huber": lambda: (gluon.loss.HuberLoss(F32(1))(nd.ones((1, 2)), nd.zeros((1, 2))).asscalar(), .5),
    "constant": lambda: (gluon.Constant("c", [[F32(1)]]).shape, (1, 1)),
    "centre crop": lambda: (transforms.CenterCrop((I64(4), I64(6)))(nd.ones((8, 9, 3), dtype=U8)).shape, (6, 4, 3)),
    "resized": lambda: (transforms.Resize(I64(6), keep_ratio=True)(nd.ones((8, 12, 3), dtype=U8)).shape, (6, 9, 3)),
    "sampled": lambda: (list(gluon.data.BatchSampler(gluon.data.SequentialSampler(I64(5)), I64(2))),
                        [[0, 1], [2, 3], [4]]),
    "sharded": lambda: (len(gluon.data.SimpleDataset(range(5)).shard(I64(2), I64(0))), 3),
    "batched NumPy labels": lambda: ([b[1].dtype for b in gluon.data.DataLoader(
        gluon.data.ArrayDataset(ROWS, [I64(1), I64(2), I64(3)]), I64(3))], [np.int64]),
}


def reshaped_executor():
    executor = (DATA * I64(2)).simple_bind(mx.cpu(), data=(I64(2), I64(2)))
    return executor.reshape(data=(I64(3), I64(2)), allow_up_sizing=True, partial_shaping=True).forward()[0].shape


def half_precision():
    optimizer, weight = mx.optimizer.SGD(learning_rate=F32(.5), multi_precision=True), nd.ones(2, dtype="float16")
    state = optimizer.create_state_multi_precision(0, weight)
    optimizer.update_multi_precision(0, weight, nd.ones(2, dtype="float16"), state)
    return weight


def counted():
    counter = mx.profiler.Domain("d").new_counter("c", I64(3))
    counter.increment(I64(2))


@pytest.mark.parametrize("key", INDICES.values(), ids=INDICES)
def test_indices(key):
    assert np.array_equal(looked_up(N, key), ROWS[key])


@pytest.mark.parametrize(("key", "value"), CHANGES.values(), ids=CHANGES)
def test_changes(key, value):
    expected = ROWS.copy()
    expected[key] = value
    assert np.array_equal(changed(key, value), expected)


@pytest.mark.filterwarnings("ignore:NumPy will stop allowing conversion")
@pytest.mark.parametrize("made", WRAPPED.values(), ids=WRAPPED)
def test_integers_out_of_range_wrap_in_mxnets_arrays(made):
    assert list(made()) == [44, 255]


def test_what_no_64_bits_hold_is_refused():
    with pytest.raises(TypeError, match="source_array must be array like object"):
        nd.array([2 ** 70], dtype="int32")


@pytest.mark.parametrize("run", [*OPERATORS.values(), *LAYERS.values()], ids=[*OPERATORS, *LAYERS])
def test_feature(run):
    found, expected = run()
    assert found == expected


@pytest.mark.parametrize("name", ["loss", "mae", "rmse", "ce", "nll_loss"])
def test_metrics_add_up_in_double_precision(name):
    metric = mx.metric.create(name)
    labels, scores = (nd.array([0.0]), nd.array([0.1])) if name in ("loss", "mae", "rmse") else (
        nd.array([0]), nd.array([[0.7, 0.3]]))
    metric.update([labels], [scores])
    once = metric.get()[1]
    for _ in range(300):
        metric.update([labels], [scores])
    assert metric.get()[1] == pytest.approx(once, rel=1e-12)
    for other in (pickle.loads(pickle.dumps(metric)), copy.deepcopy(metric)):
        assert other.get() == metric.get() and other.get_global() == metric.get_global()


def test_metrics_print_plain_numbers():
    metric = mx.metric.Accuracy()
    metric.update([nd.array([0, 1])], [nd.array([[.9, .1], [.1, .9]])])
    assert str(metric) == "EvalMetric: {'accuracy': 1.0}"
    metric = mx.metric.CompositeEvalMetric([metric, mx.metric.F1()])
    assert str(metric).startswith("EvalMetric: {'accuracy': 1.0, 'f1'")


def test_a_metric_without_a_sum_says_so():
    with pytest.raises(AttributeError, match="'EvalMetric' object has no attribute 'sum_metric'"):
        _ = mx.metric.EvalMetric.__new__(mx.metric.EvalMetric).sum_metric


def test_mxnets_own_helpers_of_tests():
    test_utils.assert_almost_equal(N, ROWS)
    with pytest.raises(AssertionError, match="exceeds tolerance"):
        test_utils.assert_almost_equal(N, ROWS + 1)
    test_utils.check_numeric_gradient(mx.sym.FullyConnected(DATA, num_hidden=I64(2), name="f"), {
        "data": np.random.rand(2, 3), "f_weight": np.random.rand(2, 3), "f_bias": np.random.rand(2)})
    test_utils.check_symbolic_backward(mx.sym.square(DATA), [ROWS], [np.ones_like(ROWS)], [2 * ROWS])
    test_utils.check_consistency(mx.sym.square(DATA), [{"ctx": mx.cpu(), "data": (2, 3), "type_dict": {"data": t}}
                                                       for t in (F64, F32)])
    assert test_utils.rand_ndarray((I64(3), I64(4)), "csr", density=F32(.5)).shape == (3, 4)
    x = nd.array([1.0, 2.0])
    x.attach_grad()
    with autograd.record():
        (x * F32(3)).sum().backward()
    assert test_utils.same(x.grad.asnumpy(), F32([3, 3]))
