"""Conversion between PyTorch's names and Gluon's: maps, round trips, what is refused, and the output."""
from __future__ import annotations

import json

import mxnet as mx
import numpy as np
import pytest
from click.testing import CliRunner

import gluon_ft
from gluon_ft import backbones
from gluon_ft.cli.weights import weights
from gluon_ft.errors import NetworkError, WeightsError
from gluon_ft.models import conversion as convert
from gluon_ft.models import pretrained, tracing
from gluon_ft.models.batchnorm import batchnorm_is_folded
from gluon_ft.models.heads import replace_output
from gluon_ft.weights import class_names, name_maps
from gluon_ft.weights.name_maps.mobilenet import relu6_moments
from gluon_ft.weights.readers.tensor_files import read_tensors, write_safetensors


def random_net(backbone, **options):
    """A backbone with random weights and BatchNorm statistics that are not those of a fresh one."""
    net = backbones.build(backbone, **options)
    shapes, params = convert.target_shapes(net, backbone), {}
    for path, shape in shapes.items():
        kind = path.rpartition(".")[2]
        spread = {"gamma": (0.6, 1.4), "running_var": (0.6, 1.4), "running_mean": (-0.3, 0.3), "beta": (-0.3, 0.3)}
        size = np.sqrt(3 / np.prod(shape[1:])) if len(shape) > 1 else 0.1
        params[path] = np.random.uniform(*spread.get(kind, (-size, size)), shape).astype("float32")
    mapped = name_maps.of(backbone)[0]
    for extra in mapped.inserted:
        params.update(extra.make(params, {path: shapes[path] for path in extra.paths}))
    return convert.fill(convert.Conversion(backbone, net, params, {}, {}, (), "", "", None))


@pytest.fixture(scope="module")
def resnet18():
    np.random.seed(0)
    net = random_net("resnet18_v1b")
    return net, convert.to_torch(net, "resnet18_v1b")


def values(net):
    return {path: p.data().asnumpy() for path, p in net._collect_params_with_prefix().items()}


@pytest.mark.parametrize("backbone", [pytest.param(b, marks=pytest.mark.slow) if b not in (
    "resnet50_v1d", "inceptionv3", "densenet121", "squeezenet1.0", "mobilenetv2_1.0", "resnet50_v2", "senet_154",
    "vgg16_bn", "alexnet") else b for b in name_maps.backbones()])
def test_maps_name_every_layer_of_the_network_once(backbone):
    paths = backbones.build(backbone)._collect_params_with_prefix()
    layers = {path.rpartition(".")[0] for path in paths}
    for mapped in name_maps.of(backbone):
        here = list(mapped.layers.values())
        assert len(set(here)) == len(here)
        assert set(here) | {p.rpartition(".")[0] for extra in mapped.inserted for p in extra.paths} == layers
        assert mapped.layers[mapped.output] == tracing.output_layer(backbones.build(backbone)).path


@pytest.mark.parametrize("backbone", ["resnet18_v1b", "resnet18_v1", "squeezenet1.1", "mobilenetv2_1.0_bias",
                                      "cifar_resnet32_relu"])
def test_round_trip_is_bit_identical(backbone):
    net = random_net(backbone)
    for mapped in name_maps.of(backbone):
        state = convert.to_torch(net, backbone, mapped.style)
        conversion = convert.to_gluon(state, backbone)
        assert set(conversion.used) | set(conversion.dropped) == set(state)
        assert all(name.endswith("num_batches_tracked") for name in conversion.dropped)
        again = values(convert.fill(conversion))
        assert all(np.array_equal(array, again[path]) for path, array in values(net).items())


def test_batchnorm_is_renamed_and_counted(resnet18):
    net, state = resnet18
    assert state["layer2.0.downsample.1.weight"] is not None
    assert np.array_equal(state["layer1.0.bn1.weight"], net.layer1[0].bn1.gamma.data().asnumpy())
    assert np.array_equal(state["layer1.0.bn1.bias"], net.layer1[0].bn1.beta.data().asnumpy())
    assert state["bn1.num_batches_tracked"].dtype == np.int64 and state["bn1.num_batches_tracked"].shape == ()


