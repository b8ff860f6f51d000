"""The data catalog: its table, getting a data set over a local server or from a copy, layouts, `gluon-ft data`."""
from __future__ import annotations

import dataclasses
import gzip
import hashlib
import importlib.util
import io
import json
import tarfile
import zipfile

import numpy as np
import pytest
from conftest import ROOT, cli_runner, shared_data
from local_server import Route, serving
from PIL import Image

from gluon_ft.cli.data import data as command
from gluon_ft.data import lists
from gluon_ft.data.datasets import catalog, cifar
from gluon_ft.data.images.preprocessing import Preprocessing
from gluon_ft.errors import ConfigError, DataError, DownloadError
from gluon_ft.io.checksums import Checksums
from gluon_ft.io.paths import cache_home


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("GLUON_FT_HOME", str(tmp_path / "home"))


def zip_of(members):
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return raw.getvalue()


def change(monkeypatch, name, *contents, url=None):
    """The entry `name` of the real table with other contents behind it: their hash, and addresses on a local server."""
    entry = catalog.find(name)
    files = tuple(dataclasses.replace(file, addresses=(f"{url}/{file.name}",) if url else (),
                                      checksums=Checksums(sha1=hashlib.sha1(content).hexdigest()))
                  for file, content in zip(entry.files, contents))
    monkeypatch.setitem(catalog._rows(), name, dataclasses.replace(entry, files=files))


HOT_DOG = {f"hotdog/{part}/{kind}/{i}.png": b"image" for part in ("train", "test")
           for kind in ("hotdog", "not-hotdog") for i in range(3)}


def test_table_is_sound():
    names = [entry.name for entry in catalog.datasets()]
    assert names == ["caltech-256", "cifar-10", "dogs-vs-cats", "hot-dog", "mnist"]
    for entry in catalog.datasets():
        assert entry.layout in catalog._LAYOUTS and entry.images > 0 and entry.home.startswith("http")
        for file in entry.files:
            assert all(a.startswith(("https://", "http://")) for a in file.addresses)
            assert bool(file.addresses) == bool(file.checksums.hash), "an address without a published hash"
            for kind, length in (("sha256", 64), ("sha1", 40), ("md5", 32)):
                assert len(getattr(file.checksums, kind) or "0" * length) == length
    assert catalog.find("hot-dog").files[0].checksums.sha1 == "fba480ffa8aa7e0febbb511d181409f899b9baa5"
    assert catalog.find("caltech-256").classes == 257
    assert [entry.name for entry in catalog.datasets() if entry.by_hand] == ["dogs-vs-cats"]


def test_the_real_mnist_test_files_have_the_published_hashes():
    folder = shared_data("mnist")
    checked = [file for file in catalog.find("mnist").files if not file.unverified]
    assert len(checked) == 2 and all(file.checksums.fault(folder / file.name) is None for file in checked)


def test_unknown_name():
    with pytest.raises(ConfigError, match=r"no data set 'hotdog' in the catalog; did you mean hot-dog"):
        catalog.get("hotdog")


def test_get_fetches_unpacks_and_keeps_no_archive(monkeypatch):
    body = zip_of(HOT_DOG)
    with serving({"/hotdog.zip": Route(body, cuts=[100])}) as server:
        change(monkeypatch, "hot-dog", body, url=server.url)
        assert catalog.path("hot-dog") is None
        folder = catalog.get("hot-dog", progress=False)
        asked = len(server.requests)
        assert catalog.get("hot-dog") == folder == catalog.path("hot-dog") == cache_home() / "data/hot-dog/hotdog"
        assert len(server.requests) == asked
    assert len(list(folder.rglob("*.png"))) == len(HOT_DOG)
    left = [p.name for p in cache_home().rglob("*") if p.is_file() and p.suffix != ".png"]
    assert all(name.endswith(".lock") for name in left)


