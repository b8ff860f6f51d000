"""Small trainings, by `gluon_ft.fit` and by `symbolic.fit`: what comes out of them, and of interrupted ones."""
from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import mxnet as mx
import numpy as np
from mxnet.gluon import nn
from pinned.common import CLASSES, digest, figures, numpy_of, parameters, untimed

import gluon_ft
from gluon_ft import symbolic
from gluon_ft.data import sampler
from gluon_ft.evaluation.features import penultimate
from gluon_ft.training.feature_cache import cut as features_cut
from gluon_ft.training.feature_cache import features, select, subgraph


def filled(net, seed=3):
    """The network with values from NumPy's generator, which is promised not to change."""
    rng = np.random.RandomState(seed)
    for path, parameter in net._collect_params_with_prefix().items():
        kind, shape = path.rsplit(".", 1)[-1], parameter.shape
        if kind == "weight":
            value = rng.randn(*shape) * np.sqrt(2 / np.prod(shape[1:]))
        elif kind in ("gamma", "running_var"):
            value = rng.uniform(0.8, 1.2, shape)
        else:
            value = 0.1 * rng.randn(*shape)
        parameter.set_data(mx.nd.array(value))
    return net


class Relu6(mx.gluon.HybridBlock):
    """The activation of the MobileNets, for which training rewrites the graph."""

    def hybrid_forward(self, F, x):
        return F.clip(x, 0, 6)


def network(dropout=0.3):
    """Convolutions, one of them depthwise, BatchNorms, dropout, output: 451 numbers, for images of one channel."""
    net = nn.HybridSequential(prefix="")
    net.add(nn.Conv2D(8, 3, use_bias=False, in_channels=1), nn.BatchNorm(in_channels=8), Relu6(),
            nn.Conv2D(8, 3, padding=1, groups=8, use_bias=False, in_channels=8), nn.BatchNorm(in_channels=8),
            Relu6(), nn.Conv2D(16, 1, use_bias=False, in_channels=8), nn.BatchNorm(in_channels=16),
            nn.Activation("relu"), nn.GlobalAvgPool2D(), nn.Flatten(), nn.Dropout(dropout), nn.Dense(3, in_units=16))
    net.initialize()
    net.hybridize()
    return filled(net)


def frozen_network():
    """Everything but the output is frozen."""
    net = network(dropout=0)
    gluon_ft.freeze(net)
    gluon_ft.unfreeze(net[-1])
    return net


class Interrupting(gluon_ft.ArrayLoader):
    """A loader that, while it yields its batch number `at` (over all epochs), sends its own process a signal."""

    at = None

    def __iter__(self):
        for number, batch in enumerate(super().__iter__()):
            if self.at == (self.epoch - 1) * len(self) + number:
                self.at = None
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch


def sets(count=26, batch_size=4, at=None):
    """(training loader, validation loader) of images of one channel; 7 batches an epoch, the last of 2 images.

    at : the batch, over all epochs, in which the training is interrupted
    """
    rng, labels = np.random.RandomState(0), np.arange(count) % 3
    labels[-6:] = 0
    images = (rng.rand(count, 1, 8, 8) + labels[:, None, None, None]).astype("float32")
    train = Interrupting(images, labels, batch_size, shuffle=True, seed=2)
    train.at = at
    return train, gluon_ft.ArrayLoader(images[:9], labels[:9], 4)


FITS = {
    "average": gluon_ft.TrainConfig(epochs=3, lr=0.05, momentum=0.9, schedule="cosine", warmup=0.5, ema=0.9, mixup=0.4,
                                    cutmix=1.0, label_smoothing=0.1, keep=1),
    "adam": gluon_ft.TrainConfig(epochs=3, optimizer="adam", lr=0.01, accumulate=2, clip_norm=0.5,
                                 decay_bias_and_norm=False, wd=0.01, patience=2, keep=1),
    "phases": gluon_ft.TrainConfig(epochs=3, optimizer="rmsprop", lr=0.01, head_epochs=1, layer_decay=0.5,
                                   balance="sampling", schedule="one-cycle"),
    "rare": gluon_ft.TrainConfig(epochs=6, lr=0.02, balance="weights", schedule="multistep", milestones=(1,), seed=11,
                                 patience=1),
    "nag": gluon_ft.TrainConfig(epochs=2, optimizer="nag", lr=0.02),
    "kept": gluon_ft.TrainConfig(epochs=3, lr=0.1, cache_features="memory", schedule="step", lr_every=1, seed=4),
}
TAKEN = gluon_ft.Preprocessing(mean=(0.5,), std=(0.2,), channel_order="gray", size=8, resize=9)
CUT = ("average", "adam")  # of which there is a checkpoint
# MXNet's update differs by a last bit now and then, from run to run of one process: no bits are compared.
INEXACT = ("nag",)
AT = 9  # batch, over all epochs, in which these were interrupted: the third of the second epoch


