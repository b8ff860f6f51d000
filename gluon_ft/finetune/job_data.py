"""The images of a job: from its settings to what it trains and validates on, and back from a run's folder."""
from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Union

import numpy as np

from gluon_ft.data import lists
from gluon_ft.data.images import header
from gluon_ft.data.records import manifest, record_file
from gluon_ft.data.sources import class_names, exclusions, folders, joined
from gluon_ft.data.sources.base import ImageSource, numbered_classes
from gluon_ft.data.sources.files import FileSource, from_list
from gluon_ft.data.sources.opening import open_source
from gluon_ft.data.sources.records import RecordSource, open_records
from gluon_ft.data.sources.walk import Walker
from gluon_ft.data.split import divide
from gluon_ft.errors import ConfigError, DataError
from gluon_ft.finetune.examine import Examined, examine
from gluon_ft.finetune.settings import JobSettings
from gluon_ft.io import atomic
from gluon_ft.io.paths import AnyPath
from gluon_ft.reporting import data_record

PREFIX = "images"  # of a run's own lists
FILES = {"train": "train", "validation": "val"}  # part -> how its list is called
PROBED = 64  # images whose size is looked at

Images = Union[FileSource, RecordSource]


@dataclass
class JobData:
    """What a job trains and validates on.

    Attributes
    ----------
    parts : dict
        'train', and 'validation' unless there is none -> its images.
    class_names : list of str
    left_out : list of dict
        {part, path, why} of each image that is not used.
    lines : list of str
        What was found, for people.
    facts : dict
        The same as counts, for result.json.
    groups : ndarray or None
        int64, a number for each training image: copies have the same. None: not looked for.
    """

    parts: dict[str, Images]
    class_names: list[str]
    left_out: list[dict] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    facts: dict = field(default_factory=dict)
    groups: np.ndarray | None = None


def find(settings: JobSettings) -> tuple[Images, Images | None]:
    """Opens the training images and the validation images that the settings name.

    Returns
    -------
    (source, source or None)
        None: validation images are to be drawn from the training images, or there are none.

    Raises
    ------
    DataError
        Not a source of images; parts without training images or with other classes; an image to leave out that is
        not there.
    ConfigError
        Options that do not go with them.
    """
    first, second = settings.train, settings.val
    if settings.data is not None:
        parts = _parts(settings)
        first, second = parts.train, parts.val
    assert first is not None  # JobSettings has either `data` or `train`
    train = _open_all(first, settings)
    val = None if second is None else _open_all(second, settings, partial=True)
    if isinstance(train, RecordSource) and val is None and settings.validation:
        raise ConfigError("packed records are not split here", found=first, expected="val records as well (--val)",
                          remedy="split before packing (gluon-ft split), or --validation 0 to train without")
    val = None if val is None else _with_classes_of(train, val)
    if settings.exclude_files is None:
        return train, val
    kept = exclusions.leave_out([part for part in (train, val) if part is not None], settings.exclude_files)
    return kept[0], None if val is None else kept[1]


@dataclass
class Parts:
    """The parts in a folder of photos: which folders are used, and what is said of the others."""

    train: Path
    val: Path | None = None
    lines: list[str] = field(default_factory=list)


