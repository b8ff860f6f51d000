"""A small network trained on a folder of pictures that worker processes read."""
import multiprocessing
import sys

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon
from mxnet.gluon.data.vision import transforms

folder, epochs = sys.argv[1], int(sys.argv[2])
np.random.seed(1)
mx.random.seed(1)


def to_array(image, label):
    # A transform of the user's own, with names that NumPy had in 2018.
    image = image.asnumpy().astype(np.float) / 255
    return image.transpose((2, 0, 1)).astype("float32"), np.int(label)


def batches(part, shuffle):
    pictures = gluon.data.vision.ImageFolderDataset(folder + "/" + part, transform=None).transform_first(
        transforms.Resize(16)).transform(to_array)
    return gluon.data.DataLoader(pictures, batch_size=np.int64(8), shuffle=shuffle, num_workers=2, last_batch="keep")


def main():
    ctx = mx.cpu()
    net = gluon.nn.Sequential()
    with net.name_scope():
        net.add(gluon.nn.Conv2D(8, kernel_size=3, activation="relu"), gluon.nn.GlobalAvgPool2D(),
                gluon.nn.Dense(np.product((2, 1))))
    net.initialize(mx.init.Xavier(magnitude=2.24), ctx=ctx)
    loss = gluon.loss.SoftmaxCrossEntropyLoss()
    trainer = gluon.Trainer(net.collect_params(), "adam", {"learning_rate": 0.05})
    train, test = batches("train", True), batches("test", False)
    for epoch in range(epochs):
        metric = mx.metric.Accuracy()
        for data, label in train:
            with autograd.record():
                output = net(data.as_in_context(ctx))
                L = loss(output, label.as_in_context(ctx))
            L.backward()
            trainer.step(data.shape[0])
            metric.update([label], [output])
        print("[epoch %d] %s: %f" % ((epoch,) + metric.get()))
    predictions, labels = [], []
    for data, label in test:
        predictions.append(net(data).argmax(axis=1).astype("int32"))
        labels.append(label)
    right = np.concatenate(predictions) == np.concatenate(labels)
    print("accuracy %.3f" % right.mean())


if __name__ == "__main__":
    if "fork" in multiprocessing.get_all_start_methods():
        multiprocessing.set_start_method("fork", force=True)
    main()
