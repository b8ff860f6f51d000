"""What cached features of a frozen network save over running it in every epoch, on ../shared/data/hotdog.

    python benchmarks/speed/cache.py             # about nine minutes on two quiet cores
    python benchmarks/speed/cache.py --repeats 1 --epochs 4 --no-record

ResNet-18 v2 at 224 with everything but the output frozen (`gluon_ft.freeze(net.features)`), random weights, batches of
32, ten epochs with validation on the test folder after each; the loaders decode in threads. Plain: `fit` on the images,
from the folder and with decoded images kept in memory. Cached: `config.cache_features`, its time including the making
of the features, of one view (as in evaluation), of one and of two augmented views, and found on disk. One round runs
each once, in an order that alternates; ratios are of the same round. Target: plain at least 8 times the cached, with
one view. Rows are appended to benchmarks/results/cache.csv; exit status 1 where the target is missed.
"""
from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the project's folder
import gluon_ft  # isort: skip  (prepares the import of mxnet)

import click
import mxnet as mx

from benchmarks import runner
from gluon_ft.data import loader
from gluon_ft.data.images.preprocessing import Preprocessing

BATCH, TARGET = 32, 8.0
# Setting -> (images in memory, cache_features, views); a second run of the same finds the features on disk.
PLAIN = {"plain, images from the folder": (None, "none", 0), "plain, images in memory": ("memory", "none", 0)}
CACHED = {"cached in memory, 1 view without augmentation": (None, "memory", 0),
          "cached in memory, 1 augmented view": (None, "memory", 1),
          "cached in memory, 2 augmented views": (None, "memory", 2),
          "cached on disk, 1 augmented view, made": (None, "disk", 1),
          "cached on disk, 1 augmented view, found": (None, "disk", 1)}
TARGETED = ("cached in memory, 1 view without augmentation", "cached in memory, 1 augmented view")


def seconds(name, epochs) -> tuple[float, float, float]:
    """(total, of the epochs after the first as a mean, final training loss) of one training."""
    memory, cache, views = {**PLAIN, **CACHED}[name]
    net = _network()
    train, val = (loader.make_loader(runner.SHARED / "hotdog" / part, preprocessing=Preprocessing(),
                                     train=part == "train", batch_size=BATCH, cache=memory)
                  for part in ("train", "test"))
    config = gluon_ft.TrainConfig(epochs=epochs, lr=0.01, top_k=0, cache_features=cache, views=views)
    mx.nd.waitall()
    begun = time.perf_counter()
    result = gluon_ft.fit(net, train, val, config)
    mx.nd.waitall()
    total = time.perf_counter() - begun
    later = [record["seconds"] for record in result.history[1:]]
    return total, sum(later) / len(later), result.history[-1]["train_loss"]


def _network():
    mx.random.seed(0)
    net = gluon_ft.fine_tune_net("resnet18_v2", 2)
    net(mx.nd.zeros((1, 3, 224, 224)))
    gluon_ft.freeze(net.features)
    return net


def measure(epochs, repeats) -> dict[str, list[tuple]]:
    """What `seconds` gives of every setting in every round."""
    # Reads the files, starts the threads and compiles what is compiled once.
    seconds("plain, images from the folder", 2)
    with tempfile.TemporaryDirectory() as home:
        def each(names, number):
            # Features on disk are of the same round only.
            os.environ["GLUON_FT_HOME"] = str(Path(home, str(number)))
            return {name: seconds(name, epochs) for name in names}
        found = runner.in_turn({"plain": lambda number: each(PLAIN, number),
                                "cached": lambda number: each(CACHED, number)}, repeats, "cache")
    return {name: [answers[name] for answers in found[group]]
            for group, names in (("plain", PLAIN), ("cached", CACHED)) for name in names}


def rows_of(found, epochs) -> list[dict]:
    """Times, and ratios plain / cached within each round."""
    rows, about = [], f"resnet18_v2 224 px batch {BATCH}, {epochs} epochs"
    for name, rounds in found.items():
        rows.append(runner.row("cache", f"{about}; {name}", "total", "s", [total for total, _, _ in rounds]))
        rows.append(runner.row("cache", f"{about}; {name}", "later epochs", "s", [each for _, each, _ in rounds]))
    for plain in PLAIN:
        for cached in CACHED:
            pairs = list(zip(found[plain], found[cached]))
            for column, quantity in ((0, "total"), (1, "later epochs")):
                rows.append(runner.row("cache", f"{about}; {plain} / {cached}", quantity, "ratio",
                                       [a[column] / b[column] for a, b in pairs]))
    return rows


@runner.command(__doc__, "cache", repeats=3)
@click.option("--epochs", default=10, type=click.IntRange(min=2), help="Of every training.")
def main(repeats, epochs):
    runner.shared_data("hotdog")
    rows = rows_of(measure(epochs, repeats), epochs)
    return rows, [f"{r['settings']}: {r['median']}, at least {TARGET:g} wanted" for r in rows
                  if r["unit"] == "ratio" and r["quantity"] == "total" and float(r["median"]) < TARGET
                  and any(r["settings"].endswith(name) for name in TARGETED)]


if __name__ == "__main__":
    main()
