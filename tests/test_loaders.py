"""Loaders: every source, each image once, the same batches whatever the workers, errors, and threads that end."""
from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import mxnet as mx
import numpy as np
import pytest

from gluon_ft.data import images, lists, loader_records, loader_workers, loaders, records
from gluon_ft.data.augment import Augmentation
from gluon_ft.data.batches import Batch
from gluon_ft.data.preprocessing import Preprocessing
from gluon_ft.errors import ConfigError, DataError

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


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture(scope="module")
def packed(folder):
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
    return loaders.open(source, preprocessing=preprocessing, train=train, batch_size=batch_size, **options)


def rows(loader):
    """data and labels of one pass, without padding."""
    batches = [batch.trimmed() for batch in loader]
    assert all(isinstance(b, Batch) for b in batches) and len(batches) == len(loader)
    return (np.concatenate([b.data.asnumpy() for b in batches]), np.concatenate([b.label.asnumpy() for b in batches]))


def own_threads():
    return [t for t in threading.enumerate() if t.name.startswith(loader_workers.NAME)]


# Sources

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
    with pytest.raises(DataError, match="class 'cat' is not expected; expected 2 classes: ant, cow; found 2 classes: "
                                        "ant, cat; did you mean ant"):
        opened(tmp_path / "val", classes=["ant", "cow"])


# Against ImageRecordIter and ImageRecordDataset

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


# Seeds

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


# Memory, reduced decoding

def test_the_cache_is_bounded_and_decodes_once(folder, monkeypatch):
    decoded = []
    decode = loader_records.decode
    monkeypatch.setattr("gluon_ft.data.loader_sources.decode", lambda *args: decoded.append(1) or decode(*args))
    loader = opened(folder, cache="memory", workers=2)
    first, second = rows(loader)[0], rows(loader)[0]
    np.testing.assert_array_equal(first, second)
    assert len(decoded) == 21 and len(loader.memory) == 21 and loader.memory.bytes == 21 * 32 * 32 * 3
    decoded.clear()
    short = opened(folder, cache="memory", cache_bytes=5 * 32 * 32 * 3, workers=0)
    np.testing.assert_array_equal(rows(short)[0], first)
    np.testing.assert_array_equal(rows(short)[0], first)
    assert len(short.memory) == 5 and len(decoded) == 21 + 16 and short.memory.bytes <= 5 * 32 * 32 * 3


def test_large_jpegs_are_decoded_at_reduced_scale(tmp_path, monkeypatch):
    make_folder(tmp_path / "large", per_class=1, suffix=".jpg", sides=(700, 900))
    seen = []
    prepare = loaders.Transform.prepare
    monkeypatch.setattr(loaders.Transform, "prepare", lambda self, image: seen.append(image.shape) or
                        prepare(self, image))
    reduced = rows(opened(tmp_path / "large"))[0]
    assert len(seen) == 3 and all(80 <= min(shape[:2]) < 160 for shape in seen)
    seen.clear()
    exact = rows(opened(tmp_path / "large", exact_decoding=True))[0]
    assert all(min(shape[:2]) >= 700 for shape in seen)
    assert 0 < np.abs(reduced - exact).mean() < 4
    seen.clear()
    rows(opened(tmp_path / "large", True))
    # The smallest part of 0.08 of the area must still have 32 pixels.
    assert all(131 <= min(shape[:2]) < 262 for shape in seen)


# Ends

def broken(tmp_path):
    folder = make_folder(tmp_path / "broken", per_class=4, suffix=".jpg")
    bad = folder / "bee" / "02.jpg"
    bad.write_bytes(bad.read_bytes()[:-200])
    return folder, bad


@pytest.mark.parametrize("workers", [0, 2])
def test_an_undecodable_image_is_named_and_the_threads_end(tmp_path, workers):
    folder, bad = broken(tmp_path)
    for train in (False, True):
        with pytest.raises(DataError) as caught:
            rows(opened(folder, train, batch_size=3, workers=workers))
        assert str(caught.value).startswith(f"{bad}: image cannot be used: damaged or truncated")
        assert str(caught.value).endswith("mend it, or remove it from the data")
        del caught
        assert not own_threads()


