"""pack: records that MXNet reads, their manifest, shards, encodings, and those of im2rec."""
from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest
from conftest import ROOT, shared_data
from record_files import make, run, three_files, verified_pack

from gluon_ft.cli import console
from gluon_ft.cli import records as commands
from gluon_ft.data import lists
from gluon_ft.data.records import framing, inspect, manifest, pack, record_file, verify
from gluon_ft.errors import ConfigError, DataError


@pytest.fixture
def packed(tmp_path):
    return verified_pack(tmp_path)


def test_mxnet_reads_labels_and_images(packed):
    entries = lists.read(packed.with_suffix(".lst"))
    reader = mx.recordio.MXIndexedRecordIO(str(packed.with_suffix(".idx")), str(packed), "r")
    assert reader.keys == [e.index for e in entries]
    for entry in entries:
        header, image = mx.recordio.unpack_img(reader.read_idx(entry.index), 1)
        assert (header.label, header.id, header.flag) == (entry.label, entry.index, 0)
        assert image.shape == (24, 32, 3) and abs(float(np.median(image)) - (40 + 60 * entry.label)) < 3
    batches = mx.io.ImageRecordIter(path_imgrec=str(packed), data_shape=(3, 24, 24), batch_size=4,
                                    preprocess_threads=1)
    labels, medians = [], []
    for batch in batches:
        labels += batch.label[0].asnumpy().tolist()
        medians += np.median(batch.data[0].asnumpy(), axis=(1, 2, 3)).tolist()
    assert labels == [e.label for e in entries]
    assert np.allclose(medians, [40 + 60 * e.label for e in entries], atol=3)
    dataset = mx.gluon.data.vision.ImageRecordDataset(str(packed))
    assert len(dataset) == 12 and dataset[1][1] == 1 and dataset[1][0].shape == (24, 32, 3)


def test_manifest_says_what_is_inside(packed):
    read = manifest.read(record_file.beside(packed, ".manifest.json"))
    assert read.classes == ["class 0", "class 1", "class 2"] and read.counts == {0: 4, 1: 4, 2: 4}
    assert read.records == 12 and read.data["source"] == "images" and read.data["options"]["resize"] == 24
    assert read.data["sizes"]["source_width"] == {"min": 48, "median": 48, "max": 48}
    assert read.data["sizes"]["height"] == {"min": 24, "median": 24, "max": 24}
    assert read.rec_sha256 == hashlib.sha256(packed.read_bytes()).hexdigest()
    for i, entry in enumerate(lists.read(packed.with_suffix(".lst"))):
        source = hashlib.sha256((packed.parent / "images" / entry.path).read_bytes()).digest()[:16]
        assert read.source_hashes[16 * i:16 * i + 16] == source
    assert set(read.data["versions"]) == {"gluon_ft", "opencv", "pillow", "numpy", "python"}


def test_shards_are_consecutive_parts_of_the_one_file(tmp_path):
    lst, root = make(tmp_path, 14), tmp_path / "images"
    pack.pack(lst, root, tmp_path / "one")
    done = pack.pack(lst, root, tmp_path / "all", shards=3)
    assert [d.rec.name for d in done] == ["all_0.rec", "all_1.rec", "all_2.rec"]
    assert b"".join(d.rec.read_bytes() for d in done) == (tmp_path / "one.rec").read_bytes()
    for i in range(3):
        pack.pack(lst, root, tmp_path / "each", shards=3, shard=i)
        assert three_files(tmp_path / f"each_{i}") == three_files(tmp_path / f"all_{i}")
        assert verify.verify(tmp_path / f"each_{i}.rec").ok
    paths = ";".join(str(d.rec) for d in done)
    seen = []
    for part in range(2):
        for batch in mx.io.ImageRecordIter(path_imgrec=paths, data_shape=(3, 36, 36), batch_size=1, num_parts=2,
                                           part_index=part, preprocess_threads=1):
            seen += batch.label[0].asnumpy().tolist()
    assert seen == [e.label for e in lists.read(lst)]
    with pytest.raises(DataError, match=r"all_2\.rec: belongs to another number of shards; expected shards 0 to 1"):
        pack.pack(lst, root, tmp_path / "all", shards=2, force=True)
    with pytest.raises(ConfigError, match="more shards than images; expected at most 14; found 15"):
        pack.pack(lst, root, tmp_path / "x", shards=15)


def test_several_labels(tmp_path):
    make(tmp_path, 2)
    lst = tmp_path / "many.lst"
    lst.write_text("0\t1.5\t-2\tb 0.png\n1\t0\t7\tc 1.jpg\n")
    (done,) = pack.pack(lst, tmp_path / "images")
    reader = mx.recordio.MXRecordIO(str(done.rec), "r")
    assert mx.recordio.unpack(reader.read())[0].label.tolist() == [1.5, -2]
    assert verify.verify(done.rec).ok


