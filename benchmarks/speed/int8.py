"""The INT8 model of an export beside float32: accuracy on real photos, and images/s beside our engines.

    python benchmarks/speed/int8.py                      # all: half an hour on two cores
    OMP_NUM_THREADS=1 python benchmarks/speed/int8.py --part speed    # one minute; the cores do nothing else

`accuracy`: EfficientNet-Lite0 and MobileNetV2, a linear classifier trained by `gluon-ft train`, exported by `gluon-ft
export --onnx --int8` and judged on the photos that it was not trained on. hotdog: as it is divided (88 test photos);
hotdog-parts: all 350, four times three quarters train and the other judges; caltech: 12 photos of each of 20 classes
train, the others judge. `loss` is in points of accuracy; `changed`, the share of photos that get another class.

`speed`: networks with random weights, 224 px, batch 16, in turn. `fused` is MXNet's fused float32 on prepared input,
`onnxruntime` the float32 `model.onnx`, `int8` the `model-int8.onnx`, which both begin at pixels. ONNX Runtime's threads
wait for each other, so that other work on a core slows it more than MXNet: on a shared machine take one thread.

Wanted: a loss of at most 1 point on every set, and INT8 faster than fused. Rows go to benchmarks/results/int8.csv. Exit
status 1 where that is missed.
"""
from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the project's folder
import gluon_ft  # isort: skip  (prepares the import of mxnet)

import click
import numpy as np

from benchmarks import runner
from benchmarks.speed.timing import network_and_batch, seconds
from gluon_ft.data import lists, split
from gluon_ft.engine import fused, onnx_runtime
from gluon_ft.export import onnx_files
from gluon_ft.export.folder import symbol_and_values
from gluon_ft.export.int8 import graph, ranges

NETWORKS = ("resnet18_v1b", "resnet50_v1b", "mobilenetv2_1.0", "efficientnet_lite0")
TRAINED = {"efficientnet_lite0": "efficientnet_lite0:google_in1k", "mobilenetv2_1.0": "mobilenetv2_1.0:coral_rot180"}
BATCH, SIZE, PARTS, MOST_LOST = 16, 224, 4, 1.0


def hotdog(folder):
    root = runner.shared_data("hotdog")
    yield ["--train", root / "train", "--val", root / "test"]


def hotdog_parts(folder):
    root = runner.shared_data("hotdog")
    classes = ("hotdog", "not-hotdog")
    rows = [(label, path) for label, name in enumerate(classes)
            for path in sorted(path for part in ("train", "test") for path in (root / part / name).iterdir())]
    for number in range(PARTS):
        names = []
        for part in ("train", "val"):
            names.append(folder / f"{number}-{part}.csv")
            names[-1].write_text("path,label\n" + "".join(
                f"{path},{classes[label]}\n" for i, (label, path) in enumerate(rows)
                if (i % PARTS == number) == (part == "val")))
        yield ["--train", names[0], "--val", names[1]]


def caltech(folder):
    root = runner.shared_data("caltech256")
    split.write(split.split(root, per_class=12, seed=0), folder / "images")
    train, val = (lists.list_file(folder / "images", part) for part in ("train", "val"))
    yield ["--train", train, "--val", val, "--root", root]


SETS = {"hotdog": hotdog, "hotdog-parts": hotdog_parts, "caltech": caltech}


def command(*arguments) -> None:
    """Runs gluon-ft."""
    environment = {"GLUON_FT_WEIGHTS": str(runner.SHARED / "weights"), **os.environ}
    done = subprocess.run([sys.executable, "-m", "gluon_ft.cli.main", *map(str, arguments)], check=False,
                          env=environment, cwd=runner.ROOT, stdout=subprocess.DEVNULL)
    if done.returncode:
        sys.exit(done.returncode)


