"""The card beside a weights file: backbone, preprocessing, class names, origin.

Cards are untrusted, and checked here before anything is built from them. Limits: 4 MB, 100,000 classes, 8 appended
layers, an input of 8,192 x 8,192 pixels.
"""
from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from gluon_ft.data.images.preprocessing import Preprocessing
from gluon_ft.data.sources.class_names import normal
from gluon_ft.errors import ConfigError, WeightsError
from gluon_ft.io import atomic, documents
from gluon_ft.io.shapes import anything, each, flag, listed, maybe, named, number, text, whole
from gluon_ft.weights import class_names

METADATA_KEY = "gluon_ft"
MOST_BYTES = 4 << 20
MOST_CLASSES = 100_000  # ImageNet-21k has 21,841
_MOST_LAYERS = 8
_CLASSES, _DROPOUT = whole(1, MOST_CLASSES), number(0, 0.999)
_LAYER = named({"name": text(100, 1), "classes": _CLASSES}, {"dropout": _DROPOUT})
_HEAD = named({"classes": _CLASSES, "bias": flag, "linear": flag, "dropout": _DROPOUT,
               "appended": listed(_LAYER, _MOST_LAYERS), "options": each(anything, 20)})
_SHAPE = named(
    {"backbone": text(100, 1), "preprocessing": each(anything, 20)},
    {"classes": maybe(listed(text(1000, 1), MOST_CLASSES, 1)), "source": text(4096), "source_sha256": text(64),
     "sha256": text(64), "notes": listed(text(4096), 100), "head": maybe(_HEAD), "extra": each(anything, 1000),
     "temperature": maybe(number(1e-6, 1e6))})


@dataclass(frozen=True)
class Card:
    """Describes a weights file.

    Parameters
    ----------
    backbone : str
        The backbone's name in the registry.
    preprocessing : Preprocessing
        Of the input.
    classes : list of str, optional
        Class names in the output's order; None if they are not known.
    source : str
        Name of the catalog's row, or of the file that was converted.
    source_sha256 : str
        SHA-256 of the file that was converted.
    sha256 : str
        SHA-256 of the file that the card describes.
    notes : tuple of str
        What to know before using the weights.
    head : dict, optional
        How a fine-tuned network's output differs from the backbone's own (see `gluon_ft.evaluation.model`); None if it
        does not.
    extra : dict
        Other values that were saved with the file.
    temperature : float, optional
        By which the network's outputs are divided before the softmax, so that the probabilities are calibrated.
    """

    backbone: str
    preprocessing: Preprocessing
    classes: list[str] | None = None
    source: str = ""
    source_sha256: str = ""
    sha256: str = ""
    notes: tuple[str, ...] = ()
    head: dict | None = None
    extra: dict = field(default_factory=dict)
    temperature: float | None = None

    def to_json(self) -> str:
        """One JSON object; `temperature` only where there is one, since older files do not have it."""
        values = dataclasses.asdict(self)
        if self.temperature is None:
            del values["temperature"]
        values["preprocessing"] = self.preprocessing.to_dict()
        return json.dumps(values, indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes, path: str | os.PathLike) -> Card:
        """The inverse of `to_json`, from text or UTF-8 bytes; WeightsError with `path` for anything else."""
        try:
            values = documents.parse_json(text, MOST_BYTES)
            _SHAPE(values, "")
            values["preprocessing"] = Preprocessing.from_dict(values["preprocessing"])
            values["notes"] = tuple(values.get("notes", ()))
            made = cls(**values)
            made.check_classes()
        except ValueError as error:  # as ConfigErrors are
            raise WeightsError(f"not a description of weights ({error})", path=path,
                               remedy="delete it, or convert the weights again") from error
        return made

    @property
    def outputs(self) -> int | None:
        """Number of the network's outputs; None where the output is the backbone's own."""
        if self.head is None:
            return None
        return self.head["appended"][-1]["classes"] if self.head["appended"] else self.head["classes"]

    def check_classes(self) -> None:
        """Raises ConfigError where the number of class names differs from the output's, or a name occurs twice.

        ImageNet's own names are accepted, in which 'crane' and 'maillot' stand for two classes each.
        """
        if self.classes is None:
            return
        if self.outputs not in (None, len(self.classes)):
            raise ConfigError("the names of the classes do not fit the output", expected=f"{self.outputs} names",
                              found=len(self.classes))
        plain = list(map(normal, self.classes))
        if len(set(plain)) < len(plain) and self.classes != class_names.named("imagenet-1k"):
            twice = next(name for i, name in enumerate(plain) if name in plain[:i])
            raise ConfigError("a class name is there twice", found=f"'{twice}'")


def beside(path: str | os.PathLike) -> Path:
    """The path of a .params file's card: the same name with '.json' appended."""
    return Path(f"{os.fspath(path)}.json")


def write(path: str | os.PathLike, card: Card) -> Path:
    """Writes the card of the file at `path`. Raises WeightsError for a card that `read` would refuse."""
    Card.from_json(card.to_json(), beside(path))
    return atomic.write(beside(path), card.to_json() + "\n")


def read(path: str | os.PathLike, metadata: dict | None = None) -> Card | None:
    """The card of a weights file, from beside it or from a safetensors header's metadata; None where there is none."""
    own = beside(path)
    if own.is_file():
        try:
            data = documents.read_bytes(own, MOST_BYTES)
        except (OSError, ValueError) as error:
            raise WeightsError("the card cannot be read", path=own,
                               found=getattr(error, "strerror", None) or error) from error
        return Card.from_json(data, own)
    text = (metadata or {}).get(METADATA_KEY)
    return Card.from_json(text, path) if isinstance(text, str) else None
