"""Shares of batches: every image once over all workers, as many batches for each, and only their own images read."""
from __future__ import annotations

import mxnet as mx
import numpy as np
import photos
import pytest

from gluon_ft.data.batches import ArrayLoader, Part, batches, by_names, every_image, shares
from gluon_ft.data.images.preprocessing import Preprocessing
from gluon_ft.data.loader import make_loader
from gluon_ft.data.sources.folders import scan


def arrays(count=11, batch=4):
    loader = ArrayLoader(np.arange(count).reshape(-1, 1), np.arange(count) % 3, batch, shuffle=True, seed=5)
    loader.classes = ["a", "b", "c"]
    return loader


def unknown(count=11, batch=4):
    """A loader that cannot make a part of a batch."""
    return mx.io.NDArrayIter(np.arange(count, dtype="float32").reshape(-1, 1), np.arange(count) % 3, batch)


MAKERS = {"arrays": arrays, "any iterator": unknown, "other names": lambda: by_names(arrays(), ["c", "b", "a"]),
          "wrapped": lambda: by_names(_Wrapped(arrays()), ["c", "b", "a"])}


class _Wrapped:
    """A loader without `renumbered`."""

    def __init__(self, loader):
        self.loader, self.classes, self.batch_size, self.labels = loader, loader.classes, loader.batch_size, \
            loader.labels

    def __iter__(self):
        return iter(self.loader)

    def __len__(self):
        return len(self.loader)


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
@pytest.mark.parametrize("kind", MAKERS)
def test_every_image_comes_once_over_all_workers(kind, workers):
    whole = [batch.trimmed() for batch in batches(MAKERS[kind]())]
    found = [list(shares(MAKERS[kind](), Part(rank, workers))) for rank in range(workers)]
    for number, batch in enumerate(whole):
        parts = [of_worker[number] for of_worker in found]
        assert {part.images for part in parts} == {batch.valid}
        counts = [part.batch.valid for part in parts]
        assert sum(counts) == batch.valid and max(counts) - min(counts) <= 1
        for name in ("data", "label"):
            together = np.concatenate([getattr(part.batch, name).asnumpy()[:part.batch.valid] for part in parts])
            np.testing.assert_array_equal(together, getattr(batch, name).asnumpy())
        assert all(len(part.batch.label) for part in parts)
    assert {len(of_worker) for of_worker in found} == {len(whole)}
    evaluated = [list(every_image(MAKERS[kind](), part=Part(rank, workers))) for rank in range(workers)]
    assert sum(batch.valid for of_worker in evaluated for batch in of_worker) == 11


def test_one_process_gets_whole_batches_and_a_later_start():
    assert [share.images for share in shares(arrays(), None)] == [4, 4, 3]
    assert [(share.batch.valid, share.images) for share in shares(arrays(), Part(1, 2), 2)] == [(2, 3)]


def test_a_worker_reads_its_own_images_only(tmp_path):
    source = scan(photos.make(tmp_path / "photos", count=5))
    read = []
    plain = source.image

    def noted(position, *others):
        read.append(position)
        return plain(position, *others)

    source.image = noted
    loader = make_loader(source, preprocessing=Preprocessing(size=32, resize=36), train=True, batch_size=4, workers=2)
    read_by = []
    for rank in range(3):
        read.clear()
        loader.epoch = 0
        list(shares(loader, Part(rank, 3)))
        read_by.append(sorted(read))
    images = len(source)
    counts = np.bincount(np.concatenate(read_by), minlength=images)
    assert counts.min() == 1 and max(map(len, read_by)) < images / 2
    list(loader)  # the part was for one pass
    assert loader.worker_part is None
