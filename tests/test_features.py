"""The frozen part of a network: where it ends, what it gives, how it is kept, and that training on it is the same."""
from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import cv2
import mxnet as mx
import numpy as np
import pytest
from conftest import shared_data
from mxnet.gluon import HybridBlock, nn

import gluon_ft
from gluon_ft import tracing
from gluon_ft.data import loaders
from gluon_ft.data.batches import ArrayLoader
from gluon_ft.data.loader_native import NativeLoader
from gluon_ft.data.order import epoch_order
from gluon_ft.errors import ConfigError, DataError, NetworkError, TrainingError
from gluon_ft.training import features, features_store
from gluon_ft.training.config import TrainConfig
from gluon_ft.training.features_cut import cut, obstacle
from gluon_ft.training.fit import fit
from gluon_ft.training.metrics import evaluate

SIZE = 32
PREPROCESSING = gluon_ft.Preprocessing(size=SIZE, resize=36)


def pictures(n, seed=0, classes=3):
    rng, labels = np.random.RandomState(seed), np.arange(n) % classes
    images = rng.randint(0, 120, (n, 40, 44, 3)).astype("uint8")
    for image, label in zip(images, labels):
        image[:, :, label] += 90
    return images, labels


def image_loader(n=30, train=True, views=0, augment="gluon", batch_size=8, seed=3, source=None):
    loader = loaders.open(source or pictures(n, seed=int(train)), preprocessing=PREPROCESSING, train=train,
                          batch_size=batch_size, seed=seed, augment=augment if train else None, workers=1)
    loader.views = views
    return loader


class Small(HybridBlock):
    """Convolutions with a shortcut, BatchNorm and a Dense output."""

    def __init__(self, dropout=0.0, **kwargs):
        super().__init__(**kwargs)
        with self.name_scope():
            self.stem = nn.HybridSequential(prefix="")
            self.stem.add(nn.Conv2D(4, 3, 2, 1, in_channels=3), nn.BatchNorm(in_channels=4), nn.Activation("relu"))
            self.left, self.right = nn.Conv2D(4, 3, 1, 1, in_channels=4), nn.Conv2D(4, 1, in_channels=4)
            self.norm, self.dropout = nn.BatchNorm(in_channels=4), nn.Dropout(dropout)
            self.pool, self.output = nn.GlobalAvgPool2D(), nn.Dense(3, in_units=4)

    def hybrid_forward(self, F, x):
        x = self.stem(x)
        x = F.relu(self.norm(self.left(x) + self.right(x)))
        return self.output(self.pool(self.dropout(x)))


def small(seed=0, **options):
    mx.random.seed(seed)
    np.random.seed(seed)
    net = Small(**options)
    net.initialize(mx.init.Xavier())
    net.hybridize()
    return net


def network(name="cifar_resnet20_relu", seed=0):
    mx.random.seed(seed)
    np.random.seed(seed)
    net = gluon_ft.fine_tune_net(name, 3)
    net(mx.nd.zeros((1, 3, SIZE, SIZE)))
    return net


def only_output(net):
    gluon_ft.freeze(net)
    gluon_ft.unfreeze(tracing.output_layer(net).block)
    return net


def images(n=6):
    return mx.nd.array(np.random.RandomState(5).rand(n, 3, SIZE, SIZE))


def differences(a, b):
    """Largest difference of the parameters of two networks, relative to each parameter's largest value."""
    left, right = a._collect_params_with_prefix(), b._collect_params_with_prefix()
    assert list(left) == list(right)
    return max(float(abs(left[k].data() - right[k].data()).max().asscalar() / (
        abs(left[k].data()).max().asscalar() or 1)) for k in left)