def test_half_precision_becomes_single(resnet18):
    state = {k: v.astype("float16") if v.dtype == np.float32 else v for k, v in resnet18[1].items()}
    conversion = convert.to_gluon(state, "resnet18_v1b")
    assert {array.dtype for array in conversion.params.values()} == {np.dtype("float32")}


def test_missing_and_left_over_parameters_are_named(resnet18):
    state = {k: v for k, v in resnet18[1].items() if k != "layer3.1.conv2.weight"}
    with pytest.raises(WeightsError, match=r"not the weights of resnet18_v1b; expected layer3\.1\.conv2\.weight "
                                           r"\(256, 256, 3, 3\), as in .*resnet18"):
        convert.to_gluon(state, "resnet18_v1b")
    with pytest.raises(WeightsError, match=r"found layer1\.0\.se\.weight, which has no place"):
        convert.to_gluon({**resnet18[1], "layer1.0.se.weight": np.zeros((2, 2), "float32")}, "resnet18_v1b")


def test_a_file_of_another_network_says_which(resnet18):
    with pytest.raises(WeightsError, match=r"not the weights of resnet34_v1b.*look like resnet18_v1b"):
        convert.to_gluon(resnet18[1], "resnet34_v1b")
    with pytest.raises(WeightsError, match="no PyTorch network is known that equals 'resnet50_v1'"):
        convert.to_gluon(resnet18[1], "resnet50_v1")


def test_networks_with_the_same_names_are_told_apart_by_shape():
    modules = name_maps.of("resnet50_v1c")[0].layers
    state = {f"{module}.weight": np.zeros((1, 1, 1, 1), "float32") for module in modules}
    state["layer1.0.conv2.weight"] = np.zeros((64, 64, 3, 3), "float32")
    for width, letter in ((32, "c"), (64, "s")):
        state["conv1.0.weight"] = np.zeros((width, 3, 3, 3), "float32")
        assert [m.backbone for m in name_maps.looks_like(state)] == [f"resnet50_v1{letter}"]
    plain = {f"{module}.weight": np.zeros((1, 1), "float32") for module in name_maps.of("resnet50_v1b")[0].layers}
    plain["layer1.0.conv2.weight"] = np.zeros((128, 4, 3, 3), "float32")
    assert {m.backbone for m in name_maps.looks_like(plain)} == {"resnext50_32x4d"}


@pytest.mark.parametrize(("change", "message"), [
    (lambda a: a[:, :1], r"expected layer1\.0\.conv1\.weight \(64, 64, 3, 3\); found \(64, 1, 3, 3\)"),
    (lambda a: a * np.float32("nan"), "has values that are not finite"),
    (lambda a: a.astype("int32"), "holds no floating-point numbers; found int32"),
])
def test_wrong_values_are_refused(resnet18, change, message):
    state = {**resnet18[1], "layer1.0.conv1.weight": change(resnet18[1]["layer1.0.conv1.weight"])}
    with pytest.raises(WeightsError, match=message):
        convert.to_gluon(state, "resnet18_v1b")


def test_auxiliary_classifier_is_dropped_with_a_reason():
    mapped = name_maps.of("inceptionv3")[0]
    assert "auxiliary" in mapped.reason_to_drop("AuxLogits.fc.weight")
    assert mapped.reason_to_drop("Mixed_7c.branch_pool.conv.weight") is None


def test_gluons_own_names_are_taken_as_they_are(resnet18, tmp_path):
    net, _ = resnet18
    net.save_parameters(str(tmp_path / "paths.params"))
    mx.nd.save(str(tmp_path / "joined.params"), {p.name: p.data() for p in net.collect_params().values()})
    for name in ("paths.params", "joined.params"):
        conversion = convert.to_gluon(read_tensors(tmp_path / name).tensors, "resnet18_v1b")
        assert conversion.style == "gluon" and not name_maps.looks_like(read_tensors(tmp_path / name).tensors)
        assert all(np.array_equal(array, conversion.params[path]) for path, array in values(net).items())


