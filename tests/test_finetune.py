"""finetune: settings and their layers, sources, the split that keeps copies together, the audit's part, choices."""
from __future__ import annotations

import json
import shutil

import cv2
import mxnet as mx
import numpy as np
import photos
import pytest
from click.testing import CliRunner

from gluon_ft import backbones, fine_tune_net, freezing
from gluon_ft.advice import Facts
from gluon_ft.data import split
from gluon_ft.errors import ConfigError, DataError, UserError, WeightsError
from gluon_ft.finetune import (
    check,
    choice,
    division,
    examine,
    folder,
    network,
    pictures,
    plan,
    prepare,
    settings,
    sources,
)
from gluon_ft.finetune.settings import JobSettings, collect
from gluon_ft.finetune.values import coerce
from gluon_ft.weights import catalog
from gluon_ft.weights import pretrained as pretrained_module


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


def source_of(root):
    return sources.find(JobSettings(data=str(root)))[0]


def test_without_copies_the_split_is_that_of_gluon_ft_split(tmp_path):
    root = photos.make(tmp_path / "p", count=7)
    drawn = split.split(root, fraction=0.7, seed=3)
    train, val = division.divide(source_of(root), 0.3, 3)
    assert train == [(entry.path, entry.label) for entry in drawn.parts["train"]]
    assert val == [(entry.path, entry.label) for entry in drawn.parts["val"]]


@pytest.mark.parametrize("seed", range(6))
def test_copies_stay_on_one_side_of_the_split(tmp_path, seed):
    source = source_of(photos.make(tmp_path / "p", count=6))
    groups = [{"red/00.png", "red/01.png", "red/02.png"}, {"green/00.png", "blue/00.png"}]
    train, val = ({path for path, _ in part} for part in division.divide(source, 0.5, seed, groups))
    assert len(train) + len(val) == 18 and not train & val
    assert groups[0] <= train or groups[0] <= val
    assert groups[1] <= train  # of two classes: nobody knows which is right
    for name in photos.COLOURS:
        assert any(path.startswith(name) for path in val) and any(path.startswith(name) for path in train)


def test_a_class_of_one_image_cannot_be_split(tmp_path):
    root = photos.make(tmp_path / "p", count=3)
    for number in (1, 2):
        (root / "red" / f"{number:02}.png").unlink()
    with pytest.raises(DataError) as error:
        division.divide(source_of(root), 0.2, 0)
    assert str(error.value).startswith(f"{root}: 1 of 3 classes with too few images; expected 2 or more") and (
        "'red' has 1" in str(error.value))


def test_a_class_whose_images_are_all_copies_trains_only(tmp_path):
    source = source_of(photos.make(tmp_path / "p", count=3))
    _, val = division.divide(source, 0.3, 0, [{f"red/0{i}.png" for i in range(3)}])
    assert {path.split("/")[0] for path, _ in val} == {"green", "blue"}


def spoilt(tmp_path):
    """Ten images a class; a mirrored copy of a red one in red and in blue, one file that is no image."""
    root = photos.make(tmp_path / "p")
    picture = cv2.imread(str(root / "red" / "03.png"))
    cv2.imwrite(str(root / "red" / "copy.png"), cv2.flip(picture, 1))
    cv2.imwrite(str(root / "blue" / "copy.png"), picture)
    (root / "green" / "00.png").write_bytes(b"not an image")
    return root


def test_the_audit_keeps_copies_together_and_leaves_bad_files_out(tmp_path):
    root = spoilt(tmp_path)
    for seed in range(5):
        data = prepare.prepare(JobSettings(data=str(root), seed=seed))
        train, val = ({path for path, _ in data.parts[name].files} for name in ("train", "validation"))
        assert {"red/03.png", "red/copy.png", "blue/copy.png"} <= train
        assert "green/00.png" not in train | val and len(train | val) == 31
    assert data.left_out == [{"part": "train", "path": "green/00.png", "why": data.left_out[0]["why"]}]
    assert data.facts == {"unreadable": 1, "copies_across": 0, "copies_within": 2, "two_labels": 2, "left_out": 1} or (
        data.facts["two_labels"] == 1)
    text = "\n".join(data.lines)
    assert "1 images cannot be read, left out: green/00.png (" in text
    assert "pairs of images are copies of each other, kept on one side of the split: " in text
    assert "pairs of equal images have two labels: one of them is wrong: " in text


