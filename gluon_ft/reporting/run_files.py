"""The JSON files of a run's folder, read and checked: anybody may have written or changed them."""
from __future__ import annotations

from pathlib import Path
from typing import Any

from gluon_ft.errors import UserError
from gluon_ft.io import documents
from gluon_ft.io.shapes import Shape, anything, each, flag, listed, maybe, named, number, row, text, whole

_NAMES = text(4096)
_ACCURACIES = {f"{part}_{kind}": maybe(number()) for part in ("train", "validation")
               for kind in ("accuracy", "loss", "top5")}
_ROW = named({}, {"name": _NAMES, "seconds": maybe(number()), **_ACCURACIES}, others=True)
_START = named({}, {"date": text(100), "command": text(1 << 20)}, others=True)
_PART = named({"source": _NAMES, "root": maybe(_NAMES), "images": whole(0), "sha256": text(64),
               "files": maybe(listed(row(_NAMES, number(), text(64))))}, others=True)

SHAPES: dict[str, Shape] = {
    "config.json": named({}, {"origins": each(text(200)), "reasons": each(text())}, others=True),
    "environment.json": named({}, {"date": text(100), "command": text(1 << 20), "resumed": listed(_START),
                                   "gluon_ft": named({}, {"version": maybe(text(200)), "commit": maybe(text(200)),
                                                          "dirty": maybe(flag)}, others=True)}, others=True),
    "result.json": named({}, {"rows": listed(_ROW), "best_validation_accuracy": maybe(number()),
                              "best_epoch": maybe(whole(0))}, others=True),
    "data.json": named({"classes": listed(text(4096)), "parts": each(_PART, 100),
                        "left_out": listed(each(anything, 20))},
                       {"sha256": text(64), "weights": maybe(named({"source": _NAMES, "sha256": text(64)}))},
                       others=True),
}
# A finished job of `gluon-ft train`, whose rows are shown again.
FINISHED = named({"rows": listed(named({"name": _NAMES, "seconds": number(), "train_accuracy": maybe(number()),
                                        "validation_accuracy": maybe(number())}, others=True), least=1)}, others=True)


def _seed(value: Any, place: str) -> None:
    """A seed, or text that names the fold as well, such as '0-3'."""
    (text(200) if isinstance(value, str) else maybe(whole(0)))(value, place)


EPOCH = named({}, {"series": text(1000), "epoch": maybe(whole(0)), "seed": _seed, "time": number(),
                   "lr": maybe(number()), "seconds": maybe(number()), **_ACCURACIES}, others=True)


def parse(path: Path, *also: Shape) -> dict[str, Any]:
    """The object in a file of a run, checked against the shape of its name.

    Raises OSError; ValueError with the reason. also : further shapes that it must have.
    """
    value = documents.read_json(path, documents.MOST_BYTES_RECORDED)
    for shape in (SHAPES[path.name], *also):
        shape(value, "")
    return value


def read(path: Path, *also: Shape) -> dict[str, Any]:
    """`parse` whose errors are UserErrors that name the file."""
    try:
        return parse(path, *also)
    except (OSError, ValueError) as error:
        raise UserError("cannot be read", path=path, expected="what a run wrote",
                        found=getattr(error, "strerror", None) or error, remedy="start another run") from error
