"""A training for test_resume.py to kill: small, with dropout, momentum, an average, a checkpoint every other step."""
import hashlib
import sys
import time
from pathlib import Path

import click

from gluon_ft.cli import console
from gluon_ft.data.batches import ArrayLoader


@console.command()
@click.argument("folder")
@click.option("--resume", is_flag=True)
@click.option("--endless", is_flag=True)
@click.option("--deaf", is_flag=True)
@click.option("--memory", is_flag=True)
def main(folder, resume, endless, deaf, memory, as_json):
    import mxnet as mx
    import numpy as np

    from gluon_ft.training.config import TrainConfig
    from gluon_ft.training.fit import fit

    sys.path.insert(0, __file__.rpartition("/")[0])
    from resume_nets import network, parameters, sets

    train, val = sets(count=40)
    config = TrainConfig(epochs=10_000 if endless else 6, lr=0.05, ema=0.95, mixup=0.2, save_every=0 if endless else 2,
                         schedule="constant" if endless else "cosine")
    net = network()
    if memory:
        import resource

        train = ArrayLoader(np.zeros((4096, 1, 64, 64)), np.arange(4096) % 3, 4096)
        mx.nd.waitall()
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (200 << 20), -1))

    def slowly(record):
        if deaf:
            print("asleep", flush=True)
            time.sleep(30)

    if not deaf:
        print("ready", flush=True)
    fit(net, train, val, config, save_to=folder, resume=resume, on_epoch=slowly)
    digest = hashlib.sha256(b"".join(value.tobytes() for value in parameters(net).values())).hexdigest()
    print(digest)


if __name__ == "__main__":
    main()
