"""Grad-CAM: where in an image a network sees what it says (Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391).

The last map that a convolution leads to and that has height and width is found in the network's graph, with the
BatchNorm, the activation and the shortcut behind that convolution. Its channels are weighted by the mean gradient of
the class's output before the softmax, summed, and what speaks for the class is kept. The graph runs on copies of the
parameters, so that nothing of the network changes: neither parameters and gradients, nor what is frozen.
"""
from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import mxnet as mx
import numpy as np
from mxnet.gluon import HybridBlock, SymbolBlock

from gluon_ft.data.images.header import Unreadable
from gluon_ft.data.images.preprocessing import Preprocessing
from gluon_ft.data.images.transforms import Transform
from gluon_ft.data.sources.base import ImageSource
from gluon_ft.errors import ConfigError, NetworkError, near
from gluon_ft.evaluation.calibration import tempered
from gluon_ft.evaluation.predict import Given, class_names_of
from gluon_ft.io import reporter
from gluon_ft.models import tracing
from gluon_ft.models.graph import DATA, KEEP_CLASSES, OUTPUTS
from gluon_ft.runtime import devices
from gluon_ft.runtime.gluon_internals import array_of, set_array
from gluon_ft.training.feature_cache import subgraph
from gluon_ft.training.feature_cache.subgraph import NetworkGraph

BATCH = 16
STRENGTH = 0.5  # of the heat over an image
_LEAF = "gluon_ft_heat"  # an input of zeros that is added to the map, so that its gradient is the map's
_PROBABILITIES = ("softmax", "SoftmaxActivation", "log_softmax", *OUTPUTS)
_SHRINK = {"Pooling", "mean", "_contrib_AdaptiveAvgPooling2D", "Dropout", "Reshape", "Flatten"}


@dataclass(frozen=True)
class Explanation:
    """Where a network sees a class in an image.

    Attributes
    ----------
    path : str
        The image's path, or its place among arrays.
    name : str
        The class that is explained.
    probability : float
        Of that class, 0..1.
    heat : float32 (height, width)
        In the image's own pixels, 0 to 1; all 0 where nothing speaks for the class, or outside of the part that the
        network was shown.
    image : uint8 (height, width, 3)
        The image in RGB.
    error : str or None
        Why the image could not be read; then the rest means nothing.
    """

    path: str
    name: str = ""
    probability: float = 0.0
    heat: np.ndarray | None = None
    image: np.ndarray | None = None
    error: str | None = None


def explain(net: HybridBlock, images: Any, *, class_name: str | None = None,
            preprocessing: Preprocessing | None = None) -> list[Explanation]:
    """The heat maps of images, in order: `explanations` as a list.

    Parameters
    ----------
    net, images, class_name, preprocessing
        As of `explanations`, which says what is raised.
    """
    return list(explanations(net, images, class_name=class_name, preprocessing=preprocessing))


def explanations(net: HybridBlock, images: Any, *, class_name: str | None = None,
                 preprocessing: Preprocessing | None = None) -> Iterator[Explanation]:
    """Yields the heat maps of images, in order; see the top of this file.

    Parameters
    ----------
    net : HybridBlock
        A network with `preprocessing`, as from `load_model`; frozen or not.
    images : path-like, ndarray, a list of them, or Given
        As of `predict`.
    class_name : str, optional
        The class to look for; by default each image's most probable one.
    preprocessing : Preprocessing, optional
        Default: the network's own.

    Raises
    ------
    NetworkError
        The network has no convolution with height and width, cannot be traced, or its outputs are not finite.
    ConfigError
        The preprocessing is not known, or there is no such class.
    DataError
        There are no images.
    """
    wanted = preprocessing or getattr(net, "preprocessing", None)
    if not isinstance(wanted, Preprocessing):
        raise ConfigError("it is not known what the network takes", expected="a Preprocessing",
                          remedy="set net.preprocessing, or give preprocessing=...")
    names = class_names_of(net)
    if class_name is not None and class_name not in names:
        raise ConfigError(f"no class '{class_name}'", remedy=near(class_name, names))
    source = images if isinstance(images, Given) else Given(images)
    chosen = None if class_name is None else names.index(class_name)
    cam, temperature = _GradCam(net, wanted), getattr(net, "temperature", None)
    with reporter.progress(total=len(source), desc="explain", unit="image") as bar:
        for start in range(0, len(source), BATCH):
            positions = range(start, min(start + BATCH, len(source)))
            yield from _batch(cam, source, positions, wanted, names, chosen, temperature)
            bar.update(len(positions))


def _batch(cam, source: ImageSource, positions: Sequence[int], wanted, names, chosen,
           temperature) -> list[Explanation]:
    transform, pictures, errors = Transform(wanted), {}, {}
    for position in positions:
        try:
            pictures[position] = source.image(position, 3)
        except Unreadable as error:
            errors[position] = str(error)
    found = {position: Explanation(source.where(position), error=why) for position, why in errors.items()}
    if pictures:
        data = np.stack([transform(_channels(picture, wanted.channels)) for picture in pictures.values()])
        outputs, labels, maps = cam(data, chosen)
        probabilities = tempered(mx.nd.softmax(mx.nd.array(outputs)).asnumpy(), temperature)
        for row, (position, picture) in enumerate(pictures.items()):
            found[position] = Explanation(
                source.where(position), names[labels[row]], float(probabilities[row, labels[row]]),
                _in_image(maps[row], picture.shape[:2], wanted), picture)
    return [found[position] for position in positions]


def _channels(picture: np.ndarray, channels: int) -> np.ndarray:
    return picture if channels == 3 else cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)