def build(name):
    """The network that a training of FITS begins with."""
    return frozen_network() if name == "kept" else network()


def fitted(name: str, at=None, **options):
    """(network, result) of a training by `gluon_ft.fit`."""
    net, (train, val) = build(name), sets(at=at)
    net.classes, net.preprocessing = CLASSES, TAKEN
    return net, gluon_ft.fit(net, train, val, FITS[name], **options)


def history_of(result) -> list:
    """The epochs' records without what depends on the clock; lists of pairs, so that the order counts."""
    return [untimed(record) for record in result.history]


def outcome(arrays: dict, result) -> dict:
    """What is pinned of every training."""
    return {"history": history_of(result), "best_epoch": result.best_epoch, "figures": figures(arrays),
            "bits": digest(arrays)}


def fit_values(net, result) -> dict:
    """What is pinned of a training by `gluon_ft.fit`."""
    return {**outcome(parameters(net), result), "stopped": result.stopped}


def symbol():
    """A small network as a symbol, every node named, since names are part of what a checkpoint is compared by."""
    body = mx.sym.Convolution(mx.sym.var("data"), num_filter=4, kernel=(3, 3), name="conv1", no_bias=True)
    body = mx.sym.Activation(mx.sym.BatchNorm(body, fix_gamma=False, name="bn1"), act_type="relu", name="relu1")
    body = mx.sym.Pooling(body, kernel=(2, 2), stride=(2, 2), pool_type="max", name="pool1")
    body = mx.sym.FullyConnected(mx.sym.Flatten(body, name="flatten0"), num_hidden=8, name="fc6")
    body = mx.sym.Dropout(mx.sym.Activation(body, act_type="relu", name="relu6"), p=0.3, name="drop6")
    return mx.sym.SoftmaxOutput(mx.sym.FullyConnected(body, num_hidden=10, name="fc7"), name="softmax")


def symbolic_model():
    """(symbol, arg_params, aux_params) with a new head of three classes, which training draws."""
    whole, rng = symbol(), np.random.RandomState(4)
    shapes, _, statistics = whole.infer_shape(data=(2, 1, 8, 8), softmax_label=(2,))
    args = {name: mx.nd.array(rng.uniform(0.8, 1.2, shape) if name.endswith("gamma") else 0.3 * rng.randn(*shape))
            for name, shape in zip(whole.list_arguments(), shapes) if name not in ("data", "softmax_label")}
    aux = {name: mx.nd.array(rng.uniform(0.8, 1.2, shape))
           for name, shape in zip(whole.list_auxiliary_states(), statistics)}
    new, kept = symbolic.get_fine_tune_model(whole, args, 3, "drop6", head_name="fc8")
    return new, kept, aux


SYMBOLIC = {
    "published": (gluon_ft.TrainConfig(epochs=2, lr=0.02, momentum=0.0, wd=0.0, top_k=0), {}),
    "momentum": (gluon_ft.TrainConfig(epochs=3, lr=0.02, momentum=0.9, wd=0.01, schedule="cosine", warmup=0.5,
                                      label_smoothing=0.1, top_k=2),
                 {"head_lr_mult": 10, "wd_mult": {"_(bias|gamma|beta)$": 0}, "batchnorm": "train"}),
    "adam": (gluon_ft.TrainConfig(epochs=2, optimizer="adam", lr=0.01, seed=6),
             {"frozen": ["conv1", "bn1"], "lr_mult": {"fc6": 0.5}}),
}
SYMBOLIC_CUT = ("momentum", "adam")  # of which there is a checkpoint of the first epoch


class Crash(Exception):
    """What ends a training in the middle here."""


def crash_after(epoch):
    """An `on_epoch` that ends the training after an epoch."""
    def on_epoch(record):
        if record["epoch"] == epoch:
            raise Crash
    return on_epoch


def symbolic_fit(name: str, **options):
    """The result of a training by `symbolic.fit`."""
    config, how = SYMBOLIC[name]
    train, val = sets()
    return symbolic.fit(*symbolic_model(), train, val, 4, config=config, speedometer=0, preprocessing=TAKEN, **how,
                        **options)


