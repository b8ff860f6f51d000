"""What the audit says about a job's images, and what is done about it."""
from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from gluon_ft.data.audit.checks import audit
from gluon_ft.data.audit.report import BAD, UNBALANCED
from gluon_ft.data.sources import walk
from gluon_ft.data.sources.base import ImageRef
from gluon_ft.data.sources.files import FileSource
from gluon_ft.data.sources.records import RecordSource
from gluon_ft.data.split import linked
from gluon_ft.errors import DataError

MOST_SHOWN = 5  # examples of each kind in the text
WORTH_SAYING = ("wrong suffix", "constant", "tiny", "flat")


@dataclass
class Examined:
    """The images as they are to be used, and what was found.

    Attributes
    ----------
    train, val : FileSource or RecordSource
        Without what is left out.
    groups : ndarray or None
        int64, a number for each training image: copies have the same, see `split.linked`. None: not looked for.
    left_out : list of dict
        {part, path, why} of each image that is not used.
    lines : list of str
        For people.
    facts : dict
        Counts, for result.json.
    """

    train: FileSource | RecordSource
    val: FileSource | RecordSource | None
    groups: np.ndarray | None = None
    left_out: list[dict] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    facts: dict = field(default_factory=dict)


def examine(train: FileSource | RecordSource, val: FileSource | RecordSource | None, mode: str) -> Examined:
    """Audits a job's images and, with mode 'fix', leaves out what cannot be read and copies of training images.

    Parameters
    ----------
    train, val : FileSource or RecordSource
        Of packed records nothing can be left out.
    mode : {'fix', 'report', 'none'}
        'none' looks at names and counts only.

    Raises
    ------
    DataError
        No image is left.
    """
    found = Examined(train, val, lines=_names_and_counts(train, val))
    if mode == "none":
        found.lines.append("not audited (audit none): copies and bad files were not looked for")
        return found
    report = audit([source for source in (train, val) if source is not None])
    bad = _bad(report, found)
    across, within = _pairs(report, found)
    if mode == "fix":
        _leave_out(found, bad, across)
        found.groups = _groups(found.train, [pair for pair in within if pair.first.source == 0])
    _describe(found, report, bad, across, within, mode)
    return found


def _names_and_counts(train, val):
    lines = []
    for part, source in (("training", train), ("validation", val)):
        if source is not None and source.left_out:
            lines.append(walk.said(source.left_out, f" of the {part} folder") or "")
    if isinstance(train, FileSource):
        counts = {name: len(train.of_class(label)) for label, name in enumerate(train.class_names or ())}
        (least, low), (most, high) = (pick(counts.items(), key=lambda item: item[1]) for pick in (min, max))
        if low and high / low >= UNBALANCED:
            lines.append(f"unbalanced: '{most}' has {high} images, '{least}' {low} (--balance weights or sampling "
                         "counts each class alike)")
    return lines


def _used(found):
    """For each source, the names that are looked at; None: all of them (packed records)."""
    return [set(source.names) if isinstance(source, FileSource) else None
            for source in (found.train, found.val) if source is not None]


def _bad(report, found):
    used = _used(found)
    return [finding for kind in BAD for finding in report.findings.get(kind, [])
            if used[finding.item.source] is None or finding.item.name in used[finding.item.source]]


def _pairs(report, found):
    """(pairs across the sources, pairs within one), of images that are used."""
    used = _used(found)

    def both(pair):
        return all(used[item.source] is None or item.name in used[item.source] for item in (pair.first, pair.second))

    pairs = [pair for pair in report.pairs if both(pair)]
    return [pair for pair in pairs if pair.across], [pair for pair in pairs if not pair.across]


def _leave_out(found, bad, across):
    parts = ["train", "validation"]
    out = [{"part": parts[f.item.source], "path": f.item.name, "why": f.detail} for f in bad]
    # A copy of a copy is a copy too: it is in the validation source if it is the second of a pair across.
    out += [{"part": "validation", "path": path, "why": f"a copy of {of}, which is in training"} for path, of in
            {pair.second.name: pair.first.name for pair in reversed(across)}.items()]
    found.train = _without(found.train, {o["path"] for o in out if o["part"] == "train"})
    if found.val is not None:
        found.val = _without(found.val, {o["path"] for o in out if o["part"] == "validation"})
    packed = {"train": isinstance(found.train, RecordSource), "validation": isinstance(found.val, RecordSource)}
    found.left_out = [o for o in out if not packed[o["part"]]]


def _without(source, names):
    if isinstance(source, RecordSource) or not names:
        return source
    kept = [position for position, name in enumerate(source.names) if name not in names]
    if not kept:
        raise DataError("no image is left", path=source.path, remedy="see gluon-ft audit",
                        found=f"{len(names)} that cannot be read or are copies of training images")
    return source.take(kept)


def _groups(train, pairs) -> np.ndarray:
    """A number for each training image; the ends of a pair have the same."""
    if not pairs:
        return linked(len(train), [])
    position = {train.ref(i).absolute(): i for i in range(len(train))}
    ends = ((ImageRef(item.path, item.offset) for item in (pair.first, pair.second)) for pair in pairs)
    return linked(len(train), [(position[one.absolute()], position[other.absolute()]) for one, other in ends])


def _describe(found, report, bad, across, within, mode):
    fixed = mode == "fix"
    differ = [pair for pair in [*across, *within] if pair.labels_differ]
    kept = RecordSource in (type(found.train), type(found.val))
    _say(found, bad, "{n} images cannot be read" + (", left out" if fixed and not kept else ""),
         lambda f: f"{f.item.name} ({f.detail})")
    if across:
        images = len({pair.second.name for pair in across})
        left_out = fixed and isinstance(found.val, FileSource)
        out = "left out of validation" if left_out else "LEFT IN: accuracy is too good by them"
        _say(found, across, f"{images} validation images are copies of training images, {out}", _pair_line)
    if within:
        together = fixed and found.val is None and isinstance(found.train, FileSource)
        side = ", kept on one side of the split" * together
        _say(found, within, "{n} pairs of images are copies of each other" + side, _pair_line)
    _say(found, differ, "{n} pairs of equal images have two labels: one of them is wrong", _pair_line)
    for kind in WORTH_SAYING:
        _say(found, report.findings.get(kind, []), "{n} images: " + kind, lambda f: f"{f.item.name} ({f.detail})")
    found.lines += report.notes
    found.facts = {"unreadable": len(bad), "copies_across": len(across), "copies_within": len(within),
                   "two_labels": len(differ), "left_out": len(found.left_out)}


def _pair_line(pair):
    return f"{pair.first.name} = {pair.second.name} ({pair.how()})"


def _say(found, items, text, line):
    if items:
        shown = ", ".join(line(item) for item in items[:MOST_SHOWN])
        more = f", and {len(items) - MOST_SHOWN} more" if len(items) > MOST_SHOWN else ""
        found.lines.append(f"{text.format(n=len(items))}: {shown}{more}")
