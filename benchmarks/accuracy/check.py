"""Checks every accuracy target of targets.toml that can be checked here, and says what the others need.

    python benchmarks/accuracy/check.py                                     # every row whose data and weights are here
    python benchmarks/accuracy/check.py --quick                             # the same with one seed each: make bench
    python benchmarks/accuracy/check.py --only caltech256-resnet50 --run    # the full thing, on a machine with 8 GPUs
    python benchmarks/accuracy/check.py --only digits-odd-even --from runs/odd_or_even-20261120-2251

One line a row: passed, failed (and which bound), or not run (what is missing and how to get it). A run whose settings,
data or split are not the target's, or with an image in both of its parts, fails. Figures of rows that passed are
appended to benchmarks/results/accuracy.csv, but for those of --quick. Exit status 0: something was measured and nothing
failed; 1: something failed; 2: bad input; 3: nothing could be run.
"""
from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the project's folder

import click

from benchmarks import runner
from benchmarks.accuracy import bounds, identity, targets
from gluon_ft.cli import console
from gluon_ft.errors import ConfigError
from gluon_ft.io import paths

DOWNLOADED = ("data", "downloads", "weights")  # of the folders in the cache; the others hold what was computed
PASSED, FAILED, NOT_RUN = "passed", "failed", "not run"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a row: `state` passed, failed or not run, why, and what was measured."""

    target: targets.Target
    state: str
    text: str
    measured: tuple = ()
    seeds: int = 0
    seconds: float = 0.0

    def line(self) -> str:
        """The row's line."""
        return f"{self.target.id}: {self.state}: {self.text}"


def judge(target: targets.Target, run: Path) -> Outcome:
    """A finished run against its target."""
    try:
        identity.check(target, run)
        measured = tuple(bounds.measure(target, run))
        seeds = len(identity.seeds_of(run))
    except identity.Refused as error:
        return Outcome(target, FAILED, f"refused: {error}")
    faults = [m.fault for m in measured if m.fault]
    text = "; ".join(faults) if faults else "; ".join(dict.fromkeys(
        f"{m.check.label} {bounds.span(m.values)}" for m in measured if m.values and m.check.ahead_of is None))
    # An unfinished set of seeds is not hidden behind the word 'passed'.
    text += "" if seeds >= target.seeds else f" ({seeds} of {target.seeds} seeds)"
    return Outcome(target, FAILED if faults else PASSED, text, measured, seeds)


def run_row(target: targets.Target, seeds: int, runs: Path, root: Path = runner.ROOT) -> Outcome:
    """Runs the target's script in a process of its own, and judges the run folder that it names."""
    data = [] if target.data.bundled else ["--data", str(target.data.here())]
    command = [sys.executable, str(root / target.script), *target.command(seeds), *data, "--runs", str(runs), "--json"]
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="accuracy-cache-") as home:
        done = subprocess.run(command, capture_output=True, text=True, check=False,
                              env={**targets.environment(), **nothing_computed(Path(home))})
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return Outcome(target, FAILED, f"{target.script} ended with status {done.returncode}: {last}")
    try:
        folder = Path(json.loads(done.stdout.splitlines()[-1])["run"])
    except (IndexError, ValueError, KeyError, TypeError):
        return Outcome(target, FAILED, f"{target.script} did not end with its JSON line")
    return dataclasses.replace(judge(target, folder), seconds=time.perf_counter() - begun)


def nothing_computed(home: Path) -> dict:
    """Environment variables for a cache in `home` with what the user downloaded, and nothing that was computed:
    features and networks kept from before would hide a mistake that was made since."""
    for name in DOWNLOADED:
        kept = paths.cache_home() / name
        kept.mkdir(parents=True, exist_ok=True)
        (home / name).symlink_to(kept, target_is_directory=True)
    return {paths.HOME_VARIABLE: str(home)}


