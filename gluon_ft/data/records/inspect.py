"""`inspect`: summarises a `.rec` as a table of classes and image sizes, and draws a contact sheet."""
from __future__ import annotations

import os
import random
from array import array
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from gluon_ft.data.images import decode
from gluon_ft.data.images.contact_sheet import contact_sheet, save
from gluon_ft.data.images.header import Unreadable, probe
from gluon_ft.data.records import manifest, record_file
from gluon_ft.data.records.record_file import RecordFile
from gluon_ft.errors import ConfigError, DataError


@dataclass
class _Class:
    bytes: int = 0
    widths: array = field(default_factory=lambda: array("L"))
    heights: array = field(default_factory=lambda: array("L"))


@dataclass
class Contents:
    """What `inspect` found.

    Attributes
    ----------
    rows : list of dict
        The table, one row per class; widths and heights in pixels.
    records, bytes : int
    options : dict or None
        The packing options, from the manifest; None without one.
    formats : dict of str to int
        Number of records of each image format.
    labels : list of str
        The class of each record, as text.
    offsets : array
        The byte at which each record begins.
    """

    path: Path
    rows: list[dict]
    records: int
    bytes: int
    options: dict | None
    formats: dict[str, int]
    labels: list[str]
    offsets: array


def inspect(rec: str | os.PathLike) -> Contents:
    """Reads the header of every record and of its image, without decoding any image.

    Raises DataError if a record is damaged (with its number and byte) or the manifest cannot be used.
    """
    records = RecordFile(rec)
    class_names, packed = records.class_names, records.manifest
    classes: dict[str, _Class] = {}
    labels, formats, offsets = [], {}, array("Q")
    for item, header in records.scan_whole():
        data = item.payload[header.start:]
        try:
            info = probe(data)
        except Unreadable as error:
            raise records.damaged(f"record {item.number} at byte {item.offset}: {error}") from None
        label = records.label_name(header.labels) or f"({len(header.labels)} labels)"
        group = classes.setdefault(label, _Class())
        group.bytes += len(data)
        group.widths.append(info.width)
        group.heights.append(info.height)
        formats[info.format] = formats.get(info.format, 0) + 1
        labels.append(label)
        offsets.append(item.offset)
    if not labels:
        raise DataError("no records", path=records.path, found="an empty file")
    return Contents(records.path, _rows(classes, class_names), len(labels), records.bytes,
                    packed.data["options"] if packed else None, formats, labels, offsets)


def _rows(classes, class_names):
    def number(name):
        try:
            return (0, float(name), name)
        except ValueError:
            return (1, 0.0, name)

    if class_names:
        order = [name for name in class_names if name in classes]
        order += sorted(set(classes) - set(order))
    else:
        order = sorted(classes, key=number)
    return [_row(name, classes[name]) for name in order]


def _row(name, group):
    width, height = manifest.statistics(group.widths), manifest.statistics(group.heights)
    return {"class": name, "records": len(group.widths),
            **{f"width {key}": round(value) for key, value in width.items()},
            **{f"height {key}": round(value) for key, value in height.items()},
            "kB/image": round(group.bytes / 1000 / len(group.widths), 1)}


def write_sheet(contents: Contents, out: str | os.PathLike, *, number: int = 48, seed: int = 0,
                columns: int = 8) -> int:
    """Draws records at random and writes their images as a contact sheet, in file order, with numbers and classes.

    Parameters
    ----------
    contents : Contents
        What `inspect` returned for the `.rec`.
    out : path-like
        The PNG file to write.
    number, columns : int, default 48 and 8
        Number of thumbnails, and thumbnails per row.
    seed : int, default 0
        Seed of the draw.

    Returns
    -------
    int
        The number of thumbnails.

    Raises
    ------
    DataError
        The file cannot be written, or an image cannot be decoded.
    ConfigError
        `number` or `columns` is below 1.
    """
    if number < 1 or columns < 1:
        raise ConfigError("bad contact sheet", expected="one image and one column or more",
                          found=f"{number} images in {columns} columns")
    chosen = sorted(random.Random(seed).sample(range(contents.records), min(number, contents.records)))
    pictures = [(_picture(contents, i), f"{i} {contents.labels[i]}") for i in chosen]
    title = f"{contents.path.name}: {len(chosen)} of {contents.records} records, seed {seed}"
    save(contact_sheet(pictures, columns=columns, title=title), Path(out))
    return len(chosen)


def _picture(contents, number):
    try:
        pixels = decode.decode_rgb(record_file.read_image(contents.path, contents.offsets[number]), resize=128)
    except Unreadable as error:
        raise DataError(f"damaged: record {number} at byte {contents.offsets[number]}: {error}",
                        path=contents.path) from None
    picture = Image.fromarray(pixels)
    picture.thumbnail((256, 256))
    return picture
