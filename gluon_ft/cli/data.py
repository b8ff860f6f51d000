"""`gluon-ft data`: lists the public data sets and gets them."""
from __future__ import annotations

from pathlib import Path

import click

from gluon_ft.cli import console


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
    click.echo("unverified: addresses and hashes are as published, the files were not fetched when the table was made")
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
    click.echo(f"{name}: {folder}")
    if entry.note and not entry.by_hand:
        click.echo(f"note: {entry.note}")
    console.emit({"name": name, "path": folder, "layout": entry.layout, "images": entry.images,
                  "classes": entry.classes, "licence": entry.licence}, as_json)