def _parts(settings: JobSettings) -> Parts:
    """The folder itself, or the parts in it: validation is `val` and the like, or `test` where there is none."""
    folder = Path(settings.data or "")
    if not folder.is_dir() or settings.classes_are_folders:
        return Parts(folder)
    inside = [name for name in Walker(folder, strict=False).top()[0] if name not in settings.exclude]
    by_part: dict[str | None, list[str]] = {}
    for name in inside:
        by_part.setdefault(folders.part_of(name), []).append(name)
    if not inside or None in by_part:
        return Parts(folder)  # where `scan` refuses parts beside classes
    for part, names in by_part.items():
        if len(names) > 1 and part != "test":
            raise DataError(f"several folders called as a {part} part", path=folder, found=", ".join(names),
                            expected="one", remedy="name those to use with --train and --val, each as often as needed")
    if "train" not in by_part:
        raise DataError("no training part", path=folder, expected="train/ beside val/ or test/",
                        found=", ".join(sorted(inside)))
    found = Parts(folder / by_part["train"][0])
    usable = [name for name in by_part.get("test", []) if _has_labels(folder / name, settings)]
    found.lines += [f"not used: {folder / name}, whose images have no labels" for name in by_part.get("test", [])
                    if name not in usable]
    if "val" in by_part:
        found.val = folder / by_part["val"][0]
        found.lines += [f"not used: {folder / name}, kept for a test of what is trained" for name in usable]
    elif len(usable) > 1:
        raise DataError("several test parts and no validation part", path=folder, found=", ".join(usable),
                        expected="one to validate with", remedy="name it with --train and --val")
    elif usable:
        found.val = folder / usable[0]
    return found


def _has_labels(folder: Path, settings: JobSettings) -> bool:
    return folders.named_by_class(folder) if settings.labels_from == "name" else bool(
        Walker(folder, strict=False).top()[0])


def _open_all(named: Path | str, settings: JobSettings, partial: bool = False) -> Images:
    """The sources that `named` stands for (see `joined.paths_of`) as one; one of several may lack classes."""
    paths = joined.paths_of(named)
    opened = [_open(path, settings, partial or len(paths) > 1) for path in paths]
    joined.check_shards(opened)
    found = _as_one(opened)
    if found.class_names is None and isinstance(found, FileSource):
        found.class_names, found.numbered = numbered_classes(found.labels, found.name), True
    return found


def _as_one(opened: list[Images]) -> Images:
    found = joined.join(opened)
    assert isinstance(found, (FileSource, RecordSource))  # as all that is joined here
    return found


def _open(path: Path, settings: JobSettings, partial: bool = False) -> Images:
    suffix = path.suffix.lower()
    if path.is_dir():
        if settings.root is not None and settings.data is not None:
            raise ConfigError("root is for the paths of a .lst", found=f"the folder {path}")
        return folders.scan_by(path, settings.labels_from, settings.exclude, partial=partial,
                               classes_are_folders=settings.classes_are_folders)
    if settings.exclude:
        raise ConfigError("classes can be excluded from a folder only", found=str(path))
    if lists.is_list(path) and path.is_file():
        return _open_list(path, settings.root)
    if suffix == ".rec" and path.is_file():
        return open_records(path)
    raise DataError("no such file or folder" if not path.exists() else "not a source of images", path=path,
                    expected=f"a folder with {folders.LAYOUT}, a list (.lst, .csv, .tsv, .txt) or a .rec",
                    found=None if not path.exists() else "a file")


def _open_list(path: Path, root) -> FileSource:
    found = from_list(path, root)
    largest = int(found.labels.max())
    if found.class_names is None:
        found.class_names, found.numbered = numbered_classes(found.labels, path), True
    if largest >= len(found.class_names):
        raise DataError("a label that no class has", path=path, found=largest,
                        expected=f"0 to {len(found.class_names) - 1}: {class_names.describe(found.class_names)}")
    return found


def _with_classes_of(train: Images, val: Images) -> Images:
    """`val` with its labels by the training images' class names, of which it may lack some."""
    if val.class_names is None or val.numbered:
        return val if train.class_names is None else val.renumbered(train.class_names)
    if train.class_names is None or train.numbered:
        raise DataError("the validation images have class names, the training images have none", path=val.path,
                        found=class_names.describe(val.class_names),
                        remedy=f"name the classes in {lists.classes_file(train.path.with_suffix(''))}, one a line in "
                               "label order")
    return val.renumbered(train.class_names, "of the training part's")


