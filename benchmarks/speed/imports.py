"""Seconds until a program that was just started has a network, against those of another commit, in turn.

    python benchmarks/speed/imports.py --against 9b2d058        # a minute on two quiet cores

Each run is a new process: `import gluon_ft` and `fine_tune_net('mobilenetv2_1.0', 2, pretrained=False)`. The commits
take turns; `ratio` is the median of the rounds' ratios (this commit / the other). Both keep bytecode, in a cache folder
of their own that a first run has filled, as a user's second start finds it. Target: at most 0.5. Rows are appended to
benchmarks/results/imports.csv; exit status 1 where the target is missed.
"""
from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the project's folder

import click

from benchmarks import runner

# The last commit before MXNet's import was taken apart.
BEFORE = "9b2d058fa5dd"
TARGET = 0.5
CODE = """
import time
seconds, processor = time.perf_counter(), time.process_time()
import gluon_ft
gluon_ft.fine_tune_net("mobilenetv2_1.0", 2, pretrained=False)
print(time.perf_counter() - seconds, time.process_time() - processor)
"""


def package_of(commit: str, folder: Path) -> Path:
    """A folder with that commit's package."""
    archive = subprocess.run(["git", "-C", str(runner.ROOT), "archive", commit, "gluon_ft"], check=True,
                             stdout=subprocess.PIPE).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as package:
        package.extractall(folder)
    return folder


def started(package: Path, cache: Path) -> tuple[float, float]:
    """Seconds, and seconds of processor time, of one new process."""
    variables = {**os.environ, "PYTHONPATH": str(package), "PYTHONPYCACHEPREFIX": str(cache / "modules"),
                 "GLUON_FT_HOME": str(cache), "PYTHONDONTWRITEBYTECODE": ""}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", CODE], check=True, text=True, env=variables,
                          cwd=cache, stdout=subprocess.PIPE)
    seconds, processor = map(float, done.stdout.split())
    return seconds, processor


@runner.command(__doc__, "imports", repeats=7)
@click.option("--against", default=BEFORE, metavar="COMMIT", help="The other commit.")
def main(repeats, against):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        packages = {"this commit": package_of("HEAD", folder / "new"), against: package_of(against, folder / "old")}
        for commit in packages:
            (folder / f"cache {commit}").mkdir()
        times = runner.in_turn({commit: lambda _, c=commit: started(packages[c], folder / f"cache {c}")
                                for commit in packages}, repeats, "starts", warm_up=1)
    rows = [runner.row("imports", "import gluon_ft, build mobilenetv2_1.0", f"{commit}, {kind}", "seconds",
                       [time[i] for time in times[commit]])
            for i, kind in enumerate(("elapsed", "processor time")) for commit in packages]
    for i, kind in ((1, "processor time"), (0, "elapsed")):
        new, old = ([time[i] for time in times[commit]] for commit in packages)
        rows.append(runner.row("imports", "import gluon_ft, build mobilenetv2_1.0", f"this commit / {against}, {kind}",
                               "ratio", runner.ratios(new, old)))
    missed = rows[-1]
    return rows, [f"{missed['median']} times the seconds of {against}, at most {TARGET} wanted"] \
        if float(missed["median"]) > TARGET else []


if __name__ == "__main__":
    main()
