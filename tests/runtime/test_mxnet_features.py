"""What MXNet offers, run with this environment's NumPy: a table, the same for NumPy 1 and NumPy 2.

Each row is one feature: what is done, and the values that must come out. NumPy numbers stand wherever an old program
may have them: shapes, kernels, numbers of units, axes, rates.
"""
from __future__ import annotations

import struct

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon, nd
from mxnet.gluon import nn

TWO, THREE, FOUR = np.int64(2), np.int32(3), np.prod((2, 2))
HALF = np.float32(0.5)
ROWS = np.arange(6, dtype="float32").reshape(2, 3)


def shape_after(layer, *shape):
    layer.initialize()
    return layer(nd.ones(shape)).shape


def hybrid_shape(layer, *shape):
    layer.hybridize()
    return shape_after(layer, *shape)


GLUON = {
    "Dense of a NumPy number of units": lambda: (shape_after(nn.Dense(np.int64(10)), 2, 3), (2, 10)),
    "Dense hybridised": lambda: (hybrid_shape(nn.Dense(FOUR, in_units=THREE), 2, 3), (2, 4)),
    "Dense of in_units": lambda: (nn.Dense(2, in_units=np.int64(5)).weight.shape, (2, 5)),
    "Conv2D": lambda: (shape_after(nn.Conv2D(np.int64(4), kernel_size=(THREE, THREE), strides=TWO, padding=(1, TWO)),
                                   1, 3, 8, 8), (1, 4, 4, 5)),
    "Conv2D hybridised": lambda: (hybrid_shape(nn.Conv2D(FOUR, (THREE, 3), in_channels=TWO), 1, 2, 6, 6), (1, 4, 4, 4)),
    "Conv1D dilated": lambda: (shape_after(nn.Conv1D(FOUR, 3, dilation=(TWO,)), 1, 2, 9), (1, 4, 5)),
    "Conv2DTranspose": lambda: (shape_after(nn.Conv2DTranspose(TWO, (FOUR, 4), strides=(TWO, 2), padding=(1, 1)),
                                            1, 3, 5, 5), (1, 2, 10, 10)),
    "Conv2D in groups": lambda: (shape_after(nn.Conv2D(FOUR, 1, groups=TWO, in_channels=FOUR), 1, 4, 2, 2),
                                 (1, 4, 2, 2)),
    "MaxPool2D": lambda: (shape_after(nn.MaxPool2D((TWO, 2), strides=(TWO, TWO)), 1, 1, 4, 4), (1, 1, 2, 2)),
    "AvgPool2D": lambda: (shape_after(nn.AvgPool2D(THREE, 1, padding=(np.int8(1), 1)), 1, 1, 4, 4), (1, 1, 4, 4)),
    "GlobalAvgPool2D": lambda: (nn.GlobalAvgPool2D()(nd.array(ROWS.reshape(1, 2, 3, 1))).asnumpy().ravel(), [1, 4]),
    "BatchNorm": lambda: (shape_after(nn.BatchNorm(axis=np.int64(1), momentum=np.float64(0.9), epsilon=HALF), 2, 3),
                          (2, 3)),
    "LayerNorm": lambda: (shape_after(nn.LayerNorm(in_channels=THREE), 2, 3), (2, 3)),
    "InstanceNorm": lambda: (shape_after(nn.InstanceNorm(), 2, 3, 4), (2, 3, 4)),
    "Embedding": lambda: (shape_after(nn.Embedding(np.int64(7), FOUR), 2, 3), (2, 3, 4)),
    "Dropout": lambda: (nn.Dropout(HALF)(nd.ones((2, 2))).asnumpy(), np.ones((2, 2))),
    "LeakyReLU": lambda: (nn.LeakyReLU(HALF)(nd.array([-2.0, 2.0])).asnumpy(), [-1, 2]),
    "PReLU": lambda: (shape_after(nn.PReLU(), 2, 3), (2, 3)),
    "Flatten": lambda: (nn.Flatten()(nd.ones((2, 3, 4))).shape, (2, 12)),
    "Lambda": lambda: (nn.HybridLambda("relu")(nd.array([-1.0, 1.0])).asnumpy(), [0, 1]),
    "Parameter of a NumPy shape": lambda: (gluon.Parameter("w", shape=(FOUR, TWO)).shape, (4, 2)),
    "LSTM": lambda: (shape_after(gluon.rnn.LSTM(FOUR, num_layers=TWO), 5, 2, 3), (5, 2, 4)),
    "GRUCell unrolled": lambda: (gru_outputs(), [(2, 4)] * 3),
    "split_and_load": lambda: ([p.shape for p in gluon.utils.split_and_load(ROWS, [mx.cpu(0), mx.cpu(1)])],
                               [(1, 3), (1, 3)]),
    "clip_global_norm": lambda: (gluon.utils.clip_global_norm([nd.array([3.0, 4.0])], np.float64(1)), 5.0),
    "softmax cross-entropy": lambda: (gluon.loss.SoftmaxCrossEntropyLoss()(nd.zeros((2, FOUR)), nd.array([0, 3]))
                                      .asnumpy(), [np.log(4)] * 2),
    "L2 loss, weighted": lambda: (gluon.loss.L2Loss(weight=HALF)(nd.array([[2.0]]), nd.zeros((1, 1))).asnumpy(), [1]),
    "model zoo": lambda: (shape_after(gluon.model_zoo.vision.get_model("resnet18_v2", classes=np.int64(5)),
                                      1, 3, 32, 32), (1, 5)),
    "trainer step": lambda: (after_steps("sgd", learning_rate=np.float64(0.5)), [0.5, 1.5]),
}


