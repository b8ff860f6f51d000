"""Smoke test of one Python (`make test-pythons`): import without a warning, one training step, save and reload."""
from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path


def main():
    # As strict as -W error, also where this file is run without it.
    warnings.simplefilter("error")
    import gluon_ft
    from gluon_ft.runtime import mxnet_import

    gluoncv = mxnet_import.import_gluoncv()
    import mxnet as mx
    import numpy as np

    before, after = train_one_step(mx)
    if not after < before:
        raise SystemExit(f"one training step did not lower the loss: {before:.6f} before, {after:.6f} after")
    if not save_and_reload(mx, np):
        raise SystemExit("the reloaded network's outputs differ")
    net = gluoncv.model_zoo.get_model("cifar_resnet20_v1", classes=3)
    net.initialize()
    if net(mx.nd.zeros((1, 3, 32, 32))).shape != (1, 3):
        raise SystemExit("GluonCV's network gives outputs of the wrong shape")
    print(f"python {sys.version.split()[0]}, numpy {np.__version__}, mxnet {mx.__version__}, "
          f"gluon_ft {gluon_ft.__version__}")


def small_network(mx):
    net = mx.gluon.nn.HybridSequential()
    net.add(mx.gluon.nn.Conv2D(8, 3, activation="relu"), mx.gluon.nn.BatchNorm(), mx.gluon.nn.GlobalAvgPool2D(),
            mx.gluon.nn.Dense(2))
    net.initialize(mx.init.Xavier())
    net.hybridize()
    return net


def train_one_step(mx):
    """The training loss of one batch before and after a step of plain SGD on it."""
    mx.random.seed(1)
    net, loss = small_network(mx), mx.gluon.loss.SoftmaxCrossEntropyLoss()
    images, labels = mx.nd.random.uniform(shape=(8, 3, 16, 16)), mx.nd.array([0, 1] * 4)
    trainer, losses = None, []
    for _ in range(2):
        with mx.autograd.record():
            value = loss(net(images), labels).mean()
        value.backward()
        trainer = trainer or mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1})
        trainer.step(1)
        losses.append(float(value.asscalar()))
    return losses


def save_and_reload(mx, np):
    images = mx.nd.random.uniform(shape=(2, 3, 16, 16))
    net = small_network(mx)
    outputs = net(images).asnumpy()
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "net.params")
        net.save_parameters(path)
        again = small_network(mx)
        again.load_parameters(path)
        return np.array_equal(outputs, again(images).asnumpy())


if __name__ == "__main__":
    main()
