"""console: one-line errors, exit status, --json and --debug, lazy commands, tables."""
from __future__ import annotations

import errno
import json
import re
import shlex
import subprocess
import sys
import types

import click
import numpy as np
import pytest
from conftest import cli_runner

from gluon_ft.cli import console
from gluon_ft.cli import main as cli_main
from gluon_ft.errors import DataError
from gluon_ft.finetune import settings


@console.command()
@click.option("--food", default="bread")
@click.option("--times", type=int, default=1)
def eat(food, times, as_json):
    """Eats."""
    if food == "stone":
        raise DataError("not food", path="stone", remedy="take bread")
    if food == "bug":
        raise KeyError("an oversight")
    if food == "locked":
        raise PermissionError(errno.EACCES, "Permission denied", "/locked")
    if food == "missing":
        raise FileNotFoundError(errno.ENOENT, "No such file", "/missing")
    if food == "stop":
        raise KeyboardInterrupt
    console.emit({"food": food, "times": times}, as_json)
    return {"nothing": 1, "yes": True}.get(food)


@click.group(cls=console.Group, lazy={"doctor": ("gluon_ft.cli.main:doctor", "One line on doctor.")})
def kitchen():
    """Kitchen."""


kitchen.add_command(eat)


def run(command, *args, status=0):
    """Exit status checked; standard output and standard error."""
    result = cli_runner().invoke(command, list(args), prog_name="kitchen" if command is kitchen else "eat")
    assert result.exit_code == status, (result.output, result.exception)
    return result.stdout, result.stderr


@pytest.mark.parametrize("before, command", [((), eat), (("eat",), kitchen)])
def test_unknown_option_suggests_and_exits_with_2(before, command):
    path = "eat" if command is eat else "kitchen eat"
    out, err = run(command, *before, "--foo", "x", status=2)
    assert (out, err) == ("", f"error: no such option --foo; did you mean --food?; see {path} --help\n")
    _, err = run(command, *before, "--zzz", status=2)
    assert err.startswith("error: no such option --zzz; known: --debug, --food, --help, --json, --times, -h; see ")


@pytest.mark.parametrize("before, command", [((), eat), (("eat",), kitchen)])
def test_json_and_debug_alone_and_in_a_group(before, command):
    out, _ = run(command, *before, "--json")
    assert json.loads(out.splitlines()[-1]) == {"food": "bread", "times": 1}
    out, err = run(command, *before, "--food", "stone", status=2)
    assert (out, err) == ("", "error: stone: not food; take bread\n")
    _, err = run(command, *before, "--food", "stone", "--debug", status=2)
    assert err.startswith("Traceback") and err.endswith("error: stone: not food; take bread\n")


def test_debug_before_the_command_of_a_group():
    _, err = run(kitchen, "--debug", "eat", "--food", "stone", status=2)
    assert err.startswith("Traceback")


def test_debug_after_two_dashes_is_an_argument():
    _, err = run(eat, "--food", "stone", "--", "--debug", status=2)
    assert "Traceback" not in err


def test_other_usage_errors_are_one_line():
    _, err = run(eat, "--times", "many", status=2)
    assert err == "error: invalid value for '--times': 'many' is not a valid integer; see eat --help\n"
    _, err = run(kitchen, "et", status=2)
    assert err == "error: no command 'et'; did you mean eat?; see kitchen --help\n"


def test_a_bug_keeps_its_traceback():
    result = cli_runner().invoke(eat, ["--food", "bug"])
    assert isinstance(result.exception, KeyError)
    assert result.stderr == ""


def test_what_the_machine_refuses_is_one_line_but_other_os_errors_are_bugs():
    _, err = run(eat, "--food", "locked", status=2)
    assert err == "error: /locked: Permission denied\n"
    assert isinstance(cli_runner().invoke(eat, ["--food", "missing"]).exception, FileNotFoundError)


def test_interrupted():
    _, err = run(eat, "--food", "stop", status=130)
    assert err.strip() == "interrupted"


