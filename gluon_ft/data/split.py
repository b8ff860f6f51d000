"""Seeded, stratified splits: of a folder into lists (`split`), and with copies kept on one side (`divide`)."""
from __future__ import annotations

import hashlib
import math
import operator
import os
import re
import shlex
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np

from gluon_ft.data import lists
from gluon_ft.data.lists import Entry, sort_key
from gluon_ft.data.sources.files import FileSource
from gluon_ft.data.sources.folders import scan
from gluon_ft.errors import ConfigError, DataError
from gluon_ft.io import atomic
from gluon_ft.io.paths import AnyPath

SMALLEST = 2  # images per class: one to train on and one to validate with


@dataclass(frozen=True)
class Split:
    """The parts into which a folder was split.

    Attributes
    ----------
    root : Path
        The folder that the paths in the lists are relative to.
    classes : list of str
        Class names in label order.
    parts : dict of str to list of Entry
        'train' and 'val', or 'fold0-train', 'fold0-val', 'fold1-train', ...; and 'test' if it was asked for. An image
        has the same index in every part: its position in the sorted folder. Training parts are shuffled by the seed,
        because records are read sequentially; the others are sorted.
    seed : int
    options : dict
        The options of the split.
    """

    root: Path
    classes: list[str]
    parts: dict[str, list[Entry]]
    seed: int = 0
    options: dict = field(default_factory=dict)

    def counts(self) -> list[dict]:
        """A row for each class: `class`, then the number of images in each part."""
        totals = {part: [0] * len(self.classes) for part in self.parts}
        for part, entries in self.parts.items():
            for entry in entries:
                totals[part][entry.label] += 1
        return [{"class": name, **{part: totals[part][label] for part in self.parts}}
                for label, name in enumerate(self.classes)]


def draw_key(seed: int, *names: str | bytes) -> bytes:
    """Sort key for a seeded order: the SHA-256 (32 bytes) of the seed and of what identifies the item.

    It replaces shuffling by a random generator for two reasons: the order is the same on every machine and with every
    version of Python and NumPy; and adding or removing an image does not change the order of the others. Text is hashed
    in Unicode form NFC, so that macOS and Linux agree on accents.
    """
    digest = hashlib.sha256(b"%d" % seed)
    for name in names:
        data = unicodedata.normalize("NFC", name).encode("utf-8") if isinstance(name, str) else name
        # The length keeps ('a', 'bc') and ('ab', 'c') apart.
        digest.update(b"%d:" % len(data) + data)
    return digest.digest()


def share(fraction: float | Fraction, count: int) -> int:
    """`fraction` (0..1) of `count`, rounded half up; exact in decimal, so that 0.15 of 10 is 2."""
    return math.floor(Fraction(str(fraction)) * count + Fraction(1, 2))


def _seeded_order(seed: int, class_name: str, paths: Iterable[str]) -> list[str]:
    """The images of a class in the order in which they are drawn; the paths begin with the class folder."""
    return sorted(paths, key=lambda path: (draw_key(seed, class_name, path.partition("/")[2]), path))


def _training_key(seed: int, path: str) -> tuple[bytes, str]:
    """Sort key for the images of a training part."""
    return draw_key(seed, "order of training", path), path


