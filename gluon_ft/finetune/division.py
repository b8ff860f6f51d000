"""The seeded, stratified split of a job: as `gluon-ft split` draws it, but copies of one picture stay on one side."""
from __future__ import annotations

from collections import defaultdict
from fractions import Fraction

from gluon_ft.data.split import draw_key, share
from gluon_ft.errors import DataError


def divide(source, validation: float, seed: int, groups: list[set[str]] = ()) -> tuple[list, list]:
    """(training, validation) lists of (path, label), the latter with `validation` of each class.

    Without `groups` the images are those of `split(folder, fraction=1 - validation, seed=seed)`. An image's group goes
    to one side whole, and to training where it has images of several classes. At least one image of each class is in
    either part, unless all its images are one group: then it is in training only.

    source : sources.Source; groups : paths that are copies of each other, disjoint.
    Raises DataError where a class has one image only.
    """
    member_of = {path: number for number, group in enumerate(groups) for path in group}
    labels = defaultdict(set)
    for path, label in source.files:
        labels[member_of.get(path)].add(label)
    held_out: set[str] = set()
    short = []
    for label, name in enumerate(source.classes):
        paths = source.of_class(label)
        if len(paths) < 2:
            short.append(f"'{name}' has {len(paths)}")
            continue
        order = sorted(paths, key=lambda path, name=name: (draw_key(seed, name, path.partition("/")[2]), path))
        units = [unit for unit in _units(order, member_of) if _one_class(unit, member_of, labels)]
        training = min(max(share(1 - Fraction(str(validation)), len(paths)), 1), len(paths) - 1)
        held_out |= _drawn(units, len(paths) - training, len(paths))
    if short:
        raise DataError(f"{len(short)} of {len(source.classes)} classes with too few images", path=source.path,
                        expected="2 or more, one to train on and one to validate with", found=", ".join(short[:6]),
                        remedy="add images, leave the class out (--exclude), or --validation 0")
    train = [(path, label) for path, label in source.files if path not in held_out]
    train.sort(key=lambda file: (draw_key(seed, "order of training", file[0]), file[0]))
    return train, [(path, label) for path, label in source.files if path in held_out]


def _units(order, member_of):
    """Single images and groups, in the order of their first image."""
    units: dict = {}
    for path in order:
        units.setdefault(member_of.get(path, path), []).append(path)
    return list(units.values())


def _one_class(unit, member_of, labels):
    group = member_of.get(unit[0])
    return group is None or len(labels[group]) == 1


def _drawn(units, wanted, count):
    """Images of the last units, `wanted` of the `count` at most; the smallest unit where none fits."""
    chosen: list[str] = []
    for unit in reversed(units):
        if len(chosen) + len(unit) <= wanted:
            chosen += unit
    if not chosen and units:
        smallest = min(units, key=len)
        chosen = smallest if len(smallest) < count else []
    return set(chosen)
