"""The range test: the rates that it takes, the suggestion, everything as before afterwards, and the command."""
from __future__ import annotations

import json
import random

import cv2
import mxnet as mx
import numpy as np
import pytest
from conftest import cli_runner
from mxnet.gluon import nn
from PIL import Image

from gluon_ft import freezing
from gluon_ft.cli.train import find_lr as command
from gluon_ft.data.batches import ArrayLoader
from gluon_ft.errors import ConfigError, DataError, TrainingError
from gluon_ft.training import lr_finder as module
from gluon_ft.training.config import TrainConfig
from gluon_ft.training.fit import fit
from gluon_ft.training.lr_finder import find_lr, smooth, suggest

CONFIG = TrainConfig(top_k=0)


def clouds(n=120, seed=0):
    rng = np.random.RandomState(seed)
    labels = np.arange(n) % 3
    return rng.randn(n, 3, 6, 6).astype("float32") + 0.4 * np.eye(3)[labels][:, :, None, None], labels


def loader(seed=0):
    return ArrayLoader(*clouds(), 12, shuffle=True, seed=seed)


def network(ctx=None, dropout=0.0, known=1):
    mx.random.seed(1)
    net = nn.HybridSequential()
    net.add(nn.Conv2D(4, 3, in_channels=3 * known), nn.BatchNorm(in_channels=4 * known), nn.Activation("relu"),
            nn.GlobalAvgPool2D(), nn.Dropout(dropout), nn.Dense(3, in_units=4 * known))
    net.initialize(mx.init.Xavier(), ctx=ctx or mx.cpu())
    net.hybridize()
    return net


def values(net):
    return {path: [d.asnumpy() for d in p.list_data()] for path, p in net._collect_params_with_prefix().items()}


def settings_of(net):
    return {path: (p.grad_req, p.lr_mult, p.wd_mult) for path, p in net._collect_params_with_prefix().items()}


def assert_equal(before, after):
    for path, arrays in before.items():
        for a, b in zip(arrays, after[path]):
            np.testing.assert_array_equal(a, b, err_msg=path)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("config", [CONFIG, TrainConfig(
    top_k=0, optimizer="adam", layer_decay=0.5, decay_bias_and_norm=False, accumulate=2, clip_norm=1, ema=0.9,
    mixup=0.2, head_epochs=3, epochs=9, balance="sampling", schedule="cosine")])
def test_everything_is_as_before_bit_for_bit(count, config):
    net, train = network([mx.cpu(i) for i in range(count)]), loader()
    freezing.freeze(net[0])
    net[5].weight.lr_mult = 10
    x = mx.nd.random.uniform(shape=(4, 3, 6, 6))
    train.epoch, train.start = 5, 0
    before, settings, output = values(net), settings_of(net), net(x).asnumpy()
    random.seed(3), np.random.seed(4), mx.random.seed(5)
    expected = random.random(), np.random.rand(), mx.nd.random.uniform(shape=3).asnumpy()
    random.seed(3), np.random.seed(4), mx.random.seed(5)
    found = find_lr(net, train, config, steps=30)
    assert len(found.losses) > 10
    assert_equal(before, values(net))
    assert settings_of(net) == settings
    assert (train.epoch, train.start, train.balanced) == (5, 0, False)
    np.testing.assert_array_equal(net(x).asnumpy(), output)
    got = random.random(), np.random.rand(), mx.nd.random.uniform(shape=3).asnumpy()
    assert got[:2] == expected[:2]
    np.testing.assert_array_equal(got[2], expected[2])


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("known", [1, 0])
def test_training_afterwards_is_as_without_it(dropout, known):
    after = []
    for tested in (False, True):
        net, train = network(dropout=dropout, known=known), loader()
        if tested:
            find_lr(net, train, CONFIG, steps=20)
        fit(net, train, None, TrainConfig(epochs=1, top_k=0))
        after.append(values(net))
    assert_equal(*after)


def test_mxnets_generator_is_left_in_a_state_that_depends_on_the_one_before_only():
    drawn = []
    for seed, steps in ((1, 20), (1, 40), (2, 20)):
        net = network(dropout=0.5)
        mx.random.seed(seed)
        find_lr(net, loader(), CONFIG, steps=steps)
        drawn.append(float(mx.nd.random.uniform(shape=1).asscalar()))
    assert drawn[0] == drawn[1] != drawn[2]


