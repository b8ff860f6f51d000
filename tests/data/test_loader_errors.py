"""Loaders name what is wrong: undecodable images, sources, labels, indexes and options."""
from __future__ import annotations

import cv2
import mxnet as mx
import numpy as np
import pytest
from loader_images import (  # noqa: F401  (fixtures)
    CLASSES,
    RAW,
    copied,
    folder_fixture,
    make_folder,
    opened,
    own_threads,
    pack,
    packed_fixture,
    rows,
)

from gluon_ft import loaders
from gluon_ft.data.images.preprocessing import Preprocessing
from gluon_ft.errors import ConfigError, DataError


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
    assert "class 'cat' is none of those expected; expected 2 classes: ant, bee; found 3 classes: ant, bee, cat" in \
        line(packed, classes=["ant", "bee"])
    assert line(lst, root=folder, classes=["a", "b"]).startswith(f"{lst}: class 'ant' is none of those expected")


def test_labels_that_do_not_fit(folder):
    pixels = np.zeros((4, 40, 40, 3), np.uint8)

    def line(labels, **options):
        with pytest.raises(DataError) as caught:
            opened((pixels, labels), **options)
        return str(caught.value)

    assert line([0, 0, 0, 0], train=True) == ("arrays: one class only; expected two or more, each once; found 1 class: "
                                              "0")
    assert "images of one class only; expected two or more to train on; found 'bee'" in \
        line([1, 1, 1, 1], train=True, classes=CLASSES)
    assert line([0, 1, 3, 4], classes=CLASSES) == (
        "arrays: 2 labels outside the classes; expected 0 to 2: 3 classes: ant, bee, cat; found 3; the first is "
        "image 2; name every class, or correct the labels")
    assert "labels outside the classes" in line([0, 1, -1, 2])
    assert "labels outside the classes" in line([0, 1, 10 ** 12, 2])
    assert "bad class names; expected two or more, each once; found 2 classes: a, a" in \
        line([0, 1, 0, 1], classes=["a", "a"])
    assert "1 labels are not class numbers; expected whole numbers" in line([0, 1.5, 0, 1])
    assert "1 labels are not class numbers" in line([0, float("nan"), 0, 1])
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


def test_the_earlier_name_still_works_and_says_the_new_one(folder):
    with pytest.warns(DeprecationWarning, match=r"loaders\.open is now called gluon_ft\.loaders\.make_loader"):
        loader = loaders.open(folder, preprocessing=RAW, train=False, batch_size=4)
    np.testing.assert_array_equal(rows(loader)[0], rows(opened(folder))[0])
