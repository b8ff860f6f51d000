"""Networks filled with pretrained weights of the catalog or a file, with their class names and preprocessing."""
from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import mxnet as mx
import numpy as np
from mxnet.gluon import HybridBlock

from gluon_ft.errors import DownloadError, NetworkError, WeightsError
from gluon_ft.io import atomic
from gluon_ft.io.checksums import sha256_of
from gluon_ft.models import conversion as convert
from gluon_ft.models import registry, tracing
from gluon_ft.models.batchnorm import FOLDED_NOTE, batchnorm_is_folded
from gluon_ft.models.spec import ModelSpec, resolve
from gluon_ft.weights import card, catalog, class_names, name_maps, store
from gluon_ft.weights.card import Card
from gluon_ft.weights.catalog import Row
from gluon_ft.weights.readers.params_files import check_whole
from gluon_ft.weights.readers.tensor_files import TensorFile, read_tensors

# Part of the names of converted files in the cache: raise it when a map changes.
_CONVERTER = 1


@dataclass(frozen=True)
class Loaded:
    """What was put into a network.

    card : source, preprocessing, class names (None where the output was left out), and notes to show;
    output : whether the network has the source's output layer.
    """

    card: Card
    output: bool


def pretrained_net(backbone: str | ModelSpec, pretrained: bool | str | os.PathLike[str] | Row = True,
                   ctx: mx.Context | list[mx.Context] | None = None) -> HybridBlock:
    """The source network with its own output and classes, hybridised.

    Parameters
    ----------
    backbone : str or ModelSpec
        Such as 'resnet50_v1b'; of 'mobilenetv2_1.0' with PyTorch's weights the form with a bias in the output,
        'mobilenetv2_1.0_bias', is returned. A ModelSpec says what the weights are, and `pretrained` is left out.
    pretrained : True, a tag of the catalog ('gluon_in1k'), 'BACKBONE:TAG', or a path
        True: the catalog's preferred row.
    ctx : mx.Context or list of them, default mx.cpu()

    Returns
    -------
    HybridBlock
        With `classes` (list of names, None where not known), `preprocessing` (Preprocessing), and `weights` (Card).

    Raises
    ------
    WeightsError
        For an unknown tag, for a file that does not fit, and where random weights are asked for.
    DownloadError
        Where the weights cannot be had.
    """
    wanted = resolve(backbone, pretrained)
    source = _named(wanted)
    if isinstance(source, Row):
        with _naming_others(wanted):
            conversion, origin = _whole(source)
    else:
        tensors, origin = _file_tensors(source, wanted.backbone)
        with convert.naming(source):
            conversion = convert.to_gluon(tensors, _with_bias(wanted.backbone, tensors))
    net = convert.fill(conversion, ctx)
    net.hybridize()
    return attach(net, _noted(origin, net, conversion.backbone))


def load(net: HybridBlock, backbone: str | ModelSpec, pretrained: bool | str | os.PathLike[str] | Row = True,
         ctx: mx.Context | list[mx.Context] | None = None, init: mx.init.Initializer | None = None) -> Loaded:
    """Fills a network of a backbone in place.

    Its output is filled too where the source's has as many classes, and like it a bias or none. Otherwise the output is
    initialised and a note says so: for networks whose output is replaced anyway.

    Parameters
    ----------
    net : HybridBlock
        Gets the attributes `classes`, `preprocessing` and `weights`, as in `pretrained_net`.
    backbone, pretrained
        As in `pretrained_net`.
    ctx : mx.Context or list of them, default mx.cpu()
    init : Initializer, default Xavier()
        Of an output that the source does not fit.

    Returns
    -------
    Loaded

    Raises
    ------
    WeightsError, DownloadError
        As of `pretrained_net`.
    """
    wanted = resolve(backbone, pretrained)
    name, source = wanted.backbone, _named(wanted)
    if isinstance(source, Row):
        with _naming_others(wanted):
            tensors, origin = _kept(source, name) or _row_tensors(source)
    else:
        tensors, origin = _file_tensors(source, name)
    with convert.naming(source.name if isinstance(source, Row) else source):
        fits = _output_fits(net, tensors, name)
        convert.fill(convert.to_gluon(tensors, name, net=net, output=fits), ctx, init)
    about = _noted(origin, net, name)
    if not fits:
        about = replace(about, classes=None, notes=(*about.notes, "the output was left out: it does not fit"))
    attach(net, about)
    return Loaded(about, fits)


