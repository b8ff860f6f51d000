"""Audits a data set: copies within it and across its parts, contradictory labels, unreadable and odd files.

Worker processes decode the images, JPEG at reduced scale; of each one a thumbnail and some hashes are kept, about 2 KB.
Pairs that may be equal pixel by pixel are decoded once more, in full.
"""
from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from gluon_ft.data.audit.items import Item, Source, open_source
from gluon_ft.data.audit.report import Finding, Pair, Report
from gluon_ft.data.images import decode, formats, header, near_duplicates
from gluon_ft.data.records import pool
from gluon_ft.data.records.manifest import short_hash
from gluon_ft.data.sources import walk
from gluon_ft.data.sources.base import ImageSource
from gluon_ft.data.sources.class_names import normal
from gluon_ft.errors import ConfigError, DataError
from gluon_ft.io import reporter
from gluon_ft.io.paths import AnyPath
from gluon_ft.runtime.processors import usable_processors

TINY = near_duplicates.SIDE  # pixels; an image with a shorter edge has too little detail for near duplicates
CONSTANT = 2  # levels of 255 by which the pixels of a 'constant' image may differ, in each colour
MOST_NEAR = 64  # bits, the largest distance allowed; two unrelated hashes differ in about so many
_MAYBE_EQUAL = 8  # bits, the hash distance up to which two images of the same size are compared pixel by pixel
_CHUNK = 8
FEW_IMAGES = 200  # up to so many, one process is as fast as several, which first have to start


class Facts(NamedTuple):
    """What is known about one image. Where it could not be read, `error` says why, and the rest is empty."""

    error: str | None
    digest: bytes = b""  # of the file's bytes
    size: tuple[int, int] = (0, 0)  # width, height, upright
    format: str = ""
    thumbnail: np.ndarray | None = None
    turns: np.ndarray | None = None  # hashes in the eight orientations; None for a flat or tiny image
    pixels: bytes | None = None  # hash of the pixels, only where `turns` is None
    constant: bool = False


def audit(sources: Iterable, *, workers: int | None = None, near: int | None = near_duplicates.NEAR,
          root: AnyPath | None = None) -> Report:
    """Examines one data set (one source) or its parts (training, validation, ...), each on its own and together.

    Parameters
    ----------
    sources : paths or ImageSource
        Each a folder with one subfolder a class, a list, or a `.rec`; the training part first.
    workers : int, optional
        Decoding processes; default one per usable processor, and a single one for up to `FEW_IMAGES` images. The
        result does not depend on it.
    near : int or None, default 28
        Largest Hamming distance, in bits of 128, at which two images are compared more closely; None looks for exact
        copies only. Mirrored and rotated copies, and crops of a few per cent, are found too. For images below 32 pixels
        and images without texture, only exact copies are found.
    root : path, optional
        Folder that the paths in lists are relative to; default each list's own folder.

    Returns
    -------
    Report
        `report.leaked` is true where two sources share an image.

    Raises
    ------
    DataError
        A source does not exist, is damaged, or is given twice; no image can be read.
    ConfigError
        `near` or `workers` out of range.
    """
    opened = _open_all(list(sources), workers, near, root)
    workers = workers or (usable_processors() if sum(len(s.items) for s in opened) > FEW_IMAGES else 1)
    items = [item for source in opened for item in source.items]
    facts = _examine_all(items, workers)
    good = [i for i, fact in enumerate(facts) if fact.error is None]
    if not good:
        raise DataError("no image can be read", path=opened[0].path, found=f"{items[0].name}: {facts[0].error}")
    report = Report([source.path for source in opened], [source.kind for source in opened],
                    [_class_counts(source) for source in opened], near)
    _single_findings(report, opened, items, facts)
    _class_findings(report, opened)
    _pair_findings(report, opened, items, facts, good, workers)
    return report