def prepare(settings: JobSettings, found: tuple[Images, Images | None] | None = None) -> JobData:
    """Audits and splits what the settings name; nothing is written.

    Parameters
    ----------
    settings : JobSettings
    found : tuple, optional
        What `find` returned for these settings, where it was called already.

    Returns
    -------
    JobData

    Raises
    ------
    ConfigError, DataError
        As of `find` and `split.divide`; a class without a training image, unless the settings allow it.
    """
    train, val = found or find(settings)
    examined = examine(train, val, settings.audit)
    train, val = examined.train, examined.val
    _record_excluded(examined, settings)
    names = train.class_names or numbered_classes(train.labels, train.path)
    _check_classes(train, names, settings.allow_empty_classes)
    groups = examined.groups
    if val is not None or not settings.validation:
        parts: dict[str, Images] = {"train": train} if val is None else {"train": train, "validation": val}
    else:
        assert isinstance(train, FileSource)  # `find` refuses to split records
        drawn = divide(train, settings.validation, settings.seed or 0, examined.groups,
                       settings.allow_empty_classes)
        parts = {name: train.take(positions) for name, positions in zip(FILES, drawn)}
        _check_drawn(train, parts["validation"], examined)
        groups = None if groups is None else groups[drawn[0]]
    _check_classes(parts["train"], names, settings.allow_empty_classes)
    for part, images in parts.items():
        checked = open_source(images, class_names=names, partial=part != "train")
        assert isinstance(checked, (FileSource, RecordSource))
        parts[part] = checked
    if settings.data is not None:
        examined.lines += _parts(settings).lines
    if settings.data is None or val is not None:
        examined.lines.insert(0, f"training {train.path}" + (f", validation {val.path}" if val is not None else ""))
    return JobData(parts, names, examined.left_out, examined.lines, examined.facts, groups)


def _record_excluded(examined: Examined, settings: JobSettings) -> None:
    """Images that the settings leave out stand in data.json, and count in result.json, like those of the audit."""
    if settings.exclude_files is None:
        return
    reason = exclusions.why(settings.exclude_files)
    out = [{"part": part, "path": path, "why": reason}
           for part, source in (("train", examined.train), ("validation", examined.val)) if source is not None
           for path, why in source.left_out.items() if why == reason]
    examined.left_out += out
    examined.facts["excluded"] = len(out)


def _check_drawn(train: FileSource, validation: Images, examined: Examined) -> None:
    """Says which classes have no validation image since all of theirs are copies; DataError where none has one."""
    if not len(validation):
        raise DataError("no image can be held out for validation: all are copies of others in their class or in "
                        "another", path=train.path, expected="different pictures", remedy="remove the copies and wrong "
                        "labels (see gluon-ft audit), give --val, or --validation 0",
                        found="; ".join(examined.lines) or f"{len(train)} images")
    names = train.class_names or []
    missing = [name for name, count in zip(names, np.bincount(validation.labels, minlength=len(names))) if not count]
    if missing:
        examined.lines.append(f"no validation image of {', '.join(missing[:8])}{', ...' * (len(missing) > 8)}: all "
                              "images of it are copies of each other or stand in other classes too")


def _check_classes(part: Images, names: list[str], allow_empty: bool) -> None:
    if isinstance(part, RecordSource) or allow_empty:
        return
    counts = np.bincount(part.labels, minlength=len(names))
    empty = [name for name, count in zip(names, counts) if not count]
    if empty:
        raise DataError(f"{len(empty)} of {len(names)} classes have no training image", path=part.path,
                        expected="at least one each", found=f"none of '{empty[0]}'", remedy=_without_empty(part, empty))


def _without_empty(part: FileSource, empty: list[str]) -> str:
    if part.kind == "folder":
        return "add images, or leave the class out (--exclude)"
    if empty == ["0"]:
        return "number the classes from 0 on, as these labels begin at 1; or --allow-empty-classes"
    return "add images, take the class out of the list's .classes.txt, or --allow-empty-classes"


def first_of(named: AnyPath) -> Path:
    """The first of the paths that are named; a folder of records is itself."""
    return Path(named) if Path(named).is_dir() else joined.paths_of(named)[0]


