"""Every backbone of the registry is exported, and answers the same in ONNX Runtime and in MXNet alone."""
from __future__ import annotations

import json
import shutil

import mxnet as mx
import numpy as np
import photos
import pytest
from conftest import shared_data
from export_runs import divide, make_run
from train_runs import gluon_ft_command

import gluon_ft
from gluon_ft import backbones
from gluon_ft.engine import onnx_runtime
from gluon_ft.errors import NetworkError
from gluon_ft.evaluation.model import save_model
from gluon_ft.export import export_model
from gluon_ft.export.folder import symbol_and_values
from gluon_ft.models import tracing

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

# Fast is one, beside the LeNet and the ResNet of CIFAR-10 of the other tests.
FAST = "mobilenetv2_0.25"
# With random weights float32 itself is further than the proof allows from float64, in MXNet too: see its own test.
DEEP = "cifar_residualattentionnet452"
# One a family, as in docs/export.md.
FAMILIES = """
alexnet cifar_residualattentionnet56 cifar_resnet20_relu cifar_resnet20_v1 cifar_resnet20_v2
cifar_resnext29_16x64d cifar_wideresnet16_10 darknet53 densenet121 dla34 efficientnet_lite0 gluoncv/inceptionv3
googlenet hrnet_w18_small_v1_c inceptionv3 lenet mobilenet0.25 mobilenetv2_0.25 mobilenetv3_small nasnet_4_1056
residualattentionnet56 resnest14 resnet18_v1 resnet18_v1b resnet18_v2 resnet50_v1b_gn resnet50_v1c
resnext50_32x4d se_resnet18_v1 se_resnext50_32x4d senet_154 shufflenet_v1 shufflenet_v2 squeezenet1.1 vgg11
vgg11_bn xception
""".split()


@pytest.fixture(scope="module", name="pictures")
def pictures_fixture(tmp_path_factory):
    return photos.make(tmp_path_factory.mktemp("export") / "photos", count=5)


def cases():
    return [pytest.param(name, marks=() if name == FAST else pytest.mark.slow) for name in backbones.names()
            if name != DEEP]


def input_of(name):
    """The smallest images that a backbone takes."""
    entry = backbones.get(name)
    grey = entry.channels == 1
    return gluon_ft.Preprocessing(size=entry.min_size, resize=entry.min_size, channel_order="gray" if grey else "rgb",
                                  **({"mean": (0.5,), "std": (0.2,)} if grey else {}))


def network(name, how):
    """Random weights whose outputs are as large as those of a trained network: up to about 3."""
    net = gluon_ft.fine_tune_net(name, 3, pretrained=False)
    data = mx.nd.array(np.random.RandomState(0).randn(4, how.channels, how.size, how.size))
    largest = float(net(data).abs().max().asscalar())
    for parameter in tracing.output_layer(net).block.collect_params().values():
        parameter.set_data(parameter.data() * (3 / max(largest, 1e-20)))
    return net


@pytest.mark.parametrize("name", cases())
def test_a_backbone(name, pictures, tmp_path):
    how = input_of(name)
    try:
        run = divide(make_run(tmp_path / "run", pictures, network(name, how), how), pictures, range(4), [4])
        found = export_model(run, tmp_path / "model", onnx=True, int8=True, int8_loss=100, check=pictures).certificate
        assert found.images == 15 and found.changed == []
        assert max(found.largest_difference, found.logits_difference) <= 1e-4
        int8 = found.int8
        speed, size = (values["int8"] / values["float32"] for values in (int8["images_per_second"], int8["bytes"]))
        print(f"{name}: {found.largest_difference:.1e}; INT8 {int8['mean_difference']:.1e}, {int8['layers']} layers, "
              f"{speed:.2f} of the speed, {size:.2f} of the bytes")
        assert int8["calibration"]["images"] == 12 and int8["images"] == 3
        assert int8["mean_difference"] <= 0.05
    finally:
        shutil.rmtree(tmp_path)  # up to 2 GB


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_on_a_hundred_photos_from_disk(name, tmp_path):
    files = sorted(shared_data("hotdog/test").glob("*/*")) + sorted(shared_data("hotdog/train").glob("*/*"))
    how = input_of(name)
    try:
        save_model(network(name, how), tmp_path / "net.params", preprocessing=how, classes=["a", "b", "c"])
        found = export_model(tmp_path / "net.params", tmp_path / "model", onnx=True, check=files[:100]).certificate
        print(f"{name}: {found.largest_difference:.1e}, {len(found.changed)} of {found.images} decisions changed")
        assert found.images == 100 and found.changed == []
        assert max(found.largest_difference, found.logits_difference) <= 1e-4
    finally:
        shutil.rmtree(tmp_path)


