"""Writes benchmarks/README.md from accuracy/targets.toml and results/*.csv, so that no figure in it is typed by hand.

    python benchmarks/readme.py            # writes it
    python benchmarks/readme.py --check    # exit status 1 where the file differs from what would be written
"""
from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the project's folder

import click

from benchmarks import runner
from benchmarks.accuracy import targets
from benchmarks.peers import slower_than_peers
from benchmarks.runner import latest, read
from gluon_ft.cli import console
from gluon_ft.io import atomic

README = Path(__file__).with_name("README.md")
MOST = 60  # lines of a table of figures
HEAD = """# Benchmarks

Made by `python benchmarks/readme.py` from `accuracy/targets.toml` and `results/*.csv`, not by hand. Figures are
medians, with minimum and maximum. Rates and times of one machine are comparable with each other only; ratios were taken
in turn in one run. A '+' after a commit: the code differed from it.

| folder | what it measures |
|---|---|
| `accuracy/` | accuracy of the recipes against targets with bounds on both sides; the advice against all strategies |
| `speed/` | import, loading, packing, training steps, threads, precision, cached features |
| `peers/` | other people's programs against ours on the same images, network and steps |
| `compare/` | one commit against another |
| `results/` | every figure, with date, commit, machine, versions and settings |

```
make bench                                                              # rows that two cores can check, one seed
python benchmarks/accuracy/check.py                                     # every target whose data and weights are here
python benchmarks/accuracy/check.py --only caltech256-resnet50 --run    # the full thing, on a machine with GPUs
python benchmarks/compare/compare.py                                    # this commit against an older one
python benchmarks/peers/compare_peers.py                                # against others' ways of doing the same
```
"""


def table(columns: list[str], lines: list[list[str]]) -> str:
    """A Markdown table."""
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines]
    return "\n".join([f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}",
                      *(f"| {' | '.join(line)} |" for line in cells)])


def number(text: str) -> str:
    """'0.9733' of '0.973333', '12.3' of '12.3456'; four significant digits, whole numbers as they are."""
    value = float(text)
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def spread(row) -> str:
    """'0.9733 (0.94 to 0.9933)', or one number where there is no spread."""
    middle, low, high = (number(row[key]) for key in ("median", "min", "max"))
    return middle if low == high else f"{middle} ({low} to {high})"


def hardware(rows) -> str:
    """Machines, versions and commits that rows were measured with."""
    found = dict.fromkeys(f"{row['machine']}; {row['versions']}; {row['date'][:10]}, commit {row['commit']}"
                          for row in rows)
    return "\n".join(f"- {line}" for line in found)


def accuracy(folder: Path, found: list[targets.Target]) -> str:
    """Published figure, bounds, ours, seeds; of a row that was not measured what it needs."""
    path = folder / "accuracy.csv"
    rows = read(path) if path.is_file() else []
    lines, used = [], []
    for target in found:
        best = best_of([row for row in rows if row["benchmark"] == target.id], target)
        for check in one_line_each(target):
            label = check.label + (f", lead over {check.ahead_of}" if check.ahead_of else "")
            row = next((r for r in best if r["quantity"] == label), None)
            used += [row] if row else []
            raced = check.ahead_of is not None
            bounds = f"above 0 from epoch {check.from_epoch} on" if raced else f"{check.low:g} to {check.high:g}"
            lines.append([target.title, label, check.published or "-", bounds, spread(row) if row else needs(target),
                          row["runs"] if row else "-"])
    text = ("## Accuracy\n\nBounds on both sides, of every seed; a figure above them is as suspicious as one below. "
            "Only rows that passed are recorded.\n\n"
            + table(["target", "quantity", "published", "bounds", "ours", "values"], lines))
    return text + (f"\n\nMeasured on:\n\n{hardware(used)}" if used else "")


def best_of(rows, target) -> list[dict]:
    """The latest rows of a target: those with all of its seeds, or else the latest at all."""
    whole = [row for row in rows if row["settings"].endswith(f"--seeds {target.seeds}")]
    last = {row["quantity"]: row for row in whole or rows}
    return list(last.values())