def test_an_audit_that_only_reports_leaves_everything_in(tmp_path):
    data = prepare.prepare(JobSettings(data=str(spoilt(tmp_path)), audit="report"))
    assert sum(part.images for part in data.parts.values()) == 32 and not data.left_out
    assert any(line.startswith("1 images cannot be read: green/00.png") for line in data.lines)
    data = prepare.prepare(JobSettings(data=str(tmp_path / "p"), audit="none"))
    assert data.lines == ["not audited (audit none): copies and bad files were not looked for"] and not data.facts


@pytest.mark.parametrize("names, taken", [(("train", "val", "test"), "val"), (("Training", "test"), "test")])
def test_a_folder_with_parts_is_taken_as_split(tmp_path, names, taken):
    for number, name in enumerate(names):
        photos.make(tmp_path / "p" / name, count=4, seed=number)
    copied = tmp_path / "p" / taken / "red" / "copy.png"
    shutil.copy(tmp_path / "p" / names[0] / "red" / "00.png", copied)
    shutil.rmtree(tmp_path / "p" / taken / "blue")
    data = prepare.prepare(JobSettings(data=str(tmp_path / "p")))
    assert data.parts["train"].images == 12 and data.parts["validation"].images == 8
    assert data.classes == ["blue", "green", "red"]
    assert {label for _, label in data.parts["validation"].files} == {1, 2}
    assert data.left_out == [{"part": "validation", "path": "red/copy.png",
                              "why": "a copy of red/00.png, which is in training"}]
    assert any("1 validation images are copies of training images, left out of validation" in line
               for line in data.lines)


def test_parts_that_do_not_fit(tmp_path):
    photos.make(tmp_path / "p" / "val", count=2)
    photos.make(tmp_path / "p" / "test", count=2)
    with pytest.raises(DataError, match="no training part; expected train/ beside val/ or test/; found test, val"):
        sources.find(JobSettings(data=str(tmp_path / "p")))
    photos.make(tmp_path / "q", ("red", "green"), count=2)
    with pytest.raises(DataError, match="class 'blue' is not in the training part; expected 2 classes: green, red"):
        sources.find(JobSettings(train=str(tmp_path / "q"), val=str(tmp_path / "p" / "val")))
    with pytest.raises(DataError, match="no such file or folder; expected a folder with one subfolder a class"):
        sources.find(JobSettings(data=str(tmp_path / "nothing")))


def test_lists_are_split_or_taken_as_they_are(tmp_path):
    root = photos.make(tmp_path / "p", count=5)
    split.write(split.split(root, fraction=0.6), tmp_path / "a")
    given = prepare.prepare(JobSettings(train=str(tmp_path / "a-train.lst"), val=str(tmp_path / "a-val.lst"),
                                        root=str(root)))
    assert [part.images for part in given.parts.values()] == [9, 6] and given.classes == ["blue", "green", "red"]
    drawn = prepare.prepare(JobSettings(data=str(tmp_path / "a-train.lst"), root=str(root), validation=0.3))
    assert [part.images for part in drawn.parts.values()] == [6, 3]


def test_changed_images_are_noticed_on_reopening(tmp_path):
    root, run = photos.make(tmp_path / "p", count=4), tmp_path / "run"
    run.mkdir()
    written = prepare.write(prepare.prepare(JobSettings(data=str(root))), run)
    again = prepare.reopen(run)
    assert again.parts == written.parts and again.classes == written.classes
    cv2.imwrite(str(root / "red" / "00.png"), np.zeros((40, 40, 3), np.uint8))
    with pytest.raises(DataError) as error:
        prepare.reopen(run)
    assert str(error.value).startswith(f"{run}: the images have changed since this run began; expected those of "
                                       "data.json; found ")
    assert "1 images with other contents (red/00.png)" in str(error.value)


def test_a_run_inside_of_the_photos_is_refused(tmp_path):
    root = photos.make(tmp_path / "p", count=2)
    with pytest.raises(ConfigError, match="the run's folder would be inside of the photos"):
        prepare.check_outside(root / "runs", JobSettings(data=str(root)))
    prepare.check_outside(tmp_path / "runs", JobSettings(data=str(root)))


