"""PyTorch's side of benchmarks/speed/load.py: one pass over a folder of classes; needs torch and not gluon_ft.

    python benchmarks/speed/load_torch.py FOLDER train|eval BATCH WORKERS REPEATS

Prints one JSON object: images/s of each pass, versions, and whose transforms were used: torchvision's, or where it is
not installed the same steps in Pillow, which torchvision's use too.
"""
import json
import math
import os
import random
import sys
import time

import numpy as np
import torch
from PIL import Image

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
try:
    from torchvision import datasets, transforms
except (ImportError, RuntimeError):  # not there, or made for another torch
    datasets = None


class Folder(torch.utils.data.Dataset):
    """Images of a folder of classes, as torchvision's ImageFolder."""

    def __init__(self, root, train):
        self.train = train
        names = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
        self.items = [(os.path.join(root, name, file), label) for label, name in enumerate(names)
                      for file in sorted(os.listdir(os.path.join(root, name)))]

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        path, label = self.items[i]
        with Image.open(path) as image:
            image = _random_part(image.convert("RGB")) if self.train else _centre(image.convert("RGB"))
        data = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).contiguous().float().div(255)
        return data.sub_(torch.tensor(MEAN)[:, None, None]).div_(torch.tensor(STD)[:, None, None]), label


def _random_part(image):
    width, height = image.size
    for _ in range(10):
        area = random.uniform(0.08, 1) * width * height
        ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            break
    else:
        w = h = min(width, height)
    left, top = random.randint(0, width - w), random.randint(0, height - h)
    image = image.crop((left, top, left + w, top + h)).resize((224, 224), Image.BILINEAR)
    return image.transpose(Image.FLIP_LEFT_RIGHT) if random.random() < 0.5 else image


def _centre(image):
    share = 256 / min(image.size)
    image = image.resize([round(side * share) for side in image.size], Image.BILINEAR)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    return image.crop((left, top, left + 224, top + 224))


def dataset(root, train):
    """(data set, whose transforms)."""
    if datasets is None:
        return Folder(root, train), "Pillow's"
    steps = [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip()] if train else \
        [transforms.Resize(256), transforms.CenterCrop(224)]
    steps += [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    return datasets.ImageFolder(root, transforms.Compose(steps)), "torchvision's"


def main(root, part, batch, workers, repeats):
    # As in its worker processes; several threads on such small arrays wait for each other.
    torch.set_num_threads(1)
    images, whose = dataset(root, part == "train")
    rates = []
    for _ in range(int(repeats)):
        # Made anew for each pass, as an epoch's workers are.
        loader = torch.utils.data.DataLoader(images, int(batch), shuffle=part == "train", num_workers=int(workers))
        begun, count = time.perf_counter(), 0
        for data, _ in loader:
            count += len(data)
        rates.append(count / (time.perf_counter() - begun))
    print(json.dumps({"rates": rates, "torch": torch.__version__, "transforms": whose}))


if __name__ == "__main__":
    main(*sys.argv[1:])
