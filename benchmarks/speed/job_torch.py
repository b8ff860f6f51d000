"""Plain PyTorch's side of benchmarks/speed/job.py: features of a network and scikit-learn's classifier on them.

    python benchmarks/speed/job_torch.py TRAIN [VAL]    # without VAL a fifth of TRAIN is held out

As tutorials write it: Pillow decodes each image, MobileNetV2 (channels-last, random weights: only the time counts)
gives 1,280 features, LogisticRegressionCV chooses its C by five folds. Prints the seconds of the import and of the
rest, as JSON. Needs torch, Pillow and scikit-learn.
"""
import json
import sys
import time
from pathlib import Path

BEGUN = time.perf_counter()
import numpy as np  # noqa: E402
import torch  # noqa: E402
import training_torch  # noqa: E402
from PIL import Image  # noqa: E402
from sklearn.linear_model import LogisticRegressionCV  # noqa: E402

IMPORTED = time.perf_counter()


def images(folder):
    paths = sorted(path for path in Path(folder).glob("*/*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    return paths, np.array([path.parent.name for path in paths])


def prepared(path):
    image = Image.open(path).convert("RGB")
    scale = 256 / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    return np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32).transpose(2, 0, 1) / 127.5 - 1


def features(net, paths):
    found = []
    with torch.inference_mode():
        for start in range(0, len(paths), 32):
            batch = torch.from_numpy(np.stack([prepared(path) for path in paths[start:start + 32]]))
            found.append(net(batch.contiguous(memory_format=torch.channels_last)).numpy())
    return np.concatenate(found)


def main(train, val=None):
    net = training_torch.mobilenetv2()[:-2].eval().to(memory_format=torch.channels_last)
    paths, labels = images(train)
    known = features(net, paths)
    held, truth = known[::5], labels[::5]
    if val is None:
        known, labels = (np.delete(values, np.s_[::5], axis=0) for values in (known, labels))
    else:
        paths, truth = images(val)
        held = features(net, paths)
    LogisticRegressionCV(Cs=5, cv=5, max_iter=1000).fit(known, labels).score(held, truth)
    print(json.dumps({"import": IMPORTED - BEGUN, "job": time.perf_counter() - IMPORTED}))


if __name__ == "__main__":
    main(*sys.argv[1:])