def equal_cut(net, x):
    found = cut(net, x.shape)
    between = found.prefix(x)
    assert between.shape[1:] == found.shape
    np.testing.assert_allclose(found.suffix(between).asnumpy(), net(x).asnumpy(), rtol=1e-6, atol=1e-6)
    trained = {p.name for p in net.collect_params().values() if p.grad_req != "null"}
    assert trained <= set(found.suffix.collect_params().keys())
    assert not trained & set(found.prefix.collect_params().keys())
    for name, parameter in found.suffix.collect_params().items():
        assert parameter is net.collect_params()[name]
    return found


# extract

@pytest.mark.parametrize("name", ["cifar_resnet20_relu", "mobilenetv2_0.25", "resnet18_v1b"])
def test_extract_gives_what_the_output_layer_takes(name):
    net, x = network(name), images(5)
    found, labels = features.extract(net, ArrayLoader(x.asnumpy(), [2, 0, 1, 1, 0], 2))
    assert found.dtype == np.float32 and labels.dtype == np.int64
    assert labels.tolist() == [2, 0, 1, 1, 0]
    net.hybridize(False)
    layer, taken = tracing.output_layer(net).block, []
    hook = layer.register_forward_pre_hook(lambda _, given: taken.append(given[0]))
    net(x)
    hook.detach()
    np.testing.assert_allclose(found, taken[0].asnumpy().reshape(5, -1), rtol=1e-5, atol=1e-6)


def test_extract_averages_the_input_of_a_convolutional_output():
    net = nn.HybridSequential()
    net.add(nn.Conv2D(5, 3, in_channels=3, activation="relu"), nn.Dropout(0.5), nn.Conv2D(2, 1, in_channels=5),
            nn.GlobalAvgPool2D(), nn.Flatten())
    net.initialize(mx.init.Xavier())
    x = images(3)
    found, _ = features.extract(net, [(x, mx.nd.array([0, 1, 0]))])
    np.testing.assert_allclose(found, net[0](x).asnumpy().mean(axis=(2, 3)), rtol=1e-5)


def test_extract_refuses_an_empty_loader():
    with pytest.raises(DataError, match="no images to compute features of; expected at least one"):
        features.extract(small(), [])


# where to cut

def test_with_all_but_the_output_frozen_the_cut_is_at_the_penultimate_features():
    found = equal_cut(only_output(small(dropout=0.0)), images())
    assert found.shape == (4, 1, 1) and found.where == "pool"
    assert list(found.suffix.collect_params().keys()) == [
        p.name for p in tracing.output_layer(found.suffix.whole).block.collect_params().values()]
    assert found.next == "output.weight is trained"


def test_nothing_random_is_in_the_prefix():
    found = equal_cut(only_output(small(dropout=0.5)), images())
    assert found.shape == (4, 16, 16)
    assert found.next.startswith("dropout (Dropout) is random")


def test_a_tensor_past_which_something_flows_is_no_cut():
    net = small()
    gluon_ft.freeze(net.stem)
    gluon_ft.freeze(net.left)
    found = equal_cut(net, images())
    # What `left` makes is frozen too, but `right` needs the stem's result as well.
    assert found.where == "stem" and found.next == "right.weight is trained"


def test_batchnorm_that_follows_the_batches_ends_the_prefix():
    net = only_output(small())
    gluon_ft.freezing.set_batchnorm(net.norm, "train")
    found = cut(net, images().shape)
    assert found.next == "norm (BatchNorm) follows the batches" and found.shape == (4, 16, 16)
    gluon_ft.freezing.set_batchnorm(net.stem, "train")
    # The convolution before it is all that is left.
    assert cut(net).where == "stem.0"


def test_where_nothing_can_be_cut():
    net = small()
    assert cut(net) is None and obstacle(net) == "stem.0.weight is trained"
    gluon_ft.freeze(net)
    assert cut(net) is None and obstacle(net) == "everything is frozen, nothing is left to train"
    gluon_ft.unfreeze(net)
    gluon_ft.freeze(net.output)
    assert cut(net) is None
    with pytest.raises(ConfigError, match=r"no part of the network can be computed once.*found stem.0"):
        features.prepare(net, image_loader())


