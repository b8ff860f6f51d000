"""Weights from PyTorch's names to Gluon's and back, by explicit maps, with every parameter accounted for."""
from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import mxnet as mx
import numpy as np
from mxnet.gluon import Block, HybridBlock, nn

from gluon_ft.errors import WeightsError, printable
from gluon_ft.models import gluon_names, registry, tracing
from gluon_ft.models.batchnorm import refer_to_epsilon
from gluon_ft.runtime.gluon_internals import array_of, is_initialised, own_parameters, parameters_by_path, set_array
from gluon_ft.weights import name_maps
from gluon_ft.weights.name_maps.base import COUNTER, TORCH_BATCHNORM, NameMap

# Styles that are PyTorch networks; 'imgclsmob' names Gluon ones.
TORCH_STYLES = ("torchvision", "timm", "akamaster", "ml-illustrated")
Tensors = dict[str, np.ndarray]
_OUTPUT_LEFT_OUT = "the output layer is left out"


@dataclass(frozen=True)
class Conversion:
    """Parameters for a network here, and where each came from.

    backbone, net : the network's name, and the network (not filled yet: see `fill`).
    params : path in the network -> float32 array, of the shapes that the network has.
    used : name in the source -> path in the network.
    dropped : name in the source -> why it was left out.
    filled : paths that have no source and got the value that does nothing (see `names.Inserted`).
    style, model : whose names the source has, and which network it is there; 'gluon' for Gluon's own names.
    classes : of the source's output; None where it has none.
    """

    backbone: str
    net: HybridBlock
    params: dict[str, np.ndarray]
    used: dict[str, str]
    dropped: dict[str, str]
    filled: tuple[str, ...]
    style: str
    model: str
    classes: int | None


def to_gluon(tensors: Tensors, backbone: str, net: HybridBlock | None = None, output: bool = True,
             epsilon: float | None = None) -> Conversion:
    """The parameters of a backbone from a state dict of the PyTorch network that equals it, or with Gluon's own names.

    Parameters
    ----------
    tensors : dict
        Name -> array, as `tensor_files.read_tensors` gives them; floats of any width become float32.
    backbone : str
        A name of `names.backbones()`, or any backbone for tensors with Gluon's own names.
    net : HybridBlock, optional
        The network to convert for; by default it is built with as many classes as the source has.
    output : bool, default True
        Whether the output layer is taken; without it the source's is left out, and the network's not given.
    epsilon : float, optional
        Of the source's BatchNorm layers, where it differs from the network's: then the variances are shifted so that
        the function in inference stays the same. Default: as in the network, true of all networks known here.

    Returns
    -------
    Conversion

    Raises
    ------
    WeightsError
        For a backbone that no PyTorch network is known to equal, and for tensors that are missing, left over, not
        finite or of another shape, with the first of them, and which network they look like.
    """
    with _told_by_gluons_names(tensors, backbone):
        return _converted(tensors, backbone, net, output, epsilon)


@contextlib.contextmanager
def _told_by_gluons_names(tensors: Tensors, backbone: str) -> Iterator[None]:
    """An error about a file with Gluon's own names says what that file is; the maps know PyTorch's names only."""
    try:
        yield
    except WeightsError as error:
        seen = gluon_names.looks_like(tensors)
        if seen is None or (seen.backbone == backbone and not seen.features_only):
            raise
        raise WeightsError(f"not the weights of {backbone}", expected=f"all weights of {backbone}", found=seen.words,
                           remedy=seen.remedy(backbone)) from error