def test_from_a_copy_and_to_a_folder(tmp_path, monkeypatch):
    body = zip_of(HOT_DOG)
    change(monkeypatch, "hot-dog", body)
    copy = tmp_path / "my copy.zip"
    copy.write_bytes(body)
    assert catalog.get("hot-dog", source=copy, to=tmp_path / "there") == tmp_path / "there/hot-dog/hotdog"
    assert copy.read_bytes() == body and not cache_home().exists()
    copy.write_bytes(body[:-1])
    why = r"my copy\.zip: not hotdog\.zip as published; found wrong sha1: expected \w{40}, found"
    with pytest.raises(DataError, match=why):
        catalog.get("hot-dog", source=copy, to=tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere/hot-dog").exists()


def test_offline_error_says_all(monkeypatch, tmp_path):
    change(monkeypatch, "hot-dog", b"", url="http://127.0.0.1:9")
    with pytest.raises(DownloadError) as error:
        catalog.get("hot-dog")
    text = str(error.value)
    assert "cannot get hotdog.zip: tried http://127.0.0.1:9/hotdog.zip (" in text
    assert f"expected sha1 {hashlib.sha1(b'').hexdigest()}" in text
    assert f"put it into {tmp_path}/home/downloads/hot-dog" in text


def test_a_file_put_there_by_hand_is_used(monkeypatch):
    body = zip_of(HOT_DOG)
    change(monkeypatch, "hot-dog", body, url="http://127.0.0.1:9")
    place = cache_home() / "downloads/hot-dog/hotdog.zip"
    place.parent.mkdir(parents=True)
    place.write_bytes(body)
    assert (catalog.get("hot-dog") / "train/hotdog/0.png").is_file()


def test_hostile_or_wrong_archive_leaves_nothing(tmp_path, monkeypatch):
    for body, why in ((zip_of({"hotdog/x": b"", "../evil": b""}), "a path with"),
                      (zip_of({"other/x": b""}), "not hot-dog; expected a folder hotdog in it; found other")):
        change(monkeypatch, "hot-dog", body)
        (tmp_path / "copy.zip").write_bytes(body)
        with pytest.raises(DataError, match=why):
            catalog.get("hot-dog", source=tmp_path / "copy.zip")
        assert catalog.path("hot-dog") is None
        assert list((cache_home() / "data").iterdir()) == []


def test_several_files_come_from_a_folder(tmp_path, monkeypatch):
    contents = [gzip.compress(bytes([i]) * 10) for i in range(4)]
    change(monkeypatch, "mnist", *contents)
    source = tmp_path / "copies"
    source.mkdir()
    for file, content in zip(catalog.find("mnist").files, contents):
        (source / file.name).write_bytes(content)
    with pytest.raises(DataError, match="mnist has 4 files; expected a folder with train-images-idx3-ubyte"):
        catalog.get("mnist", source=source / "t10k-labels-idx1-ubyte.gz")
    folder = catalog.get("mnist", source=source)
    assert sorted(p.name for p in folder.iterdir()) == sorted(p.name for p in source.iterdir())
    (source / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"no such file; expected t10k-labels-idx1-ubyte\.gz of mnist"):
        catalog.get("mnist", source=source, to=tmp_path)


CLASSES = "airplane automobile bird cat deer dog frog horse ship truck".split()


def cifar_archive(rng, images=3, label=None):
    raw = io.BytesIO()
    rows = {}
    with tarfile.open(fileobj=raw, mode="w:gz") as opened:
        files = {"batches.meta.txt": ("\n".join(CLASSES) + "\n\n").encode()}
        for name in [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]:
            batch = rng.integers(0, 256, (images, 3073), dtype=np.uint8)
            batch[:, 0] = rng.integers(0, 10, images) if label is None else label
            files[name] = batch.tobytes()
            rows[name] = batch
        for name, content in files.items():
            info = tarfile.TarInfo("cifar-10-batches-bin/" + name)
            info.size = len(content)
            opened.addfile(info, io.BytesIO(content))
    return raw.getvalue(), rows


def test_cifar_becomes_lossless_class_folders(tmp_path, monkeypatch):
    body, rows = cifar_archive(np.random.default_rng(0))
    change(monkeypatch, "cifar-10", body)
    (tmp_path / "c.tar.gz").write_bytes(body)
    folder = catalog.get("cifar-10", source=tmp_path / "c.tar.gz")
    assert sorted(p.name for p in folder.iterdir()) == ["test", "train"]
    assert sorted(p.name for p in (folder / "test").iterdir()) == CLASSES
    assert len(list((folder / "train").rglob("*.png"))) == 15 and len(list((folder / "test").rglob("*.png"))) == 3
    row = rows["data_batch_2.bin"][1]
    with Image.open(folder / "train" / CLASSES[row[0]] / "00004.png") as image:
        assert np.array_equal(np.asarray(image), row[1:].reshape(3, 32, 32).transpose(1, 2, 0))


def test_damaged_cifar(tmp_path, monkeypatch):
    body, _ = cifar_archive(np.random.default_rng(0), label=10)
    change(monkeypatch, "cifar-10", body)
    (tmp_path / "c.tar.gz").write_bytes(body)
    with pytest.raises(DataError, match="not a batch of CIFAR-10; expected labels 0 to 9; found label 10"):
        catalog.get("cifar-10", source=tmp_path / "c.tar.gz")
    assert catalog.path("cifar-10") is None
    (tmp_path / "b.bin").write_bytes(bytes(3072))
    with pytest.raises(DataError, match="expected a multiple of 3073 bytes; found 3072 bytes"):
        cifar.read_batch(tmp_path / "b.bin")


@pytest.mark.parametrize("outer", [False, True])
def test_dogs_vs_cats_is_by_hand_and_sorted_into_classes(tmp_path, outer):
    with pytest.raises(DownloadError, match=r"dogs-vs-cats can only be fetched by hand; expected train\.zip from "
                                            r"https://www\.kaggle\.com/c/dogs-vs-cats/data; put it into .*--from"):
        catalog.get("dogs-vs-cats")
    body = zip_of({f"train/{kind}.{i}.jpg": kind.encode() for kind in ("cat", "dog") for i in range(3)})
    body = zip_of({"train.zip": body, "test1.zip": b"", "sampleSubmission.csv": b""}) if outer else body
    (tmp_path / "given.zip").write_bytes(body)
    folder = catalog.get("dogs-vs-cats", source=tmp_path / "given.zip")
    expected = [f"{kind}/{kind}.{i}.jpg" for kind in ("cat", "dog") for i in range(3)]
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.*")) == expected
    assert sorted(p.name for p in folder.iterdir()) == ["cat", "dog"]


def test_not_dogs_vs_cats(tmp_path):
    (tmp_path / "given.zip").write_bytes(zip_of({"readme.txt": b""}))
    with pytest.raises(DataError, match=r"not dogs-vs-cats; expected images called cat\.0\.jpg"):
        catalog.get("dogs-vs-cats", source=tmp_path / "given.zip")


def run(*arguments):
    return cli_runner().invoke(command, list(arguments))


def test_list_command():
    result = run("list", "--json")
    lines = result.stdout.splitlines()
    rows = {row["name"]: row for row in json.loads(lines[-1])["datasets"]}
    assert result.exit_code == 0 and rows["caltech-256"]["classes"] == 257
    assert rows["hot-dog"]["unverified"] and not rows["hot-dog"]["here"]
    assert next(line for line in lines if line.startswith("dogs-vs-cats")).count("by hand, unverified") == 1


def test_get_command(tmp_path, monkeypatch):
    body = zip_of(HOT_DOG)
    change(monkeypatch, "hot-dog", body)
    (tmp_path / "copy.zip").write_bytes(body)
    result = run("get", "hot-dog", "--from", str(tmp_path / "copy.zip"), "--to", str(tmp_path / "x"), "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout.splitlines()[-1])["path"] == str(tmp_path / "x/hot-dog/hotdog")
    failed = run("get", "hot-dogs")
    assert failed.exit_code == 2 and "did you mean hot-dog?" in failed.stderr and failed.stderr.count("\n") == 1


def test_preprocessing_round_trip_and_errors():
    one = Preprocessing(mean=[0.5] * 3, std=[0.25] * 3, scale=1, size=299, resize=342, interpolation="bicubic",
                        rotate180=True)
    assert Preprocessing.from_dict(json.loads(json.dumps(one.to_dict()))) == one and one.mean == (0.5, 0.5, 0.5)
    assert Preprocessing.from_dict({}) == Preprocessing() and Preprocessing().crop_fraction == 0.875
    assert Preprocessing().range == (0.0, 1.0) and one.range == (0.0, 255.0) and "rotated by 180 degrees" in str(one)
    assert Preprocessing(mean=(0.1,), std=(0.3,), channel_order="gray", size=28, resize=None).channels == 1
    for values, why in (({"means": [0]}, "unknown preprocessing setting 'means'; did you mean mean"),
                        ({"mean": [0.5]}, "mean has one number a channel; expected 3"),
                        ({"std": [1, 1, 0]}, "std must be above 0"), ({"scale": 0}, "scale must be above 0"),
                        ({"size": 300}, "crop is larger"), ({"size": 0}, "whole numbers from 1"),
                        ({"interpolation": "cubic"}, "did you mean bicubic"),
                        ({"channel_order": "rbg"}, "did you mean"),
                        ({"rotate180": 1}, "true or false"), ({"mean": [float("nan")] * 3}, "one number a channel")):
        with pytest.raises(ConfigError, match=why):
            Preprocessing.from_dict(values)


def tool(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def png(rng):
    raw = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(raw, "PNG")
    return raw.getvalue()


def test_prepare_hot_dog_gets_and_packs_the_two_parts(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    body = zip_of({name: png(rng) for name in HOT_DOG})
    change(monkeypatch, "hot-dog", body)
    (tmp_path / "h.zip").write_bytes(body)
    result = cli_runner().invoke(tool("prepare_hot_dog").main, [
        str(tmp_path / "hot"), "--from", str(tmp_path / "h.zip"), "--resize", "16", "--workers", "1", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout.splitlines()[-1])["records"] == {
        str(tmp_path / "hot-train.rec"): 6, str(tmp_path / "hot-val.rec"): 6}
    assert (tmp_path / "hot.classes.txt").read_text().split() == ["hotdog", "not-hotdog"]
    for part, theirs in (("train", "train"), ("val", "test")):
        entries = lists.read(tmp_path / f"hot-{part}.lst")
        assert sorted((e.path, e.label) for e in entries) == sorted(
            (name.removeprefix("hotdog/"), int("/not-" in name)) for name in HOT_DOG if f"/{theirs}/" in name)
    labels = [entry.label for entry in lists.read(tmp_path / "hot-train.lst")]
    assert labels != sorted(labels), "the training records are not shuffled"


def test_prepare_caltech256_on_real_images(tmp_path):
    images = shared_data("caltech256")
    result = cli_runner().invoke(tool("prepare_caltech256").main, [
        str(tmp_path / "c"), "--images", str(images), "--per-class", "2", "--resize", "32", "--workers", "1", "--json"])
    assert result.exit_code == 0, result.output
    done = json.loads(result.stdout.splitlines()[-1])
    assert done["classes"] == 20 and done["records"][str(tmp_path / "c-train.rec")] == 40
    assert done["records"][str(tmp_path / "c-val.rec")] == 490 - 40
