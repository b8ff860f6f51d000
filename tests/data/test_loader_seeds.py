"""Loaders draw from their own seed: the same batches whatever the workers and batch size."""
from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest
from loader_images import folder_fixture, opened, rows  # noqa: F401  (fixtures)

from gluon_ft.data.images.augment import Augmentation


@pytest.mark.parametrize("augment", ["gluon", "im2rec", Augmentation(hue=0.1, rotation=10, erasing=0.5, randaugment=2)])
def test_the_same_batches_whatever_the_workers(folder, augment):
    def epochs(workers, **options):
        loader = opened(folder, True, seed=5, workers=workers, augment=augment, **options)
        return [rows(loader) for _ in range(2)]

    reference = epochs(0)
    for other in (epochs(1), epochs(3), epochs(2, ahead=0), epochs(2, cache="memory")):
        for (data, labels), (same, same_labels) in zip(reference, other):
            np.testing.assert_array_equal(data, same)
            np.testing.assert_array_equal(labels, same_labels)
    assert not np.array_equal(reference[0][0], reference[1][0])
    again = opened(folder, True, seed=5, augment=augment)
    again.epoch = 1
    np.testing.assert_array_equal(rows(again)[0], reference[1][0])
    assert again.epoch == 2
    assert not np.array_equal(rows(opened(folder, True, seed=6, augment=augment))[0], reference[0][0])


def test_augmentation_belongs_to_the_image_not_to_its_place(folder):
    """The batch size changes the batches and not what is drawn for an image."""
    small, large = (rows(opened(folder, True, size, seed=1)) for size in (3, 21))
    np.testing.assert_array_equal(small[0], large[0])
    twins = np.repeat(np.random.RandomState(0).randint(0, 256, (1, 60, 60, 3), dtype=np.uint8), 8, axis=0)
    data, _ = rows(opened((twins, np.arange(8) % 2), True))
    assert len({row.tobytes() for row in data}) == 8


def test_global_seeds_play_no_part(folder):
    np.random.seed(1)
    mx.random.seed(1)
    first = rows(opened(folder, True))[0]
    np.random.seed(2)
    mx.random.seed(2)
    np.testing.assert_array_equal(rows(opened(folder, True))[0], first)
