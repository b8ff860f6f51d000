"""What MXNet gains from using every processor, and from idle threads that do not spin for long.

    python benchmarks/speed/threads.py             # about six minutes on two cores

ResNet-18 v2, 224 px, batch 16, in training and in inference, and LeNet, 28 px, batch 10, in training, in images/s: as
plain `import mxnet` starts (half the processors), with OMP_NUM_THREADS alone, with OMP_WAIT_POLICY=PASSIVE too, and as
`import gluon_ft` sets things up; each alone on the machine and beside one busy process. Each figure is a process of its
own, since threads are set up when MXNet is imported. They run in turn; `ratio` is the median of the rounds' ratios to
plain `import mxnet`. Rows are appended to benchmarks/results/threads.csv.
"""
from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the project's folder

import click

from benchmarks import runner

CHILD = """
import json, os, sys, time
how, steps = sys.argv[1], int(sys.argv[2])
if how == "gluon_ft":
    import gluon_ft
else:
    if how == "passive":
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    if how != "mxnet":
        os.environ["OMP_NUM_THREADS"] = str(len(os.sched_getaffinity(0)))
    import numpy
    numpy.bool = bool
import mxnet as mx
from mxnet.gluon import nn
from mxnet.gluon.model_zoo import vision
def prepare(net, shape):
    net.initialize(mx.init.Xavier())
    net.hybridize()
    x, y = mx.nd.random.uniform(shape=shape), mx.nd.array([i % 2 for i in range(shape[0])])
    trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.01})
    loss_of = mx.gluon.loss.SoftmaxCrossEntropyLoss()
    def train():
        with mx.autograd.record():
            loss = loss_of(net(x), y)
        loss.backward()
        trainer.step(shape[0])
    return train, lambda: net(x)
def rate(step, images, count):
    step(); mx.nd.waitall()
    start = time.perf_counter()
    for _ in range(count):
        step()
        mx.nd.waitall()
    return images * count / (time.perf_counter() - start)
lenet = nn.HybridSequential()
lenet.add(nn.Conv2D(20, 5), nn.MaxPool2D(), nn.Conv2D(50, 5), nn.MaxPool2D(), nn.Dense(500, "relu"), nn.Dense(10))
train, infer = prepare(vision.resnet18_v2(classes=2), (16, 3, 224, 224))
small, _ = prepare(lenet, (10, 1, 28, 28))
print(json.dumps({"resnet18_v2 training": rate(train, 16, steps), "resnet18_v2 inference": rate(infer, 16, 2 * steps),
                  "lenet training": rate(small, 10, 10 * steps)}))
"""
BUSY = "while True: pass"
HOW = {"mxnet": "import mxnet", "threads": "OMP_NUM_THREADS alone", "passive": "OMP_NUM_THREADS and PASSIVE",
       "gluon_ft": "import gluon_ft"}


def images_per_second(how: str, steps: int) -> dict:
    """What a fresh process measures, without any OMP_* variable of the caller's."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "KMP_", "GOMP_", "GLUON_FT_"))}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", CHILD, how, str(steps)], env=clean, check=True,
                          stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(repeats, steps, beside) -> list[dict]:
    """Rows of one situation: alone, or beside a busy process."""
    situation = "beside a busy process" if beside else "alone"
    neighbour = subprocess.Popen([sys.executable, "-c", BUSY]) if beside else None
    try:
        found = runner.in_turn({how: lambda _, how=how: images_per_second(how, steps) for how in HOW}, repeats,
                               situation)
    finally:
        if neighbour:
            neighbour.kill()
            neighbour.wait()
    rows = []
    for what in found["mxnet"][0]:
        values = {how: [m[what] for m in measured] for how, measured in found.items()}
        for how, text in HOW.items():
            rows.append(runner.row("threads", f"{what}, {situation}", text, "images/s", values[how]))
            if how != "mxnet":
                rows.append(runner.row("threads", f"{what}, {situation}", f"{text} / import mxnet", "ratio",
                                       runner.ratios(values[how], values["mxnet"])))
    return rows


@runner.command(__doc__, "threads", repeats=5)
@click.option("--steps", default=6, type=click.IntRange(1), help="Training steps a process; more where quick.")
def main(repeats, steps):
    return [row for beside in (False, True) for row in measure(repeats, steps, beside)], []


if __name__ == "__main__":
    main()
