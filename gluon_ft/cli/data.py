"""`gluon-ft data`, public data sets, and `gluon-ft audit`, copies, leaks and bad files in any data set."""
from __future__ import annotations

from pathlib import Path

import click

from gluon_ft.cli import console

EXIT_LEAK = 1


@click.group(cls=console.Group)
def data():
    """Public data sets: list them, get them.

    \b
    gluon-ft data list
    gluon-ft data get hot-dog
    """


@data.command("list")
@console.wide_option
@console.json_option
def list_(wide, as_json):
    """The data sets of the catalog, and which are here already.

    \b
    gluon-ft data list
    gluon-ft data list --wide
    """
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
    """Fetch the data set NAME, check it, unpack it, and say where it is.

    \b
    gluon-ft data get hot-dog
    gluon-ft data get caltech-256 --from 256_ObjectCategories.tar --to data/
    """
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
@click.option("--labels", is_flag=True, help="Also say which labels are probably wrong; of one source, minutes for "
              "thousands of photos.")
@click.option("--suspects", type=click.Path(), help="With --labels: write them to this CSV, which train "
              "--exclude-files takes once you have removed the lines of the labels that are right.")
@click.option("--review", type=click.Path(), multiple=True, help="With --labels: write them with their images, a page "
              "(.html) or a contact sheet (.png); may be given twice.")
@click.option("--backbone", default="auto", help="With --labels: the network whose features are used; by default that "
              "of gluon-ft train.")
@click.option("--pretrained", default="auto", help="With --labels: its weights.")
@click.option("--seed", default=0, help="With --labels: of the folds.")
@click.option("--sheet", type=click.Path(), help="Write the pairs side by side as a PNG.")
@click.option("--lines", type=click.IntRange(1), default=10, help="At most so many lines of each kind of finding.")
@click.option("--workers", type=int, help="Processes that decode; by default all processors.")
@console.json_option
def audit(sources, near, exact, root, labels_from, classes_are_folders, sheet, lines, workers, as_json, labels,
          suspects, review, **options):
    """Look for copies and bad files in SOURCES: folders of classes, lists or .rec files, the training part first.

    Copies are found when they are re-encoded, resized, mirrored, rotated by 90, 180 or 270 degrees, brighter or
    darker, or cropped by a few per cent. Ends with status 1 where two sources share an image.

    With --labels each image is judged by a classifier, on a pretrained network's features, that was fitted to others
    only. Nothing is changed: look at the suspects, and move their images or leave them out.

    \b
    gluon-ft audit photos/ --labels --review suspects.html --suspects suspects.csv
    gluon-ft audit caltech-256-60-train.rec caltech-256-60-val.rec --sheet pairs.png
    """
    from gluon_ft.data.audit import report as audit_report
    from gluon_ft.data.audit.checks import audit as examine
    from gluon_ft.data.sources import folders

    _check_labels_options(sources, labels, suspects, review)
    opened = [folders.scan_by(source, labels_from, classes_are_folders=classes_are_folders, strict=False)
              if Path(source).is_dir() else source for source in sources]
    report = examine(opened, workers=workers, near=None if exact else near, root=root)
    click.echo(report.text(lines))
    if sheet is not None:
        shown = audit_report.pair_sheet(report, sheet)
        console.say(f"{sheet}: {shown} of {len(report.pairs)} pairs" if shown else
                    f"{sheet}: not written, there are no pairs")
    found = {"labels": _judged(opened[0], report, root, lines, suspects, review, options)} if labels else {}
    console.emit({**report.to_dict(), **found}, as_json)
    return EXIT_LEAK if report.leaked else 0


def _check_labels_options(sources, labels, suspects, review):
    """What --labels goes with, before any image is read."""
    from gluon_ft.errors import ConfigError
    from gluon_ft.io import atomic

    if not labels and (suspects or review):
        raise ConfigError("--suspects and --review are of --labels", remedy="add --labels")
    if labels and len(sources) > 1:
        raise ConfigError("labels are judged within one source", expected="one folder or list",
                          found=f"{len(sources)}", remedy="run --labels for each of them")
    if not labels:
        return
    from gluon_ft.reporting import label_review

    for path in review:
        label_review.check_suffix(path)
    for path in (*review, *([suspects] if suspects else [])):
        atomic.check_writable(path)


def _judged(source, report, root, most, suspects, review, options) -> dict:
    """Judges the labels of a source, says and writes which are suspected; returns it for the JSON line."""
    from gluon_ft.data.sources.base import ImageSource
    from gluon_ft.data.sources.opening import open_unchecked
    from gluon_ft.evaluation import label_errors
    from gluon_ft.finetune import probe
    from gluon_ft.reporting import label_review

    source = source if isinstance(source, ImageSource) else open_unchecked(source, root)
    net = probe.network_for(source, options["backbone"], options["pretrained"])
    found = label_errors.examine(source, net, report, seed=options["seed"])
    console.say("", f"labels that are probably wrong: {len(found.suspects)} of {len(found.labels)} "
                f"(by {net.weights.source}; classifiers agree with {100 * found.accuracy:.1f}% of the labels of images "
                "that they did not see)")
    for number, one in enumerate(found.suspects[:most], 1):
        console.say(f"  {number}. {one.file}: {one.reason}")
    if len(found.suspects) > most:
        console.say(f"  ... and {len(found.suspects) - most} more (--lines, --suspects or --json)")
    for note in found.notes:
        console.say(f"note: {note}")
    if suspects:
        console.say(f"{label_review.write_csv(found, suspects)}: {len(found.suspects)} images; remove the lines of "
                    f"labels that are right, then train with --exclude-files {suspects}")
    for path in review:
        shown = label_review.write_review(found, path)
        console.say(f"{path}: {shown} of {len(found.suspects)} images" if shown or not path.endswith(".png") else
                    f"{path}: not written, no label is suspected")
    return {"suspects": [label_review.row(found, one) for one in found.suspects], "judged": len(found.labels),
            "accuracy": found.accuracy, "weights": net.weights.source, "notes": found.notes}
