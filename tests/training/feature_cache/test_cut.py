"""Where a frozen part of a network ends: the cut, its two parts, and their fingerprint."""
from __future__ import annotations

import numpy as np
import pytest
from frozen_nets import SIZE, differences, image_loader, images, network, only_output, small
from mxnet.gluon import HybridBlock

import gluon_ft
from gluon_ft.errors import ConfigError, NetworkError
from gluon_ft.models import tracing
from gluon_ft.training.feature_cache import select
from gluon_ft.training.feature_cache.cut import cut, obstacle


def equal_cut(net, x):
    found = cut(net, x.shape)
    between = found.prefix(x)
    assert between.shape[1:] == found.shape
    np.testing.assert_allclose(found.suffix(between).asnumpy(), net(x).asnumpy(), rtol=1e-6, atol=1e-6)
    trained = {p.name for p in net.collect_params().values() if p.grad_req != "null"}
    assert trained <= set(found.suffix.collect_params().keys())
    assert not trained & set(found.prefix.collect_params().keys())
    for name, parameter in found.suffix.collect_params().items():
        assert parameter is net.collect_params()[name]
    return found


def test_with_all_but_the_output_frozen_the_cut_is_at_the_penultimate_features():
    found = equal_cut(only_output(small(dropout=0.0)), images())
    assert found.shape == (4, 1, 1) and found.where == "pool"
    assert list(found.suffix.collect_params().keys()) == [
        p.name for p in tracing.output_layer(found.suffix.whole).block.collect_params().values()]
    assert found.next == "output.weight is trained"


def test_nothing_random_is_in_the_prefix():
    found = equal_cut(only_output(small(dropout=0.5)), images())
    assert found.shape == (4, 16, 16)
    assert found.next.startswith("dropout (Dropout) is random")


def test_a_tensor_past_which_something_flows_is_no_cut():
    net = small()
    gluon_ft.freeze(net.stem)
    gluon_ft.freeze(net.left)
    found = equal_cut(net, images())
    # What `left` makes is frozen too, but `right` needs the stem's result as well.
    assert found.where == "stem" and found.next == "right.weight is trained"


def test_batchnorm_that_follows_the_batches_ends_the_prefix():
    net = only_output(small())
    gluon_ft.freezing.set_batchnorm(net.norm, "train")
    found = cut(net, images().shape)
    assert found.next == "norm (BatchNorm) follows the batches" and found.shape == (4, 16, 16)
    gluon_ft.freezing.set_batchnorm(net.stem, "train")
    # The convolution before it is all that is left.
    assert cut(net).where == "stem.0"


def test_where_nothing_can_be_cut():
    net = small()
    assert cut(net) is None and obstacle(net) == "stem.0.weight is trained"
    gluon_ft.freeze(net)
    assert cut(net) is None and obstacle(net) == "everything is frozen, nothing is left to train"
    gluon_ft.unfreeze(net)
    gluon_ft.freeze(net.output)
    assert cut(net) is None
    with pytest.raises(ConfigError, match=r"no part of the network can be computed once.*found stem.0"):
        select.prepare(net, image_loader())


@pytest.mark.parametrize(("name", "count"), [("cifar_resnet20_relu", 2), ("resnet18_v1b", 3), ("mobilenetv2_0.25", 4)])
def test_networks_are_cut_behind_their_frozen_stages(name, count):
    net = network(name)
    gluon_ft.freeze_stages(net, count, input_shape=(1, 3, SIZE, SIZE))
    equal_cut(net, images(2))


def test_a_cut_inside_a_block_and_multipliers_are_kept():
    net = network("resnet18_v1b")
    gluon_ft.freeze_stages(net, 2, input_shape=(1, 3, SIZE, SIZE))
    gluon_ft.freeze(net.layer2[0])
    net.fc.weight.lr_mult = 7
    found = equal_cut(net, images(2))
    assert found.where == "layer2.0"
    assert found.suffix.collect_params()[net.fc.weight.name].lr_mult == 7
    net.hybridize(False)
    gluon_ft.unfreeze(net.layer2[0].conv2)
    found = equal_cut(net, images(2))
    # The shortcut goes past the first convolution: only the whole stage before can be cut off.
    assert found.where == "layer1"


def test_several_results_are_refused():
    class Two(HybridBlock):
        def hybrid_forward(self, F, x):
            return x, x

    with pytest.raises(NetworkError, match="Two has 2 results"):
        cut(Two())


def test_the_suffix_saves_and_loads_the_whole_network(tmp_path):
    net = only_output(small())
    suffix = cut(net).suffix
    suffix.save_parameters(str(tmp_path / "whole.params"))
    other = small(seed=1)
    other.load_parameters(str(tmp_path / "whole.params"))
    assert differences(net, other) == 0
    assert tracing.output_layer(suffix).classes == 3
    assert net.output._active


def test_equal_networks_have_equal_fingerprints_whatever_they_are_called():
    first, second, third = (only_output(small(seed)) for seed in (0, 0, 1))
    assert first.stem[0].weight.name != second.stem[0].weight.name
    assert cut(first).fingerprint() == cut(second).fingerprint() != cut(third).fingerprint()
    before = cut(first).fingerprint()
    first.output.weight.set_data(first.output.weight.data() + 1)
    assert cut(first).fingerprint() == before
    first.norm.running_var.set_data(first.norm.running_var.data() * 1.001)
    assert cut(first).fingerprint() != before
