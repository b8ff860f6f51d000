"""Batches that several devices do not divide, images of another size, devices elsewhere, and networks from symbols."""
from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn

import gluon_ft
from gluon_ft import symbolic
from gluon_ft.data.batches import ArrayLoader
from gluon_ft.errors import ConfigError, NetworkError
from gluon_ft.symbolic.module import rows_for
from gluon_ft.training.feature_cache import features
from gluon_ft.training.metrics import evaluate

CONFIG = gluon_ft.TrainConfig(epochs=1, lr=0.1, momentum=0.0, wd=0.0, top_k=0, seed=0)
FOUR = [mx.cpu(i) for i in range(4)]


def network(flat=True):
    mx.random.seed(0)
    net = nn.HybridSequential()
    net.add(nn.Conv2D(4, 3), nn.Flatten() if flat else nn.GlobalAvgPool2D(), nn.Flatten(), nn.Dense(3))
    net.initialize(mx.init.Xavier())
    net.hybridize()
    net(mx.nd.zeros((1, 3, 8, 8)))
    return net


def loader(count, size=8, batch=6):
    rng = np.random.RandomState(count)
    return ArrayLoader(rng.rand(count, 3, size, size), np.arange(count) % 3, batch)


@pytest.mark.parametrize("devices", range(1, 9))
def test_no_device_is_left_without_images(devices):
    from mxnet.executor_manager import _split_input_slice

    for images in range(1, 40):
        rows = rows_for(images, devices)
        assert all(part.stop > part.start for part in _split_input_slice(rows, [1] * devices))
        assert images <= rows < max(images, devices) + devices


@pytest.mark.parametrize("count, batch", [(12, 6), (14, 6), (10, 5), (7, 7), (9, 9)])
def test_a_batch_that_devices_do_not_divide_trains_as_on_one(count, batch):
    model = symbolic.to_symbol(network(), softmax=True)
    found = [symbolic.fit(*model, loader(count, batch=batch), loader(count, batch=batch), batch, devices, config=CONFIG,
                          speedometer=0) for devices in ([mx.cpu()], FOUR)]
    for name, value in found[0].arg_params.items():
        np.testing.assert_allclose(found[1].arg_params[name].asnumpy(), value.asnumpy(), rtol=1e-4, atol=1e-6)
    one, four = (result.history[-1] for result in found)
    for key in ("train_accuracy", "validation_accuracy", "train_loss", "validation_loss"):
        assert four[key] == pytest.approx(one[key], rel=1e-4), key
    metrics = symbolic.evaluate(*model, loader(count, batch=batch), batch, FOUR)
    assert metrics.count == count
    assert metrics.loss == pytest.approx(symbolic.evaluate(*model, loader(count, batch=batch), batch).loss, rel=1e-5)


SIZE = r"the network does not take images of this size in .*; found \(3, 10, 10\); make all loaders with one preprocess"


@pytest.mark.parametrize("run", [
    lambda: gluon_ft.fit(network(), loader(6), loader(6, 10), CONFIG),
    lambda: gluon_ft.fit(network(), loader(6, 10), None, CONFIG),
    lambda: evaluate(network(), loader(6, 10)),
    lambda: symbolic.fit(*symbolic.to_symbol(network(), softmax=True), loader(6), loader(6, 10), 6, config=CONFIG,
                         speedometer=0),
], ids=["validation", "training", "evaluation", "symbolic validation"])
def test_images_of_a_size_that_the_network_does_not_take(run):
    with pytest.raises(NetworkError, match=SIZE):
        run()


@pytest.mark.parametrize("run", [
    evaluate, features.extract, lambda net, images: gluon_ft.fit(net, images, None, CONFIG),
], ids=["evaluation", "features", "training"])
@pytest.mark.parametrize("kind", ["uint8", "int32", "float16"])
def test_images_of_a_type_that_the_network_does_not_take(run, kind):
    images = [(mx.nd.zeros((6, 3, 8, 8), dtype=kind), mx.nd.array([0, 1, 2, 0, 1, 2]))]
    with pytest.raises(NetworkError, match=f"does not take images of this type in .*; found {kind}; convert and scale"):
        run(network(), images)


def test_images_of_another_size_where_the_network_takes_them():
    assert evaluate(network(False), loader(6, 10)).count == 6
    assert gluon_ft.fit(network(False), loader(6), loader(6, 10), CONFIG).history
    model = symbolic.to_symbol(network(False), softmax=True)
    assert symbolic.fit(*model, loader(6), loader(6, 10), 6, config=CONFIG, speedometer=0).history


@pytest.mark.parametrize("run", [evaluate, features.extract])
def test_devices_where_the_network_is_not(run):
    net = network()
    for ctx in (mx.cpu(1), [mx.cpu(1)], [mx.cpu(0), mx.cpu(1)]):
        with pytest.raises(ConfigError, match=r"the network is not on these devices; expected cpu\(0\); found cpu\(1\)"
                                              r"; leave ctx out.*: net\.collect_params\(\)\.reset_ctx\(ctx\)"):
            run(net, loader(6), ctx)
    run(net, loader(6), mx.cpu())
    net.collect_params().reset_ctx([mx.cpu(1), mx.cpu(2)])
    run(net, loader(6), [mx.cpu(1), mx.cpu(2)])
    run(net, loader(6), mx.cpu(2))


def test_the_remedy_for_a_network_from_a_symbol_works(tmp_path):
    net = network()
    net.export(str(tmp_path / "n"))
    block = mx.gluon.SymbolBlock.imports(str(tmp_path / "n-symbol.json"), ["data"], str(tmp_path / "n-0000.params"))
    for change in (gluon_ft.replace_output, gluon_ft.append_output):
        with pytest.raises(NetworkError, match=r"a SymbolBlock, whose layers cannot be exchanged .*put a new output on "
                                               r"its symbol: gluon_ft\.symbolic\.fine_tune_block\("):
            change(block, 5)
    new = gluon_ft.symbolic.fine_tune_block(*gluon_ft.symbolic.to_symbol(block), 5, None)
    assert new(mx.nd.zeros((2, 3, 8, 8))).shape == (2, 5)
    images = ArrayLoader(np.random.RandomState(0).rand(10, 3, 8, 8), np.arange(10) % 5, 5)
    assert gluon_ft.fit(new, images, images, CONFIG).history
