"""Old symbol files keep their meaning; files that are none of it are refused with their names."""
from __future__ import annotations

import json

import mxnet as mx
import numpy as np
import pytest
import symbols

from gluon_ft.errors import NetworkError, WeightsError
from gluon_ft.models import graph
from gluon_ft.symbolic import get_fine_tune_model, load_checkpoint, load_symbol


def run(symbol, args, aux, data):
    bound = symbol.bind(mx.cpu(), {**args, "data": data, graph.label_name(symbol): mx.nd.zeros(len(data))},
                        aux_states=aux, grad_req="null")
    return bound.forward(is_train=False)[0].asnumpy()


@pytest.mark.parametrize("key", ["param", "attr"])
@pytest.mark.parametrize("build", [symbols.inception_bn, lambda: symbols.resnet(18, width=0.125), symbols.vgg])
def test_the_old_form_computes_the_same(tmp_path, key, build):
    symbol = build()
    args, aux = symbols.parameters(symbol)
    (tmp_path / "old-symbol.json").write_text(symbols.legacy_json(symbol, key))
    mx.nd.save(str(tmp_path / "old-0007.params"), {**{f"arg:{k}": v for k, v in args.items()},
                                                   **{f"aux:{k}": v for k, v in aux.items()}})
    old, old_args, old_aux = load_checkpoint(tmp_path / "old", 7)
    data = mx.nd.random.uniform(0, 255, shape=(2, 3, 32, 32))
    np.testing.assert_array_equal(run(symbol, args, aux, data), run(old, old_args, old_aux, data))
    assert sorted(old.list_auxiliary_states()) == sorted(symbol.list_auxiliary_states())
    _, kept = get_fine_tune_model(old, old_args, 5, None)
    assert len(kept) == len(args) - 2


def test_what_an_old_file_leaves_out_keeps_its_default(tmp_path):
    symbol = symbols.inception_bn()
    (tmp_path / "a-symbol.json").write_text(symbols.legacy_json(symbol))
    old = load_symbol(tmp_path / "a-symbol.json")
    assert len(graph.fixed_gammas(old)) == 5
    args, aux = symbols.parameters(symbol)
    data = mx.nd.random.uniform(0, 255, shape=(2, 3, 32, 32))
    before = run(old, args, aux, data)
    other = {k: v * 3 if k.endswith("gamma") else v for k, v in args.items()}
    np.testing.assert_array_equal(before, run(old, other, aux, data))
    # ... and the change of BatchNorm's mode for frozen layers does not set anything else.
    held, names = graph.hold_batchnorm(old, [n for n in args if n.startswith("bn_1_")])
    assert names == ["bn_1_moving_mean", "bn_1_moving_var"]
    np.testing.assert_array_equal(before, run(held, other, aux, data))
    eps = [n.attrs.get("eps") for n in graph.nodes(held) if n.op == "BatchNorm"]
    assert eps == [None] * 5


def test_multipliers_in_an_old_file_are_found(tmp_path):
    described = json.loads(symbols.legacy_json(symbols.vgg()))
    for node in described["nodes"]:
        if node["name"] == "conv1_1_weight":
            node["attr"] = {"lr_mult": "0.25", "wd_mult": "0"}
    (tmp_path / "a-symbol.json").write_text(json.dumps(described))
    old = load_symbol(tmp_path / "a-symbol.json")
    assert graph.own_multipliers(old, "lr_mult") == {"conv1_1_weight": 0.25}
    assert graph.own_multipliers(old, "wd_mult") == {"conv1_1_weight": 0.0}


def test_the_softmax_of_2015_is_todays_softmax_output(tmp_path):
    symbol = symbols.vgg()
    text = symbols.legacy_json(symbol).replace('"SoftmaxOutput"', '"Softmax"')
    (tmp_path / "a-symbol.json").write_text(text)
    old = load_symbol(tmp_path / "a-symbol.json")
    assert graph.nodes(old)[-1].op == "SoftmaxOutput"
    assert graph.label_name(old) == "softmax_label"


