"""Loaders: every source gives each image once with its label."""
from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest
from loader_images import CLASSES, GREY, folder_fixture, make_folder, opened, pack, packed_fixture, rows  # noqa: F401  (fixtures)

from gluon_ft.data.images.augment import Augmentation
from gluon_ft.data.images.preprocessing import Preprocessing
from gluon_ft.errors import DataError


@pytest.mark.parametrize("engine", ["folder", "list", "threads", "native", "dataset"])
def test_every_source_gives_each_image_once_with_its_label(folder, packed, engine):
    source = {"folder": folder, "list": packed.with_suffix(".lst")}.get(engine, packed)
    options = {"root": folder} if engine == "list" else {}
    engine = "threads" if engine in ("folder", "list") else engine
    loader = opened(source, engine=engine, **options)
    assert loader.classes == CLASSES and len(loader) == 6
    assert loader.labels.dtype == np.int64 and loader.labels.tolist() == sorted([0, 1, 2] * 7)
    reference = rows(opened(folder))[0]
    for _ in range(3):
        batch = next(iter(loader))
        assert batch.data.dtype == np.float32 and batch.label.dtype == np.int32
        data, labels = rows(loader)
        assert labels.tolist() == loader.labels.tolist()
        # Packed images were resized by `pack`, which does so a little differently.
        if source is packed:
            assert len(np.unique(data.reshape(21, -1), axis=0)) == 21 and np.abs(data - reference).mean() < 8
        else:
            np.testing.assert_array_equal(data, reference)
    assert loader.epoch == 6


@pytest.mark.parametrize("engine", ["threads", "native", "dataset"])
@pytest.mark.parametrize("batch_size", [4, 7, 21, 50])
def test_training_visits_each_image_once_an_epoch(packed, engine, batch_size):
    loader = opened(packed, True, batch_size, engine=engine, augment=Augmentation(crop="centre", flip=False))
    expected = {row.tobytes() for row in rows(opened(packed))[0]}
    orders = set()
    for _ in range(3):
        data, labels = rows(loader)
        assert {row.tobytes() for row in data} == expected and len(data) == 21
        assert np.bincount(labels).tolist() == [7, 7, 7]
        orders.add(tuple(labels))
    assert len(orders) == 3


def test_arrays_and_idx_files_as_they_are(tmp_path):
    rng = np.random.RandomState(0)
    pixels, labels = rng.randint(0, 256, (10, 28, 28), dtype=np.uint8), np.arange(10) % 3
    data, found = rows(opened((pixels, labels), preprocessing=GREY))
    np.testing.assert_array_equal(data, pixels[:, None])
    assert found.tolist() == labels.tolist()
    for name, array in (("images", pixels), ("labels", labels.astype(np.uint8))):
        header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
        (tmp_path / name).write_bytes(header + array.tobytes())
    loader = opened((tmp_path / "images", tmp_path / "labels"), preprocessing=GREY, classes=CLASSES)
    np.testing.assert_array_equal(rows(loader)[0], data)
    assert loader.classes == CLASSES
    colour = rng.randint(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    wanted = Preprocessing(mean=(0, 0, 0), std=(1, 1, 1), scale=1, size=32, resize=None)
    np.testing.assert_array_equal(rows(opened((colour, np.arange(6)), preprocessing=wanted))[0],
                                  colour.transpose(0, 3, 1, 2))
    assert rows(opened((colour, np.arange(6)), preprocessing=GREY))[0].shape == (6, 1, 28, 28)
    three = rows(opened((pixels, labels), preprocessing=Preprocessing(size=28, resize=None)))[0]
    assert three.shape == (10, 3, 28, 28)


def test_digits_are_not_mirrored_unless_asked():
    pixels = np.random.RandomState(0).randint(0, 256, (6, 28, 28), dtype=np.uint8)
    loader = opened((pixels, np.arange(6)), True, preprocessing=GREY)
    for _ in range(4):
        data, labels = rows(loader)
        np.testing.assert_array_equal(data[np.argsort(labels)], pixels[:, None])


def test_a_folder_that_lacks_a_class_keeps_the_training_labels(tmp_path):
    make_folder(tmp_path / "val", per_class=2, classes=["ant", "cat"])
    loader = opened(tmp_path / "val", classes=CLASSES)
    assert loader.labels.tolist() == [0, 0, 2, 2] and loader.classes == CLASSES
    with pytest.raises(DataError, match="class 'cat' is none of those expected; expected 2 classes: ant, cow; found 2 "
                                        "classes: ant, cat; did you mean ant"):
        opened(tmp_path / "val", classes=["ant", "cow"])


def test_records_of_im2rec_without_manifest(packed, tmp_path):
    source = mx.recordio.MXIndexedRecordIO(str(packed.with_suffix(".idx")), str(packed), "r")
    target = mx.recordio.MXIndexedRecordIO(str(tmp_path / "a.idx"), str(tmp_path / "a.rec"), "w")
    for key in source.keys:
        header, image = mx.recordio.unpack(source.read_idx(key))
        # A label array of one, as im2rec writes with --pack-label.
        target.write_idx(key, mx.recordio.pack(mx.recordio.IRHeader(1, [header.label], header.id, 0), image))
    target.close()
    loader = opened(tmp_path / "a.rec")
    assert loader.classes == ["0", "1", "2"]
    np.testing.assert_array_equal(rows(loader)[0], rows(opened(packed))[0])
    np.testing.assert_array_equal(rows(opened(tmp_path / "a.rec", classes=CLASSES))[1], loader.labels)