def test_a_folder_has_one_user_and_goes_when_nothing_came_of_it(tmp_path):
    with folder.claimed(tmp_path / "a"):
        with pytest.raises(UserError, match="the run's folder is in use by another process; expected one process a "
                                            "folder"), folder.claimed(tmp_path / "a"):
            pass
        assert folder.state(tmp_path / "a") == "new"
    assert not (tmp_path / "a").exists()
    with folder.claimed(tmp_path / "a"):
        (tmp_path / "a" / "config.json").write_text("{}")
    assert folder.state(tmp_path / "a") == "unfinished"
    (tmp_path / "a" / "result.json").write_text("{}")
    assert folder.state(tmp_path / "a") == "finished"
    (tmp_path / "b").write_text("")
    with pytest.raises(UserError, match="cannot write the run's folder; expected a folder that can be written; found a "
                                        "file"), folder.claimed(tmp_path / "b"):
        pass


@pytest.mark.parametrize("made", [True, False])
def test_a_folder_that_failed_before_training_is_left_as_it_was(tmp_path, made):
    run = tmp_path / "a"
    run.mkdir()
    for name, stays in (("config.json", False), ("metrics.jsonl", True)):
        with pytest.raises(RuntimeError), folder.claimed(run, made=made):
            (run / "config.json").write_text("{}")
            (run / "cache").mkdir()
            (run / name).write_text("{}")
            raise RuntimeError
        assert run.exists() == (stays or not made)
        if run.exists():
            assert (run / "config.json").exists() == stays and (run / "cache").exists() == stays
        run.mkdir(exist_ok=True)


def at_hand(monkeypatch, *names):
    rows = {row.name for row in catalog.rows()}
    assert set(names) <= rows
    monkeypatch.setattr(choice.store, "is_here", lambda row: row.name in names)


def test_the_best_network_at_hand_by_the_documented_order(monkeypatch):
    at_hand(monkeypatch, "resnet50_v1b:gluon_in1k", "mobilenetv2_1.0:coral_rot180",
            "cifar_resnet20_relu:akamaster_cifar10")
    assert choice.choose("auto", "auto", size=300, gpu=False).pretrained == "mobilenetv2_1.0:coral_rot180"
    assert choice.choose("auto", "auto", size=300, gpu=True).pretrained == "resnet50_v1b:gluon_in1k"
    assert choice.choose("auto", "auto", size=32, gpu=True).backbone == "cifar_resnet20_relu"
    found = choice.choose("mobilenetv2_1.0", "auto", size=300, gpu=False)
    assert (found.pretrained, found.weights) == ("mobilenetv2_1.0:coral_rot180", "coral_rot180")
    assert choice.choose("auto", "coral_rot180", size=300, gpu=False).backbone == "mobilenetv2_1.0"
    # Not at hand: the preferred ones, which will be fetched.
    assert choice.choose("resnet18_v1b", "auto", size=300, gpu=False).pretrained == "resnet18_v1b:gluon_in1k"
    assert choice.choose("lenet", "auto", size=28, gpu=False).weights is False


def test_without_any_weights_a_small_network_from_scratch(monkeypatch, capsys):
    at_hand(monkeypatch)

    def unreachable(row):
        raise choice.DownloadError("no network")

    monkeypatch.setattr(choice.store, "get", unreachable)
    found = choice.choose("auto", "auto", size=300, gpu=False)
    assert (found.backbone, found.pretrained) == ("mobilenet0.25", "none")
    assert found.reason.startswith("a small network from random weights, since no weights for photos on a CPU are at "
                                   "hand and resnet18_v1b:gluon_in1k could not be fetched")
    said = capsys.readouterr().err.splitlines()
    assert "fetching resnet18_v1b:gluon_in1k" in said[0]
    assert said[1].startswith("warning: no pretrained weights: mobilenet0.25 is trained from scratch")
    assert choice.choose("auto", "none", size=300, gpu=True).backbone == "resnet18_v2"
    assert choice.choose("auto", "auto", size=30, gpu=True, strategy="scratch").backbone == "cifar_resnet20_relu"


@pytest.mark.parametrize("arguments, kind, message", [
    (("resnet18", "auto"), UserError, "unknown backbone 'resnet18'; did you mean "),
    (("resnet18_v1b", "gluon"), WeightsError, "no weights 'gluon' for backbone 'resnet18_v1b'"),
    (("auto", "nowhere"), WeightsError, "no weights 'nowhere' known, and no such file; "),
    (("resnet18_v1b", "resnet34_v1b:tv_in1k"), ConfigError, "weights of another backbone; expected weights of "
     "resnet18_v1b; found resnet34_v1b:tv_in1k for resnet18_v1b")])
