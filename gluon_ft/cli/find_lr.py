"""`gluon-ft find-lr`: the learning-rate range test of the job that `gluon-ft train` would run."""
from __future__ import annotations

from pathlib import Path

import click

from gluon_ft.cli import console


@click.command("find-lr", cls=console.Command)
@click.argument("photos", nargs=-1, metavar="[PHOTOS] [KEY=VALUE]...")
@click.option("--config", type=click.Path(), help="A .toml or .json file of settings, such as a run's config.json.")
@click.option("--lowest", default=1e-6, help="First learning rate.")
@click.option("--highest", default=10.0, help="Last learning rate, unless the loss breaks off before.")
@click.option("--steps", default=100, type=click.IntRange(20, 100_000), help="Steps from the one to the other.")
@click.option("--out", type=click.Path(), default="find-lr.png", help="The picture: loss against learning rate.")
@console.setting_options(without=["lr"])
@click.option("--device", hidden=True, help="The earlier name of --devices.")
@console.json_option
def find_lr(photos, config, lowest, highest, steps, out, device, as_json, **options):
    """Train for a few steps at ever higher learning rates, draw the loss against the rate, and suggest a rate.

    What is measured is the job that `gluon-ft train` runs with the same PHOTOS and settings and a rate of its own: the
    same training images, network, frozen layers and cached features.

    \b
    gluon-ft find-lr photos/ --backbone resnet18_v1b --pretrained gluon_in1k --freeze 3 --out lr.png
    """
    from gluon_ft import finetune
    from gluon_ft.errors import DataError
    from gluon_ft.io import atomic
    from gluon_ft.reporting.rate_plot import rate_plot

    if not Path(out).absolute().parent.is_dir():
        raise DataError("folder does not exist", path=Path(out).parent, remedy="create it, or choose another --out")
    atomic.check_writable(out)
    data, assignments = console.photos_and_assignments(photos)
    options["devices"] = options["devices"] or device
    found, job = finetune.find_lr(data, lowest=lowest, highest=highest, steps=steps, config=config,
                                  assignments=assignments, say=lambda line: click.echo(line, err=True), **options)
    rate_plot(found, out, f"{job.backbone}, {job.optimizer}, batch size {job.batch_size}")
    if found.stopped:
        click.echo(f"stopped: {found.stopped}")
    click.echo(f"no suggestion: {found.reason}" if found.suggestion is None else
               f"suggestion: lr={found.suggestion:g} ({found.reason})")
    click.echo(f"{out}: {len(found.rates)} steps from {found.rates[0]:.1e} to {found.rates[-1]:.1e}")
    console.emit({"command": "find-lr", "backbone": job.backbone, "pretrained": job.pretrained,
                  "batch_size": job.batch_size, "optimizer": job.optimizer, "freeze": job.freeze,
                  "head_lr_mult": job.head_lr_mult, "plot": out, **found.to_dict()}, as_json)
