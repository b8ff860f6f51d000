"""`gluon-ft runs`: lists runs, says what differs between two, and whether one is better by more than chance."""
from __future__ import annotations

from pathlib import Path

import click

from gluon_ft.cli import console

COLUMNS = ["name", "date", "state", "strategy", "train", "validation", "seconds"]


class _Runs(console.Group):
    """Without the name of a command the arguments go to the list, as they did before there were others."""

    def parse_args(self, ctx, args):
        words = [word for word in args if not word.startswith("-")]
        named = words[:1] in (["compare"], ["list"]) or set(args) & set(ctx.help_option_names)
        return super().parse_args(ctx, args if named else ["list", *args])


class _Compare(console.Command):
    """`--with B1 B2 B3` stands for `--with B1 --with B2 --with B3`."""

    def parse_args(self, ctx, args):
        found, after = [], False
        for word in args:
            if word == "--with":
                after = True
            elif after and not word.startswith("-"):
                found += ["--with", word]
            else:
                found.append(word)
        if after and "--with" not in found:
            found.append("--with")  # for click's own error: it has no value
        return super().parse_args(ctx, found)


@click.group("runs", cls=_Runs, subcommand_metavar="[list] [ROOT] | [list] A B | compare A B")
def runs():
    """List the runs in ROOT (default: runs), or show what differs between the runs A and B.

    Compared are configuration, environment, data (by the images' hashes) and result. Names that are not here are looked
    for in runs. `compare` says whether the difference of their accuracies is more than chance. `list --help` shows the
    options --json and --wide.

    \b
    gluon-ft runs
    gluon-ft runs runs/photos-20260102-101500 runs/photos-20260102-113000
    gluon-ft runs compare runs/photos-20260102-101500 runs/photos-20260102-113000
    """


@runs.command("list", short_help="List runs, or show what differs between two.")
@click.argument("folders", nargs=-1, type=click.Path(), metavar="[ROOT] | A B")
@console.wide_option
@console.json_option
def listed_or_two(folders, wide, as_json):
    """List the runs in ROOT (default: runs), or show what differs between the runs A and B.

    \b
    gluon-ft runs list
    gluon-ft runs list runs/photos-20260102-101500 runs/photos-20260102-113000
    """
    from gluon_ft.reporting import runs as library

    if len(folders) > 2:
        raise click.UsageError(f"one folder of runs, or two runs to compare, are expected; found {len(folders)}",
                               click.get_current_context().parent)
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


@runs.command("compare", cls=_Compare, short_help="Say whether one is better by more than chance.")
@click.argument("first", nargs=-1, required=True, type=click.Path(), metavar="A B | A...")
@click.option("--with", "second", multiple=True, type=click.Path(), metavar="B...",
              help="The runs of the second procedure, or a folder of them: one for each seed of the first.")
@console.json_option
def compare(first, second, as_json):
    """Say whether one of two runs, or of two procedures with several runs each, is better by more than chance.

    Two runs A and B are compared on the validation images that both evaluated (predictions.csv, matched by the images'
    bytes), by McNemar's exact test. Tables that gluon-ft evaluate --csv wrote can stand in their place. Several runs of
    each, with the same seeds, are compared by the paired t test of their accuracies. The level is 5 %.

    \b
    gluon-ft runs compare runs/linear runs/head
    gluon-ft runs compare a.csv b.csv
    gluon-ft runs compare runs/a-0 runs/a-1 runs/a-2 --with runs/b-0 runs/b-1 runs/b-2
    gluon-ft runs compare runs-of-a/ --with runs-of-b/
    """
    from gluon_ft.evaluation import comparison
    from gluon_ft.reporting import runs as library

    if not second:
        if len(first) != 2:
            raise click.UsageError(f"two runs to compare, or others --with, are expected; found {len(first)}")
        first, second = first[:1], first[1:]
    groups = [[run for place in map(_place, places) for run in library.members(place)] for places in (first, second)]
    if len(groups[0]) == len(groups[1]) == 1:
        tables = [comparison.read_predictions(group[0]) for group in groups]
        found = comparison.compare_tables(*tables)
        notes = _not_shared(found.pairs, *map(len, tables))
    else:
        found, notes = comparison.paired_t(*library.paired_accuracies(*groups)), []
    for name, group, value in zip(("first", "second"), groups, (found.first, found.second)):
        console.say(f"{name}: {', '.join(map(str, group))}: accuracy {value:.3f}")
    console.say(str(found), *(f"note: {note}" for note in notes))
    console.emit({"command": "runs compare", "first": groups[0], "second": groups[1], "winner": found.winner,
                  **{key: value for key, value in vars(found).items() if key not in ("first", "second")},
                  "accuracies": [found.first, found.second], "said": str(found), "notes": notes}, as_json)


def _not_shared(shared, first, second):
    """What to know where only some of the images that two networks were evaluated on count."""
    if shared == max(first, second):
        return []
    return [f"this is of the {shared} images that both were evaluated on, of {first} and {second}; runs of different "
            "seeds keep different images aside: for more give both the same --val, or compare the tables of gluon-ft "
            "evaluate RUN IMAGES --csv FILE on labelled images that neither was trained on"]


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