def split(folder: AnyPath | FileSource, *, per_class: int | None = None, fraction: float | None = None,
          folds: int | None = None, test: int | float | None = None, cap: int | None = None,
          exclude: Iterable[str] = (), seed: int = 0, allow_short: bool = False) -> Split:
    """Draws training, validation and test images, class by class.

    The images of each class are put in a seeded order (see `draw_key`), and the first `cap` of them are used. Of these
    the first go to the test part, the next to training, the rest to validation. So with the same seed, the training
    part for a smaller `per_class` is contained in that for a larger one.

    Exactly one of `per_class`, `fraction` and `folds` must be given.

    Parameters
    ----------
    folder : path-like or FileSource
        A folder with one subfolder of images for each class, or the result of `folders.scan`.
    per_class : int, optional
        Number of training images per class; the rest is for validation.
    fraction : float, optional
        Share of each class for training, between 0 and 1.
    folds : int, optional
        Number of stratified folds, 2 or more.
    test : int or float, optional
        Number (int) or share (float) of images per class for a test part, which is in none of the folds.
    cap : int, optional
        Most images per class to use.
    exclude : iterable of str
        Classes to leave out.
    seed : int, default 0
        Any whole number.
    allow_short : bool, default False
        Accept classes with too few images. Of these at least one image goes to training and one to validation; up to
        `test` of the others go to the test part.

    Raises
    ------
    ConfigError
        An option is out of its range, or not exactly one of `per_class`, `fraction` and `folds` is given.
    DataError
        See `scan`; or classes have too few images. The error lists their counts. Two images are always needed.
    """
    options = _checked({"per_class": per_class, "fraction": fraction, "folds": folds, "test": test, "cap": cap})
    seed = _whole("seed", seed, None)
    exclude = [exclude] if isinstance(exclude, str) else sorted(exclude)
    found = _folder(folder, exclude)
    classes = list(found.class_names or ())
    by_class: list[list[str]] = [[] for _ in classes]
    for path, label in found.files:
        by_class[label].append(path)
    _check_enough(found.root, dict(zip(classes, map(len, by_class))), options, allow_short)
    names = [f"fold{i}-{part}" for i in range(folds) for part in ("train", "val")] if folds else ["train", "val"]
    chosen: dict[str, set[str]] = {name: set() for name in [*names, *(["test"] if test is not None else [])]}
    for name, paths in zip(classes, by_class):
        order = _seeded_order(seed, name, paths)
        for part, drawn in _draw(order[:cap], draw_key(seed, name), options).items():
            chosen[part].update(drawn)
    parts = {part: [Entry(i, (label,), path) for i, (path, label) in enumerate(found.files) if path in drawn]
             for part, drawn in chosen.items()}
    for part in parts:
        if part.endswith("train"):
            parts[part].sort(key=lambda entry: _training_key(seed, entry.path))
    return Split(found.root, classes, parts, seed,
                 {**options, "exclude": exclude, "allow_short": allow_short})


def _draw(order: list[str], class_key: bytes, options: dict) -> dict[str, list[str]]:
    """Assigns the images of a class to the parts; `order` is in seeded order and already capped."""
    tested, training = _sizes(len(order), options)
    parts = {} if options["test"] is None else {"test": order[:tested]}
    rest, folds = order[tested:], options["folds"]
    if not folds:
        return {**parts, "train": rest[:training], "val": rest[training:]}
    # Each class starts with another fold; otherwise the first fold would get the surplus image of every class.
    first = int.from_bytes(class_key, "big") % folds
    for i in range(folds):
        mine = {path for j, path in enumerate(rest) if (first + j) % folds == i}
        parts[f"fold{i}-train"] = [path for path in rest if path not in mine]
        parts[f"fold{i}-val"] = [path for path in rest if path in mine]
    return parts


def _sizes(count: int, options: dict) -> tuple[int, int]:
    """How many of `count` images go to (test, training); at least one is kept for training and one for validation."""
    tested = min(_test_size(count, options["test"]), max(0, count - SMALLEST))
    rest = count - tested
    wanted = options["per_class"] if options["per_class"] else share(options["fraction"] or 0, rest)
    return tested, min(max(wanted, 1), rest - 1)


def _test_size(count: int, test: int | float | None) -> int:
    return share(test, count) if isinstance(test, float) else test or 0


def _check_enough(root: Path, counts: dict[str, int], options: dict, allow_short: bool) -> None:
    needed = SMALLEST if allow_short else _needed(options)
    short = [(name, n) for name, n in counts.items() if min(n, options["cap"] or n) < needed]
    if not short:
        return
    shown = ", ".join(f"'{name}' has {count}" for name, count in short[:6])
    more = f" and {len(short) - 6} more classes" if len(short) > 6 else ""
    raise DataError(f"{len(short)} of {len(counts)} classes with too few images", path=root,
                    expected=f"at least {needed} a class ({_reason(options, allow_short)})", found=shown + more,
                    remedy=f"add images or {_left_out(short)}" if allow_short else
                    f"ask for fewer, {_left_out(short)}, or take what there is (--allow-short)")


def _left_out(short: list[tuple[str, int]]) -> str:
    """How to leave classes out, as it is typed where there are few of them."""
    if len(short) > 3:
        return "leave the class out (--exclude)"
    return f"leave the class out ({' '.join(f'--exclude {shlex.quote(name)}' for name, _ in short)})"


def _needed(options: dict) -> int:
    """The fewest images of a class that give each part what was asked for, and at least one image."""
    half, test = Fraction(1, 2), options["test"]
    if options["folds"]:
        rest = options["folds"]
    elif options["per_class"]:
        rest = options["per_class"] + 1
    else:
        # share(f, n) is 1 or more from n = 1/2 / f on, and n - share(f, n) above n = 1/2 / (1 - f).
        training = Fraction(str(options["fraction"]))
        rest = max(math.ceil(half / training), math.floor(half / (1 - training)) + 1, SMALLEST)
    if not isinstance(test, float):
        return rest + (test or 0)
    tested = Fraction(str(test))
    return max(math.ceil(half / tested), math.floor((rest - half) / (1 - tested)) + 1)


