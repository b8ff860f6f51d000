"""Measures what advice goes by: counts, sizes, and how well pretrained features separate the classes."""
from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cv2
import mxnet as mx
import numpy as np
from mxnet.gluon import HybridBlock

from gluon_ft.data.images import header
from gluon_ft.data.images.decode import decode_rgb
from gluon_ft.data.images.preprocessing import Preprocessing
from gluon_ft.data.loader import Loader, make_loader
from gluon_ft.data.sources.base import ImageSource
from gluon_ft.data.sources.files import FileSource
from gluon_ft.data.sources.opening import open_source
from gluon_ft.data.split import draw_key
from gluon_ft.errors import ConfigError, DataError, DownloadError, WeightsError
from gluon_ft.finetune import advice, job_data, network
from gluon_ft.finetune import choice as choices
from gluon_ft.finetune.advice import Facts
from gluon_ft.io import reporter
from gluon_ft.models import registry
from gluon_ft.models.pretrained import pretrained_net
from gluon_ft.models.stages import stages
from gluon_ft.runtime import devices
from gluon_ft.training.feature_cache import by_image

MOST = 300  # images; MobileNetV2 at 224 pixels does about 30 a second on two cores
FOLDS = 5
PIXELS = 16  # edge of the shrunken image that features are compared with
C = 0.01  # of the logistic regression on standardised values; strong, since values outnumber images
_BATCH = 32
_NO_WEIGHTS = "no pretrained weights at hand (gluon-ft weights list): advised without the probe"


def measure(source: Any, net: HybridBlock | bool | None = None, *, most: int = MOST, seed: int = 0,
            root: str | os.PathLike | None = None, ctx: list[mx.Context] | None = None) -> Facts:
    """Facts about images, and about the features that a pretrained network makes of them.

    Takes about `most` / 30 seconds for MobileNetV2 at 224 pixels on two cores, a few seconds for CIFAR's networks.

    Parameters
    ----------
    source : path-like, arrays, ImageSource or Loader
        A folder, .lst, .rec or arrays, as `loaders.make_loader` takes them; training images only.
    net : HybridBlock, None or False
        With `weights` and `preprocessing` (`pretrained_net`, `fine_tune_net(pretrained=...)`); it is run in evaluation
        and not changed. None: the one that `choose` finds. False: no probe. A network without pretrained weights is
        not probed.
    most : int, default 300
        Images that are looked at, of each class alike.
    seed : int, default 0
        Draws them, and the folds of the probe.
    root : path-like, optional
        Folder that the paths of a .lst begin at.
    ctx : list of mx.Context, default where the network is
        What runs the network, which is moved there.

    Raises
    ------
    DataError
        for no images, one class only, or where none of those looked at can be read.
    ConfigError
        for `most` below 20.
    """
    if isinstance(most, bool) or not isinstance(most, int) or most < 20:
        raise ConfigError("too few images to probe with", expected="20 or more", found=most)
    begun = time.perf_counter()
    found = source.source if isinstance(source, Loader) else open_source(source, root)
    names = found.class_names or [str(label) for label in range(int(found.labels.max()) + 1)]
    counts = np.bincount(found.labels, minlength=len(names))
    if len(counts) < 2 or (counts > 0).sum() < 2:
        raise DataError("one class only", path=found.name, expected="two classes or more, to tell apart")
    notes = [f"class '{name}' has no image" for name, count in zip(names, counts) if not count]
    drawn = draw(found.labels, most, seed)
    sizes, grey, pixels, kept = _looked_at(found, drawn, notes)
    edge = int(np.median(np.min(sizes, axis=1)))
    if net is None:
        net = choose(edge, notes, _has_gpu(ctx))
    facts = Facts(len(found.labels), int((counts > 0).sum()), int(counts[counts > 0].min()), int(counts.max()),
                  *(int(value) for value in np.median(sizes, axis=0)), grey=grey)
    if net is not None and net is not False and getattr(net, "weights", None) is not None:
        devices.placed(net, ctx)
        facts = _probed(facts, found, kept, pixels, net, notes, seed)
    return replace(facts, notes=tuple(notes), seconds=round(time.perf_counter() - begun, 1))


def _has_gpu(ctx) -> bool:
    return any(place.device_type == "gpu" for place in ctx or ())