def _open_all(sources, workers, near, root) -> list[Source]:
    if workers is not None and not (isinstance(workers, int) and 1 <= workers <= 256):
        raise ConfigError("bad number of workers", expected="1 to 256", found=workers)
    if near is not None and not (isinstance(near, int) and 0 <= near <= MOST_NEAR):
        raise ConfigError("bad distance of near duplicates", expected=f"0 to {MOST_NEAR} bits (--near)", found=near)
    if not sources:
        raise ConfigError("nothing to audit", expected="one source or more: a folder, a .lst or a .rec")
    names = [source.name if isinstance(source, ImageSource) else source for source in sources]
    real = [os.path.realpath(name) for name in names]
    for i, path in enumerate(real):
        if path in real[:i]:
            raise DataError("source given twice", path=names[i], remedy="give each part once")
    return [open_source(i, source, root) for i, source in enumerate(sources)]


def _examine_all(items, workers) -> list[Facts]:
    chunks = [items[i:i + _CHUNK] for i in range(0, len(items), _CHUNK)]
    facts: list[Facts] = []
    with reporter.progress(total=len(items), unit=" images", desc="read") as bar:
        for chunk in pool.ordered(_examine_chunk, chunks, workers=workers):
            facts += chunk
            bar.update(len(chunk))
    return facts


def _examine_chunk(items):
    return [examine(item) for item in items]


def examine(item: Item) -> Facts:
    """Reads one image, see `Facts`. Never raises for a bad image."""
    try:
        data = item.read()
        info = header.probe(data)
        grey = decode.decode(data, info, color=0, resize=2 * near_duplicates.SIDE)
        small = near_duplicates.thumbnail(grey)
        values = np.asarray(small)
        known = Facts(None, short_hash(data), info.upright, info.format, values)
        if values.std() >= near_duplicates.FLAT and min(info.upright) >= TINY:
            return known._replace(turns=near_duplicates.hash_turns(small))
        full = decode.decode(data, info)
        ranges = full.reshape(-1, full.shape[-1])
        constant = bool((ranges.max(axis=0).astype(int) - ranges.min(axis=0) <= CONSTANT).all())
        return known._replace(pixels=_pixel_hash(full), constant=constant)
    except header.Unreadable as error:
        return Facts(str(error))


def _pixel_hash(full) -> bytes:
    found = hashlib.sha256(repr(full.shape).encode())
    found.update(np.ascontiguousarray(full).data)
    return found.digest()[:16]


def _pixels_of_chunk(items):
    return [_pixels_of(item) for item in items]


def _pixels_of(item):
    data = item.read()
    return _pixel_hash(decode.decode(data, header.probe(data)))


def _class_counts(source) -> dict[str, int]:
    counts = dict.fromkeys(source.classes, 0)
    for item in source.items:
        if item.label is not None:
            counts[item.label] = counts.get(item.label, 0) + 1
    return counts


def _single_findings(report, sources, items, facts):
    for item, fact in zip(items, facts):
        if fact.error is not None:
            kind = "missing" if item.offset is None and not os.path.lexists(item.path) else "unreadable"
            report.add(kind, Finding(item, fact.error))
            continue
        suffix = formats.suffix_of(item.path)
        if item.offset is None and suffix not in formats.FORMATS.get(fact.format, (suffix,)):
            report.add("wrong suffix", Finding(item, f"is {fact.format}"))
        if min(fact.size) < TINY:
            width, height = fact.size
            report.add("tiny", Finding(item, f"{width} x {height} pixels: only exact copies of it can be found"))
        if fact.constant:
            report.add("constant", Finding(item, "all pixels are equal"))
        elif fact.turns is None and min(fact.size) >= TINY:
            report.add("flat", Finding(item, "hardly any texture: only exact copies of it can be found"))
    for number, source in enumerate(sources):
        for name, why in source.left_out.items():
            kind = "unreadable" if why == walk.BROKEN or why.startswith(walk.UNREADABLE) else "left out"
            report.add(kind, Finding(Item(number, name, None, os.path.join(source.path, name)), why))


def _class_findings(report, sources):
    if len({source.named for source in sources}) > 1:
        report.notes.append("labels are compared only between sources that have class names, or only between those "
                            "that have none")
    for i, counts in enumerate(report.counts):
        others = {c for j, other in enumerate(report.counts) if sources[j].named == sources[i].named for c in other
                  if other[c]}
        report.absent += [(i, name) for name in sorted(others - {c for c in counts if counts[c]})]