def _converted(tensors: Tensors, backbone: str, net: HybridBlock | None, output: bool,
               epsilon: float | None) -> Conversion:
    probe = net or registry.build(backbone)
    mapped, tensors = _map_for(tensors, backbone, probe)
    classes = _classes(tensors, mapped)
    if net is None:
        net = registry.build(backbone, classes=classes) if classes else probe
    shapes, layers = target_shapes(net, backbone), dict(tracing.blocks(net))
    plan = _plan(mapped, layers, output)
    _check_names(tensors, mapped, plan, shapes, output)
    _check_values(tensors, mapped, plan, shapes)
    params = {path: np.ascontiguousarray(tensors[name], "float32").reshape(shapes[path])
              for name, path in plan.items()}
    if epsilon is not None:
        refer_to_epsilon(params, net, epsilon)
    for extra in mapped.inserted:
        params.update(extra.make(params, {path: shapes[path] for path in extra.paths}))
    wanted = {path for path in shapes if output or not _within(path, mapped.layers[mapped.output])}
    if wanted != set(params):
        raise WeightsError(f"{backbone} has parameters that the names of {mapped.model} do not cover",
                           found=_few(sorted(wanted ^ set(params))), remedy="give a network of that architecture")
    dropped = {name: mapped.reason_to_drop(name) or _OUTPUT_LEFT_OUT for name in tensors if name not in plan}
    return Conversion(backbone, net, params, plan, dropped, tuple(p for e in mapped.inserted for p in e.paths),
                      mapped.style, mapped.model, classes)


def fill(conversion: Conversion, ctx: mx.Context | list[mx.Context] | None = None,
         init: mx.init.Initializer | None = None) -> HybridBlock:
    """Puts converted parameters into their network.

    Parameters
    ----------
    conversion : Conversion
    ctx : mx.Context or list of them, default mx.cpu()
    init : Initializer, default Xavier()
        Of the parameters that the conversion does not have and that have no value yet (an output left out).

    Returns
    -------
    HybridBlock
        `conversion.net`.
    """
    ctx, own = ctx or mx.cpu(), parameters_by_path(conversion.net)
    for path, parameter in own.items():
        if path in conversion.params:
            set_array(parameter, conversion.params[path], ctx)
    rest = {path: p for path, p in own.items() if path not in conversion.params and not is_initialised(p)}
    shapes = target_shapes(conversion.net, conversion.backbone) if rest else {}
    for path, parameter in rest.items():
        parameter.shape = shapes[path]
        parameter.initialize(init=None, ctx=ctx, default_init=init or mx.init.Xavier(), force_reinit=True)
    tracing.forget_graphs(conversion.net)
    return conversion.net


def torch_network(backbone: str) -> str:
    """The PyTorch network whose names `to_torch` gives, such as "torchvision's resnet18"; WeightsError for none."""
    mapped = _torch_map(backbone)
    return f"{mapped.style}'s {mapped.model}"


def _torch_map(backbone, style=None) -> name_maps.NameMap:
    mapped = next((m for m in name_maps.of(backbone, style) if m.style in TORCH_STYLES), None)
    if mapped is None:
        raise WeightsError(f"no PyTorch network is known that equals '{backbone}'")
    return mapped


def to_torch(net: HybridBlock, backbone: str, style: str | None = None) -> Tensors:
    """The state dict of the PyTorch network that equals a backbone: the way back from `to_gluon`.

    Parameters
    ----------
    net : HybridBlock
    backbone : str
    style : str, optional
        'torchvision', 'timm', 'akamaster' or 'ml-illustrated'.
        Default: the first that is known for the backbone.

    Returns
    -------
    dict
        Name -> array. Auxiliary classifiers are not in it (build torchvision's inception_v3 with `aux_logits=False`);
        every BatchNorm's `num_batches_tracked` is 0.

    Raises
    ------
    WeightsError
        Where no such network is known, where `net` is not that backbone or is not initialised, and where a part that
        the PyTorch network does not have has been trained.
    """
    mapped = _torch_map(backbone, style)
    arrays, layers = _arrays(net), dict(tracing.blocks(net))
    plan = _plan(mapped, layers, output=True)
    extra = {path for entry in mapped.inserted for path in entry.paths}
    if set(plan.values()) | extra != set(arrays):
        raise WeightsError(f"the network is not a {backbone}", found=_few(sorted(
            (set(plan.values()) | extra) ^ set(arrays))),
            remedy="export the backbone with its output replaced, not appended to")
    for entry in mapped.inserted:
        if not entry.holds(arrays):
            raise WeightsError(f"{mapped.style}'s {mapped.model} cannot express this network: it has no "
                               f"{entry.paths[0].rpartition('.')[0]} ({entry.why}), which was trained here",
                               remedy=_other_backbones(mapped))
    state = {}
    for name, path in plan.items():
        shape = mapped.weight_shapes.get(name.rpartition(".")[0]) if name.endswith(".weight") else None
        state[name] = arrays[path].reshape(shape) if shape else arrays[path]
        if name.endswith(".running_var"):
            state[name.replace(".running_var", "." + COUNTER)] = np.zeros((), "int64")
    return state


