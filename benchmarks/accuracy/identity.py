"""Whether a finished run is what it is taken for: its settings, data and split, and no image in both of its parts."""
from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path

from benchmarks.accuracy.targets import Data, Target
from gluon_ft import TrainConfig
from gluon_ft.data import lists, split
from gluon_ft.data.audit import checks
from gluon_ft.data.datasets import digits
from gluon_ft.data.records import manifest
from gluon_ft.data.sources import folders
from gluon_ft.errors import UserError

# Settings that say where something is or how many seeds were run; what they lead to is checked by itself.
_PLACES = {"data", "seed", "seeds", "device", "devices", "runs", "quick"}


class Refused(Exception):
    """The run is not one of this target, or cannot count; the message says why."""


def check(target: Target, run: Path) -> None:
    """Refused where the run's settings, data or split are others than the target's, or its parts share an image."""
    config = _json(run / "config.json")
    _settings(target, config)
    try:
        {"packed": _packed, "folders": _folders, "folder": _folder, "digits": _digits}[target.data.kind](
            target, run, config)
    except UserError as error:
        raise Refused(str(error)) from error


def _json(path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Refused(f"{path} cannot be read: {error}") from error


def _settings(target, config):
    for key, wanted in target.config.items():
        if key not in config:
            raise Refused(f"config.json has no '{key}', so it is not a run of {target.script}")
        if isinstance(wanted, dict):
            _same_training(key, wanted, config[key])
        elif config[key] != wanted:
            raise Refused(f"other settings: {key} is {config[key]!r}, the target's {wanted!r}")
    if config.get("quick"):
        raise Refused("other settings: it was a trial (--quick)")
    for name in ("frozen", "checkpoint", "layer", "takes", "size", "cross_validate", "lr_sweep"):
        if name not in target.config and config.get(name):
            raise Refused(f"other settings: {name} is {config[name]!r}, which the target does not set")


def _same_training(key, wanted, found):
    """A TrainConfig: what the target does not name must have its default."""
    defaults = TrainConfig().to_dict()
    if not isinstance(found, dict):
        raise Refused(f"config.json's '{key}' is no table of settings")
    for name, value in found.items():
        expected = wanted.get(name, defaults.get(name, value))
        if name not in _PLACES and value != expected:
            raise Refused(f"other settings: {key}.{name} is {value!r}, the target's {expected!r}")
    for name in wanted:
        if name not in found:
            raise Refused(f"config.json has no '{key}.{name}'")


def fingerprint(pairs) -> str:
    """SHA-256 of what is in a set of images, whatever their order and file names.

    pairs : (class name, `manifest.short_hash` of the file's bytes, or of a digit's pixels) of each image.
    """
    lines = sorted(f"{name}\0{content.hex()}" for name, content in pairs)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def folder_pairs(root, exclude=()) -> list[tuple[str, bytes]]:
    """What `fingerprint` takes, of a folder of classes."""
    found = folders.scan(root, exclude)
    return [(found.class_names[label], manifest.short_hash((Path(root) / path).read_bytes()))
            for path, label in found.files]


def _compare(data: Data, pairs, where):
    classes, images = len({name for name, _ in pairs}), len(pairs)
    if (classes, images) != (data.classes, data.images):
        raise Refused(f"other data: {where} has {images} images of {classes} classes, {data.name} has {data.images} of "
                      f"{data.classes}")
    if data.sha256 is not None and fingerprint(pairs) != data.sha256:
        raise Refused(f"other data: the images of {where} are not those of {data.name}")


def _no_copies(parts: dict):
    """parts : name -> content hashes."""
    (first, one), (second, other) = parts.items()
    shared = set(one) & set(other)
    if shared:
        count = sum(content in shared for content in other)
        raise Refused(f"leak: {count} images of {second} are also in {first}")


def _audited(sources, images):
    """The same by the audit, which looks at what was really stored; copies only, since the split is the target's."""
    # A few hundred images are read before a second process has started.
    report = checks.audit(sources, near=None, workers=1 if images < 1000 else None)
    if report.leaked:
        raise Refused(f"leak: {sum(report.leaked_images.values())} images are in both {sources[0]} and {sources[1]}")


def _folder(target, run, config):
    _compare(target.data, folder_pairs(_place(config)), _place(config))


def _folders(target, run, config):
    """The data's own two parts; where the run kept lists of them, these must name all of their images."""
    root = _place(config)
    parts = {part: folder_pairs(root / part) for part in ("train", "test")}
    for part in parts:
        listed = run / f"images-{part}.lst"
        if listed.is_file():
            used = {entry.path for entry in lists.read(listed)}
            there = {f"{part}/{path}" for path, _ in folders.scan(root / part).files}
            if used != there:
                raise Refused(f"other split: {listed} differs from the data's own in {len(used ^ there)} images")
    _compare(target.data, [(f"{part}/{name}", content) for part, pairs in parts.items() for name, content in pairs],
             root)
    _no_copies({part: [content for _, content in pairs] for part, pairs in parts.items()})
    _audited([root / "train", root / "test"], target.data.images)


def _place(config) -> Path:
    place = Path(str(config.get("data")))
    if not place.is_dir():
        raise Refused(f"its data {place} is not here any more, so it cannot be checked")
    return place


def _digits(target, run, config):
    found = digits.load(None if target.data.bundled else _place(config))
    if target.data.bundled and config.get("data") != "scikit-learn":
        raise Refused(f"other data: {config.get('data')}, the target's are scikit-learn's digits")
    _compare(target.data, digit_pairs(found), found.name)
    for seed in seeds_of(run):
        parts = digits.odd_even(found, config["max_per_class"], config["validation"], seed)
        train, held, source = ([content for _, content in digit_pairs(part)] for part in (
            parts.train, parts.validation, parts.source_train))
        _no_copies({"the training images": train, "the validation images": held})
        _no_copies({"the source network's images": source, "the validation images": held})


def digit_pairs(part) -> list[tuple[str, bytes]]:
    """What `fingerprint` takes, of digits."""
    return [(part.classes[label], manifest.short_hash(image.tobytes())) for image, label in zip(
        part.images, part.labels)]


def seeds_of(run: Path) -> list[int]:
    """The seeds of a run's rows, in order."""
    return sorted({row["seed"] for row in _json(run / "result.json").get("rows", [])})


def _packed(target, run, config):
    """Records that the recipe packed: manifests, lists, and the records themselves."""
    for seed in seeds_of(run):
        folder = run / f"data-{seed}"
        contents, entries = {}, {}
        classes = lists.read_classes(folder / "images.classes.txt")
        for part in ("train", "val"):
            rec = folder / f"images-{part}.rec"
            about = manifest.read(rec.with_suffix(".manifest.json"))
            size = manifest.HASH_BYTES
            contents[part] = [about.source_hashes[i:i + size] for i in range(0, len(about.source_hashes), size)]
            entries[part] = list(lists.read(folder / f"images-{part}.lst"))
            if about.classes != classes or len(entries[part]) != about.records:
                raise Refused(f"{rec} does not go with its list")
            if rec.is_file() and hashlib.sha256(rec.read_bytes()).hexdigest() != about.rec_sha256:
                raise Refused(f"{rec} is not as its manifest says")
        _no_copies(contents)
        _compare(target.data, [(classes[int(entry.label)], content) for part in entries
                               for entry, content in zip(entries[part], contents[part])], folder)
        _same_split(entries, classes, config, seed, folder)
        recs = [folder / f"images-{part}.rec" for part in ("train", "val")]
        if all(rec.is_file() for rec in recs):
            _audited(recs, target.data.images)


def _same_split(entries, classes, config, seed, folder):
    """Draws the split again from the names alone, which is all that it depends on."""
    paths = {part: {entry.path for entry in found} for part, found in entries.items()}
    with tempfile.TemporaryDirectory() as temporary:
        for path in set.union(*paths.values()):
            place = Path(temporary, path)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
        drawn = split.split(temporary, per_class=config["per_class"], seed=seed)
    again = {part: {entry.path for entry in found} for part, found in drawn.parts.items()}
    if drawn.classes != classes or again != paths:
        wrong = len(again["train"] ^ paths["train"]) // 2
        raise Refused(f"other split: {wrong} training images of {folder} are not those that seed {seed} draws")