def gru_outputs():
    cell = gluon.rnn.GRUCell(FOUR, input_size=THREE)
    cell.initialize()
    outputs, _ = cell.unroll(np.int64(3), nd.ones((2, 3, 3)), layout="NTC", merge_outputs=False)
    return [o.shape for o in outputs]


def after_steps(name, steps=1, **options):
    """The parameters [1, 2] after steps down the gradient [1, 1]."""
    parameter = gluon.Parameter("w", shape=(TWO,))
    parameter.initialize(init=mx.init.Constant(nd.array([1.0, 2.0])))
    trainer = gluon.Trainer([parameter], name, options)
    for _ in range(steps):
        with autograd.record():
            loss = parameter.data().sum()
        loss.backward()
        trainer.step(np.int64(1))
    return parameter.data().asnumpy()


OPTIMISERS = {
    **{name: lambda name=name: (bool((after_steps(name, 2, learning_rate=np.float32(0.1)) < [1, 2]).all()), True)
       for name in ("sgd", "nag", "adam", "adagrad", "rmsprop", "adamax", "nadam", "ftrl", "signum", "lamb", "ftml",
                    "dcasgd", "lbsgd", "lars")},
    "adadelta": lambda: (bool((after_steps("adadelta", 2) < [1, 2]).all()), True),
    "momentum and decay": lambda: (after_steps("sgd", learning_rate=HALF, momentum=np.float64(0.9), wd=HALF),
                                   [0.25, 1.0]),
    "factor schedule": lambda: (mx.lr_scheduler.FactorScheduler(step=np.int64(2), factor=HALF, base_lr=1.0)(5), 0.25),
    "cosine schedule": lambda: (mx.lr_scheduler.CosineScheduler(10, base_lr=np.float64(1), final_lr=HALF)(5), 0.75),
    "clipped gradient": lambda: (after_steps("sgd", learning_rate=1.0, clip_gradient=HALF), [0.5, 1.5]),
}