def accuracy(backbone: str, name: str) -> tuple[list[dict], list[str]]:
    """Rows of one network on one set, and what was missed."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for number, images in enumerate(SETS[name](Path(folder))):
            run, model = Path(folder) / f"run{number}", Path(folder) / f"model{number}"
            command("train", *images, "--pretrained", TRAINED[backbone], "--strategy", "linear", "--run", run)
            command("export", run, "-o", model, "--onnx", "--int8", "--int8-loss", "100")
            found.append(json.loads((model / "certificate.json").read_text(encoding="utf-8"))["int8"])
            click.echo(f"{backbone}, {name}, {number}: {found[-1]}", err=True)
    images = np.array([one["images"] for one in found])
    settings = f"{backbone}, linear; {name}, {images.sum()} photos; calibrated on {found[0]['calibration']['images']}"

    def pooled(values):
        return [float((np.array(values) * images).sum() / images.sum())]

    rows = [runner.row("int8", settings, f"accuracy, {kind}", "fraction",
                       pooled([one["accuracy"][kind]["accuracy"] for one in found])) for kind in ("float32", "int8")]
    loss = pooled([one["loss"] for one in found])
    rows += [runner.row("int8", settings, "loss", "points", loss),
             runner.row("int8", settings, "changed", "fraction", pooled([one["changed"] / one["images"]
                                                                         for one in found])),
             runner.row("int8", settings, "mean difference of probabilities", "fraction", pooled(
                 [one["mean_difference"] for one in found]))]
    missed = [f"{settings}: {loss[0]:.2f} points lost, at most {MOST_LOST:g} wanted"] if loss[0] > MOST_LOST else []
    return rows, missed


def speed(name: str, repeats: int, batches: int) -> tuple[list[dict], list[str]]:
    """Rows of one network, and what was missed."""
    net, x, _, _ = network_and_batch(name, BATCH, SIZE)
    net.classes, net.temperature = ["a", "b"], None
    net.preprocessing = gluon_ft.Preprocessing(size=SIZE)
    model = onnx_files.models(*symbol_and_values(net), net, "0" * 64)["model.onnx"]
    pixels = np.random.RandomState(0).randint(0, 256, (BATCH, SIZE, SIZE, 3)).astype(np.uint8)
    plan = graph.Plan(model)
    known = ranges.measure(plan, [pixels[:4]])
    sessions = {way: onnx_runtime.open_session(made.SerializeToString()) for way, made in (
        ("onnxruntime", model), ("int8", graph.quantised(plan, known.of, known.means)))}
    whole = fused.forward_only(net, input_shape=x.shape, engine="mxnet")
    calls = {"fused": lambda _: seconds(lambda: [whole(x) for _ in range(batches)])}
    calls.update({way: lambda _, session=session: seconds(
        lambda: [session.run(None, {onnx_files.INPUT: pixels}) for _ in range(batches)])
        for way, session in sessions.items()})
    times = runner.in_turn(calls, repeats, name, warm_up=1)
    settings = (f"{name} {SIZE} px batch {BATCH}, onnxruntime {onnx_runtime.versions()['onnxruntime']}, "
                f"threads {onnx_runtime.thread_count()}")
    rows = [runner.row("int8", settings, way, "images/s", [batches * BATCH / t for t in values])
            for way, values in times.items()]
    missed = []
    for other in ("fused", "onnxruntime"):
        rows.append(runner.row("int8", settings, f"int8 / {other}", "ratio",
                               runner.ratios(times[other], times["int8"])))
        if other == "fused" and float(rows[-1]["median"]) <= 1:
            missed.append(f"{settings}: INT8 is not faster than fused")
    return rows, missed


@runner.command(__doc__, "int8", repeats=5)
@click.option("--part", "parts", multiple=True, type=click.Choice(["accuracy", "speed"]), help="Only this.")
@click.option("--only", multiple=True, type=click.Choice(list(SETS)), help="Only this set; may be repeated.")
@click.option("--network", "networks", multiple=True, type=click.Choice(NETWORKS), help="Only this; may be repeated.")
@click.option("--batches", default=2, type=click.IntRange(1), help="Batches in a group.")
def main(repeats, parts, only, networks, batches):
    found = []
    if "speed" in parts or not parts:
        found += [speed(name, repeats, batches) for name in networks or NETWORKS]
    if "accuracy" in parts or not parts:
        found += [accuracy(backbone, name) for backbone in TRAINED if backbone in (networks or TRAINED)
                  for name in only or SETS]
    return [row for rows, _ in found for row in rows], [text for _, missed in found for text in missed]


if __name__ == "__main__":
    main()