class _GradCam:
    """Runs copies of a network's parameters forward and backward, with gradients for its last map."""

    def __init__(self, net: HybridBlock, wanted: Preprocessing):
        self.context = devices.of(net)[0]
        shape = (1, wanted.channels, wanted.size, wanted.size)
        with mx.autograd.pause():
            net(mx.nd.zeros(shape, ctx=self.context, dtype=_dtype(net)))  # deferred shapes become known
        traced = subgraph.trace(net)
        end = traced.head
        while traced.nodes[end[0]].op in _PROBABILITIES:
            end = traced.nodes[end[0]].entries[0]
        layer, self.map_shape = _last_map(traced, end, net, shape)
        symbol = traced.with_addition(end, layer, _LEAF)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # SymbolBlock's, about types
            self.block = SymbolBlock(symbol, [mx.sym.var(DATA), mx.sym.var(_LEAF)])
        for name, parameter in self.block.collect_params().items():
            set_array(parameter, array_of(traced.parameters[name]).astype(np.float32), self.context)
            parameter.grad_req = "null"

    def __call__(self, data: np.ndarray, chosen: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(outputs before the softmax (n, classes), classes (n,), maps (n, h, w) from 0 to 1) of prepared images."""
        images = mx.nd.array(data, ctx=self.context)
        leaf = mx.nd.zeros((len(data), *self.map_shape[1:]), ctx=self.context)
        leaf.attach_grad()
        # As in evaluation: BatchNorm by its running statistics, no dropout.
        with mx.autograd.record(train_mode=False):
            outputs, maps = self.block(images, leaf)
            flat = outputs.reshape((len(data), -1))
            values = flat.asnumpy()
            if not np.isfinite(values).all():
                raise NetworkError("the network's output is not finite", expected="numbers", found="NaN or infinity",
                                   remedy="look at the weights, and at the preprocessing that they were trained with")
            labels = values.argmax(axis=1) if chosen is None else np.full(len(data), chosen)
            score = mx.nd.pick(flat, mx.nd.array(labels, ctx=self.context)).sum()
        score.backward()
        weights = leaf.grad.asnumpy().mean(axis=(2, 3), keepdims=True)
        heat = np.maximum((weights * maps.asnumpy()).sum(axis=1), 0)
        most = heat.max(axis=(1, 2), keepdims=True)
        return values, labels, np.divide(heat, most, out=np.zeros_like(heat), where=most > 0)


def _dtype(net) -> str:
    return str(np.dtype(next(iter(net.collect_params().values())).dtype))


def _last_map(traced: NetworkGraph, end, net, shape) -> tuple[tuple[int, int], tuple[int, ...]]:
    """The last result on the way to `end` that a convolution leads to, that has height and width, and that no pooling
    has shrunk: as an entry of the graph, with its shape."""
    shapes = _shapes(net, shape)
    after_convolution: set[int] = set()
    found = None
    for index in traced.ancestors(end):
        node = traced.nodes[index]
        if node.op == "Convolution" or after_convolution & set(node.inputs):
            after_convolution.add(index)
            extent = shapes.get(node.name, ())
            is_map = len(extent) == 4 and min(extent[2:]) > 1 and node.op not in _SHRINK
            if is_map and not _is_output(traced, end, index):
                found = (index, 0), extent
    if found is None:
        raise NetworkError(f"{type(net).__name__} has no convolution whose result has height and width",
                           expected="one, whose map shows where the network looks", found="none",
                           remedy="take a convolutional network, or larger images")
    return found


def _is_output(traced, end, index) -> bool:
    """Whether only steps that keep one channel a class lie between a node and the result: its channels are classes."""
    node = traced.nodes[end[0]]
    while node.op in KEEP_CLASSES and node.index != index:
        node = traced.nodes[node.inputs[0]]
    return node.index == index


def _shapes(net, shape) -> dict[str, tuple[int, ...]]:
    """Name of a node -> shape of its first result."""
    internals = tracing.symbol(net).get_internals()
    _, shapes, _ = internals.infer_shape(**{DATA: shape})
    names = internals.list_outputs()
    return {name[:-len("_output")]: tuple(found) for name, found in zip(names, shapes) if name.endswith("_output")}


def _in_image(heat: np.ndarray, extent: tuple[int, int], wanted: Preprocessing) -> np.ndarray:
    """A map of the network's input, laid over the part of the image that this was cut from: float32 (height, width)."""
    height, width = extent
    short = wanted.resize or max(wanted.size, min(extent))
    edge = min(wanted.size / max(short, wanted.size), 1.0) * min(extent)
    rows, columns = (max(1, min(round(edge), most)) for most in extent)
    top, left = (height - rows) // 2, (width - columns) // 2
    found = np.zeros((height, width), np.float32)
    large = cv2.resize(heat.astype(np.float32), (columns, rows), interpolation=cv2.INTER_LINEAR)
    found[top:top + rows, left:left + columns] = np.clip(large, 0, 1)
    return found


def overlay(found: Explanation, strength: float = STRENGTH) -> np.ndarray:
    """The image beside itself with the heat over it: uint8 (height, 2 * width, 3) in RGB.

    Parameters
    ----------
    found : Explanation
        Of an image that could be read.
    strength : float, default 0.5
        0 to 1: how strongly the hottest places cover the image.

    Raises
    ------
    ConfigError
        For an image that could not be read.
    """
    if found.heat is None or found.image is None:
        raise ConfigError("nothing to draw", found=f"{found.path}: {found.error}")
    colours = cv2.cvtColor(cv2.applyColorMap(np.rint(255 * found.heat).astype(np.uint8), cv2.COLORMAP_TURBO),
                           cv2.COLOR_BGR2RGB)
    share = (strength * np.sqrt(found.heat))[..., None]
    mixed = np.rint((1 - share) * found.image + share * colours).astype(np.uint8)
    return np.concatenate([found.image, mixed], axis=1)