def test_weights_that_do_not_exist(arguments, kind, message):
    with pytest.raises(kind) as error:
        choice.choose(*arguments, size=None, gpu=False)
    assert str(error.value).startswith(message)


def test_offline_the_error_names_what_is_at_hand(monkeypatch):
    at_hand(monkeypatch, "cifar_resnet20_relu:akamaster_cifar10")
    monkeypatch.setattr(choice.pretrained.store, "get", lambda *a, **k: (_ for _ in ()).throw(
        choice.DownloadError("unreachable", expected="r18.pth", remedy="put the file into X")))
    with pytest.raises(WeightsError) as error:
        network.build(choice.Choice("resnet18_v1b", "resnet18_v1b:gluon_in1k", ""), ["a", "b"], None, 0, None)
    assert str(error.value) == (
        "weights resnet18_v1b:gluon_in1k are not here and cannot be fetched; expected r18.pth; found at hand: "
        "cifar_resnet20_relu:akamaster_cifar10; --pretrained with one of these, --pretrained none to start from random "
        "weights, or put the file into X")


def test_offline_without_any_weights_the_error_offers_none(monkeypatch):
    at_hand(monkeypatch)
    error = choice.unobtainable(choice.DownloadError("x", remedy="put the file into X"), choice.Choice("a", "a:b", ""))
    assert str(error) == ("weights a:b are not here and cannot be fetched; found at hand: none; --pretrained none to "
                          "start from random weights, or put the file into X")


def test_preferred_weights_that_cannot_be_had_name_others_at_hand(monkeypatch):
    preferred, other = catalog.rows("resnet18_v1b")[:2]
    at_hand(monkeypatch, other.name)

    def unreachable(*_):
        raise choice.DownloadError("unreachable", remedy="put the file into X")

    monkeypatch.setattr(pretrained_module.store, "get", unreachable)
    with pytest.raises(choice.DownloadError) as error:
        fine_tune_net("resnet18_v1b", 3, pretrained=True)
    assert str(error.value) == f"unreachable; take pretrained='{other.tag}', at hand, or put the file into X"
    with pytest.raises(choice.DownloadError, match=r"^unreachable; put the file into X$"):
        fine_tune_net("resnet18_v1b", 3, pretrained=preferred.tag)


@pytest.mark.parametrize("given, implied", [
    ({}, None), ({"freeze": "none"}, "everything"), ({"freeze": "features"}, "head"), ({"freeze": "2"}, "last-stages"),
    ({"pretrained": "none"}, "scratch"), ({"strategy": "svm", "freeze": "features"}, "svm"),
    ({"strategy": "head"}, "head")])
def test_what_is_frozen_implies_the_strategy(given, implied):
    assert network.strategy_of(JobSettings(data="a", **given)) == implied


@pytest.mark.parametrize("given, message", [
    ({"strategy": "head", "freeze": "none"}, "strategy 'head' and freeze 'none' contradict each other"),
    ({"strategy": "svm", "pretrained": "none"}, "strategy 'svm' builds on weights; found pretrained none")])
def test_contradicting_strategies(given, message):
    with pytest.raises(ConfigError, match=message):
        network.strategy_of(JobSettings(data="a", **given))


def test_freezing_and_rates_are_applied():
    net, _ = network.build(choice.Choice("cifar_resnet20_relu", "none", ""), ["a", "b", "c"], None, 0, None)
    network.apply(net, JobSettings(data="a", freeze="features", head_lr_mult=3.0, dropout=0.5))
    rows = {row["parameter"]: row for row in freezing.describe(net).rows}
    assert [name for name, row in rows.items() if row["lr"]] == ["output.weight", "output.bias"]
    assert rows["output.weight"]["lr"] == 3.0
    assert network.output.dropout_of(net) == 0.5
    network.freeze(net, "none")
    net, _ = network.build(choice.Choice("cifar_resnet20_relu", "none", ""), ["a", "b", "c"], None, 0, None)
    network.apply(net, JobSettings(data="a", freeze="1"))
    rows = freezing.describe(net).rows
    assert rows[0]["lr"] == 0 and rows[-1]["lr"] == 10
    with pytest.raises(ConfigError, match="cannot freeze the first 9 stages"):
        network.freeze(net, "9")


