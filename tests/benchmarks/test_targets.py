"""benchmarks/accuracy/targets.toml: bounds on both sides, options that exist, mistakes that are named."""
from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
from conftest import ROOT

from benchmarks.accuracy import targets
from gluon_ft.errors import ConfigError


def test_every_target_is_bounded_on_both_sides_and_can_be_found():
    found = {target.id: target for target in targets.load()}
    for name in ("caltech256-resnet50", "caltech256-resnet152", "caltech256-resnet50-gluon", "caltech256-resnet50-miil",
                 "caltech256-resnet50-swsl", "caltech256-resnet152-gluon", "digits-odd-even", "mnist-odd-even",
                 "hot-dog", "hot-dog-svm", "caltech20-symbolic", "caltech20-gluon", "cifar10-import"):
        assert name in found
    for target in found.values():
        for check in target.checks:
            assert check.ahead_of or 0 <= check.low <= check.high < 10
            assert not check.quantity.endswith("accuracy") or check.ahead_of or check.high <= 1
        if target.weights:
            from gluon_ft.weights import catalog

            assert catalog.find(target.weights).name == target.weights
    published = {check.row: check.published for check in found["cifar10-import"].checks}
    assert list(published.values()) == ["0.804", "0.840", "0.821", "0.825"]
    assert found["caltech256-resnet50"].checks[0].low > 0.77 and found["caltech256-resnet152"].checks[0].low > 0.86


def test_options_that_the_scripts_do_not_have_would_be_noticed():
    from click.testing import CliRunner

    for target in targets.load():
        if not (ROOT / target.script).is_file():
            continue
        module = importlib.import_module(".".join(Path(target.script).with_suffix("").parts))
        known = {option for parameter in module.main.params for option in parameter.opts}
        assert {f"--{name}" for name in target.options} <= known, target.id
        assert CliRunner().invoke(module.main, [*target.command(2), "--help"]).exit_code == 0


WHOLE = """
[data.d]
kind = "folder"
classes = 2
images = 4
[[target]]
id = "a"
title = "A"
source = "s"
script = "x.py"
data = "d"
device = "cpu"
minutes = 1
seeds = 2
[[target.checks]]
row = "r"
low = 0.5
high = 0.6
"""


@pytest.mark.parametrize(("change", "message"), [
    (("seeds = 2", "seeds = 2\nsedes = 3"), "target 'a': unknown key 'sedes'; did you mean seeds"),
    (("high = 0.6", ""), "check of 'r' is not complete; expected low and high in this order"),
    (("low = 0.5", "low = 0.7"), "is not complete"),
    (('data = "d"', 'data = "e"'), "no data 'e'"),
    (('kind = "folder"', 'kind = "foldr"'), "no kind 'foldr'; did you mean folder"),
    (("minutes = 1", ""), "target 'a' is not complete; found missing 1 required positional argument: 'minutes'"),
    (('[[target.checks]]\nrow = "r"\nlow = 0.5\nhigh = 0.6', ""), "target 'a' checks nothing"),
    (("seeds = 2", "seeds = "), "targets cannot be read"),
])
def test_mistakes_in_the_table_are_named(tmp_path, change, message):
    (tmp_path / "t.toml").write_text(WHOLE)
    assert targets.load(tmp_path / "t.toml")[0].command(2) == ["--seeds", "2"]
    assert change[0] in WHOLE
    (tmp_path / "t.toml").write_text(WHOLE.replace(*change))
    with pytest.raises(ConfigError, match=re.escape(message)):
        targets.load(tmp_path / "t.toml")
