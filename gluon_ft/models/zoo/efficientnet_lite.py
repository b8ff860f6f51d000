"""EfficientNet-Lite 0, 1 and 2."""
from __future__ import annotations

from mxnet.gluon import HybridBlock, nn

from gluon_ft.models.zoo.layers import ReLU6, SameConv2D
from gluon_ft.weights.name_maps.efficientnet_lite import UNITS

# Input size in pixels and factor of the channels, by number; the depths are in `UNITS`.
_SIZES = (224, 240, 260)
_WIDTHS = (1.0, 1.0, 1.1)
# (channels, kernel, stride, expansion) of the seven stages.
_STAGES = ((16, 3, 1, 1), (24, 3, 2, 6), (40, 5, 2, 6), (80, 3, 2, 6), (112, 5, 1, 6), (192, 5, 2, 6), (320, 3, 1, 6))
_STEM, _HEAD = 32, 1280
_NORM = {"epsilon": 1e-3, "momentum": 0.99}


class InvertedResidual(HybridBlock):
    """1x1 convolution that expands the channels, depthwise one, 1x1 one back; with a shortcut where the shape stays."""

    def __init__(self, channels, in_channels, kernel, stride, expansion, size, **kwargs):
        super().__init__(**kwargs)
        self.shortcut = stride == 1 and channels == in_channels
        middle = in_channels * expansion
        with self.name_scope():
            self.body = nn.HybridSequential(prefix="")
            if expansion != 1:
                self.body.add(nn.Conv2D(middle, 1, use_bias=False, in_channels=in_channels),
                              nn.BatchNorm(in_channels=middle, **_NORM), ReLU6())
            self.body.add(SameConv2D(middle, kernel, stride, size, groups=middle, in_channels=middle),
                          nn.BatchNorm(in_channels=middle, **_NORM), ReLU6(),
                          nn.Conv2D(channels, 1, use_bias=False, in_channels=middle),
                          nn.BatchNorm(in_channels=channels, **_NORM))

    def hybrid_forward(self, F, x):
        return self.body(x) + x if self.shortcut else self.body(x)


class EfficientNetLite(HybridBlock):
    """Google's EfficientNet-Lite (2020) as efficientnet-lite-pytorch has it: EfficientNet (Tan and Le, 2019) with ReLU6
    and without squeeze-and-excitation, its stem and head of the same width in all.

    The padding is TensorFlow's 'SAME' for input of `size` pixels. Other sizes can be given; where an axis is odd in
    place of even somewhere on the way, or the reverse, TensorFlow would pad by a pixel more or less.

    Parameters
    ----------
    number : {0, 1, 2}
        224, 240 or 260 pixels; 4.7, 5.4 or 6.1 million parameters.
    classes : int, default 1000
    size : int, optional
        Height and width of the input that it is padded for, pixels; default by `number`.
    """

    def __init__(self, number, classes=1000, size=None, **kwargs):
        super().__init__(**kwargs)
        size = size or _SIZES[number]
        with self.name_scope():
            self.features = nn.HybridSequential(prefix="")
            self.features.add(SameConv2D(_STEM, 3, 2, size, in_channels=3), nn.BatchNorm(in_channels=_STEM, **_NORM),
                              ReLU6())
            size, before = -(-size // 2), _STEM
            for stage, ((width, kernel, stride, expansion), units) in enumerate(zip(_STAGES, UNITS[number]), 1):
                channels, layer = _rounded(width * _WIDTHS[number]), nn.HybridSequential(prefix=f"stage{stage}_")
                with layer.name_scope():
                    for unit in range(units):
                        layer.add(InvertedResidual(channels, before, kernel, 1 if unit else stride, expansion, size))
                        size, before = size if unit else -(-size // stride), channels
                self.features.add(layer)
            self.features.add(nn.Conv2D(_HEAD, 1, use_bias=False, in_channels=before),
                              nn.BatchNorm(in_channels=_HEAD, **_NORM), ReLU6(), nn.GlobalAvgPool2D(), nn.Flatten())
            self.output = nn.Dense(classes, in_units=_HEAD)

    def hybrid_forward(self, F, x):
        return self.output(self.features(x))


def _rounded(channels: float) -> int:
    """The multiple of 8 that is nearest, but not below nine tenths."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest
