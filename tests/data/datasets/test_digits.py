"""Digits from each kind of source, the odd/even task without leaks, and tools/make_odd_even.py."""
from __future__ import annotations

import gzip
import importlib.util
import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, shared_data
from PIL import Image

from gluon_ft.data.datasets import digits
from gluon_ft.data.sources import folders
from gluon_ft.errors import ConfigError, DataError

SCRIPT = ROOT / "tools" / "make_odd_even.py"


@pytest.fixture(scope="module")
def bundled():
    return digits.load()


def noise(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 28, 28), np.uint8)


def some(n=100, seed=0) -> digits.Digits:
    return digits.Digits(noise(n, seed), np.arange(n) % 10, "noise", list(digits.NAMES))


def write_idx(folder: Path, stem: str, images, labels) -> None:
    with gzip.open(folder / f"{stem}-images-idx3-ubyte.gz", "wb", 1) as out:
        out.write(struct.pack(">4B3I", 0, 0, 8, 3, *images.shape) + images.tobytes())
    (folder / f"{stem}-labels.idx1-ubyte").write_bytes(struct.pack(">4BI", 0, 0, 8, 1, len(labels))
                                                       + labels.astype(np.uint8).tobytes())


def contents(part) -> set[bytes]:
    return {image.tobytes() for image in part.images}


def test_bundled(bundled):
    from sklearn.datasets import load_digits

    assert bundled.images.shape == (1797, 28, 28)
    assert (bundled.images.dtype, bundled.labels.dtype) == (np.uint8, np.int64)
    assert bundled.images.min() == 0
    assert bundled.images.max() == 255
    assert np.bincount(bundled.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    # Averaged back to 8x8 the enlarged image is nearly the original: nothing is shifted, mirrored or clipped much.
    back = np.stack([np.asarray(Image.fromarray(image).resize((8, 8), Image.Resampling.BOX), np.float32)
                     for image in bundled.images[:50]])
    original = load_digits().images[:50] * 255 / 16
    assert np.abs(back - original).mean() < 14
    assert np.corrcoef(back.ravel(), original.ravel())[0, 1] > 0.98


def test_idx_folder_takes_both_parts_training_first(tmp_path):
    one, two = some(20), some(30, seed=1)
    write_idx(tmp_path, "t10k", two.images, two.labels)
    assert len(digits.load(tmp_path)) == 30
    write_idx(tmp_path, "train", one.images, one.labels)
    loaded = digits.load(tmp_path)
    np.testing.assert_array_equal(loaded.images, np.concatenate([one.images, two.images]))
    np.testing.assert_array_equal(loaded.labels, np.concatenate([one.labels, two.labels]))
    assert (loaded.labels.dtype, loaded.name, loaded.classes) == (np.int64, tmp_path.name, list("0123456789"))


def test_idx_folder_that_does_not_fit(tmp_path):
    write_idx(tmp_path, "train", np.zeros((10, 8, 8), np.uint8), np.arange(10))
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte.gz: images of another size; expected 28x28 "
                                        r"pixels; found 8x8"):
        digits.load(tmp_path)
    write_idx(tmp_path, "train", noise(11), np.arange(11))
    with pytest.raises(DataError, match="labels that are not digits; expected 0 to 9; found 10 at position 10"):
        digits.load(tmp_path)
    write_idx(tmp_path, "train", noise(8), np.arange(8))
    with pytest.raises(DataError, match="a digit without an image; expected all of 0 to 9; found none of 8, 9"):
        digits.load(tmp_path)


def make_folders(root: Path, skip=()) -> Path:
    for i, image in enumerate(noise(20)):
        if i % 10 not in skip:
            (root / str(i % 10)).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(root / str(i % 10) / f"{i}.png")
    return root


def test_folder_of_digits(tmp_path):
    root = make_folders(tmp_path / "d")
    loaded = digits.load(root)
    assert loaded.labels.tolist() == [d for d in range(10) for _ in range(2)]
    np.testing.assert_array_equal(loaded.images[2], noise(20)[1])  # lossless and 28x28: unchanged
    (root / "ten").mkdir()
    (root / "ten" / "x.png").touch()
    with pytest.raises(DataError, match="ten: a subfolder that is not a digit; expected the subfolders 0 to 9"):
        digits.load(root)
    with pytest.raises(DataError, match=r"a digit without an image; .*found none of 3, 7"):
        digits.load(make_folders(tmp_path / "e", skip=(3, 7)))
    (tmp_path / "e" / "1" / "x.png").write_text("no image")
    with pytest.raises(DataError, match=r"x.png: not an image that can be read; .*found not an image \(begins with"):
        digits.load(tmp_path / "e")
    for source, found in ((tmp_path / "none", "nothing there"), (SCRIPT, "a file")):
        with pytest.raises(DataError, match=f"not a folder; expected a folder with MNIST's IDX files.*found {found}"):
            digits.load(source)
    with pytest.raises(DataError, match="no digits; expected MNIST's IDX files"):
        digits.load(tmp_path)


