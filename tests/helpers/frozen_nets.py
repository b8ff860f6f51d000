"""Small networks with frozen parts, and loaders of generated images for them, for tests of kept features."""
from __future__ import annotations

import mxnet as mx
import numpy as np
from mxnet.gluon import HybridBlock, nn

import gluon_ft
from gluon_ft.data import loader as loaders
from gluon_ft.models import tracing

SIZE = 32
PREPROCESSING = gluon_ft.Preprocessing(size=SIZE, resize=36)


def pictures(n, seed=0, classes=3):
    rng, labels = np.random.RandomState(seed), np.arange(n) % classes
    images = rng.randint(0, 120, (n, 40, 44, 3)).astype("uint8")
    for image, label in zip(images, labels):
        image[:, :, label] += 90
    return images, labels


def image_loader(n=30, train=True, views=0, augment="gluon", batch_size=8, seed=3, source=None):
    loader = loaders.make_loader(source or pictures(n, seed=int(train)), preprocessing=PREPROCESSING, train=train,
                                 batch_size=batch_size, seed=seed, augment=augment if train else None, workers=1)
    loader.views = views
    return loader


class Small(HybridBlock):
    """Convolutions with a shortcut, BatchNorm and a Dense output."""

    def __init__(self, dropout=0.0, **kwargs):
        super().__init__(**kwargs)
        with self.name_scope():
            self.stem = nn.HybridSequential(prefix="")
            self.stem.add(nn.Conv2D(4, 3, 2, 1, in_channels=3), nn.BatchNorm(in_channels=4), nn.Activation("relu"))
            self.left, self.right = nn.Conv2D(4, 3, 1, 1, in_channels=4), nn.Conv2D(4, 1, in_channels=4)
            self.norm, self.dropout = nn.BatchNorm(in_channels=4), nn.Dropout(dropout)
            self.pool, self.output = nn.GlobalAvgPool2D(), nn.Dense(3, in_units=4)

    def hybrid_forward(self, F, x):
        x = self.stem(x)
        x = F.relu(self.norm(self.left(x) + self.right(x)))
        return self.output(self.pool(self.dropout(x)))


def small(seed=0, **options):
    mx.random.seed(seed)
    np.random.seed(seed)
    net = Small(**options)
    net.initialize(mx.init.Xavier())
    net.hybridize()
    return net


def network(name="cifar_resnet20_relu", seed=0):
    mx.random.seed(seed)
    np.random.seed(seed)
    net = gluon_ft.fine_tune_net(name, 3)
    net(mx.nd.zeros((1, 3, SIZE, SIZE)))
    return net


def only_output(net):
    gluon_ft.freeze(net)
    gluon_ft.unfreeze(tracing.output_layer(net).block)
    return net


def images(n=6):
    return mx.nd.array(np.random.RandomState(5).rand(n, 3, SIZE, SIZE))


def differences(a, b):
    """Largest difference of the parameters of two networks, relative to each parameter's largest value."""
    left, right = a._collect_params_with_prefix(), b._collect_params_with_prefix()
    assert list(left) == list(right)
    return max(float(abs(left[k].data() - right[k].data()).max().asscalar() / (
        abs(left[k].data()).max().asscalar() or 1)) for k in left)
