"""Contract of every backbone x head operation: replace, freeze, step, save, reload, export, with equal outputs."""
from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest

from gluon_ft import backbones, freezing, heads
from gluon_ft.data.batches import ArrayLoader
from gluon_ft.errors import NetworkError
from gluon_ft.models import tracing
from gluon_ft.training.config import TrainConfig
from gluon_ft.training.fit import fit

# One of each kind of output and of building: Dense, convolution, group norm, several names, all three zoos.
FAST = ["lenet", "resnet18_v2", "mobilenet0.25", "mobilenetv2_0.25", "squeezenet1.1", "resnet18_v1b",
        "cifar_resnet20_v1", "mobilenetv3_small", "gluoncv/resnet18_v1"]
BATCH, CLASSES = 2, 3


def cases():
    return [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in backbones.names()]


def snapshot(net):
    return {path: p.data().asnumpy().copy() for path, p in net._collect_params_with_prefix().items()}


def moved(net, before):
    return {path for path, value in snapshot(net).items() if not np.array_equal(value, before[path])}


def loader(name):
    shape = backbones.input_shape(name, batch=BATCH, size=backbones.get(name).min_size)
    return ArrayLoader(np.random.RandomState(0).rand(*shape), [0, 2], batch_size=BATCH)


@pytest.mark.parametrize("name", cases())
def test_contract(name, tmp_path):
    images = mx.nd.array(loader(name).data)
    config = TrainConfig(epochs=1, lr=0.01, allow_empty_classes=True, top_k=0)
    net = heads.fine_tune_net(name, CLASSES)
    assert net(images).shape == (BATCH, CLASSES)

    head = tracing.output_layer(net)
    freezing.freeze(net)
    freezing.unfreeze(head.block)
    before = snapshot(net)
    fit(net, loader(name), None, config)
    own = {path for path in before if path.rsplit(".", 1)[0] in _paths(net, head)}
    assert {path for path in own if path.endswith("weight")} <= moved(net, before) <= own

    freezing.unfreeze(net)
    before = snapshot(net)
    fit(net, loader(name), None, config)
    still = set(before) - moved(net, before)
    weights = {path for path in before if path.endswith("weight")}
    assert not weights & still, "weights that did not move although nothing is frozen"
    statistics = {path for path in before if path.endswith(("running_mean", "running_var"))}
    assert not statistics or statistics - still, "no running statistics moved although BatchNorm is in training mode"

    expected = net(images).asnumpy()
    net.save_parameters(str(tmp_path / "net.params"))
    for again in (heads.fine_tune_net(name, CLASSES), _stock(name)):
        again.load_parameters(str(tmp_path / "net.params"))
        np.testing.assert_array_equal(again(images).asnumpy(), expected)
    net.export(str(tmp_path / "net"))
    imported = mx.gluon.SymbolBlock.imports(str(tmp_path / "net-symbol.json"), ["data"],
                                            str(tmp_path / "net-0000.params"))
    np.testing.assert_allclose(imported(images).asnumpy(), expected, rtol=1e-5, atol=1e-6)

    count = len(before)
    heads.replace_output(net, CLASSES + 1)
    assert net(images).shape == (BATCH, CLASSES + 1)
    assert len(net._collect_params_with_prefix()) == count


def _stock(name):
    """The network as its zoo builds it for that many classes, where it does."""
    if backbones.get(name).classes_option is None:
        with pytest.raises(NetworkError, match="is built with 1000 classes only"):
            backbones.build(name, classes=CLASSES)
        return heads.fine_tune_net(name, CLASSES)
    net = backbones.build(name, classes=CLASSES)
    net.hybridize()
    return net


def _paths(net, head):
    """Every path of the same layer: GoogLeNet registers its output twice."""
    return [path for path, block in tracing.blocks(net) if block is head.block]