def _reason(options: dict, allow_short: bool) -> str:
    if allow_short:
        return "one for training, one for validation"
    parts = [f"{options['test']} for test"] if options["test"] is not None else []
    if options["folds"]:
        parts.append(f"one for each of {options['folds']} folds")
    elif options["per_class"]:
        parts.append(f"{options['per_class']} for training, one or more for validation")
    else:
        parts.append(f"{options['fraction']} for training, at least one image in each part")
    return ", ".join(parts)


def _checked(options: dict) -> dict:
    ways = [name for name in ("per_class", "fraction", "folds") if options[name] is not None]
    if len(ways) != 1:
        raise ConfigError("how to split is not clear", expected="one of per_class, fraction and folds",
                          found=" and ".join(ways) or "none", remedy="for example --per-class 60 or --fraction 0.75")
    checked = dict.fromkeys(options)
    for name, least in (("per_class", 1), ("folds", 2), ("cap", SMALLEST)):
        if options[name] is not None:
            checked[name] = _whole(name, options[name], least)
    if options["fraction"] is not None:
        checked["fraction"] = _fraction("fraction", options["fraction"])
    if options["test"] is not None:
        is_share = isinstance(options["test"], float)
        checked["test"] = _fraction("test", options["test"]) if is_share else _whole("test", options["test"], 1)
    if checked["cap"] is not None and checked["cap"] < _needed(checked):
        raise ConfigError("cap leaves too few images", found=checked["cap"],
                          expected=f"{_needed(checked)} or more ({_reason(checked, False)})")
    return checked


def _whole(name: str, value, least: int | None) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or (least is not None and number < least):
        raise ConfigError(f"{name} is out of its range", found=repr(value),
                          expected="a whole number" + ("" if least is None else f", {least} or more"))
    return number


def _fraction(name: str, value) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1:
        raise ConfigError(f"{name} is out of its range", expected="a number between 0 and 1", found=repr(value))
    return float(value)


def _folder(folder, exclude) -> FileSource:
    if not isinstance(folder, FileSource):
        return scan(folder, exclude)
    # It may have been scanned without these exclusions.
    return scan(folder.root, exclude) if exclude else folder


def divide(source: FileSource, validation: float, seed: int, groups: np.ndarray | None = None,
           allow_empty: bool = False) -> tuple[list[int], list[int]]:
    """Draws validation images class by class, as `split` does, but never puts copies of an image into both parts.

    Without groups, the result is that of `split(folder, fraction=1 - validation, seed=seed)`. A group of copies goes to
    one part as a whole; to training, if its images have different classes. Each class has an image in both parts,
    unless all its images are in one group: then all are for training.

    Parameters
    ----------
    source : FileSource
    validation : float
        Share of each class for validation, between 0 and 1.
    seed : int
        Any whole number.
    groups : int (n,), optional
        The group of each image. Images of a group are copies of each other, see `linked`.
    allow_empty : bool, default False
        Accept classes without images.

    Returns
    -------
    (list of int, list of int)
        Positions of training images, shuffled by the seed, and of validation images, in the source's order.

    Raises
    ------
    DataError
        A class has fewer than two images.
    """
    classes, labels = list(source.class_names or ()), source.labels.tolist()
    group_of = dict(zip(source.names, range(len(source)) if groups is None else np.asarray(groups).tolist()))
    labels_of = defaultdict(set)
    for path, label in zip(source.names, labels):
        labels_of[group_of[path]].add(label)
    held_out: set[str] = set()
    short: list[tuple[str, int]] = []
    for label, name in enumerate(classes):
        paths = source.of_class(label)
        if allow_empty and not paths:
            continue
        if len(paths) < SMALLEST:
            short.append((name, len(paths)))
            continue
        # Groups and single images, ordered by their first image.
        units: dict[int, list[str]] = {}
        for path in _seeded_order(seed, name, paths):
            units.setdefault(group_of[path], []).append(path)
        training = min(max(share(1 - Fraction(str(validation)), len(paths)), 1), len(paths) - 1)
        held_out |= _validation_images([unit for group, unit in units.items() if len(labels_of[group]) == 1],
                                len(paths) - training, len(paths))
    if short:
        less = _left_out(short) if source.kind == "folder" else "take the class out of the list"
        raise DataError(f"{len(short)} of {len(classes)} classes with too few images", path=source.path,
                        expected="2 or more, one to train on and one to validate with",
                        found=", ".join(f"'{name}' has {count}" for name, count in short[:6]),
                        remedy=f"add images, {less}, or --validation 0")
    train = [i for i, path in enumerate(source.names) if path not in held_out]
    train.sort(key=lambda i: _training_key(seed, source.names[i]))
    return train, [i for i, path in enumerate(source.names) if path in held_out]