@pytest.mark.slow
def test_where_float32_itself_is_not_exact_enough_onnx_runtime_is_no_further_from_float64(pictures, tmp_path):
    how = input_of(DEEP)
    net = network(DEEP, how)
    run = make_run(tmp_path / "run", pictures, net, how)
    with pytest.raises(NetworkError, match="not exported: the ONNX model answers differently"):
        export_model(run, tmp_path / "model", onnx=True, check=pictures)
    export_model(run, tmp_path / "model", onnx=True, no_check=True)
    data = np.random.RandomState(0).randn(8, 3, 32, 32).astype(np.float32)
    session = onnx_runtime.open_session(str(tmp_path / "model" / "model-logits.onnx"))
    exact = in_float64(net, data)
    errors = {name: np.abs(found - exact).max() for name, found in (
        ("mxnet", net(mx.nd.array(data)).asnumpy()), ("onnxruntime", session.run(None, {"data": data})[0]))}
    print(f"{DEEP}: largest output {np.abs(exact).max():.2g}, from float64 {errors}")
    assert min(errors.values()) > 1e-4 and errors["onnxruntime"] < 2 * errors["mxnet"]


def in_float64(net, data):
    symbol, values = symbol_and_values(net)
    states = set(symbol.list_auxiliary_states())
    given = {name: mx.nd.array(value, dtype="float64") for name, value in {**values, "data": data}.items()}
    executor = symbol.bind(mx.cpu(), {name: value for name, value in given.items() if name not in states},
                           aux_states={name: given[name] for name in states}, grad_req="null")
    return executor.forward(is_train=False)[0].asnumpy()


@pytest.mark.slow
def test_no_decision_changes_on_real_photos(weights_packages, tmp_path):
    """ImageNet's 1000 classes on all hot dog photos; then a trained run, by default and on the test images."""
    photos = shared_data("hotdog")
    net = gluon_ft.pretrained_net("efficientnet_lite0")
    save_model(net, tmp_path / "lite0.params")
    found = export_model(tmp_path / "lite0.params", tmp_path / "lite0", onnx=True, check=photos).certificate
    print(f"lite0, 1000 classes: {found.to_dict()}")
    assert found.images >= 100 and found.changed == [] and found.largest_difference <= 1e-4
    assert json.loads((tmp_path / "lite0" / "manifest.json").read_text())["weights"]["licence"]
    gluon_ft_command("train", photos / "train", "--strategy", "linear", "--run", tmp_path / "run")
    for check in ([], ["--check", photos / "train", "--check", photos / "test"]):
        out = gluon_ft_command("export", tmp_path / "run", "-o", tmp_path / "model", "--onnx", *check, "--json")
        found = json.loads(out.splitlines()[-1])["certificate"]
        print(f"lite0, linear, {check}: {found}")
        assert found["decisions_changed"] == [] and found["largest_difference"] <= 1e-4
        assert found["images"] >= (100 if check else 20)
    ours, theirs = (gluon_ft.load_model(tmp_path / name) for name in ("run", "model"))
    np.testing.assert_array_equal(ours.probabilities(photos / "test"), theirs.probabilities(photos / "test"))
