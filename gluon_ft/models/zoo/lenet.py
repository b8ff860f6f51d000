"""LeNet."""
from __future__ import annotations

from mxnet.gluon import HybridBlock, nn


class LeNet(HybridBlock):
    """LeNet as Caffe's MNIST example has it: 20 and 50 5x5 convolutions, each max-pooled, 500 units, 10 classes.

    Input (n, 1, 28, 28). As in the example there is no activation after the convolutions.
    """

    def __init__(self, classes=10, **kwargs):
        super().__init__(**kwargs)
        with self.name_scope():
            self.features = nn.HybridSequential(prefix="")
            self.features.add(nn.Conv2D(20, kernel_size=5), nn.MaxPool2D(2), nn.Conv2D(50, kernel_size=5),
                              nn.MaxPool2D(2), nn.Dense(500, activation="relu"))
            self.output = nn.Dense(classes, in_units=500)

    def hybrid_forward(self, F, x):
        return self.output(self.features(x))
