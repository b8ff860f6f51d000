"""Every setting of TrainConfig does in `fit` what it says: seen in the parameters, not in the code."""
from dataclasses import replace

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn

import gluon_ft
from gluon_ft.data.batches import ArrayLoader
from gluon_ft.errors import ConfigError
from gluon_ft.runtime import hardware
from gluon_ft.training.config import TrainConfig
from gluon_ft.training.fit import fit
from gluon_ft.training.schedule import Schedule

PLAIN = TrainConfig(epochs=3, lr=0.1, momentum=0.0, wd=0.0, top_k=0)


def linear(seed=1, classes=3):
    mx.random.seed(seed)
    net = nn.HybridSequential(prefix="")
    net.add(nn.Dense(5, in_units=4, activation="tanh"), nn.Dense(classes, in_units=5))
    net.initialize(mx.init.Xavier())
    return net


def cloud(count=12, seed=0, batch_size=4, kind=ArrayLoader, labels=None):
    rng = np.random.RandomState(seed)
    labels = np.arange(count) % 3 if labels is None else np.asarray(labels)
    return kind(rng.randn(count, 4).astype("float32") + labels[:, None], labels, batch_size)


class Watched(ArrayLoader):
    """Notes, before each batch and at the end of each epoch, what the network's parameters and gradients are."""

    net = None

    def __iter__(self):
        self.seen = getattr(self, "seen", [])
        for batch in super().__iter__():
            self.note()
            yield batch
        self.note()

    def note(self):
        self.seen.append({path: (p.data().asnumpy(), p.grad().asnumpy() if p.grad_req != "null" else None)
                          for path, p in self.net._collect_params_with_prefix().items()})


def watched(config, net=None, **data):
    """(network, loader) after `fit` with what was noted."""
    net, train = net or linear(), cloud(kind=Watched, **data)
    train.net = net
    fit(net, train, None, config)
    return net, train


def moves(train, path="1.weight"):
    """Of each step: (what was added to the parameter, the gradient of the batch's mean loss)."""
    per_epoch = len(train) + 1
    return [(after[path][0] - before[path][0], after[path][1] / train.batch_size)
            for number, (before, after) in enumerate(zip(train.seen, train.seen[1:])) if (number + 1) % per_epoch]


@pytest.mark.parametrize("schedule", [
    {"schedule": "cosine", "warmup": 1}, {"schedule": "one-cycle"}, {"schedule": "step", "lr_factor": 0.5},
    {"schedule": "multistep", "milestones": (1, 2)}, {"schedule": "constant", "warmup": 0.7}])
def test_the_rate_of_each_step_follows_the_schedule(schedule):
    config = replace(PLAIN, **schedule)
    _, train = watched(config)
    wanted = [0.1 * config.lr_schedule().multiplier(step, 3, 3) for step in range(9)]
    found = [-np.sum(move * gradient) / np.sum(gradient ** 2) for move, gradient in moves(train)]
    np.testing.assert_allclose(found, wanted, rtol=2e-3, atol=2e-5)
    assert isinstance(config.lr_schedule(), Schedule)


def test_the_head_learns_at_its_multiple_and_stages_at_their_decay():
    net = gluon_ft.fine_tune_net("resnet18_v1", classes=3)
    net(mx.nd.zeros((1, 3, 32, 32)))
    data = np.random.RandomState(0).rand(4, 3, 32, 32).astype("float32")
    before = {path: p.data().asnumpy() for path, p in net._collect_params_with_prefix().items()}
    fit(net, ArrayLoader(data, [0, 1, 2, 0], 4), None,
        replace(PLAIN, epochs=1, lr=1e-3, layer_decay=0.5))
    stages = gluon_ft.stages(net)
    rates = {}
    for stage in stages:
        for path, parameter in stage.parameters().items():
            if path.endswith("weight"):
                move, gradient = parameter.data().asnumpy() - before[path], parameter.grad().asnumpy() / 4
                rates[stage.name] = -np.sum(move * gradient) / np.sum(gradient ** 2)
    found = [rates[stage.name] / 1e-3 for stage in stages]
    np.testing.assert_allclose(found, [0.5 ** (len(stages) - 1 - i) for i in range(len(stages) - 1)] + [10], rtol=0.02)


