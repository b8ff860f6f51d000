"""Features kept image by image: the same bits as computed at once, and what is known is not computed again."""
from __future__ import annotations

import cv2
import numpy as np
import pytest

import gluon_ft
from gluon_ft.data.sources.files import FileSource
from gluon_ft.engine import fused
from gluon_ft.io import paths
from gluon_ft.training.feature_cache import by_image, features
from gluon_ft.training.feature_cache import store as features_store

SIZE = 32


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    monkeypatch.setenv(paths.HOME_VARIABLE, str(tmp_path / "home"))


@pytest.fixture(name="source")
def source_fixture(tmp_path):
    random = np.random.RandomState(0)
    names = [f"{i}.png" for i in range(12)]
    for name in names:
        cv2.imwrite(str(tmp_path / name), random.randint(0, 256, (SIZE, SIZE, 3), np.uint8))
    return FileSource(tmp_path, tmp_path, names, np.arange(12) % 3, ["a", "b", "c"])


@pytest.fixture(name="computed")
def computed_fixture(monkeypatch):
    """How many images each pass through the network had."""
    counts, compute = [], features.of_sides

    def counted(net, loader, sides, *rest):
        counts.append(len(sides) * len(loader.labels))
        return compute(net, loader, sides, *rest)

    monkeypatch.setattr(features, "of_sides", counted)
    return counts


def network(mirror=False, seed=0):
    import mxnet as mx

    mx.random.seed(seed)
    net = gluon_ft.fine_tune_net("cifar_resnet20_relu", 3, pretrained=False)
    net.preprocessing = gluon_ft.Preprocessing(size=SIZE, resize=SIZE, mirror=mirror)
    return net


def loader_of(source, net):
    return gluon_ft.loaders.make_loader(source, train=False, batch_size=5, preprocessing=net.preprocessing)


@pytest.mark.parametrize("mirror", [False, True])
def test_the_bits_are_those_of_one_pass(source, mirror):
    net = network(mirror)
    expected, labels = features.extract(net, loader_of(source, net))
    by_image.of_images(net, loader_of(source.subset([3, 7, 1]), net))
    for order in (np.arange(12), np.arange(12)[::-1], [5, 5, 2]):
        found, given = by_image.of_images(net, loader_of(source.subset(order), net))
        np.testing.assert_array_equal(found, expected[order])
        np.testing.assert_array_equal(given, labels[order])


def test_only_what_is_new_is_computed(source, computed):
    net = network()
    for positions, new in [([0, 1, 2], 3), ([2, 1], None), (range(6), 3), (range(12), 6), (range(12), None)]:
        before = len(computed)
        by_image.of_images(net, loader_of(source.subset(list(positions)), net))
        assert computed[before:] == ([] if new is None else [new])


def test_mirror_images_are_added_to_what_is_known(source, computed):
    by_image.of_images(network(), loader_of(source, network()))
    by_image.of_images(network(mirror=True), loader_of(source, network(mirror=True)))
    assert computed == [12, 12]  # as they are, then mirrored


def test_image_and_mirror_image_take_one_pass(source, computed):
    by_image.of_images(network(), loader_of(source.subset([3, 4]), network()))
    by_image.of_images(network(mirror=True), loader_of(source, network(mirror=True)))
    assert computed == [2, 20, 2]


def test_freezing_batchnorm_changes_no_key(source, computed):
    net = network()
    expected, _ = by_image.of_images(net, loader_of(source, net))
    gluon_ft.freeze(net.features)
    found, _ = by_image.of_images(net, loader_of(source, net))
    np.testing.assert_array_equal(found, expected)
    assert computed == [12]
    assert np.array_equal(features.extract(net, loader_of(source, net))[0], expected)  # what would be computed


@pytest.mark.parametrize("change", ["weights", "size", "contents"])
def test_what_features_depend_on_is_part_of_the_key(source, computed, change, tmp_path):
    net = network()
    by_image.of_images(net, loader_of(source, net))
    if change == "weights":
        net = network(seed=1)
    elif change == "size":
        net.preprocessing = gluon_ft.Preprocessing(size=SIZE, resize=SIZE + 8)
    else:
        cv2.imwrite(str(tmp_path / "0.png"), np.zeros((SIZE, SIZE, 3), np.uint8))
    expected, _ = features.extract(net, loader_of(source, net))
    found, _ = by_image.of_images(net, loader_of(source, net))
    np.testing.assert_array_equal(found, expected)
    assert computed == [12, 12, 1 if change == "contents" else 12]


def test_the_new_output_layer_does_not_count(source, computed):
    for classes in (3, 5):
        net = network()
        gluon_ft.replace_output(net, classes)
        by_image.of_images(net, loader_of(source, net))
    assert computed == [12]


def test_copies_are_computed_once(source, computed, tmp_path):
    (tmp_path / "11.png").write_bytes((tmp_path / "0.png").read_bytes())
    net = network()
    found, _ = by_image.of_images(net, loader_of(source, net))
    np.testing.assert_array_equal(found[11], found[0])
    assert computed == [11]


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 no archive", None])
def test_a_damaged_file_is_made_anew(source, computed, damage):
    net = network()
    expected, _ = by_image.of_images(net, loader_of(source, net))
    file, = (features_store.folder_of("disk") / by_image.FOLDER).glob("*.npz")
    file.write_bytes(file.read_bytes()[:200] if damage is None else damage)
    found, _ = by_image.of_images(net, loader_of(source, net))
    np.testing.assert_array_equal(found, expected)
    assert computed == [12, 12]


def test_a_cache_that_cannot_be_written_costs_time_only(source, computed, tmp_path, monkeypatch):
    (tmp_path / "no-folder").write_text("")
    monkeypatch.setattr(features_store, "folder_of", lambda _: tmp_path / "no-folder")
    net = network()
    for _ in range(2):
        by_image.of_images(net, loader_of(source, net))
    assert computed == [12, 12]


def test_the_oldest_go_where_there_are_too_many(source, computed, monkeypatch):
    net = network()
    monkeypatch.setattr(by_image, "MOST_BYTES", 4 * 64 * 5)  # five rows
    by_image.of_images(net, loader_of(source, net))
    by_image.of_images(net, loader_of(source.subset(range(7, 12)), net))
    by_image.of_images(net, loader_of(source.subset(range(7)), net))
    assert computed == [12, 7]


def test_one_pass_reads_each_image_once_for_both_sides(source, monkeypatch):
    reads = []
    read = FileSource.image
    monkeypatch.setattr(FileSource, "image", lambda self, position, *rest: reads.append(position) or read(
        self, position, *rest))
    net = network(mirror=True)
    assert fused.is_mirrored(net)
    loader = gluon_ft.loaders.make_loader(source, train=False, batch_size=5, preprocessing=net.preprocessing,
                                          cache="memory")
    by_image.of_images(net, loader)
    assert sorted(reads) == list(range(12))
