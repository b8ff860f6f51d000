"""The results of an audit: as text, as JSON, and as a contact sheet of the pairs."""
from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import cv2
from PIL import Image

from gluon_ft.data.audit.items import Item
from gluon_ft.data.images import decode, header
from gluon_ft.data.images.contact_sheet import contact_sheet, save
from gluon_ft.errors import DataError, escaped
from gluon_ft.io import tables
from gluon_ft.io.paths import AnyPath

UNBALANCED = 3.0  # ratio of the largest to the smallest class from which on a source is called unbalanced
BAD = ("missing", "unreadable")  # kinds of findings about images that cannot be used
MOST_SHOWN = 60  # pairs on a contact sheet
_THUMB = 300  # pixels; wide enough for a caption of about 50 letters
# Kind of finding -> its heading, in the order in which the text shows them.
KINDS = {"missing": "files of a list that are not there", "unreadable": "unreadable images",
         "wrong suffix": "file names whose suffix is not that of their content",
         "constant": "images of one colour", "tiny": "images smaller than 32 pixels", "flat": "images without texture",
         "left out": "files not looked at"}


@dataclass(frozen=True)
class Finding:
    """A finding about one image; `detail` says it in words."""

    item: Item
    detail: str


@dataclass(frozen=True)
class Pair:
    """Two images that show the same picture, in the order of the sources.

    `kind` is 'same file' (equal bytes), 'same pixels' or 'near'; `turn` is what was done to the first to get the second
    ('', 'mirrored', 'rotated 90' anticlockwise, ...); `distance` is that of their hashes, in bits of 128; `correlation`
    that of their thumbnails. In a group of equal images each is paired with the first one only.
    """

    kind: str
    first: Item
    second: Item
    turn: str
    distance: int
    correlation: float
    labels_differ: bool

    @property
    def across(self) -> bool:
        """Whether they belong to different sources."""
        return self.first.source != self.second.source

    def how(self) -> str:
        """'same file', 'near (3 bits), mirrored', ..."""
        bits = f"{self.distance} bit{'s' * (self.distance != 1)}"
        words = [f"near ({bits})" if self.kind == "near" else self.kind, self.turn]
        return ", ".join(word for word in words if word)


