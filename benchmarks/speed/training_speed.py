"""Training steps against PyTorch's on the same cores, in turn, and where our steps spend their time.

    GLUON_FT_TORCH_PYTHON=/path/to/python python benchmarks/speed/training_speed.py    # four minutes on two cores

ResNet-18 (v1b, which equals torchvision's) and MobileNetV2, 224 px, batch 16, SGD with momentum, the same number of
steps: our best form in float32 and in bfloat16, PyTorch channels-last in both. The sides take turns, step groups of
one and the other; `ratio` is the median of the rounds' ratios (PyTorch's time / ours), for each side's better
precision by medians. Target: at least 1.0. Rows go to benchmarks/results/training_speed.csv, each operator's share of
one of our steps to training_profile.csv. Exit status 1 where the target is missed, 2 without a Python that has torch.
"""
from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the project's folder
import gluon_ft  # noqa: F401  isort: skip  (prepares the import of mxnet)

import click
import mxnet as mx

from benchmarks import runner
from benchmarks.speed.timing import OtherProcess, network_and_batch, precisions, seconds, training_step
from gluon_ft.engine import fused, merged

NETWORKS = {"resnet18_v1b": "resnet18", "mobilenetv2_1.0": "mobilenetv2"}
BATCH, SIZE, TARGET = 16, 224, 1.0


def our_steps(name) -> dict:
    """precision -> function that trains one step."""
    net, x, y, names = network_and_batch(name, BATCH, SIZE)
    steps = {precision: training_step(fused.trainable(net, precision, x.shape), net, x, y) for precision in names}
    for _ in range(merged.PATIENCE + 1):  # then the form for training is settled
        steps["float32"]()
    return steps


def measure(name, repeats, steps) -> list[dict]:
    """Rows of one network; the last is the ratio that counts."""
    ours, theirs = our_steps(name), OtherProcess(
        "training_torch.py", NETWORKS[name], str(BATCH), str(SIZE), needs="torch")

    def ran(side, precision):
        if side == "torch":
            return theirs(precision, steps)
        return seconds(lambda: [ours[precision]() for _ in range(steps)])
    ways = [(side, precision) for precision in ours for side in ("gluon_ft", "torch")]
    try:
        times = runner.in_turn({way: lambda _, way=way: ran(*way) for way in ways}, repeats, name, warm_up=1)
    finally:
        theirs.close()
    settings = f"{name} {SIZE} px batch {BATCH}, training, torch {theirs.about['torch']}"
    rows = [runner.row("training_speed", settings, f"{side} {precision}", "images/s",
                       [steps * BATCH / t for t in values]) for (side, precision), values in times.items()]
    best = {side: min((w for w in ways if w[0] == side), key=lambda w: statistics.median(times[w]))
            for side in ("gluon_ft", "torch")}
    pairs = {f"gluon_ft {p} / torch {p}": (("gluon_ft", p), ("torch", p)) for p in ours}
    pairs[f"best: gluon_ft {best['gluon_ft'][1]} / torch {best['torch'][1]}"] = (best["gluon_ft"], best["torch"])
    return rows + [runner.row("training_speed", settings, text, "ratio", runner.ratios(times[other], times[own]))
                   for text, (own, other) in pairs.items()]


def profile(name, precision, steps=2) -> list[dict]:
    """Each operator's share of one step, largest first; in a process where operators are not run in bulk."""
    code = ("import json, sys; sys.path.insert(0, sys.argv[1]); from benchmarks.speed import training_speed; "
            "print(json.dumps(training_speed.shares(*sys.argv[2:])))")
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code, str(runner.ROOT), name, precision, str(steps)],
                          env={**os.environ, "MXNET_EXEC_BULK_EXEC_TRAIN": "0"}, check=True, text=True,
                          stdout=subprocess.PIPE)
    found = json.loads(done.stdout.splitlines()[-1])
    return [runner.row("training_profile", f"{name} {SIZE} px batch {BATCH}, training, {precision}",
                       f"{operator} x{count}", "share of a step", [share]) for operator, count, share in found]


def shares(name, precision, steps) -> list:
    """(operator, times a step, share of the time) of what takes at least 2% of a step."""
    step = our_steps(name)[precision]
    step(), step()
    mx.nd.waitall()
    mx.profiler.set_config(profile_imperative=True, profile_symbolic=True, aggregate_stats=True, filename=os.devnull)
    mx.profiler.set_state("run")
    for _ in range(int(steps)):
        step()
        mx.nd.waitall()
    mx.profiler.set_state("stop")
    found = json.loads(mx.profiler.dumps(format="json"))["Time"]["operator"]
    total = sum(entry["Total"] for entry in found.values())
    rows = [(operator, entry["Count"] // int(steps), entry["Total"] / total) for operator, entry in found.items()]
    return sorted((r for r in rows if r[2] >= 0.02), key=lambda r: -r[2])


@runner.command(__doc__, "training_speed", repeats=7)
@click.option("--steps", default=2, type=click.IntRange(1), help="Steps in a group.")
def main(repeats, steps):
    rows = [row for name in NETWORKS for row in measure(name, repeats, steps)]
    profiles = [row for name in NETWORKS for precision in precisions() for row in profile(name, precision)]
    decisive = {r["settings"]: r for r in rows if r["unit"] == "ratio"}
    return rows + profiles, [f"{r['settings']}: {r['quantity']} is {r['median']}, at least {TARGET} wanted"
                             for r in decisive.values() if float(r["median"]) < TARGET]


if __name__ == "__main__":
    main()
