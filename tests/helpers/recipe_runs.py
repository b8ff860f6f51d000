"""Runs a recipe's command in a test and reads what it printed."""
from __future__ import annotations

import json

import pytest


def call(recipe, tmp_path, capsys, *options, status=0):
    """What the recipe printed, run in a folder of the test's own, once its exit status is as expected."""
    with pytest.raises(SystemExit) as stop:
        recipe.main(["--runs", str(tmp_path / "runs"), *map(str, options)])
    printed = capsys.readouterr()
    assert stop.value.code == status, printed.err
    return printed


def runner(recipe, *always):
    """A fixture, `call` of this recipe. always : name and value of an option of every call that does not give it."""
    @pytest.fixture
    def run(tmp_path, capsys):
        return lambda *options, status=0: call(recipe, tmp_path, capsys, *(() if always[:1] and always[0] in options
                                                                          else always), *options, status=status)

    return run


def result_of(printed) -> dict:
    """What `--json` printed."""
    return json.loads(printed.out.splitlines()[-1])