NDARRAY = {
    "zeros of np.prod": lambda: (nd.zeros((np.prod((2, 3)),)).shape, (6,)),
    "ones": lambda: (nd.ones((TWO, THREE)).shape, (2, 3)),
    "full": lambda: (nd.full((TWO,), np.float32(7)).asnumpy(), [7, 7]),
    "arange": lambda: (nd.arange(np.int64(0), np.int64(6), TWO).asnumpy(), [0, 2, 4]),
    "reshape": lambda: (nd.arange(6).reshape((THREE, -1)).shape, (3, 2)),
    "reshape of two numbers": lambda: (nd.arange(6).reshape(TWO, THREE).shape, (2, 3)),
    "transpose": lambda: (nd.ones((1, 2, 3)).transpose((np.int64(2), 0, np.int64(1))).shape, (3, 1, 2)),
    "index by a NumPy number": lambda: (nd.array(ROWS)[np.int64(1)].asnumpy(), [3, 4, 5]),
    "index by two": lambda: (nd.array(ROWS)[np.int64(1), np.int32(2)].asscalar(), 5),
    "slice by NumPy numbers": lambda: (nd.array(ROWS)[:, np.int64(1):np.int64(3)].asnumpy(), ROWS[:, 1:3]),
    "slice with a step": lambda: (nd.arange(6)[np.int64(4):np.int64(0):np.int64(-2)].asnumpy(), [4, 2]),
    "index by an array": lambda: (nd.array(ROWS)[np.array([1, 0])].asnumpy(), ROWS[::-1]),
    "index by a list": lambda: (nd.array(ROWS)[:, [TWO, 0]].asnumpy(), ROWS[:, [2, 0]]),
    "set by a NumPy number": lambda: (set_item((np.int64(0), np.int64(1)), np.float32(9)), [[0, 9, 2], [3, 4, 5]]),
    "set a slice": lambda: (set_item(slice(np.int64(1), np.int64(2)), np.zeros(3)), [[0, 1, 2], [0, 0, 0]]),
    "slice_axis": lambda: (nd.array(ROWS).slice_axis(axis=np.int64(1), begin=np.int64(1), end=THREE).shape, (2, 2)),
    "nd.slice": lambda: (nd.slice(nd.array(ROWS), begin=(np.int64(0), np.int64(1)), end=(TWO, THREE)).shape, (2, 2)),
    "tile": lambda: (nd.ones((1, 2)).tile((TWO, np.int64(1))).shape, (2, 2)),
    "repeat": lambda: (nd.array([1, 2]).repeat(TWO).asnumpy(), [1, 1, 2, 2]),
    "pad": lambda: (nd.pad(nd.ones((1, 1, 2, 2)), "constant", pad_width=(0, 0, 0, 0, np.int64(1), 1, 1, np.int64(1)))
                    .shape, (1, 1, 4, 4)),
    "sum over NumPy axes": lambda: (nd.ones((2, 3, 4)).sum(axis=(np.int64(0), np.int64(2))).asnumpy(), [8, 8, 8]),
    "expand_dims, squeeze": lambda: (nd.ones((2,)).expand_dims(np.int64(0)).squeeze(axis=np.int64(0)).shape, (2,)),
    "broadcast_to": lambda: (nd.ones((1, 3)).broadcast_to((TWO, THREE)).shape, (2, 3)),
    "concat": lambda: (nd.concat(nd.ones((1, 2)), nd.ones((1, 2)), dim=np.int64(0)).shape, (2, 2)),
    "split": lambda: (len(nd.split(nd.ones((2, 4)), num_outputs=np.int64(2), axis=np.int64(1))), 2),
    "topk": lambda: (nd.topk(nd.array([1, 3, 2]), k=TWO).asnumpy(), [1, 2]),
    "one_hot": lambda: (nd.one_hot(nd.array([1]), THREE, on_value=HALF).asnumpy(), [[0, 0.5, 0]]),
    "take, pick": lambda: (nd.pick(nd.array(ROWS), nd.array([0, 2])).asnumpy(), [0, 5]),
    "clip": lambda: (nd.array([-2, 2]).clip(np.float64(-1), np.float32(1)).asnumpy(), [-1, 1]),
    "arithmetic with NumPy scalars": lambda: ((nd.array([2.0]) * np.float32(3) + np.int64(1)).asnumpy(), [7]),
    "NumPy scalar first": lambda: ((np.float32(3) * nd.array([2.0])).asnumpy(), [6]),
    "power, mod": lambda: ((nd.array([3.0]) ** TWO % FOUR).asnumpy(), [1]),
    "comparison": lambda: ((nd.array([1, 3]) > TWO).asnumpy(), [0, 1]),
    "asscalar": lambda: (nd.array([4]).asscalar(), 4),
    "float of a scalar": lambda: (float(nd.array([2.5]).asscalar()), 2.5),
    "astype": lambda: (nd.array([1.5]).astype(np.int32).dtype, np.int32),
    "dtype as NumPy's dtype": lambda: (nd.zeros((1,), dtype=np.dtype("uint8")).dtype, np.uint8),
    "boolean result": lambda: (bool(nd.array([1]) == 1), True),
    "moveaxis": lambda: (nd.moveaxis(nd.ones((1, 2, 3)), 0, 2).shape, (2, 3, 1)),
    "moveaxis of several": lambda: (nd.moveaxis(nd.ones((1, 2, 3)), [0, 1], [-1, -2]).shape, (3, 2, 1)),
    "np.array": lambda: (np.array(nd.array(ROWS)), ROWS),
    "np.array of a dtype": lambda: (np.array(nd.array(ROWS), dtype="int32").dtype, np.dtype("int32")),
    "np.asarray": lambda: (np.asarray(nd.array(ROWS)), ROWS),
    "np.concatenate": lambda: (np.concatenate([nd.array(ROWS), nd.array(ROWS)]).shape, (4, 3)),
    "np.stack": lambda: (np.stack([nd.array(ROWS)] * 2, axis=1).shape, (2, 2, 3)),
    "np.percentile": lambda: (np.percentile(nd.array(ROWS), 50), 2.5),
    "np.array of a list": lambda: (np.array([nd.array([1.0]), nd.array([2.0])]), [[1], [2]]),
    "nd.array of a list": lambda: (nd.array([nd.array([1.0]), nd.array([2.0])]).asnumpy(), [[1], [2]]),
    "printed": lambda: (str(nd.array([1, 2])), "\n[1. 2.]\n<NDArray 2 @cpu(0)>"),
    "from_numpy": lambda: (nd.from_numpy(ROWS.copy()).asnumpy(), ROWS),
    "random shape": lambda: (nd.random.uniform(np.float64(0), 1, shape=(TWO, THREE)).shape, (2, 3)),
    "random.randint": lambda: (nd.random.randint(np.int64(0), np.int64(1), shape=(TWO,)).asnumpy(), [0, 0]),
    "saved and loaded": lambda: (saved_and_loaded(), ROWS),
    "custom operator": lambda: (nd.Custom(nd.array([2.0]), op_type="test_twice").asnumpy(), [4]),
    "image.resize": lambda: (nd.image.resize(nd.zeros((4, 4, 3), dtype="uint8"), size=(np.int64(2), THREE)).shape,
                             (3, 2, 3)),
    "autograd": lambda: (gradient(), [2, 4]),
}


