"""The training loop: what it learns, counts, saves and refuses."""
from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn

from gluon_ft.data.batches import ArrayLoader, Batch, batches
from gluon_ft.errors import CheckpointError, ConfigError, DataError, TrainingError
from gluon_ft.training.config import TrainConfig
from gluon_ft.training.fit import fit
from gluon_ft.training.losses import cross_entropy
from gluon_ft.training.metrics import evaluate


def two_clouds(n=64, seed=0, classes=2):
    rng = np.random.RandomState(seed)
    labels = np.arange(n) % classes
    return rng.randn(n, 8).astype("float32") + 3 * np.eye(8)[labels], labels


def dense(classes=2, ctx=None, hidden=16):
    net = nn.HybridSequential()
    net.add(nn.Dense(hidden, in_units=8, activation="relu"), nn.Dense(classes, in_units=hidden))
    net.initialize(mx.init.Xavier(), ctx=ctx or mx.cpu())
    net.hybridize()
    return net


@pytest.mark.parametrize(("optimizer", "lr"), [("sgd", 0.1), ("nag", 0.1), ("adam", 0.01), ("rmsprop", 0.01)])
def test_learns_and_records_every_epoch(optimizer, lr, tmp_path):
    train, val = ArrayLoader(*two_clouds(), 10, shuffle=True), ArrayLoader(*two_clouds(seed=1), 10)
    seen = []
    result = fit(dense(), train, val, TrainConfig(epochs=4, optimizer=optimizer, lr=lr), save_to=tmp_path,
                 on_epoch=seen.append)
    assert seen == result.history
    assert [r["epoch"] for r in result.history] == [1, 2, 3, 4]
    assert result.history[-1]["train_loss"] < result.history[0]["train_loss"]
    assert result.history[-1]["validation_accuracy"] > 0.85
    assert result.history[-1]["lr"] == lr
    scores = [r["validation_accuracy"] for r in result.history]
    assert result.best_epoch == scores.index(max(scores)) + 1


def test_saved_files_are_the_best_and_the_last(tmp_path):
    val = ArrayLoader(*two_clouds(seed=1), 10)
    net = dense()
    result = fit(net, ArrayLoader(*two_clouds(), 10, shuffle=True), val, TrainConfig(epochs=3, lr=0.05),
                 save_to=tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.params", "checkpoints", "last.params"]
    last, best = dense(), dense()
    last.load_parameters(str(result.last))
    best.load_parameters(str(result.best))
    np.testing.assert_array_equal(last[0].weight.data().asnumpy(), net[0].weight.data().asnumpy())
    assert evaluate(best, val).accuracy == max(r["validation_accuracy"] for r in result.history)


def test_first_steps_equal_a_hand_written_loop():
    x, y = two_clouds(24)
    ours, theirs = dense(), dense()
    for a, b in zip(ours.collect_params().values(), theirs.collect_params().values()):
        b.set_data(a.data())
    fit(ours, ArrayLoader(x, y, 10), None, TrainConfig(epochs=2, lr=0.05, momentum=0.9, wd=0.01))
    trainer = mx.gluon.Trainer(theirs.collect_params(), "sgd", {"learning_rate": 0.05, "momentum": 0.9, "wd": 0.01})
    loss_of = mx.gluon.loss.SoftmaxCrossEntropyLoss()
    for _ in range(2):
        for start in (0, 10, 20):
            data, label = mx.nd.array(x[start:start + 10]), mx.nd.array(y[start:start + 10])
            with mx.autograd.record():
                loss = loss_of(theirs(data), label)
            loss.backward()
            trainer.step(len(label))
    for a, b in zip(ours.collect_params().values(), theirs.collect_params().values()):
        np.testing.assert_array_equal(a.data().asnumpy(), b.data().asnumpy())


@pytest.mark.parametrize("count", [2, 3])
def test_several_contexts_agree_with_one_even_where_the_last_batch_is_smaller_than_their_number(count):
    x, y = two_clouds(21)
    one, many = dense(), dense(ctx=[mx.cpu(i) for i in range(count)])
    for a, b in zip(one.collect_params().values(), many.collect_params().values()):
        b.set_data(a.data())
    config = TrainConfig(epochs=3, lr=0.05, wd=0.01)
    results = [fit(net, ArrayLoader(x, y, 10), ArrayLoader(x, y, 10), config) for net in (one, many)]
    for a, b in zip(one.collect_params().values(), many.collect_params().values()):
        for ctx in many[0].weight.list_ctx():
            np.testing.assert_allclose(a.data().asnumpy(), b.data(ctx).asnumpy(), rtol=1e-5, atol=1e-6)
    for a, b in zip(*(r.history for r in results)):
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-5)
        assert a["train_accuracy"] == pytest.approx(b["train_accuracy"])
        assert a["validation_accuracy"] == pytest.approx(b["validation_accuracy"])


