"""PyTorch's side of benchmarks/speed/training_speed.py: training steps on request; needs torch and not gluon_ft.

    python benchmarks/speed/training_torch.py resnet18|mobilenetv2 BATCH SIZE

Reads lines from standard input, each the name of a setting (float32, bfloat16: both channels-last; float32-plain:
PyTorch's own layout), trains that many steps as the number behind it says, and answers with the seconds. The networks
are torchvision's, written out, since it is not always installed: ResNet-18 and -50 (2015)
and MobileNetV2 (2018).
"""
import sys

import answers
import torch
from torch import nn


def convolution(inputs, outputs, kernel, stride=1, groups=1, activation=None):
    """Convolution, BatchNorm, and an activation or none."""
    layers = [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
              nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, *([activation(inplace=True)] if activation else []))


class Residual(nn.Module):
    """A block with a shortcut: projected where `shortcut` is given, and with a ReLU behind the sum where asked."""

    def __init__(self, body, shortcut=None, relu=False):
        super().__init__()
        self.body, self.shortcut, self.relu = body, shortcut, relu

    def forward(self, x):
        x = self.body(x) + (x if self.shortcut is None else self.shortcut(x))
        return nn.functional.relu(x, inplace=True) if self.relu else x


def resnet18():
    layers, inputs = [convolution(3, 64, 7, 2, activation=nn.ReLU), nn.MaxPool2d(3, 2, 1)], 64
    for outputs, stride in ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)):
        body = nn.Sequential(convolution(inputs, outputs, 3, stride, activation=nn.ReLU),
                             convolution(outputs, outputs, 3))
        shortcut = convolution(inputs, outputs, 1, stride) if stride > 1 or inputs != outputs else None
        layers.append(Residual(body, shortcut, relu=True))
        inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 2))


def resnet50():
    layers, inputs = [convolution(3, 64, 7, 2, activation=nn.ReLU), nn.MaxPool2d(3, 2, 1)], 64
    for middle, count, first in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for number in range(count):
            stride = first if number == 0 else 1
            body = nn.Sequential(convolution(inputs, middle, 1, activation=nn.ReLU),
                                 convolution(middle, middle, 3, stride, activation=nn.ReLU),
                                 convolution(middle, 4 * middle, 1))
            shortcut = convolution(inputs, 4 * middle, 1, stride) if number == 0 else None
            layers.append(Residual(body, shortcut, relu=True))
            inputs = 4 * middle
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 2))


def mobilenetv2():
    layers, inputs = [convolution(3, 32, 3, 2, activation=nn.ReLU6)], 32
    for factor, outputs, count, first in ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
                                          (6, 160, 3, 2), (6, 320, 1, 1)):
        for number in range(count):
            stride, wide = first if number == 0 else 1, inputs * factor
            body = [convolution(inputs, wide, 1, activation=nn.ReLU6)] if factor > 1 else []
            body = nn.Sequential(*body, convolution(wide, wide, 3, stride, wide, nn.ReLU6),
                                 convolution(wide, outputs, 1))
            layers.append(Residual(body) if stride == 1 and inputs == outputs else body)
            inputs = outputs
    return nn.Sequential(*layers, convolution(320, 1280, 1, activation=nn.ReLU6), nn.AdaptiveAvgPool2d(1),
                         nn.Flatten(), nn.Dropout(0.2), nn.Linear(1280, 2))


def stepper(net, setting, x, y):
    """A function that trains one step."""
    layout = torch.contiguous_format if setting == "float32-plain" else torch.channels_last
    net, x = net.to(memory_format=layout).train(), x.contiguous(memory_format=layout)
    optimizer = torch.optim.SGD(net.parameters(), 0.01, 0.9)

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=setting == "bfloat16"):
            loss = nn.functional.cross_entropy(net(x).float(), y)
        loss.backward()
        optimizer.step()
    return step


def main(name, batch, size):
    """Answers requests until standard input ends."""
    x, y = torch.rand(int(batch), 3, int(size), int(size)), torch.arange(int(batch)) % 2
    network, steps = {"resnet18": resnet18, "resnet50": resnet50, "mobilenetv2": mobilenetv2}[name], {}

    def way(setting):
        if setting not in steps:
            steps[setting] = stepper(network(), setting, x, y)
        return steps[setting]

    answers.serve({"torch": torch.__version__, "threads": torch.get_num_threads()}, way)


if __name__ == "__main__":
    main(*sys.argv[1:])
