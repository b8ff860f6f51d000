"""The container files as far as they can be checked without Docker: paths, users, packages that exist."""
from __future__ import annotations

import re
import subprocess
import sys

import pytest
from conftest import ROOT

FILES = sorted((ROOT / "containers").glob("Dockerfile.*"))


def instructions(path) -> list[tuple[str, str]]:
    """(instruction, the rest) of each, with continued lines joined."""
    text = re.sub(r"^#.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE).replace("\\\n", " ")
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in lines]


def test_there_is_one_for_the_cpu_and_one_for_gpus():
    assert [path.name for path in FILES] == ["Dockerfile.cpu", "Dockerfile.gpu"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_container_file(path):
    found = instructions(path)
    assert (found[0][0], found[-1][0]) == ("FROM", "CMD")
    assert {name for name, _ in found} <= {"FROM", "RUN", "USER", "WORKDIR", "ENV", "COPY", "CMD"}
    assert re.fullmatch(r"python:3\.11-slim-bookworm", found[0][1])
    user = next(place for place, (name, _) in enumerate(found) if name == "USER")
    assert found[user][1] == "gluon" and "useradd --create-home gluon" in found[user - 1][1]
    assert all(name != "RUN" or "apt-get" not in rest for name, rest in found[user:])
    for name, rest in found:
        if name == "COPY":
            *sources, target = [word for word in rest.split() if not word.startswith("--")]
            assert all((ROOT / source).exists() for source in sources) and target == "."
        if name == "RUN":
            assert all((ROOT / named).is_file() for named in re.findall(r"-r (\S+)", rest))
    assert any("make .venv/ready" in rest for name, rest in found if name == "RUN")
    assert "$(READY):" in (ROOT / "Makefile").read_text(encoding="utf-8")  # which is .venv/ready


def test_what_stays_out_of_the_image_is_nothing_that_it_needs():
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert {".git", ".venv*", "runs"} <= set(ignored)
    for needed in ("setup.py", "Makefile", "requirements", "gluon_ft", "tests", "README.md", "pyproject.toml"):
        assert needed not in ignored


def test_the_lock_for_gpus_has_what_the_extra_brings():
    names = re.findall(r'\("([\w-]+)", ">=([\d.]+),?', (ROOT / "setup.py").read_text(encoding="utf-8"))
    lock = dict(line.split("==") for line in (ROOT / "requirements/cu112.txt").read_text().splitlines()
                if not line.startswith("#"))
    assert set(lock) == {"mxnet-cu112", *(f"nvidia-{name}-cu11" for name, _ in names)}
    assert lock["nvidia-cudnn-cu11"].startswith("8.") and lock["mxnet-cu112"] == "1.9.1"


@pytest.mark.slow
def test_the_packages_of_the_lock_for_gpus_exist():
    """pip resolves every line for Linux on x86_64 and Python 3.11, and fetches none of the files."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--quiet", "--only-binary=:all:",
         "--platform", "manylinux2014_x86_64", "--python-version", "3.11", "--target", "nowhere", "--ignore-installed",
         "-r", str(ROOT / "requirements/cu112.txt")], capture_output=True, text=True, check=False, timeout=600)
    if "onnection" in done.stderr:
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr
