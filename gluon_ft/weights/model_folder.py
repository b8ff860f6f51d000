"""The folder that `gluon-ft export` writes: the names of its files, and how it is read, each file's hash checked.

`model-0000.params` has the parameters under the names that they have in the network ('features.0.weight'), so that
both MXNet, by `model-symbol.json`, and gluon_ft, which builds the network again, read them. `manifest.json` says what
network it is, and has the SHA-256 of every file.
"""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gluon_ft.errors import WeightsError
from gluon_ft.io import documents
from gluon_ft.io.checksums import sha256_of
from gluon_ft.io.paths import AnyPath
from gluon_ft.io.shapes import anything, each, named, text
from gluon_ft.weights import card
from gluon_ft.weights.card import Card

FORMAT = "gluon_ft model folder 1"
MANIFEST, README, CERTIFICATE = "manifest.json", "README.md", "certificate.json"
SYMBOL, PARAMETERS = "model-symbol.json", "model-0000.params"
CLASSES, PREPROCESSING = "classes.txt", "preprocess.json"
ONNX, ONNX_LOGITS, ONNX_INT8 = "model.onnx", "model-logits.onnx", "model-int8.onnx"
SAFETENSORS = "model.safetensors"
# What people may write in: its hash is in the manifest, and is not asked for when the folder is read.
_FREE = {README}
_MOST_FILES = 100
_SHAPE = named({"format": text(100), "files": each(text(64, 64), _MOST_FILES), "network": each(anything, 20)},
               others=True)
_REMEDY = "copy the folder again, or export the model again"


def holding(path: AnyPath) -> Path | None:
    """The model folder that `path` is, or whose parameters it is; None for anything else."""
    path = Path(path)
    folder = path.parent if path.name == PARAMETERS else path
    return folder if (folder / MANIFEST).is_file() else None


def is_export(folder: AnyPath) -> bool:
    """Whether a folder was written by an export."""
    try:
        return bool(read_manifest(Path(folder)))
    except WeightsError:
        return False


def read_manifest(folder: Path) -> dict[str, Any]:
    """The contents of a folder's manifest.json; WeightsError where it is missing or is something else."""
    path = folder / MANIFEST
    try:
        manifest = documents.read_json(path, card.MOST_BYTES)
        _SHAPE(manifest, "")
        if manifest["format"] != FORMAT:
            raise ValueError(f"the format is '{manifest['format']}', not '{FORMAT}'")
        strange = [name for name in manifest["files"] if Path(name).name != name or name in ("", ".", "..")]
        missing = [name for name in (SYMBOL, PARAMETERS, CLASSES, PREPROCESSING) if name not in manifest["files"]]
        if strange or missing:
            raise ValueError(f"a file '{strange[0]}' outside the folder" if strange else f"{missing[0]} is not named")
    except (OSError, ValueError) as error:
        raise WeightsError("not the manifest of an exported model", path=path,
                           found=getattr(error, "strerror", None) or error, remedy=_REMEDY) from error
    return manifest


def read(folder: Path) -> Card:
    """What the network of a model folder is.

    Raises WeightsError, which names the file, where one is missing, changed or damaged.
    """
    manifest = read_manifest(folder)
    for name, expected in manifest["files"].items():
        if name not in _FREE:
            _check(folder / name, expected)
    try:
        names = documents.read_bytes(folder / CLASSES, card.MOST_BYTES).decode("utf-8", "surrogateescape").split("\n")
        prepared = documents.read_json(folder / PREPROCESSING, card.MOST_BYTES)
        about = {**manifest["network"], "classes": names[:-1], "preprocessing": prepared["preprocessing"],
                 "sha256": manifest["files"][PARAMETERS]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError("not an exported model", path=folder, found=error, remedy=_REMEDY) from error
    return Card.from_json(json.dumps(about), folder / MANIFEST)


def _check(path: Path, expected: str) -> None:
    try:
        found = sha256_of(path)
    except OSError as error:
        raise WeightsError("a file of the exported model cannot be read", path=path, found=error.strerror,
                           remedy=_REMEDY) from error
    if found != expected:
        raise WeightsError("changed since the model was exported", path=path, expected=f"SHA-256 {expected[:16]}...",
                           found=f"{found[:16]}...", remedy=_REMEDY)