@pytest.mark.parametrize(("name", "count"), [("cifar_resnet20_relu", 2), ("resnet18_v1b", 3), ("mobilenetv2_0.25", 4)])
def test_networks_are_cut_behind_their_frozen_stages(name, count):
    net = network(name)
    gluon_ft.freeze_stages(net, count, input_shape=(1, 3, SIZE, SIZE))
    equal_cut(net, images(2))


def test_a_cut_inside_a_block_and_multipliers_are_kept():
    net = network("resnet18_v1b")
    gluon_ft.freeze_stages(net, 2, input_shape=(1, 3, SIZE, SIZE))
    gluon_ft.freeze(net.layer2[0])
    net.fc.weight.lr_mult = 7
    found = equal_cut(net, images(2))
    assert found.where == "layer2.0"
    assert found.suffix.collect_params()[net.fc.weight.name].lr_mult == 7
    net.hybridize(False)
    gluon_ft.unfreeze(net.layer2[0].conv2)
    found = equal_cut(net, images(2))
    # The shortcut goes past the first convolution: only the whole stage before can be cut off.
    assert found.where == "layer1"


def test_several_results_are_refused():
    class Two(HybridBlock):
        def hybrid_forward(self, F, x):
            return x, x

    with pytest.raises(NetworkError, match="Two has 2 results"):
        cut(Two())


def test_the_suffix_saves_and_loads_the_whole_network(tmp_path):
    net = only_output(small())
    suffix = cut(net).suffix
    suffix.save_parameters(str(tmp_path / "whole.params"))
    other = small(seed=1)
    other.load_parameters(str(tmp_path / "whole.params"))
    assert differences(net, other) == 0
    assert tracing.output_layer(suffix).classes == 3
    assert net.output._active


def test_the_suffix_follows_a_change_behind_the_cut_and_notices_one_before_it():
    net = small()
    gluon_ft.freeze(net.stem)
    found, x = cut(net), images()
    between = found.prefix(x)
    gluon_ft.freeze(net.norm)
    with mx.autograd.train_mode():
        held, moving = found.suffix.retraced()(between).asnumpy(), found.suffix(between).asnumpy()
    np.testing.assert_allclose(held, net(x).asnumpy(), rtol=1e-6)
    assert abs(held - moving).max() > 1e-3
    gluon_ft.unfreeze(net.stem)
    with pytest.raises(NetworkError, match="has changed since it was cut"):
        found.suffix.retraced()


def test_equal_networks_have_equal_fingerprints_whatever_they_are_called():
    first, second, third = (only_output(small(seed)) for seed in (0, 0, 1))
    assert first.stem[0].weight.name != second.stem[0].weight.name
    assert cut(first).fingerprint() == cut(second).fingerprint() != cut(third).fingerprint()
    before = cut(first).fingerprint()
    first.output.weight.set_data(first.output.weight.data() + 1)
    assert cut(first).fingerprint() == before
    first.norm.running_var.set_data(first.norm.running_var.data() * 1.001)
    assert cut(first).fingerprint() != before


# the same training

def trained(net, train, val, config, **options):
    if options:
        given = features.prepare(net, train, val, config, **options)
        return fit(*given, config), given
    return fit(net, train, val, config), None


@pytest.mark.parametrize(("views", "store", "freeze"), [
    (0, "memory", only_output), (2, "disk", only_output),
    (3, "memory", lambda net: gluon_ft.freeze_stages(net, 2, input_shape=(1, 3, SIZE, SIZE)))])