def one_line_each(target) -> list[targets.Check]:
    """The checks with bounds of their own; the median's are within those of each seed."""
    found = {}
    for check in target.checks:
        found.setdefault((check.label, check.ahead_of), check)
    return list(found.values())


def needs(target) -> str:
    """What a row needs that was not measured; the same wherever this file is written."""
    parts = [target.device if target.gpu else "", "" if target.data.bundled else f"data {target.data.name}",
             f"weights {target.weights}" if target.weights else ""]
    return f"not measured; needs {', '.join(p for p in parts if p) or 'a run'}"


def parity(rows) -> str:
    """weights_parity.csv in one table: a line a source and direction, the worst of its networks."""
    column = "largest relative difference"
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault((row["network"].partition(":")[0], row["direction"]), []).append(row)
    lines = []
    for (source, direction), mine in groups.items():
        worst = max(mine, key=lambda row: float(row[column]))
        lines.append([source, direction, len(mine), worst[column], worst["network"], worst["limit"]])
    return table(["networks of", "direction", "networks", f"{column} of logits", "of", "limit"], lines)


def section(path: Path) -> str:
    """A results file as a section: of the usual columns the latest figures, of others the last run's rows."""
    rows = read(path)
    if not rows:
        return f"## {path.stem}\n\nNo figures yet."
    if path.stem == "weights_parity":
        return f"## {path.stem}\n\n{parity(rows)}"
    if set(runner.COLUMNS) <= set(rows[0]):
        shown = latest(rows)
        lines = [[row["settings"], row["quantity"], row["unit"], spread(row), row["runs"]] for row in shown]
        body = table(["settings", "quantity", "unit", "median (min to max)", "runs"], lines[-MOST:])
        return f"## {path.stem}\n\n{body}{cut(lines)}\n\nMeasured on:\n\n{hardware(shown)}"
    shown = [row for row in rows if row["commit"] == rows[-1]["commit"]]
    columns = [c for c in rows[0] if c not in ("date", "commit", "machine", "versions")]
    body = table(columns, [[row[c] for c in columns] for row in shown][-MOST:])
    about = {f"- {row['machine']}; {row['versions']}; {row['date'][:10]}, commit {row['commit']}" for row in shown} \
        if {"machine", "versions"} <= set(rows[0]) else {f"- {rows[-1]['date'][:10]}, commit {rows[-1]['commit']}"}
    return f"## {path.stem}\n\n{body}{cut(shown)}\n\nMeasured on:\n\n" + "\n".join(sorted(about))


def others_ahead(folder: Path) -> str:
    """The ratios that say that others are faster, with the reasons."""
    rows = [row for name in ("peers", "training_speed") if (folder / f"{name}.csv").is_file()
            for row in latest(read(folder / f"{name}.csv"))]
    found, reasons = slower_than_peers.ahead_of_us(rows), slower_than_peers.load()
    lines = [[row["settings"], row["quantity"], spread(row), slower_than_peers.reason(row, reasons)] for row in found]
    shown = table(["settings", "ratio", "median (min to max)", "why"], lines) if lines else "Nowhere that was measured."
    return f"## Where others are ahead\n\n{shown}"


def cut(lines) -> str:
    """Says how many lines a long table leaves out."""
    more = len(lines) - MOST
    return f"\n\nThe latest {MOST} lines; {more} more are in the file." if more > 0 else ""


def render(folder: Path = runner.RESULTS, found: list[targets.Target] | None = None) -> str:
    """The whole file."""
    found = targets.load() if found is None else found
    files = [path for path in sorted(folder.glob("*.csv")) if path.stem != "accuracy"]
    return "\n\n".join([HEAD.rstrip(), accuracy(folder, found), others_ahead(folder), *map(section, files)]) + "\n"


@console.command(text=__doc__)
@click.option("--check", is_flag=True, help="Write nothing.")
def main(check, as_json):
    text = render()
    same = README.is_file() and README.read_text(encoding="utf-8") == text
    if not check and not same:
        atomic.write(README, text)
    console.emit({"path": str(README), "same": same}, as_json)
    print(f"{README.name}: {'as it should be' if same else 'differs' if check else 'written'}")
    return int(check and not same)


if __name__ == "__main__":
    main()
