"""Symbols taken apart: the way back from the result, a part cut out, a copy changed."""
from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest

from gluon_ft.errors import NetworkError
from gluon_ft.models import graph
from gluon_ft.models.graph import Graph


def symbol():
    data = mx.sym.var("data")
    first = mx.sym.FullyConnected(data, num_hidden=4, name="first")
    both = mx.sym.Activation(first, act_type="relu", name="act") + first
    last = mx.sym.FullyConnected(both, num_hidden=3, name="last")
    return mx.sym.softmax(mx.sym.Dropout(last, p=0.5, name="drop"), name="result")


def run(net, **inputs):
    random = np.random.RandomState(0)
    shapes = net.infer_shape(**{name: value.shape for name, value in inputs.items()})[0]
    arguments = {name: inputs[name] if name in inputs else mx.nd.array(random.randn(*shape))
                 for name, shape in zip(net.list_arguments(), shapes)}
    return net.bind(mx.cpu(), arguments).forward()[0].asnumpy(), arguments


def test_the_way_back_ends_at_the_first_node_that_does_not_pass():
    found, result = graph.result_of(symbol())
    node, passed = found.behind(result, lambda n: n.op in graph.KEEP_CLASSES)
    assert (node.name, [n.name for n in passed]) == ("last", ["result", "drop"])
    assert graph.find_head(symbol()).parameters == ("last_weight", "last_bias")
    users = found.users()
    assert [found.nodes[i].name for i in users[found.nodes[node.inputs[1]].index]] == ["last"]


def test_two_parts_make_the_whole():
    whole = symbol()
    found, result = graph.result_of(whole)
    between = (next(n.index for n in found.nodes if n.name == "first"), 0)
    x = mx.nd.random.normal(shape=(2, 5))
    expected, arguments = run(whole, data=x)
    below, above = found.part(between), found.part((result.index, 0), between)
    assert below.list_arguments() == ["data", "first_weight", "first_bias"]
    assert above.list_arguments() == ["data", "last_weight", "last_bias"]
    middle = below.bind(mx.cpu(), {name: arguments[name] for name in below.list_arguments()}).forward()[0]
    given = {**{name: arguments[name] for name in above.list_arguments()}, "data": middle}
    np.testing.assert_allclose(above.bind(mx.cpu(), given).forward()[0].asnumpy(), expected, rtol=1e-6)


def test_a_changed_copy_leaves_the_symbol_alone():
    net = symbol()
    changed = graph.with_attributes(net, {"drop": {"p": "0.1"}})
    assert [Graph(each).nodes[-2].attrs["p"] for each in (net, changed)] == ["0.5", "0.1"]
    marked = graph.with_attributes(net, {"first_weight": {"__lr_mult__": "3.0"}}, variables=True)
    assert graph.own_multipliers(marked, "lr_mult") == {"first_weight": 3.0}
    renamed = graph.edited(net, lambda node: node.update(name="new_" + node["name"]))
    assert renamed.list_arguments()[0] == "new_data" and net.list_arguments()[0] == "data"


def test_several_results_are_refused():
    with pytest.raises(NetworkError, match="the symbol has 2 results; expected one; found a_output, b_output"):
        graph.result_of(mx.sym.Group([mx.sym.relu(mx.sym.var("x"), name="a"), mx.sym.relu(mx.sym.var("y"), name="b")]))
