"""This commit against an older one, on the same machine in one run: ratios of time and differences of accuracy.

    python benchmarks/compare/compare.py                          # HEAD against baseline.toml's commit
    python benchmarks/compare/compare.py --baseline HEAD~3 --rows train-resnet18 --rows digits --repeats 9

Each of the two commits is put into a work tree of its own, outside the project, removed afterwards. Each piece of
work (workloads.py) then runs in turn on one and the other, in processes of its own, in an order that
alternates. The ratio is the median of the pairs; noise is estimated from their spread and from neighbouring runs of the
same commit. Exit status 1 where the new commit is slower, or less accurate with equal settings, beyond the noise.
Rows are appended to benchmarks/results/compare.csv.
"""
from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the project's folder

import click

from benchmarks import runner
from benchmarks.compare import noise
from benchmarks.runner import ROOT, tomllib
from gluon_ft.cli import console
from gluon_ft.errors import ConfigError, UserError, near

SCRIPT = Path(__file__).with_name("workloads.py")
BASELINE = Path(__file__).with_name("baseline.toml")


class Failed(Exception):
    """A piece of work that did not run; the message says on which of the two, and the error's last line."""


def git(repository, *words) -> str:
    """Output of a git command; UserError with its message where it fails."""
    done = subprocess.run(["git", "-C", str(repository), *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"git {words[0]} failed", path=repository, found=done.stderr.strip().splitlines()[-1])
    return done.stdout.strip()


def resolve(repository, name) -> str:
    """The commit that `name` means, 40 digits."""
    return git(repository, "rev-parse", "--verify", "--end-of-options", f"{name}^{{commit}}")


@contextlib.contextmanager
def work_tree(repository, commit, folder):
    """A detached work tree of `commit` in `folder`, removed at the end, whatever happens."""
    git(repository, "worktree", "add", "--detach", str(folder), commit)
    try:
        yield Path(folder)
    finally:
        git(repository, "worktree", "remove", "--force", str(folder))


def run_once(script, row, seed, tree) -> dict:
    """One piece of work in a process whose modules come from `tree`."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-W", "ignore", str(script), row, str(seed)], cwd=tree, env=environment,
                          capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        raise Failed(f"{Path(tree).name}: {last}")
    return json.loads(done.stdout.splitlines()[-1])


def known_rows(script) -> list[str]:
    """The pieces of work that a script has."""
    done = subprocess.run([sys.executable, str(script), "--list"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigError("no list of what to measure", path=script, expected="a script with --list",
                          found=(done.stderr.strip().splitlines() or ["nothing"])[-1])
    return json.loads(done.stdout.splitlines()[-1])


def compare_row(script, row, trees, repeats) -> dict:
    """Runs one piece of work `repeats` times on each tree, after one on each that does not count."""
    # The number of the round is the seed: the pairs differ in it, the two of a pair do not.
    ways = {name: lambda seed, name=name: run_once(script, row, seed, trees[name]) for name in trees}
    try:
        found = runner.in_turn(ways, repeats, row, warm_up=1)
    except Failed as error:
        return {"row": row, "state": "not comparable", "text": str(error)}
    old, new = found["old"], found["new"]
    time = noise.time_ratio([a["seconds"] for a in old], [b["seconds"] for b in new])
    result = {"row": row, "state": "slower" if time.slower else "faster" if time.faster else "same", "time": time,
              "text": f"{time.median:.3f} of the time ({time.low:.3f} to {time.high:.3f}), noise {time.noise:.3f}, "
                      f"limit {1 + time.limit:.3f}"}
    equal = all(a.get("settings") == b.get("settings") for a, b in zip(old, new))
    if equal and all(a.get("accuracy") is not None for a in (*old, *new)):
        lead, limit = noise.accuracy_loss([a["accuracy"] for a in old], [b["accuracy"] for b in new])
        result |= {"lead": lead, "text": f"{result['text']}; accuracy {lead:+.4f}, limit {limit:+.4f}"}
        if lead < limit:
            result["state"] = "less accurate"
    return result


def baseline_of(repository, given) -> str:
    """The commit to compare with: the one given, that of baseline.toml, or the one before HEAD."""
    if given is None and Path(repository) == ROOT and BASELINE.is_file():
        given = tomllib.loads(BASELINE.read_text(encoding="utf-8")).get("commit")
    return resolve(repository, given or "HEAD~1")


def recorded(results, commits) -> list[dict]:
    """Lines for compare.csv."""
    settings = f"{commits['new'][:12]} against {commits['old'][:12]}"
    lines = []
    for result in results:
        if "time" in result:
            ratio = result["time"]
            lines.append({**runner.row("compare", f"{result['row']}; {settings}", "new / old time", "ratio",
                                          [ratio.low, ratio.median, ratio.high]), "runs": ratio.pairs})
    return lines


@console.command(text=__doc__)
@click.option("--baseline", metavar="COMMIT", help="Default: baseline.toml's, or HEAD~1.")
@click.option("--new", "newer", default="HEAD", metavar="COMMIT", help="Uncommitted changes are not in it.")
@click.option("--rows", multiple=True, metavar="ROW", help="Only this piece of work; may be given several times.")
@click.option("--repeats", default=7, type=click.IntRange(2), help="Pairs that count.")
@click.option("--repository", default=str(ROOT), type=click.Path(), help="Whose commits.", show_default=False)
@click.option("--script", default=str(SCRIPT), type=click.Path(), help="What to measure.", show_default=False)
@runner.record_option("compare")
def main(baseline, newer, rows, repeats, repository, script, record, as_json):
    repository, script = Path(repository).resolve(), Path(script).resolve()
    known = known_rows(script)
    for row in rows:
        if row not in known:
            raise ConfigError(f"no row '{row}'", remedy=near(row, known))
    commits = {"old": baseline_of(repository, baseline), "new": resolve(repository, newer)}
    if newer == "HEAD" and git(repository, "status", "--porcelain", "--untracked-files=no"):
        print("note: uncommitted changes are not compared", file=sys.stderr)
    results = []
    with contextlib.ExitStack() as stack:
        temporary = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="compare-")))
        trees = {name: stack.enter_context(work_tree(repository, commit, temporary / name))
                 for name, commit in commits.items()}
        for number, row in enumerate(rows or known, 1):
            print(f"[{number}/{len(rows or known)}] {row}", file=sys.stderr, flush=True)
            results.append(compare_row(script, row, trees, repeats))
            print(f"{row}: {results[-1]['state']}: {results[-1]['text']}", flush=True)
    lines = recorded(results, commits)
    if record and lines:
        print(f"appended to {runner.append(lines, 'compare')}")
    console.emit({"benchmark": "compare", **commits, "rows": [
        {"row": r["row"], "state": r["state"], "text": r["text"], "ratio": r["time"].median if "time" in r else None,
         "limit": 1 + r["time"].limit if "time" in r else None, "accuracy": r.get("lead")} for r in results]}, as_json)
    states = {result["state"] for result in results}
    if states & {"slower", "less accurate"}:
        return console.EXIT_FAILURE
    return runner.NOTHING_RUN if states == {"not comparable"} else 0


if __name__ == "__main__":
    main()
