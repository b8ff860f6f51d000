"""Penultimate features of a set of images, cached on disk under a key of everything that they depend on."""
from __future__ import annotations

import json
import math
from typing import Any

import mxnet as mx
import numpy as np
from mxnet.gluon import HybridBlock, SymbolBlock

from gluon_ft.data.sampler import digest
from gluon_ft.engine import choice, fused
from gluon_ft.io.paths import AnyPath
from gluon_ft.models import tracing
from gluon_ft.runtime import devices
from gluon_ft.runtime.gluon_internals import is_initialised
from gluon_ft.training.feature_cache import features, subgraph
from gluon_ft.training.feature_cache import store as features_store


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
    about = {"penultimate": _fingerprint(net, layer), "images": loader.identity(), "form": "fast",
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


def _fingerprint(net, layer):
    graph = subgraph.trace(net)
    return subgraph.fingerprint(graph, subgraph.input_of(graph, layer.weight.name))
