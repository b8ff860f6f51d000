"""Makes the INT8 model of an export, and refuses it where it costs too much."""
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mxnet as mx
import numpy as np

from gluon_ft.data.sources.base import ImageSource
from gluon_ft.errors import ConfigError, NetworkError, near
from gluon_ft.export.certificate import Answers, prepared
from gluon_ft.export.int8 import costs, images, judgement, ranges
from gluon_ft.export.int8.graph import Plan, quantised
from gluon_ft.export.int8.images import Calibration
from gluon_ft.export.int8.judgement import Judgement
from gluon_ft.export.int8.ranges import Ranges
from gluon_ft.export.source import Source
from gluon_ft.models.graph import Graph
from gluon_ft.weights import model_folder

if TYPE_CHECKING:
    import onnx

LOSS = 1.0  # points


@dataclass(frozen=True)
class Options:
    """What is asked of an INT8 model.

    Attributes
    ----------
    loss : float
        Points of accuracy that it may lose.
    keep : tuple of str
        Layers that stay in float32.
    """

    loss: float = LOSS
    keep: tuple[str, ...] = ()

    def __post_init__(self):
        number = isinstance(self.loss, (int, float)) and not isinstance(self.loss, bool)
        if not number or not math.isfinite(self.loss) or not 0 <= self.loss <= 100:
            raise ConfigError("the loss that INT8 may cost is out of range", expected="0 to 100 points of accuracy",
                              found=repr(self.loss))


@dataclass(frozen=True)
class Made:
    """An INT8 model that is written, and what it was made of.

    Attributes
    ----------
    plan : Plan
        Of the model with no layer kept.
    ranges : Ranges
    calibration : Calibration
    nodes : dict of str to str
        Layer, by its name in the network -> name of its ONNX node.
    options : Options
    """

    plan: Plan
    ranges: Ranges
    calibration: Calibration
    nodes: dict[str, str]
    options: Options


def write(folder: Path, model: onnx.ModelProto, symbol: mx.sym.Symbol, found: Source, checked: ImageSource,
          options: Options) -> Made:
    """Writes `model-int8.onnx`.

    Parameters
    ----------
    folder : Path
    model : ModelProto
        `model.onnx`.
    symbol : mx.sym.Symbol
        That it was made of.
    found : Source
        Whose images calibrate.
    checked : ImageSource
        The images that the export is checked on.
    options : Options

    Raises
    ------
    ConfigError
        There is no such layer to keep.
    DataError
        There are too few images to calibrate with.
    NetworkError
        No layer has an integer form, or the network's values are not finite.
    """
    plan = Plan(model)
    nodes = _layers(symbol, plan)
    if not nodes:
        raise NetworkError("no layer of the network has an INT8 form", expected="convolutions or dense layers",
                           remedy="export without --int8")
    strange = [name for name in options.keep if name not in nodes]
    if strange:
        raise ConfigError(f"no layer '{strange[0]}' to keep in float32", remedy=near(strange[0], nodes))
    calibration = images.choose(found, checked)
    measured = ranges.measure(plan, calibration.batches())
    kept = [nodes[name] for name in options.keep]
    made = quantised(Plan(model, kept), measured.of, measured.means)
    (folder / model_folder.ONNX_INT8).write_bytes(made.SerializeToString())
    return Made(plan, measured, calibration, nodes, options)


def _layers(symbol: mx.sym.Symbol, plan: Plan) -> dict[str, str]:
    """Name in the network ('features.0') -> ONNX node, of every layer with an INT8 form."""
    graph, found = Graph(symbol), {}
    known = {node.name for node in plan.layers}
    for node in graph.nodes:
        if node.name in known:
            weights = {node.inputs[1], *graph.ancestors(node.entries[1])}
            own = [graph.nodes[index].name for index in sorted(weights) if graph.nodes[index].op == "null"]
            name = own[0].rpartition(".")[0] or node.name
            found[name if name not in found else node.name] = node.name
    # Those that were added on the way from MXNet's graph have no other name.
    return {**found, **{name: name for name in sorted(known - set(found.values()))}}


def judged(made: Made, said: Answers, net: Any, checked: ImageSource, names: Sequence[str], folder: Path) -> Judgement:
    """What the INT8 model costs on the checked images.

    Parameters
    ----------
    made : Made
    said : Answers
        On these images.
    net : HybridBlock
        The network.
    checked : ImageSource
    names : sequence of str
        What each image is called.
    folder : Path
        With the models.

    Raises
    ------
    DataError
        No image is left to judge on.
    NetworkError
        It costs too much; the layer that costs most is named.
    """
    labels = judgement.labels_of(checked, names, net.classes)
    found, judges = judgement.judge(said, made.calibration, labels, made.options.loss, folder=folder,
                                    layers=len(made.nodes) - len(made.options.keep), kept=made.options.keep)
    if not found.holds:
        raise _refused(made, found, said, net, checked, judges)
    return found


def _refused(made: Made, found: Judgement, said: Answers, net: Any, checked: ImageSource,
             judges: np.ndarray) -> NetworkError:
    some = judges[:costs.MOST_IMAGES]
    pixels = prepared(net, checked, some)
    kept = [made.nodes[name] for name in made.options.keep]
    dearest = costs.dearest(made.plan, made.ranges, kept, pixels, said.onnx[model_folder.ONNX][some])
    what, one = "accuracy", 100 / found.images
    if found.accuracy is None:
        seen = f"{found.changed} of {found.images} images get another class"
        what = "decisions"
    else:
        before, after = (found.accuracy[kind]["accuracy"] for kind in ("float32", "int8"))
        seen = f"accuracy {before:.1%} in float32 and {after:.1%} in INT8 on {found.images} images"
    ways = [f"allow more with --int8-loss (one image is {one:.2g} points)"]
    if dearest is not None:
        node, share = dearest
        layer = next(name for name, own in made.nodes.items() if own == node)
        seen += f"; layer {layer} costs most, {max(share, 0):.0%} of the difference"
        ways.insert(0, f"keep that layer in float32 with --int8-keep {layer}")
    return NetworkError(f"not exported: INT8 loses {found.loss:.2g} points of {what}",
                        expected=f"at most {found.limit:g}", found=seen, remedy=", or ".join(ways))
