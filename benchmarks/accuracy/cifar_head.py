"""A small fine-tuning that notices small mistakes: a new output on a frozen CIFAR-10 ResNet-20, for two epochs.

    GLUON_FT_WEIGHTS=../shared/data/weights python benchmarks/accuracy/cifar_head.py --data ../shared/data/cifar10

2,000 images, frozen features, a fixed number of steps and no augmentation leave little to chance, so that the losses at
the end lie in a narrow band: BatchNorm that is not held, another learning rate of the output, a wrong mean or a tenth
of the labels shuffled puts them outside (targets.toml, tests/benchmarks/test_accuracy.py). Some seconds a
seed on two cores.
"""
from __future__ import annotations

from pathlib import Path

import click

import gluon_ft
from gluon_ft import loaders
from gluon_ft.cli import console
from gluon_ft.reporting import Run, summarise

BACKBONE, TAG = "cifar_resnet20_relu", "akamaster_cifar10"


@console.command(text=__doc__)
@click.option("--data", type=click.Path(), required=True, help="Folder that holds train and test.")
@click.option("--epochs", default=2)
@click.option("--lr", default=0.002)
@click.option("--head-lr-mult", default=10.0, help="Learning-rate multiplier of the new output.")
@click.option("--batch-size", default=50, type=click.IntRange(1))
@click.option("--seed", default=0, help="Of the new output and the order of images.")
@click.option("--seeds", default=1, type=click.IntRange(1), help="Number of runs, with seeds from --seed on.")
@click.option("--runs", default="runs", type=click.Path(), help="Folder for the run folders.")
def main(data, epochs, lr, head_lr_mult, batch_size, seed, seeds, runs, as_json):
    config = gluon_ft.TrainConfig(epochs=epochs, lr=lr, momentum=0.9, wd=1e-4, top_k=0)
    gluon_ft.pretrained_net(BACKBONE, TAG)  # what is missing is said before there is a folder
    run = Run(runs, "cifar_head", {"data": data, "backbone": BACKBONE, "pretrained": TAG, "seed": seed, "seeds": seeds,
                                   "head_lr_mult": head_lr_mult, "batch_size": batch_size, "task": config.to_dict()})
    rows = [train(Path(data), number, config, head_lr_mult, batch_size, run) for number in range(seed, seed + seeds)]
    report = run.finish(rows)
    print(console.table(summarise(rows) if seeds > 1 else rows))
    print(f"report: {report}")
    console.emit({"recipe": "cifar_head", "run": str(run.folder), "rows": rows}, as_json)


def train(data, seed, config, head_lr_mult, batch_size, run):
    """One seed; its row."""
    gluon_ft.seed_all(seed)
    net = gluon_ft.pretrained_net(BACKBONE, TAG)
    how = net.preprocessing
    gluon_ft.freeze(net)
    gluon_ft.replace_output(net, len(net.classes), lr_mult=head_lr_mult)
    sets = {part: loaders.make_loader(data / part, preprocessing=how, train=part == "train", batch_size=batch_size,
                                      seed=seed, augment="none" if part == "train" else None, cache="memory")
            for part in ("train", "test")}
    result = gluon_ft.fit(net, sets["train"], sets["test"], settings_of(config, seed), name=f"head, seed {seed}",
                          on_epoch=lambda record: run.log("head", seed=seed, **record))
    last = result.history[-1]
    return {"name": "head", "seed": seed, "train_accuracy": last["train_accuracy"],
            "validation_accuracy": last["validation_accuracy"], "train_loss": last["train_loss"],
            "validation_loss": last["validation_loss"]}


def settings_of(config, seed):
    """The configuration of one seed."""
    return gluon_ft.TrainConfig.from_dict({**config.to_dict(), "seed": seed})


if __name__ == "__main__":
    main()
