"""`gluon-ft runs`: lists runs, and says what differs between two."""
from __future__ import annotations

from pathlib import Path

import click

from gluon_ft.cli import console

COLUMNS = ["name", "date", "state", "strategy", "train", "validation", "seconds"]


@click.command("runs", cls=console.Command)
@click.argument("folders", nargs=-1, type=click.Path(), metavar="[ROOT] | A B")
@console.wide_option
@console.json_option
def runs(folders, wide, as_json):
    """List the runs in ROOT (default: runs), or show what differs between the runs A and B.

    Compared are configuration, environment, data (by the images' hashes) and result. Names that are not here are looked
    for in runs.

    \b
    gluon-ft runs
    gluon-ft runs runs/photos-20260102-101500 runs/photos-20260102-113000
    """
    from gluon_ft.reporting import runs as library

    if len(folders) > 2:
        raise click.UsageError(f"one folder of runs, or two runs to compare, are expected; found {len(folders)}")
    folders = [_place(folder) for folder in folders]
    if len(folders) == 2:
        found = library.compare(*folders)
        _show(found, folders, wide)
        console.emit({"command": "runs", "first": folders[0], "second": folders[1], **found}, as_json)
        return
    listed = library.find(folders[0] if folders else "runs")
    if listed:
        console.show([_row(run) for run in listed], COLUMNS, wide, whole=["name"])
    else:
        console.say("no runs")
    console.emit({"command": "runs", "runs": listed}, as_json)


def _place(folder):
    """The folder, or that of the same name in runs where there is none."""
    inside = Path("runs") / folder
    return str(inside) if not Path(folder).exists() and inside.is_dir() else folder


def _row(run):
    date = (run["date"] or "").replace("T", " ").replace("+00:00", "")
    return {**run, "date": date or None, "train": run["train_accuracy"], "validation": run["validation_accuracy"]}


def _show(found, folders, wide):
    names = [Path(folder).resolve().name for folder in folders]
    names = list(map(str, folders)) if names[0] == names[1] else names
    for section, rows in found.items():
        if section == "data":
            console.say("", *(["data: not recorded in both"] if rows is None else ["data: the same images and labels"]
                              if not rows else ["data:", *(f"  {line}" for line in rows)]))
        elif not rows:
            console.say("", f"{section}: the same")
        else:
            console.say("", f"{section}:")
            console.show([{"key": row["key"], names[0]: row["first"], names[1]: row["second"]} for row in rows],
                         wide=wide, whole=["key"])
