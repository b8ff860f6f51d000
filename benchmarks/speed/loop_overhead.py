"""What gluon_ft's training loop costs over a hand-written Gluon loop that does the same steps.

    python benchmarks/loop_overhead.py             # about five minutes on two cores
    python benchmarks/loop_overhead.py --repeats 3 --no-record

Both loops train the same network on the same batches in memory, with the same optimiser, and compute the same things:
mean loss and accuracy. The hand-written one is the published examples' loop. They run in turn, in pairs whose order
alternates; the figure is the median of the pairs' ratios (ours / theirs), so that what slows the machine down for a
while slows both. Target: at most 1.02. Rows are appended to benchmarks/results/loop_overhead.csv; exit status 1 where
a target is missed.
"""
from __future__ import annotations

import gluon_ft  # isort: skip  (prepares the import of mxnet)

import sys

import click
import mxnet as mx
import recording
from timing import seconds

from gluon_ft.cli import console

SETTINGS = {"resnet18_v2": 16, "mobilenet0.25": 32}
SIZE, TARGET = 224, 1.02
CONFIG = gluon_ft.TrainConfig(epochs=1, lr=0.01, momentum=0.9, wd=1e-4, top_k=0, seed=None)


def hand_written(net, batches):
    """One epoch as the published examples write it."""
    trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.01, "momentum": 0.9, "wd": 1e-4})
    loss_of, metric, total = mx.gluon.loss.SoftmaxCrossEntropyLoss(), mx.metric.Accuracy(), 0.0
    for data, label in batches:
        with mx.autograd.record():
            output = net(data)
            loss = loss_of(output, label)
        loss.backward()
        trainer.step(data.shape[0])
        total += loss.sum().asscalar()
        metric.update(label, output)
    return total


def measure(name, batch, steps, repeats) -> list[float]:
    """Ratios ours / theirs of `repeats` pairs."""
    shape = gluon_ft.backbones.input_shape(name, batch, SIZE)
    batches = [(mx.nd.random.uniform(shape=shape), mx.nd.array([i % 2 for i in range(batch)])) for _ in range(steps)]
    net = gluon_ft.fine_tune_net(name, 2)
    ours, theirs = (lambda: gluon_ft.fit(net, batches, None, CONFIG)), (lambda: hand_written(net, batches))
    theirs(), ours()
    ratios = []
    for number in console.progress(range(repeats), desc=name, unit="pair"):
        order = (ours, theirs) if number % 2 else (theirs, ours)
        times = {function: seconds(function) for function in order}
        ratios.append(times[ours] / times[theirs])
    return ratios


@click.command(cls=console.Command)
@click.option("--repeats", default=15, help="Pairs of epochs.")
@click.option("--steps", default=8, help="Batches an epoch.")
@click.option("--record/--no-record", default=True, help="Append to benchmarks/results/loop_overhead.csv.")
@console.json_option
def main(repeats, steps, record, as_json):
    """Measure the training loop's overhead."""
    rows = [recording.row("loop_overhead", f"{name} {SIZE} px batch {batch}, {steps} steps", "ours / hand-written",
                          "ratio", measure(name, batch, steps, repeats)) for name, batch in SETTINGS.items()]
    print(recording.show(rows))
    if record:
        print(f"appended to {recording.append(rows, 'loop_overhead')}")
    console.emit({"benchmark": "loop_overhead", "rows": rows}, as_json)
    sys.exit(int(any(float(r["median"]) > TARGET for r in rows)))


if __name__ == "__main__":
    main()
