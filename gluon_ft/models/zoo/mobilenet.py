"""MobileNetV2 with a bias in its output."""
from __future__ import annotations

from mxnet.gluon import HybridBlock, nn

from gluon_ft.runtime import mxnet_import


def mobilenet_v2_bias(classes: int = 1000, **options) -> HybridBlock:
    """GluonCV's MobileNetV2 of width 1.0 with a bias in its output, which torchvision's and timm's have."""
    mxnet_import.import_gluoncv()
    from gluoncv.model_zoo import get_model

    net = get_model("mobilenetv2_1.0", pretrained=False, classes=classes, **options)
    output = nn.HybridSequential(prefix=net.output.prefix)
    with output.name_scope():
        output.add(nn.Conv2D(classes, 1, in_channels=1280, prefix="pred_"), nn.Flatten())
    net.output = output
    return net
