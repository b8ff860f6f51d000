"""Cuts a network into stages: stem, stage1, ..., output, wherever the size of what flows through it changes."""
from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass

import mxnet as mx
from mxnet.gluon import Block, nn

from gluon_ft.errors import NetworkError
from gluon_ft.models import registry, tracing
from gluon_ft.runtime.gluon_internals import hyperparameters, parameters_by_path

# (height and width, 'output', or None after flattening; the parts whose results have them)
_Run = tuple[object, list[tracing.Part]]


@dataclass(frozen=True)
class Stage:
    """Consecutive parts of a network whose outputs have the same height and width.

    name : 'stem', 'stage1', ..., 'output'; paths and blocks : its parts; size : (height, width), None after flattening.
    """

    name: str
    paths: tuple[str, ...]
    blocks: tuple[Block, ...]
    size: tuple[int, int] | None

    def parameters(self) -> dict:
        """Its parameters by path."""
        return {f"{path}.{key}" if path else key: value for path, block in zip(self.paths, self.blocks)
                for key, value in parameters_by_path(block).items()}


def stages(net: Block, input_shape: tuple[int, ...] | None = None) -> list[Stage]:
    """The network cut into stages: wherever height and width of what flows through it change, and at its output.

    Parameters
    ----------
    net : Block
    input_shape : tuple of int, optional
        Default (1, channels, size, size) as the network needs it, found by trying the registry's sizes.

    Returns
    -------
    list of Stage
        From the input on; the last is the output.

    Raises
    ------
    NetworkError
        Where the network cannot be traced, or none of the usual sizes fits it.
    """
    steps = tracing.parts(net, input_shape or _fitting_shape(net))
    try:
        output = tracing.output_layer(net).path
    except NetworkError:
        output = None
    runs: list[_Run] = []
    for step in steps:
        is_output = output is not None and (output == step.path or output.startswith(step.path + "."))
        size = "output" if is_output else (step.shape[2:] if step.shape and len(step.shape) == 4 else None)
        if not runs or runs[-1][0] != size:
            runs.append((size, []))
        runs[-1][1].append(step)
    return _named(_merged(runs))


def _merged(runs: list[_Run]) -> list[_Run]:
    """Runs without weights (pooling, flattening) belong to the one before; a first one (a BatchNorm of the input) to
    the one after."""
    kept = []
    for size, steps in runs:
        if kept and not _weighted(steps):
            kept[-1][1].extend(steps)
        elif len(kept) == 1 and not _weighted(kept[0][1]):
            kept = [(size, [*kept[0][1], *steps])]
        else:
            kept.append((size, list(steps)))
    return kept


def _weighted(steps: list[tracing.Part]) -> bool:
    return any(name.endswith("weight") for step in steps for name in step.block.collect_params())


def _named(runs: list[_Run]) -> list[Stage]:
    named = []
    for index, (size, steps) in enumerate(runs):
        name = "output" if size == "output" else "stem" if index == 0 else f"stage{index}"
        named.append(Stage(name, tuple(s.path for s in steps), tuple(s.block for s in steps),
                           size if isinstance(size, tuple) else None))
    return named


def _fitting_shape(net: Block) -> tuple[int, ...]:
    entry = registry.of(net)
    if entry is not None:
        return registry.input_shape(entry.name)
    channels = _input_channels(net)
    sizes = sorted({known.input_size for known in registry.registry().values()}, key=lambda s: (s != 224, s))
    for size in sizes:
        if _fits(net, (1, channels, size, size)):
            return (1, channels, size, size)
    raise NetworkError(f"no usual input size fits {type(net).__name__}", found=f"tried {sizes}",
                       remedy="give input_shape")


def _input_channels(net: Block) -> int:
    for _, block in tracing.blocks(net):
        if isinstance(block, nn.Conv2D):
            return block.weight.shape[1] * hyperparameters(block)["num_group"] or 3
        if isinstance(block, nn.BatchNorm) and block.gamma.shape[0]:
            return block.gamma.shape[0]
    return 3


def _fits(net: Block, shape: tuple[int, ...]) -> bool:
    graph = tracing.symbol(net)
    used = set(graph.list_arguments()) | set(graph.list_auxiliary_states())
    known = {p.name: tuple(p.shape) for p in net.collect_params().values()
             if p.name in used and p.shape and 0 not in p.shape}
    try:
        # MXNet prints the arguments of a failed inference to standard output.
        with contextlib.redirect_stdout(io.StringIO()):
            graph.infer_shape(data=shape, **known)
    except mx.MXNetError:
        return False
    return True
