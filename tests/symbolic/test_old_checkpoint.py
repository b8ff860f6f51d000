"""A checkpoint that `Module` saved, without anything of gluon_ft: what docs/old_scripts.md does with it."""
from __future__ import annotations

import gluon_ft  # isort: skip

import mxnet as mx
import numpy as np
import pytest

from gluon_ft import symbolic
from gluon_ft.errors import WeightsError
from gluon_ft.models import pretrained


@pytest.fixture(name="prefix")
def prefix_fixture(tmp_path):
    below = mx.sym.Convolution(mx.sym.var("data"), num_filter=4, kernel=(3, 3), name="conv0")
    below = mx.sym.Activation(mx.sym.BatchNorm(below, fix_gamma=False, name="bn0"), act_type="relu")
    below = mx.sym.Flatten(mx.sym.Pooling(below, global_pool=True, kernel=(1, 1), pool_type="avg"), name="flatten0")
    symbol = mx.sym.SoftmaxOutput(mx.sym.FullyConnected(below, num_hidden=3, name="fc1"), name="softmax")
    module = mx.mod.Module(symbol)
    module.bind([("data", (4, 3, 16, 16))], [("softmax_label", (4,))])
    module.init_params(mx.init.Xavier())
    module.save_checkpoint(str(tmp_path / "net"), 0)
    return tmp_path / "net"


@pytest.fixture(name="net")
def net_fixture(prefix):
    net = symbolic.fine_tune_block(*symbolic.load_checkpoint(prefix, 0), num_classes=2, layer_name="flatten0")
    net.classes = ["dark", "light"]
    net.preprocessing = gluon_ft.Preprocessing(size=16, resize=None, mean=(0, 0, 0), std=(1, 1, 1), scale=1.0)
    return net


@pytest.mark.parametrize("given", ["net-0000.params", "."])
def test_a_command_that_wants_a_model_says_what_it_is_and_where_to_read_on(prefix, given):
    with pytest.raises(WeightsError, match=r"it is the checkpoint of a symbol: docs/old_scripts\.md"):
        gluon_ft.load_model(prefix.parent / given)


def test_weights_of_an_unknown_symbol_are_refused_with_the_way_to_load_them(prefix):
    with pytest.raises(WeightsError, match=r"gluon_ft\.symbolic\.load_checkpoint"):
        pretrained.pretrained_net("resnet18_v1", str(prefix.parent / "net-0000.params"))


def test_it_predicts_and_is_measured(net):
    images = [np.full((16, 16, 3), value, np.uint8) for value in (10, 240, 20, 250)]
    found = gluon_ft.predict(net, images, top=2)
    assert [p.error for p in found] == [None] * 4
    assert {p.name for p in found} <= {"dark", "light"}
    logits = net(mx.nd.array(np.stack(images).transpose(0, 3, 1, 2))).softmax().asnumpy()
    assert np.allclose([p.probability for p in found], logits.max(axis=1), atol=1e-5)
