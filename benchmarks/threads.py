"""What MXNet gains from using every processor: its own default is half of those it sees.

    python benchmarks/threads.py             # about two minutes on two cores

ResNet-18 v2, 224 px, batch 16, images/s in training and in inference. Each figure is a process of its own, since the
number of threads is fixed when MXNet is imported: as plain `import mxnet` starts it, and as `import gluon_ft` does.
They run in turn; `ratio` is the median of the pairs' ratios. Rows are appended to benchmarks/results/threads.csv.
"""
from __future__ import annotations

import json
import os
import subprocess
import sys

import click
import recording

from gluon_ft import console

CHILD = """
import json, sys, time
if sys.argv[1] == "gluon_ft":
    import gluon_ft
else:
    import numpy
    numpy.bool = bool
import mxnet as mx
from mxnet.gluon.model_zoo import vision
net = vision.resnet18_v2(classes=2)
net.initialize(mx.init.Xavier())
net.hybridize()
trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.01})
loss_of = mx.gluon.loss.SoftmaxCrossEntropyLoss()
x, y = mx.nd.random.uniform(shape=(16, 3, 224, 224)), mx.nd.array([0, 1] * 8)
def train():
    with mx.autograd.record():
        loss = loss_of(net(x), y)
    loss.backward()
    trainer.step(16)
def infer():
    net(x)
def rate(step, count):
    step(); mx.nd.waitall()
    start = time.perf_counter()
    for _ in range(count):
        step()
    mx.nd.waitall()
    return 16 * count / (time.perf_counter() - start)
print(json.dumps({"training": rate(train, int(sys.argv[2])), "inference": rate(infer, 3 * int(sys.argv[2]))}))
"""


def images_per_second(how: str, steps: int) -> dict:
    """{'training': ..., 'inference': ...} of a fresh process without OMP_NUM_THREADS."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "KMP_", "GLUON_FT_"))}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", CHILD, how, str(steps)], env=clean, check=True,
                          stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


@click.command(cls=console.Command)
@click.option("--repeats", default=5, help="Pairs of processes.")
@click.option("--steps", default=6, help="Training steps a process; three times as many for inference.")
@click.option("--record/--no-record", default=True, help="Append to benchmarks/results/threads.csv.")
@console.json_option
def main(repeats, steps, record, as_json):
    """Measure the gain from using every processor."""
    found = {"mxnet": [], "gluon_ft": []}
    for number in console.progress(range(repeats), desc="threads", unit="pair"):
        for how in sorted(found, reverse=bool(number % 2)):
            found[how].append(images_per_second(how, steps))
    rows = []
    for what in ("training", "inference"):
        settings = f"resnet18_v2 224 px batch 16 {what}"
        values = {how: [m[what] for m in measured] for how, measured in found.items()}
        rows += [recording.row("threads", settings, f"import {how}", "images/s", values[how]) for how in values]
        rows.append(recording.row("threads", settings, "gluon_ft / mxnet", "ratio",
                                  [ours / theirs for ours, theirs in zip(values["gluon_ft"], values["mxnet"])]))
    print(recording.show(rows))
    if record:
        print(f"appended to {recording.append(rows, 'threads')}")
    console.emit({"benchmark": "threads", "rows": rows}, as_json)


if __name__ == "__main__":
    main()
