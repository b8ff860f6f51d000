"""What `audit` reads: the images of a folder, a list or packed records, and their labels."""
from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from gluon_ft.data.images import header as recprobe
from gluon_ft.data.records import framing, manifest
from gluon_ft.data.records.pack import find_classes
from gluon_ft.data.records.verify import beside
from gluon_ft.data.sources import folders, lists
from gluon_ft.errors import DataError


@dataclass(frozen=True)
class Item:
    """One image of a source: where it is, and the label that it has there.

    `offset` is the byte of its record, None for a file of its own. `label` is a class's name, or its number as text
    where the names are not known, or None where it has several labels.
    """

    source: int
    name: str
    label: str | None
    path: str
    offset: int | None = None

    def read(self) -> bytes:
        """The image's bytes; recprobe.Unreadable where there are none."""
        if self.offset is None:
            return recprobe.read_file(self.path)
        try:
            with open(self.path, "rb") as file:
                payload = framing.read_record(file, self.offset, os.stat(self.path).st_size).payload
            return payload[framing.read_header(payload).start:]
        except (OSError, framing.Damaged) as error:
            raise recprobe.Unreadable(str(error)) from None


@dataclass
class Source:
    """A folder with one subfolder a class, a `.lst`, or a `.rec`; `named` says whether labels are class names."""

    path: str
    kind: str
    items: list[Item]
    classes: list[str] = field(default_factory=list)
    named: bool = True
    left_out: list[str] = field(default_factory=list)


def open_source(number: int, path, root=None) -> Source:
    """Lists the images of source `number`, without decoding any.

    Parameters
    ----------
    path : a folder, a `.lst` (its paths begin at `root`, by default at its own folder) or a `.rec`

    Raises DataError where it is none of these, or cannot be read as what it is.
    """
    path = Path(path)
    if path.is_dir():
        return _folder(number, path)
    if path.suffix.lower() == ".lst":
        return _list(number, path, Path(root) if root is not None else path.parent)
    if path.suffix.lower() == ".rec":
        return _records(number, path)
    raise DataError("no such source" if not path.exists() else "not a source of images", path=path,
                    expected="a folder of classes, a .lst or a .rec",
                    found="a file" if path.exists() else "nothing there")


def _folder(number, path):
    found = folders.scan(path)
    items = [Item(number, name, found.classes[label], os.path.join(path, name)) for name, label in found.files]
    return Source(str(path), "folder", items, found.classes, left_out=found.left_out)


def _list(number, path, root):
    entries = lists.read(path)
    if not root.is_dir():
        raise DataError("no such folder", path=root, expected="the folder that the list's paths begin at (--root)")
    classes = find_classes(path)
    items = [Item(number, entry.path, _label(entry.labels, classes), os.path.join(root, entry.path))
             for entry in entries]
    if not any(os.path.exists(item.path) for item in items):
        raise DataError(f"none of the {len(items)} images of the list is there", path=path,
                        expected=f"them in {root}", found=f"no {items[0].path}",
                        remedy="give the folder that the list's paths begin at with --root")
    return Source(str(path), "list", items, classes or _numbers(items), named=classes is not None)


def _records(number, path):
    about = beside(path, ".manifest.json")
    classes = manifest.read(about).classes if about.is_file() else None
    items = []
    try:
        size = os.stat(path).st_size
        with open(path, "rb") as file:
            items += [_record(number, path, classes, record) for record in framing.scan(file, size)]
    except OSError as error:
        raise DataError("cannot be read", path=path, expected="packed records (.rec)",
                        found=error.strerror or error) from None
    if not items:
        raise DataError("no records", path=path, found="an empty file")
    return Source(str(path), "records", items, classes or _numbers(items), named=classes is not None)


def _record(number, path, classes, record) -> Item:
    try:
        if isinstance(record, framing.Damage):
            raise framing.Damaged(str(record))
        header = framing.read_header(record.payload)
    except framing.Damaged as error:
        raise DataError(f"damaged: {error}", path=path, remedy=f"see all of it with gluon-ft verify {path}") from None
    return Item(number, f"record {record.number}", _label(header.labels, classes), str(path), record.offset)


def _label(labels, classes) -> str | None:
    if len(labels) != 1:
        return None
    label = labels[0]
    if classes is not None and float(label).is_integer() and 0 <= label < len(classes):
        return classes[int(label)]
    return f"{label:g}"


def _numbers(items) -> list[str]:
    return sorted({item.label for item in items if item.label is not None}, key=float)

