"""Names that a stranger chose are printed escaped, one line each, and stand exactly in JSON."""
from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest
from conftest import cli_runner
from PIL import Image

import gluon_ft
from gluon_ft.cli import console
from gluon_ft.cli.main import main
from gluon_ft.errors import DataError, UserError, escaped
from gluon_ft.evaluation.model import save_model
from gluon_ft.io import reporter
from gluon_ft.io.tables import table

NAMES = {
    "new line": ("a\nb", r"a\nb"), "return": ("a\rb", r"a\rb"), "tab": ("a\tb", r"a\tb"), "bell": ("a\x07", r"a\x07"),
    "title of the window": ("\x1b]0;pwned\x07", r"\x1b]0;pwned\x07"), "colour": ("\x1b[31mred", r"\x1b[31mred"),
    "delete": ("a\x7f", r"a\x7f"), "C1 control": ("\x9b31m", r"\x9b31m"), "next line": ("a\x85b", r"a\x85b"),
    "right to left": ("a\u202egnp.exe", r"a\u202egnp.exe"), "isolate": ("\u2067x\u2069", r"\u2067x\u2069"),
    "line separator": ("a\u2028b", r"a\u2028b"), "zero width": ("a\u200bb\ufeff", r"a\u200bb\ufeff"),
    "tag": ("a\U000e0041", r"a\U000e0041"), "not UTF-8": ("caf\udce9.jpg", r"caf\xe9.jpg"),
    "half a character": ("a\ud83d", r"a\ud83d"),
}
KEPT = ["猫", "😀", "👩\u200d👧", "می\u200cخواهم", "a\\nb", "ein  Name", "é", "e\u0301", "x\xa0y"]


@pytest.mark.parametrize("case", NAMES)
def test_what_a_terminal_would_act_on_is_escaped_everywhere(case, capsys):
    name, shown = NAMES[case]
    assert escaped(name) == shown and escaped(shown) == shown
    line = str(DataError(f"bad class '{name}'", path=f"x/{name}", found=name, remedy=f"rename {name}"))
    assert line.startswith(f"x/{shown}: bad class") and len(line.splitlines()) == 1 and escaped(line) == line
    lines = table([{"name": name, name: 1}], width=40).split("\n")
    assert len(lines) == 3 and lines[2].startswith(shown) and shown in lines[0] and len(set(map(len, lines[:2]))) == 1
    console.say(f"image: {name}", name, err=True)
    reporter.notice(f"note: {name}")
    assert capsys.readouterr().err == f"image: {shown}\n{shown}\nnote: {shown}\n"


@pytest.mark.parametrize("name", KEPT)
def test_names_in_any_script_stay_as_they_are(name):
    assert escaped(name) == name and table([{"a": name}]).endswith(f"\n{name}")
    assert str(UserError("bad", path=name)) == f"{name}: bad"


def in_a_process(code: str, encoding: str = "utf-8"):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False,
                          env={**os.environ, "PYTHONIOENCODING": encoding})
    assert done.returncode == 0, done.stderr.decode()
    return done


def test_a_warning_is_one_line_too():
    done = in_a_process("import warnings\nfrom gluon_ft.cli.console import command\n@command()\ndef c(as_json):\n"
                        "    warnings.warn('two\\nlines \\x1b[2J of x\\u202ey')\nc([])")
    assert done.stderr.decode() == "warning: two\\nlines \\x1b[2J of x\\u202ey\n"


def test_an_output_that_cannot_hold_a_name_is_no_error():
    done = in_a_process("from gluon_ft.cli.console import command, say\n@command()\ndef c(as_json):\n"
                        "    say('猫 ok')\nc([])", "latin-1")
    assert done.stdout == b"\\u732b ok\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    net = gluon_ft.fine_tune_net("lenet", 2)
    net(mx.nd.zeros((1, 1, 28, 28)))
    net.classes = ["c\x1b[31mat", "dog\n\u202e"]
    net.preprocessing = gluon_ft.Preprocessing(mean=(0.1,), std=(0.5,), channel_order="gray", size=28, resize=None)
    return save_model(net, tmp_path_factory.mktemp("model") / "m.params")


def picture(folder: bytes, name: bytes) -> str:
    path = os.path.join(folder, name)
    array = np.random.default_rng(0).integers(0, 255, (28, 28), np.uint8)
    with open(path, "wb") as file:
        Image.fromarray(array).save(file, "PNG")
    return os.fsdecode(path)


def test_predict_prints_names_escaped_and_carries_them_exactly_in_json(model, tmp_path):
    try:
        paths = [picture(os.fsencode(tmp_path), name) for name in (b"caf\xe9.png", b"a\nb.png", b"\x1b]0;x\x07.png")]
    except OSError:
        pytest.skip("the file system takes UTF-8 names only")
    bad = os.path.join(os.fsencode(tmp_path), b"bro\xffken\n.png")
    Path(os.fsdecode(bad)).write_bytes(b"no image")
    done = cli_runner().invoke(main, ["predict", str(model), *paths, os.fsdecode(bad), "--json", "--wide"])
    assert done.exit_code == console.EXIT_FAILURE, done.output
    *lines, last = done.stdout.splitlines()
    found = json.loads(last)
    assert [each["path"] for each in found["predictions"]] == paths
    assert {each["class"] for each in found["predictions"]} <= {"c\x1b[31mat", "dog\n\u202e"}
    assert [each["path"] for each in found["unreadable"]] == [os.fsdecode(bad)]
    assert len(lines) == 2 + len(paths) and all(line == escaped(line) for line in lines)
    for shown in ("caf\\xe9.png", "a\\nb.png", "\\x1b]0;x\\x07.png"):
        assert sum(shown in line for line in lines) == 1
    assert done.stderr.count("\n") == 1 and "bro\\xffken\\n.png: " in done.stderr


def test_an_argument_is_escaped_in_the_error_that_repeats_it():
    result = cli_runner().invoke(console.Group("g"), ["a\x1b[2J\u202eb"])
    assert result.exit_code == console.EXIT_USER_ERROR and "a\\x1b[2J\\u202eb" in result.stderr