def resolved(named: AnyPath) -> str:
    """The absolute path of what is named; of several each, with ';' between them."""
    paths = joined.paths_of(named)
    several = len(paths) > 1 and not Path(named).is_dir()
    return joined.SEPARATOR.join(str(path.resolve()) for path in (paths if several else [Path(named)]))


def check_outside(folder: AnyPath, settings: JobSettings) -> None:
    """ConfigError where a run's folder would be inside of the photos, which are never changed."""
    inside = Path(folder).resolve()
    named = [source for source in (settings.data, settings.train, settings.val) if source]
    for source in (path for text in named for path in joined.paths_of(text)):
        root = source.resolve()
        if root.is_dir() and (inside == root or root in inside.parents):
            raise ConfigError("the run's folder would be inside of the photos, and be taken for a class",
                              found=str(folder), expected=f"a place outside of {source}",
                              remedy="name another with --run or --runs")


def write(data: JobData, folder: AnyPath, weights: dict | None = None) -> JobData:
    """Writes the lists of a job's images and data.json into a run's folder, the latter last.

    Parameters
    ----------
    data : JobData
    folder : path-like
        Of the run. Packed records get no list.
    weights : dict, optional
        Source and SHA-256 of the pretrained weights, see `network.weights_of`; None without.

    Returns
    -------
    JobData
        The same images, as read from those lists.

    Raises
    ------
    DataError
        An image cannot be read, or a list cannot be written.
    """
    folder, parts = Path(folder), {}
    for name, part in data.parts.items():
        if isinstance(part, FileSource):
            path = _list_of(folder, name)
            lists.write(path, [lists.Entry(i, (label,), file) for i, (file, label) in enumerate(part.files)],
                        force=True)
            part = _listed(path, part.root.resolve(), part.files, data.class_names)
        parts[name] = part
    atomic.write(lists.classes_file(folder / PREFIX), lists.classes_to_bytes(data.class_names))
    data_record.write(folder, data_record.describe(parts, data.class_names, data.left_out, weights))
    return JobData(parts, data.class_names, data.left_out, data.lines, data.facts, data.groups)


def reopen(folder: AnyPath) -> JobData | None:
    """The data of a run that was begun in `folder`; None where it had not come so far.

    Raises DataError where an image was changed, removed or added to the lists since, saying which.
    """
    known = data_record.read(folder)
    if known is None:
        return None
    parts = {name: _as_one([open_records(path) for path in joined.paths_of(part["source"])])
             if part["files"] is None else
             _listed(_list_of(folder, name), part["root"], [row[:2] for row in part["files"]], known["classes"])
             for name, part in known["parts"].items()}
    now = data_record.describe(parts, known["classes"], known["left_out"], known.get("weights"))
    differs = data_record.difference(known, now)
    if differs:
        raise DataError("the images have changed since this run began", path=folder, found="; ".join(differs),
                        expected="those of data.json", remedy="put them back, or start another run")
    return JobData(parts, known["classes"], known["left_out"])


def _list_of(folder, part: str) -> Path:
    return lists.list_file(Path(folder) / PREFIX, FILES[part])


def _listed(path: Path, root, files, names: list[str]) -> FileSource:
    """What the list at `path` holds: (path below the root, label) of each image."""
    return FileSource(path, root, [name for name, _ in files], [label for _, label in files], names, kind="list")


def typical_size(part: ImageSource) -> int | None:
    """The median of the shorter edges of some of the images, pixels; None where it is not known."""
    if isinstance(part, RecordSource):
        about = record_file.beside(part.path, record_file.MANIFEST)
        sizes = manifest.read(about).data.get("sizes", {}) if about.is_file() else {}
        found = [sizes[edge]["median"] for edge in ("width", "height") if sizes.get(edge, {}).get("median")]
        return int(min(found)) if found else None
    edges = []
    for position in range(0, len(part), max(1, len(part) // PROBED)):
        try:
            info = header.probe(part.read(position))
        except header.Unreadable:
            continue
        edges.append(min(info.width, info.height))
    return int(np.median(edges)) if edges else None
