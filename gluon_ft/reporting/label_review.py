"""Suspected labels for review: as a table (CSV), as one page with thumbnails to tick, and as a contact sheet."""
from __future__ import annotations

import csv
import io
import os
from pathlib import Path

import jinja2
import numpy as np
from PIL import Image

from gluon_ft.data.images import contact_sheet
from gluon_ft.data.images.header import Unreadable
from gluon_ft.data.sources.exclusions import COLUMN
from gluon_ft.errors import ConfigError, DataError, escaped
from gluon_ft.evaluation.label_errors import Judged, Suspect
from gluon_ft.io import atomic
from gluon_ft.io.paths import AnyPath
from gluon_ft.reporting.report import thumbnails

COLUMNS = (COLUMN, "label", "suggested", "own_probability", "suggested_probability", "reason")
MOST = 200  # images on a page or sheet


def row(judged: Judged, suspect: Suspect) -> dict:
    """A suspect as plain values: `COLUMNS`; the file by its absolute path."""
    return dict(zip(COLUMNS, (os.path.abspath(judged.source.where(suspect.position)), suspect.label, suspect.suggested,
                              round(suspect.own, 6), round(suspect.probability, 6), suspect.reason)))


def write_csv(judged: Judged, path: AnyPath) -> Path:
    """Writes all suspects as a table, the most probable errors first; `gluon-ft train --exclude-files` takes it.

    Raises DataError where it cannot be written.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row(judged, suspect) for suspect in judged.suspects)
    return _write(path, text.getvalue().encode("utf-8", "backslashreplace"))


def write_review(judged: Judged, path: AnyPath, most: int = MOST) -> int:
    """Writes the first suspects with their images: a page that stands by itself (.html), or a contact sheet (.png).

    The page makes the list for `--exclude-files` of the images that are ticked on it.

    Parameters
    ----------
    judged : Judged
    path : path-like
        Ends in .html or .png; a file that exists is replaced.
    most : int, default 200
        Largest number of images shown.

    Returns
    -------
    int
        How many are shown. A contact sheet without any is not written.

    Raises
    ------
    ConfigError
        Another suffix.
    DataError
        It cannot be written, or an image has changed and cannot be read any more.
    """
    check_suffix(path)
    shown = judged.suspects[:most]
    pictures = [_picture(judged, suspect) for suspect in shown]
    if os.fspath(path).lower().endswith(".png"):
        if shown:
            contact_sheet.save(contact_sheet.contact_sheet(
                [(picture, f"{number}. {one.label} → {one.suggested}") for number, (picture, one) in
                 enumerate(zip(pictures, shown), 1)], columns=6, thumb=thumbnails.EDGE,
                title=f"labels to look at: {len(shown)} of {len(judged.suspects)}"), path)
        return len(shown)
    engine = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True,
                                undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    cards = [{**row(judged, suspect), "name": suspect.file, "picture": thumbnails.jpeg_address(np.asarray(picture)),
              "reason": escaped(suspect.reason)} for suspect, picture in zip(shown, pictures)]
    _write(path, engine.get_template("label_review.html").render(
        source=escaped(judged.source.name), cards=cards, suspects=len(judged.suspects), images=len(judged.labels),
        notes=judged.notes).encode("utf-8", "backslashreplace"))
    return len(shown)


def check_suffix(path: AnyPath) -> None:
    """ConfigError for a review that is neither a page nor a sheet."""
    if not os.fspath(path).lower().endswith((".html", ".htm", ".png")):
        raise ConfigError("a review is a page or a contact sheet", found=os.fspath(path),
                          expected="a name that ends in .html or .png")


def _picture(judged, suspect) -> Image.Image:
    try:
        return Image.fromarray(thumbnails.thumbnail(judged.source.image(suspect.position, 3, thumbnails.EDGE)))
    except Unreadable as error:
        raise DataError(f"image changed while its label was judged: {error}",
                        path=judged.source.where(suspect.position)) from None


def _write(path, data: bytes) -> Path:
    try:
        return atomic.write(path, data)
    except OSError as error:
        raise DataError("cannot be written", path=path, found=error.strerror or error,
                        remedy="choose another place") from error
