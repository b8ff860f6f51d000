"""`gluon-ft split`: a folder of images to seeded training, validation and test lists."""
from __future__ import annotations

import click

from gluon_ft.cli import console

MANY = 24  # classes; from here on the table shows the first and the last of them


class _CountOrShare(click.ParamType):
    name = "n|share"

    def convert(self, value, param, ctx):
        if not isinstance(value, str):
            return value
        try:
            return int(value) if value.lstrip("+-").isdigit() else float(value)
        except ValueError:
            self.fail(f"'{value}' is neither a number of images nor a share such as 0.2", param, ctx)


@click.command("split", cls=console.Command)
@click.argument("folder", type=click.Path())
@click.argument("prefix", type=click.Path())
@click.option("--per-class", type=int, help="Images a class for training; the rest are for validation.")
@click.option("--fraction", type=float, help="Share of each class for training.")
@click.option("--folds", type=int, help="Stratified folds, each with its own two lists.")
@click.option("--test", type=_CountOrShare(), help="Images (10) or share (0.2) of each class for a third list.")
@click.option("--cap", type=int, help="Use at most so many images of a class.")
@click.option("--exclude", multiple=True, metavar="CLASS", help="Leave a class out; may be repeated.")
@console.folder_options
@click.option("--seed", type=int, default=0, help="Which images are drawn.")
@click.option("--allow-short", is_flag=True, help="Take what there is from classes with too few images.")
@click.option("--force", is_flag=True, help="Replace the lists of an earlier split of this prefix.")
@console.json_option
def split(folder, prefix, force, as_json, exclude, labels_from, classes_are_folders, **options):
    """Write PREFIX-train.lst, PREFIX-val.lst and PREFIX.classes.txt from FOLDER, which has one subfolder a class.

    The lists are im2rec's. FOLDER is not changed. The same seed and files give the same lists everywhere.

    \b
    gluon-ft split 256_ObjectCategories/ caltech-256-60 --per-class 60 --exclude 257.clutter
    gluon-ft split photos/ photos --folds 5 --test 0.1
    """
    from gluon_ft.data import split as library
    from gluon_ft.data.sources import folders, walk

    scanned = folders.scan_by(folder, labels_from, exclude, classes_are_folders=classes_are_folders)
    result = library.split(scanned, **options)
    written = library.write(result, prefix, force=force)
    click.echo(console.table(_rows(result)))
    if scanned.left_out:
        console.say(f"left out: {walk.said(scanned.left_out)}")
    files = {}
    for path, part in zip(written, [*result.parts, "classes"]):
        size = len(result.parts.get(part, result.classes))
        files[part] = {"path": str(path), "classes" if part == "classes" else "images": size}
        console.say(f"wrote {path}: {size} {'classes' if part == 'classes' else 'images'}")
    console.emit({"command": "split", "folder": str(folder), "prefix": str(prefix), "seed": result.seed,
                  "options": {**result.options, "exclude": list(exclude)}, "files": files,
                  "left_out": len(scanned.left_out), "counts": result.counts()}, as_json)


def _rows(result) -> list[dict]:
    """A row a class, the middle ones folded where there are many, and the totals; of folds only the validation part."""
    rows = [{name.replace("-val", ""): n for name, n in row.items() if not (name[:4] == "fold" and "-train" in name)}
            for row in result.counts()]
    total = {"class": f"all {len(rows)}", **{name: sum(r[name] for r in rows) for name in rows[0] if name != "class"}}
    if len(rows) > MANY:
        rows = [*rows[:8], {"class": f"... {len(rows) - 12} more"}, *rows[-4:]]
    return [*rows, total]
