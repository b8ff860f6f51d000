"""`gluon-ft pack`, `verify` and `inspect`: lists of images to records, and what is in records."""
from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path

import click

from gluon_ft.cli import console
from gluon_ft.errors import ConfigError, DataError

EXIT_DAMAGED = 1


class _Shard(click.ParamType):
    name = "i/n"

    def convert(self, value, param, ctx):
        found = re.fullmatch(r"([0-9]{1,5})/([0-9]{1,5})", str(value))
        if not found:
            self.fail(f"'{value}' is not i/n with i from 0, such as 0/4", param, ctx)
        return int(found[1]), int(found[2])


@click.command("pack", cls=console.Command)
@click.argument("prefix", type=click.Path())
@click.argument("root", type=click.Path())
@click.option("--out", type=click.Path(), help="Folder for the records; by default that of the lists.")
@click.option("--resize", type=int, default=0, help="Shorter edge in pixels; 0 keeps the size.")
@click.option("--center-crop", is_flag=True, help="Cut the longer edge to a square first.")
@click.option("--quality", type=int, help="JPEG 1-100 (95 if not given), PNG compression 0-9 (3 if not given).")
@click.option("--color", type=click.Choice(["1", "0", "-1"]), default="1", help="1: RGB, 0: grey, -1: as it is.")
@click.option("--encoding", type=click.Choice([".jpg", ".png"]), default=".jpg", help="Of the stored images.")
@click.option("--pass-through", is_flag=True, help="Store the files' own bytes (JPEG and PNG).")
@click.option("--max-megapixels", type=float, default=100, help="Larger images are refused before they are decoded.")
@click.option("--workers", type=int, default=1, help="Processes; the result does not depend on it.")
@click.option("--shards", type=int, help="Write so many files PREFIX_0.rec, PREFIX_1.rec, ...")
@click.option("--shard", type=_Shard(), help="Write only shard i, from 0, of n: for one machine of several.")
@click.option("--on-error", type=click.Choice(["fatal", "skip"]), default="fatal",
              help="What an unreadable image does; all are listed.")
@click.option("--allow-outside", is_flag=True, help="Read images that the list has outside of ROOT.")
@click.option("--force", is_flag=True, help="Replace earlier records.")
@console.json_option
def pack(prefix, root, out, color, shards, shard, as_json, **options):
    """Pack the images of PREFIX.lst, PREFIX-train.lst, ... (or one .lst, .csv, .tsv or .txt), below the folder ROOT.

    Transparent parts become white, EXIF orientation is applied, CMYK, palette, 16-bit and animated images (the first
    frame) become 8-bit RGB.

    \b
    gluon-ft pack caltech-256-60 256_ObjectCategories/ --resize 256 --quality 90 --workers 2
    gluon-ft pack photos-train.lst photos/ --workers 4
    """
    from gluon_ft.data import lists
    from gluon_ft.data.records import pack as records

    if shard is not None and shards not in (None, shard[1]):
        raise ConfigError("--shard and --shards disagree", expected=f"--shard i/{shards}",
                          found=f"{shard[0]}/{shard[1]}")
    number, shards = shard if shard is not None else (None, shards or 1)
    results = []
    for lst in lists.find_lists(prefix):
        target = None if out is None else Path(out) / lists.without_suffix(lst).name
        try:
            done = records.pack(lst, root, target, color=int(color), shards=shards, shard=number, **options)
        except records.UnreadableImages as error:
            _list_unreadable(error.skipped, records.MOST_SHOWN)
            raise
        for packed in done:
            results.append(packed)
            console.say(f"wrote {packed.rec}: {packed.records} images, {packed.bytes / 1e6:.1f} MB")
            if packed.skipped:
                console.say(f"left out, cannot be read: {len(packed.skipped)} images")
                _list_unreadable(packed.skipped, records.MOST_SHOWN)
            if packed.not_upright:
                console.say(f"{packed.not_upright} images have an EXIF orientation, which MXNet's reader may not apply")
    console.emit({"command": "pack", "files": [asdict(packed) for packed in results]}, as_json)


