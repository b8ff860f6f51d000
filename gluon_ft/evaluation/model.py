"""Saves and loads trained networks: the parameters, and beside them the card from which the network is built again."""
from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import mxnet as mx
from mxnet.gluon import HybridBlock

from gluon_ft.data.images.preprocessing import Preprocessing
from gluon_ft.errors import CheckpointError, ConfigError, NetworkError, WeightsError
from gluon_ft.io import atomic
from gluon_ft.io.checksums import sha256_of
from gluon_ft.io.paths import AnyPath
from gluon_ft.io.settings import plain
from gluon_ft.models import heads, pretrained, registry, tracing
from gluon_ft.runtime.gluon_internals import parameters_by_path, set_array
from gluon_ft.training import checkpoint
from gluon_ft.weights import card, model_folder
from gluon_ft.weights.card import Card
from gluon_ft.weights.readers.tensor_files import check_finite, read_tensors

IN_FOLDER = ("best.params", "model.params", "last.params")  # of a run; the first one found is loaded
_EPOCH = r"-\d{4}\.params$"  # how the name of a symbol's parameters ends
_OF_A_SYMBOL = "it is the checkpoint of a symbol: docs/old_scripts.md says how it is trained, asked and exported"


def save_model(net: HybridBlock, path: AnyPath, *, classes: list[str] | None = None,
               preprocessing: Preprocessing | None = None, options: dict | None = None, notes: tuple[str, ...] = (),
               temperature: float | None = None, **extra) -> Path:
    """Writes the parameters to `path` and the card to `<path>.json`, each whole or not at all.

    Parameters
    ----------
    net : HybridBlock
        From the registry (`fine_tune_net`, `backbones.build`, `pretrained_net`), its output unchanged, replaced or
        appended to (`replace_output`, `append_output`, `heads.set_dropout`, `linear.set_output`).
    path : path-like
        Such as 'model.params'. An existing file is replaced; a missing folder is made.
    classes : list of str, optional
        Class names in the output's order; default `net.classes`.
    preprocessing : Preprocessing, optional
        Of the input; default `net.preprocessing`.
    options : dict, optional
        Plain values that were given to the backbone's constructor besides `classes`.
    notes : tuple of str
        Added to the notes of the source weights.
    temperature : float, optional
        By which the outputs are divided before the softmax, see `evaluation.calibration`; default `net.temperature`.
    extra
        Plain values to keep with the model; they are in `net.weights.extra` after loading.

    Returns
    -------
    Path
        `path`. Freezing, learning-rate multipliers and BatchNorm's mode belong to training, and are not saved.

    Raises
    ------
    ConfigError
        Class names or preprocessing are not known, or do not fit the network.
    NetworkError
        The network cannot be built again from the registry.
    CheckpointError
        The files cannot be written.
    """
    path = Path(path)
    about = replace(_describe(net, classes, preprocessing, options, notes, plain(extra)),
                    temperature=getattr(net, "temperature", None) if temperature is None else temperature)
    _check_same(_build(about), net)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic.replacing(path) as temporary:
            checkpoint.save_parameters(net, temporary)
            # The card is written first; when it is in place, only the renaming of the parameters is left.
            card.write(path, replace(about, sha256=sha256_of(temporary)))
    except OSError as error:
        raise CheckpointError("the model could not be saved", path=path, found=error.strerror or error,
                              remedy="free some space or choose another folder") from error
    return path


def copy_model(path: AnyPath, target: AnyPath, *, without: tuple[str, ...] = ()) -> Path:
    """Copies a saved model, parameters and card.

    Parameters
    ----------
    path : path-like
        Of the parameters, which have a card.
    target : path-like
        Of the new parameters.
    without : tuple of str
        Names of what `save_model` kept as `extra` that the copy does not have.

    Raises
    ------
    CheckpointError
        The files cannot be read or written.
    WeightsError
        There is no card.
    """
    target = Path(target)
    try:
        about = card.read(path)
        if about is None:
            raise WeightsError(*_missing(Path(path)), path=path)
        with atomic.replacing(target) as temporary:
            shutil.copyfile(path, temporary)
            card.write(target, replace(about, extra={k: v for k, v in about.extra.items() if k not in without}))
    except OSError as error:
        raise CheckpointError("the model could not be copied", path=target, found=error.strerror or error,
                              remedy="free some space or choose another folder") from error
    return target