def test_accumulated_batches_are_one_batch():
    nets = []
    for batch_size, accumulate in ((8, 1), (4, 2), (2, 4)):
        net = linear()
        fit(net, cloud(count=20, batch_size=batch_size), None, replace(PLAIN, accumulate=accumulate, momentum=0.9))
        nets.append(net[0].weight.data().asnumpy())
        assert net[0].weight.grad_req == "write"
    np.testing.assert_allclose(nets[1], nets[0], rtol=1e-5)
    np.testing.assert_allclose(nets[2], nets[0], rtol=1e-5)


def test_no_step_is_longer_than_clip_norm_allows():
    def lengths(config):
        _, train = watched(config)
        every = [[move for move, _ in moves(train, path)] for path in train.seen[0]]
        return [np.sqrt(sum(np.sum(move ** 2) for move in step)) / config.lr for step in zip(*every)]

    free, clipped = lengths(PLAIN), lengths(replace(PLAIN, clip_norm=0.3))
    assert max(free) > 0.5
    assert max(clipped) <= 0.3 * 1.001
    assert clipped[0] == pytest.approx(0.3, rel=1e-3)


def test_the_average_is_evaluated_saved_and_left_in_the_network(tmp_path):
    net, train, val = linear(), cloud(kind=Watched), cloud(seed=5)
    train.net = net
    result = fit(net, train, val, replace(PLAIN, ema=0.8), save_to=tmp_path)
    average, path = train.seen[0]["1.weight"][0].astype("float64"), "1.weight"
    for number, note in enumerate(n for i, n in enumerate(train.seen) if i % 4):
        decay = min(0.8, (1 + number) / (10 + number))
        average = decay * average + (1 - decay) * note[path][0]
    np.testing.assert_allclose(net[1].weight.data().asnumpy(), average, rtol=1e-5)
    assert np.abs(train.seen[-1][path][0] - average).max() > 1e-3
    saved = linear(seed=9)
    saved.load_parameters(str(tmp_path / "last.params"))
    np.testing.assert_array_equal(saved[1].weight.data().asnumpy(), net[1].weight.data().asnumpy())
    assert gluon_ft.evaluate(saved, val).loss == pytest.approx(result.history[-1]["validation_loss"], rel=1e-6)


def test_weight_decay_spares_biases_and_norms_where_told():
    def moved(decay_all):
        net = linear()
        net[0].bias.set_data(mx.nd.ones(5))
        net[1].weight.set_data(mx.nd.zeros((3, 5)))   # so that no gradient reaches the first layer
        fit(net, cloud(), None, replace(PLAIN, epochs=1, lr=1e-6, wd=1e5, decay_bias_and_norm=decay_all))
        return net[0].bias.data().asnumpy(), net[0].weight.data().asnumpy()

    assert np.all(moved(True)[0] < 0.9)
    bias, weight = moved(False)
    np.testing.assert_allclose(bias, 1, atol=1e-4)
    assert np.abs(weight).max() < np.abs(linear()[0].weight.data().asnumpy()).max() * 0.8


def body_and_head():
    net = gluon_ft.fine_tune_net("cifar_resnet20_v1", classes=3)
    net(mx.nd.zeros((1, 3, 32, 32)))
    rng = np.random.RandomState(0)
    train = ArrayLoader(rng.rand(6, 3, 32, 32).astype("float32"), [0, 1, 2, 0, 1, 2], 3)
    return net, train, [stage.name for stage in gluon_ft.stages(net)]


def moved_stages(settings, epochs):
    """Of each epoch, which stages moved, running statistics included."""
    net, train, names = body_and_head()
    values = []

    def note(record):
        values.append({s.name: np.concatenate([p.data().asnumpy().ravel() for p in s.parameters().values()])
                       for s in gluon_ft.stages(net)})

    note(None)
    fit(net, train, None, replace(PLAIN, epochs=epochs, lr=0.01, momentum=0.9, **settings), on_epoch=note)
    return [[n for n in names if (before[n] != after[n]).any()] for before, after in zip(values, values[1:])], names


