"""Networks and layers that neither Gluon's nor GluonCV's zoo has, or has in a form that cannot be hybridised."""
from __future__ import annotations

import functools

import mxnet as mx
from mxnet.gluon import HybridBlock, nn

from gluon_ft.weights.name_maps.resnet import padding_kernel


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


class GroupNorm(HybridBlock):
    """Group normalisation (Wu and He, 2018) with a scale and a shift per channel, hybridisable.

    Same parameters (`gamma`, `beta`, one each a channel) and results as GluonCV's GroupNorm. Input (n, c, h, w).
    """

    def __init__(self, ngroups=32, in_channels=0, epsilon=1e-5, gamma_initializer="ones", **kwargs):
        super().__init__(**kwargs)
        self.ngroups, self.epsilon = ngroups, epsilon
        with self.name_scope():
            self.gamma = self.params.get("gamma", shape=(in_channels,), init=gamma_initializer,
                                         allow_deferred_init=True)
            self.beta = self.params.get("beta", shape=(in_channels,), init="zeros", allow_deferred_init=True)

    def hybrid_forward(self, F, x, gamma, beta):
        # MXNet's operator has one scale and shift a *group*; here they are 1 and 0, and the channels' follow.
        normal = F.GroupNorm(x, F.ones((self.ngroups,)), F.zeros((self.ngroups,)), num_groups=self.ngroups,
                             eps=self.epsilon)
        return F.broadcast_add(F.broadcast_mul(normal, gamma.reshape((1, -1, 1, 1))), beta.reshape((1, -1, 1, 1)))


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


def mobilenet_v2_bias(classes=1000, **options):
    """GluonCV's MobileNetV2 of width 1.0 with a bias in its output, which torchvision's and timm's have."""
    from gluon_ft.runtime import mxnet_import

    mxnet_import.import_gluoncv()
    from gluoncv.model_zoo import get_model

    net = get_model("mobilenetv2_1.0", pretrained=False, classes=classes, **options)
    output = nn.HybridSequential(prefix=net.output.prefix)
    with output.name_scope():
        output.add(nn.Conv2D(classes, 1, in_channels=1280, prefix="pred_"), nn.Flatten())
    net.output = output
    return net


BUILDERS = {
    "lenet": LeNet, "mobilenetv2_1.0_bias": mobilenet_v2_bias,
    **{f"cifar_resnet{6 * n + 2}_relu": functools.partial(CIFARResNet, n) for n in (3, 5, 7, 9)},
}