def test_same_seed_same_bits():
    def run():
        mx.random.seed(3)
        net = nn.HybridSequential()
        net.add(nn.Dense(16, in_units=8), nn.Dropout(0.5), nn.Dense(2, in_units=16))
        net.initialize(mx.init.Xavier())
        fit(net, ArrayLoader(*two_clouds(), 10, shuffle=True, seed=5), None, TrainConfig(epochs=2, seed=7))
        return net[0].weight.data().asnumpy()

    np.testing.assert_array_equal(run(), run())


def test_evaluation_counts_every_image_once_and_padding_not_at_all():
    x, y = two_clouds(23)
    net = dense()
    expected = (net(mx.nd.array(x)).asnumpy().argmax(1) == y).mean()
    padded = mx.io.NDArrayIter(x, y, batch_size=10, last_batch_handle="pad")
    gluon = mx.gluon.data.DataLoader(mx.gluon.data.ArrayDataset(x, y.astype("float32")), batch_size=10)
    for source in (ArrayLoader(x, y, 10), padded, gluon):
        metrics = evaluate(net, source)
        assert metrics.count == 23
        assert metrics.accuracy == pytest.approx(expected)
    again = evaluate(net, padded)
    assert again.count == 23, "a DataIter is reset before each pass"


def test_top_k_counts_the_right_ones():
    net = nn.HybridSequential()
    net.add(nn.Dense(8, in_units=8, use_bias=False))
    net.initialize()
    net[0].weight.set_data(mx.nd.array(np.eye(8)))
    scores = np.arange(8, dtype="float32")[None].repeat(8, 0)
    metrics = evaluate(net, ArrayLoader(scores, np.arange(8), 3), top_k=5)
    assert metrics.top_k == pytest.approx(5 / 8)
    assert metrics.accuracy == pytest.approx(1 / 8)
    assert evaluate(net, ArrayLoader(scores, np.arange(8), 3), top_k=8).top_k is None


def test_label_outside_the_output_is_refused_before_any_step():
    x, y = two_clouds(20)
    y[13] = 2
    for source in (ArrayLoader(x, y, 5), mx.io.NDArrayIter(x, y, batch_size=5)):
        net = dense()
        before = net[0].weight.data().asnumpy()
        with pytest.raises(TrainingError, match=r"1 labels outside the network's output in (the training set|batch 3); "
                                                r"expected 0 to 1; found 2; give the network 3 classes"):
            fit(net, source)
        if isinstance(source, ArrayLoader):
            np.testing.assert_array_equal(net[0].weight.data().asnumpy(), before)


@pytest.mark.parametrize("label", [-1, float("nan"), float("inf")])
def test_labels_that_no_network_could_have(label):
    x, y = two_clouds(20)
    y = y.astype("float32")
    y[13] = label
    with pytest.raises(TrainingError, match=r"1 labels outside .*; expected 0 to 1; found -?\w+"):
        fit(dense(), mx.io.NDArrayIter(x, y, batch_size=5))


def test_empty_class_and_empty_set():
    x, y = two_clouds(20)
    with pytest.raises(DataError, match=r"1 of 3 classes have no image in the training set; expected at least one .*; "
                                        r"found none of class 2"):
        fit(dense(3), ArrayLoader(x, y, 5))
    with pytest.raises(DataError, match="none of class 2"):
        fit(dense(3), mx.io.NDArrayIter(x, y, batch_size=5))
    fit(dense(3), ArrayLoader(x, y, 5), config=TrainConfig(epochs=1, allow_empty_classes=True))
    with pytest.raises(DataError, match="no images; expected at least one"):
        ArrayLoader(x[:0], y[:0], 5)
    with pytest.raises(DataError, match="no images in training, epoch 1"):
        fit(dense(), [])


def test_loss_that_is_not_finite_says_where():
    x, y = two_clouds(40)
    x[25] = np.nan
    net = nn.HybridSequential()
    net.add(nn.Dense(2, in_units=8))
    net.initialize()
    with pytest.raises(TrainingError, match=r"loss became nan in spoons, epoch 1, batch 3; expected a finite loss"):
        fit(net, ArrayLoader(x, y, 10), name="spoons")


def test_smoothed_loss_is_cross_entropy_against_softened_labels():
    rng = np.random.RandomState(0)
    scores, labels = rng.randn(5, 4), np.array([0, 3, 1, 2, 2])
    log_p = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    soft = 0.9 * np.eye(4)[labels] + 0.1 / 4
    got = cross_entropy(0.1)(mx.nd.array(scores), mx.nd.array(labels)).asnumpy()
    np.testing.assert_allclose(got, -(soft * log_p).sum(1), rtol=1e-5)
    weights = mx.nd.array([[1], [0], [2], [1], [1]])
    weighted = cross_entropy(0.1)(mx.nd.array(scores), mx.nd.array(labels), weights).asnumpy()
    np.testing.assert_allclose(weighted, got * [1, 0, 2, 1, 1], rtol=1e-5)


