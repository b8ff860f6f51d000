"""One worker of scaling.py, which starts as many as it measures: training steps, and what adding up takes of them.

    gluon-ft launch -n 2 -- python benchmarks/speed/scaling_worker.py RESULT.json ROUNDS STEPS

All have the same batch together, and the processors of the machine together; worker 0 writes, for each round, seconds
of the steps and seconds of these in the KVStore.
"""
from __future__ import annotations

import gluon_ft  # isort: skip  (prepares the import of mxnet)

import json
import sys
import time
from pathlib import Path

import mxnet as mx

from gluon_ft.data.batches import Part
from gluon_ft.runtime.distributed.workers import joined

NETWORK, BATCH, SIZE = "resnet18_v1b", 16, 112


def main(result, rounds, steps):
    with joined("dist_sync") as workers:
        rows = Part(workers.rank, workers.size).of(BATCH)
        count = rows.stop - rows.start
        net = gluon_ft.fine_tune_net(NETWORK, 10, pretrained=False)
        net.hybridize(static_alloc=True)
        loss_of = mx.gluon.loss.SoftmaxCrossEntropyLoss()
        x, y = mx.nd.random.uniform(shape=(count, 3, SIZE, SIZE)), mx.nd.arange(count) % 10
        trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.01, "momentum": 0.9}, kvstore=None)
        net(x).wait_to_read()
        free = [parameter for parameter in net.collect_params().values() if parameter.grad_req != "null"]
        exchange, found = workers.exchange([parameter.list_data() for parameter in free]), []
        for _ in range(rounds + 1):
            whole = added = 0.0
            workers.wait()
            for _ in range(steps):
                begun = time.perf_counter()
                with mx.autograd.record():
                    loss = loss_of(net(x), y)
                loss.backward()
                mx.nd.waitall()
                computed = time.perf_counter()
                for position, parameter in enumerate(free):
                    exchange.add_up(position, parameter.list_grad())
                mx.nd.waitall()
                added += time.perf_counter() - computed
                trainer.update(BATCH)
                mx.nd.waitall()
                whole += time.perf_counter() - begun
            found.append((whole, added))
        if workers.rank == 0:
            Path(result).write_text(json.dumps(found[1:]))  # the first round warms up


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
