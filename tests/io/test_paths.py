"""paths: where the cache folder is."""
from __future__ import annotations

from pathlib import Path

from gluon_ft.io.paths import cache_home


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
