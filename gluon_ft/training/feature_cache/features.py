"""Features of the frozen part of a network: computed once, and loaded in the place of the images."""
from __future__ import annotations

import copy
import importlib.metadata
import json
import math
import operator
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import cv2
import mxnet as mx
import numpy as np

import gluon_ft
from gluon_ft.data import workers as loader_workers
from gluon_ft.data.batches import ArrayLoader, Batch, every_image
from gluon_ft.data.images.augment import PROCEDURES
from gluon_ft.data.images.transforms import Transform
from gluon_ft.data.loader import Loader
from gluon_ft.data.sampler import digest, epoch_order
from gluon_ft.data.sources.class_names import whole
from gluon_ft.engine import choice, fused, onnx_runtime
from gluon_ft.errors import ConfigError, DataError, NetworkError
from gluon_ft.io import reporter
from gluon_ft.models import tracing
from gluon_ft.runtime import devices
from gluon_ft.runtime.gluon_internals import hyperparameters, is_dense
from gluon_ft.training.feature_cache import store as features_store
from gluon_ft.training.feature_cache import subgraph
from gluon_ft.training.feature_cache.cut import Cut
from gluon_ft.training.metrics import image_form_explained

if TYPE_CHECKING:
    from mxnet.gluon import HybridBlock

PASS = 32  # images at a time, whatever the batches of training, so that these don't change the features
AGREEMENT = 3e-6  # largest difference of the fastest form from the plain one, relative to the largest value
_INDEPENDENT = 1e-4  # the same, of an image alone from the image in its batch
_MAX_VIEWS = 1000