def _other_backbones(mapped: NameMap) -> str:
    others = [b for b, entries in name_maps.all_maps().items() for e in entries
              if (e.style, e.model) == (mapped.style, mapped.model) and not e.inserted]
    return f"fine-tune {others[0]} instead" if others else "keep it as .params"


@contextlib.contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Within the block, a WeightsError that does not name a file gets this `path`."""
    try:
        yield
    except WeightsError as error:
        if error.path is not None:
            raise
        raise error.at(path) from error


def target_shapes(net: HybridBlock, backbone: str) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter by path, inferred from the backbone's input; nothing is computed or initialised."""
    graph = tracing.symbol(net)
    arguments, _, states = graph.infer_shape(data=registry.input_shape(backbone))
    shapes = dict(zip([*graph.list_arguments(), *graph.list_auxiliary_states()], [*arguments, *states]))
    return {path: tuple(shapes.get(p.name, p.shape)) for path, p in parameters_by_path(net).items()}


def output_shapes(tensors: Tensors, backbone: str, net: HybridBlock) -> dict[str, tuple[int, ...]]:
    """Shapes of the source's output layer.

    Parameters
    ----------
    tensors : dict of str to ndarray
        As `to_gluon` takes them.
    backbone : str
        Whose names are looked for.
    net : HybridBlock
        A network of that backbone, for tensors with Gluon's own names.

    Returns
    -------
    dict
        'weight', and 'bias' where there is one -> shape; empty where the source has no output.
    """
    with _told_by_gluons_names(tensors, backbone):
        mapped, tensors = _map_for(tensors, backbone, net)
    return {kind: tensors[f"{mapped.output}.{kind}"].shape for kind in ("weight", "bias")
            if f"{mapped.output}.{kind}" in tensors}


def _map_for(tensors: Tensors, backbone: str, net: HybridBlock) -> tuple[NameMap, Tensors]:
    """The map for these tensors, and the tensors with that map's names."""
    own = gluon_names.by_path(tensors, net)
    if own is None:
        return name_maps.best(backbone, tensors), tensors
    if backbone in name_maps.all_maps():
        # Some networks have half of their names there and here.
        known = name_maps.best(backbone, tensors)
        if known.likeness(tensors) > _likeness_to_own(own, net):
            return known, tensors
    return _own_map(net, backbone), own


def _plan(mapped: NameMap, layers: dict[str, Block], output: bool) -> dict[str, str]:
    """Name there -> path here, of every parameter of every layer in the map."""
    plan = {}
    for there, here in mapped.layers.items():
        if here not in layers:
            raise WeightsError(f"the network has no layer '{here}', which is '{there}' in {mapped.model}",
                               remedy=f"give a {mapped.backbone}")
        if there == mapped.output and not output:
            continue
        renamed = {own: theirs for theirs, own in mapped.batchnorm.items()} if isinstance(
            layers[here], nn.BatchNorm) else {}
        for own in own_parameters(layers[here]):
            plan[f"{there}.{renamed.get(own, own)}"] = f"{here}.{own}"
    return plan