def test_interrupted_while_a_command_is_imported(monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    module = types.ModuleType("slow_command")
    module.__getattr__ = interrupt
    monkeypatch.setitem(sys.modules, "slow_command", module)
    group = console.Group("tool", lazy={"slow": ("slow_command:main", "Slow.")})
    _, err = run(group, "slow", status=130)
    assert err.strip() == "interrupted"


def test_an_unknown_command_lists_all():
    from gluon_ft.cli import main

    _, err = run(main.main, "bogus", status=2)
    assert err.startswith(f"error: no command 'bogus'; known: {', '.join(sorted(main.COMMANDS))}; see ")


def test_returned_number_is_the_status_and_true_is_not():
    run(eat, "--food", "nothing", status=1)
    run(eat, "--food", "yes", status=0)


def test_group_without_command_prints_help():
    out, _ = run(kitchen)
    assert "Commands:" in out and "One line on doctor." in out and "Eats." in out


def test_lazy_command_is_imported_when_used_only():
    code = ("import sys; from gluon_ft.cli import main; from click.testing import CliRunner\n"
            "out = CliRunner().invoke(main.main, ['--help']).output\n"
            "assert 'doctor' in out, out\n"
            "loaded = [m for m in sys.modules if m.startswith('gluon_ft.commands.')]\n"
            "assert not loaded, loaded\n"
            "assert 'gluoncv' not in sys.modules and 'matplotlib' not in sys.modules\n"
            "out = CliRunner().invoke(main.main, ['doctor', '--help']).output\n"
            "assert '--json' in out and 'gluon_ft.runtime.doctor' not in sys.modules\n")
    subprocess.run([sys.executable, "-c", code], check=True)


def test_registered_commands_exist_and_their_help_is_one_line():
    from gluon_ft.cli import main

    context = click.Context(main.main)
    for name, (_, text) in main.COMMANDS.items():
        assert "\n" not in text and text.endswith(".")
        assert main.main.get_command(context, name).name == name


@pytest.mark.parametrize("lines", [1, 100_000])
def test_closed_pipe_is_quiet(lines):
    code = ("import click; from gluon_ft.cli import console\n"
            "@click.command(cls=console.Command)\n"
            "def f():\n"
            f"    for _ in range({lines}): print('a line')\n"
            "f()")
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 1


def test_emit_is_strict_json(capsys, tmp_path):
    console.emit({"a": np.float32(0.5), "b": float("nan"), "c": np.arange(3), "d": tmp_path, 1: {2, 1},
                  "e": np.bool_(True), "f": np.float64("inf")}, True)
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    assert json.loads(line, parse_constant=pytest.fail) == {
        "a": 0.5, "b": None, "c": [0, 1, 2], "d": str(tmp_path), "1": [1, 2], "e": True, "f": None}
    console.emit({"a": 1}, False)
    assert capsys.readouterr().out == ""


def test_table():
    rows = [{"name": "fine-tuned", "n": 5, "accuracy": np.float32(0.9)}, {"name": "scratch", "n": 12, "note": "slow"}]
    assert console.table(rows) == ("name         n  accuracy  note\n"
                                   "----------  --  --------  ----\n"
                                   "fine-tuned   5     0.900  -\n"
                                   "scratch     12         -  slow")
    assert console.table([], ["a", "b"]) == "a  b\n-  -"


def test_tables_fit_the_terminal_unless_wide(capsys, monkeypatch):
    rows = [{"image": f"{'a/' * 60}cat.jpg", "class": "c" * 30, "probability": 0.5}]
    for columns in (80, 60):
        monkeypatch.setenv("COLUMNS", str(columns))
        console.show(rows, keep_end=["image"])
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) == columns and "cat.jpg" in lines[2] and lines[2].endswith("0.500")
    console.show(rows, wide=True)
    assert rows[0]["image"] in capsys.readouterr().out
    monkeypatch.delenv("COLUMNS")
    console.show(rows)  # to no terminal
    assert max(map(len, capsys.readouterr().out.splitlines())) == 80


