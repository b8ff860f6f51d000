"""Settings of finetune: values by type, layers and their origins, checks, options of the command."""
from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from click.testing import CliRunner

from gluon_ft import TrainConfig, freezing, heads
from gluon_ft.errors import ConfigError
from gluon_ft.finetune import settings
from gluon_ft.finetune.settings import JobSettings, collect
from gluon_ft.io.settings import coerce


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
    assert coerce("augment", {"b": 1}, "str", table=True) == '{"b": 1}'
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


def test_training_images_given_later_replace_the_photos_of_a_config(tmp_path):
    (tmp_path / "c.json").write_text(json.dumps({"train": "a.lst", "val": "b.lst"}))
    assert collect(tmp_path / "c.json", ["val=c.lst"])[0] == {"train": "a.lst", "val": "c.lst"}
    (tmp_path / "d.json").write_text(json.dumps({"data": "photos", "train": None, "val": None}))
    assert collect(tmp_path / "d.json", [], {"data": "others"})[0]["data"] == "others"
    assert collect(tmp_path / "d.json", ["train=a.lst"])[0] == {"train": "a.lst", "val": None}


@pytest.mark.parametrize("config, assignments, options", [
    ({}, ["val=v.lst"], {"data": "photos"}), ({}, ["train=t.lst"], {"data": "photos"}),
    ({"train": "t.lst", "val": "v.lst"}, [], {"data": "photos"}), ({"train": "t.lst"}, [], {"data": "photos"}),
    ({"train": "t.lst"}, ["data=photos"], {}), ({"data": "photos"}, ["val=v.lst"], {}),
    ({}, ["data=photos"], {"train": "t.lst", "val": "v.lst"}), ({"data": "photos", "train": "t.lst"}, [], {})])
def test_two_sets_of_images_are_refused_and_none_is_dropped(tmp_path, config, assignments, options):
    (tmp_path / "c.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r"two sets of images: PHOTOS and \w+; .*found photos \(.*\) and \w+ \w\.lst"):
        collect(tmp_path / "c.json", assignments, options)


def test_several_sources_of_a_part_are_one_text(tmp_path):
    (tmp_path / "c.toml").write_text('train = ["a.rec", "b.rec"]\nval = "c.rec"\n')
    assert collect(tmp_path / "c.toml")[0] == {"train": "a.rec;b.rec", "val": "c.rec"}
    assert collect(None, [], {"train": ["a.rec", "b.rec"]})[0] == {"train": "a.rec;b.rec"}


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
    ({"data": "a", "epochs": 0}, "epochs out of range; expected a whole number of at least 1; found 0"),
    ({"data": "a", "epochs": int(1e308)}, "epochs out of range; expected a whole number of at least 1; found "
     "a number beyond 64 bits"),
    ({"data": "a", "batch_size": 10**400}, "batch_size out of range; expected a whole number of at least 1; found "
     "a number beyond 64 bits")])
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
    from gluon_ft.cli.train import train

    known = settings.described()
    assert all(one.about.help.endswith(".") for one in known.values())
    assert {one.name for one in train.params} >= set(known) - {"data"} and known["data"].option is None
    assert set(known) == {field.name for field in dataclasses.fields(JobSettings)}
    text = " ".join(CliRunner().invoke(train, ["--help"]).output.split())
    for words in ("Passes over the training images. [default: as advised]", "Of sgd and nag. [default: 0.9]",
                  "svm (linear SVM on the pretrained features), head (",
                  "Weight decay. [default: 0.0001, or as advised]",
                  "train (they follow the batches) or frozen (the weights' own are held). [default: as advised]",
                  "Of everything that is drawn. [default: 0]", "biases, gamma and beta as well. [default: yes]"):
        assert words in text, words
    assert "auto" not in {settings.default_words(name) for name in known}


# Setting -> values that it cannot have, beside those that no setting of its type can.
OUT_OF_RANGE = {
    "epochs": [0, 2.5], "lr": [0, -1.0], "momentum": [1, -0.1], "wd": [-1e-4], "clip_norm": [-1], "accumulate": [0],
    "warmup": [-1], "lr_factor": [0, 1.5], "lr_every": [0], "milestones": [(0,), (2, 1), 3], "layer_decay": [0, 1.1],
    "head_epochs": [-1], "unfreeze": [(1,), (3, 2), 2], "label_smoothing": [1, -0.1], "mixup": [-1], "cutmix": [-1],
    "ema": [1, -0.1], "patience": [-1], "views": [-1], "seed": [-1, 1 << 32], "save_every": [-1],
    "save_minutes": [-1.0], "keep": [0], "top_k": [-1], "validation": [1, -0.1], "head_lr_mult": [0],
    "dropout": [1, -0.1], "batch_size": [0], "workers": [-1, 257], "size": [7], "freeze": ["-1", "most"]}
WRONG_TYPE = {"int": [True, "1", float("nan"), 1.5, [1], {}], "float": [True, "0.1", float("nan"), float("inf"), [1.0]],
              "bool": [1, "yes"], "str": [5, True, 0.5]}


@pytest.mark.parametrize("name", list(settings.described()))
def test_values_of_a_wrong_type_or_out_of_range_are_config_errors(name):
    one, training = settings.described()[name], name in settings.schema.described(TrainConfig)
    wrong = [*OUT_OF_RANGE.get(name, ()), *WRONG_TYPE[one.plain_kind]]
    if one.kind.startswith("tuple"):
        wrong = [*OUT_OF_RANGE.get(name, ()), "1,2", {}, *((value,) for value in WRONG_TYPE[one.plain_kind])]
    if one.about.choices:
        wrong.append("nonsense")
    if "None" not in one.kind:
        wrong.append(None)
    for value in wrong:
        for kind, rest in ((TrainConfig, {}), (JobSettings, {"data": "photos"}))[not training:]:
            with pytest.raises(ConfigError) as error:
                kind(**{**rest, name: value})
            text = str(error.value)
            assert name in text and ("expected " in text or "did you mean" in text or "known: " in text), (value, text)


@pytest.mark.parametrize("values, message", [
    ({"seed": -1}, "seed out of range; expected a whole number from 0 to 4294967295; found -1"),
    ({"lr": "0.1"}, "lr does not fit; expected a number above 0; found '0.1'"),
    ({"wd": None}, "wd does not fit; expected at least 0; found None"),
    ({"kvstore": 5}, "kvstore does not fit; expected one of local, device, nccl, dist_sync, dist_device_sync, "
                     "dist_async, horovod, byteps; found 5"),
    ({"kvstore": "devise"}, "unknown kvstore 'devise'; did you mean device?"),
    ({"epochs": True}, "epochs does not fit; expected a whole number of at least 1; found True"),
    ({"milestones": 3}, "milestones does not fit; expected several values, each a number; found 3")])
def test_what_a_training_configuration_says_of_wrong_values(values, message):
    with pytest.raises(ConfigError) as error:
        TrainConfig(**values)
    assert str(error.value) == message


def test_numpys_numbers_and_lists_are_settings():
    found = TrainConfig(epochs=np.int64(3), lr=np.float32(0.5), milestones=np.array([1.0, 2.0]), schedule="multistep")
    assert found.milestones == (1.0, 2.0) and found.to_dict()["epochs"] == 3
    assert TrainConfig.from_dict(found.to_dict()) == found


def test_names_that_need_mxnet_are_said_without_it():
    assert set(settings.BATCHNORM) == {freezing.FROZEN, freezing.TRAINED}
    assert settings.described()["head_lr_mult"].default == heads.LR_MULT == 10
