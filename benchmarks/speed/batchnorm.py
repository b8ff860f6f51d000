"""Training steps with BatchNorm trained and frozen, with its relu as one operator and as two, in turn.

    OMP_NUM_THREADS=1 python benchmarks/speed/batchnorm.py    # five minutes; of one thread processor time can be told

224 px, float32, SGD with momentum. The ratios are of processor time, which a machine that others use too changes less
than elapsed time; one thread, so that none counts that only waits. Target: frozen at least 1.15 times as fast as
trained. Rows go to benchmarks/results/batchnorm.csv; exit status 1 where the target is missed.
"""
from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the project's folder
import gluon_ft  # isort: skip  (prepares the import of mxnet)

import click
import mxnet as mx

from benchmarks import runner
from benchmarks.speed.timing import training_step
from gluon_ft.engine import fused, merged
from gluon_ft.models.batchnorm import set_batchnorm

NETWORKS, SIZE, TARGET = ("mobilenetv2_1.0", "resnet18_v1b", "resnet18_v2"), 224, 1.15
WAYS = [(mode, operators) for mode in ("train", "frozen") for operators in ("two operators", "one operator")]


def step_of(name, batch, mode, operators):
    """A function that trains one step, which has run once."""
    net = gluon_ft.fine_tune_net(name, 2, pretrained=False)
    x, y = mx.nd.random.uniform(shape=(batch, 3, SIZE, SIZE)), mx.nd.array([i % 2 for i in range(batch)])
    net(x[:1]).wait_to_read()
    set_batchnorm(net, mode)
    step = training_step(fused.trainable(net, "float32", x.shape), net, x, y)
    # The first call decides: a trial at once, or none in this process.
    patience, merged.PATIENCE = merged.PATIENCE, 0 if operators == "one operator" else 1 << 30
    step()
    mx.nd.waitall()
    merged.PATIENCE = patience
    return step


def processor_seconds(step) -> float:
    """Processor time of one step, everything computed."""
    start = time.process_time()
    step()
    mx.nd.waitall()
    return time.process_time() - start


@runner.command(__doc__, "batchnorm", repeats=5)
@click.option("--batch", default=8, type=click.IntRange(8), help="Images in a step; fewer are not worth a trial.")
def main(repeats, batch):
    rows, missed = [], []
    for name in NETWORKS:
        steps = {way: step_of(name, batch, *way) for way in WAYS}
        times = runner.in_turn({way: lambda _, step=step: processor_seconds(step) for way, step in steps.items()},
                               repeats, name)
        settings = f"{name} {SIZE} px batch {batch}, a training step"
        rows += [runner.row("batchnorm", settings, f"{mode}, {operators}", "seconds of processor time",
                            times[mode, operators]) for mode, operators in WAYS]
        for text, upper, lower in [
                ("trained, two operators / one", ("train", "two operators"), ("train", "one operator")),
                ("frozen, two operators / one", ("frozen", "two operators"), ("frozen", "one operator")),
                ("trained / frozen, one operator", ("train", "one operator"), ("frozen", "one operator"))]:
            rows.append(runner.row("batchnorm", settings, text, "ratio", runner.ratios(times[upper], times[lower])))
        if float(rows[-1]["median"]) < TARGET:
            missed.append(f"{name}: frozen is {rows[-1]['median']} times as fast, at least {TARGET} wanted")
    return rows, missed


if __name__ == "__main__":
    main()