def test_training_on_features_is_the_same(views, store, freeze):
    config = TrainConfig(epochs=4, lr=0.01, top_k=0)
    with_images, with_features = network(), network()
    for net in (with_images, with_features):
        freeze(net)
    # Without views the images are not augmented.
    plain, _ = trained(with_images, image_loader(views=views, augment="gluon" if views else "none"),
                       image_loader(12, train=False), config)
    kept, given = trained(with_features, image_loader(), image_loader(12, train=False), config, views=views,
                          store=store)
    assert differences(with_images, with_features) <= 1e-5
    for a, b in zip(plain.history, kept.history):
        for key in ("train_loss", "validation_loss", "train_accuracy", "validation_accuracy"):
            assert b[key] == pytest.approx(a[key], rel=1e-5)
    assert plain.best_epoch == kept.best_epoch
    assert given.train.features.shape[:2] == (max(views, 1), 30) and given.val.features.shape[:2] == (1, 12)
    assert isinstance(given.train.features, np.memmap) == (store == "disk")
    # The whole network has learnt: it is the suffix's parameters that moved.
    assert evaluate(with_features, image_loader(12, train=False)).loss == pytest.approx(
        kept.history[-1]["validation_loss"], rel=1e-4)


def test_training_a_resnet_above_its_frozen_stages_is_the_same_to_the_last_bit():
    config = TrainConfig(epochs=2, lr=0.01, top_k=0)
    with_images, with_features = network("resnet18_v1b"), network("resnet18_v1b")
    for net in (with_images, with_features):
        gluon_ft.freeze_stages(net, 3, input_shape=(1, 3, SIZE, SIZE))
    before = network("resnet18_v1b")
    trained(with_images, image_loader(20, views=2), None, config)
    _, given = trained(with_features, image_loader(20), None, config, views=2)
    assert given.train.features.shape[0] == 2
    assert differences(with_images, with_features) == 0
    assert differences(before, with_features) > 0


def test_fit_keeps_features_by_itself_where_the_configuration_says():
    kept, plain = only_output(small()), only_output(small())
    fit(plain, image_loader(), image_loader(9, train=False), TrainConfig(epochs=3, top_k=0, views=2))
    result = fit(kept, image_loader(), image_loader(9, train=False),
                 TrainConfig(epochs=3, top_k=0, views=2, cache_features="disk"))
    assert differences(plain, kept) <= 1e-5 and len(result.history) == 3
    assert len(list(features_store.folder_of("disk").glob("*/manifest.json"))) >= 2


def test_what_is_trained_is_checked_on_features_as_on_images():
    net = only_output(small())
    bad = image_loader(source=pictures(30, classes=3))
    suffix, train, _ = features.prepare(net, bad)
    train.labels = train.labels + 1
    with pytest.raises(TrainingError, match="labels outside the network's output"):
        fit(suffix, train, None, TrainConfig(epochs=1))


# the loader

def test_order_and_views_are_those_of_the_image_loader():
    net = only_output(small())
    loader = image_loader(views=2)
    loader.epoch = 1
    kept = features.cached(loader, cut(net))
    prefix = cut(net).prefix
    assert len(kept) == len(loader) == 4 and kept.classes == loader.classes
    for epoch in (1, 2, 3):
        pairs = list(zip(list(loader), list(kept)))
        assert len(pairs) == 4
        for theirs, ours in pairs:
            assert theirs.valid == ours.valid
            np.testing.assert_array_equal(theirs.label.asnumpy(), ours.label.asnumpy())
            with mx.autograd.train_mode():
                np.testing.assert_allclose(prefix(theirs.data).asnumpy(), ours.data.asnumpy(), rtol=1e-5, atol=1e-6)
        assert loader.epoch == kept.epoch == epoch + 1
    assert not np.allclose(kept.features[0], kept.features[1])


def test_a_pass_can_begin_in_the_middle_and_draw_classes_equally():
    loader = image_loader(views=1)
    kept = features.cached(loader, cut(only_output(small())))
    whole = [batch.label.asnumpy().tolist() for batch in kept]
    kept.epoch, kept.start = 0, 2
    assert [batch.label.asnumpy().tolist() for batch in kept] == whole[2:]
    assert kept.start == 0 and kept.epoch == 1
    loader.balanced = kept.balanced = True
    loader.epoch = kept.epoch = 4
    assert [b.label.asnumpy().tolist() for b in loader] == [b.label.asnumpy().tolist() for b in kept]


