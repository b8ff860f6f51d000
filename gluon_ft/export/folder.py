"""`export_model`: writes the folder of a model, checked, whole or not at all."""
from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
from mxnet.gluon import HybridBlock, SymbolBlock

from gluon_ft.data.sources.base import ImageSource
from gluon_ft.engine import blocks
from gluon_ft.errors import ConfigError, DataError, NetworkError, UserError
from gluon_ft.evaluation import unknowns
from gluon_ft.evaluation.model import head_of, load_model
from gluon_ft.evaluation.predict import class_names_of
from gluon_ft.export import certificate, model_card, onnx_files, source
from gluon_ft.export.int8 import build
from gluon_ft.export.source import Source
from gluon_ft.io import atomic, documents, locks, signals
from gluon_ft.io.checksums import sha256_of
from gluon_ft.io.paths import AnyPath
from gluon_ft.io.settings import plain
from gluon_ft.models import conversion, graph, tracing
from gluon_ft.models.graph import DATA
from gluon_ft.reporting import environment
from gluon_ft.runtime.gluon_internals import array_of, parameters_by_path
from gluon_ft.training import checkpoint
from gluon_ft.weights import card, model_folder
from gluon_ft.weights.readers.safetensors_files import write_safetensors


@dataclass(frozen=True)
class Export:
    """What `export_model` wrote.

    Attributes
    ----------
    folder : Path
    files : dict of str to int
        Name -> bytes.
    certificate : Certificate or None
        None without ONNX, or where no check was asked for.
    manifest : dict
        The contents of manifest.json.
    """

    folder: Path
    files: dict[str, int]
    certificate: certificate.Certificate | None
    manifest: dict[str, Any]


def export_model(model: AnyPath, folder: AnyPath, *, onnx: bool = False, check: Any = None, no_check: bool = False,
                 int8: bool = False, int8_loss: float | None = None, int8_keep: Sequence[str] = (),
                 safetensors: bool = False, force: bool = False) -> Export:
    """Exports a trained model to a folder that plain MXNet, ONNX Runtime and gluon_ft load; see docs/export.md.

    Parameters
    ----------
    model : path-like
        The folder of a run, a .params file with its card, or another export.
    folder : path-like
        Is made; an earlier export there is replaced.
    onnx : bool, default False
        Write `model.onnx` and `model-logits.onnx` as well, and run images through MXNet and ONNX Runtime.
    check : path-like, list of them, or ImageSource, optional
        The images: files, folders, a list or packed records. Default: the validation part of the run.
    no_check : bool, default False
        Leave that out: there is no certificate then.
    int8 : bool, default False
        With `onnx`: write `model-int8.onnx` too, in 8-bit integers, calibrated on images that the run was trained on;
        where these are not there, on a third of the images to check on, which do not judge it then.
    int8_loss : float, default 1.0
        Points of accuracy that it may lose on the images to check on where all have labels, else of decisions.
    int8_keep : sequence of str, optional
        Layers that stay in float32, such as 'features.0'.
    safetensors : bool, default False
        Write `model.safetensors`, for the same network in PyTorch, as well.
    force : bool, default False
        Replace a folder that is not an export; what is in it is lost.

    Raises
    ------
    WeightsError
        The model is missing or damaged, or has no PyTorch names.
    NetworkError
        The network has no ONNX form, or its ONNX form answers differently: an image's most probable class is another,
        or a probability differs by more than 1e-4. INT8 loses too much: the layer that costs most is named.
    DataError
        There are no images to check on, too few to calibrate with, or the folder is something else.
    ConfigError
        Options that do not go together, or no such layer to keep.
    DependencyError
        A package is missing.
    CheckpointError
        The folder cannot be written.

    In each of these cases nothing is written.
    """
    if no_check and check is not None:
        raise ConfigError("images to check on, and no check", remedy="leave out one of the two")
    if check is not None and not onnx:
        raise ConfigError("images to check on are for the ONNX model", remedy="export it too (--onnx), or leave them "
                                                                             "out")
    options = _int8(int8, int8_loss, int8_keep, onnx and not no_check)
    if onnx:
        onnx_files.check_packages()
    folder = Path(folder).resolve()
    found = source.find(model)
    _check_place(folder, found.path, force)
    images = source.images_to_check(found, check) if onnx and not no_check else None
    with signals.raised("stopped"), checkpoint.saving(folder, "the export cannot be written"), _alone(folder), \
            atomic.replacing_folder(folder, replace=True) as building:
        manifest, proof = _write(building, found, onnx, images, options, safetensors)
    sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    return Export(folder, sizes, proof, manifest)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """No other export writes the folder meanwhile, and what one that was killed left beside it is removed."""
    with locks.acquire(locks.beside(folder), waiting=f"waits for another export to {folder}"):
        atomic.remove_leftovers(folder)
        yield