def test_the_output_alone_learns_in_the_head_epochs():
    moved, names = moved_stages({"head_epochs": 2}, 3)
    assert moved == [["output"], ["output"], names]


def test_stages_are_set_free_one_by_one():
    moved, names = moved_stages({"unfreeze": (2, 3)}, 3)
    assert moved == [["output"], names[-2:], names[-3:]]


def test_momentum_survives_the_change_of_what_is_trained():
    """The head's first step after the thaw has the momentum of the steps before."""
    def last_step(settings):
        net, train, _ = body_and_head()
        weights = []
        head = next(p for path, p in net._collect_params_with_prefix().items() if path.startswith("output.w"))
        fit(net, train, None, replace(PLAIN, lr=1e-4, epochs=2, **settings),
            on_epoch=lambda record: weights.append(head.data().asnumpy()))
        return weights[1] - weights[0]

    kept = last_step({"momentum": 0.9, "head_epochs": 1})
    none = last_step({"momentum": 0.0, "head_epochs": 1})
    # Two steps before and two after: with momentum kept 0.9 + 0.81 of the first step's sums are added.
    assert np.linalg.norm(kept) > 1.8 * np.linalg.norm(none)


def test_mixed_images_are_trained_on_with_both_labels():
    train, config = cloud(batch_size=12), replace(PLAIN, epochs=1, mixup=1.0)
    net, plain = linear(), linear()
    fit(net, train, None, config)
    from gluon_ft.training.losses import Mixer
    batch = next(iter(cloud(batch_size=12)))
    data, a, b, share = Mixer(1.0, 0.0, 3, 0).mix(batch.data, batch.label, 0, 0)
    with mx.autograd.record():
        p = mx.nd.log_softmax(plain(data))
        loss = -(share * p.pick(a) + (1 - share) * p.pick(b)).mean()
    loss.backward()
    for own, other in zip(net.collect_params().values(), plain.collect_params().values()):
        wanted = other.data() - 0.1 * other.grad()
        np.testing.assert_allclose(own.data().asnumpy(), wanted.asnumpy(), rtol=1e-5, atol=1e-7)
    with pytest.raises(ConfigError, match="cutmix needs images"):
        fit(linear(), cloud(), None, replace(PLAIN, cutmix=1.0))


def test_rare_classes_weigh_more_or_come_more_often():
    labels = [0] * 9 + [1] * 2 + [2]
    net, plain, train = linear(), linear(), cloud(labels=labels, batch_size=12)
    fit(net, train, None, replace(PLAIN, epochs=1, balance="weights"))
    weights = mx.nd.array([12 / 3 / n for n in (9, 2, 1)])
    with mx.autograd.record():
        p = mx.nd.log_softmax(plain(mx.nd.array(train.data)))
        loss = -(weights.take(mx.nd.array(labels)) * p.pick(mx.nd.array(labels))).mean()
    loss.backward()
    np.testing.assert_allclose(net[0].weight.data().asnumpy(),
                               (plain[0].weight.data() - 0.1 * plain[0].weight.grad()).asnumpy(), rtol=1e-5, atol=1e-7)

    class Counting(ArrayLoader):
        counts = np.zeros(3)

        def __iter__(self):
            for batch in super().__iter__():
                self.counts += np.bincount(batch.label.asnumpy(), minlength=3)
                yield batch

    counting = cloud(labels=labels, kind=Counting)
    fit(linear(), counting, None, replace(PLAIN, balance="sampling"))
    np.testing.assert_array_equal(counting.counts, [12, 12, 12])
    with pytest.raises(ConfigError, match="balance sampling needs a loader that can; found NDArrayIter"):
        fit(linear(), mx.io.NDArrayIter(train.data, np.array(labels), 4), None, replace(PLAIN, balance="sampling"))


