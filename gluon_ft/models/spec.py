"""What network was asked for: names, flags and paths become one ModelSpec here, and nowhere else."""
from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gluon_ft.data.images.preprocessing import Preprocessing
from gluon_ft.errors import ConfigError, WeightsError, near
from gluon_ft.models import registry
from gluon_ft.weights import card, catalog, class_names
from gluon_ft.weights.catalog import Row

NONE = "none"  # random weights, where weights are named by text


@dataclass(frozen=True)
class ModelSpec:
    """A network and its weights.

    backbone : a name of the registry (of a symbolic network, of the catalog).
    weights : a row of the catalog, a file, or None for random ones.
    reason : why these, in words.
    preferred : whether the weights are the catalog's preferred ones because none were named.
    """

    backbone: str
    weights: Row | Path | None = None
    reason: str = "as asked for"
    preferred: bool = False

    @property
    def pretrained(self) -> str:
        """The weights as text, for settings and reports: 'none', BACKBONE:TAG, or the whole path of a file."""
        if self.weights is None:
            return NONE
        return self.weights.name if isinstance(self.weights, Row) else str(self.weights.resolve())

    @property
    def is_symbolic(self) -> bool:
        """Whether these are the weights of a symbolic network, for `gluon_ft.symbolic` only."""
        return isinstance(self.weights, Row) and self.weights.is_symbolic

    @property
    def preprocessing(self) -> Preprocessing:
        """Of the input: the catalog's, that of the card beside a file, or the backbone's usual one."""
        if isinstance(self.weights, Row):
            return self.weights.preprocessing
        about = card.read(self.weights) if self.weights is not None else None
        return about.preprocessing if about else registry.usual_preprocessing(registry.get(self.backbone))

    @property
    def class_names(self) -> list[str] | None:
        """Of the weights' own output, in its order; None where they are not known."""
        if isinstance(self.weights, Row):
            return class_names.named(self.weights.classes)
        about = card.read(self.weights) if self.weights is not None else None
        return about.classes if about else None


def resolve(backbone: str | ModelSpec | None = None, weights: bool | str | os.PathLike[str] | Row | None = None, *,
            default: str | None = None, prefer: Callable[[list[Row]], Row] | None = None) -> ModelSpec:
    """The network that somebody asks for. Nothing is fetched or built.

    Parameters
    ----------
    backbone : str, optional
        A name of the registry. A ModelSpec is returned as it is.
    weights
        None, False or 'none': random ones. True: the catalog's preferred ones. A tag of the catalog, 'BACKBONE:TAG',
        the path of a file, or a row of the catalog.
    default : str, optional
        The backbone where neither `backbone` nor `weights` names one.
    prefer : callable, optional
        Chooses among the rows that have a tag, where no backbone is named. Without it the tag has to be of one row.

    Raises
    ------
    ConfigError
        Where no backbone is named, or another one than that of the weights.
    WeightsError
        For weights that are neither in the catalog nor a file, with the near names.
    NetworkError
        For an unknown backbone with random weights.
    """
    if isinstance(backbone, ModelSpec):
        return backbone
    if isinstance(weights, Row):
        return ModelSpec(backbone or weights.backbone, weights)
    if weights is None or isinstance(weights, bool) or weights == NONE:
        name = backbone or default
        if name is None:
            raise ConfigError("no network given", expected="a backbone, weights of the catalog or a checkpoint")
        if weights is True:
            row = catalog.find(name)
            return ModelSpec(row.backbone, row, "the catalog's preferred weights", preferred=True)
        return ModelSpec(registry.get(name).name, None, "random weights, as asked for")
    text = os.fspath(weights)
    path = Path(os.path.expanduser(text))
    owner, tag = (None, text) if path.is_file() else _parted(text)
    if owner is not None and backbone not in (None, owner):
        raise ConfigError("weights of another backbone", expected=f"weights of {backbone}",
                          found=f"{text} for {backbone}", remedy=f"give {owner}, or other weights")
    name = owner or backbone or default
    if name is None:
        return _unnamed(text, path, prefer)
    known = {row.tag: row for row in catalog.rows() if row.backbone == name}
    if tag in known:
        return ModelSpec(name, known[tag])
    if path.is_file():
        return ModelSpec(name, path)
    raise WeightsError(f"no weights '{tag}' for backbone '{name}'", expected="a tag of the catalog, or a file",
                       remedy=near(tag, known))


def _parted(text: str) -> tuple[str | None, str]:
    """(backbone, tag) of 'BACKBONE:TAG', (None, text) where it is not that of a known backbone."""
    owner, tag = catalog.parted(text)
    known = owner in registry.registry() or any(row.backbone == owner for row in catalog.rows())
    return (None, text) if tag is None or not known else (owner, tag)


def _unnamed(text: str, path: Path, prefer: Callable[[list[Row]], Row] | None) -> ModelSpec:
    """The network of a file that has a card, or of a tag."""
    if path.is_file():
        about = card.read(path)
        if about is None:
            raise ConfigError("it is not known what network these weights are of", path=path,
                              remedy="say it with --backbone")
        return ModelSpec(about.backbone, path, "the network of the weights given")
    rows = [row for row in catalog.rows() if row.tag == text]
    if not rows:
        names = {row.tag for row in catalog.rows()} | {row.name for row in catalog.rows()}
        raise WeightsError(f"no weights '{text}' known, and no such file", remedy=near(text, names))
    if prefer is None and len(rows) > 1:
        raise ConfigError("no network given", expected=f"one of the {len(rows)} backbones with weights '{text}'",
                          remedy=f"give a backbone, or such as {rows[0].name}")
    row = prefer(rows) if prefer else rows[0]
    return ModelSpec(row.backbone, row, f"weights '{text}'")