def _int8(asked: bool, loss: float | None, keep: Sequence[str], checked: bool) -> build.Options | None:
    if not asked:
        if loss is not None or keep:
            raise ConfigError("a loss or layers of an INT8 model, and no such model", remedy="ask for it too (--int8), "
                                                                                             "or leave them out")
        return None
    if not checked:
        raise ConfigError("an INT8 model is made of the ONNX model, and judged on images",
                          remedy="export that too (--onnx), with its check")
    return build.Options(build.LOSS if loss is None else loss, tuple(dict.fromkeys(keep)))


def _check_place(folder: Path, model: Path, force: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise DataError("a file, not a folder", path=folder, remedy="choose another name")
    if not folder.exists() or not any(folder.iterdir()):
        return
    if folder in model.resolve().parents or folder in (Path.cwd(), *Path.cwd().parents):
        raise DataError("the model itself, or this process's folder, is in there", path=folder,
                        remedy="choose another folder")
    if not force and not model_folder.is_export(folder):
        raise DataError("not empty, and not an export", path=folder,
                        remedy="choose another folder, or have everything in it replaced with --force")


def _write(building: Path, found: Source, onnx: bool, images: Any, int8: build.Options | None,
           safetensors: bool) -> tuple[dict, Any]:
    net = found.net
    symbol, values = symbol_and_values(net)
    symbol.save(str(building / model_folder.SYMBOL))
    states = set(symbol.list_auxiliary_states())
    checkpoint.save_arrays({f"{'aux' if name in states else 'arg'}:{name}": mx.nd.array(value, dtype=value.dtype)
                            for name, value in values.items()}, building / model_folder.PARAMETERS)
    (building / model_folder.CLASSES).write_bytes(_lines(class_names_of(net)))
    _write_json(building / model_folder.PREPROCESSING, _prepared(net))
    if unknowns.of(net) is not None:
        shutil.copyfile(unknowns.beside(found.path), unknowns.beside(building / model_folder.PARAMETERS))
    if safetensors:
        _write_safetensors(building / model_folder.SAFETENSORS, found)
    proof = None
    if onnx:
        models = onnx_files.models(symbol, values, net, sha256_of(found.path))
        for name, model in models.items():
            (building / name).write_bytes(model.SerializeToString())
        if images is not None:
            made = None if int8 is None else build.write(building, models[model_folder.ONNX], symbol, found, images[0],
                                                         int8)
            proof = _proved(building, net, made, *images)
            _write_json(building / model_folder.CERTIFICATE, proof.to_dict())
    return _write_manifest(building, found, proof), proof


def _proved(building: Path, net: HybridBlock, made: build.Made | None, images: ImageSource, source: str,
            names: list[str]) -> certificate.Certificate:
    said = certificate.answers(net, building, images, source)
    proof = certificate.compare(net, building, images, source, names, said)
    proof.check(Path(source))
    if made is None:
        return proof
    return replace(proof, int8=build.judged(made, said, net, images, names, building).to_dict())


def _write_manifest(building: Path, found: Source, proof: Any) -> dict[str, Any]:
    """Writes README.md and manifest.json, and reads the folder as a user does."""
    about = found.card
    network = {"backbone": about.backbone, "head": about.head or {**head_of(found.net), "options": {}},
               "source": about.source, "source_sha256": about.source_sha256, "notes": list(about.notes),
               "extra": plain(about.extra), **({} if about.temperature is None else {"temperature": about.temperature})}
    recorded = environment.environment()
    manifest = {"format": model_folder.FORMAT, "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                "gluon_ft": recorded["gluon_ft"], "versions": recorded["versions"], "network": network,
                "source": {"file": found.path.name, "sha256": sha256_of(found.path)}, "weights": found.weights(),
                **found.recorded}
    names = sorted(path.name for path in building.iterdir())
    text = model_card.text(manifest, found.net, names, None if proof is None else proof.to_dict())
    (building / model_folder.README).write_bytes(text.encode("utf-8"))
    manifest["files"] = {path.name: sha256_of(path) for path in sorted(building.iterdir())}
    _write_json(building / model_folder.MANIFEST, manifest)
    _check_same(found.net, building)
    return manifest


def symbol_and_values(net: HybridBlock) -> tuple[mx.sym.Symbol, dict[str, np.ndarray]]:
    """The network's graph, and its parameters by the names that they have in the network ('features.0.weight').

    Gluon's own names depend on what else was built in the process.
    """
    names: dict[str, str] = {}
    own = parameters_by_path(net)
    for path, parameter in own.items():
        names.setdefault(parameter.name, path)

    def rename(node: dict[str, Any]) -> None:
        if node["op"] == "null":
            node["name"] = names.get(node["name"], node["name"])

    symbol = graph.edited(tracing.symbol(net), rename)
    used = set(symbol.list_inputs()) - {DATA}
    unused = set(names.values()) - used
    if unused or used - set(own):
        raise NetworkError("the network's graph does not have its parameters",
                           found=", ".join(sorted(unused or used - set(own))[:3]))
    return symbol, {name: array_of(own[name]) for name in symbol.list_inputs() if name != DATA}


def _check_same(net: HybridBlock, building: Path) -> None:
    """NetworkError unless what stands in the folder gives the network's outputs, by MXNet alone and by gluon_ft."""
    wanted = net.preprocessing
    data = mx.nd.array(np.random.RandomState(0).uniform(-1, 1, (2, wanted.channels, wanted.size, wanted.size)))
    expected = net(data).asnumpy()
    with blocks.quiet():
        plain_net = SymbolBlock.imports(str(building / model_folder.SYMBOL), [DATA],
                                        str(building / model_folder.PARAMETERS))
    ways: dict[str, Callable[[], Any]] = {"MXNet": lambda: plain_net, "gluon_ft": lambda: load_model(building)}
    for name, load in ways.items():
        found = load()(data).asnumpy()
        if not np.allclose(found, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max()):
            raise NetworkError(f"the exported model answers differently in {name}",
                               found=f"{np.abs(found - expected).max():.3g}", expected="the same outputs")


def _write_safetensors(path: Path, found: Source) -> None:
    about = found.card
    state = conversion.to_torch(found.net, about.backbone)
    write_safetensors(path, state, {"format": "pt", card.METADATA_KEY: about.to_json()})


def _prepared(net: HybridBlock) -> dict[str, Any]:
    """preprocess.json: the settings, and in words what to do with an image and with the output."""
    wanted = net.preprocessing
    return {"preprocessing": wanted.to_dict(), "temperature": net.temperature, "steps": model_card.steps(wanted),
            "output": model_card.output_steps(wanted, net.temperature)}


def _lines(names: list[str]) -> bytes:
    broken = [name for name in names if name.splitlines() != [name]]
    if broken:
        raise UserError("a class name has several lines", found=repr(broken[0]), remedy="rename the class")
    return "".join(f"{name}\n" for name in names).encode("utf-8", "surrogateescape")


def _write_json(path: Path, value: Any) -> None:
    path.write_bytes(documents.encoded(plain(value), indent=1) + b"\n")
