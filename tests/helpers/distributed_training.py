"""A training by one process or by several workers, on either path; worker 0 writes parameters and history as JSON.

    python distributed_training.py gluon|symbolic KVSTORE RESULT.json [key=value ...]
"""
import json
import os
import signal
import sys
from pathlib import Path

import gluon_ft  # isort: skip  # noqa: F401
import mxnet as mx
import numpy as np
from mxnet.gluon import nn

from gluon_ft.data.batches import ArrayLoader
from gluon_ft.models import freezing
from gluon_ft.training.config import TrainConfig
from gluon_ft.training.fit import fit

IMAGES, BATCH = 17, 8  # 8, 8 and 1: two of three workers have no image of the last batch


def arrays(count, seed):
    rng = np.random.RandomState(seed)
    labels = np.arange(count) % 3
    return (rng.randn(count, 1, 6, 6) + labels[:, None, None, None]).astype(np.float32), labels


def network(live, width):
    """Convolutions with BatchNorm, whose statistics are held unless `live`, and an output.

    With a width of 32 oneDNN lays the second convolution's weights out as it wants them.
    """
    net = nn.HybridSequential(prefix="net_")
    with net.name_scope():
        net.add(nn.Conv2D(width, 3, use_bias=False), nn.BatchNorm(use_global_stats=not live), nn.Activation("relu"),
                nn.Conv2D(width + width // 2, 3), nn.Flatten(), nn.Dense(3))
    mx.random.seed(int(os.environ.get("GLUON_FT_WORKER", 0)))  # worker 0's parameters are to count
    net.initialize(mx.init.Xavier())
    net(mx.nd.zeros((1, 1, 6, 6)))
    net.hybridize()
    return net


def main():
    path, kvstore, result, *options = sys.argv[1:]
    given = dict(option.split("=") for option in options)
    live, folder = "live" in given, given.pop("folder", None)
    given.pop("live", None)
    width = int(given.pop("width", 4))
    kill, contexts = int(given.pop("kill", 0)), [mx.cpu(i) for i in range(int(given.pop("devices", 1)))]
    resume = "resume" in given
    given.pop("resume", None)
    config = TrainConfig(kvstore=kvstore, **{"lr": 0.05, "wd": 0.01, "epochs": 3, "top_k": 2, **{
        name: type(getattr(TrainConfig(), name))(value) for name, value in given.items()}})
    train = ArrayLoader(*arrays(IMAGES, 0), BATCH, shuffle=True, seed=3)
    val = ArrayLoader(*arrays(7, 1), 4)
    if kill and os.environ.get("GLUON_FT_WORKER") == "1":
        plain = train.__class__.__iter__

        def until(self):
            for number, batch in enumerate(plain(self)):
                if self.epoch == 2 and number == kill:
                    os.kill(os.getpid(), signal.SIGKILL)
                yield batch
        ArrayLoader.__iter__ = until
    done = (_gluon if path == "gluon" else _symbolic)(train, val, config, contexts, live, width, folder, resume)
    if os.environ.get("GLUON_FT_WORKER", "0") == "0":
        parameters, history = done
        Path(result).write_text(json.dumps({
            "parameters": {name: value.astype(np.float64).tolist() for name, value in parameters.items()},
            "history": [{key: value for key, value in record.items() if key != "seconds"} for record in history]}))


def _gluon(train, val, config, contexts, live, width, folder, resume):
    net = network(live, width)
    net.collect_params().reset_ctx(contexts)
    if not live:
        freezing.freeze(net[1])
    done = fit(net, train, val, config, save_to=folder, resume=resume)
    return {name: parameter.data(contexts[0]).asnumpy()
            for name, parameter in net._collect_params_with_prefix().items()}, done.history


def _symbolic(train, val, config, contexts, live, width, folder, resume):
    from gluon_ft import symbolic

    net = network(live, width)
    output = mx.sym.SoftmaxOutput(net(mx.sym.var("data")), name="softmax")
    values = {name: parameter.data().copy() for name, parameter in net.collect_params().items()}
    moving = {name: value for name, value in values.items() if "running" in name}
    done = symbolic.fit(output, {name: value for name, value in values.items() if name not in moving}, moving, train,
                        val, BATCH, contexts, config, frozen=() if live else ("batchnorm",), save_to=folder,
                        batchnorm="train" if live else "frozen", resume=resume, speedometer=0)
    return {name: value.asnumpy() for name, value in {**done.arg_params, **done.aux_params}.items()}, done.history


if __name__ == "__main__":
    main()