def test_label_smoothing_holds_the_scores_back():
    def largest(smoothing):
        mx.random.seed(0)
        net = dense()
        fit(net, ArrayLoader(*two_clouds(), 16), None, TrainConfig(epochs=15, lr=0.2, label_smoothing=smoothing))
        return np.abs(net(mx.nd.array(two_clouds()[0])).asnumpy()).max()

    assert largest(0.2) < 0.6 * largest(0.0)


def test_nothing_to_train():
    net = dense()
    net.collect_params().setattr("grad_req", "null")
    with pytest.raises(TrainingError, match="every parameter is frozen"):
        fit(net, ArrayLoader(*two_clouds(), 10))


def test_saving_where_it_cannot_be_done(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match=r"lock: could not be saved; found .*Not a directory"):
        fit(dense(), ArrayLoader(*two_clouds(), 10), save_to=tmp_path / "file")


@pytest.mark.parametrize(("settings", "wording"), [
    ({"lr": 0}, "lr out of range; expected a number above 0; found 0"),
    ({"lr": float("nan")}, "lr out of range"), ({"momentum": 1}, "momentum out of range"),
    ({"epochs": 0}, "epochs out of range; expected a whole number of at least 1"), ({"wd": -1}, "wd out of range"),
    ({"label_smoothing": 1}, "label_smoothing out of range"),
    ({"optimizer": "sdg"}, "unknown optimizer 'sdg'; did you mean sgd"),
    ({"learning_rate": 1}, "unknown setting 'learning_rate'"),
    ({"epoch": 1}, "unknown setting 'epoch'; did you mean epochs"),
])
def test_settings_out_of_range(settings, wording):
    with pytest.raises(ConfigError, match=wording):
        TrainConfig.from_dict(settings)


def test_config_round_trip():
    config = TrainConfig(epochs=3, optimizer="nag")
    assert TrainConfig.from_dict(config.to_dict()) == config


def test_array_loader_shuffles_by_seed_and_epoch():
    def order(seed):
        loader = ArrayLoader(np.arange(10)[:, None], np.arange(10), 4, shuffle=True, seed=seed)
        return [[int(v) for b in loader for v in b.label.asnumpy()] for _ in range(2)]

    assert order(1) == order(1)
    assert order(1)[0] != order(1)[1]
    assert order(1) != order(2)
    assert sorted(order(1)[0]) == list(range(10))


def test_forms_of_batches():
    data, label = mx.nd.zeros((4, 2)), mx.nd.array([0, 1, 0, 1])
    got = list(batches([(data, label), [data, label, 3], Batch(data, label, 2)]))
    assert [b.valid for b in got] == [4, 3, 2]
    assert got[1].trimmed().data.shape == (3, 2)
    with pytest.raises(DataError, match=r"something else than a batch: images alone; expected \(data, label\)"):
        list(batches([data]))


class TwoPaths(nn.HybridSequential):
    """A network whose output is reachable by two paths, as GoogLeNet's is."""

    def __init__(self):
        super().__init__()
        self.add(nn.Dense(16, in_units=8, activation="relu"), nn.Dense(2, in_units=16))
        self.output = self[1]

    def hybrid_forward(self, F, x):
        return self[1](self[0](x))


def test_a_layer_with_two_paths_is_stepped_once():
    nets = []
    for make in (TwoPaths, dense):
        net = make()
        mx.random.seed(0)
        net.initialize(mx.init.Xavier(), force_reinit=True)
        net.hybridize()
        fit(net, ArrayLoader(*two_clouds(), 16), config=TrainConfig(epochs=2, lr=0.05))
        nets.append(net)
    np.testing.assert_array_equal(nets[0][1].weight.data().asnumpy(), nets[1][1].weight.data().asnumpy())


def test_networks_whose_operators_need_the_inputs_shape_train():
    """Pad and UpSampling (HRNet, NASNet, Xception) refuse partial shape inference without the input's."""
    net = nn.HybridSequential()
    net.add(nn.Conv2D(4, 3, padding=1, in_channels=3), nn.BatchNorm(in_channels=4),
            nn.HybridLambda(lambda F, x: F.UpSampling(F.pad(x, mode="constant", pad_width=(0, 0, 0, 0, 1, 1, 1, 1)),
                                                      scale=2, sample_type="nearest")),
            nn.Activation("relu"), nn.GlobalAvgPool2D(), nn.Dense(2, in_units=4))
    net.initialize(mx.init.Xavier())
    net.hybridize()
    images = np.random.RandomState(0).uniform(size=(8, 3, 16, 16)).astype("float32")
    before = net[0].weight.data().asnumpy()
    fit(net, ArrayLoader(images, np.arange(8) % 2, 4), config=TrainConfig(epochs=1))
    assert np.abs(net[0].weight.data().asnumpy() - before).max() > 0
