"""What the speed benchmarks time: a network with one batch, a training step, a call, and what others do meanwhile."""
from __future__ import annotations

import gluon_ft  # isort: skip  (prepares the import of mxnet)

import json
import os
import subprocess
import time
from pathlib import Path

import mxnet as mx

from benchmarks import runner
from gluon_ft.errors import ConfigError
from gluon_ft.runtime import hardware


def seconds(function) -> float:
    """Time of one call, everything computed."""
    mx.nd.waitall()
    start = time.perf_counter()
    function()
    mx.nd.waitall()
    return time.perf_counter() - start


def network_and_batch(name, batch, size):
    """(network with two classes that has run once, data, labels, precisions that this machine has)."""
    shape = gluon_ft.backbones.input_shape(name, batch, size)
    net = gluon_ft.fine_tune_net(name, 2)
    net.hybridize(static_alloc=True)
    x, y = mx.nd.random.uniform(shape=shape), mx.nd.array([i % 2 for i in range(batch)])
    net(x).wait_to_read()
    return net, x, y, precisions()


def precisions() -> list[str]:
    """What this machine's processor computes in."""
    return ["float32", *(["bfloat16"] if hardware.bfloat16_flags() else [])]


def training_step(run, net, x, y):
    """A function that trains one step through `run`."""
    trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.01, "momentum": 0.9})
    loss_of = mx.gluon.loss.SoftmaxCrossEntropyLoss()

    def step():
        with mx.autograd.record():
            loss = loss_of(run(x), y)
        loss.backward()
        trainer.step(len(y))
    return step


class OtherProcess:
    """The others' side of a benchmark, in the Python that `runner.TORCH_VARIABLE` names: it waits while ours runs.

    The script beside this file says about itself first, then answers each line '<setting> <number>' with the seconds
    that so many steps took; both as JSON. MXNet's number of threads is handed on.

    Parameters
    ----------
    script : str
    *arguments : str
        Of the script.
    needs : str
        What that Python has to have, for errors.

    Attributes
    ----------
    about : dict
        What the script says first.
    """

    def __init__(self, script: str, *arguments: str, needs: str):
        python, self._needs = os.environ.get(runner.TORCH_VARIABLE), needs
        if not python:
            raise ConfigError(f"{runner.TORCH_VARIABLE} is not set", expected=f"the path of a Python that has {needs}")
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "KMP_", "GOMP_", "PYTHONPATH"))}
        self._process = subprocess.Popen([python, "-W", "ignore", str(Path(__file__).with_name(script)), *arguments],
                                         env={**clean, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")},
                                         text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.about = self._answer()

    def __call__(self, setting: str, number: int) -> float:
        self._process.stdin.write(f"{setting} {number}\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self):
        line = self._process.stdout.readline()
        if not line:
            raise ConfigError("the others' side ended", path=os.environ[runner.TORCH_VARIABLE],
                              expected=f"a Python that has {self._needs}")
        return json.loads(line)

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()
