"""Loaders against ImageRecordIter and ImageRecordDataset: equal images, and what is refused."""
from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest
from loader_images import GREY, copied, folder_fixture, opened, pack, packed_fixture, rows  # noqa: F401  (fixtures)

from gluon_ft.data import loader as loaders
from gluon_ft.data.images.augment import Augmentation
from gluon_ft.data.images.preprocessing import Preprocessing
from gluon_ft.data.records import pack as records
from gluon_ft.errors import ConfigError, DataError


@pytest.mark.parametrize("encoding", [".png", ".jpg"])
@pytest.mark.parametrize("wanted", [
    Preprocessing(mean=(0, 0, 0), std=(1, 1, 1), scale=1, size=32, resize=None),
    Preprocessing(mean=(0, 0, 0), std=(1, 1, 1), scale=1, size=32, resize=36),
    Preprocessing(mean=(0, 0, 0), std=(1, 1, 1), scale=1, size=60, resize=None),
    Preprocessing(size=40, resize=None, channel_order="bgr", rotate180=True)],
    ids=["raw", "resized", "enlarged", "imagenet"])
def test_evaluation_equals_image_record_iter(folder, packed, tmp_path, encoding, wanted):
    records.pack(packed.with_suffix(".lst"), folder, tmp_path / "x", resize=40, encoding=encoding)
    ours, native, dataset = (rows(opened(tmp_path / "x.rec", preprocessing=wanted, engine=engine))
                             for engine in loaders.ENGINES)
    np.testing.assert_array_equal(ours[1], native[1])
    np.testing.assert_array_equal(ours[0], dataset[0])
    # Both divide, in another order of roundings.
    tolerance = 0 if wanted.scale == 1 else 1e-5
    np.testing.assert_allclose(ours[0], native[0], rtol=0, atol=tolerance)


def test_our_loader_equals_a_plain_image_record_iter(packed):
    """Not through our own options: as the how-to calls it, batches and all."""
    theirs = mx.io.ImageRecordIter(path_imgrec=str(packed), data_shape=(3, 32, 32), batch_size=7, verbose=False)
    wanted = Preprocessing(mean=(0, 0, 0), std=(1, 1, 1), scale=1, size=32, resize=None)
    for ours, batch in zip(opened(packed, batch_size=7, preprocessing=wanted), theirs):
        np.testing.assert_array_equal(ours.data.asnumpy(), batch.data[0].asnumpy())
        np.testing.assert_array_equal(ours.label.asnumpy(), batch.label[0].asnumpy())


def test_grey_records_through_both_engines(packed):
    ours, native = (rows(opened(packed, preprocessing=GREY, engine=e)) for e in ("threads", "native"))
    assert ours[0].shape == (21, 1, 28, 28)
    # PNG has no grey plane, as JPEG has: OpenCV 3 and Pillow round the mixture of the colours differently.
    assert np.abs(ours[0] - native[0]).max() <= 1


def test_native_training_is_seeded_and_does_not_depend_on_threads(packed):
    def epochs(seed, workers):
        loader = opened(packed, True, seed=seed, workers=workers, engine="native", augment="im2rec")
        return [rows(loader) for _ in range(2)]

    one, two, other = epochs(3, 1), epochs(3, 2), epochs(4, 2)
    for (data, labels), (same, same_labels) in zip(one, two):
        np.testing.assert_array_equal(data, same)
        np.testing.assert_array_equal(labels, same_labels)
    assert not np.array_equal(one[0][0], one[1][0]) and not np.array_equal(one[0][0], other[0][0])
    assert rows(opened(packed, True, engine="native", augment="gluon"))[0].shape == (21, 3, 32, 32)


def test_native_batches_are_kept_and_padded(packed):
    batches = list(opened(packed, engine="native", batch_size=2))
    assert len(batches) == 11 and [b.valid for b in batches] == [2] * 10 + [1]
    assert len({b.data[0].asnumpy().tobytes() for b in batches}) == 11


def test_what_native_cannot_do_is_refused(folder, packed, tmp_path):
    with pytest.raises(ConfigError, match="does otherwise, or has not: hue, erasing; use engine 'threads'"):
        opened(packed, True, engine="native", augment=Augmentation(hue=0.1, erasing=0.5))
    with pytest.raises(ConfigError, match="ImageRecordIter has no interpolation 'nearest'"):
        opened(packed, engine="native", preprocessing=Preprocessing(size=32, resize=40, interpolation="nearest"))
    with pytest.raises(ConfigError, match=r"engine 'native' reads packed records; expected a \.rec"):
        opened(folder, engine="native")
    with pytest.raises(ConfigError, match="engine 'native' has no cache"):
        opened(packed, engine="native", cache="memory")
    lone = copied(packed, tmp_path, ".rec")
    with pytest.raises(DataError, match=r"copy.idx: no such file; expected the index, without which"):
        opened(lone, True, engine="native")
    assert rows(opened(lone, engine="native"))[1].tolist() == opened(lone).labels.tolist()