def set_item(key, value):
    array = nd.array(ROWS)
    array[key] = value
    return array.asnumpy()


def gradient():
    x = nd.array([1.0, 2.0])
    x.attach_grad()
    with autograd.record():
        (x * x).sum().backward()
    return x.grad.asnumpy()


FOLDER = []


def saved_and_loaded():
    path = str(FOLDER[-1] / "a.params")
    nd.save(path, {"rows": nd.array(ROWS)})
    return nd.load(path)["rows"].asnumpy()


@mx.operator.register("test_twice")
class _TwiceProp(mx.operator.CustomOpProp):
    def create_operator(self, ctx, shapes, dtypes):
        return _Twice()


class _Twice(mx.operator.CustomOp):
    def forward(self, is_train, req, in_data, out_data, aux):
        self.assign(out_data[0], req[0], in_data[0] * np.float32(2))


def module_of(symbol, **shapes):
    module = mx.mod.Module(symbol, label_names=[n for n in shapes if "label" in n] or None,
                           data_names=[n for n in shapes if "label" not in n])
    module.bind([(n, s) for n, s in shapes.items() if "label" not in n],
                [(n, s) for n, s in shapes.items() if "label" in n] or None)
    module.init_params(mx.init.One())
    return module


def fitted():
    data = np.concatenate([np.zeros((8, 4)), np.ones((8, 4))]).astype("float32")
    batches = mx.io.NDArrayIter(data, np.repeat([0, 1], 8), batch_size=np.int64(4), shuffle=True)
    net = mx.sym.SoftmaxOutput(mx.sym.FullyConnected(mx.sym.var("data"), num_hidden=TWO), name="softmax")
    module = mx.mod.Module(net)
    module.fit(batches, num_epoch=8, optimizer_params={"learning_rate": np.float64(0.5)}, eval_metric="acc")
    return dict(module.score(batches, "acc"))["accuracy"]


def forward(symbol, **arrays):
    module = module_of(symbol, **{n: a.shape for n, a in arrays.items()})
    module.forward(mx.io.DataBatch([nd.array(a) for a in arrays.values()]), is_train=False)
    return module.get_outputs()[0].asnumpy()