def load_model(path: AnyPath, ctx: mx.Context | list[mx.Context] | None = None) -> HybridBlock:
    """Loads a network that `save_model` saved: in float32, hybridised, with `classes`, `preprocessing` and `weights`.

    It has also `temperature`, by which `predict` calibrates its probabilities; None where none was saved. A file that
    `gluon-ft weights` converted gives the backbone with its own output.

    Parameters
    ----------
    path : path-like
        The parameters, or a folder with one of `IN_FOLDER`, of which the first is taken; or the folder of an export.
    ctx : Context or list of Context, optional
        Default mx.cpu().

    Raises
    ------
    WeightsError
        The parameters or their card are missing or damaged, do not belong together, or are not finite; a file of an
        export was changed.
    """
    folder = model_folder.holding(path)
    path = _found(Path(path)) if folder is None else folder / model_folder.PARAMETERS
    about = model_folder.read(folder) if folder is not None else card.read(path) if path.is_file() else None
    if about is None:
        raise WeightsError(*_missing(path), path=path, remedy=_remedy(path))
    file = read_tensors(path)
    if about.sha256 and file.sha256 != about.sha256:
        raise WeightsError("not the parameters that their card describes", path=path,
                           expected=f"SHA-256 {about.sha256[:16]}...", found=f"{file.sha256[:16]}...",
                           remedy=f"copy both files again, {path.name} and {card.beside(path).name}")
    net = _of_as_many_classes(_build(about, path), about, file.tensors)
    own = parameters_by_path(net)
    tensors = file.tensors if folder is None else _under_every_path(own, file.tensors)
    _check_tensors(own, tensors, about, path)
    check_finite(tensors, path)
    for name, parameter in own.items():
        set_array(parameter, tensors[name], ctx or mx.cpu())
    net.hybridize()
    net.temperature, net.params_path = about.temperature, path
    return pretrained.attach(net, about)


def head_of(net: HybridBlock) -> dict:
    """How a network's output differs from its backbone's own, as plain values.

    classes, bias, linear, dropout : of the backbone's output layer (linear: no activation follows it);
    appended : [{name, classes, dropout}] of the layers on top of it, the lowest first.
    """
    appended = []
    while isinstance(net, heads.Appended):
        layer = getattr(net, net.output_name)
        appended.insert(0, {"name": net.output_name, "classes": layer.weight.shape[0],
                            "dropout": getattr(layer, "input_dropout", 0.0)})
        net = net.features
    with tracing.unchanged():
        return {"classes": tracing.output_layer(net).classes, "bias": heads.has_bias(net),
                "linear": not heads.after_output(net) & {"Activation"}, "dropout": heads.dropout_of(net),
                "appended": appended}


def _describe(net, classes, preprocessing, options, notes, extra) -> Card:
    entry = registry.of(net)
    if entry is None:
        raise NetworkError(f"{type(net).__name__} is not from the registry, and could not be built again",
                           expected="a network of fine_tune_net or backbones.build",
                           remedy="keep it with net.export(...)")
    source = getattr(net, "weights", None)
    classes = list(classes or getattr(net, "classes", None) or [])
    preprocessing = preprocessing or getattr(net, "preprocessing", None)
    count = tracing.output_layer(net).classes
    if len(classes) != count:
        raise ConfigError("the names of the classes do not fit the output", expected=f"{count} names",
                          found=f"{len(classes)}: {', '.join(map(str, classes[:4]))}" if classes else "none",
                          remedy="set net.classes, or give classes=[...]")
    if not isinstance(preprocessing, Preprocessing):
        raise ConfigError("it is not known what the network takes", expected="a Preprocessing",
                          remedy="set net.preprocessing, or give preprocessing=...")
    if preprocessing.channels != entry.channels:
        raise ConfigError("the preprocessing does not fit the network", expected=f"{entry.channels} channels",
                          found=f"'{preprocessing.channel_order}'")
    head = {**head_of(net), "options": plain(options or {})}
    return Card(entry.name, preprocessing, [str(name) for name in classes],
                source.source if source else "", source.source_sha256 if source else "",
                notes=(*(source.notes if source else ()), *notes), head=head, extra=extra)


