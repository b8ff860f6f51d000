"""The model that is exported, and what its run recorded: data, measures, calibration, the images to check on."""
from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mxnet.gluon import HybridBlock

from gluon_ft.data.sources.base import ImageSource
from gluon_ft.data.sources.files import FileSource
from gluon_ft.data.sources.opening import open_source
from gluon_ft.errors import DataError, UserError, WeightsError
from gluon_ft.evaluation.model import IN_FOLDER, load_model
from gluon_ft.evaluation.predict import Given
from gluon_ft.io.paths import AnyPath
from gluon_ft.reporting import data_record, run_files
from gluon_ft.weights import catalog, model_folder
from gluon_ft.weights.card import Card

TRAINING, VALIDATION = "train", "validation"  # the parts of data.json
_RECORDED = ("run", "data", "measures", "calibration")
_REMEDY = "give labelled or other images with --check, or --no-check to export without proof"


@dataclass(frozen=True)
class Source:
    """A model to export.

    Attributes
    ----------
    net : HybridBlock
        As `load_model` returns it.
    path : Path
        Its parameters.
    run : Path or None
        The folder of its run, where it lies in one.
    recorded : dict
        Plain values of its run without paths: `run`, `data`, `measures` and `calibration`, each None where unknown.
    """

    net: HybridBlock
    path: Path
    run: Path | None
    recorded: dict[str, Any]

    @property
    def card(self) -> Card:
        """What the network is."""
        return self.net.weights

    def weights(self) -> dict[str, Any]:
        """Where the pretrained weights come from that the network began with, and their licence."""
        name = self.card.source
        try:
            row = catalog.find(name) if ":" in name else None
        except WeightsError:
            row = None
        return {"source": os.path.basename(name) or None, "source_sha256": self.card.source_sha256 or None,
                "licence": None if row is None else row.licence, "origin": None if row is None else row.origin}


def find(model: AnyPath) -> Source:
    """Loads a model and reads what its run recorded.

    Raises
    ------
    WeightsError
        As `evaluation.model.load_model` does.
    UserError
        A record of the run is damaged.
    """
    net = load_model(model)
    path = Path(net.params_path)
    folder = model_folder.holding(path)
    if folder is not None:
        manifest = model_folder.read_manifest(folder)
        return Source(net, path, None, {name: manifest.get(name) for name in _RECORDED})
    run = path.parent if (path.parent / data_record.NAME).is_file() else None
    return Source(net, path, run, dict.fromkeys(_RECORDED) if run is None else _recorded(run, path))


def _recorded(run: Path, path: Path) -> dict[str, Any]:
    started, result = (_read(run / name) for name in ("environment.json", "result.json"))
    data = data_record.read(run) or {"parts": {}}
    # The measures are of the model that the run ended with, which the folder stands for.
    own = Path(_main_parameters(run)) == path
    return {"run": {"name": run.resolve().name, "date": started.get("date"), "gluon_ft": started.get("gluon_ft"),
                    "strategy": result.get("strategy")},
            "data": {"sha256": data.get("sha256"),
                     "images": {name: part["images"] for name, part in data["parts"].items()}},
            "measures": result.get("measures") if own else None,
            "calibration": result.get("calibration") if own else None}


def _main_parameters(run: Path) -> Path:
    """The parameters that the folder of a run stands for."""
    return next((run / name for name in IN_FOLDER if (run / name).is_file()), run)


def _read(path: Path) -> dict[str, Any]:
    return run_files.read(path) if path.is_file() else {}


def images_to_check(source: Source, data: Any = None) -> tuple[ImageSource, str, list[str]]:
    """The images on which an export proves itself.

    Parameters
    ----------
    source : Source
    data : path-like, list of them, or ImageSource, optional
        Image files, folders with images in them, a list or packed records; labels do not count. Default: the validation
        part of the run.

    Returns
    -------
    (images, words, names)
        `words` say where they are from, and `names` what each is called, both without the folders above them.

    Raises
    ------
    DataError
        There are none.
    """
    if data is None:
        found = _part(source.run, VALIDATION)
        return found, "the run's validation part", _names(found, getattr(found, "root", None))
    if isinstance(data, ImageSource):
        return data, "images that were given", _names(data, None)
    if isinstance(data, (str, os.PathLike)) and os.path.isfile(data) and _is_packed(data):
        found = open_source(data, partial=True)
        return found, Path(data).name, _names(found, getattr(found, "root", None))
    found = Given(data)
    single = isinstance(data, (str, os.PathLike))
    return found, Path(data).resolve().name if single else "images that were given", _names(
        found, data if single and os.path.isdir(data) else None)


def _is_packed(path: AnyPath) -> bool:
    return Path(path).suffix.lower() in (".rec", ".lst", ".csv", ".tsv", ".txt")


def _names(images: ImageSource, root: AnyPath | None) -> list[str]:
    places = [images.where(position) for position in range(len(images))]
    if root is not None:
        return [os.path.relpath(place, root).replace(os.sep, "/") for place in places]
    return [os.path.basename(place) for place in places]


def images_of_run(run: Path | None, part: str) -> ImageSource | None:
    """The images of a part of a run; None where they are not known, or not there any more.

    Parameters
    ----------
    run : Path or None
    part : str
        `TRAINING` or `VALIDATION`.
    """
    try:
        return _part(run, part)
    except DataError:
        return None


def _part(run: Path | None, name: str) -> ImageSource:
    words = {TRAINING: "training", VALIDATION: "validation"}[name]
    record = None if run is None else data_record.read(run)
    part = None if record is None else record["parts"].get(name)
    if record is None or part is None or not part["images"]:
        raise DataError(f"no {words} images are known to check the export on", path=run, remedy=_REMEDY)
    if part["files"] is None:
        try:
            return open_source(part["source"], partial=True)
        except UserError as error:
            raise DataError(f"the run's {words} images cannot be opened ({error})", path=run,
                            remedy=_REMEDY) from error
    names, labels = [row[0] for row in part["files"]], [int(row[1]) for row in part["files"]]
    found = FileSource(part["source"], part["root"] or "", names, labels, record["classes"], kind="list")
    missing = [place for place in found.paths if not os.path.isfile(place)]
    if missing:
        raise DataError(f"a {words} image of the run is not there any more", path=missing[0],
                        found=f"{len(missing)} of {len(names)} missing", remedy=_REMEDY)
    return found