def test_an_option_of_a_setting_has_its_default_help_and_range():
    known = settings.described()

    @console.command()
    @console.setting_option("batch_size", default=8)
    @console.setting_option("optimizer")
    @console.setting_option("lr", "--lr", "--rate", help="Of all.")
    def recipe(batch_size, optimizer, lr, as_json):
        console.emit({"batch_size": batch_size, "optimizer": optimizer, "lr": lr}, as_json)

    out, _ = run(recipe, "--rate", "0.5", "--json")
    assert json.loads(out) == {"batch_size": 8, "optimizer": "sgd", "lr": 0.5}
    out, _ = run(recipe, "--help")
    assert "Of all." in out and known["batch_size"].about.help in " ".join(out.split())
    _, err = run(recipe, "--batch-size", "0", status=2)
    assert err == "error: batch_size out of range; expected a whole number of at least 1; found 0\n"
    _, err = run(recipe, "--optimizer", "sdg", status=2)
    assert err == "error: unknown optimizer 'sdg'; did you mean sgd?\n"


def test_progress_is_drawn_where_asked_only(monkeypatch, capfd):
    monkeypatch.delenv("GLUON_FT_PROGRESS", raising=False)
    assert list(console.progress(range(3))) == [0, 1, 2]
    assert capfd.readouterr().err == ""
    monkeypatch.setenv("GLUON_FT_PROGRESS", "1")
    assert list(console.progress(range(3))) == [0, 1, 2]
    assert "3" in capfd.readouterr().err



@pytest.mark.parametrize("arguments, wording", [
    (["split", "a", "b", "--seed", "1", "--seed", "2"], "option --seed is given twice"),
    (["pack", "a", "b", "--resize", "64", "--quality", "9", "--resize", "32"], "option --resize is given twice"),
    (["audit", "a", "--root", "x", "--root", "y"], "option --root is given twice"),
    (["train", "a", "--lr", "1", "--lr=2"], "option --lr is given twice"),
    (["train", "a", "--ema", "0.9", "--val", "b", "--ema", "0.99"], "option --ema is given twice"),
    (["train", "a", "--allow-empty-classes", "--no-allow-empty-classes"], "--allow-empty-classes is given twice"),
    (["predict", "a", "b", "--top", "1", "--top", "1"], "option --top is given twice"),
])
def test_an_option_that_is_given_twice_is_not_dropped(arguments, wording):
    result = cli_runner().invoke(cli_main.main, arguments)
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1), result.output
    assert wording in result.stderr


@pytest.mark.parametrize("arguments, wording", [
    (["split", "none", "b", "--exclude", "x", "--exclude", "y", "--force", "--force"], "none: not a folder"),
    (["train", "--train", "a.rec", "--train", "b.rec"], "a.rec: no such file"),
    (["train", "--val", "v.rec"], "no images"),
])
def test_options_that_join_may_be_repeated(arguments, wording, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert wording in cli_runner().invoke(cli_main.main, arguments).stderr


def every_command(group=cli_main.main, words=()):
    """(words after gluon-ft, command) of everything that has a --help, groups included."""
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        yield (*words, name), command
        if isinstance(command, click.Group):
            yield from every_command(command, (*words, name))


EVERY = dict(every_command())


@pytest.mark.parametrize("words", EVERY, ids="-".join)
def test_help_has_two_examples_whose_options_there_are(words):
    command = EVERY[words]
    shown = command.get_help(click.Context(command, info_name=" ".join(("gluon-ft", *words))))
    examples = [line.strip() for line in shown.splitlines() if re.match(r"  (gluon-ft|srun|mpirun) ", line)]
    assert len(examples) >= 2, shown
    for line in examples:
        arguments = shlex.split(line[line.index("gluon-ft"):])[1:]
        named = tuple(arguments[:2]) if tuple(arguments[:2]) in EVERY else tuple(arguments[:1])
        known = {option for param in EVERY[named].params for option in (*param.opts, *param.secondary_opts)}
        given = arguments[:arguments.index("--")] if "--" in arguments else arguments
        assert {word for word in given if word.startswith("-")} <= known | {"--help"}, line
    if isinstance(command, click.Group):
        assert "..." not in shown[shown.index("Commands:"):], "a line of the list is cut"