@pytest.mark.parametrize("engine", ["threads", "dataset"])
def test_an_undecodable_record_is_named(tmp_path, engine):
    writer = mx.recordio.MXIndexedRecordIO(str(tmp_path / "a.idx"), str(tmp_path / "a.rec"), "w")
    good = cv2.imencode(".png", np.zeros((50, 50, 3), np.uint8))[1].tobytes()
    for i in range(5):
        writer.write_idx(i, mx.recordio.pack(mx.recordio.IRHeader(0, i % 2, i, 0), good if i != 3 else b"no image"))
    writer.close()
    with pytest.raises(DataError, match=r"a.rec: record 3 at byte \d+: image cannot be used: "):
        rows(opened(tmp_path / "a.rec", engine=engine))
    # With `resize`, ImageRecordIter itself would end the process here.
    with pytest.raises(DataError, match=r"a.rec: record 3 at byte \d+: image cannot be used: .*mend it"):
        rows(opened(tmp_path / "a.rec", engine="native"))
    with pytest.raises(DataError, match=r"a.rec: ImageRecordIter failed: "):
        rows(opened(tmp_path / "a.rec", engine="native", preprocessing=Preprocessing(size=32, resize=None)))


def test_stopping_midway_ends_the_threads_and_wastes_little(folder, monkeypatch):
    loader = opened(folder, True, batch_size=2, workers=2, ahead=1)
    for batch in loader:
        assert batch.valid == 2 and len(own_threads()) == 2
        break
    assert not own_threads()
    iterator = iter(loader)
    next(iterator)
    iterator.close()
    assert not own_threads()
    assert loader.epoch == 2 and len(rows(loader)[0]) == 21


def test_reading_ahead_is_bounded_and_overlaps():
    filled, lock = [], threading.Lock()

    def fill(position, out):
        with lock:
            filled.append(position)
        out[:] = position

    batches = [np.arange(i, i + 2) for i in range(0, 40, 2)]
    iterator = loader_workers.filled(batches, (3,), fill, 2, 3)
    for i in range(6):
        positions, data = next(iterator)
        assert positions.tolist() == [2 * i, 2 * i + 1] and data.tolist() == [[2 * i] * 3, [2 * i + 1] * 3]
        assert data.ctypes.data % 64 == 0
        deadline = time.time() + 10
        while len(filled) < 2 * (i + 4) and time.time() < deadline:
            time.sleep(0.001)
        # This batch and three more, made while the consumer has this one.
        assert sorted(filled) == list(range(2 * (i + 4)))
    iterator.close()
    assert len(filled) == 18 and not own_threads()


def test_batches_outlive_the_loader(folder):
    batches = list(opened(folder, batch_size=1))
    again = list(opened(folder, batch_size=1))
    assert all(np.array_equal(a.data.asnumpy(), b.data.asnumpy()) for a, b in zip(batches, again))


def test_an_iterator_left_open_does_not_keep_the_interpreter(folder):
    code = ("import sys, gluon_ft\nfrom gluon_ft.data import loaders\nfrom gluon_ft.data.preprocessing import "
            "Preprocessing\nloader = loaders.open(sys.argv[1], preprocessing=Preprocessing(size=32, resize=40), "
            "train=True, batch_size=2, workers=2)\niterator = iter(loader)\nprint(next(iterator).valid)\n")
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, timeout=60,
                          check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "2\n", "")


# Errors

def test_sources_that_are_none(tmp_path, folder, packed):
    def line(source, **options):
        with pytest.raises((DataError, ConfigError)) as caught:
            opened(source, **options)
        return str(caught.value)

    assert "no such file or folder; expected a folder of classes, a .lst, a .rec, two IDX" in line(tmp_path / "no.rec")
    (tmp_path / "a.txt").write_text("x")
    assert f"{tmp_path / 'a.txt'}: not a source of images" in line(tmp_path / "a.txt")
    assert "not a source of images; expected a folder of classes" in line(3)
    (tmp_path / "empty").mkdir()
    assert "no classes" in line(tmp_path / "empty")
    (tmp_path / "none.rec").write_bytes(b"")
    assert "no images; expected at least one; found an empty set" in line(tmp_path / "none.rec")
    assert "root is for the paths of a .lst" in line(folder, root=folder)
    lst = packed.with_suffix(".lst")
    assert "21 of the 21 images of the list are missing; expected them in " in line(lst)
    assert "other classes than expected; expected 2 classes: ant, bee; found 3 classes: ant, bee, cat; take" in \
        line(packed, classes=["ant", "bee"])
    assert "other classes than expected; expected 3 classes: bee, ant, cat; found 3" in \
        line(packed, classes=["bee", "ant", "cat"])
    assert line(lst, root=folder, classes=["a", "b"]).startswith(f"{lst}: other classes than expected")


