"""What network is asked for: every way to say it becomes one ModelSpec; and the preprocessing that goes with it."""
from __future__ import annotations

from pathlib import Path

import mxnet as mx
import pytest

import gluon_ft
from gluon_ft import Preprocessing, backbones, symbolic
from gluon_ft.errors import ConfigError, NetworkError, WeightsError
from gluon_ft.evaluation.model import load_model, save_model
from gluon_ft.finetune import network
from gluon_ft.models.spec import ModelSpec, resolve
from gluon_ft.weights import catalog


def file_of(name, path, **options):
    """Weights of a network in a file without a card."""
    net = gluon_ft.fine_tune_net(name, 10, **options)
    net(mx.nd.zeros(backbones.input_shape(name)))
    net.save_parameters(str(path))
    return path


@pytest.mark.parametrize("weights", [None, False, "none"])
def test_random_weights(weights):
    found = resolve("lenet", weights)
    assert (found.backbone, found.weights, found.pretrained) == ("lenet", None, "none")
    assert found.class_names is None and found.preprocessing.channels == 1


@pytest.mark.parametrize(("backbone", "weights"), [
    ("resnet18_v1b", "tv_in1k"), ("resnet18_v1b", "resnet18_v1b:tv_in1k"), (None, "resnet18_v1b:tv_in1k"),
    (None, catalog.find("resnet18_v1b", "tv_in1k"))])
def test_weights_of_the_catalog_however_they_are_named(backbone, weights):
    found = resolve(backbone, weights, default="resnet18_v1b")
    assert found == ModelSpec("resnet18_v1b", catalog.find("resnet18_v1b", "tv_in1k"))
    assert found.pretrained == "resnet18_v1b:tv_in1k" and not found.preferred
    assert found.preprocessing == found.weights.preprocessing
    assert resolve(found, "ignored") is found


def test_the_preferred_weights_are_those_of_true():
    found = resolve(None, True, default="resnet18_v1b")
    assert found.weights == catalog.rows("resnet18_v1b")[0] and found.preferred


def test_a_tag_alone_is_the_preferred_of_its_rows():
    assert resolve(None, "coral_rot180").pretrained == "mobilenetv2_1.0:coral_rot180"
    assert resolve(None, "gluon_in1k", prefer=lambda rows: rows[-1]).weights.tag == "gluon_in1k"
    with pytest.raises(ConfigError, match=r"no network given; expected one of the \d+ backbones with weights 'gluon_"):
        resolve(None, "gluon_in1k")


def test_a_file_and_its_card(tmp_path):
    path = file_of("lenet", tmp_path / "a:b.params")
    found = resolve("lenet", path)
    assert (found.weights, found.pretrained) == (path, str(path.resolve()))
    with pytest.raises(ConfigError, match="it is not known what network these weights are of"):
        resolve(None, str(path))
    net = gluon_ft.pretrained_net("lenet", path)
    assert net.preprocessing == found.preprocessing
    net.classes = [str(i) for i in range(10)]
    found = resolve(None, save_model(net, tmp_path / "saved.params"))
    assert (found.backbone, found.class_names) == ("lenet", net.classes)


def test_what_is_the_name_of_nothing():
    for arguments, kind, message in (
            ((), ConfigError, "no network given; expected a backbone, weights of the catalog or a checkpoint"),
            (("resnet18", "none"), NetworkError, "unknown backbone 'resnet18'"),
            (("resnet18_v1b", "gluon"), WeightsError, "no weights 'gluon' for backbone 'resnet18_v1b'; expected a tag"),
            ((None, "resnet18_v1b:gluon"), WeightsError, "no weights 'gluon' for backbone 'resnet18_v1b'"),
            ((None, "nowhere"), WeightsError, "no weights 'nowhere' known, and no such file"),
            (("resnet18_v1b", "resnet34_v1b:tv_in1k"), ConfigError, "weights of another backbone; expected weights of "
             "resnet18_v1b; found resnet34_v1b:tv_in1k for resnet18_v1b; give resnet34_v1b, or other weights")):
        with pytest.raises(kind, match=message):
            resolve(*arguments)
    with pytest.raises(WeightsError, match="no weights of lenet named; expected a tag of the catalog, or a file"):
        gluon_ft.pretrained_net("lenet", "none")


def test_the_symbolic_networks_are_known_as_such():
    assert resolve(None, "resnet-50:imagenet1k").is_symbolic
    assert not resolve("resnet18_v1b", True).is_symbolic


def test_a_lenet_file_without_a_card_takes_grey_images_and_can_be_saved(tmp_path):
    net = gluon_ft.pretrained_net("lenet", file_of("lenet", tmp_path / "plain.params"))
    assert net.preprocessing == Preprocessing(mean=(0.0,), std=(1.0,), channel_order="gray", size=28, resize=28)
    save_model(net, tmp_path / "model.params", classes=[str(i) for i in range(10)])
    assert load_model(tmp_path / "model.params").preprocessing.channels == 1


@pytest.mark.parametrize(("name", "size", "resize"), [("cifar_resnet20_v1", 32, 32), ("cifar_resnet20_relu", 32, 32),
                                                      ("mobilenet0.25", 224, 256), ("lenet", 28, 28)])
@pytest.mark.filterwarnings("ignore:the weights of .* have their BatchNorm folded")
def test_the_usual_preprocessing_is_the_same_for_a_file_a_job_and_a_symbol(tmp_path, name, size, resize):
    from_file = gluon_ft.fine_tune_net(name, 3, pretrained=file_of(name, tmp_path / "plain.params")).preprocessing
    in_a_job = network.input_of(gluon_ft.fine_tune_net(name, 3), None)
    assert from_file == in_a_job == symbolic.find_source(name).preprocessing == resolve(name).preprocessing
    assert (from_file.size, from_file.resize) == (size, resize)
    assert from_file.mean == backbones.get(name).mean


def test_a_spec_builds_networks(tmp_path):
    spec = resolve("lenet", file_of("lenet", tmp_path / "plain.params"))
    assert isinstance(spec.weights, Path)
    assert gluon_ft.fine_tune_net(spec, 3).weights.backbone == "lenet"
    assert gluon_ft.pretrained_net(spec).output.weight.shape == (10, 500)
