"""Penultimate features of images: of a whole set, kept on disk; with the copies among them; beside the result."""
from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import mxnet as mx
import numpy as np
from mxnet.gluon import HybridBlock, SymbolBlock

from gluon_ft.data.audit.report import BAD, Report
from gluon_ft.data.loader import make_loader
from gluon_ft.data.sampler import digest
from gluon_ft.data.sources.base import ImageRef, ImageSource
from gluon_ft.data.sources.files import FileSource
from gluon_ft.data.split import linked
from gluon_ft.engine import choice, fused
from gluon_ft.errors import DataError
from gluon_ft.io.paths import AnyPath
from gluon_ft.models import tracing
from gluon_ft.runtime import devices
from gluon_ft.runtime.gluon_internals import is_initialised
from gluon_ft.training.feature_cache import by_image, features, subgraph
from gluon_ft.training.feature_cache import store as features_store

_BATCH = 32  # images computed at a time


def penultimate(net: HybridBlock, loader: Any, store: AnyPath = "disk",
                ctx: mx.Context | list[mx.Context] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The output layer's input for every image, computed once; see `training.feature_cache.features.extract`.

    Parameters
    ----------
    net : HybridBlock
        An initialised classifier.
    loader : Loader or ArrayLoader
        With `train=False`, or without shuffling.
    store : {'disk', 'memory'} or path-like
        'disk': the cache folder, where a later run with the same images, preprocessing, weights and versions finds the
        features again; 'memory': they are not kept; or a folder.
    ctx : Context or list of Context, optional
        Default: the network's.

    Returns
    -------
    (ndarray, ndarray)
        Features float32 (n, d) and labels int64 (n,), in the source's order.

    Raises what `extract` and `store.kept` raise.
    """
    layer: Any = tracing.output_layer(net).block
    if not all(map(is_initialised, net.collect_params().values())):
        # Deferred initialisation: one image makes the shapes known.
        net(next(iter(loader)).data[:1].as_in_context(devices.of(net)[0]))
    width = math.prod(layer.weight.shape[1:])
    labels = np.asarray(loader.labels, dtype=np.int64)
    engine = fused.settle(net, len(labels), features.Images(loader, 0).shape)
    about = {"penultimate": subgraph.penultimate_fingerprint(net), "images": loader.identity(), "form": "fast",
             "device": (ctx or devices.of(net))[0].device_type, "versions": features.versions(),
             **features.by_engine(engine),
             **({"mirror": True} if fused.is_mirrored(net) else {})}
    key = digest([json.dumps(about, sort_keys=True).encode()])[:40]

    def make():
        with choice.using(engine):
            return [features.extract(net, loader, ctx)[0]]

    found = features_store.kept(key, (1, len(labels), width), make, store=store,
                                about={"images": len(labels), "penultimate": type(net).__name__})
    return found[0], labels


@dataclass(frozen=True)
class Described:
    """Images with their features, for classifiers that are fitted to some of them and judged on others.

    Attributes
    ----------
    source : ImageSource
        The images that are used.
    features : float32 (n, d)
    labels : int64 (n,)
        Positions in `class_names`, which are only those of the images that are used.
    class_names : list of str
    groups : int64 (n,)
        Copies of one image have the same number.
    notes : list of str
        Which images are not used, and why.
    """

    source: ImageSource
    features: np.ndarray
    labels: np.ndarray
    class_names: list[str]
    groups: np.ndarray
    notes: list[str]


def describe(source: ImageSource, net: HybridBlock, report: Report | None = None, least: int = 2) -> Described:
    """The penultimate features of a source's images, and which of them are copies.

    What a job or an earlier call has computed of an image is used, see `feature_cache.by_image`.

    Parameters
    ----------
    source : ImageSource
        With one label an image.
    net : HybridBlock
        With pretrained weights and `preprocessing`.
    report : data.audit.report.Report, optional
        The audit of the same source alone: images that cannot be read are passed over, and copies are grouped.
    least : int, default 2
        Different images that a class must have; images of others are not used.

    Raises
    ------
    DataError
        Fewer than two classes have enough images, an image cannot be read, or has several labels.
    """
    kept, groups, notes = _usable_images(source, report, least)
    loader = make_loader(kept, train=False, batch_size=_BATCH, preprocessing=net.preprocessing)
    found, labels = by_image.of_images(net, loader)
    names = [kept.label_name(int(np.flatnonzero(labels == label)[0])) or str(label) for label in np.unique(labels)]
    return Described(kept, found, np.unique(labels, return_inverse=True)[1].reshape(-1), names, groups, notes)


def _usable_images(source, report, least) -> tuple[ImageSource, np.ndarray, list[str]]:
    """The images to describe, a group number for each of them, and what is said of the others."""
    if (source.labels < 0).any():
        raise DataError("one label an image is needed here", path=source.name,
                        found=f"several labels at {source.where(int(np.argmin(source.labels)))}")
    groups, usable, notes = np.arange(len(source)), np.ones(len(source), bool), []
    if report is not None:
        position = {_place(source.ref(i)): i for i in range(len(source))}
        bad = [position.get(_place(ImageRef(finding.item.path, finding.item.offset)))
               for kind in BAD for finding in report.findings.get(kind, [])]
        bad = [i for i in bad if i is not None]
        usable[bad] = False
        notes += [f"not used, cannot be read: {len(bad)}"] if bad else []
        groups = linked(len(source), [(position[_place(ImageRef(pair.first.path, pair.first.offset))],
                                       position[_place(ImageRef(pair.second.path, pair.second.offset))])
                                      for pair in report.pairs])
    small = [label for label in np.unique(source.labels)
             if len(np.unique(groups[usable & (source.labels == label)])) < least]
    few = np.isin(source.labels, small)
    if small:
        names = [str(source.label_name(int(np.flatnonzero(source.labels == label)[0]))) for label in small]
        notes.append(f"not used, fewer than {least} different images each: {', '.join(names[:8])}"
                     + ", ..." * (len(names) > 8))
    usable &= ~few
    if len(np.unique(source.labels[usable])) < 2:
        raise DataError("too few images", path=source.name, expected="two classes or more with at "
                        f"least {least} different images each", found=f"{int(usable.sum())} images in such classes")
    kept = np.flatnonzero(usable)
    return (source if len(kept) == len(source) else source.take(kept) if isinstance(source, FileSource)
            else source.subset(kept)), groups[kept], notes


def _place(ref: ImageRef | None) -> Any:
    return None if ref is None else ref.absolute()


def with_penultimate(net: HybridBlock) -> tuple[HybridBlock, int]:
    """A block on the network's own parameters that gives its result and the penultimate features in one pass.

    Returns
    -------
    (block, classes)
        The block's result is (n, classes + d): that of the network, and behind it the features that `penultimate` has.
        It is one array, since some engines run networks of one result only.

    Raises
    ------
    NetworkError
        The network has no output layer, or several results.
    """
    layer: Any = tracing.output_layer(net).block
    graph = subgraph.trace(net)
    both = mx.sym.Group([graph.part(graph.head), graph.part(subgraph.input_of(graph, layer.weight.name))])
    axes = features.spatial_axes(layer)
    rows = mx.sym.Flatten(mx.sym.mean(both[1], axis=axes) if axes else both[1])
    block = SymbolBlock(mx.sym.concat(mx.sym.Flatten(both[0]), rows, dim=1), subgraph.input_variable(graph),
                        params=graph.parameters)
    block.hybridize()
    return block, tracing.output_layer(net).classes