def test_labels_that_do_not_fit(folder):
    pixels = np.zeros((4, 40, 40, 3), np.uint8)

    def line(labels, **options):
        with pytest.raises(DataError) as caught:
            opened((pixels, labels), **options)
        return str(caught.value)

    assert line([0, 0, 0, 0]) == "arrays: one class only; expected two or more, each once; found 1 classes: 0"
    assert "images of one class only; expected two or more to train on; found 'bee'" in \
        line([1, 1, 1, 1], train=True, classes=CLASSES)
    assert line([0, 1, 3, 4], classes=CLASSES) == (
        "arrays: 2 labels outside the classes; expected 0 to 2: 3 classes: ant, bee, cat; found 3; the first is "
        "image 2; name every class, or correct the labels")
    assert "labels outside the classes" in line([0, 1, -1, 2])
    assert "labels outside the classes" in line([0, 1, 10 ** 12, 2])
    assert "bad class names; expected two or more, each once; found 2 classes: a, a" in \
        line([0, 1, 0, 1], classes=["a", "a"])
    assert "labels are not classes; expected whole numbers" in line([0, 1.5, 0, 1])
    assert "labels are not classes" in line([0, float("nan"), 0, 1])
    assert "images and labels differ in number; expected 4 labels; found 2" in line([0, 1])
    with pytest.raises(DataError, match=r"not images; expected uint8 .*give arrays that are ready for the network to"):
        opened((np.zeros((2, 5, 5), np.float32), [0, 1]))


def test_records_whose_index_or_manifest_does_not_fit(packed, tmp_path):
    rec = copied(packed, tmp_path, ".rec", ".idx")
    index = rec.with_suffix(".idx").read_bytes().splitlines(keepends=True)
    for lines, found in ((index[:-1], "none"), (index[:3] + index[4:], "the next at byte"), (index + index[:1], "")):
        rec.with_suffix(".idx").write_bytes(b"".join(lines))
        with pytest.raises(DataError, match=f"copy.idx: the index does not fit the records; .*{found}.*; pack again"):
            opened(rec)
    rec.with_suffix(".idx").unlink()
    rec.write_bytes(packed.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"copy.rec: damaged: record 20 at byte .*see all of it with gluon-ft verify"):
        opened(rec)
    rec.write_bytes(packed.read_bytes()[:int(index[5].split()[1])])
    rec.with_suffix(".manifest.json").write_bytes(packed.with_suffix(".manifest.json").read_bytes())
    with pytest.raises(DataError, match=r"manifest of other records; expected 5 records as in copy\.rec; found 21"):
        opened(rec)


@pytest.mark.parametrize(("options", "line"), [
    ({"batch_size": 0}, "batch_size out of range; expected a whole number from 1 to 1048576; found 0"),
    ({"seed": -1}, "seed out of range; expected a whole number from 0 to 4294967295; found -1"),
    ({"workers": 1.5}, "workers out of range; expected a whole number from 0 to 256; found 1.5"),
    ({"engine": "nativ"}, "no engine 'nativ'; did you mean native?"),
    ({"cache": "disk"}, "no cache 'disk'; expected 'memory' or None"),
    ({"augment": "gluon"}, "augmentation is for training; expected augment=None with train=False; found gluon"),
    ({"train": True, "augment": "glun"}, "no augmentation 'glun'; did you mean gluon?"),
    ({"train": True, "augment": {"hues": 1}}, "unknown augmentation setting 'hues'; did you mean hue?"),
    ({"train": 1}, "train is true or false; found 1"),
    ({"preprocessing": None}, "preprocessing is not a Preprocessing; found NoneType"),
])
def test_options_out_of_range(folder, options, line):
    with pytest.raises(ConfigError) as caught:
        opened(folder, **options)
    assert str(caught.value) == line


def test_threads_decode_every_kind_of_image(tmp_path):
    """PNG, 16 bits, palette and grey through Pillow and OpenCV at once give what one thread gives."""
    from PIL import Image

    folder = make_folder(tmp_path / "mixed", per_class=6, suffix=".jpg")
    Image.fromarray(np.full((50, 50), 40000, np.uint16)).save(folder / "ant" / "deep.png")
    Image.new("P", (50, 50), 3).save(folder / "bee" / "palette.gif")
    Image.new("L", (50, 50), 90).save(folder / "cat" / "grey.jpg")
    limit = images.Image.MAX_IMAGE_PIXELS
    one = rows(opened(folder, workers=0))[0]
    for _ in range(3):
        np.testing.assert_array_equal(rows(opened(folder, workers=4))[0], one)
    assert limit == images.Image.MAX_IMAGE_PIXELS


# Real data: split -> pack -> verify -> audit -> one epoch through each engine
