"""`gluon-ft audit`: copies, leaks, contradictory labels and bad files in one data set or between its parts."""
from __future__ import annotations

import click

from gluon_ft.cli import console

EXIT_LEAK = 1


@click.command("audit", cls=console.Command)
@click.argument("sources", nargs=-1, required=True, type=click.Path())
@click.option("--near", type=int, default=28, help="Bits of 128 in which the hashes of near duplicates may differ.")
@click.option("--exact", is_flag=True, help="Look for exact copies only (for digits, video frames and the like).")
@click.option("--root", type=click.Path(), help="Folder that the paths of a .lst begin at; by default its own.")
@click.option("--sheet", type=click.Path(), help="Write the pairs side by side as a PNG.")
@click.option("--lines", type=click.IntRange(1), default=10, help="At most so many lines of each kind of finding.")
@click.option("--workers", type=int, help="Processes that decode; by default all processors.")
@console.json_option
def audit(sources, near, exact, root, sheet, lines, workers, as_json):
    """Look for copies and bad files in SOURCES: folders of classes, .lst files or .rec files, the training part first.

    Copies are found when they are re-encoded, resized, mirrored, rotated by 90, 180 or 270 degrees, brighter or
    darker, or cropped by a few per cent. Ends with status 1 where two sources share an image.

    \b
    gluon-ft audit caltech-256-60-train.rec caltech-256-60-val.rec --sheet pairs.png
    """
    from gluon_ft.data.audit import report as audit_report
    from gluon_ft.data.audit.checks import audit as examine

    report = examine(sources, workers=workers, near=None if exact else near, root=root)
    click.echo(report.text(lines))
    if sheet is not None:
        shown = audit_report.pair_sheet(report, sheet)
        click.echo(f"{sheet}: {shown} of {len(report.pairs)} pairs" if shown else
                   f"{sheet}: not written, there are no pairs")
    console.emit(report.to_dict(), as_json)
    return EXIT_LEAK if report.leaked else 0