@dataclass
class Report:
    """Everything that an audit found.

    Attributes
    ----------
    sources, kinds : list of str
        The name of each source, and its kind ('folder', 'list', 'records').
    counts : list of dict
        For each source: class -> number of images.
    near : int or None
        Largest distance of near duplicates, bits; None: they were not looked for.
    findings : dict of str to list of Finding
        By kind, see `KINDS`.
    pairs : list of Pair
    absent : list of (int, str)
        Source and class: the source has no image of that class, while another one has.
    leaked_images : dict of int to int
        For each later source: how many of its images have a copy in an earlier one.
    notes : list of str
    """

    sources: list[str]
    kinds: list[str]
    counts: list[dict[str, int]]
    near: int | None
    findings: dict[str, list[Finding]] = field(default_factory=dict)
    pairs: list[Pair] = field(default_factory=list)
    absent: list[tuple[int, str]] = field(default_factory=list)
    leaked_images: dict[int, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, kind: str, finding: Finding) -> None:
        """Adds a finding of one of `KINDS`."""
        self.findings.setdefault(kind, []).append(finding)

    @property
    def leaked(self) -> bool:
        """Whether two sources share an image."""
        return bool(self.leaked_images)

    def imbalance(self, source: int) -> float | None:
        """The largest class's number of images over that of the smallest non-empty one; None without classes."""
        counts = [count for count in self.counts[source].values() if count]
        return max(counts) / min(counts) if counts else None

    def to_dict(self) -> dict:
        """Everything in plain types, for JSON."""
        def place(item):
            return {"source": self.sources[item.source], "image": item.name, "label": item.label}

        return {
            "sources": [{"path": path, "kind": kind, "images": sum(counts.values()), "classes": counts,
                         "imbalance": self.imbalance(i), "leaked_images": self.leaked_images.get(i, 0)}
                        for i, (path, kind, counts) in enumerate(zip(self.sources, self.kinds, self.counts))],
            "near": self.near, "leaked": self.leaked,
            "pairs": [{"kind": pair.kind, "first": place(pair.first), "second": place(pair.second), "turn": pair.turn,
                       "distance": pair.distance, "correlation": pair.correlation, "across": pair.across,
                       "labels_differ": pair.labels_differ} for pair in self.pairs],
            "findings": {kind: [{**place(f.item), "detail": f.detail} for f in self.findings.get(kind, [])]
                         for kind in KINDS},
            "absent_classes": [{"source": self.sources[i], "class": name} for i, name in self.absent],
            "notes": self.notes}

    def text(self, most: int = 10) -> str:
        """The report for people: a summary, then at most `most` lines of each kind of finding."""
        across = [pair for pair in self.pairs if pair.across]
        within = [pair for pair in self.pairs if not pair.across]
        lines = list(self._verdict(across, within))
        numbered = {id(pair): i for i, pair in enumerate(self.pairs, 1)}

        def show(heading, found, line):
            if found:
                lines.extend(["", f"{heading}: {len(found)}", *(f"  {line(f)}" for f in found[:most])])
                if len(found) > most:
                    lines.append(f"  ... and {len(found) - most} more (--json has all)")

        def pair_line(pair):
            return (f"#{numbered[id(pair)]} {self._place(pair.first)} = {self._place(pair.second)}: {pair.how()}"
                    f"{', LABELS DIFFER' if pair.labels_differ else ''}")

        show("shared between sources", across, pair_line)
        show("one image, two labels", [p for p in self.pairs if p.labels_differ], pair_line)
        show("copies within a source", [p for p in within if not p.labels_differ], pair_line)
        for kind, heading in KINDS.items():
            show(heading, self.findings.get(kind, []), lambda f: f"{self._place(f.item)}: {f.detail}")
        show("classes without an image", self.absent, lambda a: f"{self.sources[a[0]]}: {a[1]}")
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join([*self._summary(), *map(escaped, lines)])

    def _place(self, item):
        label = "" if item.label is None or item.name.startswith(f"{item.label}/") else f" [{item.label}]"
        return f"{self.sources[item.source]}: {item.name}{label}" if len(self.sources) > 1 else f"{item.name}{label}"

    def _summary(self):
        rows = []
        for i, (path, counts) in enumerate(zip(self.sources, self.counts)):
            having = [count for count in counts.values() if count]
            rows.append({"source": path, "images": sum(having), "classes": len(having),
                         "largest class": max(having, default=None), "smallest": min(having, default=None),
                         "ratio": self.imbalance(i)})
        return [tables.table(rows)]

    def _verdict(self, across, within):
        for source, count in self.leaked_images.items():
            yield (f"LEAK: {count} of {sum(self.counts[source].values())} images of {self.sources[source]} are also in "
                   f"{' or '.join(self.sources[:source])}")
        if len(self.sources) > 1 and not self.leaked:
            yield "no image is shared between the sources"
        differ = sum(pair.labels_differ for pair in self.pairs)
        yield (f"copies within a source: {len(within)} pairs; between sources: {len(across)}; "
               f"with two labels: {differ}")
        for i, path in enumerate(self.sources):
            if (self.imbalance(i) or 1) >= UNBALANCED:
                yield (f"unbalanced: the largest class of {path} has {self.imbalance(i):.1f} times the images of the "
                       "smallest")
        bad = [f"{len(self.findings[kind])} {kind}" for kind in KINDS if kind in self.findings]
        yield "files: " + (", ".join(bad) if bad else "nothing to report")


def pair_sheet(report: Report, out: AnyPath, most: int = MOST_SHOWN) -> int:
    """Writes the first pairs of a report side by side as a PNG, numbered as in the text.

    Parameters
    ----------
    report : Report
    out : path-like
        The PNG; it is replaced if it exists. Nothing is written where the report has no pair.
    most : int, default 60
        Largest number of pairs shown.

    Returns
    -------
    int
        How many pairs the sheet shows.

    Raises
    ------
    DataError
        It cannot be written.
    """
    pictures = []
    for number, pair in enumerate(report.pairs[:most], 1):
        pictures.append((_picture(pair.first), f"#{number} {_short(pair.first)}"))
        pictures.append((_picture(pair.second), f"{pair.how()}: {_short(pair.second)}"))
    if not pictures:
        return 0
    shown = len(pictures) // 2
    title = f"{shown} of {len(report.pairs)} pairs, side by side: {', '.join(report.sources)}"
    sheet = contact_sheet(pictures, columns=4, thumb=_THUMB, title=title)
    save(sheet, Path(out))
    return shown


def _picture(item):
    try:
        data = item.read()
        pixels = decode.decode(data, header.probe(data), resize=_THUMB)
    except header.Unreadable as error:
        raise DataError(f"image changed while it was audited: {error}", path=item.path) from None
    picture = Image.fromarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
    scale = _THUMB / max(picture.size)
    return picture.resize([max(1, round(scale * edge)) for edge in picture.size], Image.Resampling.BICUBIC)


def _short(item):
    name = item.name.rsplit("/", 1)[-1]
    return name if item.label is None else f"{item.label}/{name}"