def test_images_are_always_resized_to_what_the_network_takes():
    net = backbones.build("cifar_resnet20_relu")
    assert (network.input_of(net, None).size, network.input_of(net, None).resize) == (32, 32)
    assert (network.input_of(net, 48).size, network.input_of(net, 48).resize) == (48, 48)
    net = backbones.build("mobilenet0.25")
    assert (network.input_of(net, 112).size, network.input_of(net, 112).resize) == (112, 128)


def test_a_size_that_the_network_cannot_take(monkeypatch):
    with pytest.raises(UserError, match=r"squeezenet1\.1 cannot take images of 64 pixels; expected 224"):
        network.build(choice.Choice("squeezenet1.1", "none", ""), ["a", "b"], None, 0, 64)


def test_frozen_parts_are_computed_once_where_that_trains_the_same():
    def kept(**options):
        found = plan.cached(JobSettings(data="a", **options), options)
        return found.cache_features, found.views

    assert kept(freeze="features", augment="none") == ("memory", 0) and kept(freeze="none") == ("none", 0)
    assert kept(freeze="2", epochs=3) == ("memory", 3) and kept(freeze="2", epochs=9) == ("memory", 4)
    assert kept(freeze="2", epochs=9, views=2) == ("memory", 2)
    for other in ({"mixup": 0.2}, {"cutmix": 0.2}, {"unfreeze": (2,)}, {"layer_decay": 0.5}, {"strategy": "svm"}):
        assert kept(freeze="2", **other) == ("none", 0)


def decided(tmp_path, **options):
    wanted = JobSettings(data=str(photos.make(tmp_path / "p", count=4)), **options)
    data, chosen = prepare.prepare(wanted), choice.Choice("cifar_resnet20_relu", "none", "")
    net, _ = network.build(chosen, data.classes, None, 0, None)
    return plan.decide(wanted, {"data": wanted.data, **options}, data, chosen, net, [mx.cpu(0), mx.cpu(1)])


def test_what_is_given_is_not_decided(tmp_path):
    found = decided(tmp_path, lr=0.5, batch_size=2)
    assert (found.settings.lr, found.settings.batch_size, found.settings.strategy) == (0.5, 2, "scratch")
    assert found.settings.lr == 0.5 and found.origins["strategy"] == "advice"
    assert found.settings.devices == "cpu:2" and "auto" not in vars(found.settings).values()
    assert "lr" not in found.origins and found.origins["schedule"] == "advice" and found.settings.schedule == "cosine"
    assert "lr 0.5 in the place of " in found.reasons["given"]
    assert found.reasons["strategy"].startswith("no pretrained weights that fit are at hand (9 images)")


def test_the_advised_rate_is_for_the_batch_that_was_given(tmp_path):
    rates = [decided(tmp_path / name, **options).settings for name, options in (
        ("a", {}), ("b", {"batch_size": 8}), ("c", {"batch_size": 8, "accumulate": 2}))]
    assert [found.batch_size for found in rates] == [4, 8, 8]
    assert [found.lr / rates[0].lr for found in rates] == pytest.approx([1, 2, 4], rel=1e-3)


@pytest.mark.parametrize("given, message", [
    ({"backbone": "lenett"}, "unknown backbone 'lenett'; did you mean lenet"),
    ({"backbone": "lenet", "freeze": "9"}, "cannot freeze the first 9 stages; expected 0 to 3"),
    ({"pretrained": "nowhere"}, "no weights 'nowhere' known, and no such file"),
    ({"devices": "gpu:99"}, "device 'gpu:99' is not there"), ({"devices": "tpu"}, "unknown device 'tpu'"),
    ({"augment": "glon"}, "no augmentation 'glon'; did you mean gluon"),
    ({"augment": '{"hues": 1}'}, "unknown augmentation setting 'hues'; did you mean hue"),
    ({"augment": "{hue"}, "augment does not fit; expected 'gluon'"),
    ({"precision": "float16", "devices": "cpu"}, "precision float16 is not for this device"),
    ({"strategy": "svm", "lr": 0.5}, "strategy 'svm' does not train by steps: lr would be ignored; found lr 0.5"),
    ({"strategy": "svm", "batch_size": 8}, "strategy 'svm' does not train by steps: batch_size would be ignored"),
    ({"strategy": "head", "backbone": "lenet"}, "strategy 'head' builds on weights; found pretrained none"),
    ({"strategy": "head", "freeze": "none"}, "strategy 'head' and freeze 'none' contradict each other")])
