"""Predicts the classes of images, given as files, folders or arrays, with their probabilities."""
from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import mxnet as mx
import numpy as np
from mxnet.gluon import HybridBlock

from gluon_ft.data import workers as decoding
from gluon_ft.data.images import views
from gluon_ft.data.images.formats import suffix_list
from gluon_ft.data.images.header import Unreadable
from gluon_ft.data.images.preprocessing import Preprocessing
from gluon_ft.data.images.transforms import Transform
from gluon_ft.data.images.views import View
from gluon_ft.data.sources import walk
from gluon_ft.data.sources.arrays import ArraySource
from gluon_ft.data.sources.base import ImageRef, ImageSource
from gluon_ft.engine import fused
from gluon_ft.errors import ConfigError, DataError, NetworkError
from gluon_ft.evaluation import unknowns
from gluon_ft.evaluation.calibration import tempered
from gluon_ft.evaluation.features import with_penultimate
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
    distance : float or None
        From the training images, 0 to 2, see `evaluation.unknowns`; None where the model does not keep them.
    unlike : bool or None
        Whether the image is like nothing that the network was trained on.
    possible : list of str or None
        The classes that remain possible at the coverage that was asked for, the most probable first.
    """

    path: str
    name: str | None = None
    probability: float | None = None
    top: list[tuple[str, float]] = field(default_factory=list)
    error: str | None = None
    distance: float | None = None
    unlike: bool | None = None
    possible: list[str] | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON; what only some models, or a coverage, have to say is left out elsewhere."""
        if self.error is not None:
            return {"path": self.path, "reason": self.error}
        found = {"path": self.path, "class": self.name, "probability": self.probability,
                 "top": [{"class": name, "probability": value} for name, value in self.top]}
        if self.unlike is not None:
            found.update(unknown=self.unlike, distance=self.distance)
        return found if self.possible is None else {**found, "possible": self.possible}


def predict(net: HybridBlock | str | os.PathLike, images: Any, *, batch_size: int = 32, top: int = 5,
            preprocessing: Preprocessing | None = None, workers: int | None = None,
            ctx: mx.Context | list[mx.Context] | None = None, tta: int | None = None,
            false_alarms: float | None = unknowns.RATE, coverage: float | None = None) -> list[Prediction]:
    """Predicts the classes of images: one Prediction each, in order; the images of a folder in order of their names.

    On a single CPU context many images go through the fused network, which agrees with the plain one to rounding.

    An image that cannot be read does not stop the others: its Prediction has an `error`.

    Probabilities are calibrated where the model's card has a temperature; that changes no prediction.

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
    tta : {2, 4, 5, 10}, optional
        Test-time augmentation: averages the probabilities of so many views of each image, see `data.images.views`.
        Mirror images are among them where `Preprocessing.mirror` says that the network averages those.
    false_alarms : float, default 0.05
        Share of images of the trained kind that `Prediction.unlike` may be wrong of; None: not looked for. Of effect
        where the model keeps features of its training images, as those of `gluon-ft train` do.
    coverage : float, optional
        `Prediction.possible` names so many classes that in this share of cases the right one is among them.

    Raises
    ------
    DataError
        Nothing to predict, or something that is neither a path nor an array of images.
    ConfigError
        The preprocessing is not known, an option is out of range, or no coverage can be promised.
    WeightsError
        As `load_model` and `unknowns.of` do.
    NetworkError
        The network's outputs are not finite.
    """
    check_counts(batch_size=batch_size, top=top)
    source = images if isinstance(images, Given) else Given(images)
    if source.left_out:
        reporter.notice(f"left out: {walk.said(source.left_out)}")
    net = net if isinstance(net, HybridBlock) else load_model(net, ctx)
    names = class_names_of(net)
    known = None if false_alarms is coverage is None else unknowns.of(net)
    limit = None if known is None or false_alarms is None else known.limit(false_alarms)
    rows: list[np.ndarray] | None = None if limit is None else []
    found, errors = probabilities(net, source, batch_size=batch_size, preprocessing=preprocessing, workers=workers,
                                  ctx=ctx, tta=tta, penultimate=rows)
    sets = None if coverage is None else unknowns.possible(known, found, coverage)
    far = None if rows is None or known is None else known.distance(np.concatenate(rows))
    return [ranked(source.where(i), row, names, top, None if far is None else float(far[i]), limit,
                   None if sets is None else sets[i]) if i not in errors else
            Prediction(source.where(i), error=errors[i]) for i, row in enumerate(found)]


