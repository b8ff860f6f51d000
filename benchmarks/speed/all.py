"""Training speed as ratios, each pair measured in turn in one run: every benchmark of it, one after another.

    python benchmarks/speed/all.py                       # half an hour on a quiet machine with two cores
    python benchmarks/speed/all.py --only cache --only precision

cache      frozen-prefix cache against plain freezing, ten epochs: at least 8 times less in total
precision  bfloat16 against float32: at least 1.35 times the images/s; rewritten and fused forms
loop       our loop against a hand-written one: at most 1.02 times its time
peers      the D2L procedure against ours: at least its speed with equal settings, a fifth of its time by default
torch      PyTorch's best setting on the same cores, or the profile of what is in the way; needs GLUON_FT_TORCH_PYTHON
inference  forward passes by our engines, ONNX Runtime, OpenVINO and PyTorch; needs GLUON_FT_TORCH_PYTHON
job        `gluon-ft train` on real photos by phase, against the limit of what it has to compute

Each appends to its own file in benchmarks/results. Exit status 1 where a target was missed, 3 where nothing could run.
"""
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the project's folder

import click

from benchmarks import runner
from gluon_ft.cli import console

PARTS = {"cache": "speed/cache.py", "precision": "speed/precision.py", "loop": "speed/loop_overhead.py",
         "peers": "peers/compare_peers.py", "torch": "speed/training_speed.py",
         "inference": "speed/inference.py", "job": "speed/job.py"}
NEEDS_PHOTOS = ("cache", "peers", "job")


@console.command(text=__doc__)
@click.option("--only", multiple=True, type=click.Choice(list(PARTS)), help="Only this; may be given several times.")
def main(only, as_json):
    results = {}
    for name in only or PARTS:
        missing = _missing(name)
        if missing:
            results[name] = f"not run: {missing}"
        else:
            print(f"== {name}", flush=True)
            code = subprocess.run([sys.executable, "-W", "ignore", str(runner.ROOT / "benchmarks" / PARTS[name])],
                                  check=False).returncode
            results[name] = {0: "reached", 1: "missed"}.get(code, f"failed with status {code}")
    print(console.table([{"part": name, "result": result} for name, result in results.items()]))
    console.emit({"benchmark": "training", "results": results}, as_json)
    if all(result.startswith("not run") for result in results.values()):
        return runner.NOTHING_RUN
    return int(any(not result.startswith(("reached", "not run")) for result in results.values()))


def _missing(name):
    if name in NEEDS_PHOTOS and not (runner.SHARED / "hotdog").is_dir():
        return f"{runner.SHARED / 'hotdog'} is not there"
    if name in ("torch", "inference") and not os.environ.get(runner.TORCH_VARIABLE):
        return f"{runner.TORCH_VARIABLE} does not name a Python with torch"
    return None


if __name__ == "__main__":
    main()