def figures(outcome: Outcome) -> list[dict]:
    """What is recorded of a row: one line a quantity. The settings are the target's, or it would not have passed."""
    words = [outcome.target.script, *outcome.target.command(outcome.seeds)]
    settings = f"{outcome.target.data.name}; {' '.join(words)}"
    lines = {}
    for m in outcome.measured:
        if m.values:
            quantity = f"{m.check.label}{f', lead over {m.check.ahead_of}' if m.check.ahead_of else ''}"
            unit = "nats" if m.check.quantity.endswith("loss") else "fraction"
            lines[quantity] = runner.row(outcome.target.id, settings, quantity, unit, m.values)
    return list(lines.values())


def not_run(target, run_gpu) -> str | None:
    """Why a row cannot be run now; None where it can."""
    lacking = targets.missing(target)
    if lacking:
        return "; ".join(lacking)
    if target.gpu and not run_gpu:
        return f"takes about {target.minutes:g} minutes on {target.device}; say --run"
    return None


def measure(chosen, seeds, quick, run_gpu, finished, runs):
    """Yields the outcome of each row, with a line before it is run."""
    for number, target in enumerate(chosen, 1):
        if finished is not None:
            yield judge(target, finished)
            continue
        why = not_run(target, run_gpu)
        if why is not None:
            yield Outcome(target, NOT_RUN, why)
            continue
        count = seeds or (target.quick_seeds if quick else target.seeds)
        minutes = target.minutes * count / target.seeds
        print(f"[{number}/{len(chosen)}] {target.id}: {count} seed{'s' * (count != 1)}, about {minutes:.1f} minutes",
              file=sys.stderr, flush=True)
        yield run_row(target, count, runs)


def exit_status(outcomes) -> int:
    """0, 1 or 3, see the module."""
    states = {outcome.state for outcome in outcomes}
    if FAILED in states:
        return console.EXIT_FAILURE
    return 0 if PASSED in states else runner.NOTHING_RUN


@console.command(text=__doc__)
@click.option("--only", multiple=True, metavar="ID", help="Only this target; may be given several times.")
@click.option("--run", "run_gpu", is_flag=True, help="Also the rows that need GPUs, where there are enough.")
@click.option("--from", "finished", type=click.Path(), metavar="RUN_FOLDER",
              help="Judge this finished run; with --only.")
@click.option("--seeds", type=click.IntRange(1), help="Seeds a row; default what the row says.")
@click.option("--quick/--all", default=False, help="One seed a row.")
@click.option("--list", "listing", is_flag=True, help="Only say what could be run, and what is missing.")
@click.option("--record/--no-record", default=None, help="Append to benchmarks/results/accuracy.csv; not with --quick.")
@click.option("--runs", type=click.Path(), help="Keep the run folders here; default: they are not kept.")
def main(only, run_gpu, finished, seeds, quick, listing, record, runs, as_json):
    chosen = targets.choose(targets.load(), only)
    if finished is not None and (not only or not Path(finished).is_dir()):
        raise ConfigError("--from reads one finished run", path=finished, expected="its folder, and --only ID")
    if listing:
        for target in chosen:
            print(f"{target.id}: {not_run(target, run_gpu) or 'can be run'}")
        return 0
    with tempfile.TemporaryDirectory(prefix="accuracy-") as temporary:
        outcomes = []
        for outcome in measure(chosen, seeds, quick, run_gpu, finished and Path(finished), Path(runs or temporary)):
            print(outcome.line(), flush=True)
            outcomes.append(outcome)
            lines = figures(outcome)
            if lines and outcome.state == PASSED and (not quick if record is None else record):
                runner.append(lines, "accuracy")
    counts = {state: sum(o.state == state for o in outcomes) for state in (PASSED, FAILED, NOT_RUN)}
    print(", ".join(f"{count} {state}" for state, count in counts.items()))
    console.emit({"benchmark": "accuracy", "rows": [
        {"id": o.target.id, "state": o.state, "text": o.text, "seeds": o.seeds, "seconds": round(o.seconds, 1),
         "measured": [{"quantity": m.check.label, "values": m.values} for m in o.measured]} for o in outcomes]},
        as_json)
    return exit_status(outcomes)


if __name__ == "__main__":
    main()