def check_counts(**counts: Any) -> None:
    """ConfigError for one that is not a whole number from 1 on."""
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(f"{name} out of range", expected="a whole number, 1 or more", found=repr(value))


def probabilities(net: HybridBlock, source: ImageSource, *, batch_size: int = 32,
                  preprocessing: Preprocessing | None = None, workers: int | None = None,
                  ctx: mx.Context | list[mx.Context] | None = None, tta: int | None = None,
                  mirror: bool | None = None,
                  penultimate: list[np.ndarray] | None = None) -> tuple[np.ndarray, dict[int, str]]:
    """The class probabilities of every image of a source, in order.

    Parameters
    ----------
    net : HybridBlock
        They are calibrated with its `temperature`, where it has one.
    source : ImageSource
    batch_size, preprocessing, workers, ctx, tta
        As of `predict`.
    mirror : bool, optional
        Whether the views of `tta` include mirror images; default as `Preprocessing.mirror` says.
    penultimate : list, optional
        Gets the penultimate features of each batch's images, see `batches`.

    Returns
    -------
    probabilities : float32 or float64 (n, classes)
    errors : dict of int to str
        Position -> why the image could not be read; its row of probabilities means nothing.

    Raises
    ------
    ConfigError, NetworkError
        As of `predict`.
    """
    wanted = preprocessing or getattr(net, "preprocessing", None)
    if not isinstance(wanted, Preprocessing):
        raise ConfigError("it is not known what the network takes", expected="a Preprocessing",
                          remedy="set net.preprocessing, or give preprocessing=...")
    seen = None if tta is None else views.of(tta, wanted.mirror if mirror is None else mirror)
    errors: dict[int, str] = {}
    rows = [found for _, found in batches(net, source, wanted, errors, batch_size=batch_size, views_of_each=seen,
                                          workers=threads() if workers is None else workers, ctx=ctx,
                                          penultimate=penultimate)]
    return tempered(np.concatenate(rows), getattr(net, "temperature", None)), errors


def class_names_of(net: HybridBlock) -> list[str]:
    """The network's class names, or numbers where it has none. ConfigError where they do not fit its output."""
    count = tracing.output_layer(net).classes
    names = list(getattr(net, "classes", None) or map(str, range(count)))
    if len(names) != count:
        raise ConfigError("the names of the classes do not fit the output", expected=f"{count} names",
                          found=len(names), remedy="set net.classes")
    return names


def ranked(path: str, row: np.ndarray, names: list[str], top: int, distance: float | None = None,
           limit: float | None = None, possible: np.ndarray | None = None) -> Prediction:
    """The prediction that the probabilities of one image make.

    Parameters
    ----------
    path : str
    row : float (classes,)
        Calibrated probabilities.
    names : list of str
        Of the classes.
    top : int
        Number of classes in `Prediction.top`.
    distance, limit : float, optional
        From the training images, and beyond which an image is unlike them; both or neither.
    possible : bool (classes,), optional
    """
    # Stable, so that equal probabilities keep the classes' order.
    order = np.argsort(-row, kind="stable")
    best = [(names[i], float(row[i])) for i in order[:top]]
    unlike = None if distance is None or limit is None else distance > limit
    sets = None if possible is None else [names[i] for i in order if possible[i]]
    return Prediction(path, *best[0], best, distance=distance, unlike=unlike, possible=sets)


