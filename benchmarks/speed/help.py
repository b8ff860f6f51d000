"""How soon `gluon-ft --help` and the help of each command answer, against a Python that does nothing, in turn.

    python benchmarks/speed/help.py        # two minutes

Each run is a new process, whose modules were compiled before (a warm machine). `ratio` is the median of the rounds'
ratios to `python -c pass`. Target: each under half a second. Rows are appended to benchmarks/results/help.csv; exit
status 1 where the target is missed.
"""
from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the project's folder

from benchmarks import runner
from gluon_ft.cli.main import COMMANDS

TARGET = 0.5  # seconds
NOTHING = "python -c pass"


def started(arguments: list[str]) -> float:
    """Seconds of one new process."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL,
                   env={**os.environ, "PYTHONPATH": str(runner.ROOT), "PYTHONDONTWRITEBYTECODE": ""})
    return time.perf_counter() - begun


@runner.command(__doc__, "help", repeats=7)
def main(repeats):
    commands = {NOTHING: ["-c", "pass"], "gluon-ft --help": ["-m", "gluon_ft.cli.main", "--help"],
                **{f"gluon-ft {name} --help": ["-m", "gluon_ft.cli.main", name, "--help"] for name in COMMANDS}}
    times = runner.in_turn({name: lambda _, a=arguments: started(a) for name, arguments in commands.items()}, repeats,
                           "starts", warm_up=1)
    rows, missed = [], []
    for name, seconds in times.items():
        rows.append(runner.row("help", "a new process", name, "s", seconds))
        if name != NOTHING:
            rows.append(runner.row("help", "a new process", f"{name} / {NOTHING}", "ratio",
                                   runner.ratios(seconds, times[NOTHING])))
            if sorted(seconds)[len(seconds) // 2] > TARGET:
                missed.append(f"{name}: at most {TARGET} s wanted")
    return rows, missed


if __name__ == "__main__":
    main()
