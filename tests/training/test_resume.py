"""Training that is interrupted anywhere and resumed ends as if it had not been, bit for bit; nothing is ever lost."""
import os
import random
import resource
import signal
from dataclasses import replace

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn
from resume_nets import network, parameters, same, sets

import gluon_ft
from gluon_ft.data.batches import ArrayLoader
from gluon_ft.errors import CheckpointError, Interrupted, TrainingError
from gluon_ft.training import checkpoint
from gluon_ft.training.config import TrainConfig
from gluon_ft.training.feature_cache import features
from gluon_ft.training.fit import fit


def untimed(history):
    return [{k: v for k, v in record.items() if k != "seconds"} for record in history]


class Interrupting(ArrayLoader):
    """A loader that, while it yields its batch number `at` (over all epochs), sends its own process a signal."""

    at = None

    def __iter__(self):
        for number, batch in enumerate(super().__iter__()):
            if self.at == (self.epoch - 1) * len(self) + number:
                self.at = None
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch


CONFIGS = {
    "momentum": TrainConfig(epochs=3, lr=0.05, schedule="cosine", warmup=0.5),
    "adam, average": TrainConfig(epochs=3, optimizer="adam", lr=0.01, ema=0.9, clip_norm=0.5),
    "accumulated, mixed": TrainConfig(epochs=3, lr=0.05, accumulate=2, mixup=0.4, cutmix=1.0, label_smoothing=0.1),
    "head first": TrainConfig(epochs=3, lr=0.05, head_epochs=1, optimizer="rmsprop", balance="sampling"),
    "two devices": TrainConfig(epochs=2, lr=0.05, balance="weights", patience=1, decay_bias_and_norm=False),
}


@pytest.mark.parametrize(("name", "everywhere"), [
    (name, everywhere) if everywhere is (name == "momentum") else pytest.param(name, everywhere, marks=pytest.mark.slow)
    for name in CONFIGS for everywhere in (False, True)])
