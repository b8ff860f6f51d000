"""Parameters are read only once nothing is about to change them.

oneDNN's reordering of a weight, which the first forward pass adds while it runs, is modelled by an operator that waits
a while and then writes the weight: as there, MXNet does not know of the change when the reader comes. Half a weight in
another layout is a matter of luck; the old value in the place of the new one is not.
"""
from __future__ import annotations

import ast
import time

import mxnet as mx
import numpy as np
import pytest
from conftest import ROOT

import gluon_ft
from gluon_ft import symbolic
from gluon_ft.models import class_init
from gluon_ft.runtime import gluon_internals
from gluon_ft.training import checkpoint, ema, step
from gluon_ft.training.feature_cache import subgraph

WRITTEN = 3.0
_late: dict = {}


class _Writes(mx.operator.CustomOp):
    def forward(self, is_train, req, in_data, out_data, aux):
        time.sleep(0.1)
        for array in _late["arrays"]:
            array[:] = WRITTEN
        self.assign(out_data[0], req[0], in_data[0])


@mx.operator.register("gluon_ft_writes_late")
class _WritesLate(mx.operator.CustomOpProp):
    def create_operator(self, ctx, shapes, dtypes):
        return _Writes()


def network():
    net = gluon_ft.fine_tune_net("lenet", 3)
    net.classes, net.preprocessing = list("abc"), gluon_ft.Preprocessing(
        mean=(0.1,), std=(0.5,), channel_order="gray", size=28, resize=None)
    net(mx.nd.zeros((1, 1, 28, 28)))
    mx.nd.waitall()
    return net


def weight(net):
    return gluon_ft.heads.tracing.output_layer(net).block.weight


def begin_to_write(net):
    """From now on a pending operator will write the output's weight."""
    _late["arrays"] = weight(net).list_data()
    mx.nd.Custom(mx.nd.zeros(1), op_type="gluon_ft_writes_late")


def in_file(path):
    return next(array.asnumpy() for name, array in mx.nd.load(str(path)).items() if name.endswith("output.weight"))


def saved(net, folder):
    return in_file(checkpoint.save_parameters(net, folder / "a.params"))


def model(net, folder):
    return in_file(gluon_ft.save_model(net, folder / "model.params"))


def gathered(net, folder):
    config = gluon_ft.TrainConfig()
    stepper = step.Stepper(net, config, [mx.cpu()], [], None, 3)
    begin_to_write(net)
    return checkpoint.gather(stepper, {}, None).arrays["parameter/output.weight"]


def swapped(net, folder):
    average = ema.Average(net, 0.5)
    begin_to_write(net)
    with average.swapped():
        pass
    return weight(net).data().asnumpy()


def symbol(net, folder):
    arrays = symbolic.to_symbol(net)[1]
    return next(array.asnumpy() for name, array in arrays.items() if array.shape == weight(net).shape)


def class_rows(net, folder):
    class_init.select_classes(net, ["c", "a"])
    return weight(net).data().asnumpy()


READERS = [saved, model, gathered, swapped, symbol, class_rows,
           lambda net, folder: gluon_internals.array_of(weight(net)),
           lambda net, folder: gluon_internals.values_of(weight(net))[0].asnumpy(),
           lambda net, folder: gluon_internals.averaged(weight(net)).asnumpy()]


@pytest.mark.parametrize("read", READERS, ids=[*(r.__name__ for r in READERS[:6]), "array_of", "values_of", "averaged"])
def test_what_a_pending_pass_will_still_write_is_waited_for(tmp_path, read):
    net = network()
    begin_to_write(net)
    np.testing.assert_array_equal(read(net, tmp_path), WRITTEN)


def test_the_model_of_a_torn_read_is_one():
    net = network()
    begin_to_write(net)
    assert not (weight(net).data().asnumpy() == WRITTEN).any(), "MXNet itself does not wait for what it cannot know"
    mx.nd.waitall()


def test_the_hash_of_a_network_waits_too():
    net, other = network(), network()
    for parameter in other.collect_params().values():
        parameter.set_data(mx.nd.ones(parameter.shape))
    for parameter in net.collect_params().values():
        parameter.set_data(mx.nd.ones(parameter.shape))
    weight(other).set_data(WRITTEN * mx.nd.ones(weight(other).shape))
    begin_to_write(net)
    graphs = [subgraph.trace(n) for n in (net, other)]
    assert subgraph.fingerprint(graphs[0], graphs[0].heads[0]) == subgraph.fingerprint(graphs[1], graphs[1].heads[0])


# Gluon's own ways to a parameter's numbers.
READS = {"list_data", "data", "_reduce", "get_params"}


def calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield node.func.attr, node


def test_nothing_else_reads_parameters():
    found = []
    for path in sorted((ROOT / "gluon_ft").rglob("*.py")):
        name = str(path.relative_to(ROOT / "gluon_ft"))
        for attribute, node in calls(ast.parse(path.read_text(encoding="utf-8"))):
            if attribute in READS or (attribute == "save_parameters" and len(node.args) == 1 and not node.keywords):
                found.append(f"{name}: {attribute}")
    others = {line for line in found if not line.startswith(("runtime/gluon_internals.py", "cli/"))}
    assert others == {"symbolic/module.py: get_params"}, "which comes after `settle`"
