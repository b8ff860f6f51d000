"""Kept features: what they are, that training on them is the same as on images, and their loader."""
from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest
from conftest import shared_data
from frozen_nets import SIZE, differences, image_loader, images, network, only_output, pictures, small
from mxnet.gluon import HybridBlock, nn

import gluon_ft
from gluon_ft.data import loader as loaders
from gluon_ft.data.batches import ArrayLoader
from gluon_ft.data.native_loader import NativeLoader
from gluon_ft.data.sampler import epoch_order
from gluon_ft.errors import ConfigError, DataError, NetworkError, TrainingError
from gluon_ft.models import tracing
from gluon_ft.training.config import TrainConfig
from gluon_ft.training.feature_cache import features, select
from gluon_ft.training.feature_cache import store as features_store
from gluon_ft.training.feature_cache.cut import cut
from gluon_ft.training.fit import fit
from gluon_ft.training.metrics import evaluate

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


# the same training

def trained(net, train, val, config, **options):
    if options:
        given = select.prepare(net, train, val, config, **options)
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


@pytest.mark.slow
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
    suffix, train, _ = select.prepare(net, bad)
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
    with pytest.raises(ConfigError, match=r"order is known beforehand; expected "
                       r"gluon_ft.loaders.make_loader.*found list"):
        features.cached([1], parts)
    with pytest.raises(ConfigError, match="found NativeLoader"):
        features.cached(NativeLoader.__new__(NativeLoader), parts)
    with pytest.raises(ConfigError, match="views differ; expected 2, the loader's; found 3"):
        features.cached(image_loader(views=2), parts, views=3)
    for views in (-1, True, 1.5, "2", 10 ** 6):
        with pytest.raises(ConfigError, match="views out of range; expected a whole number from 0 to 1000"):
            features.cached(image_loader(), parts, views=views)
    with pytest.raises(ConfigError, match=r"kept features cannot be mixed.*found mixup=0.2, cutmix=0"):
        select.prepare(only_output(small()), image_loader(), None, TrainConfig(mixup=0.2))
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
        select.prepare(net, image_loader())


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
        loader = loaders.make_loader(source, preprocessing=preprocessing, train=True, batch_size=16)
        loader.views = 2
        given = select.prepare(net, loader) if cache else (net, loader, None)
        fit(*given[:2], None, config)
        nets.append(net)
    assert differences(*nets) <= 1e-5
