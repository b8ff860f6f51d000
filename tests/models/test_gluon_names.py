"""Files of Gluon's parameters that do not fit are told what they are, in Gluon's words and not in PyTorch's."""
from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest
from conftest import cli_runner

from gluon_ft.cli.main import main
from gluon_ft.errors import WeightsError
from gluon_ft.models import conversion, gluon_names, registry
from gluon_ft.runtime.gluon_internals import parameters_by_path


def params(name, classes=None):
    net = registry.build(name, **({"classes": classes} if classes else {}))
    shapes = conversion.target_shapes(net, name)
    return {path: np.ones(shapes[path], "float32") for path in parameters_by_path(net)}


def joined(name):
    arrays = params(name)
    return {parameter.name: arrays[path] for path, parameter in parameters_by_path(registry.build(name)).items()}


def without_output(tensors):
    return {name: array for name, array in tensors.items() if not name.startswith("output")}


def inside(tensors):
    return {name[len("features."):]: array for name, array in tensors.items() if name.startswith("features.")}


CASES = {
    "another network": (lambda: params("mobilenet0.25"), "resnet18_v1b",
                        r"found what looks like mobilenet0\.25; give --backbone mobilenet0\.25"),
    "another width": (lambda: params("mobilenet0.25"), "mobilenet0.5", r"found what looks like mobilenet0\.25;"),
    "another network with 7 classes": (lambda: params("resnet18_v1", 7), "resnet18_v1b",
                                       "found what looks like resnet18_v1 with another output"),
    "joined names": (lambda: joined("mobilenet0.25"), "resnet18_v1b", r"found what looks like mobilenet0\.25;"),
    "features only": (lambda: without_output(params("mobilenet0.25")), "mobilenet0.25",
                      r"found features only: what looks like mobilenet0\.25 without its output \(output.* is missing"
                      r"\); leave the output out \(--without-output"),
    "features only, of another": (lambda: without_output(params("resnet18_v1")), "resnet18_v1b",
                                  "found features only: what looks like resnet18_v1 without .*give --backbone resne"),
    "saved from net.features": (lambda: inside(params("mobilenet0.25")), "mobilenet0.25",
                                r"features only: .*saved from net\.features; load it with net\.features\.load_param"),
    "of a network unknown here": (lambda: dict.fromkeys(("own_bn0_gamma", "own_conv0_weight"), np.ones(3, "f")),
                                  "resnet18_v1b", r"found Gluon's names, of a network that is not known here \(own_bn0"
                                                  r"_gamma, 2 parameters\); load it with net\.load_parameters"),
}


SLOW = {"another network", "another network with 7 classes", "joined names", "features only, of another",
        "saved from net.features"}


@pytest.mark.parametrize("case", [pytest.param(c, marks=pytest.mark.slow) if c in SLOW else c for c in CASES])
def test_a_file_of_gluons_is_told_what_it_is(case):
    tensors, backbone, message = CASES[case]
    expected = f"not the weights of {backbone}; expected all weights of .*{message}"
    with pytest.raises(WeightsError, match=expected) as error:
        conversion.to_gluon(tensors(), backbone)
    assert "torch" not in str(error.value).lower()


def test_nor_is_pytorch_named_for_a_backbone_that_no_pytorch_network_equals():
    net = registry.build("cifar_resnet20_v1")
    with pytest.raises(WeightsError, match=r"not the weights of cifar_resnet20_v1; .*found what looks like squeezenet"):
        conversion.output_shapes(params("squeezenet1.1"), "cifar_resnet20_v1", net)


def test_other_errors_of_a_file_stay_as_they_are():
    tensors = params("mobilenet0.25")
    tensors["features.0.weight"][0] = np.nan
    with pytest.raises(WeightsError, match=r"features\.0\.weight has values that are not finite"):
        conversion.to_gluon(tensors, "mobilenet0.25")


@pytest.mark.parametrize(("name", "features_only"), [("squeezenet1.1", False), ("lenet", True)])
def test_networks_without_batchnorm_are_known_by_their_shapes(name, features_only):
    tensors = params(name)
    found = gluon_names.looks_like(without_output(tensors) if features_only else tensors)
    assert found is not None and (found.backbone, found.features_only) == (name, features_only)
    assert gluon_names.looks_like({"layer1.0.conv1.weight": np.ones((3, 3), "f")}) is None


def test_features_only_are_taken_where_the_output_is_left_out():
    made = conversion.to_gluon(without_output(params("mobilenet0.25")), "mobilenet0.25", output=False)
    assert made.classes is None and len(made.params) == len(without_output(params("mobilenet0.25")))


@pytest.mark.parametrize(("tensors", "line"), [
    (lambda: params("mobilenet0.25"), "found what looks like mobilenet0.25"),
    pytest.param(lambda: inside(params("mobilenet0.25")), "found features only: what looks like mobilenet0.25 without "
                 "its output", marks=pytest.mark.slow)])
def test_weights_check_knows_gluons_files(tmp_path, tensors, line):
    mx.nd.save(str(tmp_path / "x.params"), {name: mx.nd.array(array) for name, array in tensors().items()})
    result = cli_runner().invoke(main, ["weights", "check", str(tmp_path / "x.params")])
    assert result.exit_code == 0 and line in result.stdout, result.output
