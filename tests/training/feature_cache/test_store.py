"""The store of features: keys, finding them again, damage, limits, and two processes at once."""
from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
from frozen_nets import image_loader, only_output, pictures, small

import gluon_ft
from gluon_ft.errors import DataError
from gluon_ft.training.feature_cache import features, store
from gluon_ft.training.feature_cache.cut import cut


def key_of(net=None, **options):
    return features.cached(image_loader(12, **options), cut(net or only_output(small()))).key


def test_the_key_changes_with_everything_that_features_depend_on(monkeypatch):
    base = key_of(views=2)
    assert key_of(views=2) == base
    assert key_of(views=2, batch_size=5) == base
    assert key_of(views=3) != base
    assert key_of(views=2, seed=4) != base
    assert key_of(views=2, augment="im2rec") != base
    assert key_of(views=2, train=False) != base
    assert key_of(only_output(small(seed=2)), views=2) != base
    changed = pictures(12, seed=1)
    changed[0][5, 0, 0, 0] += 1
    assert key_of(views=2, source=changed) != base
    monkeypatch.setattr(gluon_ft, "__version__", "0.1.1")
    assert key_of(views=2) != base


def test_without_augmentation_the_seed_does_not_matter():
    assert key_of(seed=1) == key_of(seed=2)


def counted(monkeypatch):
    """Counts how many images run through the prefix."""
    ran = []
    forward = features._forward
    monkeypatch.setattr(features, "_forward", lambda run, data, *rest: ran.append(len(data)) or forward(run, data,
                                                                                                        *rest))
    return ran


def folder_of_images(tmp_path):
    root = tmp_path / "photos"
    for n, (image, label) in enumerate(zip(*pictures(12))):
        (root / "abc"[label]).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / "abc"[label] / f"{n}.png"), image)
    return root


def test_a_later_run_finds_the_features_and_a_changed_image_makes_them_anew(tmp_path, monkeypatch):
    root, place, ran = folder_of_images(tmp_path), tmp_path / "kept", counted(monkeypatch)
    first = features.cached(image_loader(source=root), cut(only_output(small())), store=place)
    made = len(ran)
    assert made > 0
    shutil.copytree(root, tmp_path / "elsewhere")
    again = features.cached(image_loader(source=tmp_path / "elsewhere"), cut(only_output(small())), store=str(place))
    assert len(ran) == made and again.key == first.key
    np.testing.assert_array_equal(first.features, again.features)
    image = next(root.glob("*/*.png"))
    known = os.stat(image)
    pixels = cv2.imread(str(image))
    cv2.imwrite(str(image), 255 - pixels)
    os.utime(image, ns=(known.st_atime_ns, known.st_mtime_ns))
    other = features.cached(image_loader(source=root), cut(only_output(small())), store=place)
    assert len(ran) > made and other.key != first.key
    assert not any(path.name.startswith(".") and path.is_dir() for path in place.iterdir())


@pytest.mark.parametrize("damage", ["byte", "short", "manifest", "gone"])
def test_damaged_features_are_made_anew_with_a_note(tmp_path, damage):
    def make():
        yield np.arange(24, dtype=np.float32).reshape(4, 6)

    first = np.array(store.kept("ab", (2, 2, 6), make, store=tmp_path))
    array, manifest = tmp_path / "ab" / "features.npy", tmp_path / "ab" / "manifest.json"
    if damage == "byte":
        data = bytearray(array.read_bytes())
        data[-3] ^= 1
        array.write_bytes(data)
    elif damage == "short":
        array.write_bytes(array.read_bytes()[:-8])
    elif damage == "manifest":
        manifest.write_text(manifest.read_text()[:20])
    else:
        array.unlink()
    with pytest.warns(RuntimeWarning, match="ab: damaged features are made anew"):
        second = store.kept("ab", (2, 2, 6), make, store=tmp_path)
    np.testing.assert_array_equal(first, second)


def test_nothing_half_made_is_left_or_used(tmp_path):
    def fails():
        yield np.zeros((1, 3), np.float32)
        raise DataError("image cannot be used")

    with pytest.raises(DataError, match="image cannot be used"):
        store.kept("cd", (1, 2, 3), fails, store=tmp_path)
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == []
    # What a killed process left behind.
    (tmp_path / ".cd.new").mkdir()
    (tmp_path / ".cd.new" / "features.npy").write_bytes(b"half")
    found = store.kept("cd", (1, 2, 3), lambda: [np.ones((2, 3), np.float32)], store=tmp_path)
    np.testing.assert_array_equal(found, np.ones((1, 2, 3), np.float32))
    (tmp_path / ".ef.new").mkdir()
    store.prune(tmp_path, 1 << 30)
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["cd"]


def test_too_large_for_memory_goes_to_disk_and_too_large_for_both_is_refused(tmp_path, monkeypatch):
    def make():
        yield np.zeros((10, 100), np.float32)

    shape = (1, 10, 100)
    assert not isinstance(store.kept("0a", shape, make, limit_bytes=4000), np.memmap)
    found = store.kept("0a", shape, make, limit_bytes=3999)
    assert isinstance(found, np.memmap) and not found.flags.writeable
    with pytest.raises(DataError, match=r"features of 0.00 MiB are too large; expected at most 0.00 MiB in memory, or "
                                        r"0.00 MiB on disk; take fewer views, freeze more stages"):
        store.kept("0b", shape, make, limit_bytes=3999, disk_bytes=3999)
    monkeypatch.setattr(store.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 1000))
    with pytest.raises(DataError, match=r"no space for features of .* free on disk; found 0.00 MiB"):
        store.kept("0c", shape, make, store=tmp_path)


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"features cannot be kept; found .*; name a folder that can be written"):
        store.kept("0d", (1, 1, 1), lambda: [np.zeros((1, 1))], store=tmp_path / "file")


def test_the_least_recently_used_features_make_room(tmp_path):
    def keep(key):
        return store.kept(key, (1, 100, 10), lambda: [np.zeros((100, 10), np.float32)], store=tmp_path,
                                   disk_bytes=13000)

    for age, key in enumerate(("a1", "a2", "a3")):
        keep(key)
        os.utime(tmp_path / key / "manifest.json", (1000 + age, 1000 + age))
    keep("a1")
    keep("a4")
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["a1", "a3", "a4"]
    assert json.loads((tmp_path / "a4" / "manifest.json").read_text())["shape"] == [1, 100, 10]


KEEP_SLOWLY = """
import sys, time
import numpy as np
from gluon_ft.training.feature_cache import store as features_store

def make():
    print("made", flush=True)
    time.sleep(1)
    yield np.full((2, 3), 7, np.float32)

print(features_store.kept("aa", (1, 2, 3), make, store=sys.argv[1]).sum())
"""


def test_two_processes_make_features_once(tmp_path):
    both = [subprocess.Popen([sys.executable, "-c", KEEP_SLOWLY, str(tmp_path)], stdout=subprocess.PIPE, text=True)
            for _ in range(2)]
    words = " ".join(process.communicate(timeout=120)[0] for process in both).split()
    assert sorted(words) == ["42.0", "42.0", "made"]