def _build(about: Card, path=None) -> HybridBlock:
    """Builds the network that a card describes, without values of its parameters."""
    head = about.head
    try:
        entry = registry.get(about.backbone)
        if about.preprocessing.channels != entry.channels:
            raise NetworkError("the preprocessing does not fit the network", expected=f"{entry.channels} channels",
                               found=f"'{about.preprocessing.channel_order}'")
        if head is None:
            return registry.build(about.backbone, **({"classes": len(about.classes)} if about.classes else {}))
        registry.check_plain_options(about.backbone, head["options"])
        net = registry.build(about.backbone, **head["options"])
        layer = tracing.output_layer(net)
        if layer.classes != head["classes"]:
            heads.replace_output(net, head["classes"])
        if head["linear"] and (head["bias"], True) != (heads.has_bias(net), head_of(net)["linear"]):
            heads.make_linear(net)
        if head["dropout"]:
            heads.set_dropout(net, head["dropout"])
        for layer in head["appended"]:
            net = heads.append_output(net, layer["classes"], layer["name"])
            if layer.get("dropout"):
                heads.set_dropout(net, layer["dropout"])
        return net
    except (NetworkError, ConfigError) as error:
        if path is None:
            raise
        raise WeightsError(f"the card does not describe a network that can be built ({error})", path=card.beside(path),
                           remedy="save the model again") from error


def _of_as_many_classes(net, about, tensors) -> HybridBlock:
    """The network, or where its card tells neither output nor classes, the one with as many as the file has."""
    if about.head is not None or about.classes:
        return net
    layer = tracing.output_layer(net)
    weight = tensors.get(next(name for name, p in parameters_by_path(net).items() if p is layer.block.weight))
    if weight is None or weight.shape[0] == layer.classes:
        return net
    return registry.build(about.backbone, classes=weight.shape[0])


def _check_same(built, net):
    """NetworkError unless both have the same parameters: names, and shapes as far as they are known."""
    wrong = _differing(parameters_by_path(net), parameters_by_path(built))
    if wrong:
        raise NetworkError("the network was changed in a way that a model file does not describe", found=wrong[0],
                           expected="an output that was replaced or appended to",
                           remedy="say how it was built (options={...}), or keep it with net.export(...)")


def _check_tensors(own, tensors, about, path):
    wrong = _differing(own, tensors)
    if wrong:
        name = wrong[0]
        raise WeightsError(f"not the parameters of {about.backbone} as its card describes it", path=path,
                           expected=f"{name} {own[name].shape}" if name in own else f"no {name}",
                           found=tuple(tensors[name].shape) if name in tensors else f"no {name}",
                           remedy="copy both files again, or save the model again")


def _under_every_path(own, tensors):
    """An export has each parameter once, under its first path; here under all of them (GoogLeNet's output has two)."""
    first: dict = {}
    for name, parameter in own.items():
        first.setdefault(id(parameter), name)
    same = {name: first[id(parameter)] for name, parameter in own.items()}
    return {**tensors, **{name: tensors[source] for name, source in same.items() if source in tensors}}


def _differing(first, second) -> list[str]:
    """Names that only one of two mappings to arrays or parameters has, or that have different shapes."""
    return [name for name in [*first, *second] if name not in first or name not in second
            or not _fits(first[name].shape, second[name].shape)]


def _fits(shape, other) -> bool:
    """Whether two shapes are equal; an extent of 0 is not known yet, and fits any other; so does a shape of None."""
    return shape is None or other is None or (
        len(shape) == len(other) and all(a == b or not a or not b for a, b in zip(shape, other)))


def _found(path) -> Path:
    """The model's file: `path` itself, or in a folder the first of `IN_FOLDER` that has a card."""
    inside = [path / name for name in IN_FOLDER] if path.is_dir() else []
    return next((file for file in inside if file.is_file() and card.beside(file).is_file()), path)


def _missing(path) -> tuple[str]:
    if path.is_file():
        return (f"its card {card.beside(path).name} is missing, which says what network it is",)
    return ("no such model",)


def _remedy(path) -> str:
    if path.is_file() and (path.parent / f"{re.sub(_EPOCH, '', path.name)}-symbol.json").is_file():
        return _OF_A_SYMBOL
    if path.is_file():
        return "copy it beside the parameters, or save the network with save_model"
    if path.is_dir():
        found = sorted(p for p in path.glob("**/*.params") if card.beside(p).is_file())
        if not found and any(path.glob("*-symbol.json")):
            return _OF_A_SYMBOL
        return f"give a saved model, such as {found[0]}" if found else "give a .params file that has its card beside it"
    return "check the path"
