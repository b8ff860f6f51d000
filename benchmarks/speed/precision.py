"""What the compute forms gain: bfloat16 against float32, rewritten and fused graphs against the plain network.

    python benchmarks/precision.py             # about four minutes on two cores
    python benchmarks/precision.py --backbone resnet18_v2 --repeats 3 --no-record

Each form of a network (see gluon_ft/training/compiled.py) and the plain, hybridised network run one training step or
one inference of the same batch in turn, in an order that alternates; the figure is the median of the rounds' ratios
(plain's time / the form's), so that what slows the machine down for a while slows all. Target: bfloat16 at least 1.35
in training of ResNet-18 v2. Rows are appended to benchmarks/results/precision.csv; exit status 1 where the target is
missed.
"""
from __future__ import annotations

import sys

import click
import recording
from timing import network_and_batch, seconds, training_step

from gluon_ft.cli import console
from gluon_ft.engine import fused

BACKBONES = ("resnet18_v2", "mobilenetv2_1.0", "mobilenet1.0")
BATCH, SIZE, TARGET = 16, 224, 1.35


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
        for function in functions.values():
            function(), function()
        times = {form: [] for form in functions}
        for number in console.progress(range(repeats), desc=f"{name} {what}", unit="round"):
            for form in sorted(functions, reverse=bool(number % 2)):
                times[form].append(seconds(functions[form]))
        settings = f"{name} {SIZE} px batch {BATCH}, {what}"
        for form, values in times.items():
            rows.append(recording.row("precision", settings, form, "images/s", [BATCH / v for v in values]))
            if form != "plain":
                ratios = [plain / own for plain, own in zip(times["plain"], values)]
                rows.append(recording.row("precision", settings, f"{form} / plain", "ratio", ratios))
    return rows


@click.command(cls=console.Command)
@click.option("--backbone", "backbones", multiple=True, default=BACKBONES, help="May be given several times.")
@click.option("--repeats", default=9, help="Rounds of one step each way.")
@click.option("--record/--no-record", default=True, help="Append to benchmarks/results/precision.csv.")
@console.json_option
def main(backbones, repeats, record, as_json):
    """Measure the compute forms."""
    rows = [row for name in backbones for row in measure(name, repeats)]
    print(recording.show(rows))
    if record:
        print(f"appended to {recording.append(rows, 'precision')}")
    console.emit({"benchmark": "precision", "rows": rows}, as_json)
    missed = [r for r in rows if r["settings"].startswith("resnet18_v2") and r["settings"].endswith("training")
              and r["quantity"] == "bfloat16 / plain" and float(r["median"]) < TARGET]
    sys.exit(int(bool(missed)))


if __name__ == "__main__":
    main()
