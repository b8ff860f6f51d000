"""paths: where the cache folder is."""
from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import cli_runner

from gluon_ft.cli.main import main
from gluon_ft.errors import ConfigError
from gluon_ft.io.paths import cache_home, made


def test_cache_home(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("GLUON_FT_HOME", "own")
    assert cache_home() == tmp_path / "own"
    monkeypatch.setenv("GLUON_FT_HOME", "~/mine")
    assert cache_home() == tmp_path / "mine"
    monkeypatch.setenv("GLUON_FT_HOME", "")
    assert cache_home() == tmp_path / "xdg" / "gluon_ft"
    for unset in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", unset)
        assert cache_home() == Path(tmp_path) / ".cache" / "gluon_ft"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("home", ["/dev/null", "/dev/null/below", "{tmp}/file", "{tmp}/file/below", "{tmp}/nowhere"])
def test_what_cannot_be_the_cache_folder_is_refused(monkeypatch, tmp_path, home):
    (tmp_path / "file").write_text("")
    (tmp_path / "nowhere").symlink_to(tmp_path / "not-there")
    monkeypatch.setenv("GLUON_FT_HOME", home.format(tmp=tmp_path))
    with pytest.raises(ConfigError, match=r"the cache folder cannot be made; expected a folder, or a place for one; "
                                          r"found .* is none; set GLUON_FT_HOME to a folder"):
        cache_home()


@pytest.mark.parametrize("folder", ["/proc/gluon_ft", "/proc/1/x/y", "{tmp}/file/below", "{tmp}/read-only/x"])
def test_a_folder_of_the_cache_that_cannot_be_made_is_one_line(tmp_path, folder):
    (tmp_path / "file").write_text("")
    (tmp_path / "read-only").mkdir(mode=0o555)
    folder = Path(folder.format(tmp=tmp_path))
    if "read-only" in folder.parts and os.access(folder.parent, os.W_OK):
        pytest.skip("this user may write to folders that are read-only")
    if not Path("/proc/1").exists() and folder.is_relative_to("/proc"):
        pytest.skip("no /proc here")
    with pytest.raises(ConfigError, match=r"the cache folder cannot be written to; found .*set GLUON_FT_HOME"):
        made(folder)


def test_a_folder_of_the_cache_is_made(tmp_path):
    assert made(tmp_path / "a" / "b").is_dir() and not list((tmp_path / "a" / "b").iterdir())


def test_a_home_folder_that_is_not_known_is_refused(monkeypatch):
    monkeypatch.setenv("GLUON_FT_HOME", "~nobody-of-that-name/x")
    with pytest.raises(ConfigError, match="nobody-of-that-name/x: the home folder is not known"):
        cache_home()


def test_a_command_that_needs_the_cache_ends_with_one_line(monkeypatch):
    monkeypatch.setenv("GLUON_FT_HOME", "/dev/null")
    result = cli_runner().invoke(main, ["data", "list"])
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1) and "/dev/null: the cache folder" in result.stderr