def _classes(tensors: Tensors, mapped: NameMap) -> int | None:
    weight = tensors.get(mapped.output + ".weight")
    return weight.shape[0] if weight is not None and weight.ndim else None


def _check_names(tensors: Tensors, mapped: NameMap, plan: dict[str, str], shapes: dict[str, tuple[int, ...]],
                 output: bool) -> None:
    skipped = () if output else (mapped.output + ".",)
    missing = [f"{name} {shapes[path]}" for name, path in plan.items() if name not in tensors]
    left = [name for name in tensors if name not in plan and not mapped.reason_to_drop(name)
            and not name.startswith(skipped)]
    if not missing and not left:
        return
    expected = f"{_few(missing)}, as in {mapped.style}'s {mapped.model}" if missing else None
    if left == [mapped.output + ".bias"] and not missing:
        others = [b for b in name_maps.backbones() if b == f"{mapped.backbone.rpartition('/')[2]}_bias"]
        raise WeightsError(f"the output of {mapped.backbone} has no bias, the source has one", found=left[0],
                           remedy=f"use {' or '.join(others)}, or leave the output out")
    raise WeightsError(f"not the weights of {mapped.backbone}", expected=expected,
                       found=f"{_few(left)}, which has no place" if left else None, remedy=_likeness(tensors, mapped))


def _likeness(tensors: Tensors, mapped: NameMap) -> str:
    alike = list(dict.fromkeys(m.backbone for m in name_maps.looks_like(tensors)))
    if alike and mapped.backbone not in alike:
        return f"they look like {' or '.join(alike[:4])}"
    return f"give a file with all weights of {mapped.style}'s {mapped.model}"


def _check_values(tensors: Tensors, mapped: NameMap, plan: dict[str, str], shapes: dict[str, tuple[int, ...]]) -> None:
    for name, path in plan.items():
        array, shape, (module, _, kind) = tensors[name], shapes[path], name.rpartition(".")
        there = mapped.weight_shapes.get(module) if kind == "weight" else None
        there = (shape[0], *there[1:]) if there else shape
        if array.shape != there:
            raise WeightsError(f"not the weights of {mapped.backbone}", expected=f"{printable(name)} {there}",
                               found=tuple(array.shape), remedy=_likeness(tensors, mapped))
        if array.dtype.kind != "f":
            raise WeightsError(f"{printable(name)} holds no floating-point numbers", found=array.dtype)
        if not np.isfinite(array).all():
            raise WeightsError(f"{printable(name)} has values that are not finite")


def _arrays(net: HybridBlock) -> Tensors:
    empty = [path for path, p in parameters_by_path(net).items() if not is_initialised(p)]
    if empty:
        raise WeightsError("the network is not initialised", found=_few(empty), remedy="load its weights first")
    return {path: array_of(p) for path, p in parameters_by_path(net).items()}


def _within(path: str, block: str) -> bool:
    return path.startswith(block + ".")


def _few(items: list[str]) -> str:
    shown = ", ".join(printable(item, 120) for item in items[:3])
    return f"{shown} and {len(items) - 3} more" if len(items) > 3 else shown


def _likeness_to_own(tensors: dict[str, np.ndarray], net: HybridBlock) -> float:
    """Share of names that a file and a network have in common, 0 to 1."""
    own = set(parameters_by_path(net))
    return len(own & set(tensors)) / len(own | set(tensors))


def _own_map(net: HybridBlock, backbone: str) -> NameMap:
    """The map of a network's own names onto themselves."""
    layers = {path.rpartition(".")[0]: path.rpartition(".")[0] for path in parameters_by_path(net)}
    return NameMap(backbone, "gluon", backbone, layers, tracing.output_layer(net).path,
                   batchnorm={name: name for name in TORCH_BATCHNORM.values()})