def symbolic_arrays(result) -> dict:
    """Parameters and running statistics by name."""
    return numpy_of({**result.arg_params, **result.aux_params})


def symbolic_values(result) -> dict:
    """What is pinned of a training by `symbolic.fit`."""
    return {**outcome(symbolic_arrays(result), result), "frozen": result.frozen, "held": result.held}


def kept_features(folder: Path) -> dict:
    """What the names of kept features are made of; the versions of the day are in these, so they are told by parts."""
    net, (train, val) = frozen_network(), sets()
    graph = subgraph.trace(net)
    known = {"cut": features_cut.cut(net).fingerprint(), "penultimate": subgraph.fingerprint(
        graph, subgraph.input_of(graph, net[-1].weight.name))}
    by_default = select.prepare(net, train, val, store=folder / "kept")
    parts = features_cut.cut(net)
    exact = select.Running(parts.suffix, *(features.cached(loader, parts, store=folder / "kept", exact=True)
                                           for loader in (train, val)))
    found = {"fingerprints": known}
    for name, loader, images in (("training", by_default.train, train), ("validation", by_default.val, val),
                                 ("exact training", exact.train, train), ("exact validation", exact.val, val)):
        identity = loader.identity()
        assert identity["features"] == loader.key
        found[name] = {"form": _form(loader.key, known["cut"], images), "figures": figures({"": loader.features}),
                       "identity": [[key, value] for key, value in identity.items() if key != "features"]}
    manifest = json.loads((folder / "kept" / by_default.val.key / "manifest.json").read_text("utf-8"))
    found["manifest"] = [[key, value] for key, value in manifest.items() if key not in ("key", "sha256")]
    penultimate(net, val, store=folder / "last")
    (key,) = (path.name for path in (folder / "last").iterdir() if path.is_dir())
    found["penultimate"] = key == _key(penultimate=known["penultimate"], images=val.identity(), form="fast")
    return found


def _form(key, cut, images):
    forms = {_key(prefix=cut, images=features.Images(images, 0).identity, precision="float32", form=form): form
             for form in ("fast", "training", "evaluation")}
    return forms.get(key, "none of the known")


def _key(**parts):
    parts = {**parts, "device": "cpu", "versions": features.versions()}
    return sampler.digest([json.dumps(parts, sort_keys=True).encode()])[:40]


def arithmetic() -> str:
    """A hash of some steps of training by MXNet alone: where it is another, bits cannot be expected to be the same.

    Kernels for other processors (AVX2, AVX-512) and other numbers of threads add up in another order.
    """
    mx.random.seed(1)
    arrays = {}
    shapes = {"small": (network(), (4, 1, 8, 8)), "lenet": (_lenet(), (4, 1, 28, 28)),
              "resnet": (_stages(), (4, 3, 32, 32))}
    for name, (net, shape) in shapes.items():
        rng = np.random.RandomState(2)
        trainer = mx.gluon.Trainer(net.collect_params(), "adam", {"learning_rate": 0.01})
        loss, label = mx.gluon.loss.SoftmaxCrossEntropyLoss(), mx.nd.array([0, 1, 2, 0])
        for _ in range(3):
            data = mx.nd.array(rng.randn(*shape))
            with mx.autograd.record():
                value = loss(net(data), label)
            value.backward()
            trainer.step(4)
        arrays.update({f"{name} {path}": array for path, array in parameters(net).items()})
        arrays[f"{name} outputs"] = mx.nd.softmax(net(mx.nd.array(rng.randn(*shape)))).asnumpy()
    return digest(arrays)


def _lenet():
    net = nn.HybridSequential(prefix="")
    net.add(nn.Conv2D(20, 5, in_channels=1), nn.MaxPool2D(2), nn.Conv2D(50, 5, in_channels=20), nn.MaxPool2D(2),
            nn.Dense(500, activation="relu", in_units=800), nn.Dense(3, in_units=500))
    net.initialize()
    net.hybridize()
    return filled(net)


def _stages():
    net = nn.HybridSequential(prefix="")
    for before, channels in ((3, 16), (16, 32), (32, 64)):
        net.add(nn.Conv2D(channels, 3, 2, 1, use_bias=False, in_channels=before), nn.BatchNorm(in_channels=channels),
                nn.Activation("relu"))
    net.add(nn.GlobalAvgPool2D(), nn.Dense(3, in_units=64))
    net.initialize()
    net.hybridize()
    return filled(net)
