"""CIFAR-10 ResNets as imported from their PyTorch files, on 1,000 JPEGs of ../shared/data; nothing is trained.

    GLUON_FT_WEIGHTS=../shared/data/weights \\
        python benchmarks/accuracy/cifar_import.py --data ../shared/data/cifar10/test --json

The PyTorch originals reach 80.4, 84.0, 82.1 and 82.5 % (20, 32, 44 and 56 layers) on these images, so an import that is
right reaches exactly that. About ten seconds on two cores.
"""
from __future__ import annotations

from pathlib import Path

import click

import gluon_ft
from gluon_ft import loaders
from gluon_ft.cli import console
from gluon_ft.reporting import Run

NETWORKS = ("cifar_resnet20_relu", "cifar_resnet32_relu", "cifar_resnet44_relu", "cifar_resnet56_relu")
TAG = "akamaster_cifar10"


@console.command(text=__doc__)
@click.option("--data", type=click.Path(), required=True, help="Folder of the ten class folders.")
@click.option("--network", "networks", multiple=True, type=click.Choice(NETWORKS), help="Default: all four.")
@click.option("--batch-size", default=100, type=click.IntRange(1))
@click.option("--seed", default=0, help="Has no effect: nothing is drawn.")
@click.option("--seeds", default=1, type=click.IntRange(1, 1))
@click.option("--runs", default="runs", type=click.Path(), help="Folder for the run folders.")
def main(data, networks, batch_size, seed, seeds, runs, as_json):
    networks = networks or NETWORKS
    nets = {name: gluon_ft.pretrained_net(name, TAG) for name in networks}
    run = Run(runs, "cifar_import", {"data": data, "networks": list(networks), "weights": TAG,
                                     "batch_size": batch_size, "seed": seed, "seeds": seeds})
    rows = []
    for name, net in nets.items():
        images = loaders.make_loader(Path(data), preprocessing=net.preprocessing, train=False, batch_size=batch_size,
                                     classes=net.classes)
        found = gluon_ft.evaluate(net, images)
        rows.append({"name": name, "seed": seed, "train_accuracy": None, "validation_accuracy": found.accuracy,
                     "validation_loss": found.loss, "images": found.count})
    report = run.finish(rows)
    print(console.table(rows))
    print(f"report: {report}")
    console.emit({"recipe": "cifar_import", "run": str(run.folder), "rows": rows}, as_json)


if __name__ == "__main__":
    main()