def test_vgg_and_alexnet_names_that_are_partly_gluons_are_seen_for_what_they_are():
    for backbone in ("vgg11", "alexnet"):
        mapped = name_maps.of(backbone)[0]
        state = {f"{module}.{kind}": np.zeros((), "float32") for module in mapped.layers for kind in ("weight", "bias")}
        assert convert._map_for(state, backbone, backbones.build(backbone))[0].style == "torchvision"


def test_output_left_out_or_of_another_size(resnet18):
    conversion = convert.to_gluon(resnet18[1], "resnet18_v1b", output=False)
    assert not any(path.startswith("fc.") for path in conversion.params)
    assert conversion.dropped["fc.weight"] == "the output layer is left out"
    state = {**resnet18[1], "fc.weight": np.ones((7, 512), "float32"), "fc.bias": np.zeros(7, "float32")}
    assert convert.fill(convert.to_gluon(state, "resnet18_v1b"))(mx.nd.ones((1, 3, 64, 64))).shape == (1, 7)


def test_fine_tuned_network_goes_to_pytorch_with_its_classes(resnet18):
    net = convert.fill(convert.to_gluon(resnet18[1], "resnet18_v1b"))
    state = convert.to_torch(replace_output(net, 5), "resnet18_v1b")
    assert state["fc.weight"].shape == (5, 512)
    with pytest.raises(WeightsError, match=r"the network is not a resnet34_v1b|has no layer"):
        convert.to_torch(net, "resnet34_v1b")
    with pytest.raises(WeightsError, match=r"not initialised.*load its weights first"):
        convert.to_torch(backbones.build("resnet18_v1b"), "resnet18_v1b")
    with pytest.raises(WeightsError, match="no 'akamaster' names known"):
        convert.to_torch(net, "resnet18_v1b", "akamaster")
    with pytest.raises(WeightsError, match="no PyTorch network is known that equals 'resnet18_v2'"):
        convert.to_torch(net, "resnet18_v2")


def test_mobilenet_without_a_bias_says_where_it_has_one():
    state = convert.to_torch(random_net("mobilenetv2_1.0_bias"), "mobilenetv2_1.0_bias")
    with pytest.raises(WeightsError, match=r"the output of mobilenetv2_1\.0 has no bias.*use mobilenetv2_1\.0_bias"):
        convert.to_gluon(state, "mobilenetv2_1.0")


def test_gluons_mobilenet_gets_an_identity_that_holds_in_training_too():
    bias = random_net("mobilenetv2_1.0_bias")
    state = convert.to_torch(bias, "mobilenetv2_1.0_bias")
    net = convert.fill(convert.to_gluon(state, "mobilenetv2_1.0", output=False))
    images = mx.nd.random.normal(shape=(2, 3, 64, 64))
    one, other = bias.features(images).asnumpy(), net.features(images).asnumpy()
    assert np.abs(one - other).max() < 1e-4 * np.abs(one).max()
    # In training mode the stem's output is normal with its beta and gamma, about; the inserted norm must keep it.
    noise = mx.nd.random.normal(shape=(16, 3, 64, 64))
    with mx.autograd.train_mode():
        before = net.features[:3](noise)
        after = net.features[3].out[:3](before)
    assert np.abs((after - before).asnumpy()).mean() < 0.1 * before.asnumpy().std()
    with mx.autograd.pause():
        net.features[3].out[0].weight.set_data(net.features[3].out[0].weight.data() * 1.5)
    with pytest.raises(WeightsError, match=r"cannot express this network.*expansion by the factor 1.*"
                                           r"fine-tune mobilenetv2_1\.0_bias instead"):
        convert.to_torch(net, "mobilenetv2_1.0")