def choose(edge: int | None, notes: list[str] | None = None, gpu: bool = False) -> HybridBlock | None:
    """Chooses, among the weights at hand, a network for images of that size; nothing is fetched.

    If some are made for images as small or as large, it is the one that `gluon-ft train` takes; else the one whose
    input size is nearest.

    Parameters
    ----------
    edge : int, optional
        Shorter edge of the images, pixels; None where not known.
    notes : list of str, optional
        Gets what is to be said about the choice.
    gpu : bool, default False
        Whether a GPU runs it.

    Returns
    -------
    HybridBlock or None
        None where no weights are at hand.
    """
    rows = choices.at_hand()
    if not rows:
        if notes is not None:
            notes.append(_NO_WEIGHTS)
        return None
    small = edge is not None and edge <= choices.SMALL
    alike = [row for row in rows if (registry.get(row.backbone).input_size <= choices.SMALL) == small]
    if alike:
        chosen = choices.choose(choices.AUTO, choices.AUTO, size=edge, gpu=gpu)
        return pretrained_net(chosen)

    def distance(row):
        return abs(math.log(registry.get(row.backbone).input_size / (edge or 224))), not row.preferred, row.name

    row = min(rows, key=distance)
    if notes is not None:
        size = registry.get(row.backbone).input_size
        notes.append(f"{row.name} is the nearest at hand, made for {size} pixels")
    return pretrained_net(row.backbone, row.tag)


