"""pack, verify and inspect: whole, the same whatever the workers, read by MXNet, and never half-written."""
from __future__ import annotations

import contextlib
import hashlib
import io
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import shared_data
from PIL import Image

from gluon_ft import console
from gluon_ft.commands import records as commands
from gluon_ft.data import lists, manifest, recfile, recinspect, records, recpool, recverify
from gluon_ft.errors import ConfigError, DataError

ROOT = Path(__file__).resolve().parents[1]


def make(folder: Path, number=12, classes=3, size=(48, 36)) -> Path:
    """`number` images of `classes` flat colours with a little pattern, a list and class names; returns the list."""
    root = folder / "images"
    root.mkdir(parents=True)
    entries = []
    for i in range(number):
        array = np.full((size[1], size[0], 3), 40 + 60 * (i % classes), np.uint8)
        array[: 5 + i % 7, : 3 + i % 11] = i * 7 % 256
        name = f"{'bcd'[i % 3]} {i}.{'jpg' if i % 2 else 'png'}"
        Image.fromarray(array).save(root / name, quality=95)
        entries.append(lists.Entry(100 + i, (float(i % classes),), name))
    lists.write(folder / "set-train.lst", entries)
    (folder / "set.classes.txt").write_text("".join(f"class {i}\n" for i in range(classes)))
    return folder / "set-train.lst"


def three_files(prefix) -> dict[str, bytes]:
    return {kind: Path(f"{prefix}{kind}").read_bytes() for kind in (".rec", ".idx", ".manifest.json")}


def hidden(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name.startswith("."))


@pytest.fixture
def packed(tmp_path):
    """A verified pack of 12 images: its .rec."""
    lst = make(tmp_path)
    (done,) = records.pack(lst, tmp_path / "images", resize=24)
    assert recverify.verify(done.rec).ok
    return done.rec


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


def test_same_bytes_whatever_the_number_of_workers(tmp_path):
    lst = make(tmp_path, 30)
    made = []
    for workers in (1, 2, 3):
        (done,) = records.pack(lst, tmp_path / "images", tmp_path / f"w{workers}", resize=16, workers=workers)
        assert done.records == 30
        made.append(three_files(tmp_path / f"w{workers}"))
    assert made[0] == made[1] == made[2]
    assert hidden(tmp_path) == []


def _double(value):
    return 2 * value


@pytest.mark.slow
def test_spawned_workers_give_the_same():
    assert list(recpool.ordered(_double, range(20), workers=2, start_method="spawn")) == list(range(0, 40, 2))


def test_few_tasks_are_taken_ahead():
    taken = []

    def tasks():
        for i in range(200):
            taken.append(i)
            yield i

    for done, _ in enumerate(recpool.ordered(_double, tasks(), workers=2)):
        assert len(taken) <= done + 10
    heavy = recpool.ordered(_double, (taken.append(i) or i for i in range(200, 260)), workers=2,
                            weight=lambda task: recpool.MAX_WEIGHT)
    assert next(heavy) == 400 and taken[-1] <= 202
    heavy.close()


def _die(_):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_dies_is_an_error_and_not_a_hang():
    with pytest.raises(DataError, match="a worker process died; it may have run out of memory: try --workers 1"):
        list(recpool.ordered(_die, range(4), workers=2))


def test_manifest_says_what_is_inside(packed):
    read = manifest.read(recverify.beside(packed, ".manifest.json"))
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
    records.pack(lst, root, tmp_path / "one")
    done = records.pack(lst, root, tmp_path / "all", shards=3)
    assert [d.rec.name for d in done] == ["all_0.rec", "all_1.rec", "all_2.rec"]
    assert b"".join(d.rec.read_bytes() for d in done) == (tmp_path / "one.rec").read_bytes()
    for i in range(3):
        records.pack(lst, root, tmp_path / "each", shards=3, shard=i)
        assert three_files(tmp_path / f"each_{i}") == three_files(tmp_path / f"all_{i}")
        assert recverify.verify(tmp_path / f"each_{i}.rec").ok
    paths = ";".join(str(d.rec) for d in done)
    seen = []
    for part in range(2):
        for batch in mx.io.ImageRecordIter(path_imgrec=paths, data_shape=(3, 36, 36), batch_size=1, num_parts=2,
                                           part_index=part, preprocess_threads=1):
            seen += batch.label[0].asnumpy().tolist()
    assert seen == [e.label for e in lists.read(lst)]
    with pytest.raises(DataError, match=r"all_2\.rec: belongs to another number of shards; expected shards 0 to 1"):
        records.pack(lst, root, tmp_path / "all", shards=2, force=True)
    with pytest.raises(ConfigError, match="more shards than images; expected at most 14; found 15"):
        records.pack(lst, root, tmp_path / "x", shards=15)


