"""`gluon-ft data`, public data sets, and `gluon-ft audit`, copies, leaks and bad files in any data set."""
from __future__ import annotations

from pathlib import Path

import click

from gluon_ft.cli import console

EXIT_LEAK = 1


@click.group(cls=console.Group)
def data():
    """Public data sets: list them, get them."""


@data.command("list")
@console.wide_option
@console.json_option
def list_(wide, as_json):
    """The data sets of the catalog, and which are here already."""
    from gluon_ft.data.datasets import catalog

    rows = [{"name": d.name, "images": d.images, "classes": d.classes, "layout": d.layout, "licence": d.licence,
             "here": catalog.path(d.name) is not None, "by_hand": d.by_hand, "unverified": d.unverified,
             "title": d.title, "home": d.home, "note": d.note} for d in catalog.datasets()]
    shown = [{**row, "here": "yes" if row["here"] else "no", "remarks": _remarks(row)} for row in rows]
    columns = ["name", "images", "classes", *(["licence"] if wide else []), "here", "remarks", "title"]
    console.show(shown, columns, wide, whole=["name", "here", "remarks"])
    console.say("unverified: addresses and hashes are as published, the files were not fetched when the table was made")
    console.emit({"datasets": rows}, as_json)


def _remarks(row):
    return ", ".join(word for word, true in (("by hand", row["by_hand"]), ("unverified", row["unverified"])) if true)


@data.command()
@click.argument("name")
@click.option("--from", "source", type=click.Path(exists=True, path_type=Path),
              help="A copy at hand: the file, or a folder with the files.")
@click.option("--to", type=click.Path(path_type=Path), help="Folder that the data set's own folder goes into "
              "(by default the cache, see GLUON_FT_HOME).")
@console.json_option
def get(name, source, to, as_json):
    """Fetch the data set NAME, check it, unpack it, and say where it is."""
    from gluon_ft.data.datasets import catalog

    entry = catalog.find(name)
    folder = catalog.get(name, source=source, to=to)
    console.say(f"{name}: {folder}")
    if entry.note and not entry.by_hand:
        console.say(f"note: {entry.note}")
    console.emit({"name": name, "path": folder, "layout": entry.layout, "images": entry.images,
                  "classes": entry.classes, "licence": entry.licence}, as_json)


@click.command("audit", cls=console.Command)
@click.argument("sources", nargs=-1, required=True, type=click.Path())
@click.option("--near", type=int, default=28, help="Bits of 128 in which the hashes of near duplicates may differ.")
@click.option("--exact", is_flag=True, help="Look for exact copies only (for digits, video frames and the like).")
@click.option("--root", type=click.Path(), help="Folder that the paths of a list begin at; by default its own.")
@console.folder_options
@click.option("--sheet", type=click.Path(), help="Write the pairs side by side as a PNG.")
@click.option("--lines", type=click.IntRange(1), default=10, help="At most so many lines of each kind of finding.")
@click.option("--workers", type=int, help="Processes that decode; by default all processors.")
@console.json_option
def audit(sources, near, exact, root, labels_from, classes_are_folders, sheet, lines, workers, as_json):
    """Look for copies and bad files in SOURCES: folders of classes, lists or .rec files, the training part first.

    Copies are found when they are re-encoded, resized, mirrored, rotated by 90, 180 or 270 degrees, brighter or
    darker, or cropped by a few per cent. Ends with status 1 where two sources share an image.

    \b
    gluon-ft audit caltech-256-60-train.rec caltech-256-60-val.rec --sheet pairs.png
    """
    from gluon_ft.data.audit import report as audit_report
    from gluon_ft.data.audit.checks import audit as examine
    from gluon_ft.data.sources import folders

    opened = [folders.scan_by(source, labels_from, classes_are_folders=classes_are_folders, strict=False)
              if Path(source).is_dir() else source for source in sources]
    report = examine(opened, workers=workers, near=None if exact else near, root=root)
    click.echo(report.text(lines))
    if sheet is not None:
        shown = audit_report.pair_sheet(report, sheet)
        console.say(f"{sheet}: {shown} of {len(report.pairs)} pairs" if shown else
                    f"{sheet}: not written, there are no pairs")
    console.emit(report.to_dict(), as_json)
    return EXIT_LEAK if report.leaked else 0