def test_settings_are_checked_before_the_images(given, message):
    # There is no such folder, so that what is checked later would not come to be said.
    with pytest.raises(UserError) as error:
        check.check(JobSettings(data="nowhere", **given), given, {})
    assert str(error.value).startswith(message)


def test_what_is_checked_early_is_found_once(tmp_path):
    wanted = JobSettings(data=str(photos.make(tmp_path / "p", count=4)), backbone="lenet", freeze="2", augment="none")
    found = check.check(wanted, {}, {})
    assert found == sources.find(wanted) and prepare.prepare(wanted, found).parts == prepare.prepare(wanted).parts


def test_pictures_of_predictions(tmp_path):
    classes = ["cat", "dog_$_", "owl"]
    labels = np.array([0, 0, 1, 1, 2, 2])
    probabilities = np.eye(3, dtype=np.float32)[[0, 1, 1, 1, 1, 1]] * 0.8 + 0.05
    assert pictures.confusions(probabilities, labels, classes) == ["owl taken for dog_$_: 2", "cat taken for dog_$_: 1"]
    path = pictures.draw_confusion(probabilities, labels, classes, tmp_path / "c.png")
    assert cv2.imread(str(path)).shape[0] > 200
    many = [str(i) for i in range(40)]
    path = pictures.draw_confusion(np.eye(40), np.arange(40), many, tmp_path / "d.png")
    assert cv2.imread(str(path)).shape[0] > 200


def test_examined_lists_of_different_roots_need_a_root(tmp_path):
    for name in "ab":
        root = photos.make(tmp_path / name, count=3)
        split.write(split.split(root, fraction=0.5), tmp_path / f"{name}l")
    one, two = sources.find(JobSettings(train=str(tmp_path / "al-train.lst"), val=str(tmp_path / "bl-val.lst")))
    one, two = (sources.replace(s, root=tmp_path / n) for s, n in ((one, "a"), (two, "b")))
    with pytest.raises(DataError, match="lists of two folders cannot be compared"):
        examine.examine(one, two, "fix")


def test_every_setting_has_an_option_and_help():
    from gluon_ft.commands.train import HELP, default, train

    assert set(HELP) == set(settings.names()) - {"data"}
    text = " ".join(CliRunner().invoke(train, ["--help"]).output.split())
    for words in ("Passes over the training images. [default: as advised]", "Of sgd and nag. [default: 0.9]",
                  "svm (linear SVM on the pretrained features), head (",
                  "Weight decay. [default: 0.0001, or as advised]",
                  "train (they follow the batches) or frozen (the weights' own are held). [default: as advised]",
                  "Of everything that is drawn. [default: 0]", "biases, gamma and beta as well. [default: yes]"):
        assert words in text, words
    assert "auto" not in {default(name) for name in settings.names()}


def test_an_svm_is_not_chosen_where_its_settings_would_be_ignored():
    facts = Facts(100, 2, 50, 50, weights="w", stages=5)
    wanted = JobSettings(data="a", epochs=7)
    assert plan._advised(JobSettings(data="a"), facts, None, []).strategy == "svm"
    found = plan._advised(wanted, facts, None, ["epochs"])
    assert found.strategy == "head" and "epochs is for training by steps" in found.reasons[0][0]
    with pytest.raises(ConfigError, match="strategy 'svm' does not train by steps: epochs would be ignored; found"):
        plan._advised(wanted, facts, "svm", ["epochs"])
    assert plan.by_steps(JobSettings(data="a", batch_size=4, dropout=0.0), {"batch_size": 4, "dropout": 0.0}) == [
        "batch_size"]


def test_an_svm_needs_two_images_of_each_class():
    facts = Facts(100, 2, 1, 99, weights="w", stages=5)
    with pytest.raises(DataError, match="a class with too few training images for strategy 'svm'; expected 2 or more"):
        plan._advised(JobSettings(data="a", strategy="svm"), facts, "svm", [])
    found = plan._advised(JobSettings(data="a"), facts, None, [])
    assert found.strategy == "head" and "but a class has one image only" in found.reasons[0][0]


def test_a_strategy_that_follows_from_freeze_says_so():
    facts = Facts(100, 2, 50, 50, weights="w", stages=5)
    found = plan._advised(JobSettings(data="a", freeze="features"), facts, "head", [])
    assert found.reasons[0] == ("'head' follows from freeze features", "you")
    found = plan._advised(JobSettings(data="a", strategy="head", freeze="features"), facts, "head", [])
    assert found.reasons[0] == ("'head' was asked for", "you")
