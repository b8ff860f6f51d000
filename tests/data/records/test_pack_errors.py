"""pack: unreadable images, options and names that are refused, and nothing half-written."""
from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from record_files import make, run, three_files, verified_pack

from gluon_ft.cli import records as commands
from gluon_ft.data.records import manifest, pack, record_file, verify
from gluon_ft.errors import ConfigError, DataError


@pytest.fixture
def packed(tmp_path):
    return verified_pack(tmp_path)


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
    with pytest.raises(pack.UnreadableImages, match=r"set-train\.lst: 4 of 12 images cannot be read, the first is "
                       r"b 0\.png: empty file \(0 bytes\); all are listed in .*set-train\.unreadable\.txt") as error:
        pack.pack(lst, tmp_path / "images", workers=2)
    assert [s.path for s in error.value.skipped] == ["b 0.png", "c 1.jpg", "d 2.png", "b 3.jpg"]
    assert [s.reason.split(":")[0] for s in error.value.skipped] == [
        "empty file (0 bytes)", "not an image (begins with b'no image at ')", "no such file", "damaged or truncated"]
    report = tmp_path / "set-train.unreadable.txt"
    assert len(report.read_text().splitlines()) == 4
    assert sorted(tmp_path.iterdir()) == sorted([*before, report])
    (done,) = pack.pack(lst, tmp_path / "images", on_error="skip")
    assert done.records == 8 and [s.index for s in done.skipped] == [100, 101, 102, 103]
    assert verify.verify(done.rec).ok and not report.exists()
    skipped = manifest.read(record_file.beside(done.rec, ".manifest.json")).data["skipped"]
    assert skipped[0] == {"index": 100, "path": "b 0.png", "reason": "empty file (0 bytes)"}


def test_command_lists_unreadable_images_and_exits_2(tmp_path):
    damage(tmp_path)
    done = run(commands.pack, tmp_path / "set", tmp_path / "images")
    assert done.returncode == 2 and "  d 2.png: no such file" in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    done = run(commands.pack, tmp_path / "set", tmp_path / "images", "--on-error", "skip", "--json")
    assert done.returncode == 0 and "wrote" in done.stdout
    assert json.loads(done.stdout.splitlines()[-1])["files"][0]["records"] == 8


def test_names_with_blanks_letters_of_the_world_and_250_characters(tmp_path):
    root = tmp_path / "pictures of mine"
    root.mkdir()
    names = ["a b  c.jpg", "größe 猫.jpg", "x" * 246 + ".jpg", "what's \"this\"; $HOME & more.jpg"]
    for i, name in enumerate(names):
        Image.new("RGB", (20, 20), (50 * i, 0, 0)).save(root / name)
    (tmp_path / "a.lst").write_text("".join(f"{i}\t{i}\t{name}\n" for i, name in enumerate(names)))
    (done,) = pack.pack(tmp_path / "a.lst", root, workers=2)
    assert done.records == 4 and verify.verify(done.rec).ok
    (tmp_path / "b.lst").write_text(f"0\t0\t{'y' * 300}.jpg\n")
    with pytest.raises(pack.UnreadableImages, match="File name too long"):
        pack.pack(tmp_path / "b.lst", root)


def test_options_are_checked(tmp_path):
    lst = make(tmp_path, 2)

    def refused(text, **options):
        with pytest.raises(ConfigError, match=text):
            pack.pack(lst, tmp_path / "images", **options)

    refused("bad resize; expected pixels of the shorter edge, 1 to 16384, or 0; found -1", resize=-1)
    refused("bad quality; expected 1 to 100 for .jpg; found 101", quality=101)
    refused("bad quality; expected 0 to 9 for .png; found 95", quality=95, encoding=".png")
    refused("no encoding '.bmp'; expected .jpg or .png", encoding=".bmp")
    refused("bad color; expected 1", color=3)
    refused("bad number of workers; expected 1 to 256; found 0", workers=0)
    refused("bad shard; expected 0 to 1 of 2; found 2", shards=2, shard=2)
    refused("--pass-through stores the files as they are", pass_through=True, resize=20)
    with pytest.raises(DataError, match="no such folder"):
        pack.pack(lst, tmp_path / "nowhere")
    (tmp_path / "set.classes.txt").write_text("one\ntwo\n")
    lst.write_text("0\t2\tb 0.png\n")
    with pytest.raises(DataError, match=r"lst:1: label out of range; expected 0 to 1, as there are 2 class names; "
                       "found 2"):
        pack.pack(lst, tmp_path / "images")


def test_an_existing_target_is_kept_unless_forced(packed):
    before = three_files(packed.with_suffix(""))
    with pytest.raises(DataError, match=r"set-train\.rec: exists already; choose another name, or replace it with"):
        pack.pack(packed.with_suffix(".lst"), packed.parent / "images")
    assert three_files(packed.with_suffix("")) == before
    pack.pack(packed.with_suffix(".lst"), packed.parent / "images", resize=20, force=True)
    assert three_files(packed.with_suffix("")) != before and verify.verify(packed).ok