def _pair_findings(report, sources, items, facts, good, workers):
    groups = _Groups(good)
    _join_equal(groups, good, lambda i: facts[i].digest, "same file")
    _join_equal(groups, [i for i in groups.heads() if facts[i].pixels], lambda i: (facts[i].size, facts[i].pixels),
                "same pixels")
    found = _near(report, facts, [i for i in groups.heads() if facts[i].turns is not None])
    rest = _join_same_pixels(groups, items, facts, found, workers)
    pairs = [(*link, "", 0, 1.0) for link in groups.links]
    pairs += [(first, second, "near", pair.turn, pair.distance, pair.correlation) for first, second, pair in rest]
    for first, second, kind, turn, distance, correlation in pairs:
        one, other = items[first], items[second]
        same_names = sources[one.source].named == sources[other.source].named
        differ = same_names and None not in (one.label, other.label) and normal(one.label) != normal(other.label)
        report.pairs.append(Pair(kind, one, other, turn, distance, correlation, differ))
    order = {id(item): i for i, item in enumerate(items)}
    report.pairs.sort(key=lambda p: (not p.across, not p.labels_differ, p.kind == "near", order[id(p.first)],
                                     order[id(p.second)]))
    _count_leaked(report, groups, items, rest)


def _near(report, facts, rows):
    """The near duplicates among the images `rows`, as (first, second, NearPair), in order."""
    if report.near is None or len(rows) < 2:
        return []
    with reporter.progress(total=100, desc="compare", bar_format="{desc}: {percentage:3.0f}%|{bar}|") as bar:
        search = near_duplicates.near_pairs(
            np.stack([facts[i].turns for i in rows]), np.stack([facts[i].thumbnail for i in rows]), report.near,
            tick=lambda share: bar.update(100 * share))
    if search.stopped:
        report.notes.append(f"stopped {search.stopped}: the images are too much alike for near duplicates to mean "
                            "anything (digits, video frames); look for exact copies only (--exact), or lower --near")
    return [(rows[pair.first], rows[pair.second], pair) for pair in search.pairs]


def _join_same_pixels(groups, items, facts, found, workers):
    """Joins the pairs of `found` that are equal pixel by pixel; returns the others, one for each pair of groups."""
    def may_be_equal(first, second, pair):
        return not pair.turn and pair.distance <= _MAYBE_EQUAL and facts[first].size == facts[second].size

    wanted = sorted({i for entry in found if may_be_equal(*entry) for i in entry[:2]})
    chunks = [[items[i] for i in wanted[k:k + _CHUNK]] for k in range(0, len(wanted), _CHUNK)]
    pixels = dict(zip(wanted, (h for c in pool.ordered(_pixels_of_chunk, chunks, workers=workers) for h in c)))
    for first, second, pair in found:
        if may_be_equal(first, second, pair) and pixels[first] == pixels[second]:
            groups.join(first, second, "same pixels")
    best = {}
    for first, second, pair in found:
        heads = tuple(sorted((groups.head[first], groups.head[second])))
        if heads[0] != heads[1] and (heads not in best or pair.distance < best[heads][2].distance):
            best[heads] = (*heads, pair)
    return [best[heads] for heads in sorted(best)]


class _Groups:
    """Groups of equal images: `head` has the first image of each image's group."""

    def __init__(self, rows):
        self.head = {i: i for i in rows}
        self.members = {i: [i] for i in rows}
        self.links: list[tuple[int, int, str]] = []  # (head when joined, other, how)

    def heads(self) -> list[int]:
        return sorted(self.members)

    def join(self, one, other, kind):
        first, second = sorted((self.head[one], self.head[other]))
        if first == second:
            return
        self.links.append((first, second, kind))
        for member in self.members.pop(second):
            self.head[member] = first
            self.members[first].append(member)


def _join_equal(groups, rows, key, kind):
    first_of = {}
    for i in rows:
        groups.join(first_of.setdefault(key(i), i), i, kind)


def _count_leaked(report, groups, items, near):
    copies = [members for members in groups.members.values() if len(members) > 1]
    copies += [groups.members[first] + groups.members[second] for first, second, _ in near]
    leaked = defaultdict(set)
    for members in copies:
        earliest = min(items[i].source for i in members)
        for i in members:
            if items[i].source > earliest:
                leaked[items[i].source].add(i)
    report.leaked_images = {source: len(rows) for source, rows in sorted(leaked.items())}
