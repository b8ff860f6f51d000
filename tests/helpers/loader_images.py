"""Small images in a folder and packed, and loaders of them, for the tests of loaders."""
from __future__ import annotations

import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from gluon_ft.data import lists, workers
from gluon_ft.data import loader as loaders
from gluon_ft.data.batches import Batch
from gluon_ft.data.images.preprocessing import Preprocessing
from gluon_ft.data.records import pack as records

RAW = Preprocessing(mean=(0, 0, 0), std=(1, 1, 1), scale=1, size=32, resize=40)
GREY = Preprocessing(mean=(0,), std=(1,), scale=1, size=28, resize=None, channel_order="gray")
CLASSES = ["ant", "bee", "cat"]


def make_folder(root: Path, per_class=7, suffix=".png", classes=CLASSES, sides=(40, 61)) -> Path:
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(per_class):
            rng = np.random.RandomState((label, i))
            size = (rng.randint(*sides), rng.randint(*sides))
            small = rng.randint(0, 256, (6, 6, 3), dtype=np.uint8)
            cv2.imwrite(str(root / name / f"{i:02d}{suffix}"), cv2.resize(small, size))
    return root


def pack(folder) -> Path:
    """All images of `folder` as PNG records, shorter edge 40, in the folder's order."""
    prefix = folder.parent / "all"
    names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*.png"))
    entries = [lists.Entry(i, (float(i // 7),), name) for i, name in enumerate(names)]
    lists.write(f"{prefix}.lst", entries)
    Path(f"{prefix}.classes.txt").write_bytes(lists.classes_to_bytes(CLASSES))
    records.pack(f"{prefix}.lst", folder, resize=40, encoding=".png")
    return Path(f"{prefix}.rec")


def copied(packed, target, *suffixes):
    for suffix in suffixes:
        (target / f"copy{suffix}").write_bytes(Path(f"{str(packed)[:-4]}{suffix}").read_bytes())
    return target / "copy.rec"


def opened(source, train=False, batch_size=4, preprocessing=RAW, **options):
    return loaders.make_loader(source, preprocessing=preprocessing, train=train, batch_size=batch_size, **options)


def rows(loader):
    """data and labels of one pass, without padding."""
    batches = [batch.trimmed() for batch in loader]
    assert all(isinstance(b, Batch) for b in batches) and len(batches) == len(loader)
    return (np.concatenate([b.data.asnumpy() for b in batches]), np.concatenate([b.label.asnumpy() for b in batches]))


def own_threads():
    return [t for t in threading.enumerate() if t.name.startswith(workers.NAME)]


@pytest.fixture(scope="module", name="folder")
def folder_fixture(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture(scope="module", name="packed")
def packed_fixture(folder):
    return pack(folder)