def test_evaluation_is_in_order_and_arrays_do_as_well():
    x, y = images(10).asnumpy(), np.arange(10) % 3
    kept = features.cached(ArrayLoader(x, y, 4), cut(only_output(small())), views=0)
    assert np.concatenate([b.label.asnumpy() for b in kept]).tolist() == y.tolist()
    shuffled = ArrayLoader(x, y, 4, shuffle=True, seed=9)
    kept = features.cached(shuffled, cut(only_output(small())))
    for theirs, ours in zip(shuffled, kept):
        np.testing.assert_array_equal(theirs.label.asnumpy(), ours.label.asnumpy())


def test_large_features_are_read_ahead_in_order():
    x, y = np.zeros((7, 1)), np.arange(7) % 2
    array = np.arange(2 * 7 * 70000, dtype=np.float32).reshape(2, 7, 70000)
    kept = features.FeatureLoader(ArrayLoader(x, y, 4, shuffle=True, seed=2), array, "00")
    for epoch in range(3):
        order = epoch_order(y, 2, epoch, True)
        found = list(kept)
        np.testing.assert_array_equal(np.concatenate([b.data.asnumpy() for b in found]), array[epoch % 2][order])
        assert np.concatenate([b.label.asnumpy() for b in found]).tolist() == y[order].tolist()


def test_what_cannot_be_cached_is_refused(tmp_path):
    parts = cut(only_output(small()))
    with pytest.raises(ConfigError, match=r"order is known beforehand; expected gluon_ft.loaders.open.*found list"):
        features.cached([1], parts)
    with pytest.raises(ConfigError, match="found NativeLoader"):
        features.cached(NativeLoader.__new__(NativeLoader), parts)
    with pytest.raises(ConfigError, match="views differ; expected 2, the loader's; found 3"):
        features.cached(image_loader(views=2), parts, views=3)
    for views in (-1, True, 1.5, "2", 10 ** 6):
        with pytest.raises(ConfigError, match="views out of range; expected a whole number from 0 to 1000"):
            features.cached(image_loader(), parts, views=views)
    with pytest.raises(ConfigError, match=r"kept features cannot be mixed.*found mixup=0.2, cutmix=0"):
        features.prepare(only_output(small()), image_loader(), None, TrainConfig(mixup=0.2))
    with pytest.raises(NetworkError, match=r"images of shape \(1, 32, 32\) do not fit the network"):
        features.cached(ArrayLoader(images(4).asnumpy()[:, :1], [0, 1, 0, 1], 2), parts)
    with pytest.raises(ConfigError, match="not a place for features; expected 'memory', 'disk' or a folder"):
        features.cached(image_loader(), parts, store=3)


def test_features_that_depend_on_the_batch_are_noticed():
    class Mixing(HybridBlock):
        def __init__(self):
            super().__init__()
            self.body, self.output = nn.Dense(4, in_units=3), nn.Dense(2, in_units=4)

        def hybrid_forward(self, F, x):
            x = self.body(x)
            return self.output(F.broadcast_sub(x, F.mean(x, axis=0, keepdims=True)))

    net = Mixing()
    net.initialize(mx.init.Xavier())
    data = np.random.RandomState(0).rand(8, 3)
    with pytest.raises(NetworkError, match="depend on the other images of its batch"):
        features.cached(ArrayLoader(data, np.arange(8) % 2, 4), cut(only_output(net)))


def test_features_that_are_not_finite_are_refused():
    net = only_output(small())
    net.norm.running_mean.set_data(mx.nd.full((4,), float("nan")))
    with pytest.raises(NetworkError, match="training features are not finite; expected numbers"):
        features.prepare(net, image_loader())