def draw(labels: Sequence[int] | np.ndarray, most: int, seed: int = 0) -> np.ndarray:
    """Draws at most `most` images, of each class alike as far as it goes.

    Where there are more classes than `most` / 5, some classes are left out, since folds need some of each.

    Parameters
    ----------
    labels : int (n,)
    most : int
    seed : int, default 0

    Returns
    -------
    ndarray
        int64, positions in `labels`, sorted.
    """
    labels = np.asarray(labels)
    classes = sorted(np.unique(labels), key=lambda label: draw_key(seed, f"class {label}"))[:max(2, most // FOLDS)]
    of_class = {label: np.flatnonzero(labels == label) for label in classes}
    share = most // len(classes)
    spare = most - sum(min(share, len(positions)) for positions in of_class.values())
    chosen = []
    for number, label in enumerate(sorted(classes, key=lambda label: len(of_class[label]))):
        # What small classes leave over goes to the larger ones, the smallest of which come first.
        take = share + spare // max(1, len(classes) - number) if len(of_class[label]) > share else share
        positions = np.random.RandomState((seed, int(label))).permutation(of_class[label])[:take]
        spare -= max(0, len(positions) - share)
        chosen.append(positions)
    return np.sort(np.concatenate(chosen))


def _looked_at(found, drawn, notes):
    """(sizes (n, 2), whether all are grey, shrunken images (n, 768) in 0..1, positions) of those that can be read."""
    sizes, grey, shrunk, kept, first = [], True, [], [], None
    for position in reporter.progress(drawn, desc="looking", unit="image"):
        try:
            image, size = _seen(found, int(position))
            sizes.append(size)
        except header.Unreadable as error:
            first = first or f"{found.where(int(position))}: {error}"
            continue
        grey = grey and bool((image[..., 0] == image[..., 1]).all() and (image[..., 0] == image[..., 2]).all())
        shrunk.append(cv2.resize(image, (PIXELS, PIXELS), interpolation=cv2.INTER_AREA).ravel() / 255)
        kept.append(position)
    if not kept:
        raise DataError("no image can be read", path=found.name, found=first)
    if len(kept) < len(drawn):
        notes.append(f"{len(drawn) - len(kept)} of {len(drawn)} images cannot be read, the first: {first}")
    return np.array(sizes), grey, np.array(shrunk, np.float32), np.array(kept)


def _seen(found, position):
    """(the image at reduced scale, its width and height), the latter from the file's header where there is one."""
    if not isinstance(found, FileSource):
        image = found.image(position, 3, PIXELS)
        return image, image.shape[1::-1]
    data = found.read(position)
    return decode_rgb(data, 3, PIXELS), header.probe(data).upright


def _probed(facts, found, kept, pixels, net, notes, seed):
    made_for, wanted = _input_for(net, facts.edge)
    loader = make_loader(found.subset(kept), train=False, batch_size=_BATCH, preprocessing=wanted)
    extracted, labels = by_image.of_images(net, loader, title="probe")
    known = replace(facts, weights=net.weights.source or type(net).__name__, input_size=made_for,
                    stages=len(stages(net, (1, wanted.channels, wanted.size, wanted.size))),
                    eigenvalue=float(np.linalg.norm(extracted, 2) ** 2 / len(extracted)))
    scores = separability(extracted, labels, seed)
    if scores is None:
        notes.append("too few images of each class to probe with")
        return known
    accuracy, spread, chance = scores
    on_pixels = separability(pixels, labels, seed)
    return replace(known, probe=accuracy, probe_spread=spread, chance=chance,
                   pixels=None if on_pixels is None else on_pixels[0])


def _input_for(net, edge: int) -> tuple[int, Preprocessing]:
    """The size that a network is made for, and the preprocessing for images of that shorter edge."""
    entry = registry.of(net)
    if entry is None:
        return net.preprocessing.size, net.preprocessing
    return entry.input_size, network.input_of(net, advice.input_size(edge, entry.input_size))


def network_for(source: ImageSource, backbone: str = choices.AUTO, weights: str = choices.AUTO,
                ctx: list[mx.Context] | None = None) -> Any:
    """The pretrained network whose features describe these images, with the preprocessing for their size.

    Parameters
    ----------
    source : ImageSource
        Some of its images are looked at for their size.
    backbone, weights : str
        As in `finetune.choice.choose`; where neither is given, as `choose` chooses.
    ctx : list of mx.Context, default the CPU
        Where the network is put.

    Raises
    ------
    WeightsError
        There are no pretrained weights, or none were wanted.
    DataError
        None of the images that were looked at can be read.
    """
    edge = job_data.typical_size(source)
    if edge is None:
        raise DataError("no image can be read", path=source.name, remedy="see gluon-ft audit")
    net: Any = named(backbone, weights, _has_gpu(ctx))
    net = choose(edge, gpu=_has_gpu(ctx)) if net is None else net
    if not isinstance(net, HybridBlock) or getattr(net, "weights", None) is None:
        raise WeightsError("this takes pretrained weights", expected="some at hand (gluon-ft weights list)",
                           found="none", remedy="get some with gluon-ft weights get, or name them with --pretrained")
    net.preprocessing = _input_for(net, edge)[1]
    devices.placed(net, ctx)
    return net


def separability(values: np.ndarray, labels: np.ndarray, seed: int = 0) -> tuple[float, float, float] | None:
    """How well a linear classifier separates classes, by cross-validation.

    Logistic regression on standardised values, C = 0.01, in as many stratified folds as the smallest class has images,
    at most 5; classes with one image are left out.

    Parameters
    ----------
    values : float array (n, d)
        One row an image.
    labels : int array (n,)
    seed : int, default 0
        Of the folds.

    Returns
    -------
    accuracy, spread, chance : float
        The mean over the folds, its standard deviation, and the share of the most frequent class. None in their place
        where fewer than two classes are left.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    values, labels = np.asarray(values), np.asarray(labels)
    names, counts = np.unique(labels, return_counts=True)
    usable = np.isin(labels, names[counts >= 2])
    if (counts >= 2).sum() < 2:
        return None
    values, labels = values[usable], labels[usable]
    folds = StratifiedKFold(min(FOLDS, counts[counts >= 2].min()), shuffle=True, random_state=seed)
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=200))
    # More threads than one make products of this size much slower where the processors have other work.
    with threadpool_limits(1, user_api="blas"), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        scores = cross_val_score(classifier, values, labels, cv=folds)
    return float(scores.mean()), float(scores.std()), float(counts.max() / counts[counts >= 2].sum())


def named(backbone: str = choices.AUTO, weights: str = choices.AUTO, gpu: bool = False) -> HybridBlock | bool | None:
    """The network that names ask for, for `measure`: None where neither is given, False where weights are 'none'.

    Parameters
    ----------
    backbone, weights : str
        As in `finetune.choice.choose`.
    gpu : bool, default False
        Whether a GPU runs it.

    Raises
    ------
    NetworkError, WeightsError, ConfigError
        for names that do not exist or do not fit; WeightsError where the weights can be had neither here nor from
        their addresses.
    """
    if backbone == weights == choices.AUTO:
        return None
    chosen = choices.choose(backbone, weights, size=None, gpu=gpu)
    if chosen.pretrained == choices.NONE:
        return False
    try:
        return pretrained_net(chosen)
    except DownloadError as error:
        raise choices.unobtainable(error, chosen) from error