def test_moments_of_a_clipped_normal():
    samples = np.clip(np.random.randn(400_000) * 2.5 + 1.0, 0, 6)
    mean, variance = relu6_moments([1.0], [2.5])
    assert abs(mean[0] - samples.mean()) < 0.02 and abs(variance[0] - samples.var()) < 0.04


@pytest.mark.parametrize("epsilon", [1e-3, 0.0, 5e-2])
def test_another_epsilon_is_folded_exactly(epsilon):
    net = random_net("cifar_resnet20_relu")
    state = convert.to_torch(net, "cifar_resnet20_relu")
    state["bn1.running_var"][:4] = 1e-7
    source = convert.fill(convert.to_gluon(state, "cifar_resnet20_relu"))
    for _, block in tracing.blocks(source):
        if isinstance(block, mx.gluon.nn.BatchNorm):
            block._kwargs["eps"] = epsilon
    images = mx.nd.random.normal(shape=(2, 3, 32, 32))
    wanted = source(images).asnumpy()
    folded = convert.fill(convert.to_gluon(state, "cifar_resnet20_relu", epsilon=epsilon))(images).asnumpy()
    plain = convert.fill(convert.to_gluon(state, "cifar_resnet20_relu"))(images).asnumpy()
    assert np.abs(folded - wanted).max() < 1e-4 * np.abs(wanted).max() < np.abs(plain - wanted).max()


def test_shortcut_of_the_cifar_networks_is_not_trained():
    net = random_net("cifar_resnet20_relu")
    before = values(net)
    trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1, "wd": 0.1})
    with mx.autograd.record():
        loss = net(mx.nd.random.normal(shape=(4, 3, 32, 32))).sum()
    loss.backward()
    trainer.step(4)
    moved = {path for path, array in values(net).items() if not np.array_equal(array, before[path])}
    assert set(before) - moved == {"features.4.0.shortcut.kernel", "features.5.0.shortcut.kernel"}
    convert.to_torch(net, "cifar_resnet20_relu")
    net.features[4][0].shortcut.kernel.set_data(mx.nd.ones((32, 16, 1, 1)))
    with pytest.raises(WeightsError, match="pads the channels with zeros"):
        convert.to_torch(net, "cifar_resnet20_relu")


def test_folded_batchnorm_is_recognised():
    net = random_net("cifar_resnet20_relu")
    assert not batchnorm_is_folded(net)
    for _, block in tracing.blocks(net):
        if isinstance(block, mx.gluon.nn.BatchNorm):
            for parameter, value in ((block.gamma, 1), (block.running_mean, 0), (block.running_var, 1 - 1e-5)):
                parameter.set_data(mx.nd.full(parameter.shape, value))
    assert batchnorm_is_folded(net)
    assert not batchnorm_is_folded(backbones.build("lenet"))


def test_hotdog_is_class_934_by_name():
    classes = class_names.named("imagenet-1k")
    assert len(classes) == 1000 and class_names.index(classes, "hotdog") == 934
    assert class_names.index(classes, "n07697537") == class_names.index(classes, "hotdog, hot dog, red hot") == 934
    with pytest.raises(NetworkError, match="no class 'hotdgo'; did you mean hotdog"):
        class_names.index(classes, "hotdgo")
    with pytest.raises(NetworkError, match=r"class 'crane' is there 2 times; found 134 \(n0\d+\), 517 \(n0\d+\)"):
        class_names.index(classes, "crane")


def test_select_classes_needs_the_names(resnet18):
    with pytest.raises(NetworkError, match="names of the network's classes are not known; expected 1000 names"):
        gluon_ft.select_classes(resnet18[0], ["a", "b"])