def test_images_of_many_kinds_become_grey(tmp_path):
    path = tmp_path / "x.png"
    ramp = np.arange(28 * 28).reshape(28, 28)
    Image.fromarray((ramp * 83).astype(np.uint16)).save(path)  # up to 64,989
    np.testing.assert_array_equal(digits.read_image(path), np.rint(ramp * 83 / 257))
    grey = (ramp % 256).astype(np.uint8)
    Image.fromarray(np.dstack([grey] * 3)).save(path)
    np.testing.assert_array_equal(digits.read_image(path), grey)
    # Black ink on a transparent ground is black on white.
    ink = np.zeros((28, 28, 4), np.uint8)
    ink[5:9, :, 3] = 255
    Image.fromarray(ink).save(path)
    back = digits.read_image(path)
    assert (back[5:9] == 0).all()
    assert (np.delete(back, range(5, 9), 0) == 255).all()
    Image.fromarray(grey).convert("P").save(tmp_path / "x.gif")
    assert digits.read_image(tmp_path / "x.gif").shape == (28, 28)
    # A tall image is not squeezed; the sides take its border's colour.
    tall = np.full((56, 14), 200, np.uint8)
    tall[20:36, 4:10] = 10
    Image.fromarray(tall).save(path)
    back = digits.read_image(path)
    assert (back[:, :10] == 200).all()
    assert (back[:, 18:] == 200).all()
    assert back[14, 14] < 30
    Image.fromarray(np.full((1, 3000), 90, np.uint8)).save(path)
    assert (digits.read_image(path) == 90).all()


def test_images_that_cannot_be_used(tmp_path):
    path = tmp_path / "x.png"
    Image.fromarray(noise(1)[0]).save(path)
    whole = path.read_bytes()
    for data in (b"", whole[:40], whole[:-200], b"text"):
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"x.png: not an image that can be read; .*; replace or remove it"):
            digits.read_image(path)
    Image.new("1", (4097, 4096)).save(path)
    with pytest.raises(DataError, match="image is too large; expected at most 16777216 pixels; found 4097x4096"):
        digits.read_image(path)


@pytest.mark.parametrize("seed", range(3))
def test_odd_even_counts_and_no_leak(bundled, seed):
    task = digits.odd_even(bundled, seed=seed)
    assert [len(part) for part in (task.train, task.validation)] == [50, 150]
    for part, each in ((task.train, 25), (task.validation, 75)):
        assert np.bincount(part.labels).tolist() == [each, each]
        assert part.classes == ["even", "odd"]
    assert len(task.source_train) + len(task.source_held_out) >= 1797 - 200 - 20
    assert 150 <= len(task.source_held_out) <= 170
    assert set(task.source_train.labels) == set(task.source_held_out.labels) == set(range(10))
    parts = [contents(p) for p in (task.train, task.validation, task.source_train, task.source_held_out)]
    for i, a in enumerate(parts):
        assert all(a.isdisjoint(b) for b in parts[i + 1:])
    digit = {image.tobytes(): label for image, label in zip(bundled.images, bundled.labels)}
    assert all(digit[image.tobytes()] % 2 == label for image, label in zip(task.validation.images,
                                                                           task.validation.labels))


def test_copies_are_on_one_side_only():
    once = some(60)
    # Everything three times, and one image that is called both 2 and 3.
    images = np.concatenate([once.images, once.images, once.images[::-1], once.images[2:3]])
    labels = np.concatenate([once.labels, once.labels, once.labels[::-1], [3]])
    task = digits.odd_even(digits.Digits(images, labels, "copies", once.classes), max_per_class=8, seed=1)
    assert len(contents(task.train) | contents(task.validation)) == len(task.train) + len(task.validation) == 16
    parts = [contents(p) for p in (task.train, task.validation, task.source_train, task.source_held_out)]
    for i, a in enumerate(parts):
        assert all(a.isdisjoint(b) for b in parts[i + 1:])
    assert once.images[2].tobytes() not in parts[0] | parts[1]


