"""What compare.py measures: small pieces of work, each in a process of its own, on one version of gluon_ft.

    python benchmarks/compare/workloads.py NAME SEED    # prints {"seconds": ..., "accuracy": ..., ...}
    python benchmarks/compare/workloads.py --list

Written with public names only, so that older versions run it too; NumPy and MXNet make what they need, no data is read.
`seconds` is the time of the work alone, without starting Python; 'import' is the start itself.
"""
from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path


def start(seed):
    """The import of gluon_ft, up to its first network: newer versions load MXNet only then."""
    begun = time.perf_counter()
    import gluon_ft

    gluon_ft.fine_tune_net  # noqa: B018
    return {"seconds": time.perf_counter() - begun}


def train_resnet18(seed):
    """Training steps of ResNet-18 v2 at 128 px."""
    return _train("resnet18_v2", 128, 16, 6, seed)


def train_mobilenet(seed):
    """Training steps of MobileNet 0.25 at 128 px."""
    return _train("mobilenet0.25", 128, 32, 8, seed)


def _train(backbone, size, batch, steps, seed):
    import numpy as np

    import gluon_ft

    gluon_ft.seed_all(seed)
    random = np.random.RandomState(seed)
    images = random.uniform(-1, 1, (batch * steps, 3, size, size)).astype("float32")
    loader = gluon_ft.ArrayLoader(images, np.arange(len(images)) % 2, batch)
    net = gluon_ft.fine_tune_net(backbone, 2)
    config = gluon_ft.TrainConfig(epochs=1, lr=0.01, top_k=0)
    gluon_ft.fit(net, loader, None, config)
    _, seconds = _timed(lambda: gluon_ft.fit(net, loader, None, config))
    return {"seconds": seconds, "settings": {"backbone": backbone, "size": size, "batch": batch, "steps": steps}}


def evaluate_resnet18(seed):
    """Evaluation of ResNet-18 v2 at 128 px."""
    import numpy as np

    import gluon_ft

    gluon_ft.seed_all(seed)
    images = np.random.RandomState(seed).uniform(-1, 1, (128, 3, 128, 128)).astype("float32")
    loader = gluon_ft.ArrayLoader(images, np.arange(128) % 2, 32)
    net = gluon_ft.fine_tune_net("resnet18_v2", 2)
    gluon_ft.evaluate(net, loader)
    return {"seconds": _timed(lambda: [gluon_ft.evaluate(net, loader) for _ in range(3)])[1]}


def load_folder(seed):
    """Three epochs of 96 JPEGs of 320 x 240, decoded, cropped, mirrored and normalised."""
    import numpy as np
    from PIL import Image

    from gluon_ft import Preprocessing, loaders

    random = np.random.RandomState(seed)
    with tempfile.TemporaryDirectory() as temporary:
        for i in range(96):
            place = Path(temporary, str(i % 2), f"{i}.jpg")
            place.parent.mkdir(exist_ok=True)
            small = random.randint(0, 255, (12, 16, 3)).astype("uint8")
            Image.fromarray(small).resize((320, 240), Image.BICUBIC).save(place, quality=90)
        loader = loaders.make_loader(temporary, preprocessing=Preprocessing(), train=True, batch_size=32)

        def epochs(count):
            for _ in range(count):
                for batch in loader:
                    batch.data.wait_to_read()
        epochs(1)
        return {"seconds": _timed(lambda: epochs(3))[1]}


def digits(seed):
    """LeNet on 600 of scikit-learn's digits for two epochs: time, and accuracy on the others."""
    import gluon_ft  # isort: skip  (prepares the import of mxnet)
    import mxnet as mx

    try:
        from gluon_ft.data.datasets import digits as source
    except ImportError:  # before the folders of November 2026
        from gluon_ft.data import digits as source

    gluon_ft.seed_all(seed)
    found = source.load(None)
    train, val = found.take(range(600)), found.take(range(600, len(found)))
    net = gluon_ft.backbones.build("lenet")
    net.initialize(mx.init.Xavier())
    net.hybridize()
    settings = {"epochs": 2, "lr": 0.02, "momentum": 0.9, "batch": 32}
    config = gluon_ft.TrainConfig(epochs=2, lr=0.02, momentum=0.9, top_k=0, seed=seed)
    sets = [gluon_ft.ArrayLoader(part.images[:, None] / 255.0, part.labels, 32, shuffle, seed)
            for part, shuffle in ((train, True), (val, False))]
    _, seconds = _timed(lambda: gluon_ft.fit(net, sets[0], None, config))
    return {"seconds": seconds, "accuracy": gluon_ft.evaluate(net, sets[1]).accuracy, "settings": settings}


def _timed(function):
    """(result, seconds), everything computed."""
    import mxnet as mx

    mx.nd.waitall()
    begun = time.perf_counter()
    result = function()
    mx.nd.waitall()
    return result, time.perf_counter() - begun


WORKLOADS = {"import": start, "train-resnet18": train_resnet18, "train-mobilenet": train_mobilenet,
             "evaluate-resnet18": evaluate_resnet18, "load-folder": load_folder, "digits": digits}

if __name__ == "__main__":
    if sys.argv[1] == "--list":
        print(json.dumps(list(WORKLOADS)))
    else:
        print(json.dumps(WORKLOADS[sys.argv[1]](int(sys.argv[2]))))
