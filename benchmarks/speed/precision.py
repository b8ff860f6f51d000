"""What the compute forms gain: bfloat16 against float32, rewritten and fused graphs against the plain network.

    python benchmarks/speed/precision.py             # about four minutes on two cores
    python benchmarks/speed/precision.py --backbone resnet18_v2 --repeats 3 --no-record

Each form of a network (gluon_ft/engine/fused.py) and the plain, hybridised network run one training step or one
inference of the same batch in turn; the figure is the median of the rounds' ratios (plain's time / the form's).
Target: bfloat16 at least 1.35 in training of ResNet-18 v2. Rows are appended to benchmarks/results/precision.csv; exit
status 1 where the target is missed.
"""
from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the project's folder

import click

from benchmarks import runner
from benchmarks.speed.timing import network_and_batch, seconds, training_step
from gluon_ft.engine import fused

BACKBONES = ("resnet18_v2", "mobilenetv2_1.0", "mobilenet1.0")
BATCH, SIZE, TARGET = 16, 224, 1.35
TARGETED = ("resnet18_v2", "training", "bfloat16 / plain")


def ways(name) -> dict:
    """what -> {form: function}, the first of each the plain network."""
    net, x, y, names = network_and_batch(name, BATCH, SIZE)
    train, infer = {"plain": net}, {"plain": net}
    for precision in names:
        form = fused.trainable(net, precision, x.shape)
        if form.form != "plain":
            train[form.form] = form
        form = fused.forward_only(net, precision, x.shape)
        infer[form.form] = form
    return {"training": {k: training_step(run, net, x, y) for k, run in train.items()},
            "inference": {k: (lambda run=run: run(x)) for k, run in infer.items()}}


def measure(name, repeats) -> list[dict]:
    """Rows of one backbone."""
    rows = []
    for what, functions in ways(name).items():
        times = runner.in_turn({form: lambda _, f=function: seconds(f) for form, function in functions.items()},
                               repeats, f"{name} {what}", warm_up=2)
        settings = f"{name} {SIZE} px batch {BATCH}, {what}"
        for form, values in times.items():
            rows.append(runner.row("precision", settings, form, "images/s", [BATCH / v for v in values]))
            if form != "plain":
                rows.append(runner.row("precision", settings, f"{form} / plain", "ratio",
                                       runner.ratios(times["plain"], values)))
    return rows


@runner.command(__doc__, "precision", repeats=9)
@click.option("--backbone", "backbones", multiple=True, default=BACKBONES, help="May be given several times.")
def main(backbones, repeats):
    rows = [row for name in backbones for row in measure(name, repeats)]
    network, what, quantity = TARGETED
    return rows, [f"{r['settings']}: {quantity} is {r['median']}, at least {TARGET} wanted" for r in rows
                  if r["settings"].startswith(network) and r["settings"].endswith(what) and r["quantity"] == quantity
                  and float(r["median"]) < TARGET]


if __name__ == "__main__":
    main()
