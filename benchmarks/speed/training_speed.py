"""Training steps against PyTorch's on the same cores, in turn, and where our steps spend their time.

    GLUON_FT_TORCH_PYTHON=/path/to/python python benchmarks/training_speed.py        # about four minutes on two cores

ResNet-18 (v1b, which equals torchvision's) and MobileNetV2, 224 px, batch 16, SGD with momentum, the same number of
steps: our best form in float32 and in bfloat16, PyTorch channels-last in both. The sides take turns, step groups of
one and the other; `ratio` is the median of the rounds' ratios (PyTorch's time / ours), for each side's better
precision by medians. Target: at least 1.0. Rows go to benchmarks/results/training_speed.csv, each operator's share of
one of our steps to training_profile.csv. Exit status 1 where the target is missed, 2 without a Python that has torch.
"""
from __future__ import annotations

import gluon_ft  # noqa: F401  isort: skip  (prepares the import of mxnet)

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import click
import mxnet as mx
import recording
from timing import network_and_batch, precisions, seconds, training_step

from gluon_ft.cli import console
from gluon_ft.engine import fused
from gluon_ft.errors import ConfigError

NETWORKS = {"resnet18_v1b": "resnet18", "mobilenetv2_1.0": "mobilenetv2"}
BATCH, SIZE, TARGET = 16, 224, 1.0
VARIABLE = "GLUON_FT_TORCH_PYTHON"


class Torch:
    """PyTorch's process, which waits while the other side runs."""

    def __init__(self, network, threads):
        python = os.environ.get(VARIABLE)
        if not python:
            raise ConfigError(f"{VARIABLE} is not set", expected="the path of a Python that has torch")
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "KMP_", "GOMP_"))}
        script = Path(__file__).with_name("training_torch.py")
        self.process = subprocess.Popen([python, str(script), network, str(BATCH), str(SIZE)], text=True,
                                        env={**clean, "OMP_NUM_THREADS": str(threads)}, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE)
        self.about = self._answer()

    def __call__(self, setting, steps) -> float:
        self.process.stdin.write(f"{setting} {steps}\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise ConfigError("PyTorch's side ended", path=os.environ[VARIABLE], expected="a Python that has torch")
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def our_steps(name) -> dict:
    """precision -> function that trains one step."""
    net, x, y, names = network_and_batch(name, BATCH, SIZE)
    return {precision: training_step(fused.trainable(net, precision, x.shape), net, x, y) for precision in names}


def measure(name, repeats, steps) -> list[dict]:
    """Rows of one network; the last is the ratio that counts."""
    ours, theirs = our_steps(name), Torch(NETWORKS[name], os.environ.get("OMP_NUM_THREADS", 1))
    try:
        def ran(side, precision, count=steps):
            if side == "torch":
                return theirs(precision, count)
            return seconds(lambda: [ours[precision]() for _ in range(count)])
        ways = [(side, precision) for precision in ours for side in ("gluon_ft", "torch")]
        for way in ways:
            ran(*way, count=2)
        times = {way: [] for way in ways}
        for number in console.progress(range(repeats), desc=name, unit="round"):
            for way in ways[::-1] if number % 2 else ways:
                times[way].append(ran(*way))
    finally:
        theirs.close()
    settings = f"{name} {SIZE} px batch {BATCH}, training, torch {theirs.about['torch']}"
    rows = [recording.row("training_speed", settings, f"{side} {precision}", "images/s",
                          [steps * BATCH / t for t in values]) for (side, precision), values in times.items()]
    best = {side: min((w for w in ways if w[0] == side), key=lambda w: statistics.median(times[w]))
            for side in ("gluon_ft", "torch")}
    pairs = {f"gluon_ft {p} / torch {p}": (("gluon_ft", p), ("torch", p)) for p in ours}
    pairs[f"best: gluon_ft {best['gluon_ft'][1]} / torch {best['torch'][1]}"] = (best["gluon_ft"], best["torch"])
    for text, (own, other) in pairs.items():
        ratios = [b / a for a, b in zip(times[own], times[other])]
        rows.append(recording.row("training_speed", settings, text, "ratio", ratios))
    return rows


def profile(name, precision, steps=2) -> list[dict]:
    """Each operator's share of one step, largest first; in a process where operators are not run in bulk."""
    code = ("import json, sys; sys.path.insert(0, sys.argv[1]); import training_speed; "
            "print(json.dumps(training_speed.shares(*sys.argv[2:])))")
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code, str(Path(__file__).parent), name, precision,
                           str(steps)], env={**os.environ, "MXNET_EXEC_BULK_EXEC_TRAIN": "0"}, check=True, text=True,
                          stdout=subprocess.PIPE)
    found = json.loads(done.stdout.splitlines()[-1])
    return [recording.row("training_profile", f"{name} {SIZE} px batch {BATCH}, training, {precision}",
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


@click.command(cls=console.Command)
@click.option("--repeats", default=7, help="Rounds of one group of steps each way.")
@click.option("--steps", default=2, help="Steps in a group.")
@click.option("--record/--no-record", default=True, help="Append to benchmarks/results/.")
@console.json_option
def main(repeats, steps, record, as_json):
    """Measure training against PyTorch."""
    rows, profiles = [], []
    for name in NETWORKS:
        rows += measure(name, repeats, steps)
    for name in NETWORKS:
        for precision in precisions():
            profiles += profile(name, precision)
    print(recording.show(rows), recording.show(profiles), sep="\n\n")
    if record:
        print(f"appended to {recording.append(rows, 'training_speed')}, "
              f"{recording.append(profiles, 'training_profile')}")
    console.emit({"benchmark": "training_speed", "rows": rows, "profile": profiles}, as_json)
    decisive = {r["settings"]: r for r in rows if r["unit"] == "ratio"}
    sys.exit(int(any(float(r["median"]) < TARGET for r in decisive.values())))


if __name__ == "__main__":
    main()