DATA = mx.sym.var("data")
MODULE = {
    "FullyConnected": lambda: (forward(mx.sym.FullyConnected(DATA, num_hidden=FOUR, no_bias=True), data=ROWS),
                               np.repeat([[3], [12]], 4, axis=1)),
    "Convolution": lambda: (forward(mx.sym.Convolution(DATA, kernel=(TWO, 2), num_filter=np.int64(1), no_bias=True,
                                                       stride=(TWO, TWO)), data=np.ones((1, 1, 4, 4))).sum(), 16),
    "Pooling": lambda: (forward(mx.sym.Pooling(DATA, kernel=np.array((2, 2)).tolist(), pool_type="max",
                                               stride=(np.int64(2), TWO)), data=np.ones((1, 1, 4, 4))).shape,
                        (1, 1, 2, 2)),
    "Reshape": lambda: (forward(mx.sym.Reshape(DATA, shape=(np.int64(3), -1)), data=ROWS).shape, (3, 2)),
    "slice_axis": lambda: (forward(mx.sym.slice_axis(DATA, axis=np.int64(1), begin=np.int64(0), end=TWO), data=ROWS),
                           ROWS[:, :2]),
    "variable of a NumPy shape": lambda: (mx.sym.var("x", shape=(TWO, THREE)).attr("__shape__"), "(2, 3)"),
    "variable's multipliers": lambda: (float(mx.sym.var("x", lr_mult=HALF).attr("__lr_mult__")), 0.5),
    "infer_shape": lambda: (mx.sym.FullyConnected(DATA, num_hidden=TWO).infer_shape(data=(FOUR, THREE))[1], [(4, 2)]),
    "symbol as JSON": lambda: ("np." in mx.sym.Convolution(DATA, kernel=(TWO, 2), num_filter=THREE).tojson(), False),
    "attributes": lambda: (mx.sym.var("x", attr={"size": str(TWO)}).attr("size"), "2"),
    "simple_bind": lambda: ((DATA * 2).simple_bind(mx.cpu(), data=(TWO, THREE)).forward()[0].shape, (2, 3)),
    "fit and score": lambda: (fitted(), 1.0),
    "predict": lambda: (module_of(DATA * TWO, data=(2, 3)).predict(mx.io.NDArrayIter(ROWS, batch_size=2)).asnumpy(),
                        ROWS * 2),
    "checkpoint": lambda: (checkpoint(), (2, 3)),
    "monitor": lambda: (len(monitored()), 1),
    "initialisers": lambda: (initialised(), {"xavier": True, "uniform": True, "normal": True, "orthogonal": True,
                                             "msraprelu": True, "bilinear": True}),
    "ONNX-like scalars": lambda: (forward(mx.sym.clip(DATA, a_min=np.float32(1), a_max=np.float64(4)), data=ROWS),
                                  ROWS.clip(1, 4)),
}


def checkpoint():
    prefix = str(FOLDER[-1] / "net")
    module = module_of(mx.sym.FullyConnected(DATA, num_hidden=TWO, name="fc"), data=(1, 3))
    module.save_checkpoint(prefix, 1)
    return mx.model.load_checkpoint(prefix, 1)[1]["fc_weight"].shape


def monitored():
    monitor = mx.mon.Monitor(1, pattern=".*output")
    executor = mx.sym.relu(DATA, name="act").simple_bind(mx.cpu(), data=(1, 2))
    monitor.install(executor)
    monitor.tic()
    executor.forward()
    return monitor.toc()


def initialised():
    return {name: bool(np.isfinite(initial_values(name)).all())
            for name in ("xavier", "uniform", "normal", "orthogonal", "msraprelu", "bilinear")}


def initial_values(name):
    array = nd.zeros((FOUR, 4, 2, 2))
    mx.init.create(name)(mx.init.InitDesc("a_weight"), array)
    return array.asnumpy()


@pytest.fixture(autouse=True)
def _folder(tmp_path):
    FOLDER.append(tmp_path)
    yield
    FOLDER.pop()


def records(labels, images=True):
    """A .rec with an index, written by MXNet; the paths of both."""
    rec, idx = (str(FOLDER[-1] / f"a.{end}") for end in ("rec", "idx"))
    writer = mx.recordio.MXIndexedRecordIO(idx, rec, "w")
    for i, label in enumerate(labels):
        header = mx.recordio.IRHeader(0, label, np.int64(i), 0)
        picture = np.full((8, 8, 3), 40 * i, "uint8")
        writer.write_idx(np.int64(i), mx.recordio.pack_img(header, picture, img_fmt=".png") if images
                         else mx.recordio.pack(header, b"abc"))
    writer.close()
    return rec, idx


def read_record(label, number=0):
    rec, idx = records([label] * 2, images=False)
    return mx.recordio.unpack(mx.recordio.MXIndexedRecordIO(idx, rec, "r").read_idx(number))


def iterated(**options):
    rec, idx = records([0, 1, 2, 3])
    batches = mx.io.ImageRecordIter(path_imgrec=rec, path_imgidx=idx, data_shape=(THREE, np.int64(8), 8),
                                    batch_size=TWO, preprocess_threads=1, **options)
    return [(b.data[0].shape, b.label[0].asnumpy().tolist()) for b in batches]


