"""The documentation: its commands and programs run, as they stand, on small drawings; its pages and pictures are there.

A fence is run where the line before it is `<!-- run -->`, the fences of a page one after the other in one folder. One
that is not says why: `<!-- not run: reason -->`.
"""
from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import ROOT
from PIL import Image

from gluon_ft.data.datasets import drawings
from gluon_ft.io import paths

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"(?P<before>[^\n]*)\n```(?P<language>\w*)\n(?P<code>.*?)\n```", re.DOTALL)


class Fence(NamedTuple):
    before: str
    language: str
    code: str

    @property
    def is_run(self) -> bool:
        return self.before.strip() == "<!-- run -->"


def fences(page: Path) -> list[Fence]:
    return [Fence(**found.groupdict()) for found in FENCE.finditer("\n" + page.read_text(encoding="utf-8"))]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_fence_is_run_or_says_why_not(page):
    for fence in fences(page):
        reason = re.fullmatch(r"<!-- not run: .{8,} -->", fence.before.strip())
        if fence.language in ("sh", "python"):
            assert fence.is_run or reason, fence.code
        else:
            assert not re.search(r"^(gluon-ft|import gluon_ft)\b", fence.code, re.MULTILINE), \
                f"a fence of commands is ```sh, one of a program ```python:\n{fence.code}"


@pytest.fixture(name="folder")
def folder_fixture(tmp_path, monkeypatch):
    """What the documentation's user has: photos/ of two classes, val/ alike, holiday/ without labels."""
    for name, count, seed in (("photos", 12, 0), ("val", 5, 1)):
        for thing in ("hotdog", "pizza"):
            for number, pixels in enumerate(drawings.draw([thing] * count, seed=seed, size=96)):
                (tmp_path / name / thing).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(tmp_path / name / thing / f"{number}.jpg", quality=95)
    (tmp_path / "holiday").mkdir()
    for number, pixels in enumerate(drawings.draw(["pizza", "cat"], seed=2, size=96)):
        Image.fromarray(pixels).save(tmp_path / "holiday" / f"{number}.jpg", quality=95)
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(paths.HOME_VARIABLE, str(tmp_path / "home"))
    return tmp_path


def run(fence: Fence, names: dict) -> None:
    """A program here; a command of gluon-ft in this process, another one in a new one."""
    if fence.language == "python":
        exec(compile(fence.code, "<fence>", "exec"), names)  # noqa: S102  (the documentation's own program)
        return
    from gluon_ft.cli.main import main

    for line in fence.code.splitlines():
        first, *rest = shlex.split(line, comments=True) or [""]
        if first == "gluon-ft":
            with pytest.raises(SystemExit) as ended:
                main(rest)
            assert ended.value.code in (0, None, 1) if rest[0] == "audit" else not ended.value.code, line
        elif first == "python":
            subprocess.run([sys.executable, *rest], check=True, env=None)
        else:
            assert not first, f"do not know how to run: {line}"


def run_page(page: Path, language: str | None = None) -> None:
    names: dict = {}
    chosen = [fence for fence in fences(page) if fence.is_run and language in (None, fence.language)]
    if any("runs/photos" in fence.code for fence in chosen):  # a run that the page takes for granted
        chosen.insert(0, Fence("", "sh", "gluon-ft train photos/ --run runs/photos"))
    for fence in chosen:
        run(fence, names)


def test_the_commands_of_the_readme(folder):
    run_page(ROOT / "README.md", "sh")
    assert (folder / "model" / "certificate.json").is_file()


@pytest.mark.slow
def test_the_program_of_the_readme(folder, weights_packages):
    run_page(ROOT / "README.md", "python")


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES[1:] if any(fence.is_run for fence in fences(page))],
                         ids=name_of)
def test_the_fences_of_a_page(page, folder, weights_packages):
    run_page(page)


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 150


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    """Files beside the page; `make docs` checks anchors too."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (page.parent / target).exists(), target


def test_every_page_is_in_the_menu_and_every_public_name_in_the_api():
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = [page.relative_to(ROOT / "docs").as_posix() for page in PAGES[1:]]
    assert [name for name in pages if name not in menu] == []
    import gluon_ft

    index = (ROOT / "docs" / "api" / "index.md").read_text(encoding="utf-8")
    missing = [name for name in gluon_ft.__all__ if f"`{name}`" not in index]
    assert missing == ["UserError", "__version__", "errors"]


def test_every_picture_is_shown_somewhere():
    shown = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    pictures = sorted(path.name for path in (ROOT / "docs" / "images").iterdir())
    assert pictures and all(f"images/{name}" in shown for name in pictures)
    assert sum(path.stat().st_size for path in (ROOT / "docs" / "images").iterdir()) < 1 << 20