def test_interrupted_and_resumed_is_the_same_bit_for_bit(name, everywhere, tmp_path):
    config, ctx = CONFIGS[name], [mx.cpu(0), mx.cpu(1)] if name == "two devices" else [mx.cpu()]
    train, val = sets()
    whole = network(ctx=ctx)
    wanted = fit(whole, train, val, config, save_to=tmp_path / "whole")
    steps = config.epochs * len(train)
    for at in (0, 3, len(train) - 1, len(train) + 2, steps - 1) if everywhere else (3, len(train) + 2):
        folder = tmp_path / f"cut-{at}"
        train, val = sets()
        cut = Interrupting(train.data, train.labels, train.batch_size, True, train.seed)
        cut.at = at
        net = network(ctx=ctx)
        with pytest.raises(Interrupted, match=r"stopped .*resume to go on \(after SIGTERM\)") as error:
            fit(net, cut, val, config, save_to=folder)
        assert error.value.status == 143
        other, records = network(seed=8, ctx=ctx), []
        train, val = sets()
        random.seed(at)
        np.random.seed(at)
        found = fit(other, train, val, config, save_to=folder, resume=True, on_epoch=records.append)
        same(parameters(whole), parameters(other))
        assert untimed(found.history) == untimed(wanted.history) == untimed(records)
        assert (found.best_epoch, found.stopped) == (wanted.best_epoch, wanted.stopped)
        for file in ("best.params", "last.params"):
            assert (folder / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_same_seed_same_result_and_another_seed_another():
    results = []
    for seed in (5, 5, 6):
        net, (train, val) = network(), sets()
        fit(net, train, val, TrainConfig(epochs=2, lr=0.05, seed=seed))
        results.append(parameters(net))
    same(results[0], results[1])
    assert any((results[0][path] != results[2][path]).any() for path in results[0])


def test_a_finished_training_is_not_trained_on_and_may_be_made_longer(tmp_path):
    config = TrainConfig(epochs=2, lr=0.05, schedule="step", lr_every=1)
    net, (train, val) = network(), sets()
    first = fit(net, train, val, config, save_to=tmp_path)
    again, (train, val) = network(seed=9), sets()
    second = fit(again, train, val, config, save_to=tmp_path, resume=True)
    same(parameters(net), parameters(again))
    assert second.history == first.history
    longer, (train, val) = network(seed=9), sets()
    third = fit(longer, train, val, replace(config, epochs=3), save_to=tmp_path, resume=True)
    assert untimed(third.history)[:2] == untimed(first.history)
    assert len(third.history) == 3
    straight, (train, val) = network(), sets()
    fit(straight, train, val, replace(config, epochs=3))
    same(parameters(straight), parameters(longer))


def test_what_differs_is_said(tmp_path):
    config = TrainConfig(epochs=2, lr=0.05, schedule="cosine")
    train, val = sets()
    fit(network(), train, val, config, save_to=tmp_path)

    def line(net=None, data=(0,), ctx=None, **changed):
        train, val = sets(*data)
        with pytest.raises(CheckpointError) as error:
            fit(net or network(ctx=ctx), train, val, replace(config, **changed), save_to=tmp_path, resume=True)
        return str(error.value)

    assert "cannot go on with another config: lr; expected 0.05; found 0.1; give what that run had" in line(lr=0.1)
    assert "another config: epochs" in line(epochs=3)
    assert "another config: optimizer (and 1 more: config: seed); expected sgd; found adam" in line(
        optimizer="adam", seed=1)
    assert "another train: contents (and 2 more: train: images, train: labels)" in line(data=(0, 27))
    assert "another train: contents (and 2 more: train: seed, val: contents)" in line(data=(1,))
    assert "another train: batch_size; expected 4; found 5" in line(data=(0, 26, 5))
    assert "another devices; expected 1; found 2" in line(ctx=[mx.cpu(0), mx.cpu(1)])
    assert "another network's; expected 0.weight of shape (5, 1, 3, 3); found (4, 1, 3, 3)" in line(network(width=5))
    bigger = network()
    bigger.add(nn.Dense(3, in_units=3))
    bigger[-1].initialize()
    assert "another network's; expected 7.weight of shape (3, 3); found none" in line(bigger)
    with pytest.raises(CheckpointError, match="no checkpoint to go on from; start without resuming"):
        fit(network(), *sets(), config, save_to=tmp_path / "none", resume=True)
    with pytest.raises(gluon_ft.UserError, match="resume needs the folder"):
        fit(network(), *sets(), config, resume=True)


def test_a_checkpoint_cut_or_changed_at_any_byte_is_refused(tmp_path):
    train, val = sets(count=12)
    fit(network(), train, val, TrainConfig(epochs=1), save_to=tmp_path)
    path = sorted((tmp_path / "checkpoints").glob("*.ckpt"))[-1]
    whole = path.read_bytes()
    cut = tmp_path / "cut.ckpt"
    for end in [*range(0, len(whole), 7), len(whole) - 1]:
        cut.write_bytes(whole[:end])
        with pytest.raises(CheckpointError, match=r"cut.ckpt: the checkpoint is damaged; .*delete it to go on from"):
            checkpoint.read(cut)
    rng, wanted, noticed = random.Random(0), checkpoint.read(path), 0
    for _ in range(400):
        changed = bytearray(whole)
        changed[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        cut.write_bytes(changed)
        try:
            found = checkpoint.read(cut)
        except CheckpointError:
            noticed += 1
            continue
        # Some bytes of a zip file say nothing: dates, versions.
        assert found.values == wanted.values
        same(found.arrays, wanted.arrays)
    assert noticed > 350
    path.write_bytes(whole[:100])
    with pytest.raises(CheckpointError, match="is damaged"):
        fit(network(), *sets(count=12), TrainConfig(epochs=1), save_to=tmp_path, resume=True)


def test_the_last_ones_and_the_best_are_kept(tmp_path):
    net = gluon_ft.freezing.set_batchnorm(network(dropout=0), "frozen")
    # So slow that every epoch is as good as the first.
    result = fit(net, *sets(), TrainConfig(epochs=6, lr=1e-9, keep=2), save_to=tmp_path)
    assert result.best_epoch == 1
    names = sorted(p.name for p in (tmp_path / "checkpoints").glob("*.ckpt"))
    assert names == ["epoch-0002-batch-000000.ckpt", "epoch-0006-batch-000000.ckpt", "epoch-0007-batch-000000.ckpt"]


def test_two_trainings_in_one_folder(tmp_path):
    store = checkpoint.Store(tmp_path)
    with store.locked(), pytest.raises(CheckpointError, match="another process is training here; wait for it"):
        fit(network(), *sets(), TrainConfig(epochs=1), save_to=tmp_path)


def test_a_loss_that_is_not_finite_keeps_the_last_good_checkpoint(tmp_path):
    net = network()

    def spoil(record):
        if record["epoch"] == 2:
            net[-1].bias.set_data(mx.nd.array([1, np.nan, 1]))

    with pytest.raises(TrainingError, match=r"the loss became nan in training, epoch 3, batch 1; expected a finite"):
        fit(net, *sets(), TrainConfig(epochs=4, save_every=1), save_to=tmp_path, on_epoch=spoil)
    path, bundle = checkpoint.Store(tmp_path).latest()
    assert path.name == "epoch-0003-batch-000000.ckpt"
    assert all(np.isfinite(array).all() for array in bundle.arrays.values())


def test_loaders_with_workers_and_augmentation_repeat_after_a_resume(tmp_path):
    rng = np.random.RandomState(0)
    images, labels = rng.randint(0, 255, (22, 16, 16, 3), dtype="uint8"), np.arange(22) % 2

    def run(folder, at=None, resume=False, workers=2):
        mx.random.seed(1)
        net = nn.HybridSequential(prefix="")
        net.add(nn.Conv2D(3, 3, in_channels=3), nn.GlobalAvgPool2D(), nn.Dense(2, in_units=3))
        net.initialize()
        how = gluon_ft.Preprocessing(size=12, resize=None)
        train = gluon_ft.loaders.make_loader((images, labels), preprocessing=how, train=True, batch_size=4,
                                             workers=workers, augment={"crop": "resized", "flip": True})
        seen = []

        def stop(record):
            seen.append(record)
            if at is not None and len(seen) == at:
                os.kill(os.getpid(), signal.SIGINT)

        with pytest.raises(Interrupted) if at is not None else checkpoint.contextlib.nullcontext():
            fit(net, train, None, TrainConfig(epochs=4, lr=0.01, save_every=2), save_to=folder, on_epoch=stop,
                resume=resume)
        return parameters(net)

    wanted = run(tmp_path / "whole")
    run(tmp_path / "cut", at=2)
    same(wanted, run(tmp_path / "cut", resume=True, workers=0))


def test_a_signal_at_the_very_end_is_not_lost(tmp_path):
    """It comes after the last step: the training is whole, and the signal goes on to whoever listens."""
    came = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    try:
        result = fit(network(), *sets(), TrainConfig(epochs=2), save_to=tmp_path,
                     on_epoch=lambda r: os.kill(os.getpid(), signal.SIGTERM) if r["epoch"] == 2 else None)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert len(result.history) == 2
    assert came == [signal.SIGTERM]


def test_a_signal_while_features_are_computed_ends_it_there(tmp_path, monkeypatch):
    """Nothing was trained yet: no need to wait until the last image is through, and resuming goes on."""
    def run(folder, **more):
        net = network(dropout=0)
        gluon_ft.freeze(net[0]), gluon_ft.freeze(net[1])
        fit(net, *sets(), TrainConfig(epochs=2, cache_features="memory"), save_to=folder, **more)
        return parameters(net)

    wanted, computed, forward = run(tmp_path / "whole"), [], features._forward

    def interrupted(*arguments):
        computed.append(arguments)
        os.kill(os.getpid(), signal.SIGINT)
        return forward(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(features, "_forward", interrupted)
        with pytest.raises(Interrupted, match="stopped before epoch 1; resume to go on") as error:
            run(tmp_path / "cut")
    assert len(computed) == 1 and error.value.status == 128 + signal.SIGINT
    same(wanted, run(tmp_path / "cut", resume=True))


@pytest.mark.parametrize("limit", [300, 1500])
def test_disk_full_while_saving(limit, tmp_path):
    """A limit of the size of files stands for the full disk: too small for the parameters, or for a checkpoint."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    train, val = sets()
    fit(network(), train, val, TrainConfig(epochs=1), save_to=tmp_path)
    saved = {p: p.read_bytes() for p in (tmp_path / "checkpoints").iterdir()}
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        with pytest.raises(CheckpointError, match=r"could not be saved; found .*; free some space"):
            fit(network(), *sets(), TrainConfig(epochs=2), save_to=tmp_path, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert {p: p.read_bytes() for p in (tmp_path / "checkpoints").iterdir()} == saved
    for name in ("best.params", "last.params"):
        network().load_parameters(str(tmp_path / name))
    assert not list(tmp_path.rglob("*.tmp"))
    fit(network(), *sets(), TrainConfig(epochs=2), save_to=tmp_path, resume=True)