RECORDS = {
    "label of one number": lambda: (read_record(np.float32(3))[0].label, 3.0),
    "label of several": lambda: (read_record(np.array([1, 2]))[0].label, [1, 2]),
    "label as a list": lambda: (read_record([1.0, 2.0])[0].label, [1, 2]),
    "contents": lambda: (read_record([1.0, 2.0])[1] == b"abc", True),
    "picture": lambda: (mx.recordio.unpack_img(mx.recordio.MXIndexedRecordIO(*reversed(records([0, 1])), "r")
                                               .read_idx(1))[1][0, 0], [40, 40, 40]),
    "ImageRecordIter": lambda: (iterated(), [((2, 3, 8, 8), [0, 1]), ((2, 3, 8, 8), [2, 3])]),
    "ImageRecordIter, NumPy means": lambda: (iterated(mean_r=np.float64(1), std_g=HALF, scale=np.float32(0.5))[0][1],
                                             [0, 1]),
    "ImageIter": lambda: (next(mx.image.ImageIter(TWO, (3, 8, 8), path_imgrec=records([5, 6])[0])).label[0].asnumpy(),
                          [5, 6]),
    "RecordFileDataset": lambda: (gluon.data.vision.ImageRecordDataset(records([7, 8])[0])[1][1], 8),
    "NDArrayIter with a rest": lambda: ([b.pad for b in mx.io.NDArrayIter(ROWS.T, batch_size=TWO)], [0, 1]),
    "NDArrayIter of a dict": lambda: ([d.name for d in mx.io.NDArrayIter({"b": ROWS, "a": ROWS}, batch_size=2)
                                       .provide_data], ["a", "b"]),
    "ResizeIter": lambda: (sum(1 for _ in mx.io.ResizeIter(mx.io.NDArrayIter(ROWS, batch_size=1), np.int64(5))), 5),
    "PrefetchingIter": lambda: (sum(1 for _ in mx.io.PrefetchingIter(mx.io.NDArrayIter(ROWS, batch_size=1))), 2),
    "CSVIter": lambda: (csv_rows(), ROWS),
    "MNISTIter": lambda: (mnist_labels(), [0, 1, 2, 3]),
    "IDX by np.fromstring": lambda: (np.fromstring(struct.pack(">4B", 1, 2, 3, 4), dtype=np.uint8), [1, 2, 3, 4]),
    "BucketSentenceIter": lambda: (next(mx.rnn.BucketSentenceIter([[1, 2], [2, 1]], 2, buckets=[2])).data[0].shape,
                                   (2, 2)),
    "DataLoader": lambda: ([tuple(b[0].shape) for b in gluon.data.DataLoader(gluon.data.ArrayDataset(ROWS, [0, 1]),
                                                                            batch_size=1)], [(1, 3)] * 2),
    "DataLoader of NumPy labels": lambda: (next(iter(gluon.data.DataLoader(
        gluon.data.SimpleDataset([(np.float32(1), np.int64(2))]), 1)))[1].asnumpy(), [2]),
    "transforms": lambda: (transformed().shape, (3, 4, 4)),
    "Normalize of NumPy numbers": lambda: (gluon.data.vision.transforms.Normalize(
        mean=tuple(np.float32([0.5] * 3)), std=tuple(np.array([0.5] * 3)))(nd.ones((3, 1, 1))).asnumpy().ravel(),
        [1, 1, 1]),
    "color_normalize": lambda: (mx.image.color_normalize(nd.ones((1, 1, 3)), nd.zeros(3), nd.array([0.5] * 3))
                                .asnumpy().ravel(), [2, 2, 2]),
    "augmenters": lambda: (augmented(), (4, 4, 3)),
}


def csv_rows():
    path = FOLDER[-1] / "a.csv"
    np.savetxt(path, ROWS, delimiter=",")
    return next(mx.io.CSVIter(data_csv=str(path), data_shape=(THREE,), batch_size=np.int64(2))).data[0].asnumpy()


def mnist_labels():
    images, labels = FOLDER[-1] / "images", FOLDER[-1] / "labels"
    images.write_bytes(struct.pack(">4i", 2051, 4, 2, 2) + bytes(range(16)))
    labels.write_bytes(struct.pack(">2i", 2049, 4) + bytes(range(4)))
    batches = mx.io.MNISTIter(image=str(images), label=str(labels), batch_size=np.int64(4), shuffle=False, silent=True)
    return next(batches).label[0].asnumpy()


def transformed():
    from mxnet.gluon.data.vision import transforms as t

    steps = t.Compose([t.Resize(np.int64(6)), t.RandomResizedCrop((FOUR, FOUR)), t.RandomFlipLeftRight(),
                       t.RandomColorJitter(HALF, HALF, HALF, HALF), t.RandomLighting(np.float64(0.1)), t.ToTensor(),
                       t.Normalize(HALF, HALF)])
    return steps(nd.ones((8, 8, 3), dtype="uint8"))