def test_restored_after_an_error(monkeypatch):
    net, train = network(), loader()
    before = values(net)

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_mean", interrupted)
    with pytest.raises(KeyboardInterrupt):
        find_lr(net, train, CONFIG, steps=30)
    assert_equal(before, values(net))
    assert train.epoch == 0


def test_rates_rise_as_said_and_the_steps_use_them():
    found = find_lr(network(), loader(), CONFIG, lowest=1e-5, highest=1e-2, steps=31)
    np.testing.assert_allclose(found.rates, 10 ** np.linspace(-5, -2, 31))
    assert found.stopped is None
    # The same steps by hand.
    net, train = network(), loader()
    trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 1, "momentum": 0.9, "wd": 1e-4})
    losses, stream = [], iter([*train, *train, *train, *train])
    for rate in found.rates:
        batch = next(stream)
        with mx.autograd.record():
            loss = mx.gluon.loss.SoftmaxCELoss()(net(batch.data), batch.label)
        loss.backward()
        trainer.set_learning_rate(rate)
        trainer.step(len(batch.label))
        losses.append(float(loss.mean().asscalar()))
    np.testing.assert_allclose(found.losses, losses, rtol=1e-5)


def test_accumulated_batches_are_one_step():
    found = find_lr(network(), loader(), TrainConfig(accumulate=3, top_k=0), highest=1e-3, steps=20)
    assert len(found.losses) == 20


def test_the_suggestion_trains_well_and_the_test_stops_at_the_break():
    found = find_lr(network(), loader(), CONFIG, steps=100, highest=1e4)
    assert "the loss" in found.stopped
    assert len(found.rates) == len(found.losses) == len(found.smoothed) < 100
    assert np.isfinite(found.losses).all()
    scores = {}
    for rate in (found.suggestion / 100, found.suggestion):
        net = network()
        scores[rate] = fit(net, loader(), None, TrainConfig(epochs=2, lr=rate, top_k=0)).history[-1]["train_loss"]
    assert scores[found.suggestion] < 0.8 * scores[found.suggestion / 100]
    assert found.suggestion < found.rates[np.argmin(found.smoothed)]


@pytest.mark.parametrize("lowest", [1e-3, 1e-2, 1e-1])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_suggestion_is_a_tenth_of_where_the_loss_is_lowest(seed, lowest):
    rates = 10 ** np.linspace(-6, 1, 100)
    distance = np.log10(rates / lowest)
    losses = 2 - 1.5 * np.exp(-distance ** 2) + 0.05 * np.random.RandomState(seed).randn(100)
    losses[distance > 1] = 300.0
    rate, reason = suggest(rates, losses, smooth(losses, 0.9), 0.9)
    assert 0.5 < rate / (lowest / 10) < 2
    assert "a tenth of" in reason


def test_a_loss_that_still_falls_at_the_end_asks_for_higher_rates():
    rates = 10 ** np.linspace(-6, -3, 50)
    losses = np.linspace(2, 1, 50)
    assert suggest(rates, losses, losses, 0.9) == (None, "the loss still falls at 1.0e-03, the highest rate: go higher")


def test_no_fall_no_suggestion():
    rates = 10 ** np.linspace(-6, 1, 100)
    found = []
    for seed in range(300):
        losses = 2 + 0.3 * np.random.RandomState(seed).randn(100)
        rate, reason = suggest(rates, losses, smooth(losses, 0.9), 0.9)
        found.append(rate is None)
        assert rate or "does not fall by more than chance between 1.0e-06 and 1.0e+01" in reason
    assert np.mean(found) >= 0.98
    rising = np.linspace(1, 3, 100)
    assert suggest(rates, rising, smooth(rising, 0.9), 0.9)[0] is None


def test_smoothing_weighs_both_sides_alike():
    losses = np.array([1.0, 5, 2, 4, 1, 0])
    expected = [sum(0.5 ** abs(i - j) * losses[j] for j in range(6)) / sum(0.5 ** abs(i - j) for j in range(6))
                for i in range(6)]
    np.testing.assert_allclose(smooth(losses, 0.5), expected)
    np.testing.assert_allclose(smooth(losses, 0.0), losses)
    broken = np.array([3.0, 2, 1, 1e20])
    assert smooth(broken, 0.5).max() <= 3, "a break counts as no more than the highest loss before it"