def test_early_stopping_leaves_a_schedule_whole_unless_told():
    def epochs(**settings):
        result = fit(linear(), cloud(), cloud(), replace(PLAIN, epochs=7, lr=1e-9, patience=2, **settings))
        return len(result.history), result.stopped

    assert epochs() == (3, "no better epoch in 2")
    assert epochs(schedule="cosine") == (7, None)
    assert epochs(schedule="cosine", stop_within_schedule=True) == (3, "no better epoch in 2")
    assert epochs(schedule="multistep", milestones=(3,)) == (5, "no better epoch in 2")


def test_bfloat16_computes_so_and_keeps_float32_parameters():
    if not hardware.bfloat16_flags():
        pytest.skip("this CPU has no instructions for bfloat16")
    results = {}
    for precision in ("float32", "bfloat16"):
        mx.random.seed(2)
        net = nn.HybridSequential(prefix="")
        net.add(nn.Conv2D(8, 3, in_channels=3), nn.BatchNorm(in_channels=8), nn.GlobalAvgPool2D(),
                nn.Dense(3, in_units=8))
        net.initialize(mx.init.Xavier())
        net.hybridize()
        rng = np.random.RandomState(0)
        labels = np.arange(24) % 3
        images = (rng.rand(24, 3, 8, 8) + labels[:, None, None, None]).astype("float32")
        result = fit(net, ArrayLoader(images, labels, 8), None, replace(PLAIN, epochs=4, precision=precision))
        results[precision] = net[0].weight.data().asnumpy(), result.history[-1]
        assert all(np.dtype(p.dtype) == np.float32 for p in net.collect_params().values())
    (exact, plain), (rounded, short) = results.values()
    assert 0 < np.abs(exact - rounded).max() < 0.05 * np.abs(exact).max()
    assert short["train_loss"] == pytest.approx(plain["train_loss"], rel=0.02)


def test_precisions_that_cannot_be_had():
    with pytest.raises(ConfigError, match="precision float16 is not for this device; expected a GPU; found cpu"):
        fit(linear(), cloud(), None, replace(PLAIN, precision="float16"))


def test_kept_features_train_to_the_same_parameters():
    def trained(cache):
        mx.random.seed(4)
        net = gluon_ft.fine_tune_net("cifar_resnet20_v1", classes=2)
        gluon_ft.freeze_stages(net, 3)
        images, labels = np.random.RandomState(0).randint(0, 255, (10, 40, 40, 3), dtype="uint8"), np.arange(10) % 2
        how = gluon_ft.Preprocessing(size=32, resize=36)
        train = gluon_ft.loaders.make_loader((images, labels), preprocessing=how, train=True, batch_size=4,
                                             augment="gluon")
        val = gluon_ft.loaders.make_loader((images, labels), preprocessing=how, train=False, batch_size=4)
        config = replace(PLAIN, epochs=4, lr=0.01, momentum=0.9, cache_features=cache, views=2)
        result = fit(net, train, val, config)
        return {path: p.data().asnumpy() for path, p in net._collect_params_with_prefix().items()}, result.history

    (plain, before), (kept, after) = trained("none"), trained("memory")
    for path, value in plain.items():
        assert np.abs(value - kept[path]).max() <= 1e-5 * max(np.abs(value).max(), 1e-8), path
    for a, b in zip(before, after):
        for key in ("train_loss", "validation_loss", "validation_accuracy"):
            assert a[key] == pytest.approx(b[key], rel=1e-5)


def test_kept_features_where_nothing_is_frozen():
    with pytest.raises(ConfigError, match="no part of the network can be computed once and kept"):
        fit(linear(), cloud(), None, replace(PLAIN, cache_features="memory"))


def test_the_head_phase_alone_uses_kept_features():
    net, train, _ = body_and_head()
    result = fit(net, train, None, replace(PLAIN, lr=0.001, head_epochs=2, cache_features="memory"))
    other, again, _ = body_and_head()
    for own, value in zip(other.collect_params().values(), net.collect_params().values()):
        assert own.shape == value.shape
    assert len(result.history) == 3
    assert again.epoch == 0
