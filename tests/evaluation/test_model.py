"""Models on disk: the same network again, and clear words where that cannot be."""
from __future__ import annotations

import json

import mxnet as mx
import numpy as np
import pytest

import gluon_ft
from gluon_ft import backbones, freezing, heads
from gluon_ft.errors import CheckpointError, ConfigError, NetworkError, WeightsError
from gluon_ft.evaluation.model import head_of, load_model, save_model
from gluon_ft.weights import card

GREY = gluon_ft.Preprocessing(mean=(0.1,), std=(0.5,), channel_order="gray", size=28, resize=None)


def network(name="lenet", classes=3, preprocessing=GREY):
    net = gluon_ft.fine_tune_net(name, classes)
    net.classes, net.preprocessing = [f"class {i}" for i in range(classes)], preprocessing
    return net


def images(name="lenet", count=2):
    return mx.nd.random.normal(shape=backbones.input_shape(name, count))


def test_the_same_network_comes_back(tmp_path):
    net, x = network(), images()
    expected = net(x).asnumpy()
    path = save_model(net, tmp_path / "new" / "model.params", accuracy=0.5, run="r1")
    again = load_model(path)
    np.testing.assert_array_equal(again(x).asnumpy(), expected)
    assert again.classes == net.classes and again.preprocessing == GREY
    assert again.weights.extra == {"accuracy": 0.5, "run": "r1"}
    assert again.weights.backbone == "lenet" and backbones.of(again).name == "lenet"
    assert sorted(p.name for p in path.parent.iterdir()) == ["model.params", "model.params.json"]
    # It can be trained on, and saved again.
    gluon_ft.replace_output(again, 5)
    again.classes = list("abcde")
    assert load_model(save_model(again, tmp_path / "five.params")).classes == list("abcde")


@pytest.mark.parametrize("name", ["mobilenetv2_0.25", "squeezenet1.1", "cifar_resnet20_relu"])
def test_outputs_of_every_kind(tmp_path, name):
    usual = gluon_ft.Preprocessing(size=backbones.get(name).input_size)
    net, x = network(name, preprocessing=usual), images(name, 1)
    expected = net(x).asnumpy()
    np.testing.assert_array_equal(load_model(save_model(net, tmp_path / "a.params"))(x).asnumpy(), expected)
    heads.make_linear(net)
    heads.set_dropout(net, 0.25)
    layer = gluon_ft.heads.tracing.output_layer(net).block
    layer.bias.set_data(mx.nd.array([-5, 0, 5]))
    expected = net(x).asnumpy()
    assert expected[0, 0] < 0, "no ReLU is left behind SqueezeNet's output"
    again = load_model(save_model(net, tmp_path / "b.params"))
    assert head_of(again) == head_of(net)
    assert head_of(again)["dropout"] == 0.25 and head_of(again)["linear"] and head_of(again)["bias"]
    np.testing.assert_array_equal(again(x).asnumpy(), expected)


def test_dropout_acts_in_training_only(tmp_path):
    net, x = network(), images(count=1)
    before = net(x).asnumpy()
    heads.set_dropout(net, 0.5)
    np.testing.assert_array_equal(net(x).asnumpy(), before)
    again = load_model(save_model(net, tmp_path / "m.params"))
    for each in (net, again):
        with mx.autograd.train_mode():
            assert len({tuple(each(x).asnumpy().ravel()) for _ in range(4)}) > 1
    heads.set_dropout(net, 0)
    with mx.autograd.train_mode():
        np.testing.assert_array_equal(net(x).asnumpy(), before)
    with pytest.raises(ConfigError, match=r"dropout out of range; expected 0 to below 1; found 1"):
        heads.set_dropout(net, 1)


def test_appended_outputs_and_options(tmp_path):
    source = gluon_ft.fine_tune_net("lenet", 10)
    net = heads.append_output(heads.append_output(source, 4, name="four"), 2, name="odd_even")
    freezing.freeze(net.features)
    net.classes, x = ["even", "odd"], images()
    expected = net(x).asnumpy()
    path = save_model(net, tmp_path / "m.params", preprocessing=GREY)
    again = load_model(path)
    np.testing.assert_array_equal(again(x).asnumpy(), expected)
    assert [each["name"] for each in head_of(again)["appended"]] == ["four", "odd_even"]
    assert "odd_even.weight" in again._collect_params_with_prefix()

    thick = gluon_ft.fine_tune_net("resnet18_v1", 2, thumbnail=True)
    thick.classes = ["a", "b"]
    thick(mx.nd.zeros((1, 3, 32, 32)))
    with pytest.raises(NetworkError, match=r"changed in a way that a model file does not describe; .*options="):
        save_model(thick, tmp_path / "t.params", preprocessing=gluon_ft.Preprocessing(size=32, resize=None))
    save_model(thick, tmp_path / "t.params", preprocessing=gluon_ft.Preprocessing(size=32, resize=None),
               options={"thumbnail": True})
    x = mx.nd.random.normal(shape=(1, 3, 32, 32))
    np.testing.assert_array_equal(load_model(tmp_path / "t.params")(x).asnumpy(), thick(x).asnumpy())


def test_a_model_is_weights_to_fine_tune_from(tmp_path):
    net = network()
    net(images())
    path = save_model(net, tmp_path / "m.params")
    again = gluon_ft.fine_tune_net("lenet", 7, pretrained=path)
    assert again.preprocessing == GREY
    np.testing.assert_array_equal(again.features[0].weight.data().asnumpy(), net.features[0].weight.data().asnumpy())


