"""Several sources of one part: every image of each, labels by name, shards complete or refused."""
from __future__ import annotations

import os

import numpy as np
import photos
import pytest

from gluon_ft.data import split
from gluon_ft.data.images.preprocessing import Preprocessing
from gluon_ft.data.loader import make_loader
from gluon_ft.data.records import pack
from gluon_ft.data.sources import joined
from gluon_ft.data.sources.opening import open_source
from gluon_ft.errors import ConfigError, DataError
from gluon_ft.finetune import job_data
from gluon_ft.finetune.settings import JobSettings


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """12 images of three classes as lists, in 3 shards and whole."""
    folder = tmp_path_factory.mktemp("packed")
    root = photos.make(folder / "p", count=8)
    split.write(split.split(root, fraction=0.5), folder / "set")
    for part in ("train", "val"):
        pack.pack(folder / f"set-{part}.lst", root, folder / part)
    (folder / "shards").mkdir()
    pack.pack(folder / "set-train.lst", root, folder / "shards" / "s", shards=3)
    return folder


def job(packed, train):
    return job_data.find(JobSettings(train=train, val=str(packed / "val.rec")))[0]


@pytest.mark.parametrize("named", [
    lambda p: ";".join(str(p / "shards" / f"s_{i}.rec") for i in range(3)), lambda p: str(p / "shards" / "s_*.rec"),
    lambda p: str(p / "shards" / "s_?.rec"), lambda p: str(p / "shards"), lambda p: f"{p}/shards/s_[01].rec;"
    f"{p}/shards/s_2.rec"])
def test_shards_together_are_the_whole(packed, named):
    whole, found = job(packed, str(packed / "train.rec")), job(packed, named(packed))
    assert len(found) == len(whole) == 12 and found.class_names == whole.class_names
    assert [found.read(i) for i in range(12)] == [whole.read(i) for i in range(12)]
    assert found.labels.tolist() == whole.labels.tolist() and found.identity() == whole.identity()
    how = Preprocessing(size=32, resize=36)
    batches = [[batch.data.asnumpy() for batch in make_loader(source, preprocessing=how, train=False, batch_size=5)]
               for source in (named(packed), packed / "train.rec")]
    assert all(np.array_equal(a, b) for a, b in zip(*batches)) and sum(map(len, batches[0])) == 12


@pytest.mark.parametrize("numbers, wording", [
    ((0,), r"s_0\.rec: shard 0 of 3 \(counted from 0\), without the others; expected all 3; found no 1, 2; give all of "
           r"them, such as '.*s_\*\.rec', or pack into one file"),
    ((2, 0), r"shard \d of 3 .*; found no 1;")])
def test_some_shards_alone_are_refused(packed, numbers, wording):
    with pytest.raises(DataError, match=wording):
        job(packed, ";".join(str(packed / "shards" / f"s_{i}.rec") for i in numbers))


def test_lists_and_folders_are_joined_by_class_name(tmp_path):
    one = photos.make(tmp_path / "one", ("red", "blue"), 2)
    two = photos.make(tmp_path / "deep" / "two", ("green", "red"), 3, seed=1)
    found = open_source([one, two])
    assert found.class_names == ["blue", "green", "red"] and len(found) == 10
    assert {found.image_name(i).split("/")[-2] for i in range(10)} == {"red", "blue", "green"}
    assert all(f"/{found.label_name(i)}/" in found.where(i) and os.path.isfile(found.where(i)) for i in range(10))
    (one / "x.csv").write_text("image,label\nred/00.png,red\n")
    (two / "y.txt").write_text("green/00.png green\nred/01.png red\n")
    both = open_source(f"{one}/x.csv;{two}/y.txt")
    assert both.class_names == ["green", "red"] and both.labels.tolist() == [1, 0, 1]
    data = job_data.prepare(JobSettings(train=f"{one};{two}", audit="report"))
    assert sum(map(len, data.parts.values())) == 10 and data.class_names == found.class_names


def test_a_run_goes_on_with_joined_records(packed, tmp_path):
    data = job_data.prepare(JobSettings(train=str(packed / "shards"), val=str(packed / "val.rec")))
    job_data.write(data, tmp_path)
    again = job_data.reopen(tmp_path)
    assert [len(part) for part in again.parts.values()] == [12, 12]
    assert again.parts["train"].identity() == data.parts["train"].identity()
    assert job_data.resolved(str(packed / "shards" / "s_*.rec")).count(";") == 2


@pytest.mark.parametrize("named, wording", [
    ("{p}/train.rec;{p}/train.rec", "train.rec: given twice; expected each source once"),
    ("{p}/nothing_*.rec", "no file fits this pattern"),
    ("{p}/train.rec;{p}/p", "sources of two kinds in one part; .*pack the files as well"),
    ("{p}/train.rec;{p}/none.rec", "none.rec: no such file or folder"),
])
def test_what_cannot_be_joined_is_said(packed, named, wording):
    with pytest.raises(DataError, match=wording):
        job(packed, named.format(p=packed))


def test_names_decide_where_only_some_are_known(packed, tmp_path):
    bare = tmp_path / "bare.rec"
    bare.write_bytes((packed / "train.rec").read_bytes())
    with pytest.raises(DataError, match=r"bare\.rec: class names are not known here, and elsewhere they are"):
        open_source([packed / "val.rec", bare])
    with pytest.raises(ConfigError, match="engine 'native' reads one file of records"):
        make_loader(packed / "shards", preprocessing=Preprocessing(size=32), train=False, batch_size=4, engine="native",
                    cache=None)


def test_what_exists_is_one_path_whatever_its_name(tmp_path):
    odd = tmp_path / "a;b[1]*.csv"
    odd.write_text("image,label\nx.jpg,0\n")
    assert joined.paths_of(odd) == [odd]
    for name in ("s_10.rec", "s_9.rec"):
        (tmp_path / name).touch()
    assert [path.name for path in joined.paths_of(str(tmp_path / "s_*.rec"))] == ["s_9.rec", "s_10.rec"]