def augmented():
    picture = nd.ones((8, 8, 3))
    for step in mx.image.CreateAugmenter((3, 4, 4), resize=np.int64(6), rand_crop=True, rand_mirror=True, mean=True,
                                         std=np.array([58.4, 57.1, 57.4]), brightness=0.1, pca_noise=0.1, hue=0.1):
        picture = step(picture)
    return picture.shape


def measured(name, labels=(0, 1), predictions=((0.9, 0.1), (0.2, 0.8)), **options):
    metric = mx.metric.create(name, **options)
    metric.update([nd.array(labels)], [nd.array(predictions)])
    return metric.get()[1]


METRICS = {
    "accuracy": lambda: (measured("acc"), 1.0),
    "top_k_accuracy": lambda: (measured("top_k_accuracy", top_k=np.int64(2)), 1.0),
    "f1": lambda: (measured("f1"), 1.0),
    "mcc": lambda: (measured("mcc"), 1.0),
    "perplexity": lambda: (measured("perplexity", ignore_label=None), np.exp(-np.log([0.9, 0.8]).mean())),
    "mae": lambda: (measured("mae", [1, 2], [[2], [4]]), 1.5),
    "mse": lambda: (measured("mse", [1, 2], [[2], [4]]), 2.5),
    "rmse": lambda: (measured("rmse", [1, 2], [[3], [4]]), 2.0),
    "cross-entropy": lambda: (measured("ce"), -np.log([0.9, 0.8]).mean()),
    "nll_loss": lambda: (measured("nll_loss"), -np.log([0.9, 0.8]).mean()),
    "pearsonr": lambda: (measured("pearsonr", [1, 2, 4], [2, 4, 8]), 1.0),
    "pcc": lambda: (measured("pcc"), 1.0),
    "loss": lambda: (measured("loss"), 0.5),
    "composite": lambda: (measured(["acc", "ce"])[0], 1.0),
    "own function": lambda: (measured(mx.metric.np(lambda label, pred: float((label == pred.argmax(1)).mean()))), 1.0),
}

SPARSE = {
    "csr from SciPy-like parts": lambda: (nd.sparse.csr_matrix(([1.0], [1], [0, 1, 1]), shape=(TWO, THREE)).asnumpy(),
                                          [[0, 1, 0], [0, 0, 0]]),
    "csr from an array": lambda: (nd.sparse.csr_matrix(ROWS).asnumpy(), ROWS),
    "row_sparse": lambda: (nd.sparse.row_sparse_array((ROWS, [0, 3]), shape=(FOUR, THREE)).asnumpy()[3], [3, 4, 5]),
    "zeros": lambda: (nd.sparse.zeros("csr", (TWO, THREE)).asnumpy(), np.zeros((2, 3))),
    "dot": lambda: (nd.sparse.dot(nd.array(ROWS).tostype("csr"), nd.ones((3, 1))).asnumpy().ravel(), [3, 12]),
    "retain": lambda: (nd.sparse.retain(nd.array(ROWS).tostype("row_sparse"), nd.array([1])).asnumpy()[0], [0, 0, 0]),
    "slice": lambda: (nd.array(ROWS).tostype("csr")[np.int64(1):TWO].asnumpy().ravel(), [3, 4, 5]),
    "cast_storage": lambda: (nd.array(ROWS).tostype("csr").tostype("default").asnumpy(), ROWS),
    "np.array of csr": lambda: (np.array(nd.array(ROWS).tostype("csr")), ROWS),
    "LibSVMIter": lambda: (libsvm_row(), [0, 2, 0]),
}


def libsvm_row():
    path = FOLDER[-1] / "a.svm"
    path.write_text("1 1:2\n0 0:1\n")
    return next(mx.io.LibSVMIter(data_libsvm=str(path), data_shape=(THREE,), batch_size=1)).data[0].asnumpy().ravel()


def mxnp(function):
    """A row of mx.np: the function gets mx.np and mx.npx, within the interface's array and shape semantics."""
    def run():
        with mx.util.np_shape(True), mx.util.np_array(True):
            result, expected = function(mx.np, mx.npx)
            return (result.asnumpy() if hasattr(result, "asnumpy") else result), expected
    return run


