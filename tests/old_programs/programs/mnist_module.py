"""Digits in IDX files, read with struct and `np.fromstring`, a LeNet through Module, as programs of 2016 did."""
import gzip
import logging
import struct
import sys

import mxnet as mx
import numpy as np

logging.basicConfig(level=logging.INFO)


def read_data(label, image):
    with gzip.open(label) as flbl:
        magic, num = struct.unpack(">II", flbl.read(8))
        label = np.fromstring(flbl.read(), dtype=np.int8)
    with gzip.open(image, "rb") as fimg:
        magic, num, rows, cols = struct.unpack(">IIII", fimg.read(16))
        image = np.fromstring(fimg.read(), dtype=np.uint8).reshape(len(label), rows, cols)
    return (label, image)


def to4d(img):
    return img.reshape(img.shape[0], 1, img.shape[1], img.shape[2]).astype(np.float32) / 255


def lenet(num_classes):
    data = mx.symbol.Variable("data")
    conv1 = mx.symbol.Convolution(data=data, kernel=(np.int64(5), 5), num_filter=4)
    tanh1 = mx.symbol.Activation(data=conv1, act_type="tanh")
    pool1 = mx.symbol.Pooling(data=tanh1, pool_type="max", kernel=(2, 2), stride=(2, 2))
    flatten = mx.symbol.Flatten(data=pool1)
    fc1 = mx.symbol.FullyConnected(data=flatten, num_hidden=num_classes)
    return mx.symbol.SoftmaxOutput(data=fc1, name="softmax")


(labels, images) = read_data(sys.argv[1], sys.argv[2])
train = mx.io.NDArrayIter(to4d(images), labels.astype(np.float), 16, shuffle=True)
val = mx.io.NDArrayIter({"data": to4d(images)}, {"softmax_label": labels}, 16)
model = mx.mod.Module(context=mx.cpu(), symbol=lenet(np.unique(labels).size))
model.fit(train, eval_data=val, optimizer="sgd", optimizer_params={"learning_rate": 0.2, "momentum": 0.9},
          eval_metric="acc", num_epoch=6)
probabilities = model.predict(val).asnumpy()
print("accuracy %.3f" % (probabilities.argmax(axis=1) == labels).mean())
