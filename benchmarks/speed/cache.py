"""What keeping the features of a frozen network saves over running it in every epoch, on ../shared/data/hotdog.

    python benchmarks/cache.py             # about nine minutes on two quiet cores
    python benchmarks/cache.py --repeats 1 --epochs 4 --no-record

ResNet-18 v2 at 224 with everything but the output frozen (`gluon_ft.freeze(net.features)`), random weights, batches of
32, ten epochs with validation on the test folder after each; the loaders decode in threads. Plain: `fit` on the images,
from the folder and with decoded images kept in memory. Cached: `config.cache_features`, its time including the making
of the features, of one view (as in evaluation), of one and of two augmented views, and found on disk. One round runs
each once, in an order that alternates; ratios are of the same round. Target: plain at least 8 times the cached, with
one view. Rows are appended to benchmarks/results/cache.csv; exit status 1 where the target is missed.
"""
from __future__ import annotations

import gluon_ft  # isort: skip  (prepares the import of mxnet)

import os
import sys
import tempfile
import time
from pathlib import Path

import click
import mxnet as mx
import recording

from gluon_ft.cli import console
from gluon_ft.data import loader
from gluon_ft.data.images.preprocessing import Preprocessing

HOTDOG = Path(__file__).resolve().parents[2] / "shared" / "data" / "hotdog"
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
    train, val = (loader.open(HOTDOG / part, preprocessing=Preprocessing(), train=part == "train", batch_size=BATCH,
                               cache=memory) for part in ("train", "test"))
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
    found: dict[str, list[tuple]] = {name: [] for name in (*PLAIN, *CACHED)}
    # Reads the files, starts the threads and compiles what is compiled once.
    seconds("plain, images from the folder", 2)
    for number in console.progress(range(repeats), desc="cache", unit="round"):
        with tempfile.TemporaryDirectory() as home:
            os.environ["GLUON_FT_HOME"] = home
            for name in [*PLAIN, *CACHED] if number % 2 == 0 else [*CACHED, *PLAIN]:
                found[name].append(seconds(name, epochs))
                print(f"{name}: {found[name][-1][0]:.1f} s, {found[name][-1][1]:.3f} s an epoch", file=sys.stderr)
    return found


def rows_of(found, epochs) -> list[dict]:
    """Times, and ratios plain / cached within each round."""
    rows, about = [], f"resnet18_v2 224 px batch {BATCH}, {epochs} epochs"
    for name, rounds in found.items():
        rows.append(recording.row("cache", f"{about}; {name}", "total", "s", [total for total, _, _ in rounds]))
        rows.append(recording.row("cache", f"{about}; {name}", "later epochs", "s", [each for _, each, _ in rounds]))
    for plain in PLAIN:
        for cached in CACHED:
            pairs = list(zip(found[plain], found[cached]))
            for column, quantity in ((0, "total"), (1, "later epochs")):
                rows.append(recording.row("cache", f"{about}; {plain} / {cached}", quantity, "ratio",
                                          [a[column] / b[column] for a, b in pairs]))
    return rows


@click.command(cls=console.Command)
@click.option("--repeats", default=3, help="Rounds.")
@click.option("--epochs", default=10, type=click.IntRange(min=2), help="Of every training.")
@click.option("--record/--no-record", default=True, help="Append to benchmarks/results/cache.csv.")
@console.json_option
def main(repeats, epochs, record, as_json):
    """Measure the frozen-prefix cache."""
    if not HOTDOG.is_dir():
        raise click.ClickException("../shared/data/hotdog is not present")
    rows = rows_of(measure(epochs, repeats), epochs)
    print(recording.show(rows))
    if record:
        print(f"appended to {recording.append(rows, 'cache')}")
    console.emit({"benchmark": "cache", "rows": rows}, as_json)
    slow = [r for r in rows if r["unit"] == "ratio" and r["quantity"] == "total" and float(r["median"]) < TARGET
            and any(r["settings"].endswith(name) for name in TARGETED)]
    sys.exit(int(bool(slow)))


if __name__ == "__main__":
    main()