class Forward:
    """A network's results for batches of prepared images, as `predict` takes them.

    Parameters
    ----------
    net : HybridBlock
    contexts : list of mx.Context
        Among which a batch is divided.
    penultimate : bool
        Whether the penultimate features are wanted too.

    Attributes
    ----------
    block : HybridBlock
        What has to run: the network, or a block that gives its result and the features in one pass.
    """

    def __init__(self, net: HybridBlock, contexts: list[mx.Context], penultimate: bool):
        self.block, self._classes = with_penultimate(net) if penultimate else (net, 0)
        self._contexts, self._has_softmax = contexts, heads.gives_probabilities(net)
        self._dtype = next(iter(net.collect_params().values())).dtype

    def __call__(self, run: Callable[[mx.nd.NDArray], Any],
                 data: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Runs a batch.

        run : `block`, or what runs it faster (`engine.fused.evaluating`); data : float32 (n, channels, size, size).

        Returns the probabilities, uncalibrated, the network's own outputs, each float32 (n, classes), and the features
        float32 (n, d), or None.
        """
        shares: Any = mx.gluon.utils.split_and_load(mx.nd.from_numpy(data), self._contexts[:len(data)],
                                                    even_split=False)
        results = [first(run(share.astype(self._dtype, copy=False))).astype("float32") for share in shares]
        features = None
        if self._classes:
            features = np.concatenate([result[:, self._classes:].asnumpy() for result in results])
            results = [result[:, :self._classes] for result in results]
        found: list[Any] = results if self._has_softmax else [mx.nd.softmax(result) for result in results]
        rows, outputs = (np.concatenate([each.asnumpy() for each in several]) for several in (found, results))
        return rows, outputs, features


def batches(net: HybridBlock, source: ImageSource, wanted: Preprocessing, errors: dict[int, str], *, batch_size: int,
            workers: int, ctx: mx.Context | list[mx.Context] | None = None,
            views_of_each: Sequence[View] | None = None,
            penultimate: list[np.ndarray] | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Runs a network forward on every image of a source, each decoded once; a generator.

    Parameters
    ----------
    net : HybridBlock
    source : ImageSource
    wanted : Preprocessing
        What the network takes.
    errors : dict of int to str
        Gets position -> reason for each image that cannot be read; its row of probabilities means nothing.
    batch_size : int
        Images, or views of images, computed at a time.
    workers : int
        Decoding threads.
    ctx : Context or list of Context, optional
        Default: the network's.
    views_of_each : sequence of View, optional
        The result is the mean of the probabilities of these views. Without them it is that of the image as in
        evaluation, which includes its mirror image where `wanted.mirror` says so.
    penultimate : list, optional
        Gets the penultimate features of each batch's images, float32 (batch, d), the mean over the views.

    Yields
    ------
    (positions, probabilities)
        int64 (batch,) and float32 (batch, classes), uncalibrated.

    Raises
    ------
    NetworkError
        The network's outputs for an image that can be read are not finite.
    """
    transform, count = Transform(wanted), len(views_of_each or [0])
    resize, contexts = transform.decode_resize(), devices.placed(net, ctx)

    def fill(position, out):
        try:
            views.prepare(source.image(position, wanted.channels, resize), views_of_each or [View()], transform, out)
        except Unreadable as error:
            errors[position] = str(error)
            out[:] = 0

    step = max(1, batch_size // count)
    positions = [np.arange(i, min(i + step, len(source))) for i in range(0, len(source), step)]
    filled = decoding.filled(positions, (count, wanted.channels, wanted.size, wanted.size), fill, workers, AHEAD)
    bar = reporter.progress(total=len(source), desc="predict", unit="image")
    mirrored = wanted.mirror and views_of_each is None
    forward = Forward(net, contexts, penultimate is not None)
    with bar, fused.evaluating(forward.block, len(positions), contexts, mirror=mirrored) as run:
        for chosen, data in filled:
            rows, outputs, features = forward(run, data.reshape(-1, *data.shape[2:]))
            if penultimate is not None and features is not None:
                penultimate.append(features.reshape(len(chosen), count, -1).mean(axis=1))
            _check_finite(source, np.repeat(chosen, count), outputs, errors)
            yield chosen, rows if count == 1 else rows.reshape(len(chosen), count, -1).mean(axis=1)
            bar.update(len(chosen))


def _check_finite(source, chosen, outputs, errors):
    """Raises NetworkError if the network's outputs for a readable image are not finite."""
    wrong = [position for position, row in zip(chosen, outputs)
             if position not in errors and not np.isfinite(row).all()]
    if wrong:
        raise not_finite(source.where(wrong[0]))


def not_finite(path: str) -> NetworkError:
    """The error for an image that the network's output is NaN or infinite for."""
    return NetworkError("the network's output is not finite", path=path, expected="numbers", found="NaN or infinity",
                        remedy="look at the weights, and at the preprocessing that they were trained with")


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