# the store

def key_of(net=None, **options):
    return features.cached(image_loader(12, **options), cut(net or only_output(small()))).key


def test_the_key_changes_with_everything_that_features_depend_on(monkeypatch):
    base = key_of(views=2)
    assert key_of(views=2) == base
    assert key_of(views=2, batch_size=5) == base
    assert key_of(views=3) != base
    assert key_of(views=2, seed=4) != base
    assert key_of(views=2, augment="im2rec") != base
    assert key_of(views=2, train=False) != base
    assert key_of(only_output(small(seed=2)), views=2) != base
    changed = pictures(12, seed=1)
    changed[0][5, 0, 0, 0] += 1
    assert key_of(views=2, source=changed) != base
    monkeypatch.setattr(gluon_ft, "__version__", "0.1.1")
    assert key_of(views=2) != base


def test_without_augmentation_the_seed_does_not_matter():
    assert key_of(seed=1) == key_of(seed=2)


def counted(monkeypatch):
    """Counts how many images run through the prefix."""
    ran = []
    forward = features._forward
    monkeypatch.setattr(features, "_forward", lambda run, data, *rest: ran.append(len(data)) or forward(run, data,
                                                                                                        *rest))
    return ran


def folder_of_images(tmp_path):
    root = tmp_path / "photos"
    for n, (image, label) in enumerate(zip(*pictures(12))):
        (root / "abc"[label]).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / "abc"[label] / f"{n}.png"), image)
    return root


def test_a_later_run_finds_the_features_and_a_changed_image_makes_them_anew(tmp_path, monkeypatch):
    root, place, ran = folder_of_images(tmp_path), tmp_path / "kept", counted(monkeypatch)
    first = features.cached(image_loader(source=root), cut(only_output(small())), store=place)
    made = len(ran)
    assert made > 0
    shutil.copytree(root, tmp_path / "elsewhere")
    again = features.cached(image_loader(source=tmp_path / "elsewhere"), cut(only_output(small())), store=str(place))
    assert len(ran) == made and again.key == first.key
    np.testing.assert_array_equal(first.features, again.features)
    image = next(root.glob("*/*.png"))
    known = os.stat(image)
    pixels = cv2.imread(str(image))
    cv2.imwrite(str(image), 255 - pixels)
    os.utime(image, ns=(known.st_atime_ns, known.st_mtime_ns))
    other = features.cached(image_loader(source=root), cut(only_output(small())), store=place)
    assert len(ran) > made and other.key != first.key
    assert not any(path.name.startswith(".") and path.is_dir() for path in place.iterdir())


@pytest.mark.parametrize("damage", ["byte", "short", "manifest", "gone"])
def test_damaged_features_are_made_anew_with_a_note(tmp_path, damage):
    def make():
        yield np.arange(24, dtype=np.float32).reshape(4, 6)

    first = np.array(features_store.kept("ab", (2, 2, 6), make, store=tmp_path))
    array, manifest = tmp_path / "ab" / "features.npy", tmp_path / "ab" / "manifest.json"
    if damage == "byte":
        data = bytearray(array.read_bytes())
        data[-3] ^= 1
        array.write_bytes(data)
    elif damage == "short":
        array.write_bytes(array.read_bytes()[:-8])
    elif damage == "manifest":
        manifest.write_text(manifest.read_text()[:20])
    else:
        array.unlink()
    with pytest.warns(RuntimeWarning, match="ab: damaged features are made anew"):
        second = features_store.kept("ab", (2, 2, 6), make, store=tmp_path)
    np.testing.assert_array_equal(first, second)