def attach(net: HybridBlock, found: Card) -> HybridBlock:
    """Sets `classes`, `preprocessing` and `weights` of a network from a card."""
    net.classes, net.preprocessing, net.weights = found.classes, found.preprocessing, found
    return net


@contextlib.contextmanager
def _naming_others(wanted: ModelSpec) -> Iterator[None]:
    """Where the preferred weights of a backbone cannot be had: names its other ones that are here."""
    try:
        yield
    except DownloadError as error:
        others = [repr(row.tag) for row in catalog.rows(wanted.backbone)
                  if row != wanted.weights and store.is_here(row) and not row.is_symbolic]
        if not wanted.preferred or not others:
            raise
        raise DownloadError(error.message, path=error.path, expected=error.expected, found=error.found,
                            remedy=f"take pretrained={' or '.join(others)}, at hand, or {error.remedy}") from error


def convert_row(row: Row, offline: bool = False, progress: bool = True) -> Path:
    """Fetches the files of a row, converts them, and keeps the result in the cache.

    Parameters
    ----------
    row : Row
        Of the catalog. A single file that has Gluon's names already is left as it is.
    offline : bool, default False
        Fetch nothing.
    progress : bool, default True
        Show a progress bar.

    Returns
    -------
    Path
        Of the .params file. The backbone in the card beside it may be the form with a bias in the output, see
        `pretrained_net`.

    Raises
    ------
    DownloadError
        The files cannot be had.
    WeightsError
        They do not fit the backbone.
    """
    conversion, _ = _whole(row, offline, progress)
    kept = _place(row, conversion.backbone)
    return kept if kept.is_file() else store.get(row, offline, progress).path