def test_a_folder_gives_its_best(tmp_path):
    net = network()
    net(images())
    save_model(net, tmp_path / "last.params", which="last")
    assert load_model(tmp_path).weights.extra == {"which": "last"}
    save_model(net, tmp_path / "best.params", which="best")
    assert load_model(tmp_path).weights.extra == {"which": "best"}


@pytest.fixture
def saved(tmp_path):
    net = network()
    net(images())
    return save_model(net, tmp_path / "m.params")


def edited(path, **values):
    about = json.loads(card.beside(path).read_text())
    card.beside(path).write_text(json.dumps({**about, **values}))


def test_missing_parts(saved, tmp_path):
    with pytest.raises(WeightsError, match=r"x\.params: no such model; check the path"):
        load_model(tmp_path / "x.params")
    (tmp_path / "run" / "svm-0").mkdir(parents=True)
    save_model(load_model(saved), tmp_path / "run" / "svm-0" / "model.params")
    with pytest.raises(WeightsError, match=r"run: no such model; give a saved model, such as .*svm-0.model\.params"):
        load_model(tmp_path / "run")
    card.beside(saved).unlink()
    with pytest.raises(WeightsError, match=r"m\.params: its card m\.params\.json is missing, which says what network"):
        load_model(saved)


def test_other_parameters(saved, tmp_path):
    other = gluon_ft.fine_tune_net("lenet", 4)
    other.classes, other.preprocessing = list("abcd"), GREY
    other(images())
    save_model(other, tmp_path / "other.params")
    (tmp_path / "other.params").replace(saved)
    with pytest.raises(WeightsError, match=r"m\.params: not the parameters that their card describes; expected SHA"):
        load_model(saved)
    edited(saved, sha256="")
    with pytest.raises(WeightsError, match=r"not the parameters of lenet as its card describes it; expected "
                                           r"output\.weight \(3, 500\); found \(4, 500\)"):
        load_model(saved)


@pytest.mark.parametrize(("values", "message"), [
    ({"backbone": "lenett"}, "unknown backbone 'lenett'; did you mean lenet"),
    ({"head": {"classes": 3}}, r"not a description of weights \(head.bias is missing\)"),
    ({"preprocessing": {"size": -1}}, "not a description of weights"),
    ({"nonsense": 1}, "not a description of weights"),
])
def test_a_damaged_card(saved, values, message):
    edited(saved, **values)
    with pytest.raises((WeightsError, NetworkError), match=message):
        load_model(saved)


def test_a_cut_file(saved):
    data = saved.read_bytes()
    saved.write_bytes(data[:len(data) // 2])
    with pytest.raises(WeightsError, match=r"m\.params"):
        load_model(saved)


def test_what_cannot_be_saved(tmp_path):
    net = network()
    net(images())
    with pytest.raises(ConfigError, match="names of the classes do not fit the output; expected 3 names; found 2: a"):
        save_model(net, tmp_path / "m.params", classes=["a", "b"])
    with pytest.raises(ConfigError, match="preprocessing does not fit the network; expected 1 channels; found 'rgb'"):
        save_model(net, tmp_path / "m.params", preprocessing=gluon_ft.Preprocessing())
    del net.preprocessing
    with pytest.raises(ConfigError, match="not known what the network takes"):
        save_model(net, tmp_path / "m.params")
    own = mx.gluon.nn.HybridSequential()
    own.add(mx.gluon.nn.Dense(2))
    with pytest.raises(NetworkError, match="HybridSequential is not from the registry"):
        save_model(own, tmp_path / "m.params")
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="could not be saved"):
        save_model(net, tmp_path / "file" / "m.params", preprocessing=GREY)
    assert [p.name for p in tmp_path.iterdir()] == ["file"], "nothing half-written"


def test_a_failure_leaves_the_old_model(saved, monkeypatch):
    before, about = saved.read_bytes(), card.beside(saved).read_text()
    net = network()
    net(images())

    def full(path, _about):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(card, "write", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        save_model(net, saved)
    assert (saved.read_bytes(), card.beside(saved).read_text()) == (before, about)
    assert len(list(saved.parent.iterdir())) == 2


def test_nothing_but_means_may_follow_a_linear_output():
    class Loud(mx.gluon.HybridBlock):
        def __init__(self):
            super().__init__()
            with self.name_scope():
                self.output = mx.gluon.nn.Dense(2, in_units=3)

        def hybrid_forward(self, F, x):
            return F.softmax(self.output(x))

    net = Loud()
    net.initialize()
    with pytest.raises(NetworkError, match=r"not a linear function of the features; .*; found softmax"):
        heads.make_linear(net)


def test_a_pruned_network_whose_shapes_are_not_known_before_it_ran(tmp_path):
    net, data = gluon_ft.fine_tune_net("resnet18_v1b_0.89", 3, pretrained=False), mx.nd.ones((1, 3, 32, 32))
    expected = net(data).asnumpy()
    path = save_model(net, tmp_path / "a.params", classes=["a", "b", "c"],
                      preprocessing=gluon_ft.Preprocessing(size=32, resize=32))
    np.testing.assert_allclose(gluon_ft.load_model(path)(data).asnumpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("classes", [3, 10])
def test_a_file_without_head_or_class_names_gives_as_many_classes_as_it_has(tmp_path, classes):
    """As `gluon-ft weights import` writes what another network of the zoo with its own classes was saved to."""
    net, x = network(classes=classes), images()
    net(x)
    save_model(net, tmp_path / "m.params")
    edited(tmp_path / "m.params", head=None, classes=None)
    again = load_model(tmp_path / "m.params")
    assert head_of(again)["classes"] == classes
    assert np.array_equal(again(x).asnumpy(), net(x).asnumpy())
