"""Images/s with one and two contexts or workers on the CPU, the KVStore's share, and the cost of adding up elsewhere.

    python benchmarks/speed/scaling.py                   # four minutes

Measured: training steps on 1 and 2 contexts, and by 1 and 2 worker processes, with the same batch (on one CPU both gain
nothing: the rows show what dividing and adding up cost); how fast this machine copies memory, and sends through its own
TCP loopback.

On paper, from these and from the networks' sizes: seconds a step for adding up the gradients of 8 GPUs in one machine
(a ring: each passes on 2 x 7/8 of the gradients), and of 64 machines with as many servers (each sends all gradients and
gets all weights back, both at once). These rows say 'model' in their settings: no GPU and no second machine was at
hand, links between cards and a real network have other bandwidths, and nothing is taken off for what overlaps with the
backward pass. Rows go to benchmarks/results/scaling.csv.
"""
from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the project's folder
import gluon_ft  # isort: skip  (prepares the import of mxnet)

import json
import os
import socket
import subprocess
import tempfile
import threading
import time

import mxnet as mx
import numpy as np

from benchmarks import runner
from benchmarks.speed.timing import seconds

NETWORK, BATCH, SIZE, STEPS = "resnet18_v1b", 16, 112, 3
SIZES = {"resnet18_v1b": 11.7e6, "ResNet-50": 25.6e6, "ResNet-152": 60.2e6}  # parameters, ImageNet's 1,000 classes
BYTES = 1 << 28  # copied or sent in one measurement


class Training:
    """Training steps of one network on so many contexts; `step` returns (seconds, seconds of these in the KVStore)."""

    def __init__(self, count: int):
        self.contexts = gluon_ft.contexts(f"cpu:{count}")
        net = gluon_ft.fine_tune_net(NETWORK, 10, pretrained=False, ctx=self.contexts)
        net.hybridize(static_alloc=True)
        self.net, self.loss_of = net, mx.gluon.loss.SoftmaxCrossEntropyLoss()
        self.trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.01, "momentum": 0.9},
                                        kvstore="device", update_on_kvstore=False)
        self.x, self.y = mx.nd.random.uniform(shape=(BATCH, 3, SIZE, SIZE)), mx.nd.arange(BATCH) % 10
        self.step()

    def step(self) -> tuple[float, float]:
        whole = seconds(self._gradients)
        added = seconds(self.trainer.allreduce_grads)
        return whole + added + seconds(lambda: self.trainer.update(BATCH)), added

    def _gradients(self):
        shares = [mx.gluon.utils.split_and_load(part, self.contexts) for part in (self.x, self.y)]
        with mx.autograd.record():
            losses = [self.loss_of(self.net(x), y) for x, y in zip(*shares)]
        mx.autograd.backward(losses)


def by_workers(count: int, rounds: int) -> list[tuple[float, float]]:
    """(seconds of STEPS steps, seconds of these in the KVStore) of each round, by so many worker processes."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        subprocess.run([sys.executable, "-m", "gluon_ft.cli.main", "launch", "-n", str(count), "--", sys.executable,
                        str(Path(__file__).with_name("scaling_worker.py")), str(result), str(rounds), str(STEPS)],
                       check=True, env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])})
        return json.loads(result.read_text())


def copied() -> float:
    """Bytes a second that one thread copies in memory."""
    source, target = np.ones(BYTES, np.uint8), np.full(BYTES, 2, np.uint8)
    begun = time.perf_counter()
    np.copyto(target, source)
    return BYTES / (time.perf_counter() - begun)


def sent() -> float:
    """Bytes a second through TCP on this machine's loopback, from one thread to another."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        def receive():
            with server.accept()[0] as connection:
                buffer = bytearray(1 << 20)
                while connection.recv_into(buffer):
                    pass
                connection.sendall(b"!")

        receiver = threading.Thread(target=receive)
        receiver.start()
        with socket.create_connection(server.getsockname()) as connection:
            data, begun = bytes(1 << 20), time.perf_counter()
            for _ in range(BYTES >> 20):
                connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1)
            taken = time.perf_counter() - begun
        receiver.join()
    return BYTES / taken


def on_paper(parameters: float, memory: float, network: float) -> dict[str, float]:
    """Setting -> seconds a step to add up gradients of so many parameters, with these bandwidths in bytes a second."""
    size = 4 * parameters
    return {"8 GPUs in one machine, a ring at the bandwidth of memory here": 2 * 7 / 8 * size / memory,
            "64 machines and 64 servers, each link at the bandwidth of loopback here": size / network,
            "64 machines and 64 servers, each link 10 Gbit/s": size / 1.25e9}


@runner.command(__doc__, "scaling", repeats=5)
def main(repeats):
    trainings = {count: Training(count) for count in (1, 2)}
    found = runner.in_turn({count: lambda _, one=one: [one.step() for _ in range(STEPS)]
                            for count, one in trainings.items()}, repeats, NETWORK)
    settings, rows = f"{NETWORK} {SIZE} px batch {BATCH}, kvstore device", []
    for count, rounds in found.items():
        where = f"{count} context{'s' * (count > 1)}"
        rows.append(runner.row("scaling", settings, where, "images/s",
                               [STEPS * BATCH / sum(whole for whole, _ in steps) for steps in rounds]))
        rows.append(runner.row("scaling", settings, f"{where}, share of the step in the KVStore", "share",
                               [sum(part for _, part in steps) / sum(whole for whole, _ in steps) for steps in rounds]))
    for count in (1, 2):
        where, rounds = f"{count} worker{'s' * (count > 1)}", by_workers(count, repeats)
        settings = f"{NETWORK} {SIZE} px batch {BATCH}, kvstore dist_sync, 1 server, loopback"
        rows.append(runner.row("scaling", settings, where, "images/s", [STEPS * BATCH / whole for whole, _ in rounds]))
        rows.append(runner.row("scaling", settings, f"{where}, share of the step in the KVStore", "share",
                               [part / whole for whole, part in rounds]))
    memory, network = [copied() for _ in range(repeats)], [sent() for _ in range(repeats)]
    rows += [runner.row("scaling", "this machine", name, "GB/s", [value / 1e9 for value in values])
             for name, values in (("copying memory, one thread", memory), ("TCP over loopback", network))]
    for name, parameters in SIZES.items():
        each = [on_paper(parameters, *pair) for pair in zip(memory, network)]
        rows += [runner.row("scaling", f"model, on paper: {name}, {parameters / 1e6:.1f} million parameters, float32",
                            quantity, "s a step", [values[quantity] for values in each]) for quantity in each[0]]
    return rows, []


if __name__ == "__main__":
    main()
