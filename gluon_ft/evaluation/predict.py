"""Predicts the classes of images, given as files, folders or arrays, with their probabilities."""
from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import mxnet as mx
import numpy as np
from mxnet.gluon import HybridBlock

from gluon_ft.data import workers as decoding
from gluon_ft.data.images.formats import suffix_list
from gluon_ft.data.images.header import Unreadable
from gluon_ft.data.images.preprocessing import Preprocessing
from gluon_ft.data.images.transforms import Transform
from gluon_ft.data.sources import walk
from gluon_ft.data.sources.arrays import ArraySource
from gluon_ft.data.sources.base import ImageRef, ImageSource
from gluon_ft.engine import fused
from gluon_ft.errors import ConfigError, DataError, NetworkError
from gluon_ft.evaluation.model import load_model
from gluon_ft.io import reporter
from gluon_ft.models import heads, tracing
from gluon_ft.runtime import devices
from gluon_ft.runtime.processors import threads
from gluon_ft.training.metrics import first

AHEAD = 2  # batches that are decoded while the network computes one


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image.

    Attributes
    ----------
    path : str
        The file's path; or 'array 0', ... by position, for arrays.
    name : str or None
        The most probable class.
    probability : float or None
        Its probability, 0..1.
    top : list of (str, float)
        The most probable classes with their probabilities, the best first.
    error : str or None
        Why the image could not be read; nothing is predicted then.
    """

    path: str
    name: str | None = None
    probability: float | None = None
    top: list[tuple[str, float]] = field(default_factory=list)
    error: str | None = None


def predict(net: HybridBlock | str | os.PathLike, images: Any, *, batch_size: int = 32, top: int = 5,
            preprocessing: Preprocessing | None = None, workers: int | None = None,
            ctx: mx.Context | list[mx.Context] | None = None) -> list[Prediction]:
    """Predicts the classes of images: one Prediction each, in order; the images of a folder in order of their names.

    Parameters
    ----------
    net : HybridBlock or path-like
        A network with `classes` and `preprocessing`, as from `load_model` and `pretrained_net`; or the path of a model,
        see `load_model`.
    images : path-like, ndarray, a list of them, or Given
        An image file; a folder, with all images in and below it, links followed; uint8 (height, width) grey,
        (height, width, 3) RGB, or (n, height, width, 3) for several. A notice names files in folders that are left out.
    batch_size : int, default 32
        Images computed at a time.
    top : int, default 5
        Number of classes in `Prediction.top`.
    preprocessing : Preprocessing, optional
        Default: the network's own. Images are prepared as in evaluation (resize, centre crop).
    workers : int, optional
        Decoding threads; default one per processor that this process may use.
    ctx : Context or list of Context, optional
        Default: the network's.

    On a single CPU context many images go through the fused network, which agrees with the plain one to rounding.

    An image that cannot be read does not stop the others: its Prediction has an `error`.

    Raises
    ------
    DataError
        Nothing to predict, or something that is neither a path nor an array of images.
    ConfigError
        The preprocessing is not known, or an option is out of range.
    WeightsError
        As `load_model` does.
    NetworkError
        The network's outputs are not finite.
    """
    for name, value in (("batch_size", batch_size), ("top", top)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(f"{name} out of range", expected="a whole number, 1 or more", found=repr(value))
    source = images if isinstance(images, Given) else Given(images)
    if source.left_out:
        reporter.notice(f"left out: {walk.said(source.left_out)}")
    net = net if isinstance(net, HybridBlock) else load_model(net, ctx)
    wanted = preprocessing or getattr(net, "preprocessing", None)
    if not isinstance(wanted, Preprocessing):
        raise ConfigError("it is not known what the network takes", expected="a Preprocessing",
                          remedy="set net.preprocessing, or give preprocessing=...")
    names = _names(net)
    found, errors = _probabilities(net, source, wanted, batch_size, threads() if workers is None else workers, ctx)
    return [_prediction(source.where(i), row, names, top) if i not in errors else
            Prediction(source.where(i), error=errors[i]) for i, row in enumerate(found)]


def _names(net) -> list[str]:
    count = tracing.output_layer(net).classes
    names = list(getattr(net, "classes", None) or map(str, range(count)))
    if len(names) != count:
        raise ConfigError("the names of the classes do not fit the output", expected=f"{count} names",
                          found=len(names), remedy="set net.classes")
    return names


def _prediction(path, row, names, top) -> Prediction:
    # Stable, so that equal probabilities keep the classes' order.
    best = np.argsort(-row, kind="stable")[:top]
    ranked = [(names[i], float(row[i])) for i in best]
    return Prediction(path, *ranked[0], ranked)


def _probabilities(net, source, wanted, batch_size, workers, ctx):
    """float32 probabilities (images, classes); position -> reason for unreadable images (their rows mean nothing)."""
    transform, errors = Transform(wanted), {}
    resize, contexts = transform.decode_resize(), devices.placed(net, ctx)
    has_softmax = bool(heads.after_output(net) & {"softmax", "SoftmaxOutput", "SoftmaxActivation"})
    dtype = next(iter(net.collect_params().values())).dtype

    def fill(position, out):
        try:
            transform.finish(transform.prepare(source.image(position, wanted.channels, resize)), out)
        except Unreadable as error:
            errors[position] = str(error)
            out[:] = 0

    positions = [np.arange(i, min(i + batch_size, len(source))) for i in range(0, len(source), batch_size)]
    filled = decoding.filled(positions, (wanted.channels, wanted.size, wanted.size), fill, workers, AHEAD)
    rows, bar = [], reporter.progress(total=len(source), desc="predict", unit="image")
    with bar, fused.evaluating(net, len(positions), contexts, mirror=wanted.mirror) as run:
        for chosen, data in filled:
            shares: Any = mx.gluon.utils.split_and_load(mx.nd.from_numpy(data), contexts[:len(chosen)],
                                                        even_split=False)
            results = [first(run(share.astype(dtype, copy=False))).astype("float32") for share in shares]
            found: list[Any] = results if has_softmax else [mx.nd.softmax(result) for result in results]
            rows += [result.asnumpy() for result in found]
            _check_finite(source, chosen, np.concatenate([result.asnumpy() for result in results]), errors)
            bar.update(len(chosen))
    return np.concatenate(rows), errors


def _check_finite(source, chosen, outputs, errors):
    """Raises NetworkError if the network's outputs for a readable image are not finite."""
    wrong = [position for position, row in zip(chosen, outputs)
             if position not in errors and not np.isfinite(row).all()]
    if wrong:
        raise NetworkError("the network's output is not finite", path=source.where(wrong[0]), expected="numbers",
                           found="NaN or infinity", remedy="look at the weights, and at the preprocessing that they "
                                                           "were trained with")


