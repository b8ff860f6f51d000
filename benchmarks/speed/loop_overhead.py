"""What gluon_ft's training loop costs over a hand-written Gluon loop that does the same steps.

    python benchmarks/speed/loop_overhead.py             # about five minutes on two cores
    python benchmarks/speed/loop_overhead.py --repeats 3 --no-record

Both loops train the same network on the same batches in memory, with the same optimiser, and compute the same things:
mean loss and accuracy. The hand-written one is the published examples' loop. The figure is the median of the rounds'
ratios (ours / theirs). Target: at most 1.02. Rows are appended to benchmarks/results/loop_overhead.csv; exit status 1
where a target is missed.
"""
from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the project's folder
import gluon_ft  # isort: skip  (prepares the import of mxnet)

import click
import mxnet as mx

from benchmarks import runner
from benchmarks.speed.timing import seconds

SETTINGS = {"resnet18_v2": 16, "mobilenet0.25": 32}
SIZE, TARGET = 224, 1.02


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
    """Ratios ours / theirs of `repeats` rounds."""
    shape = gluon_ft.backbones.input_shape(name, batch, SIZE)
    batches = [(mx.nd.random.uniform(shape=shape), mx.nd.array([i % 2 for i in range(batch)])) for _ in range(steps)]
    net = gluon_ft.fine_tune_net(name, 2)
    config = gluon_ft.TrainConfig(epochs=1, lr=0.01, momentum=0.9, wd=1e-4, top_k=0, seed=None)
    times = runner.in_turn({"theirs": lambda _: seconds(lambda: hand_written(net, batches)),
                            "ours": lambda _: seconds(lambda: gluon_ft.fit(net, batches, None, config))},
                           repeats, name, warm_up=1)
    return runner.ratios(times["ours"], times["theirs"])


@runner.command(__doc__, "loop_overhead", repeats=15)
@click.option("--steps", default=8, type=click.IntRange(1), help="Batches an epoch.")
def main(repeats, steps):
    rows = [runner.row("loop_overhead", f"{name} {SIZE} px batch {batch}, {steps} steps", "ours / hand-written",
                       "ratio", measure(name, batch, steps, repeats)) for name, batch in SETTINGS.items()]
    return rows, [f"{r['settings']}: {r['median']} times the hand-written loop's time, at most {TARGET} wanted"
                  for r in rows if float(r["median"]) > TARGET]


if __name__ == "__main__":
    main()