def test_load_fills_a_network_and_leaves_an_output_that_does_not_fit(resnet18, tmp_path):
    path = write_safetensors(tmp_path / "r18.safetensors", resnet18[1])
    net = backbones.build("resnet18_v1b")
    assert pretrained.load(net, "resnet18_v1b", path).output
    assert np.array_equal(net.fc.weight.data().asnumpy(), resnet18[1]["fc.weight"])
    other = backbones.build("resnet18_v1b", classes=5)
    found = pretrained.load(other, "resnet18_v1b", str(path))
    assert not found.output and "the output was left out: it does not fit" in found.card.notes
    assert any("preprocessing not known" in note for note in found.card.notes)
    assert np.array_equal(other.conv1.weight.data().asnumpy(), resnet18[1]["conv1.weight"])
    assert other(mx.nd.ones((1, 3, 64, 64))).shape == (1, 5)
    assert other.preprocessing.mean == (0.485, 0.456, 0.406)
    with pytest.raises(WeightsError, match=r"r18\.safetensors: not the weights of resnet34_v1b.*resnet18_v1b"):
        pretrained.pretrained_net("resnet34_v1b", path)
    with pytest.raises(WeightsError, match=r"no weights 'gluon_in2k' for backbone 'resnet18_v1b'.*gluon_in1k"):
        pretrained.load(net, "resnet18_v1b", "gluon_in2k")


def test_pretrained_mobilenet_takes_the_form_with_a_bias(tmp_path):
    state = convert.to_torch(random_net("mobilenetv2_1.0_bias"), "mobilenetv2_1.0_bias")
    path = write_safetensors(tmp_path / "m.safetensors", state)
    net = pretrained.pretrained_net("mobilenetv2_1.0", path)
    assert net.backbone.name == net.weights.backbone == "mobilenetv2_1.0_bias"
    plain = backbones.build("mobilenetv2_1.0")
    assert not pretrained.load(plain, "mobilenetv2_1.0", path).output


def test_commands_import_export_and_check(resnet18, tmp_path):
    source = write_safetensors(tmp_path / "r18.safetensors", resnet18[1])
    run = CliRunner().invoke
    out, back = tmp_path / "r18.params", tmp_path / "back.safetensors"
    result = run(weights, ["import", str(source), "--backbone", "resnet18_v1b", "-o", str(out), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.output.splitlines()[-1])["left_out"] == {
        "counts batches, which MXNet's BatchNorm does not": 20}
    result = run(weights, ["export", str(out), "--backbone", "resnet18_v1b", "--style", "timm", "-o", str(back)])
    assert result.exit_code == 0 and "timm's resnet18 with 1000 classes" in result.output
    again = read_tensors(back)
    assert all(np.array_equal(array, again.tensors[name]) for name, array in resnet18[1].items())
    assert pretrained.card.read(back, again.metadata).backbone == "resnet18_v1b"
    result = run(weights, ["check", str(back), "--json"])
    assert "resnet18_v1b" in {fit["backbone"] for fit in json.loads(result.output.splitlines()[-1])["fits"]}
    result = run(weights, ["import", str(source), "--backbone", "resnet50_v1b", "-o", str(tmp_path / "no.params")])
    assert result.exit_code == 2 and not list(tmp_path.glob("*no.params*"))
    assert f"error: {source}: not the weights of resnet50_v1b" in result.output


def test_list_command_shows_preprocessing_and_what_is_unverified():
    result = CliRunner().invoke(weights, ["list", "--backbone", "resnet50_v1b", "--json"])
    assert result.exit_code == 0
    rows = json.loads(result.output.splitlines()[-1])["weights"]
    assert rows[0]["preferred"] and not rows[0]["here"] and rows[0]["preprocessing"]["size"] == 224
    assert "resnet50_v1b:gluon_in1k *" in result.output and "unverified: addresses and figures" in result.output
    result = CliRunner().invoke(weights, ["list"], env={"COLUMNS": "80"})
    lines = result.output.splitlines()[:-2]
    assert max(map(len, lines)) == 80 and any(line.startswith("se_resnext101_64x4d:gluon_in1k * ?") for line in lines)
    assert "https://huggingface.co/timm/resnet18.gluon_in1k" in CliRunner().invoke(weights, ["list", "--wide"]).output