class Given(ImageSource):
    """The images to predict, by position: files and arrays, in any mixture, without labels.

    `left_out` has the files in folders that are left out, each with its reason. A broken link, or a folder that cannot
    be read, counts as an unreadable image.

    Raises DataError where there is nothing to predict.
    """

    def __init__(self, images: Any):
        self._items: list[ImageRef | tuple[ArraySource, int] | Unreadable] = []
        self._names: list[str] = []
        self._folders_left_out: dict[str, str] = {}
        several = isinstance(images, Iterable) and not isinstance(images, (str, os.PathLike, np.ndarray))
        for item in images if several else [images]:
            self._add(item)
        if not self._items:
            raise DataError("nothing to predict", expected="image files, folders with images or arrays",
                            found="an empty list")
        super().__init__("images to predict", np.full(len(self._items), -1), left_out=self._folders_left_out)

    def _add(self, item):
        if isinstance(item, (str, os.PathLike)):
            path = os.fspath(item)
            self._add_folder(path) if os.path.isdir(path) else self._put(path, ImageRef(path))
        elif isinstance(item, np.ndarray):
            batch = item if item.ndim == 4 else item[None]
            arrays = ArraySource(batch, np.zeros(len(batch)), None, f"array {len(self._items)}")
            for i in range(len(batch)):
                self._put(f"array {len(self._items)}", (arrays, i))
        else:
            raise DataError("not an image", expected="a path, or an array of uint8", found=type(item).__name__)

    def _add_folder(self, folder):
        walker = walk.Walker(folder, strict=False)
        found = walker.below()
        self._folders_left_out.update((os.path.join(folder, path), why) for path, why in walker.left_out.items())
        if not found and not walker.problems:
            raise DataError("no images in the folder", path=folder, expected=f"files ending in {suffix_list()}",
                            found=walk.said(walker.left_out) or "none")
        for path in sorted([*found, *walker.problems], key=walk.walk_order):
            place = os.path.normpath(os.path.join(folder, path))
            self._put(place, Unreadable(walker.problems[path]) if path in walker.problems else ImageRef(place))

    def _put(self, name, item):
        self._names.append(name)
        self._items.append(item)

    def where(self, position: int) -> str:
        return self._names[position]

    def read(self, position: int) -> bytes:
        item = self._items[position]
        if isinstance(item, Unreadable):
            raise item
        return item.read() if isinstance(item, ImageRef) else item[0].read(item[1])

    def image(self, position: int, channels: int, resize: int = 0) -> np.ndarray:
        """The decoded image.

        Parameters
        ----------
        position : int
        channels, resize
            As in `ImageSource.image`; so are the result and the errors.
        """
        item = self._items[position]
        return item[0].image(item[1], channels, resize) if isinstance(item, tuple) and not isinstance(item, ImageRef) \
            else super().image(position, channels, resize)