@pytest.mark.parametrize(("options", "wording"), [
    ({"lowest": 0}, "rates out of range; expected 0 < lowest < highest; found 0 and 10"),
    ({"lowest": 1, "highest": 0.1}, "rates out of range"), ({"highest": float("inf")}, "rates out of range"),
    ({"steps": 5}, "steps out of range; expected 20 to 100000; found 5"), ({"steps": 30.0}, "steps out of range"),
    ({"smoothing": 1}, "smoothing out of range"),
])
def test_out_of_range(options, wording):
    with pytest.raises(ConfigError, match=wording):
        find_lr(network(), loader(), CONFIG, **options)


def test_data_that_cannot_be_used():
    data, labels = clouds()
    with pytest.raises(TrainingError, match=r"find-lr: 40 labels outside the network's output in the training set"):
        find_lr(network(), ArrayLoader(data, labels + (labels == 2), 12), CONFIG)
    with pytest.raises(DataError, match="no images to find a learning rate with; expected at least one"):
        find_lr(network(), [], CONFIG)
    # A convolution's relu would make 0 of NaN.
    net = nn.Dense(3)
    net.initialize()
    with pytest.raises(TrainingError, match=r"ended after 0 of 100 steps; .* found the loss became nan; begin lower"):
        find_lr(net, ArrayLoader(data * np.nan, labels, 12), CONFIG)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    for label, name in enumerate(("blue", "red")):
        (root / name).mkdir()
        for i in range(12):
            image = np.random.RandomState((label, i)).randint(0, 60, (32, 32, 3), dtype=np.uint8)
            image[..., 2 * label] += 150
            cv2.imwrite(str(root / name / f"{i}.png"), image)
    return root


def run(*arguments):
    return cli_runner().invoke(command, [str(a) for a in arguments])


def test_command_draws_and_reports(photos, tmp_path):
    out = tmp_path / "lr.png"
    result = run(photos, "momentum=0.5", "--backbone", "lenet", "--pretrained", "none", "--batch-size", 6,
                 "--steps", 20, "--lowest", 1e-4, "--out", out, "--json")
    assert result.exit_code == 0, result.output
    last = json.loads(result.stdout.splitlines()[-1])
    assert last["plot"] == str(out)
    assert last["batch_size"] == 6
    assert len(last["rates"]) == len(last["losses"]) <= 20
    assert last["rates"][0] == pytest.approx(1e-4)
    with Image.open(out) as picture:
        assert picture.size == (1050, 660)
        assert len({picture.getpixel((x, y)) for x in range(0, 1050, 7) for y in range(0, 660, 7)}) > 5


@pytest.mark.parametrize(("arguments", "wording"), [
    (["nowhere"], "nowhere: no such file or folder"),
    (["momentom=1"], "unknown setting 'momentom'; did you mean momentum"),
    (["--backbone", "resnet18_v9"], "unknown backbone 'resnet18_v9'"),
    (["--steps", 3], "3 is not in the range 20<=x<=100000"),
    (["--out", "missing/lr.png"], "missing: folder does not exist; create it, or choose another --out"),
    (["--lowest", 2, "--highest", 1], "rates out of range; expected 0 < lowest < highest; found 2 and 1"),
    (["--out", "/proc/lr.png"], "/proc/lr.png: cannot be written; expected a place where files can be made"),
    (["--out", "."], ".: cannot be written"), (["--out", f"{'x' * 300}.png"], ".png: cannot be written"),
    (["optimizer=sdg"], "unknown optimizer 'sdg'; did you mean sgd"),
])
def test_command_refuses(photos, tmp_path, monkeypatch, arguments, wording):
    monkeypatch.chdir(tmp_path)
    source = [] if arguments == ["nowhere"] else [photos]
    backbone = [] if "--backbone" in arguments else ["--backbone", "lenet"]
    result = run(*source, *arguments, *backbone, "--pretrained", "none")
    assert result.exit_code == 2, result.output
    assert wording in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_commands_range_of_steps_is_the_librarys():
    (steps,) = (option.type for option in command.params if option.name == "steps")
    assert (steps.min, steps.max) == (module.MIN_STEPS, module.MAX_STEPS)


def test_without_a_suggestion_larger_batches_are_advised():
    losses = np.linspace(1, 3, 100)
    assert "a larger batch size (--batch-size)" in suggest(losses, losses, smooth(losses, 0.9), 0.9)[1]