def test_pass_through_and_encodings(tmp_path):
    lst, root = make(tmp_path), tmp_path / "images"
    (done,) = pack.pack(lst, root, tmp_path / "same", pass_through=True)
    with open(done.rec, "rb") as file:
        for entry, record in zip(lists.read(lst), framing.scan(file, done.bytes)):
            assert record.payload[24:] == (root / entry.path).read_bytes()
    (done,) = pack.pack(lst, root, tmp_path / "png", encoding=".png", color=0, center_crop=True)
    image = mx.recordio.unpack_img(mx.recordio.MXRecordIO(str(done.rec), "r").read())[1]
    assert image.shape == (36, 36)


def test_lists_and_classes_of_a_prefix(tmp_path):
    for name in ("a.lst", "a-train.lst", "a-val.lst", "a_1.lst", "ab.lst", "a.b-train.lst"):
        (tmp_path / name).touch()
    assert [p.name for p in lists.find_lists(tmp_path / "a")] == ["a.lst", "a-train.lst", "a-val.lst", "a_1.lst"]
    assert [p.name for p in lists.find_lists(tmp_path / "a.b")] == ["a.b-train.lst"]
    assert [p.name for p in lists.find_lists(tmp_path / "x.lst")] == ["x.lst"]
    with pytest.raises(DataError, match=r"zz\.lst: no list; expected it, or .*zz-train\.lst and the like; write lists"):
        lists.find_lists(tmp_path / "zz")
    (tmp_path / "a.classes.txt").write_text("one\ntwo\n")
    (tmp_path / "a-b.classes.txt").write_text("three\nfour\n")
    assert lists.find_class_names(tmp_path / "a-train.lst") == ["one", "two"]
    assert lists.find_class_names(tmp_path / "a-b-fold0-train.lst") == ["three", "four"]
    assert lists.find_class_names(tmp_path / "ab.lst") is None


def im2rec(*args):
    """MXNet's own tools/im2rec.py; in a process of its own, because it only closes its file by ending."""
    tool = Path(mx.__file__).parent / "tools" / "im2rec.py"
    code = f"import gluon_ft, runpy; runpy.run_path({str(tool)!r}, run_name='__main__')"
    subprocess.run([sys.executable, "-c", code, *map(str, args)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def test_records_of_im2rec_pass_and_have_the_same_pixels(tmp_path):
    lst, root = make(tmp_path), tmp_path / "images"
    im2rec(tmp_path / "set-train", root, "--resize", "24", "--quality", "90")
    theirs = (tmp_path / "set-train.rec").read_bytes()
    report = verify.verify(tmp_path / "set-train.rec", classes=3)
    assert report.ok and report.records == 12 and report.index and not report.manifest
    (done,) = pack.pack(lst, root, tmp_path / "ours", resize=24, quality=90)
    assert done.rec.read_bytes() == theirs  # shrunk by 1.5: bilinear, as in im2rec
    assert (tmp_path / "ours.idx").read_bytes() == (tmp_path / "set-train.idx").read_bytes()
    (tmp_path / "set-train.idx").unlink()
    assert verify.verify(tmp_path / "set-train.rec").ok


def test_real_photos_from_list_to_batches(tmp_path):
    root = shared_data("caltech256")
    folders = sorted(p for p in root.iterdir() if p.is_dir())[:4]
    files = [(path, i) for i, folder in enumerate(folders) for path in sorted(folder.iterdir())[:10]]
    lists.write(tmp_path / "real-train.lst", [lists.Entry(i, (float(label),), str(path.relative_to(root)))
                                              for i, (path, label) in enumerate(files)])
    (tmp_path / "real.classes.txt").write_text("".join(f"{folder.name}\n" for folder in folders))
    done = run(commands.pack, tmp_path / "real", root, "--resize", "256", "--quality", "90", "--workers", "2")
    assert done.returncode == 0, done.stderr
    rec = tmp_path / "real-train.rec"
    report = verify.verify(rec, workers=2)
    assert report.ok and report.records == 40 and report.labels == {0: 10, 1: 10, 2: 10, 3: 10}
    assert [row["class"] for row in inspect.inspect(rec).rows] == [folder.name for folder in folders]
    count = 0
    for batch in mx.io.ImageRecordIter(path_imgrec=str(rec), data_shape=(3, 224, 224), batch_size=10,
                                       preprocess_threads=1, rand_crop=True, rand_mirror=True, shuffle=True):
        assert batch.data[0].shape == (10, 3, 224, 224)
        count += 10 - batch.pad
    assert count == 40


def test_tool_is_the_command(tmp_path):
    make(tmp_path, 4)
    done = subprocess.run([sys.executable, "tools/pack.py", str(tmp_path / "set"), str(tmp_path / "images")], cwd=ROOT,
                          capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0 and "4 images" in done.stdout, done.stderr
    assert console.EXIT_USER_ERROR == 2
