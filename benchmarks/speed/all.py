"""Training speed as ratios, each pair measured in turn in one run: every benchmark of it, one after another.

    python benchmarks/training.py                       # half an hour on a quiet machine with two cores
    python benchmarks/training.py --only cache --only precision

cache      frozen-prefix cache against plain freezing, ten epochs: at least 8 times less in total
precision  bfloat16 against float32: at least 1.35 times the images/s; rewritten and fused forms
loop       our loop against a hand-written one: at most 1.02 times its time
peers      the D2L procedure against ours: at least its speed with equal settings, a fifth of its time by default
torch      PyTorch's best setting on the same cores, or the profile of what is in the way; needs GLUON_FT_TORCH_PYTHON

Each appends to its own file in benchmarks/results. Exit status 1 where a target was missed, 3 where nothing could run.
"""
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click

from gluon_ft.cli import console

HERE = Path(__file__).resolve().parent
PARTS = {"cache": ["cache.py"], "precision": ["precision.py"], "loop": ["loop_overhead.py"],
         "peers": ["compare_peers.py"], "torch": ["training_speed.py"]}
NEEDS_DATA, DATA = ("cache", "peers"), HERE.parents[1] / "shared" / "data" / "hotdog"


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
            code = subprocess.run([sys.executable, "-W", "ignore", str(HERE / PARTS[name][0])], check=False).returncode
            results[name] = {0: "reached", 1: "missed"}.get(code, f"failed with status {code}")
    print(console.table([{"part": name, "result": result} for name, result in results.items()]))
    console.emit({"benchmark": "training", "results": results}, as_json)
    if all(result.startswith("not run") for result in results.values()):
        return 3
    return int(any(not result.startswith(("reached", "not run")) for result in results.values()))


def _missing(name):
    if name in NEEDS_DATA and not DATA.is_dir():
        return f"{DATA} is not there"
    if name == "torch" and not os.environ.get("GLUON_FT_TORCH_PYTHON"):
        return "GLUON_FT_TORCH_PYTHON does not name a Python with torch"
    return None


if __name__ == "__main__":
    main()
