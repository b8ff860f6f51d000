"""The weights catalog and store: the table, finding rows, look-aside folders, hashes, getting over a local server."""
from __future__ import annotations

import dataclasses
import hashlib
import io
import re
import zipfile
from collections import Counter

import pytest
from conftest import shared_data
from local_server import Route, serving

from gluon_ft.errors import DownloadError, WeightsError
from gluon_ft.weights import catalog, store

BODY = bytes(range(256)) * 50
SHA256, SHA1 = hashlib.sha256(BODY).hexdigest(), hashlib.sha1(BODY).hexdigest()


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("GLUON_FT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv(store.VARIABLE, raising=False)


def row_of(*sources, name="resnet50_v1b:gluon_in1k"):
    return dataclasses.replace(catalog.find(name), sources=tuple(sources))


def file_of(name, addresses=(), member=None, role="main", format="torch", **expected):
    return catalog.File(name, format, tuple(addresses), catalog.Checksums(**expected), member, role)


def test_table_is_sound():
    rows = catalog.rows()
    assert len({row.name for row in rows}) == len(rows) > 150
    preferred = Counter(row.backbone for row in rows if row.preferred)
    assert all(preferred[row.backbone] == 1 for row in rows)
    contents = {}
    for row in rows:
        assert row.licence and row.origin.startswith("https://") and (row.top1 is None or 50 < row.top1 < 95)
        assert row.num_classes == {"imagenet-1k": 1000, "cifar-10": 10}.get(row.classes, 11221)
        for files in row.sources:
            assert files[0].role == "main" and files[0].format in catalog.FORMATS[:3]
            for file in files:
                assert file.format in catalog.FORMATS and file.role in catalog.ROLES and "/" not in file.name
                assert not file.package or (file.member and file.checksums.sha256 and not file.addresses)
                assert contents.setdefault(file.name, file) == file, "two files of one name"
                for kind, length in (("sha256", 64), ("sha1", 40), ("sha256_prefix", 8), ("sha1_prefix", 8)):
                    assert re.fullmatch(f"[0-9a-f]{{{length}}}", getattr(file.checksums, kind) or "0" * length)


def test_hashes_agree_with_the_installed_model_stores_and_the_file_names():
    from mxnet.gluon.model_zoo.model_store import _model_sha1 as published

    rows = [row for row in catalog.rows() if row.tag == "gluon_zoo"]
    assert {row.backbone: row.sources[0][0].checksums.sha1 for row in rows} == published
    for row in catalog.rows():
        for file in (file for files in row.sources for file in files):
            first = re.search(r"-([0-9a-f]{8})\.(pth|th|params)$", file.name)
            if first:
                hashes = file.checksums
                full = hashes.sha1 or hashes.sha256 or hashes.sha256_prefix
                assert full.startswith(first.group(1)), file.name


def test_issue_rows_are_there():
    names = {row.name for row in catalog.rows()}
    for backbone in ("resnet18_v1b", "resnet152_v1s", "resnext101_64x4d", "se_resnext50_32x4d", "senet_154",
                     "inceptionv3"):
        assert f"{backbone}:gluon_in1k" in names
    for backbone in ("resnet50_v1b", "vgg16", "vgg16_bn", "alexnet", "squeezenet1.1", "densenet161", "mobilenetv2_1.0"):
        assert f"{backbone}:tv_in1k" in names
    assert {"resnet50_v1b:fb_swsl_ig1b_ft_in1k", "resnet50_v1b:miil_in21k", "resnet18_v2:osmr_in1k",
            "resnet152_v2:gluon_zoo", "resnet-50:imagenet1k", "resnet-152:imagenet11k",
            "cifar_resnet20_relu:akamaster_cifar10"} <= names


def test_preprocessing_belongs_to_the_weights():
    coral = catalog.find("mobilenetv2_1.0:coral_rot180")
    assert coral.preprocessing.rotate180 and coral.preprocessing.mean == coral.preprocessing.std == (128 / 255,) * 3
    assert [file.role for file in coral.sources[0]] == ["main", "overlay"]
    miil = catalog.find("resnet50_v1b:miil_in21k")
    assert miil.num_classes == 11221 and miil.preprocessing.mean == (0,) * 3 and miil.preprocessing.range == (0, 1)
    howto = catalog.find("resnet-50").preprocessing
    assert howto.range == (0, 255) and howto.mean == (0,) * 3 and howto.std == (1,) * 3
    assert catalog.find("inceptionv3").preprocessing.size == 299
    assert catalog.find("inceptionv3:tv_in1k").preprocessing.mean == (0.5,) * 3
    assert catalog.find("cifar_resnet20_relu").preprocessing.size == 32


def test_unverified_says_what_was_not_fetched():
    assert sorted(row.name for row in catalog.rows() if not row.unverified) == sorted(
        [f"cifar_resnet{n}_relu:akamaster_cifar10" for n in (20, 32, 44, 56)]
        + [f"efficientnet_lite{n}:google_in1k" for n in (0, 1, 2)] + ["mobilenetv2_1.0:coral_rot180"])


def test_find():
    row = catalog.find("resnet50_v1b:gluon_in1k")
    assert row == catalog.find("resnet50_v1b", "gluon_in1k") == catalog.find("resnet50_v1b", True)
    assert row == catalog.find("resnet50_v1b") == catalog.rows("resnet50_v1b")[0]
    assert row.name == "resnet50_v1b:gluon_in1k"
    assert row.top1 == 77.58 and row.hash == "sha256 beginning with 0ebe02e2"
    for arguments, why in ((("resnet50_v1b:gluon_1k",), "no weights 'gluon_1k' known for backbone 'resnet50_v1b'; "
                                                        "did you mean gluon_in1k"),
                           (("resnet50v1b", True), "no pretrained weights known for backbone 'resnet50v1b'; did you"),
                           (("resnet50_v1b:gluon_in1k", "tv_in1k"), "two tags for backbone 'resnet50_v1b'")):
        with pytest.raises(WeightsError, match=why):
            catalog.find(*arguments)


def test_get_fetches_once_into_the_cache():
    with serving({"/w.pth": Route(BODY, cuts=[1000])}) as server:
        row = row_of((file_of("w-x.pth", [server.url + "/w.pth"], sha256_prefix=SHA256[:8]),))
        assert store.path(row) is None and not store.is_here(row)
        found = store.get(row, progress=False)
        asked = len(server.requests)
        assert found.path == store.folder() / "w-x.pth" == store.path(row) and found.format == "torch"
        assert store.get(row, offline=True) == found and store.is_here(row) and len(server.requests) == asked


def test_a_zoo_archive_gives_its_member():
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as opened:
        opened.writestr("net-1.params", BODY)
    with serving({"/net-1.zip": Route(raw.getvalue())}) as server:
        name = "net-1.params"
        row = row_of((file_of(name, [server.url + "/net-1.zip"], name, format="params", sha1=SHA1),))
        assert store.get(row).path.read_bytes() == BODY


def test_next_source_and_files_that_go_together():
    with serving({"/bad": Route(b"<html>"), "/main": Route(BODY), "/sym": Route(b"{}")}) as server:
        row = row_of((file_of("a.pth", [server.url + "/bad"], sha256=SHA256),),
                     (file_of("a.params", [server.url + "/main"], format="params", sha256=SHA256),
                      file_of("a.json", [server.url + "/sym"], format="symbol", role="symbol")))
        found = store.get(row)
    assert [p.name for p in found.paths] == ["a.params", "a.json"] and found.format == "params"
    found.paths[1].unlink()
    assert store.path(row) is None


def test_look_aside_folder_is_used_as_it_is_and_checked(tmp_path, monkeypatch):
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
    (one / "w.pth").write_bytes(b"damaged")
    (other / "w.pth").write_bytes(BODY)
    row = row_of((file_of("w.pth", ["http://127.0.0.1:9/w.pth"], sha256=SHA256),))
    monkeypatch.setenv(store.VARIABLE, f"{one}:{other}")
    assert store.get(row).path == store.path(row) == other / "w.pth" and not store.folder().exists()
    monkeypatch.setenv(store.VARIABLE, str(one))
    with pytest.raises(DownloadError, match=rf"{one}/w\.pth \(wrong sha256: expected {SHA256}, found "):
        store.get(row)


def test_offline_error_says_all(tmp_path, monkeypatch):
    monkeypatch.setenv(store.VARIABLE, str(tmp_path / "aside"))
    row = catalog.find("resnet50_v1b:gluon_in1k")
    with pytest.raises(DownloadError) as error:
        store.get(row, offline=True)
    text = str(error.value)
    for file in (file for files in row.sources for file in files):
        assert file.name in text and file.addresses[0] in text
    assert "sha256 beginning with 0ebe02e2" in text and "no hash is published" in text
    assert f"put the file into one of {tmp_path}/aside, {tmp_path}/home/weights" in text and "GLUON_FT_WEIGHTS" in text
    with pytest.raises(DownloadError, match="no address is known from which it can be fetched"):
        store.get(catalog.find("mobilenetv2_1.0:coral_rot180"))


def test_the_real_files_are_found_by_name_and_hash(monkeypatch):
    monkeypatch.setenv(store.VARIABLE, str(shared_data("weights")))
    for row in (row for row in catalog.rows() if not row.unverified and not row.packages):
        found = store.get(row, offline=True)
        assert found.row == row and store.is_here(row)
        assert [path.name for path in found.paths] == [file.name for file in row.sources[0]]
