"""The ResNets for images of 32x32 pixels, with a ReLU in the stem and shortcuts without weights."""
from __future__ import annotations

import mxnet as mx
from mxnet.gluon import HybridBlock, nn

from gluon_ft.weights.name_maps.resnet import padding_kernel


class PaddedShortcut(HybridBlock):
    """He et al.'s 'option A': every second pixel, the new channels zero, half of them before and half behind.

    A 1x1 convolution with stride 2 whose kernel has no gradient: training leaves it alone, parameter files have it.
    """

    def __init__(self, channels, in_channels, **kwargs):
        super().__init__(**kwargs)
        self.channels = channels
        with self.name_scope():
            self.kernel = self.params.get("kernel", shape=(channels, in_channels, 1, 1), init="paddingkernel",
                                          differentiable=False)

    def hybrid_forward(self, F, x, kernel):
        return F.Convolution(x, kernel, kernel=(1, 1), stride=(2, 2), num_filter=self.channels, no_bias=True)


@mx.init.register
class PaddingKernel(mx.init.Initializer):
    """Fills a parameter with `padding_kernel`, whatever the network around it is initialised with."""

    def _init_weight(self, _, arr):
        arr[:] = padding_kernel(*arr.shape[:2])


class CIFARUnit(HybridBlock):
    """Two 3x3 convolutions with a shortcut around them; where the size changes it is a `PaddedShortcut`."""

    def __init__(self, channels, in_channels, **kwargs):
        super().__init__(**kwargs)
        stride = 1 if channels == in_channels else 2
        with self.name_scope():
            self.body = nn.HybridSequential(prefix="")
            self.body.add(nn.Conv2D(channels, 3, stride, 1, use_bias=False, in_channels=in_channels),
                          nn.BatchNorm(in_channels=channels), nn.Activation("relu"),
                          nn.Conv2D(channels, 3, 1, 1, use_bias=False, in_channels=channels),
                          nn.BatchNorm(in_channels=channels))
            self.shortcut = PaddedShortcut(channels, in_channels) if stride == 2 else None

    def hybrid_forward(self, F, x):
        residual = x if self.shortcut is None else self.shortcut(x)
        return F.Activation(self.body(x) + residual, act_type="relu")


class CIFARResNet(HybridBlock):
    """The ResNet for 32x32 images of He et al. (2015), section 4.2, as akamaster/pytorch_resnet_cifar10 has it.

    Other than GluonCV's `cifar_resnet*_v1`, it has a ReLU after the stem's BatchNorm, and shortcuts without weights of
    their own to learn. Input (n, 3, 32, 32); depth 6 n + 2 with n = `units` in each of the three stages.
    """

    def __init__(self, units, classes=10, **kwargs):
        super().__init__(**kwargs)
        with self.name_scope():
            self.features = nn.HybridSequential(prefix="")
            self.features.add(nn.Conv2D(16, 3, 1, 1, use_bias=False, in_channels=3), nn.BatchNorm(in_channels=16),
                              nn.Activation("relu"))
            for stage, (before, channels) in enumerate(((16, 16), (16, 32), (32, 64)), 1):
                layer = nn.HybridSequential(prefix=f"stage{stage}_")
                with layer.name_scope():
                    for unit in range(units):
                        layer.add(CIFARUnit(channels, channels if unit else before))
                self.features.add(layer)
            self.features.add(nn.GlobalAvgPool2D())
            self.output = nn.Dense(classes, in_units=64)

    def hybrid_forward(self, F, x):
        return self.output(self.features(x))