def _validation_images(units: list[list[str]], wanted: int, count: int) -> set[str]:
    """Takes units from the end while at most `wanted` images are chosen; the smallest unit if none fits.

    Returns no images if the smallest unit has all `count` images of the class.
    """
    chosen: list[str] = []
    for unit in reversed(units):
        if len(chosen) + len(unit) <= wanted:
            chosen += unit
    if not chosen and units:
        smallest = min(units, key=len)
        chosen = smallest if len(smallest) < count else []
    return set(chosen)


def linked(count: int, pairs: Iterable[tuple[int, int]]) -> np.ndarray:
    """Groups positions that are linked by pairs, directly or through others.

    Returns
    -------
    ndarray
        int64 (count,): the smallest position in the group of each position; its own if it is in no pair.
    """
    head = list(range(count))

    def find(i: int) -> int:
        while head[i] != i:
            head[i] = head[head[i]]
            i = head[i]
        return i

    for pair in pairs:
        first, second = sorted(map(find, pair))
        head[second] = first
    return np.array([find(i) for i in range(count)], dtype=np.int64)


def own_parts(folder: AnyPath, train: str = "train", test: str = "test", cap: int | None = None,
              seed: int = 0) -> Split:
    """Lists 'train' and 'test' for data that is already split into two folders, sorted by class and name.

    The classes of the training part give the labels of both; the test part may lack some of them.

    Parameters
    ----------
    folder : path-like
        The folder with the two parts, each with one subfolder of images for each class.
    train, test : str, default 'train' and 'test'
        The names of the two folders.
    cap : int, optional
        Most images per class in each part, drawn by `seed`; default all.
    seed : int, default 0
        Any whole number.

    Raises
    ------
    DataError
        A part is missing or is not a folder of classes, or `test` has a class that `train` has not.
    """
    folder = Path(folder)
    classes = (whole := scan(folder / train)).class_names or []
    found = {train: whole, test: scan(folder / test, partial=True).renumbered(classes, f"of those in {train}")}
    parts: dict[str, list[Entry]] = {}
    for part, name in (("train", train), ("test", test)):
        files = found[name].files
        if cap is not None:
            files = sorted((file for label in range(len(classes))
                            for file in sorted((f for f in files if f[1] == label),
                                               key=lambda f: draw_key(seed, name, f[0]))[:cap]),
                           key=lambda file: (file[1], sort_key(file[0])))
        before = sum(map(len, parts.values()))
        parts[part] = [Entry(before + i, (float(label),), f"{name}/{path}")
                       for i, (path, label) in enumerate(files)]
    return Split(folder, classes, parts, seed, {"cap": cap})


def write(split: Split, prefix: AnyPath, *, force: bool = False) -> list[Path]:
    """Writes `<prefix>-<part>.lst` for each part, and `<prefix>.classes.txt`: all files or none. Returns their paths.

    Parameters
    ----------
    split : Split
    prefix : path-like
        In an existing folder outside the source folder.
    force : bool, default False
        Replace the lists of an earlier split with this prefix. Its lists that the new split lacks (more folds, a test
        part) are removed, because they do not belong to the new ones.

    Raises
    ------
    DataError
        The prefix is inside the source folder, its folder does not exist, a path cannot be written in a list, or lists
        with this prefix exist and `force` is false.
    ConfigError
        The prefix has no name.
    """
    prefix = Path(prefix)
    root, folder = os.path.realpath(split.root), os.path.realpath(prefix.parent)
    if prefix.name in ("", ".."):
        raise ConfigError("prefix has no name", found=f"'{prefix}'", expected="such as lists/photos")
    if Path(root) in (Path(folder), *Path(folder).parents):
        raise DataError("inside the source folder, which is never changed", path=prefix,
                        expected=f"a place outside {split.root}", remedy="choose another prefix")
    files = {lists.list_file(prefix, part): lists.to_bytes(entries, lists.list_file(prefix, part))
             for part, entries in split.parts.items()}
    files[lists.classes_file(prefix)] = lists.classes_to_bytes(split.classes, lists.classes_file(prefix))
    atomic.write_together(files, force=force, obsolete=[p for p in _existing_lists(prefix) if p not in files])
    return list(files)


def _existing_lists(prefix: Path) -> list[Path]:
    own = re.compile(re.escape(prefix.name) + r"-(fold[0-9]+-)?(train|val|test)\.lst")
    found = prefix.parent.glob("*.lst") if prefix.parent.is_dir() else []
    return sorted(path for path in found if own.fullmatch(path.name))
