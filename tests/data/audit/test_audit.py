"""audit: planted copies are found, different pictures are not, bad files are named; and the real folders."""
from __future__ import annotations

import json
import struct
import zlib

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import shared_data
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from gluon_ft.cli.data import audit as command
from gluon_ft.data import lists
from gluon_ft.data.audit.checks import audit
from gluon_ft.data.images import near_duplicates
from gluon_ft.data.records import pack
from gluon_ft.errors import ConfigError, DataError


def picture(seed, size=(160, 120)):
    """Smooth coloured noise with a few shapes: textured, and unlike any other seed."""
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(6):
        x, y, r = rng.integers(0, size[0]), rng.integers(0, size[1]), rng.integers(6, 30)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=tuple(rng.integers(0, 256, 3).tolist()))
    return image.filter(ImageFilter.GaussianBlur(1))


def save(image, path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def folder(root, seeds, classes=("cat", "dog")):
    for i, seed in enumerate(seeds):
        save(picture(seed), root / classes[i % len(classes)] / f"{seed:03d}.png")
    return root


def found(report):
    return {(pair.kind, pair.turn, pair.first.name, pair.second.name) for pair in report.pairs}


def run(*args):
    return CliRunner().invoke(command, [str(a) for a in args], standalone_mode=False)


CHANGES = {
    "quality 30": lambda im, p: save(im, p.with_suffix(".jpg"), quality=30),
    "half size": lambda im, p: save(im.resize((80, 60), Image.Resampling.LANCZOS), p),
    "squeezed": lambda im, p: save(im.resize((128, 128), Image.Resampling.LANCZOS), p),
    "cropped": lambda im, p: save(im.crop((4, 3, 156, 117)), p),
    "brighter": lambda im, p: save(ImageEnhance.Brightness(im).enhance(1.2), p),
    "grey": lambda im, p: save(im.convert("L"), p),
}
TURNED = {"mirrored": Image.Transpose.FLIP_LEFT_RIGHT, "rotated 90": Image.Transpose.ROTATE_90,
          "rotated 180": Image.Transpose.ROTATE_180, "rotated 270": Image.Transpose.ROTATE_270}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_copies_across_sources_are_found_and_nothing_else(tmp_path, change):
    train, val = folder(tmp_path / "train", range(12)), folder(tmp_path / "val", range(50, 60))
    for seed in (2, 4, 6):  # cats in train
        CHANGES[change](picture(seed), val / "cat" / f"copy{seed}.png")
    report = audit([train, val], workers=1)
    assert {(p.kind, p.turn, p.first.name, p.second.name.split(".")[0]) for p in report.pairs} == {
        ("near", "", f"cat/{seed:03d}.png", f"cat/copy{seed}") for seed in (2, 4, 6)}
    assert report.leaked
    assert report.leaked_images == {1: 3}


@pytest.mark.parametrize("turn", TURNED)
def test_turned_copies_are_found_with_what_was_done_to_them(tmp_path, turn):
    root = folder(tmp_path / "all", range(12))
    save(picture(2).transpose(TURNED[turn]), root / "cat" / "zcopy.png")
    report = audit([root], workers=1)
    assert found(report) == {("near", turn, "cat/002.png", "cat/zcopy.png")}
    assert not report.leaked


def test_equal_bytes_and_equal_pixels_are_told_apart(tmp_path):
    root = folder(tmp_path / "all", range(6))
    for name in ("y.png", "z.png"):
        (root / "cat" / name).write_bytes((root / "cat" / "000.png").read_bytes())
    save(picture(2), root / "cat" / "other.bmp")
    report = audit([root], workers=1)
    assert found(report) == {("same file", "", "cat/000.png", "cat/y.png"),
                             ("same file", "", "cat/000.png", "cat/z.png"),
                             ("same pixels", "", "cat/002.png", "cat/other.bmp")}


def test_a_group_of_copies_over_both_sources_counts_each_image_of_the_later_one_once(tmp_path):
    train, val = folder(tmp_path / "train", range(4)), folder(tmp_path / "val", range(50, 54))
    data = (train / "cat" / "000.png").read_bytes()
    for path in (train / "cat" / "again.png", val / "cat" / "a.png", val / "cat" / "b.png"):
        path.write_bytes(data)
    save(picture(0), val / "cat" / "small.jpg", quality=60)
    report = audit([train, val], workers=1)
    assert report.leaked_images == {1: 3}
    assert [pair.across for pair in report.pairs] == [True, True, True, False]


def test_two_labels_on_one_image(tmp_path):
    root = folder(tmp_path / "all", range(8))
    (root / "dog" / "x.png").write_bytes((root / "cat" / "000.png").read_bytes())
    save(picture(2), root / "dog" / "y.jpg", quality=50)
    report = audit([root], workers=1)
    assert [p.second.name for p in report.pairs if p.labels_differ] == ["dog/x.png", "dog/y.jpg"]
    assert "one image, two labels: 2" in report.text()
    assert "LABELS DIFFER" in report.text()


def test_images_without_texture_are_set_apart_and_only_equal_ones_are_copies(tmp_path):
    root = folder(tmp_path / "all", range(4))
    for i, level in enumerate((100, 100, 160)):
        save(Image.new("RGB", (64, 64 if i else 60), (level,) * 3), root / "cat" / f"plain{i}.png")
    save(Image.new("RGB", (64, 64), (100,) * 3), root / "dog" / "plain.bmp")
    faint = np.full((64, 64, 3), 90, np.uint8)
    faint[:32] += 5
    save(Image.fromarray(faint), root / "dog" / "faint.png")
    report = audit([root], workers=1)
    assert found(report) == {("same pixels", "", "cat/plain1.png", "dog/plain.bmp")}
    assert [f.item.name for f in report.findings["constant"]] == [
        "cat/plain0.png", "cat/plain1.png", "cat/plain2.png", "dog/plain.bmp"]
    assert [f.item.name for f in report.findings["flat"]] == ["dog/faint.png"]


def test_bad_files_are_named_with_the_reason(tmp_path):
    root = folder(tmp_path / "all", range(4))
    (root / "cat" / "empty.jpg").write_bytes(b"")
    (root / "cat" / "text.jpg").write_text("this is no picture")
    whole = save(picture(30, (400, 300)), tmp_path / "whole.jpg").read_bytes()
    (root / "dog" / "cut.jpg").write_bytes(whole[:len(whole) // 2])
    save(picture(31), root / "dog" / "named.jpg", format="PNG")
    save(picture(32, (31, 90)), root / "dog" / "tiny.png")
    (root / "dog" / "notes.txt").write_text("x")
    report = audit([root], workers=1)
    names = {kind: [f.item.name for f in report.findings[kind]] for kind in report.findings}
    assert names == {"unreadable": ["cat/empty.jpg", "cat/text.jpg", "dog/cut.jpg"], "wrong suffix": ["dog/named.jpg"],
                     "tiny": ["dog/tiny.png"], "left out": ["dog/notes.txt"]}
    text = report.text()
    assert "cat/empty.jpg: empty file (0 bytes)" in text
    assert "cat/text.jpg: not an image (begins with b'this is no p')" in text
    assert "dog/named.jpg: is PNG" in text
    assert "dog/tiny.png: 31 x 90 pixels" in text


def test_an_image_of_too_many_pixels_is_refused_by_its_size(tmp_path):
    root = folder(tmp_path / "all", range(4))
    data = bytearray(save(picture(40), root / "cat" / "huge.png").read_bytes())
    data[16:24] = struct.pack(">II", 30_000, 30_000)  # width and height in the PNG's header chunk, then its check sum
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    (root / "cat" / "huge.png").write_bytes(data)
    report = audit([root], workers=1)
    assert "900 megapixels" in report.findings["unreadable"][0].detail


def test_lists_and_records_of_one_folder(tmp_path):
    root = folder(tmp_path / "images", range(12))
    names = sorted(p.relative_to(root).as_posix() for p in root.rglob("*.png"))
    entries = [lists.Entry(i, (float(name.startswith("dog")),), name) for i, name in enumerate(names)]
    (tmp_path / "set.classes.txt").write_text("cat\ndog\n")
    lists.write(tmp_path / "set-train.lst", [e for e in entries if e.index % 2])
    lists.write(tmp_path / "set-val.lst", [e for e in entries if e.index % 2 == 0])
    clean = audit([tmp_path / "set-train.lst", tmp_path / "set-val.lst"], workers=1, root=root)
    assert not clean.pairs
    assert clean.counts == [{"cat": 3, "dog": 3}, {"cat": 3, "dog": 3}]
    pack.pack(tmp_path / "set-train.lst", root, resize=64, quality=90)
    leak = audit([tmp_path / "set-train.rec", root], workers=1)
    assert leak.leaked_images == {1: 6}
    assert not any(pair.labels_differ for pair in leak.pairs)
    (root / names[1]).unlink()
    gone = audit([tmp_path / "set-train.lst"], workers=1, root=root)
    assert [f.item.name for f in gone.findings["missing"]] == [names[1]]
    with pytest.raises(DataError, match=r"none of the 6 images of the list is there.*--root"):
        audit([tmp_path / "set-train.lst"], workers=1)
    data = (tmp_path / "set-train.rec").read_bytes()
    (tmp_path / "cut.rec").write_bytes(data[:-20])
    with pytest.raises(DataError, match=r"cut.rec: damaged: record 5 at byte \d+.*gluon-ft verify"):
        audit([tmp_path / "cut.rec"], workers=1)


def test_imbalance_and_absent_classes(tmp_path):
    train = folder(tmp_path / "train", range(3), ("a", "b", "c"))
    for seed in range(20, 25):
        save(picture(seed), train / "a" / f"{seed}.png")
    val = folder(tmp_path / "val", range(40, 44), ("a", "b"))
    report = audit([train, val], workers=1)
    assert report.imbalance(0) == 6
    assert report.absent == [(1, "c")]
    assert "has 6.0 times the images of the smallest" in report.text()


def test_the_result_does_not_depend_on_the_workers(tmp_path):
    root = folder(tmp_path / "all", range(20))
    save(picture(2), root / "dog" / "copy.jpg", quality=50)
    save(picture(3).transpose(TURNED["mirrored"]), root / "dog" / "copy.png")
    assert audit([root], workers=1).to_dict() == audit([root], workers=2).to_dict()


def test_command_status_json_and_sheet(tmp_path):
    train, val = folder(tmp_path / "train", range(8)), folder(tmp_path / "val", range(50, 54))
    assert run(train, val, "--workers", 1).return_value == 0
    save(picture(2), val / "cat" / "copy.jpg", quality=50)
    result = run(train, val, "--workers", 1, "--json", "--sheet", tmp_path / "pairs.png")
    assert result.return_value == 1
    assert f"LEAK: 1 of 5 images of {val} are also in {train}" in result.stdout
    content = json.loads(result.stdout.splitlines()[-1])
    assert content["leaked"] is True
    assert content["pairs"][0]["second"] == {"source": str(val), "image": "cat/copy.jpg", "label": "cat"}
    with Image.open(tmp_path / "pairs.png") as sheet:
        colours = len(np.unique(np.asarray(sheet.convert("RGB")).reshape(-1, 3), axis=0))
        assert sheet.width > 500
    assert colours > 1000
    # Exact copies only: the re-encoded one does not count.
    assert run(train, val, "--workers", 1, "--exact").return_value == 0
    assert not (tmp_path / ".pairs.png").exists()


def test_at_most_n_lines_of_each_kind(tmp_path):
    root = folder(tmp_path / "all", range(4))
    for i in range(9):
        (root / "cat" / f"bad{i}.jpg").write_bytes(b"bad")
    text = audit([root], workers=1).text(most=3)
    assert text.count("not an image") == 3
    assert "... and 6 more" in text


def test_bad_input(tmp_path):
    root = folder(tmp_path / "all", range(4))
    (tmp_path / "file.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"nowhere: no such source; expected a folder of classes, a .lst or a .rec"):
        audit([tmp_path / "nowhere"])
    with pytest.raises(DataError, match=r"file.zip: not a source of images"):
        audit([tmp_path / "file.zip"])
    with pytest.raises(DataError, match="source given twice"):
        audit([root, tmp_path / "x" / ".." / "all"])
    with pytest.raises(ConfigError, match=r"expected 0 to 64 bits \(--near\); found 65"):
        audit([root], near=65)
    with pytest.raises(ConfigError, match="bad number of workers; expected 1 to 256; found 0"):
        audit([root], workers=0)
    with pytest.raises(SystemExit) as stopped:
        command.main([str(tmp_path / "nowhere")])
    assert stopped.value.code == 2


def test_turns_of_thumbnails_are_those_of_images():
    small = near_duplicates.thumbnail(np.asarray(picture(1).convert("L")))
    for number, (_, undo) in enumerate(near_duplicates.TURNS):
        expected = np.asarray(small if undo is None else small.transpose(undo))
        assert np.array_equal(near_duplicates.turned(np.asarray(small)[None], number)[0], expected)


def test_blocks_and_bounds_of_the_search(monkeypatch):
    pictures = [picture(seed, (64, 48)) for seed in (*range(9), 0, 4, 8)]
    small = [near_duplicates.thumbnail(np.asarray(p.convert("L"))) for p in pictures]
    turns = np.stack([near_duplicates.hash_turns(s) for s in small])
    thumbnails = np.stack([np.asarray(s) for s in small])
    whole = near_duplicates.near_pairs(turns, thumbnails)
    assert [(p.first, p.second, p.distance) for p in whole.pairs] == [(0, 9, 0), (4, 10, 0), (8, 11, 0)]
    monkeypatch.setattr(near_duplicates, "_BLOCK", 5)
    shares = []
    assert near_duplicates.near_pairs(turns, thumbnails, tick=shares.append) == whole
    assert sum(shares) == pytest.approx(1)
    assert "after 1 pairs" in near_duplicates.near_pairs(turns, thumbnails, most_pairs=1).stopped


def test_real_hot_dogs_share_nothing_and_have_two_near_pairs():
    root = shared_data("hotdog")
    report = audit([root / "train", root / "test"])
    assert not report.leaked
    assert {(p.kind, p.first.name, p.second.name) for p in report.pairs} == {
        ("near", "hotdog/1051628.jpg", "hotdog/1051643.jpg"), ("near", "hotdog/1335350.jpg", "hotdog/3497633.jpg")}
    assert not report.findings


def test_real_caltech_has_no_exact_copy_and_one_mirrored_pair():
    report = audit([shared_data("caltech256")])
    assert found(report) == {("near", "mirrored", "242.watermelon/242_0052.jpg", "242.watermelon/242_0086.jpg")}
    assert not report.findings


def test_tiny_images_are_alike_without_being_copies(tmp_path):
    """Shrunk to 8 x 8, digits and icons look like one another; equal pixels in another file are copies all the same."""
    for seed in range(30):
        pixels = np.minimum(np.asarray(picture(seed % 3).resize((8, 8))), 200) + np.uint8(seed)
        save(Image.fromarray(pixels), tmp_path / ("one" if seed % 2 else "two") / f"{seed}.png")
    save(Image.open(tmp_path / "one" / "1.png"), tmp_path / "one" / "again.bmp")
    report = audit([tmp_path])
    assert found(report) == {("same pixels", "", "one/1.png", "one/again.bmp")}
    assert len(report.findings["tiny"]) == 31
