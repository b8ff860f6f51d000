"""The same job on 300, 3,000 and 30,000 generated JPEGs: seconds and peak memory by phase, and how they grow.

    python benchmarks/speed/scale.py                  # five minutes on two cores
    python benchmarks/speed/scale.py --most 3000

Pictures of 96 x 72 pixels in ten classes (a tint of the class, blobs, some near copies), a fifth held out; CIFAR's
ResNet-20 of ../shared/data/weights, strategy linear, each size in a process and with a cache folder of its own. Most of
the time is then what is done to each image besides the network: listing, audit with its search for near duplicates,
hashing, decoding, classifier, report.

Wanted: from each size to the next, ten times as many images, at most 12 times the seconds of the job without its
import, and at most 12 times the memory. Rows go to benchmarks/results/scale.csv. Exit status 1 where that is missed.
"""
from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the project's folder

import click
import cv2
import numpy as np

from benchmarks import runner

SIZES, CLASSES = (300, 3000, 30_000), 10
GROWTH = 12.0  # of ten times as many images
NETWORK = "cifar_resnet20_relu"

JOB = """
import json, resource, sys, time
begun = time.perf_counter()
import gluon_ft, mxnet
from gluon_ft.finetune import run
marks = [("import", time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)]
names = {"images": "list, audit, split", "strategy": "probe, advice"}
def say(line):
    name = names.pop(line.split(":")[0].strip(), None)
    if name:
        marks.append((name, time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
run.train(train=sys.argv[1], runs=sys.argv[2], say=say, backbone=sys.argv[3], strategy="linear", mirror=False)
marks.append(("features, classifier, report", time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
print(json.dumps({name: [at - before, memory / 1024] for (name, at, memory), before in
                  zip(marks, [begun, *(mark[1] for mark in marks)])}))
"""


def write_photos(folder: Path, number: int) -> None:
    """Pictures in one folder a class: a tint of the class, blobs and noise; about one of a hundred is a near copy."""
    random = np.random.RandomState(0)
    tints = random.uniform(60, 200, (CLASSES, 3))
    before: dict[int, np.ndarray] = {}
    for name in range(CLASSES):
        (folder / f"class{name}").mkdir(parents=True)
    for position in range(number):
        label = position % CLASSES
        blobs = cv2.resize(random.normal(0, 45, (9, 12, 3)), (96, 72), interpolation=cv2.INTER_CUBIC)
        picture = tints[label] + blobs + random.normal(0, 8, (72, 96, 3))
        if position % 1000 < CLASSES and label in before:
            picture = before[label] + 2
        before[label] = picture
        cv2.imwrite(str(folder / f"class{label}" / f"{position:06}.jpg"), np.clip(picture, 0, 255).astype(np.uint8))


def measure(number: int) -> dict[str, tuple[float, float]]:
    """Phase -> seconds, and MiB that the process has had at most by its end."""
    with tempfile.TemporaryDirectory() as place:
        write_photos(Path(place, "photos"), number)
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", JOB, f"{place}/photos", f"{place}/runs", NETWORK],
                              check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={
                                  **os.environ, "PYTHONPATH": str(runner.ROOT), "GLUON_FT_PROGRESS": "0",
                                  "GLUON_FT_HOME": f"{place}/home",
                                  "GLUON_FT_WEIGHTS": str(runner.shared_data("weights"))})
    return {name: tuple(values) for name, values in json.loads(done.stdout.splitlines()[-1]).items()}


@runner.command(__doc__, "scale", repeats=1)
@click.option("--most", default=SIZES[-1], type=click.IntRange(SIZES[0]), help="Leave out larger sets.")
def main(repeats, most):
    sizes = [size for size in SIZES if size <= most]
    found = {size: [measure(size) for _ in range(repeats)] for size in sizes}
    rows, missed = [], []
    for size, runs in found.items():
        settings = f"{size} photos, {NETWORK}, linear"
        for phase in runs[0]:
            rows.append(runner.row("scale", settings, phase, "s", [one[phase][0] for one in runs]))
        rows.append(runner.row("scale", settings, "peak memory", "MiB", [_memory(one) for one in runs]))
    for one, other in zip(sizes, sizes[1:]):
        for what, growth in (("time", min(map(_seconds, found[other])) / min(map(_seconds, found[one]))),
                             ("memory", min(map(_memory, found[other])) / min(map(_memory, found[one])))):
            rows.append(runner.row("scale", f"{one} to {other} photos", f"growth of the {what}", "ratio", [growth]))
            if growth > GROWTH:
                missed.append(f"{one} to {other} photos: {growth:.1f} times the {what}, at most {GROWTH:g} wanted")
    return rows, missed


def _seconds(phases) -> float:
    return sum(seconds for name, (seconds, _) in phases.items() if name != "import")


def _memory(phases) -> float:
    return max(memory for _, memory in phases.values())


if __name__ == "__main__":
    main()
