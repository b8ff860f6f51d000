"""The same training on one and on several devices, whatever the batches, on both paths; and SyncBatchNorm."""
from __future__ import annotations

import functools
from dataclasses import replace

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn

import gluon_ft
from gluon_ft import symbolic
from gluon_ft.data.batches import ArrayLoader
from gluon_ft.engine import sync_batchnorm
from gluon_ft.errors import ConfigError
from gluon_ft.models.batchnorm import set_batchnorm
from gluon_ft.runtime import devices
from gluon_ft.runtime.gluon_internals import values_of
from gluon_ft.training.metrics import evaluate
from gluon_ft.training.step import Stepper

STEPS = 5
CONFIG = gluon_ft.TrainConfig(epochs=1, lr=0.1, momentum=0.9, wd=1e-3, top_k=0, seed=0)
SYNC = replace(CONFIG, sync_batchnorm=True)
HELD = r"batchnorm\d_(gamma|beta)$"
# Batches that devices do not divide, and last batches of 2, 1 and 5 images.
BATCHES = [(6, 26), (7, 29), (9, 41)]


def network(held=True):
    mx.random.seed(0)
    net = nn.HybridSequential(prefix="net_")
    with net.name_scope():
        net.add(nn.Conv2D(4, 3, in_channels=3, use_bias=False), nn.BatchNorm(in_channels=4), nn.Activation("relu"),
                nn.GlobalAvgPool2D(), nn.Dense(3, in_units=4))
    net.initialize(mx.init.Xavier())
    net.hybridize()
    net[1].running_mean.set_data(mx.nd.array([0.1, -0.2, 0.3, 0]))
    if held:
        set_batchnorm(net, "frozen")
        gluon_ft.freeze(net[1])
    return net


def loader(batch, images):
    rng = np.random.RandomState(images)
    return ArrayLoader(rng.rand(images, 3, 8, 8), np.arange(images) % 3, batch, shuffle=True, seed=1)


def by_gluon(batch, images, ctx, config=CONFIG, held=True):
    net = network(held)
    found = gluon_ft.fit(net, loader(batch, images), None, config, ctx=ctx)
    assert evaluate(net, loader(batch, images), ctx).count == images
    values = {name: [each.asnumpy() for each in values_of(p)] for name, p in net.collect_params().items()}
    return values, found.history[-1]["train_loss"]


def by_module(batch, images, ctx, config=CONFIG, held=True):
    net = network(held)
    model = symbolic.to_symbol(net, softmax=True)
    found = symbolic.fit(*model, loader(batch, images), None, batch, ctx, config, speedometer=0,
                         frozen=[HELD] if held else [], batchnorm="frozen" if held else "train")
    assert symbolic.evaluate(found.symbol, found.arg_params, found.aux_params, loader(batch, images), batch,
                             ctx).count == images
    arrays = {**found.arg_params, **found.aux_params}
    values = {name: [arrays[name].asnumpy()] for name in
              (full.partition("net_")[2] for full in net.collect_params())}
    return values, found.history[-1]["train_loss"]


PATHS = {"gluon": by_gluon, "module": by_module}


@functools.lru_cache(None)
def on_one(path, batch, images, held=True):
    return PATHS[path](batch, images, [mx.cpu()], held=held)


def apart(one, other):
    """Largest difference of a parameter on any device, relative to the parameter's largest value."""
    assert one.keys() == other.keys()
    return max(float(np.abs(one[name][0] - value).max() / max(np.abs(one[name][0]).max(), 1e-30))
               for name in one for value in other[name])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("count", "batch", "images"), [
    *((count, *BATCHES[0]) for count in (2, 4)),
    *(pytest.param(count, *each, marks=pytest.mark.slow) for count in (2, 3, 4, 5) for each in BATCHES
      if each != BATCHES[0] or count in (3, 5))])
def test_several_devices_train_as_one(path, count, batch, images):
    assert -(-images // batch) == STEPS
    one, loss = on_one(path, batch, images)
    found, same = PATHS[path](batch, images, devices.contexts(f"cpu:{count}"))
    assert apart(one, found) < 1e-5
    assert same == pytest.approx(loss, rel=1e-5)
    start = dict(zip(one, network().collect_params().values()))
    moved = {name for name, p in start.items() if np.abs(p.data().asnumpy() - one[name][0]).max() > 1e-4}
    assert moved == {name for name in one if "batchnorm" not in name} and len(moved) == 3


@pytest.mark.parametrize("path", PATHS)
def test_kvstores(path):
    local, nccl = (replace(CONFIG, kvstore=kind) for kind in ("local", "nccl"))
    one, _ = on_one(path, *BATCHES[0])
    assert apart(one, PATHS[path](*BATCHES[0], devices.contexts("cpu:2"), local)[0]) < 1e-5
    for spec in ("cpu", "cpu:2"):
        with pytest.raises(ConfigError, match=f"kvstore 'nccl' is for GPUs; .*found {spec}; use 'device'"):
            PATHS[path](*BATCHES[0], devices.contexts(spec), nccl)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_every_image_of_a_batch_counts_once(count):
    ctx = devices.contexts(f"cpu:{count}")
    net = network()
    net.collect_params().reset_ctx(ctx)
    stepper = Stepper(net, CONFIG, ctx, loader(7, 29), None, 3)
    stepper.begin(1)
    for position, batch in enumerate(loader(7, 29)):
        labels = [label.asnumpy().ravel() for _, label, _ in stepper.step(batch, 1, position)]
        assert np.concatenate(labels).tolist() == batch.label.asnumpy().tolist()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("count", "batch", "images"), [(2, 8, 40), (4, 8, 40), (3, 8, 36)])
def test_synchronised_batchnorm_is_that_of_the_whole_batch(path, count, batch, images):
    one, loss = on_one(path, batch, images, held=False)
    ctx = devices.contexts(f"cpu:{count}")
    found, same = PATHS[path](batch, images, ctx, SYNC, held=False)
    assert apart(one, found) < 1e-5 and same == pytest.approx(loss, rel=1e-5)
    own, _ = PATHS[path](batch, images, ctx, CONFIG, held=False)
    assert apart(one, own) > 1e-3  # without it each device normalises by its own images


def test_synchronised_batchnorm_with_gradients_that_are_added_up():
    config = replace(SYNC, accumulate=2)
    one, _ = by_gluon(8, 40, [mx.cpu()], config, held=False)
    assert apart(one, by_gluon(8, 40, devices.contexts("cpu:2"), config, held=False)[0]) < 1e-5


def test_what_synchronised_batchnorm_cannot_do():
    symbol = mx.sym.BatchNorm(mx.sym.var("data"), axis=3)
    assert sync_batchnorm.synchronised(symbol, 1) is symbol
    with pytest.raises(ConfigError, match="sync_batchnorm is for channels on axis 1; found axis 3 of '"):
        sync_batchnorm.synchronised(symbol, 2)
    with pytest.raises(ConfigError, match="sync_batchnorm is for few devices; expected at most 16; found 17"):
        sync_batchnorm.synchronised(symbol, 17)
    net = network(held=False)
    assert sync_batchnorm.form_for(net) is None
    net.collect_params().reset_ctx(devices.contexts("cpu:2"))
    with pytest.raises(ConfigError, match="sync_batchnorm is for precision float32; found bfloat16"):
        sync_batchnorm.form_for(net, "bfloat16")
    set_batchnorm(net, "frozen")
    assert sync_batchnorm.form_for(net) is None  # nothing follows the batches