def test_several_labels(tmp_path):
    make(tmp_path, 2)
    lst = tmp_path / "many.lst"
    lst.write_text("0\t1.5\t-2\tb 0.png\n1\t0\t7\tc 1.jpg\n")
    (done,) = records.pack(lst, tmp_path / "images")
    reader = mx.recordio.MXRecordIO(str(done.rec), "r")
    assert mx.recordio.unpack(reader.read())[0].label.tolist() == [1.5, -2]
    assert recverify.verify(done.rec).ok


def damage(tmp_path) -> Path:
    """A list of 12 images, four of them unusable."""
    lst = make(tmp_path)
    root = tmp_path / "images"
    (root / "b 0.png").write_bytes(b"")
    (root / "c 1.jpg").write_text("no image at all")
    (root / "d 2.png").unlink()
    data = (root / "b 3.jpg").read_bytes()
    (root / "b 3.jpg").write_bytes(data[:-20])
    return lst


def test_unreadable_images_are_all_listed_and_nothing_is_written(tmp_path):
    lst = damage(tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(records.UnreadableImages, match=r"set-train\.lst: 4 of 12 images cannot be read, the first is "
                       r"b 0\.png: empty file \(0 bytes\); all are listed in .*set-train\.unreadable\.txt") as error:
        records.pack(lst, tmp_path / "images", workers=2)
    assert [s.path for s in error.value.skipped] == ["b 0.png", "c 1.jpg", "d 2.png", "b 3.jpg"]
    assert [s.reason.split(":")[0] for s in error.value.skipped] == [
        "empty file (0 bytes)", "not an image (begins with b'no image at ')", "no such file", "damaged or truncated"]
    report = tmp_path / "set-train.unreadable.txt"
    assert len(report.read_text().splitlines()) == 4
    assert sorted(tmp_path.iterdir()) == sorted([*before, report])
    (done,) = records.pack(lst, tmp_path / "images", on_error="skip")
    assert done.records == 8 and [s.index for s in done.skipped] == [100, 101, 102, 103]
    assert recverify.verify(done.rec).ok and not report.exists()
    skipped = manifest.read(recverify.beside(done.rec, ".manifest.json")).data["skipped"]
    assert skipped[0] == {"index": 100, "path": "b 0.png", "reason": "empty file (0 bytes)"}


def test_command_lists_unreadable_images_and_exits_2(tmp_path):
    damage(tmp_path)
    done = run(commands.pack, tmp_path / "set", tmp_path / "images")
    assert done.returncode == 2 and "  d 2.png: no such file" in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    done = run(commands.pack, tmp_path / "set", tmp_path / "images", "--on-error", "skip", "--json")
    assert done.returncode == 0 and "wrote" in done.stdout
    assert json.loads(done.stdout.splitlines()[-1])["files"][0]["records"] == 8


def run(command, *args):
    """A command in this process, with its exit status."""
    class Done:
        pass
    result = CliRunner().invoke(command, [str(a) for a in args])
    done = Done()
    # Only click 8.2 and later keep the two streams apart without being asked.
    done.returncode, done.stdout, done.stderr = result.exit_code, result.stdout, result.output
    return done


def test_names_with_blanks_letters_of_the_world_and_250_characters(tmp_path):
    root = tmp_path / "pictures of mine"
    root.mkdir()
    names = ["a b  c.jpg", "größe 猫.jpg", "x" * 246 + ".jpg", "what's \"this\"; $HOME & more.jpg"]
    for i, name in enumerate(names):
        Image.new("RGB", (20, 20), (50 * i, 0, 0)).save(root / name)
    (tmp_path / "a.lst").write_text("".join(f"{i}\t{i}\t{name}\n" for i, name in enumerate(names)))
    (done,) = records.pack(tmp_path / "a.lst", root, workers=2)
    assert done.records == 4 and recverify.verify(done.rec).ok
    (tmp_path / "b.lst").write_text(f"0\t0\t{'y' * 300}.jpg\n")
    with pytest.raises(records.UnreadableImages, match="File name too long"):
        records.pack(tmp_path / "b.lst", root)


def test_options_are_checked(tmp_path):
    lst = make(tmp_path, 2)

    def refused(text, **options):
        with pytest.raises(ConfigError, match=text):
            records.pack(lst, tmp_path / "images", **options)

    refused("bad resize; expected pixels of the shorter edge, 1 to 16384, or 0; found -1", resize=-1)
    refused("bad quality; expected 1 to 100 for .jpg; found 101", quality=101)
    refused("bad quality; expected 0 to 9 for .png; found 95", quality=95, encoding=".png")
    refused("no encoding '.bmp'; expected .jpg or .png", encoding=".bmp")
    refused("bad color; expected 1", color=3)
    refused("bad number of workers; expected 1 to 256; found 0", workers=0)
    refused("bad shard; expected 0 to 1 of 2; found 2", shards=2, shard=2)
    refused("--pass-through stores the files as they are", pass_through=True, resize=20)
    with pytest.raises(DataError, match="no such folder"):
        records.pack(lst, tmp_path / "nowhere")
    (tmp_path / "set.classes.txt").write_text("one\ntwo\n")
    lst.write_text("0\t2\tb 0.png\n")
    with pytest.raises(DataError, match=r"lst:1: label out of range; expected 0 to 1, as there are 2 class names; "
                       "found 2"):
        records.pack(lst, tmp_path / "images")


def test_an_existing_target_is_kept_unless_forced(packed):
    before = three_files(packed.with_suffix(""))
    with pytest.raises(DataError, match=r"set-train\.rec: exists already; choose another name, or replace it with"):
        records.pack(packed.with_suffix(".lst"), packed.parent / "images")
    assert three_files(packed.with_suffix("")) == before
    records.pack(packed.with_suffix(".lst"), packed.parent / "images", resize=20, force=True)
    assert three_files(packed.with_suffix("")) != before and recverify.verify(packed).ok


def test_pass_through_and_encodings(tmp_path):
    lst, root = make(tmp_path), tmp_path / "images"
    (done,) = records.pack(lst, root, tmp_path / "same", pass_through=True)
    with open(done.rec, "rb") as file:
        for entry, record in zip(lists.read(lst), recfile.scan(file, done.bytes)):
            assert record.payload[24:] == (root / entry.path).read_bytes()
    (done,) = records.pack(lst, root, tmp_path / "png", encoding=".png", color=0, center_crop=True)
    image = mx.recordio.unpack_img(mx.recordio.MXRecordIO(str(done.rec), "r").read())[1]
    assert image.shape == (36, 36)


def test_lists_and_classes_of_a_prefix(tmp_path):
    for name in ("a.lst", "a-train.lst", "a-val.lst", "a_1.lst", "ab.lst", "a.b-train.lst"):
        (tmp_path / name).touch()
    assert [p.name for p in records.find_lists(tmp_path / "a")] == ["a.lst", "a-train.lst", "a-val.lst", "a_1.lst"]
    assert [p.name for p in records.find_lists(tmp_path / "a.b")] == ["a.b-train.lst"]
    assert [p.name for p in records.find_lists(tmp_path / "x.lst")] == ["x.lst"]
    with pytest.raises(DataError, match=r"zz\.lst: no list; expected it, or .*zz-train\.lst and the like; write lists"):
        records.find_lists(tmp_path / "zz")
    (tmp_path / "a.classes.txt").write_text("one\ntwo\n")
    (tmp_path / "a-b.classes.txt").write_text("three\nfour\n")
    assert records.find_classes(tmp_path / "a-train.lst") == ["one", "two"]
    assert records.find_classes(tmp_path / "a-b-fold0-train.lst") == ["three", "four"]
    assert records.find_classes(tmp_path / "ab.lst") is None


def im2rec(*args):
    """MXNet's own tools/im2rec.py; in a process of its own, because it only closes its file by ending."""
    tool = Path(mx.__file__).parent / "tools" / "im2rec.py"
    code = f"import gluon_ft, runpy; runpy.run_path({str(tool)!r}, run_name='__main__')"
    subprocess.run([sys.executable, "-c", code, *map(str, args)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def test_records_of_im2rec_pass_and_have_the_same_pixels(tmp_path):
    lst, root = make(tmp_path), tmp_path / "images"
    im2rec(tmp_path / "set-train", root, "--resize", "24", "--quality", "90")
    theirs = (tmp_path / "set-train.rec").read_bytes()
    report = recverify.verify(tmp_path / "set-train.rec", classes=3)
    assert report.ok and report.records == 12 and report.index and not report.manifest
    (done,) = records.pack(lst, root, tmp_path / "ours", resize=24, quality=90)
    assert done.rec.read_bytes() == theirs  # shrunk by 1.5: bilinear, as in im2rec
    assert (tmp_path / "ours.idx").read_bytes() == (tmp_path / "set-train.idx").read_bytes()
    (tmp_path / "set-train.idx").unlink()
    assert recverify.verify(tmp_path / "set-train.rec").ok


def offsets(rec):
    return list(recfile.read_index(rec.with_suffix(".idx"))[1])


def test_verify_names_the_damaged_record_and_its_byte(packed):
    data, begins = packed.read_bytes(), offsets(packed)

    def found(change, **options):
        broken = bytearray(data)
        change(broken)
        packed.write_bytes(bytes(broken))
        report = recverify.verify(packed, **options)
        assert not report.ok
        return report.damages[0]

    def set_byte(at, value):
        return lambda b: b.__setitem__(at, value)

    first = found(set_byte(begins[5] + 200, data[begins[5] + 200] ^ 255))
    assert (first.record, first.byte) == (5, begins[5])
    first = found(set_byte(begins[7], 0))
    assert (first.record, first.byte) == (6, begins[6]) and "no record begins" in first.reason
    first = found(set_byte(begins[4] + 12 + 3, 0x50))  # label 1 becomes a huge one
    assert (first.record, first.byte) == (4, begins[4]) and "out of range, expected 0 to 2" in first.reason
    first = found(lambda b: b.__setitem__(slice(begins[3] + 12, begins[3] + 16), np.float32("nan").tobytes()))
    assert str(first) == f"record 3 at byte {begins[3]}: label is nan"
    first = found(lambda b: b.__setitem__(slice(begins[2] + 8 + 24, begins[2] + 8 + 40), bytes(16)))
    assert first.record == 2 and "not an image" in first.reason
    first = found(lambda b: b.__delitem__(slice(begins[11] + 30, None)))
    assert (first.record, first.byte) == (11, begins[11]) and "the file ends" in first.reason
    packed.write_bytes(b"")
    assert str(recverify.verify(packed).damages[0]) == "file at byte 0: no records: the file is empty"


def test_a_cut_anywhere_is_found(packed):
    data, begins = packed.read_bytes(), offsets(packed)
    for cut in [*range(0, len(data), max(1, len(data) // 60)), *begins, len(data) - 1]:
        packed.write_bytes(data[:cut])
        report = recverify.verify(packed)
        assert not report.ok, cut
        if cut not in begins:
            at = max(o for o in begins if o < cut)
            assert (begins.index(at), at) in [(d.record, d.byte) for d in report.damages], cut


def test_index_and_manifest_must_agree(packed):
    idx, about = packed.with_suffix(".idx"), recverify.beside(packed, ".manifest.json")
    whole, text = idx.read_text(), about.read_text()
    idx.write_text(whole.replace("105\t", "105\t1"))
    report = recverify.verify(packed)
    assert report.damages[0].record == 5 and "the index has it at byte" in report.damages[0].reason
    idx.write_text(whole.split("111")[0])
    assert any("12 records, and the index has 11" in d.reason for d in recverify.verify(packed).damages)
    idx.write_text("nonsense")
    assert "bad line" in recverify.verify(packed).damages[0].reason
    idx.unlink()
    assert [d.reason for d in recverify.verify(packed).damages] == ["the index is missing"]
    idx.write_text(whole)
    about.write_text(text.replace('"class 1"', '"class x"', 1))
    assert "manifest was changed or damaged" in recverify.verify(packed).damages[0].reason
    about.write_text(text[:-30])
    assert "manifest is not JSON" in recverify.verify(packed).damages[0].reason
    about.write_text(text)
    records.pack(packed.with_suffix(".lst"), packed.parent / "images", packed.parent / "other")
    about.write_bytes((packed.parent / "other.manifest.json").read_bytes())
    reasons = [d.reason for d in recverify.verify(packed).damages]
    assert any("contents differ from those that the manifest has a checksum of" in r for r in reasons)
    assert "its SHA-256 is not the manifest's" in reasons


def test_verify_command(packed):
    done = run(commands.verify, packed, "--json", "--workers", "2")
    assert done.returncode == 0 and f"{packed}: 12 records, whole" in done.stdout
    assert json.loads(done.stdout.splitlines()[-1])["files"][0]["ok"] is True
    data = bytearray(packed.read_bytes())
    data[offsets(packed)[5] + 200] ^= 255
    packed.write_bytes(bytes(data))
    done = run(commands.verify, packed, "--json")
    assert done.returncode == 1 and f"record 5 at byte {offsets(packed)[5]}: " in done.stdout
    assert json.loads(done.stdout.splitlines()[-1])["files"][0]["damages"][0]["record"] == 5
    done = run(commands.verify, packed.with_name("none.rec"))
    assert done.returncode == 2 and "none.rec: cannot be read; expected packed records (.rec); found No such file" in \
        done.stderr


def test_inspect(packed, tmp_path):
    contents = recinspect.inspect(packed)
    assert contents.rows[1] == {"class": "class 1", "records": 4, "width min": 32, "width median": 32, "width max": 32,
                                "height min": 24, "height median": 24, "height max": 24,
                                "kB/image": contents.rows[1]["kB/image"]}
    sheet = tmp_path / "sheet.png"
    assert recinspect.write_sheet(contents, sheet, number=6, seed=3) == 6
    first = sheet.read_bytes()
    assert Image.open(io.BytesIO(first)).size == (6 + 6 * 134, 28 + 150)
    recinspect.write_sheet(contents, sheet, number=6, seed=3)
    assert sheet.read_bytes() == first
    recinspect.write_sheet(contents, sheet, number=6, seed=4)
    assert sheet.read_bytes() != first
    done = run(commands.inspect, packed, "--sheet", sheet)
    assert done.returncode == 0 and "class 2" in done.stdout and "12 records (12 JPEG)" in done.stdout
    packed.write_bytes(packed.read_bytes()[:-100])
    done = run(commands.inspect, packed)
    assert done.returncode == 2 and "see all of it with gluon-ft verify" in done.stderr


def start(tmp_path, **options):
    """Packs the list of `make` in a process of its own; forked, as that takes milliseconds."""
    process = multiprocessing.get_context("fork").Process(
        target=records.pack, args=(tmp_path / "set-train.lst", tmp_path / "images"), kwargs=options)
    process.start()
    return process


def wait_until_begun(process, tmp_path):
    while process.is_alive() and not (tmp_path / ".set-train.rec.packing").exists():
        time.sleep(0.001)


def _size(path):
    return path.stat().st_size if path.exists() else 0


def kill_while_packing(tmp_path, kills, seed):
    """Kills a pack at random moments; the target must be absent or whole. Returns the states seen."""
    make(tmp_path, 400, size=(300, 200))
    rng, states = random.Random(seed), []
    rec = tmp_path / "set-train.rec"
    begun = time.perf_counter()
    start(tmp_path, workers=2, force=True).join()
    span = time.perf_counter() - begun
    for i in range(kills):
        process = start(tmp_path, workers=2, force=True)
        wait_until_begun(process, tmp_path)
        if i % 2:  # aimed at the end, where the names are given
            while process.is_alive() and not _size(tmp_path / ".set-train.manifest.json.packing"):
                time.sleep(0.0005)
        time.sleep(rng.random() * (0.01 if i % 2 else 0.7 * span))
        process.kill()
        process.join()
        time.sleep(0.7)  # its workers, which hold the lock as well, look twice a second whether it lives
        states.append(rec.exists())
        if rec.exists():
            assert recverify.verify(rec).ok
            rec.unlink()
    process = start(tmp_path, workers=2, force=True)
    process.join()
    assert process.exitcode == 0 and recverify.verify(rec).ok and hidden(tmp_path) == []
    return states


def test_kill_while_packing(tmp_path):
    assert False in kill_while_packing(tmp_path, 5, seed=0)


@pytest.mark.slow
def test_kill_while_packing_often(tmp_path):
    assert set(kill_while_packing(tmp_path, 40, seed=1)) == {False, True}


def test_workers_end_with_their_parent(tmp_path):
    make(tmp_path, 400, size=(300, 200))
    process = start(tmp_path, workers=2)
    children = []
    while process.is_alive() and len(children) < 2:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        time.sleep(0.01)
    assert len(children) == 2
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    for _ in range(100):
        if not any(Path(f"/proc/{pid}").exists() for pid in children):
            break
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)


def test_a_full_disk_leaves_nothing_behind(tmp_path):
    lst = make(tmp_path, 60, size=(200, 200))
    code = ("import resource, sys; from gluon_ft.commands.records import pack; "
            "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); pack.main()")
    done = subprocess.run([sys.executable, "-c", code, str(lst), str(tmp_path / "images")], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode == 2
    assert "set-train.rec: cannot be written; found File too large; nothing was left behind" in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["images", "set-train.lst", "set.classes.txt"]


def test_two_packs_of_one_target_at_once(tmp_path):
    lst = make(tmp_path, 400, size=(300, 200))
    process = start(tmp_path)
    wait_until_begun(process, tmp_path)
    with pytest.raises(DataError, match="another process is packing this target; wait for it"):
        records.pack(lst, tmp_path / "images")
    process.join()
    assert process.exitcode == 0 and recverify.verify(tmp_path / "set-train.rec").ok


@pytest.mark.slow
def test_ten_thousand_mutations_are_all_found(tmp_path):
    """With its manifest, no changed .rec, .idx or manifest passes, and nothing but DataError comes out."""
    lst = make(tmp_path, 6, size=(16, 12))
    (done,) = records.pack(lst, tmp_path / "images", encoding=".png")
    prefix = done.rec.with_suffix("")
    whole = three_files(prefix)
    rng = random.Random(0)
    began = time.monotonic()
    for i in range(10_000):
        kind = (".rec", ".idx", ".manifest.json")[i % 3]
        data = mutated(whole[kind], rng)
        Path(f"{prefix}{kind}").write_bytes(data)
        report = recverify.verify(done.rec)
        same = data == whole[kind] or (kind == ".manifest.json" and _json(data) == _json(whole[kind]))
        assert report.ok == same, (i, kind)
        if i % 10 == 0 and kind != ".idx":
            with contextlib.suppress(DataError):
                recinspect.inspect(done.rec)
        Path(f"{prefix}{kind}").write_bytes(whole[kind])
    assert time.monotonic() - began < 900


def _json(data):
    try:
        return json.loads(data)
    except ValueError:
        return None


def mutated(data, rng):
    data = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(data))
        what = rng.randrange(6)
        if what == 0:
            data[at] = rng.randrange(256)
        elif what == 1:
            data[at] ^= 1 << rng.randrange(8)
        elif what == 2:
            del data[at:at + rng.randrange(1, 20)]
        elif what == 3:
            data[at:at] = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 9)))
        elif what == 4:
            data[at:at + 4] = rng.choice([recfile.MAGIC_BYTES, b"\xff\xff\xff\xff", b"\xff\xff\xff\x1f", bytes(4)])
        elif len(data) > at + 8:
            data = data[:at]
        data = data or bytearray(b"x")
    return bytes(data)


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
    report = recverify.verify(rec, workers=2)
    assert report.ok and report.records == 40 and report.labels == {0: 10, 1: 10, 2: 10, 3: 10}
    assert [row["class"] for row in recinspect.inspect(rec).rows] == [folder.name for folder in folders]
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