def test_the_draw_depends_on_seed_and_pixels_only(bundled):
    task = digits.odd_even(bundled, seed=1)
    order = np.random.default_rng(0).permutation(len(bundled))
    moved = digits.odd_even(bundled.take(order), seed=1)
    for part in ("train", "validation", "source_train"):
        np.testing.assert_array_equal(getattr(task, part).images, getattr(moved, part).images)
    assert contents(digits.odd_even(bundled, seed=2).validation) != contents(task.validation)
    # Fewer images of the same seed are among the more.
    few, many = digits.draw_odd_even(bundled, 10, seed=1), digits.draw_odd_even(bundled, 30, seed=1)
    assert all(a.tolist() == b[:10].tolist() for a, b in zip(few, many))
    # Images i of the one value i; then the bundled digits, which Pillow enlarges the same way everywhere.
    plain = digits.Digits(np.repeat(np.arange(100, dtype=np.uint8), 784).reshape(100, 28, 28), np.arange(100) % 10,
                          "plain", list(digits.NAMES))
    assert [p[:5].tolist() for p in digits.draw_odd_even(plain, seed=0)] == GOLDEN["plain"]
    assert [p[:5].tolist() for p in digits.draw_odd_even(bundled, seed=0)] == GOLDEN["bundled"]


GOLDEN = {"plain": [[68, 0, 90, 88, 30], [45, 29, 87, 3, 49]],
          "bundled": [[1137, 121, 1005, 833, 810], [1582, 411, 1632, 350, 822]]}


def test_too_few_and_out_of_range():
    with pytest.raises(DataError, match="too few odd digits; expected 2 or more that differ; found 1"):
        digits.odd_even(some(30).take([0, 1, 2, 4, 6]))
    with pytest.raises(DataError, match="too few images of digit 0 for the source network; expected 2 or more beside "
                                        "those drawn for odd and even; found 0; give more images, or a smaller max"):
        digits.odd_even(some(100))
    for value in (1, 2.5, True):
        with pytest.raises(ConfigError, match="max_per_class is out of its range; expected a whole number, 2 or more"):
            digits.odd_even(some(), max_per_class=value)
    for value in (0, 1.0, "x", float("nan")):
        with pytest.raises(ConfigError, match="validation is out of its range; expected a number between 0 and 1"):
            digits.odd_even(some(), validation=value)
    task = digits.odd_even(some(100), max_per_class=2, validation=0.99)
    assert (len(task.train), len(task.validation)) == (2, 2)


def test_real_mnist():
    loaded = digits.load(shared_data("mnist"))
    assert loaded.images.shape == (10000, 28, 28)
    task = digits.odd_even(loaded)
    assert [len(p) for p in (task.train, task.validation)] == [50, 150]
    assert len(task.source_train) + len(task.source_held_out) == 9800
    assert contents(task.validation).isdisjoint(contents(task.source_train))


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("make_odd_even", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(tool, *args) -> int:
    with pytest.raises(SystemExit) as done:
        tool.main.main([str(a) for a in args], prog_name="make_odd_even.py")
    return done.value.code


def test_tool_writes_the_images_of_the_task(tmp_path, capsys, tool, bundled):
    out = tmp_path / "out"
    out.mkdir()
    assert run(tool, out, "--max-per-class", 20, "--seed", 3, "--json") == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["images"] == {"even": 20, "odd": 20}
    scanned = folders.scan(out)
    assert scanned.class_names == ["even", "odd"]
    assert len(scanned.files) == 40
    task = digits.odd_even(bundled, max_per_class=20, seed=3)
    for label in (0, 1):
        written = {digits.read_image(out / path).tobytes() for path in scanned.of_class(label)}
        assert written == {image.tobytes() for part in (task.train, task.validation)
                           for image in part.images[part.labels == label]}
        assert all(int(Path(path).name[0]) % 2 == label for path in scanned.of_class(label))
    assert os.listdir(tmp_path) == ["out"]


def test_tool_leaves_nothing_half_written(tmp_path, capsys, tool, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").touch()
    assert run(tool, out) == 2
    assert "out: is there already; expected a new or an empty folder; found a folder with something in it" in \
        capsys.readouterr().err
    assert run(tool, tmp_path / "no" / "out") == 2
    assert "no: folder does not exist; create it" in capsys.readouterr().err
    assert run(tool, tmp_path / "new", "--data", tmp_path / "none") == 2
    assert "none: not a folder" in capsys.readouterr().err
    real, saved = Image.Image.save, []

    def full_disk(image, path, *args, **kwargs):
        saved.append(path)
        if len(saved) == 30:
            raise OSError(28, "No space left on device")
        real(image, path, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "save", full_disk)
    assert run(tool, tmp_path / "new", "--max-per-class", 20) == 2
    assert "new: cannot be written; found No space left on device; nothing was left behind" in capsys.readouterr().err
    assert len(saved) == 30
    assert os.listdir(tmp_path) == ["out"]
