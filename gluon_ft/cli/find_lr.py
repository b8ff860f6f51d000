"""`gluon-ft find-lr`: the learning-rate range test on one's own images."""
from __future__ import annotations

from pathlib import Path

import click

from gluon_ft.cli import console

AUTO = "auto"


@click.command("find-lr", cls=console.Command)
@click.argument("source", type=click.Path())
@click.argument("assignments", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--backbone", default=AUTO, help="A network of the registry; auto: the best whose weights are at hand.")
@click.option("--pretrained", default=AUTO, help="'none', a tag, BACKBONE:TAG or a file.")
@click.option("--freeze", help="'none' (default), 'features' (all but the output), or a number of stages.")
@click.option("--head-lr-mult", type=float, help="Learning-rate multiplier of the new output; by default 10, or 1 "
                                                 "without weights or with frozen features.")
@click.option("--batch-size", type=click.IntRange(1), help="Images a step; by default by their number, 4 to 32.")
@click.option("--size", type=click.IntRange(8), help="Height and width of the input; by default the network's.")
@click.option("--optimizer", help="sgd, nag, adam or rmsprop; by default sgd.")
@click.option("--config", type=click.Path(), help="Settings from a .toml or .json file, as of gluon-ft train.")
@click.option("--lowest", default=1e-6, help="First learning rate.")
@click.option("--highest", default=10.0, help="Last learning rate, unless the loss breaks off before.")
@click.option("--steps", default=100, type=click.IntRange(20, 100_000), help="Steps from the one to the other.")
@click.option("--seed", type=click.IntRange(0), help="Of the new output and of the order of images; by default 0.")
@click.option("--device", default=AUTO, help="cpu, cpu:2, gpu, gpu:2, ...; auto: every GPU, or else the CPU.")
@click.option("--root", type=click.Path(), help="Folder that the paths of a .lst begin at; by default its own.")
@click.option("--out", type=click.Path(), default="find-lr.png", help="The picture: loss against learning rate.")
@console.json_option
def find_lr(source, assignments, config, lowest, highest, steps, out, as_json, **options):
    """Train for a few steps at ever higher learning rates on SOURCE (a folder with one subfolder of images a class, a
    .lst or a .rec), draw the loss against the rate, and suggest a rate.

    Settings of training, such as momentum=0.9 or mixup=0.2, are taken as `gluon-ft train` takes them.

    \b
    gluon-ft find-lr photos/ --backbone resnet18_v1b --pretrained gluon_in1k --freeze 3 --out lr.png
    """
    from gluon_ft.errors import DataError
    from gluon_ft.io import atomic
    from gluon_ft.reporting.rate_plot import rate_plot
    from gluon_ft.training.lr_finder import check
    from gluon_ft.training.lr_finder import find_lr as test

    if not Path(out).absolute().parent.is_dir():
        raise DataError("folder does not exist", path=Path(out).parent, remedy="create it, or choose another --out")
    check(lowest, highest, steps)
    atomic.check_writable(out)
    net, loader, settings = _prepared(source, assignments, config, options)
    found = test(net, loader, settings.training(), lowest=lowest, highest=highest, steps=steps)
    rate_plot(found, out, f"{settings.backbone}, {settings.optimizer}, batch size {settings.batch_size}")
    if found.stopped:
        click.echo(f"stopped: {found.stopped}")
    click.echo(f"no suggestion: {found.reason}" if found.suggestion is None else
               f"suggestion: lr={found.suggestion:g} ({found.reason})")
    click.echo(f"{out}: {len(found.rates)} steps from {found.rates[0]:.1e} to {found.rates[-1]:.1e}")
    console.emit({"command": "find-lr", "backbone": settings.backbone, "pretrained": settings.pretrained,
                  "batch_size": settings.batch_size, "optimizer": settings.optimizer, "freeze": settings.freeze,
                  "head_lr_mult": settings.head_lr_mult, "plot": out, **found.to_dict()},
                 as_json)


def _prepared(source, assignments, config, options):
    """(network, loader, settings), as `gluon-ft train` makes them, but of all images of the source."""
    from dataclasses import replace

    from gluon_ft.data import loader as loaders
    from gluon_ft.data.sources import opening
    from gluon_ft.finetune import choice, network, plan, settings
    from gluon_ft.runtime import devices

    options = {**options, "train": str(source), "devices": options["device"]}
    del options["device"]
    values, _ = settings.collect(config, assignments, options)
    # The source stands on the command line, so that a configuration's own is not meant; features are not kept.
    values = {name: value for name, value in values.items() if name not in ("data", "val")}
    wanted = settings.JobSettings(**{**values, "cache_features": "none"})
    images = opening.find(wanted.train, wanted.root)
    contexts = devices.contexts(wanted.devices)
    size = _typical_size(images) if wanted.backbone == AUTO and wanted.size is None else wanted.size
    chosen = choice.choose(wanted.backbone, wanted.pretrained, size=size, gpu=contexts[0].device_type == "gpu")
    freeze = "none" if wanted.freeze == AUTO else wanted.freeze
    head = 1.0 if freeze == "features" or not chosen.weights else 10.0
    ready = replace(wanted, backbone=chosen.backbone, pretrained=chosen.pretrained, freeze=freeze,
                    batch_size=wanted.batch_size or _batch_size(len(images.labels)),
                    head_lr_mult=values.get("head_lr_mult", head))
    net, notes = network.build(chosen, images.classes, contexts, ready.seed, ready.size)
    network.apply(net, ready)
    for line in (f"{chosen.backbone}, weights {chosen.pretrained}: {chosen.reason}", *notes):
        click.echo(line, err=True)
    augment = None if ready.augment == AUTO else plan.augmentation(ready.augment)
    loader = loaders.open(ready.train, preprocessing=net.preprocessing, train=True, batch_size=ready.batch_size,
                          seed=ready.seed, workers=ready.workers, augment=augment, root=ready.root, cache="memory")
    return net, loader, ready


def _batch_size(images):
    """A power of two from 4 to 32, with at least 8 steps in a pass over the images where there are as many."""
    return max((size for size in (4, 8, 16, 32) if 8 * size <= images), default=4)


def _typical_size(images, most=32):
    """The median shorter edge of some of the images, pixels."""
    import numpy as np

    positions = np.linspace(0, len(images.labels) - 1, min(most, len(images.labels))).astype(int)
    return int(np.median([min(images.image(int(position), 3, 0).shape[:2]) for position in positions]))