def extract(net: HybridBlock, loader: Any, ctx: list[mx.Context] | None = None, title: str = "features",
            mirror: bool | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The penultimate features of every image: what the network's output layer takes.

    Parameters
    ----------
    net : HybridBlock
        An initialised classifier; it is not changed, and runs as in evaluation (no dropout, BatchNorm by its running
        statistics), on one CPU and for many images in its fused form, which agrees with the plain one to rounding.
    loader : anything that `gluon_ft.data.batches.batches` takes
        One pass is made, in its order; `train=False` for an order and a result that repeat.
    ctx : list of mx.Context, default where the network is
    title : shown in the progress bar
    mirror : bool, optional
        Whether the features are the mean over an image and its mirror image; default as `net.preprocessing.mirror`
        says.

    Returns
    -------
    features : float32 (n, d), flattened; of an output layer that is a convolution (MobileNetV2, SqueezeNet), the mean
        over height and width
    labels : int64 (n,)

    Raises
    ------
    NetworkError
        Where there is no output layer, or features are not finite.
    DataError
        Where the loader yields no image, or labels that are not whole numbers.
    """
    mirror = fused.is_mirrored(net) if mirror is None else mirror
    found, labels = of_sides(net, loader, (False, True) if mirror else (False,), ctx, title)
    return mean_of(found), labels


def mean_of(sides: list[np.ndarray]) -> np.ndarray:
    """The mean of the features of images and of their mirror images; of one alone, these."""
    return sides[0] if len(sides) == 1 else (sides[0] + sides[1]) / np.float32(2)


def of_sides(net: HybridBlock, loader: Any, sides: tuple[bool, ...], ctx: list[mx.Context] | None = None,
             title: str = "features") -> tuple[list[np.ndarray], np.ndarray]:
    """Features as `extract` gives them, of images as they are and of their mirror images each for themselves.

    Parameters
    ----------
    net, loader, ctx, title
        As of `extract`.
    sides : tuple of bool
        False: the images; True: their mirror images. Each image is decoded once.

    Returns
    -------
    features : list of float32 (n, d)
        One of each of `sides`.
    labels : int64 (n,)
    """
    output = tracing.output_layer(net).block
    graph = subgraph.trace(net)
    block = subgraph.before(graph, subgraph.input_of(graph, output.weight.name))
    block.hybridize()
    spatial = spatial_axes(output)
    found, labels, contexts = [[] for _ in sides], [], devices.within(net, ctx)
    total = len(loader) if hasattr(loader, "__len__") else None
    with fused.evaluating(block, (total or 1) * len(sides), contexts, mirror=False) as run:
        for batch in reporter.progress(every_image(loader, title), total=total, desc=title, unit="batch"):
            batch = batch.trimmed()
            for mirrored, side in zip(sides, found):
                data = mx.nd.flip(batch.data, axis=3) if mirrored else batch.data
                with image_form_explained(data, title):
                    rows = _forward(run, data, contexts)
                _check_finite(rows, title)
                side.append(rows.mean(axis=spatial) if spatial else rows.reshape(len(rows), -1))
            labels.append(whole(batch.label.asnumpy(), title))
    if not labels:
        raise DataError(f"no images to compute {title} of", expected="at least one", found="an empty loader")
    return [np.concatenate(side).astype(np.float32, copy=False) for side in found], np.concatenate(labels)


def spatial_axes(output: HybridBlock) -> tuple[int, ...]:
    """The axes of height and width in what an output layer takes: (2, 3) of a convolution in 'NCHW', none of Dense."""
    layout = "" if is_dense(output) else hyperparameters(output).get("layout", "")
    return tuple(i for i, axis in enumerate(layout) if axis not in "NC")


def _forward(block, data: mx.nd.NDArray, contexts, training: bool = False) -> np.ndarray:
    """The block's result for a batch, divided among the contexts; in evaluation, or as in training."""
    shares = mx.gluon.utils.split_and_load(data, contexts[:len(data)], even_split=False)
    with mx.autograd.pause(train_mode=training):
        results = [block(share) for share in shares]
    return np.concatenate([result.astype("float32").asnumpy() for result in results])


def cached(loader: Any, parts: Cut, *, views: int = 0, exact: bool = True, precision: str = "float32",
           store: str | os.PathLike = "memory", limit_bytes: int = features_store.MEMORY_BYTES,
           disk_bytes: int = features_store.DISK_BYTES, ctx: list[mx.Context] | None = None,
           title: str = "features") -> FeatureLoader:
    """A loader of the features that `parts.prefix` gives of the images, in the order in which `loader` gives these.

    All features are computed at once, `PASS` images at a time, unless they are found in `store`. They are computed anew
    where anything has changed that they depend on: an image's contents, the frozen weights and layers, the
    preprocessing and augmentation (with its seed), the versions of MXNet, OpenCV, Pillow, NumPy and gluon_ft.

    Parameters
    ----------
    loader : of `loaders.make_loader` (engines 'threads' and 'dataset'), or ArrayLoader
    parts : Cut
        The network, cut behind its frozen part.
    views : int
        Of each image; epoch e has view e % views, as with `loader.views`. 0: as many as `loader.views` says, or,
        where that is 0 too, the image as in evaluation, without augmentation. Of no effect without augmentation.
    exact : bool
        True: computed as in a training step (of a loader with `train=False`, as in evaluation), to the last bit.
        False: in the form that computes fastest, if that agrees to `AGREEMENT`.
    precision : str
        Of the training; the features themselves are float32. With another one than 'float32' always exact.
    store : 'memory', 'disk' or a folder
        'memory': as far as `limit_bytes` go, then on disk; 'disk': the cache folder. On disk they are found again by
        later runs.
    limit_bytes, disk_bytes : int
        Of memory, default 2 GiB; of all features in the folder together, default 32 GiB.
    ctx : list of mx.Context, default where the prefix is
        To compute on.
    title : str
        Shown in the progress bar.

    Raises
    ------
    ConfigError
        For another kind of loader, or views that differ from `loader.views`.
    DataError
        Where the features fit in neither place, or an image cannot be used.
    NetworkError
        Where the images have another shape than the network takes, features are not finite, or those of an image
        depend on the others of its batch.
    """
    images = Images(loader, views)
    shape = (images.views, images.count, *parts.shape_for(images.shape))
    contexts = ctx or devices.of(parts.prefix)
    form = "fast" if not exact and precision == "float32" else "training" if images.train else "evaluation"
    engine = choice.MXNET if form != "fast" else fused.settle(parts.prefix, images.views * images.count, images.shape)
    about = {"images": images.count, "views": images.views, "network": type(parts.suffix.whole).__name__,
             "cut": parts.where}
    key = digest([json.dumps({"prefix": parts.fingerprint(), "images": images.identity, "versions": versions(),
                              "precision": precision, "form": form, "device": contexts[0].device_type,
                              **by_engine(engine)}, sort_keys=True).encode()])[:40]

    def make():
        return _computed(parts, images, contexts, form, precision, engine, title)

    array = features_store.kept(key, shape, make, store=store, limit_bytes=limit_bytes, disk_bytes=disk_bytes,
                                about=about)
    return FeatureLoader(loader, array, key)


def by_engine(engine: str) -> dict[str, Any]:
    """What keys of features say of the engine that computes them: nothing of MXNet."""
    return {} if engine == choice.MXNET else {"engine": engine, **onnx_runtime.versions()}


def versions() -> dict:
    """The versions of everything that the numbers depend on, for keys."""
    return {"gluon_ft": gluon_ft.__version__, "mxnet": mx.__version__, "opencv": cv2.__version__,
            "numpy": np.__version__, "pillow": importlib.metadata.version("pillow")}


def _computed(parts, images, contexts, form, precision, engine, title) -> Iterator[np.ndarray]:
    """The features of all images of all views, in pieces."""
    run = None
    with reporter.progress(total=images.count * images.views, desc=title, unit="image") as bar:
        for data in images.batches():
            if run is None:
                run, rows = _begun(parts.prefix, data, contexts, form, precision, engine)
            else:
                rows = _forward(run, data, contexts, form == "training")
            _check_finite(rows, title)
            bar.update(len(rows))
            yield rows


def _check_finite(rows, title):
    if not np.isfinite(rows).all():
        raise NetworkError(f"{title} are not finite", expected="numbers", found="NaN or infinity",
                           remedy="look at the weights, and at the preprocessing that they were trained with")


def _begun(prefix, data, contexts, form, precision, engine):
    """(what computes the features, those of the first batch): the fastest form that agrees with the plain one.

    Agreement is seen on two images at most, computed by themselves: NetworkError where their features depend on the
    other images of the batch, which no operator says of itself.
    """
    training = form == "training"
    plain = (fused.trainable if training else fused.forward_only)(prefix, precision)
    few = data[:max(1, min(2, len(data) // 2))]
    alone = _forward(plain, few, contexts, training)
    runs = [(plain, _INDEPENDENT)]
    if form == "fast":
        fast = [engine] if engine == choice.MXNET else [engine, choice.MXNET]
        runs = [*((fused.forward_only(prefix, input_shape=data.shape, engine=name), AGREEMENT) for name in fast), *runs]
    for run, limit in runs:
        rows = _forward(run, data, contexts, training)
        if _agree(rows[:len(few)], alone, limit) or not np.isfinite(alone).all():
            return run, rows
    raise NetworkError("the features of an image depend on the other images of its batch",
                       expected="a frozen part that treats each image by itself", remedy="train on images")


def _agree(found, expected, limit):
    return np.abs(found - expected).max() <= limit * np.abs(expected).max()


class Images:
    """The images of a loader view by view, in the source's order.

    Attributes: count; views; shape of one image, as the network takes it; train, whether for training; identity, what
    the pixels depend on, and nothing else.
    """

    def __init__(self, loader, views: int) -> None:
        if not isinstance(loader, (Loader, ArrayLoader)):
            raise ConfigError("features can be kept of loaders whose order is known beforehand",
                              found=type(loader).__name__, expected="gluon_ft.loaders.make_loader with engine "
                              "'threads' or 'dataset', or ArrayLoader")
        wanted, own = _whole_views(views), getattr(loader, "views", 0)
        if wanted and own and wanted != own:
            raise ConfigError("views differ", expected=f"{own}, the loader's", found=wanted)
        self.count, self.loader = len(loader.labels), copy.copy(loader)
        self.loader.batch_size = PASS
        self.loader.balanced = False
        self.views, self.train = 1, is_training(loader)
        if isinstance(self.loader, ArrayLoader):
            self.shape = self.loader.data.shape[1:]
        else:
            preprocessing = self.loader.transform.preprocessing
            self.shape = (preprocessing.channels, preprocessing.size, preprocessing.size)
            if self.train and (wanted or own):
                self.views = wanted or own
            elif self.train:
                self.loader.transform = Transform(preprocessing, PROCEDURES["none"])
                self.loader.memory = None
                self.loader._resize = self.loader.transform.decode_resize() if self.loader._resize else 0
        self.identity = self._identity()

    def _identity(self):
        known = self.loader.identity()
        # An image's features depend neither on the labels nor on the order.
        for key in ("labels", "classes", "batch_size", "balanced", "shuffle"):
            known.pop(key, None)
        known["views"] = self.views
        if not known.get("augmentation") or known["augmentation"] == PROCEDURES["none"].to_dict():
            known.update(seed=0, augmentation=None)
        return known

    def batches(self) -> Iterator[mx.nd.NDArray]:
        """All images of the first view, of the second, ..., `PASS` at a time."""
        for view in range(self.views):
            if isinstance(self.loader, ArrayLoader):
                for begin in range(0, self.count, PASS):
                    yield mx.nd.array(self.loader.data[begin:begin + PASS])
            else:
                for _, data in self.loader.filled(np.arange(self.count), view):
                    yield mx.nd.from_numpy(data)


def is_training(loader: Loader | ArrayLoader) -> bool:
    """Whether a Loader or an ArrayLoader is for training: in random order."""
    return loader.shuffle if isinstance(loader, ArrayLoader) else loader.train


def _whole_views(views):
    try:
        fits = not isinstance(views, bool) and 0 <= operator.index(views) <= _MAX_VIEWS
    except TypeError:
        fits = False
    if not fits:
        raise ConfigError("views out of range", expected=f"a whole number from 0 to {_MAX_VIEWS}", found=repr(views))
    return int(views)


class FeatureLoader:
    """Batches of features in the place of a loader's images: the same order, the same labels, from the same epoch on.

    It has what a loader has: `labels`, `classes`, `batch_size`, `seed`, `epoch`, `start`, `views`, `balanced`, `train`,
    `len` and `identity`. The batches' `data` is float32 (n, ...), as `Cut.shape` says; `features` is the whole array,
    float32 (views, n, ...), read-only, perhaps mapped from disk; `key` names it.
    """

    def __init__(self, images: Loader | ArrayLoader, features: np.ndarray, key: str) -> None:
        self.labels, self.classes = images.labels, getattr(images, "classes", None)
        self.batch_size, self.seed, self.epoch, self.start = images.batch_size, images.seed, images.epoch, images.start
        self.train = is_training(images)
        self.balanced, self.features, self.key = images.balanced, features, key

    @property
    def views(self) -> int:
        """Of each image."""
        return len(self.features)

    @property
    def bytes_in_memory(self) -> int:
        """What the features take, 0 where they are on disk."""
        return 0 if isinstance(self.features, np.memmap) else self.features.nbytes

    def __len__(self) -> int:
        return -(-len(self.labels) // self.batch_size)

    def identity(self) -> dict:
        """What the batches depend on, as plain values."""
        return {"images": len(self.labels), "features": self.key, "labels": digest([self.labels.tobytes()]),
                "classes": None if self.classes is None else list(self.classes), "views": self.views,
                "shuffle": self.train, "balanced": self.balanced, "seed": self.seed, "batch_size": self.batch_size}

    def __iter__(self) -> Iterator[Batch]:
        epoch, first, self.epoch, self.start = self.epoch, self.start, self.epoch + 1, 0
        order = epoch_order(self.labels, self.seed, epoch, self.train, self.train and self.balanced)
        positions = [order[i:i + self.batch_size] for i in range(first * self.batch_size, len(order), self.batch_size)]
        view = self.features[epoch % self.views]
        # One thread reads ahead where a batch is large enough for that to be worth its while.
        workers = int(self.batch_size * math.prod(view.shape[1:]) >= 1 << 18)

        def fill(position, out):
            out[...] = view[position]

        filled = loader_workers.filled(positions, view.shape[1:], fill, workers, 2 * workers)
        try:
            for chosen, data in filled:
                yield Batch(mx.nd.from_numpy(data), mx.nd.array(self.labels[chosen], dtype="int32"), len(chosen))
        finally:
            filled.close()
