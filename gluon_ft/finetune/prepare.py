"""From the settings to the lists that a run trains and validates on, and back from a run's folder."""
from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gluon_ft.data import lists
from gluon_ft.data.images import header
from gluon_ft.data.lists import Entry
from gluon_ft.data.records import manifest
from gluon_ft.data.records.verify import beside
from gluon_ft.data.sources.records import open_records
from gluon_ft.errors import ConfigError, DataError
from gluon_ft.finetune import sources
from gluon_ft.finetune.division import divide
from gluon_ft.finetune.examine import examine
from gluon_ft.finetune.sources import Source
from gluon_ft.io import atomic
from gluon_ft.reporting import data_record

PREFIX = "images"
FILES = {"train": "train", "validation": "val"}  # part -> how its list is called
PROBED = 64  # images whose size is looked at


@dataclass(frozen=True)
class Part:
    """Images of one part: `source` is the .lst or .rec to read, `files` (path below root, label), None for a .rec."""

    source: Path
    root: Path | None
    files: list[tuple[str, int]] | None
    images: int


@dataclass
class Data:
    """What is trained and validated on: `parts` ('train', and 'validation' unless there is none), class names, what was
    left out, lines for people, counts for result.json."""

    parts: dict[str, Part]
    classes: list[str]
    left_out: list[dict] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    facts: dict = field(default_factory=dict)


def prepare(settings, found=None) -> Data:
    """Audits and splits what the settings name; nothing is written. Errors as of `sources.find` and `divide`.

    found : what `sources.find` returned for these settings, where that was asked already.
    """
    train, val = found or sources.find(settings)
    found = examine(train, val, settings.audit)
    train, val = found.train, found.val
    if val is not None or not settings.validation:
        parts = {"train": _part(train), **({} if val is None else {"validation": _part(val)})}
    else:
        drawn = dict(zip(FILES, divide(train, settings.validation, settings.seed, found.groups)))
        parts = {name: Part(Path(), train.root, files, len(files)) for name, files in drawn.items()}
    classes = train.classes or _classes_of_records(train)
    _check_classes(parts["train"], classes, settings.allow_empty_classes)
    if settings.data is None or val is not None:
        found.lines.insert(0, f"training {train.path}" + (f", validation {val.path}" if val is not None else ""))
    return Data(parts, classes, found.left_out, found.lines, found.facts)


def _part(source: Source) -> Part:
    if source.packed:
        return Part(source.path, None, None, len(open_records(source.path).labels))
    return Part(Path(), source.root, source.files, len(source.files))


def _classes_of_records(source):
    labels = open_records(source.path).labels
    return [str(i) for i in range(int(labels.max()) + 1)]


def check_outside(folder, settings) -> None:
    """ConfigError where a run's folder would be inside of the photos, which are never changed."""
    inside = Path(folder).resolve()
    for source in (settings.data, settings.train, settings.val):
        root = Path(source).resolve() if source else None
        if root is not None and root.is_dir() and (inside == root or root in inside.parents):
            raise ConfigError("the run's folder would be inside of the photos, and be taken for a class",
                              found=str(folder), expected=f"a place outside of {source}",
                              remedy="name another with --run or --runs")


def _check_classes(part, classes, allow_empty):
    if part.files is None or allow_empty:
        return
    counts = np.bincount([label for _, label in part.files], minlength=len(classes))
    empty = [name for name, count in zip(classes, counts) if not count]
    if empty:
        raise DataError(f"{len(empty)} of {len(classes)} classes have no training image", path=part.root,
                        expected="at least one each", found=f"none of '{empty[0]}'",
                        remedy="add images, or leave the class out (--exclude)")


def write(data: Data, folder, weights: dict | None = None) -> Data:
    """Writes the lists and data.json into a run's folder, the latter last; returns the data with its lists named.

    weights : source and SHA-256 of the pretrained weights, see `network.weights_of`.
    """
    folder, parts = Path(folder), {}
    for name, part in data.parts.items():
        if part.files is not None:
            path = lists.list_file(folder / PREFIX, FILES[name])
            lists.write(path, [Entry(i, (label,), file) for i, (file, label) in enumerate(part.files)], force=True)
            part = Part(path, part.root.resolve(), part.files, part.images)
        parts[name] = part
    atomic.write(lists.classes_file(folder / PREFIX), lists.classes_to_bytes(data.classes))
    data_record.write(folder, data_record.describe(parts, data.classes, data.left_out, weights))
    return Data(parts, data.classes, data.left_out, data.lines, data.facts)


def reopen(folder) -> Data | None:
    """The data of a run that was begun in `folder`; None where it had not come so far.

    Raises DataError where an image was changed, removed or added to the lists since, saying which.
    """
    known = data_record.read(folder)
    if known is None:
        return None
    parts = {name: Part(_source(folder, name, part), part["root"] and Path(part["root"]),
                        part["files"] and [(path, label) for path, label, _ in part["files"]], part["images"])
             for name, part in known["parts"].items()}
    now = data_record.describe(parts, known["classes"], known["left_out"], known.get("weights"))
    differs = data_record.difference(known, now)
    if differs:
        raise DataError("the images have changed since this run began", path=folder, found="; ".join(differs),
                        expected="those of data.json", remedy="put them back, or start another run")
    return Data(parts, known["classes"], known["left_out"])


def _source(folder, name, part):
    return Path(part["source"]) if part["files"] is None else lists.list_file(Path(folder) / PREFIX, FILES[name])


def typical_size(part: Part) -> int | None:
    """The median of the shorter edges of some of the images, pixels; None where it is not known."""
    if part.files is None:
        about = beside(part.source, ".manifest.json")
        sizes = manifest.read(about).data.get("sizes", {}) if about.is_file() else {}
        found = [sizes[edge]["median"] for edge in ("width", "height") if sizes.get(edge)]
        return int(min(found)) if found else None
    edges = []
    for path, _ in part.files[::max(1, len(part.files) // PROBED)]:
        try:
            info = header.probe(header.read_file(str(Path(part.root) / path)))
        except header.Unreadable:
            continue
        edges.append(min(info.width, info.height))
    return int(np.median(edges)) if edges else None