def _list_unreadable(skipped, most):
    for each in skipped[:most]:
        console.say(f"  {each.path}: {each.reason}", err=True)
    if len(skipped) > most:
        console.say(f"  ... {len(skipped) - most} more", err=True)


@click.command("verify", cls=console.Command)
@click.argument("rec", type=click.Path(), nargs=-1, required=True)
@click.option("--classes", type=int, help="Number of classes; by default the manifest's.")
@click.option("--workers", type=int, default=1, help="Processes that decode.")
@click.option("--max-megapixels", type=float, default=100, help="A larger image counts as damage.")
@console.json_option
def verify(rec, classes, workers, max_megapixels, as_json):
    """Read every record of REC: framing, header, labels, image, and index and manifest where they are beside it.

    Exit status 1 where a record is damaged. Takes files by MXNet's im2rec.py too.

    \b
    gluon-ft verify photos-train.rec photos-val.rec
    gluon-ft verify old/train.rec --classes 257 --json
    """
    from gluon_ft.data.records import verify as recverify

    reports = [recverify.verify(path, workers=workers, classes=classes, max_megapixels=max_megapixels) for path in rec]
    for report in reports:
        for damage in report.damages:
            console.say(f"{report.path}: {damage}")
        if report.damaged > len(report.damages):
            console.say(f"{report.path}: {report.damaged - len(report.damages)} more")
        absent = [name for name, there in (("index", report.index), ("manifest", report.manifest)) if not there]
        console.say(f"{report.path}: {report.records} records, "
                    f"{'whole' if report.ok else f'{report.damaged} damages'}{_without(absent)}")
    console.emit({"command": "verify", "files": [{
        "path": str(r.path), "ok": r.ok, "records": r.records, "bytes": r.bytes, "manifest": r.manifest,
        "index": r.index, "damaged": r.damaged, "damages": [asdict(d) for d in r.damages]} for r in reports]}, as_json)
    if not all(report.ok for report in reports):
        click.get_current_context().exit(EXIT_DAMAGED)


def _without(absent):
    return f" (no {' and no '.join(absent)} to compare with)" if absent else ""


@click.command("inspect", cls=console.Command)
@click.argument("rec", type=click.Path())
@click.option("--sheet", type=click.Path(), help="Write a contact sheet (PNG) here.")
@click.option("--number", type=int, default=48, help="Thumbnails on the sheet.")
@click.option("--columns", type=int, default=8, help="Thumbnails in a row.")
@click.option("--seed", type=int, default=0, help="Which records are on the sheet.")
@console.json_option
def inspect(rec, sheet, number, columns, seed, as_json):
    """Show the classes, counts and image sizes of REC, and write a contact sheet.

    \b
    gluon-ft inspect photos-train.rec
    gluon-ft inspect photos-train.rec --sheet sheet.png --number 96
    """
    from gluon_ft.data.records import inspect as recinspect

    if sheet is not None and not sheet.lower().endswith(".png"):
        raise DataError("contact sheets are PNG", path=sheet, remedy="end its name in .png")
    contents = recinspect.inspect(rec)
    click.echo(console.table(contents.rows))
    kinds = ", ".join(f"{n} {name}" for name, n in sorted(contents.formats.items()))
    console.say(f"{contents.path}: {contents.records} records ({kinds}), {contents.bytes / 1e6:.1f} MB")
    if sheet is not None:
        count = recinspect.write_sheet(contents, sheet, number=number, seed=seed, columns=columns)
        console.say(f"wrote {sheet}: {count} thumbnails")
    console.emit({"command": "inspect", "path": rec, "records": contents.records, "bytes": contents.bytes,
                  "classes": contents.rows, "formats": contents.formats, "options": contents.options,
                  "sheet": sheet}, as_json)
