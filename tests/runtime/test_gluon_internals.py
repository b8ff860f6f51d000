"""What MXNet's private attributes are asked for, and that it does what the functions say."""
from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import HybridBlock, nn

from gluon_ft.runtime import gluon_internals as internals


class Net(HybridBlock):
    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.body = nn.Conv2D(2, 3)
            self.output = nn.Dense(3, in_units=2)

    def hybrid_forward(self, F, x):
        return self.output(self.body(x))


def test_a_child_is_exchanged_wherever_it_is_held():
    net, new = Net(), nn.Dense(4, in_units=2)
    internals.exchange_child(net, "output", new)
    assert net.output is new and internals.children(net)["output"] is new
    assert set(internals.parameters_by_path(net)) == {"body.weight", "body.bias", "output.weight", "output.bias"}
    with internals.without_children(net):
        assert not internals.children(net)
    assert list(internals.children(net)) == ["body", "output"]


def test_where_a_parameter_is_and_what_it_holds():
    net = Net()
    weight, waiting = net.output.weight, net.body.weight
    assert internals.contexts_of(weight) is None
    net.initialize(mx.init.One(), ctx=[mx.cpu(0), mx.cpu(1)])
    assert internals.is_initialised(weight) and not internals.is_initialised(waiting)
    assert internals.is_deferred(waiting) and not internals.is_deferred(weight)
    assert internals.contexts_of(weight) == internals.contexts_of(waiting) == [mx.cpu(0), mx.cpu(1)]
    np.testing.assert_array_equal(internals.array_of(weight), np.ones((3, 2)))
    internals.set_array(weight, np.full((3, 2), 2.0), weight.list_ctx())
    np.testing.assert_array_equal(internals.averaged(weight).asnumpy(), np.full((3, 2), 2))
    with pytest.raises(AssertionError, match="shape"):
        internals.set_array(weight, np.zeros((3, 4)), [mx.cpu()])


def test_a_value_is_taken_away_again():
    net = Net()
    net.initialize()
    state = internals.deferred_state(net.body.weight)
    net(mx.nd.zeros((1, 1, 3, 3)))
    assert internals.is_initialised(net.body.weight)
    internals.restore_deferred(net.body.weight, state)
    assert internals.is_deferred(net.body.weight) and net.body.weight.shape == (2, 0, 3, 3)


def test_a_graph_is_kept_until_it_is_cleared():
    net = Net()
    net.initialize()
    net.hybridize(static_alloc=True)
    assert internals.is_hybridised(net) and internals.hybridise_flags(net)["static_alloc"] is True
    assert not internals.has_cached_graph(net)
    net(mx.nd.zeros((1, 1, 3, 3)))
    assert internals.cached_symbol(net).list_arguments()[0] == "data"
    internals.clear_cached_graph(net)
    assert not internals.has_cached_graph(net)


@pytest.mark.parametrize("count", [1, 200, 201, 700])
def test_the_first_array_that_is_not_finite(count):
    """Of as many as there are: MXNet's operator writes beyond its memory for more than it has room for."""
    arrays = {f"p{i}": mx.nd.ones((3, 2)) for i in range(count)}
    assert internals.first_not_finite(arrays) is None
    arrays[f"p{count - 1}"][1, 1] = np.nan
    assert internals.first_not_finite(arrays) == f"p{count - 1}"
    assert internals.first_not_finite({**arrays, "half": mx.nd.ones((2,), dtype="float16")}) == f"p{count - 1}"