MX_NP = {name: mxnp(function) for name, function in {
    "array": lambda m, x: (m.array(ROWS), ROWS),
    "zeros": lambda m, x: (m.zeros((TWO, THREE)), np.zeros((2, 3))),
    "zero-size": lambda m, x: (m.ones((0, TWO)).shape, (0, 2)),
    "scalar": lambda m, x: (m.array(2.5).item(), 2.5),
    "reshape": lambda m, x: (m.arange(6).reshape(THREE, -1).shape, (3, 2)),
    "index": lambda m, x: (m.array(ROWS)[np.int64(1), np.int64(0):TWO], [3, 4]),
    "boolean mask": lambda m, x: (m.array(ROWS)[m.array(ROWS) > THREE], [4, 5]),
    "sum over axes": lambda m, x: (m.ones((2, 3, 4)).sum(axis=(np.int64(0), TWO)), [8, 8, 8]),
    "mean, std": lambda m, x: (m.array(ROWS).mean(axis=np.int64(1)), [1, 4]),
    "concatenate": lambda m, x: (m.concatenate([m.ones((1, 2)), m.zeros((1, 2))], axis=np.int64(0)).shape, (2, 2)),
    "stack, split": lambda m, x: (m.stack(m.split(m.arange(4), TWO), axis=1), [[0, 2], [1, 3]]),
    "tensordot, einsum": lambda m, x: (m.einsum("ij->i", m.array(ROWS)), [3, 12]),
    "linalg.norm": lambda m, x: (m.linalg.norm(m.array([3.0, 4.0])), 5),
    "random": lambda m, x: (m.random.uniform(0, 1, size=(TWO, THREE)).shape, (2, 3)),
    "random.choice": lambda m, x: (m.random.choice(np.int64(1), size=(TWO,)), [0, 0]),
    "fallback: interp": lambda m, x: (m.interp(m.array([0.5]), m.array([0.0, 1.0]), m.array([0.0, 2.0])), [1]),
    "fallback: in1d": lambda m, x: (m.in1d(m.array([1, 5]), m.array([5.0])), [False, True]),
    "fallback: msort": lambda m, x: (m.msort(m.array([[2.0], [1.0]])), [[1], [2]]),
    "fallback: trapz": lambda m, x: (m.trapz(m.array([0.0, 2.0])), 1),
    "fallback: alltrue": lambda m, x: (bool(m.alltrue(m.array([1, 1]))), True),
    "fallback: nanmean's kin": lambda m, x: (m.nanmax(m.array([1.0, np.nan])), 1),
    "NumPy's function on it": lambda m, x: (np.concatenate([m.ones((1,)), m.zeros((1,))]), [1, 0]),
    "NumPy's ufunc on it": lambda m, x: (np.exp(m.zeros((2,))), [1, 1]),
    "NumPy's np.array of it": lambda m, x: (np.array(m.array(ROWS)), ROWS),
    "pad": lambda m, x: (m.pad(m.ones((1, 2)), ((0, 1), (0, 0))), [[1, 1], [0, 0]]),
    "constants": lambda m, x: ((m.PZERO, m.NINF, np.isnan(m.NAN)), (0.0, -np.inf, True)),
    "types": lambda m, x: (m.array([True], dtype=m.bool).dtype, np.dtype(bool)),
    "asfarray's heir": lambda m, x: (m.array([1, 2]).astype(np.float64).dtype, np.float64),
    "where, argsort": lambda m, x: (m.argsort(m.array([2.0, 1.0])), [1, 0]),
    "npx.softmax": lambda m, x: (x.softmax(m.zeros((2,)), axis=np.int64(0)), [0.5, 0.5]),
    "npx.one_hot": lambda m, x: (x.one_hot(m.array([1]), THREE), [[0, 1, 0]]),
    "npx.topk, pick": lambda m, x: (x.topk(m.array([1.0, 3.0]), k=np.int64(1)), [1]),
    "Dense": lambda m, x: (shape_of_np_dense(m), (2, 4)),
}.items()}


def shape_of_np_dense(m):
    layer = nn.Dense(FOUR)
    layer.initialize()
    return layer(m.ones((TWO, THREE))).shape


TABLE = [pytest.param(run, id=f"{family}: {name}") for family, rows in (
    ("Gluon", GLUON), ("optimisers", OPTIMISERS), ("NDArray", NDARRAY), ("Module", MODULE), ("records", RECORDS),
    ("metrics", METRICS), ("sparse", SPARSE), ("mx.np", MX_NP)) for name, run in rows.items()]


@pytest.mark.parametrize("run", TABLE)
def test_feature(run):
    found, expected = run()
    if isinstance(expected, (str, bool, tuple, dict, type, np.dtype)) or isinstance(found, list):
        assert found == expected
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