@pytest.mark.parametrize(("text", "message"), [
    ("<html>", "a-symbol.json: not a symbol; expected MXNet's JSON with 'nodes'; found Expecting value"),
    ("{}", "not a symbol; .*found nodes is missing"), ("[1]", "not a symbol; .*found the whole does not fit"),
    ('{"nodes": [], "arg_nodes": [], "heads": []}', "found no nodes"),
    ('{"nodes": [{"op": "Nonsense", "name": "a", "inputs": []}], "arg_nodes": [], "heads": [[0, 0]]}',
     "MXNet does not accept the symbol; found .*Nonsense"),
])
def test_what_is_no_symbol_is_refused(tmp_path, text, message):
    (tmp_path / "a-symbol.json").write_text(text)
    with pytest.raises(NetworkError, match=message):
        load_symbol(tmp_path / "a-symbol.json")


def test_missing_files_name_what_is_there(tmp_path):
    symbol = symbols.vgg()
    args, aux = symbols.parameters(symbol)
    mx.model.save_checkpoint(str(tmp_path / "net"), 3, symbol, args, aux)
    with pytest.raises(WeightsError, match=r"net-0004.params: no such checkpoint; did you mean net-0003.params"):
        load_checkpoint(tmp_path / "net", 4)
    with pytest.raises(NetworkError, match=r"nett-symbol.json: the symbol cannot be read; found No such file.*did you"):
        load_checkpoint(tmp_path / "nett", 3)
    assert set(load_checkpoint(tmp_path / "net", 3)[1]) == set(args)


def test_missing_statistics_and_foreign_files_are_refused(tmp_path):
    symbol = symbols.inception_bn()
    args, _ = symbols.parameters(symbol)
    mx.model.save_checkpoint(str(tmp_path / "net"), 0, symbol, args, {})
    with pytest.raises(WeightsError, match=r"net-0000.params: 10 auxiliary states \(BatchNorm's running statistics\) "
                                           "are missing; found no 'bn_1_moving_mean'"):
        load_checkpoint(tmp_path / "net", 0)
    mx.nd.save(str(tmp_path / "net-0001.params"), {"features.0.weight": mx.nd.ones((2, 2))})
    with pytest.raises(WeightsError, match="not the parameters of a symbol; expected names that begin with arg: an"):
        load_checkpoint(tmp_path / "net", 1)
    (tmp_path / "net-0002.params").write_bytes((tmp_path / "net-0000.params").read_bytes()[:-20])
    with pytest.raises(WeightsError, match=r"net-0002.params"):
        load_checkpoint(tmp_path / "net", 2)


def test_a_node_of_todays_file_is_read_as_before(tmp_path):
    symbol = symbols.resnet(18, width=0.125)
    symbol.save(str(tmp_path / "a-symbol.json"))
    assert json.loads(load_symbol(tmp_path / "a-symbol.json").tojson()) == json.loads(symbol.tojson())


def test_names_in_any_script_are_kept(tmp_path):
    symbol = mx.sym.FullyConnected(mx.sym.var("data"), num_hidden=2, name="猫")
    symbol.save(str(tmp_path / "a-symbol.json"))
    read = load_symbol(tmp_path / "a-symbol.json")
    assert read.list_outputs() == graph.edited(read, lambda node: None).list_outputs() == ["猫_output"]
    whole = graph.Graph(read)
    assert whole.part((len(whole.nodes) - 1, 0)).list_arguments() == symbol.list_arguments()


@pytest.mark.parametrize("change", [
    lambda d: d["nodes"][-1]["inputs"].__setitem__(0, [0, 77, 0]), lambda d: d.update(heads=[[3, 99, 0]]),
    lambda d: d.update(heads=[[99, 0, 0]]), lambda d: d["nodes"][-1]["inputs"].__setitem__(0, [3, 0, 0]),
    lambda d: d.update(arg_nodes=[99]), lambda d: d["nodes"][-1].update(name="\ud800")])
def test_places_that_are_not_there_are_refused_and_not_followed(tmp_path, change):
    described = json.loads(mx.sym.FullyConnected(mx.sym.var("data"), num_hidden=2, name="fc").tojson())
    change(described)
    (tmp_path / "a-symbol.json").write_text(json.dumps(described))
    with pytest.raises(NetworkError, match=r"a-symbol\.json: not a symbol"):
        load_symbol(tmp_path / "a-symbol.json")
