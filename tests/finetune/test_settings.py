"""Settings of finetune: values by type, layers and their origins, checks, options of the command."""
from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from gluon_ft.errors import ConfigError
from gluon_ft.finetune import settings
from gluon_ft.finetune.settings import JobSettings, collect
from gluon_ft.io.values import coerce


@pytest.mark.parametrize("text, kind, value", [
    ("3", "int", 3), ("1e3", "int", 1000), (2.0, "int", 2), ("1e-3", "float", 0.001), (1, "float", 1.0),
    ("yes", "bool", True), ("False", "bool", False), ("none", "int | None", None), (None, "str | None", None),
    ("2,4", "tuple[int, ...]", (2, 4)), ([2, 4.5], "tuple[float, ...]", (2.0, 4.5)),
    ("[1, 2]", "tuple[int, ...]", (1, 2)), ("", "tuple[int, ...]", ()), ("a, b", "tuple[str, ...]", ("a", "b")),
    (3, "str", "3"), ("none", "str", "none")])
def test_values_are_read_by_their_type(text, kind, value):
    found = coerce("x", text, kind)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("value, kind, message", [
    ("many", "int", "epochs does not fit; expected a whole number; found 'many'"),
    (2.5, "int", "epochs does not fit; expected a whole number; found 2.5"),
    (True, "int", "epochs does not fit; expected a whole number; found True"),
    ("nan", "float", "epochs does not fit; expected a number; found 'nan'"),
    ("maybe", "bool", "epochs does not fit; expected true or false; found 'maybe'"),
    (None, "float", "epochs does not fit; expected a number; found None"),
    ("1,x", "tuple[int, ...]", "epochs does not fit; expected a whole number; found 'x'")])
def test_values_that_do_not_fit(value, kind, message):
    with pytest.raises(ConfigError) as error:
        coerce("epochs", value, kind)
    assert str(error.value) == message


def test_a_table_is_for_augment_only(tmp_path):
    assert coerce("augment", {"b": 1}, "str") == '{"b": 1}'
    (tmp_path / "c.toml").write_text("[train]\nlr = 0.1\n")
    with pytest.raises(ConfigError) as error:
        collect(tmp_path / "c.toml")
    assert str(error.value) == (f"{tmp_path}/c.toml: train does not fit; expected text; found a table; settings stand "
                                "at the top, in no table")
    (tmp_path / "c.toml").write_text("epochs = 'few'\n")
    with pytest.raises(ConfigError, match=r"c\.toml: epochs does not fit; expected a whole number; found 'few'"):
        collect(tmp_path / "c.toml")


def test_later_layers_win_and_origins_say_so(tmp_path):
    (tmp_path / "c.toml").write_text('data = "photos"\nlr = 0.5\nepochs = 3\nmilestones = [1, 2]\n')
    values, origins = collect(tmp_path / "c.toml", ["epochs=4", "batch-size=8"], {"batch_size": "16", "seed": None})
    assert values == {"data": "photos", "lr": 0.5, "epochs": 4, "milestones": (1.0, 2.0), "batch_size": 16}
    assert origins == {"data": "config", "lr": "config", "epochs": "key=value", "milestones": "config",
                       "batch_size": "option"}


def test_a_folder_given_later_replaces_the_lists_of_a_config(tmp_path):
    (tmp_path / "c.json").write_text(json.dumps({"train": "a.lst", "val": "b.lst"}))
    assert collect(tmp_path / "c.json", [], {"data": "photos"})[0] == {"data": "photos"}
    assert collect(tmp_path / "c.json", ["val=c.lst"])[0] == {"train": "a.lst", "val": "c.lst"}


@pytest.mark.parametrize("name, text, message", [
    ("c.toml", "epoch = 3", "c.toml: unknown setting 'epoch'; did you mean epochs"),
    ("c.toml", "epochs = ", "c.toml: not a configuration; expected TOML; found"),
    ("c.json", "[1]", "c.json: not a configuration; expected names and values; found list"),
    ("d.json", None, "d.json: configuration cannot be read; expected a .toml or .json file; found No such file")])
def test_bad_configuration_files(tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError) as error:
        collect(tmp_path / name)
    assert str(error.value).startswith(f"{tmp_path}/{message}")


@pytest.mark.parametrize("assignments, message", [
    (["lrr=1"], "unknown setting 'lrr'; did you mean lr"), (["lr"], "'lr' is not a setting; expected key=value"),
    (["lr=1", "lr=2"], "setting 'lr' is given twice; found 1 and 2")])
def test_bad_assignments(assignments, message):
    with pytest.raises(ConfigError, match="^" + message):
        collect(None, assignments)


@pytest.mark.parametrize("values, message", [
    ({}, "no images; expected a folder of photos, or --train and --val"),
    ({"data": "a", "train": "b"},
     "two sets of images; expected a folder of photos, or --train and --val; found a and b"),
    ({"data": "a", "val": "b"}, "val without train; expected --train TRAIN --val VAL; found b"),
    ({"data": "a", "validation": 1.0}, "validation out of range; expected 0 to below 1; found 1.0"),
    ({"data": "a", "strategy": "heads"}, "unknown strategy 'heads'; did you mean head?"),
    ({"data": "a", "freeze": "-1"},
     "freeze does not fit; expected 'none', 'features', or a number of stages; found '-1'"),
    ({"data": "a", "epochs": 0}, "epochs out of range; expected a whole number of at least 1; found 0")])
def test_settings_are_checked(values, message):
    with pytest.raises(ConfigError) as error:
        JobSettings(**values)
    assert str(error.value) == message


def test_settings_round_trip_and_give_the_training_part(tmp_path):
    first = JobSettings(data="a", lr=0.3, milestones=(1.5,), schedule="multistep", exclude=("x",), batch_size=4)
    (tmp_path / "c.json").write_text(json.dumps({**first.to_dict(), "origins": {}, "reasons": []}))
    assert JobSettings(**collect(tmp_path / "c.json")[0]) == first
    assert next(iter(first.to_dict())) == "data" and first.training().lr == 0.3


def test_every_setting_has_an_option_and_help():
    from gluon_ft.cli.train import HELP, default, train

    assert set(HELP) == set(settings.names()) - {"data"}
    text = " ".join(CliRunner().invoke(train, ["--help"]).output.split())
    for words in ("Passes over the training images. [default: as advised]", "Of sgd and nag. [default: 0.9]",
                  "svm (linear SVM on the pretrained features), head (",
                  "Weight decay. [default: 0.0001, or as advised]",
                  "train (they follow the batches) or frozen (the weights' own are held). [default: as advised]",
                  "Of everything that is drawn. [default: 0]", "biases, gamma and beta as well. [default: yes]"):
        assert words in text, words
    assert "auto" not in {default(name) for name in settings.names()}