def test_nothing_half_made_is_left_or_used(tmp_path):
    def fails():
        yield np.zeros((1, 3), np.float32)
        raise DataError("image cannot be used")

    with pytest.raises(DataError, match="image cannot be used"):
        features_store.kept("cd", (1, 2, 3), fails, store=tmp_path)
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == []
    # What a killed process left behind.
    (tmp_path / ".cd.new").mkdir()
    (tmp_path / ".cd.new" / "features.npy").write_bytes(b"half")
    found = features_store.kept("cd", (1, 2, 3), lambda: [np.ones((2, 3), np.float32)], store=tmp_path)
    np.testing.assert_array_equal(found, np.ones((1, 2, 3), np.float32))
    (tmp_path / ".ef.new").mkdir()
    features_store.prune(tmp_path, 1 << 30)
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["cd"]


def test_too_large_for_memory_goes_to_disk_and_too_large_for_both_is_refused(tmp_path, monkeypatch):
    def make():
        yield np.zeros((10, 100), np.float32)

    shape = (1, 10, 100)
    assert not isinstance(features_store.kept("0a", shape, make, limit_bytes=4000), np.memmap)
    found = features_store.kept("0a", shape, make, limit_bytes=3999)
    assert isinstance(found, np.memmap) and not found.flags.writeable
    with pytest.raises(DataError, match=r"features of 0.00 MiB are too large; expected at most 0.00 MiB in memory, or "
                                        r"0.00 MiB on disk; take fewer views, freeze more stages"):
        features_store.kept("0b", shape, make, limit_bytes=3999, disk_bytes=3999)
    monkeypatch.setattr(features_store.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 1000))
    with pytest.raises(DataError, match=r"no space for features of .* free on disk; found 0.00 MiB"):
        features_store.kept("0c", shape, make, store=tmp_path)


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"features cannot be kept; found .*; name a folder that can be written"):
        features_store.kept("0d", (1, 1, 1), lambda: [np.zeros((1, 1))], store=tmp_path / "file")


def test_the_least_recently_used_features_make_room(tmp_path):
    def keep(key):
        return features_store.kept(key, (1, 100, 10), lambda: [np.zeros((100, 10), np.float32)], store=tmp_path,
                                   disk_bytes=13000)

    for age, key in enumerate(("a1", "a2", "a3")):
        keep(key)
        os.utime(tmp_path / key / "manifest.json", (1000 + age, 1000 + age))
    keep("a1")
    keep("a4")
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["a1", "a3", "a4"]
    assert json.loads((tmp_path / "a4" / "manifest.json").read_text())["shape"] == [1, 100, 10]


KEEP_SLOWLY = """
import sys, time
import numpy as np
from gluon_ft.training import features_store

def make():
    print("made", flush=True)
    time.sleep(1)
    yield np.full((2, 3), 7, np.float32)

print(features_store.kept("aa", (1, 2, 3), make, store=sys.argv[1]).sum())
"""


def test_two_processes_make_features_once(tmp_path):
    both = [subprocess.Popen([sys.executable, "-c", KEEP_SLOWLY, str(tmp_path)], stdout=subprocess.PIPE, text=True)
            for _ in range(2)]
    words = " ".join(process.communicate(timeout=120)[0] for process in both).split()
    assert sorted(words) == ["42.0", "42.0", "made"]


@pytest.mark.slow
def test_resnet18_on_real_photos_is_the_same():
    source = shared_data("hotdog") / "train"
    config = TrainConfig(epochs=2, lr=0.01, top_k=0)
    preprocessing = gluon_ft.Preprocessing(size=96, resize=110)
    nets = []
    for cache in (False, True):
        mx.random.seed(0)
        np.random.seed(0)
        net = gluon_ft.fine_tune_net("resnet18_v2", 2)
        net(mx.nd.zeros((1, 3, 96, 96)))
        only_output(net)
        loader = loaders.open(source, preprocessing=preprocessing, train=True, batch_size=16)
        loader.views = 2
        given = features.prepare(net, loader) if cache else (net, loader, None)
        fit(*given[:2], None, config)
        nets.append(net)
    assert differences(*nets) <= 1e-5
