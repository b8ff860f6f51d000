"""The wheel alone, in an empty environment without a checkout beside it: everything that it needs is in it."""
from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT
from PIL import Image

from gluon_ft.data.datasets import drawings


def run(*command, cwd, status=0):
    # Through PYTHONPATH pip would find the checkout, and take the package for installed.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False, env=env)
    if "No matching distribution found" in done.stderr and "pip" in map(str, command):
        pytest.skip("pip reaches no index")
    assert done.returncode == status, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(name="wheel", scope="module")
def wheel_fixture(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, ROOT, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.mark.slow
def test_every_data_file_is_in_it(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    data = {path.relative_to(ROOT).as_posix() for path in (ROOT / "gluon_ft").rglob("*")
            if path.is_file() and path.suffix != ".pyc" and "__pycache__" not in path.parts}
    assert data <= inside
    assert "gluon_ft.pth" in inside


@pytest.mark.slow
def test_from_photos_to_an_export(wheel, tmp_path):
    for thing in ("hotdog", "pizza"):
        for number, pixels in enumerate(drawings.draw([thing] * 12, size=96)):
            (tmp_path / "photos" / thing).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / "photos" / thing / f"{number}.jpg", quality=95)
    venv.create(tmp_path / "empty", with_pip=True)
    programs = tmp_path / "empty" / "bin"
    run(programs / "python", "-m", "pip", "install", "--quiet", f"{wheel}[cpu]", cwd=tmp_path)
    if sys.version_info >= (3, 13):
        run(programs / "python", "-m", "pip", "install", "--quiet", "--no-deps", "mxnet==1.9.1", cwd=tmp_path)
    command = programs / "gluon-ft"
    assert "gluon_ft" in run(command, "doctor", cwd=tmp_path)
    run(command, "train", "photos", "--run", "first", cwd=tmp_path)
    assert "pizza" in run(command, "predict", "first", "photos/pizza/0.jpg", cwd=tmp_path)
    run(command, "export", "first", "-o", "model", "--onnx", cwd=tmp_path)
    assert Path(tmp_path, "model", "certificate.json").is_file()
