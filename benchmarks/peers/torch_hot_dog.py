"""The hot dog procedure in plain PyTorch: the same ResNet-18 v2, transforms, batches and steps; needs torch and Pillow.

    python benchmarks/peers/torch_hot_dog.py '{"data": "../shared/data/hotdog", "batch": 32, "epochs": 2, "lr": 0.01}'

Its own few lines of ResNet-18 v2 (pre-activation, as Gluon's resnet18_v2: the same layers and numbers of parameters),
random weights; gluon_ft and MXNet are not needed. Options beside those of the others: "channels_last", "bfloat16".
"""
import json
import os
import resource
import sys
import time
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the project's folder

from benchmarks.speed import load_torch


class Block(nn.Module):
    """BatchNorm, ReLU and 3x3 convolution, twice, added to the input or to a 1x1 convolution of the first ReLU's."""

    def __init__(self, before, channels, stride):
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(before), nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(before, channels, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        same = stride == 1 and before == channels
        self.shortcut = None if same else nn.Conv2d(before, channels, 1, stride, bias=False)

    def forward(self, x):
        active = torch.relu(self.bn1(x))
        past = x if self.shortcut is None else self.shortcut(active)
        return past + self.conv2(torch.relu(self.bn2(self.conv1(active))))


def resnet18_v2(classes):
    """Input (n, 3, 224, 224), normalised."""
    body = [nn.BatchNorm2d(3, affine=False), nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
            nn.MaxPool2d(3, 2, 1)]
    before = 64
    for channels, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        body += [Block(before, channels, stride), Block(channels, channels, 1)]
        before = channels
    return nn.Sequential(*body, nn.BatchNorm2d(512), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(512, classes))


def main(options):
    torch.manual_seed(options.get("seed", 0))
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    sets = {part: load_torch.dataset(os.path.join(options["data"], part), part == "train")[0]
            for part in ("train", "test")}
    loaders = {part: torch.utils.data.DataLoader(images, options["batch"], shuffle=part == "train",
                                                 num_workers=options.get("workers", 2))
               for part, images in sets.items()}
    layout = torch.channels_last if options.get("channels_last") else torch.contiguous_format
    net = resnet18_v2(2).to(memory_format=layout)
    output = list(net[-1].parameters())
    rest = [p for p in net.parameters() if all(p is not o for o in output)]
    optimizer = torch.optim.SGD([{"params": rest}, {"params": output, "lr": 10 * options["lr"]}], options["lr"],
                                weight_decay=options.get("wd", 1e-3))
    loss_of = nn.CrossEntropyLoss()

    def forward(images):
        with torch.autocast("cpu", torch.bfloat16, enabled=bool(options.get("bfloat16"))):
            return net(images.to(memory_format=layout)).float()
    begun, history, steps, training = time.perf_counter(), [], 0, 0.0
    for _ in range(options["epochs"]):
        epoch = time.perf_counter()
        net.train()
        for images, labels in loaders["train"]:
            optimizer.zero_grad(set_to_none=True)
            loss_of(forward(images), labels).backward()
            optimizer.step()
            steps += 1
        training += time.perf_counter() - epoch
        net.eval()
        with torch.no_grad():
            right = sum(int((forward(images).argmax(1) == labels).sum()) for images, labels in loaders["test"])
        history.append({"seconds": time.perf_counter() - begun, "accuracy": right / len(sets["test"])})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak += options.get("workers", 2) * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(json.dumps({"steps": steps, "seconds_per_step": training / steps, "history": history, "peak_mb": peak / 1024,
                      "torch": torch.__version__, "parameters": sum(p.numel() for p in net.parameters())}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
