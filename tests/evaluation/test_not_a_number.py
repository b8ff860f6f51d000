"""NaN and infinity: parameters are looked at when they are loaded, outputs when they are used."""
from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest

import gluon_ft
from gluon_ft import symbolic
from gluon_ft.data.batches import ArrayLoader
from gluon_ft.errors import NetworkError, TrainingError, UserError, WeightsError
from gluon_ft.evaluation import features as kept_features
from gluon_ft.evaluation.model import load_model, save_model
from gluon_ft.evaluation.predict import predict
from gluon_ft.models import conversion
from gluon_ft.symbolic import legacy
from gluon_ft.training.feature_cache import features
from gluon_ft.training.metrics import evaluate

GREY = gluon_ft.Preprocessing(mean=(0.1,), std=(0.5,), channel_order="gray", size=28, resize=None)
BAD = [float("nan"), float("inf"), float("-inf")]


def network(value=None, layer="output"):
    """LeNet, with one number of a layer's weight, or of the output's bias, exchanged."""
    net = gluon_ft.fine_tune_net("lenet", 3)
    net.classes, net.preprocessing = list("abc"), GREY
    net(mx.nd.zeros((1, 1, 28, 28)))
    if value is not None:
        path = {"output": "output.weight", "bias": "output.bias", "first": "features.0.weight"}[layer]
        parameter = net._collect_params_with_prefix()[path]
        array = parameter.data().asnumpy()
        array.flat[0] = value
        parameter.set_data(mx.nd.array(array))
    return net


def images():
    return ArrayLoader(np.ones((4, 1, 28, 28)), [1, 2, 1, 2], 2)


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("layer", ["output", "bias"])
def test_outputs_that_are_not_finite_are_an_error(tmp_path, value, layer):
    net = network(value, layer)
    with pytest.raises(NetworkError, match="array 0: the network's output is not finite; expected numbers; found NaN"):
        predict(net, [np.full((28, 28), 200, np.uint8)])
    # The labels are of other classes: the loss of -infinity is finite.
    with pytest.raises(TrainingError, match="the loss became nan in the evaluation, batch 1"):
        evaluate(net, images())
    with pytest.raises(NetworkError, match=r"parameter '.*' is not finite; expected numbers; found NaN or infinity"):
        symbolic.evaluate(*symbolic.to_symbol(net, softmax=True), images(), 2)


@pytest.mark.parametrize("value", BAD[:2])
def test_what_a_relu_hides_is_an_error_all_the_same(value):
    net = network(value, "first")
    pictures = images()
    for compute in (lambda: features.extract(net, pictures), lambda: kept_features.penultimate(net, pictures, "memory"),
                    lambda: evaluate(net, pictures), lambda: predict(net, [np.zeros((28, 28), np.uint8)])):
        with pytest.raises(UserError, match=r"(parameter .*|features|output) (is|are) not finite|loss became nan"):
            compute()


def test_an_image_that_cannot_be_read_is_not_taken_for_one(tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    found = predict(network(), [tmp_path / "bad.jpg", np.zeros((28, 28), np.uint8)])
    assert found[0].error and found[1].name in "abc"


@pytest.mark.parametrize("value", BAD)
def test_a_model_is_looked_at_when_it_is_loaded(tmp_path, value):
    path = save_model(network(value), tmp_path / "model.params")
    with pytest.raises(WeightsError, match=rf"{path}: parameter 'output.weight' is not finite; .* in 1 of \d+; take "):
        load_model(path)
    with pytest.raises(UserError, match="is not finite"):
        predict(path, [np.zeros((28, 28), np.uint8)])


def test_variances_below_zero(tmp_path):
    net = gluon_ft.fine_tune_net("cifar_resnet20_relu", 3)
    net.classes, net.preprocessing = list("abc"), gluon_ft.Preprocessing(size=32, resize=None)
    net(mx.nd.zeros((1, 3, 32, 32)))
    name, parameter = next((n, p) for n, p in net._collect_params_with_prefix().items() if n.endswith("running_var"))
    parameter.set_data(-mx.nd.ones(parameter.shape))
    path = save_model(net, tmp_path / "model.params")
    with pytest.raises(WeightsError, match=rf"parameter '{name}' is a variance below 0; expected 0 or more; found -1"):
        load_model(path)


def test_converted_and_symbolic_parameters(tmp_path):
    net = network()
    params = {n: p.data().asnumpy() for n, p in net._collect_params_with_prefix().items()}
    params["output.weight"][0, 0] = np.nan
    with pytest.raises(WeightsError, match=r"output\.weight has values that are not finite"):
        conversion.fill(conversion.to_gluon(params, "lenet", net=network()))
    mx.nd.save(str(tmp_path / "m-0001.params"), {f"arg:{n}": mx.nd.array(a) for n, a in params.items()})
    with pytest.raises(WeightsError, match=r"m-0001\.params: parameter 'output.weight' is not finite"):
        legacy.load_params(tmp_path / "m", 1)