def write_params(path: str | os.PathLike[str], params: dict[str, np.ndarray], about: Card) -> Path:
    """Writes a .params file for `load_parameters`, and its card beside it; whole or not at all.

    Parameters
    ----------
    path : path-like
        The folder is made where it is missing; a file that is there is replaced.
    params : dict of str to ndarray
        By path in the network.
    about : Card
        Its `sha256` becomes that of the file.

    Returns
    -------
    Path

    Raises
    ------
    OSError
        The file cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic.replacing(path) as temporary:
        mx.nd.save(str(temporary), {name: mx.nd.array(array) for name, array in params.items()})
        check_whole(temporary)
        card.write(path, replace(about, sha256=sha256_of(temporary)))
    return path


def describe(path: str | os.PathLike[str], backbone: str, found: TensorFile) -> Card:
    """Finds the card of a file: its own, the catalog's where the hash is known, or the backbone's usual one.

    Parameters
    ----------
    path : path-like
        The weights file; its own card is looked for beside it and in its header.
    backbone : str
        For a card that is not the file's own.
    found : TensorFile
        What was read from the file; its `sha256` and `metadata` count.
    """
    own = card.read(path, found.metadata)
    if own is not None:
        return replace(own, source_sha256=found.sha256)
    for row in catalog.rows():
        if any(_published(files[0], found.sha256) for files in row.sources):
            return replace(_row_card(row), backbone=backbone, source_sha256=found.sha256)
    usual = registry.usual_preprocessing(registry.get(backbone))
    return Card(backbone, usual, None, Path(path).name, found.sha256,
                notes=(f"preprocessing not known; taken to be the usual one of {backbone}: {usual}",))


def _published(file: catalog.File, digest: str) -> bool:
    known = file.checksums
    return known.sha256 == digest or bool(known.sha256_prefix and digest.startswith(known.sha256_prefix))


def _named(wanted: ModelSpec) -> Row | Path:
    """The weights of a ModelSpec, which has to have some."""
    if wanted.weights is None:
        raise WeightsError(f"no weights of {wanted.backbone} named", expected="a tag of the catalog, or a file",
                           found=wanted.reason)
    return wanted.weights


def _file_tensors(path: Path, backbone: str) -> tuple[dict[str, np.ndarray], Card]:
    file = read_tensors(path)
    return file.tensors, describe(path, backbone, file)


def _row_card(row: Row) -> Card:
    notes = tuple(text for text in (row.note,) if text)
    return Card(row.backbone, row.preprocessing, class_names.named(row.classes), row.name, notes=notes)


def _row_tensors(row: Row, offline: bool = False, progress: bool = True) -> tuple[dict[str, np.ndarray], Card]:
    """The tensors of a row, overlays put over the main ones, and its card."""
    found = store.get(row, offline, progress)
    if any(file.role == "symbol" for file in found.files):
        raise WeightsError(f"{row.name} are the weights of a symbolic network", path=found.path,
                           remedy="use gluon_ft.symbolic")
    main, *overlays = [read_tensors(path) for path in found.paths]
    tensors = dict(main.tensors)
    for overlay in overlays:
        stray = [name for name in overlay.tensors if name not in tensors]
        if stray:
            raise WeightsError("does not go with the main file", path=overlay.path, found=stray[0])
        tensors.update(overlay.tensors)
    return tensors, replace(_row_card(row), source_sha256=main.sha256)


def _whole(row: Row, offline: bool = False, progress: bool = True) -> tuple[convert.Conversion, Card]:
    """A row's network with its output; converted once, then taken from the cache."""
    for target in (f"{row.backbone}_bias", row.backbone):
        kept = _kept(row, target)
        if kept is not None:
            return convert.to_gluon(kept[0], target), kept[1]
    tensors, origin = _row_tensors(row, offline, progress)
    with convert.naming(row.name):
        conversion = convert.to_gluon(tensors, _with_bias(row.backbone, tensors))
    if conversion.style != "gluon" or len(row.sources[0]) > 1:
        write_params(_place(row, conversion.backbone), conversion.params,
                     replace(origin, backbone=conversion.backbone))
    return conversion, origin


def _kept(row: Row, target: str) -> tuple[dict[str, np.ndarray], Card] | None:
    """The tensors of a row as converted before for a backbone, where the file is as it was written."""
    path = _place(row, target)
    about = card.read(path) if path.is_file() else None
    if about is None:
        return None
    file = read_tensors(path)
    return (file.tensors, about) if file.sha256 == about.sha256 else None


def _place(row: Row, target: str) -> Path:
    return store.folder() / "converted" / f"{target}--{row.tag}--v{_CONVERTER}.params".replace("/", "-")


def _with_bias(backbone: str, tensors: dict[str, np.ndarray]) -> str:
    """The backbone, or its form with a bias in the output where the source has one and the backbone has not."""
    form = f"{backbone.rpartition('/')[2]}_bias"
    if form in name_maps.all_maps() and backbone in name_maps.all_maps():
        mapped = name_maps.best(form, tensors)
        if mapped.likeness(tensors) > 0.5 and f"{mapped.output}.bias" in tensors:
            return form
    return backbone


def _output_fits(net: HybridBlock, tensors: dict[str, np.ndarray], backbone: str) -> bool:
    layer = tracing.output_layer(net)
    shapes = convert.output_shapes(tensors, backbone, net)
    return shapes.get("weight", (None,))[0] == layer.classes and ("bias" in shapes) == (layer.block.bias is not None)


def _noted(origin: Card, net: HybridBlock, target: str) -> Card:
    notes = (*origin.notes, FOLDED_NOTE) if batchnorm_is_folded(net) else origin.notes
    classes = origin.classes
    with contextlib.suppress(NetworkError):
        if classes is not None and len(classes) != tracing.output_layer(net).classes:
            classes = None
    return replace(origin, backbone=target, notes=tuple(dict.fromkeys(notes)), classes=classes)
