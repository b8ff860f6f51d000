"""What travels beside a file of weights: backbone, preprocessing, class names, where it came from."""
from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from gluon_ft.data.images.preprocessing import Preprocessing
from gluon_ft.errors import ConfigError, WeightsError
from gluon_ft.io import atomic

METADATA_KEY = "gluon_ft"


@dataclass(frozen=True)
class Card:
    """What is known about a file of weights.

    Parameters
    ----------
    backbone : str
        Its name in the registry.
    preprocessing : Preprocessing
        Of the input.
    classes : list of str, optional
        Class names in the output's order; None where they are not known.
    source : str
        Name of the catalog's row, or of the file that was converted.
    source_sha256 : str
        Of the file that was converted.
    sha256 : str
        Of the file that this stands beside.
    notes : tuple of str
        What to know before using the weights.
    head : dict, optional
        How the output was changed, for a fine-tuned network (see `gluon_ft.evaluation.model`); None for the backbone's
        own.
    extra : dict
        Whatever else was saved with it.
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

    def to_json(self) -> str:
        """One JSON object."""
        values = dataclasses.asdict(self)
        values["preprocessing"] = self.preprocessing.to_dict()
        return json.dumps(values, indent=1)

    @classmethod
    def from_json(cls, text: str, path: str | os.PathLike) -> Card:
        """The inverse of `to_json`; WeightsError naming `path` for anything else."""
        try:
            values = json.loads(text)
            values["preprocessing"] = Preprocessing.from_dict(values["preprocessing"])
            return cls(**{**values, "notes": tuple(values.get("notes", ()))})
        except (ValueError, TypeError, KeyError, ConfigError) as error:
            raise WeightsError(f"not a description of weights ({error})", path=path,
                               remedy="delete it, or convert the weights again") from error


def beside(path: str | os.PathLike) -> Path:
    """Where the card of a .params file is: the same name with '.json' behind it."""
    return Path(f"{os.fspath(path)}.json")


def write(path: str | os.PathLike, card: Card) -> Path:
    """Writes the card of the file at `path`."""
    return atomic.write(beside(path), card.to_json() + "\n")


def read(path: str | os.PathLike, metadata: dict | None = None) -> Card | None:
    """The card of a weights file, from beside it or from a safetensors header's metadata; None where there is none."""
    if beside(path).is_file():
        return Card.from_json(beside(path).read_text(encoding="utf-8"), beside(path))
    text = (metadata or {}).get(METADATA_KEY)
    return Card.from_json(text, path) if isinstance(text, str) else None
