"""The reporter: bars and notices go to standard error, to another object, or nowhere."""
from __future__ import annotations

import subprocess
import sys

from gluon_ft.io import reporter


def test_replaced_and_silenced(capsys, monkeypatch):
    class Listening(reporter.Reporter):
        told: list = []  # noqa: RUF012

        def notice(self, text):
            self.told.append(text)

    before = reporter.set_reporter(Listening())
    try:
        reporter.notice("one")
        with reporter.silenced():
            reporter.notice("two")
        reporter.notice("three")
    finally:
        reporter.set_reporter(before)
    assert Listening.told == ["one", "three"]
    monkeypatch.setenv("GLUON_FT_PROGRESS", "1")
    with reporter.silenced():
        assert list(reporter.progress(range(3))) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")
    reporter.notice("four")
    assert list(reporter.progress(range(3))) == [0, 1, 2]
    error = capsys.readouterr().err
    assert error.startswith("four\n") and "0/3" in error


def test_importing_io_is_cheap():
    code = ("import sys; from gluon_ft.io import archives, atomic, checksums, downloads, locks, reporter, tables;"
            "print({'requests', 'urllib3', 'pooch', 'tqdm', 'filelock', 'numpy', 'mxnet'} & set(sys.modules))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "set()", done.stdout + done.stderr
