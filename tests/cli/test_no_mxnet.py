"""Commands that need no MXNet do not import it, and so start at once."""
from __future__ import annotations

import json
import subprocess
import sys

import photos

from gluon_ft.cli.main import COMMANDS

CODE = """
import json, sys
from gluon_ft.cli.main import main
for arguments in json.loads(sys.argv[1]):
    try:
        main(arguments, prog_name="gluon-ft")
    except SystemExit as stop:
        assert not stop.code, arguments
    assert not {"mxnet", "gluoncv"} & set(sys.modules), arguments
"""


def run(*commands, cwd=None):
    """Runs the commands in one new process; what they printed."""
    done = subprocess.run([sys.executable, "-c", CODE, json.dumps([list(map(str, c)) for c in commands])], text=True,
                          capture_output=True, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_help_of_every_command_and_the_version():
    groups = [("data", "list"), ("data", "get"), *(("weights", name) for name in ("list", "get", "import", "export",
                                                                                  "check"))]
    out = run(["--version"], ["--help"], *([*words, "--help"] for words in ([name] for name in COMMANDS)),
              *([*words, "--help"] for words in groups))
    assert out.count("Usage: gluon-ft") == 1 + len(COMMANDS) + len(groups)


def test_data_and_runs(tmp_path):
    folder = photos.make(tmp_path / "photos", count=4)
    (tmp_path / "runs").mkdir()
    out = run(["split", folder, "p", "--fraction", "0.5"], ["pack", "p", folder], ["verify", "p-train.rec"],
              ["inspect", "p-train.rec"], ["runs"], ["data", "list"], cwd=tmp_path)
    assert "wrote p-train.rec: 6 images" in out and "p-train.rec: 6 records, whole" in out and "no runs" in out


def test_audit(tmp_path):
    assert "copies" in run(["audit", photos.make(tmp_path / "photos", count=4)])
