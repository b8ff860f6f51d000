"""`inspect`: what is in a `.rec`, as a table of its classes and sizes and as a contact sheet."""
from __future__ import annotations

import os
import random
from array import array
from dataclasses import dataclass, field
from pathlib import Path

import cv2
from PIL import Image

from gluon_ft.data.images import decode
from gluon_ft.data.images import header as recprobe
from gluon_ft.data.images.contact_sheet import contact_sheet, save
from gluon_ft.data.records import framing, manifest
from gluon_ft.data.records.verify import beside
from gluon_ft.errors import ConfigError, DataError


@dataclass
class _Class:
    bytes: int = 0
    widths: array = field(default_factory=lambda: array("L"))
    heights: array = field(default_factory=lambda: array("L"))


@dataclass
class Contents:
    """What `inspect` found: `rows` of the table (a dict a class, sizes in pixels), totals, and the place of each
    record (`labels` text and byte `offsets`) for the contact sheet."""

    path: Path
    rows: list[dict]
    records: int
    bytes: int
    options: dict | None
    formats: dict[str, int]
    labels: list[str]
    offsets: array


def inspect(rec) -> Contents:
    """Reads the headers of all records and their images, and decodes none.

    Raises DataError where a record is damaged, with its number and byte, or the manifest cannot be used.
    """
    path = Path(rec)
    about = beside(path, ".manifest.json")
    known = manifest.read(about) if about.is_file() else None
    classes: dict[str, _Class] = {}
    names, formats, offsets = [], {}, array("Q")
    try:
        size = os.stat(path).st_size
        with open(path, "rb") as file:
            for item in framing.scan(file, size):
                label, info, length = _look(item, path, known)
                group = classes.setdefault(label, _Class())
                group.bytes += length
                group.widths.append(info.width)
                group.heights.append(info.height)
                formats[info.format] = formats.get(info.format, 0) + 1
                names.append(label)
                offsets.append(item.offset)
    except OSError as error:
        raise DataError("cannot be read", path=path, expected="packed records (.rec)",
                        found=error.strerror or error) from None
    if not names:
        raise DataError("no records", path=path, found="an empty file")
    return Contents(path, _rows(classes, known), len(names), size, known.data["options"] if known else None, formats,
                    names, offsets)


def _look(item, path, known):
    if isinstance(item, framing.Damage):
        raise DataError(f"damaged: {item}", path=path, remedy=f"see all of it with gluon-ft verify {path}")
    try:
        header = framing.read_header(item.payload)
        info = recprobe.probe(item.payload[header.start:])
    except (framing.Damaged, recprobe.Unreadable) as error:
        raise DataError(f"damaged: record {item.number} at byte {item.offset}: {error}", path=path,
                        remedy=f"see all of it with gluon-ft verify {path}") from None
    return _name(header.labels, known), info, len(item.payload) - header.start


def _name(labels, known) -> str:
    if len(labels) != 1:
        return f"({len(labels)} labels)"
    label = labels[0]
    if known is not None and known.classes and label.is_integer() and 0 <= label < len(known.classes):
        return known.classes[int(label)]
    return f"{label:g}"


def _rows(classes, known):
    def number(name):
        try:
            return (0, float(name), name)
        except ValueError:
            return (1, 0.0, name)

    if known is not None and known.classes:
        order = [name for name in known.classes if name in classes]
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


def write_sheet(contents: Contents, out, *, number: int = 48, seed: int = 0, columns: int = 8) -> int:
    """Writes a contact sheet (PNG) of `number` records chosen by `seed`, in file order, with their numbers and classes.

    Returns the number of thumbnails. Raises DataError where it cannot be written or a record does not decode.
    """
    if number < 1 or columns < 1:
        raise ConfigError("bad contact sheet", expected="one image and one column or more",
                          found=f"{number} images in {columns} columns")
    chosen = sorted(random.Random(seed).sample(range(contents.records), min(number, contents.records)))
    pictures = []
    with open(contents.path, "rb") as file:
        for i in chosen:
            pictures.append((_picture(contents, file, i), f"{i} {contents.labels[i]}"))
    title = f"{contents.path.name}: {len(chosen)} of {contents.records} records, seed {seed}"
    save(contact_sheet(pictures, columns=columns, title=title), Path(out))
    return len(chosen)


def _picture(contents, file, number):
    try:
        payload = framing.read_record(file, contents.offsets[number], contents.bytes).payload
        data = payload[framing.read_header(payload).start:]
        array_ = decode.decode(data, recprobe.probe(data), resize=128)
    except (framing.Damaged, recprobe.Unreadable) as error:
        raise DataError(f"damaged: record {number} at byte {contents.offsets[number]}: {error}",
                        path=contents.path) from None
    picture = Image.fromarray(cv2.cvtColor(array_, cv2.COLOR_BGR2RGB) if array_.ndim == 3 else array_)
    picture.thumbnail((256, 256))
    return picture
