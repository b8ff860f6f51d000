"""benchmarks/accuracy.py: bounds on both sides, runs that are refused, honest words, regressions that it notices."""
from __future__ import annotations

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import shared_data
from PIL import Image

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))
import accuracy
import identity
import recording
import rows
import targets

from gluon_ft import TrainConfig
from gluon_ft.data import lists, records, split
from gluon_ft.errors import ConfigError
from gluon_ft.reporting import Run

ROOT = Path(__file__).resolve().parents[1]
REGRESSIONS = Path(__file__).with_name("deliberate_regressions.py")
CONFIG = TrainConfig(epochs=2, lr=0.01, momentum=0.9, wd=0.0)


# ------------------------------------------------------------------------------------------------ the table

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

    sys.path.append(str(ROOT / "recipes"))
    for target in targets.load():
        if not (ROOT / target.script).is_file():
            continue
        module = __import__(Path(target.script).stem)
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


# ------------------------------------------------------------------------------------------------ figures

def finished(folder, accuracies, epochs=(), config=None):
    """A run folder with a row a seed of 'net', and epochs' records (series, seed, epoch, accuracy, loss)."""
    run = Run(folder=folder, config=config)
    for series, seed, epoch, value, loss in epochs:
        run.log(series, seed=seed, epoch=epoch, validation_accuracy=value, train_loss=loss)
    run.finish([{"name": "net", "seed": seed, "train_accuracy": 1.0, "validation_accuracy": value}
                for seed, value in enumerate(accuracies)])
    return run.folder


def target(*checks, seeds=3, **more):
    data = targets.Data("d", "folder", 4, 2)
    return targets.Target("t", "T", "s", "x.py", data, "cpu", 1, seeds, checks, **more)


@pytest.mark.parametrize(("low", "high", "over", "fault"), [
    (0.85, 0.95, "each", None),
    (0.90, 0.90, "median", None),
    (0.86, 0.95, "each", "net, validation accuracy is 0.8500, outside 0.86 to 0.95"),
    (0.80, 0.94, "each", "net, validation accuracy is 0.9500, outside 0.8 to 0.94"),
    (0.91, 0.95, "median", "the median of net, validation accuracy is 0.9000, outside 0.91 to 0.95"),
])
def test_bounds_hold_on_both_sides(tmp_path, low, high, over, fault):
    run = finished(tmp_path / "run", [0.85, 0.90, 0.95])
    [found] = rows.measure(target(targets.Check("net", low=low, high=high, over=over)), run)
    assert found.values == (0.85, 0.90, 0.95) and found.fault == fault


def test_a_median_needs_all_seeds_and_one_seed_can_be_meant(tmp_path):
    run = finished(tmp_path / "run", [0.85, 0.90], [("net", 0, 1, 0.8, 0.5), ("net", 0, 2, 0.9, 0.3),
                                                    ("net", "1", 1, 0.7, 0.6), ("net", "1", 2, 0.8, 0.4)])
    of = [targets.Check("net", low=0, high=1, over="median"), targets.Check("net", "train_loss", 0.2, 0.35, seed=0),
          targets.Check("net", "train_loss", 0.2, 0.35, seed=1), targets.Check("net", "train_loss", 0, 1, seed=7),
          targets.Check("net", low=0.75, high=0.85, epoch=1)]
    median, first, second, absent, early = rows.measure(target(*of), run)
    assert median.values == () and absent.values == ()
    assert first.values == (0.3,) and first.fault is None
    assert second.values == (0.4,) and "net, train loss, seed 1 is 0.4000, outside 0.2 to 0.35" in second.fault
    assert early.values == (0.8, 0.7) and "epoch 1 is 0.7000" in early.fault


def test_a_loss_that_was_not_finite_is_outside(tmp_path):
    run = finished(tmp_path / "run", [0.9], [("net", 0, 1, 0.9, float("nan"))])
    [found] = rows.measure(target(targets.Check("net", "train_loss", 0, 9)), run)
    assert "is nan, outside" in found.fault


def test_a_row_that_is_not_there_is_refused(tmp_path):
    run = finished(tmp_path / "run", [0.9])
    with pytest.raises(identity.Refused, match="has no other, validation accuracy"):
        rows.measure(target(targets.Check("other", low=0, high=1)), run)
    with pytest.raises(identity.Refused, match="holds no finished run"):
        rows.measure(target(targets.Check("net", low=0, high=1)), tmp_path)


@pytest.mark.parametrize(("scratch", "fault"), [
    ([0.9, 0.6], None),
    ([0.5, 0.8], "net is not ahead of scratch in 1 of 1 epochs, such as epoch 2 of seed 0"),
])
def test_a_race_counts_from_its_epoch_on(tmp_path, scratch, fault):
    epochs = [("net", "0", 1, 0.7, 1), ("net", "0", 2, 0.8, 1)]
    epochs += [("scratch", "0", i, value, 1) for i, value in enumerate(scratch, 1)]
    run = finished(tmp_path / "run", [0.8], epochs)
    check = targets.Check("net", ahead_of="scratch", from_epoch=2)
    [found] = rows.measure(target(check), run)
    assert found.fault == fault
    with pytest.raises(identity.Refused, match="same epochs of net and nobody"):
        rows.measure(target(replace(check, ahead_of="nobody")), run)


# ------------------------------------------------------------------------------------------------ what is refused

@pytest.fixture
def pictures(tmp_path):
    random = np.random.RandomState(0)
    for name in ("blue", "red", "green"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(6):
            pixels = random.randint(0, 255, (12, 12, 3)).astype("uint8")
            Image.fromarray(pixels).resize((64, 64)).save(tmp_path / "pictures" / name / f"{i}.jpg")
    return tmp_path / "pictures"


@pytest.fixture
def packed(pictures, tmp_path):
    """(target, run folder) as recipes/caltech256.py leaves them."""
    run = finished(tmp_path / "run", [0.9], config={"data": str(pictures), "per_class": 4, "frozen": [],
                                                    "config": CONFIG.to_dict()})
    pack(run, split.split(pictures, per_class=4, seed=0))
    sha256 = identity.fingerprint(identity.folder_pairs(pictures))
    data = targets.Data("pictures", "packed", 18, 3, sha256=sha256)
    of = target(targets.Check("net", low=0.8, high=1.0), seeds=1,
                config={"per_class": 4, "config": {"epochs": 2, "momentum": 0.9, "wd": 0.0}})
    return replace(of, data=data), run


def pack(run, drawn):
    shutil.rmtree(run / "data-0", ignore_errors=True)
    (run / "data-0").mkdir()
    split.write(drawn, run / "data-0" / "images")
    for part in ("train", "val"):
        records.pack(lists.list_file(run / "data-0" / "images", part), drawn.root, resize=48, quality=90)


def configured(run, **changes):
    config = json.loads((run / "config.json").read_text())
    for key, value in changes.items():
        table, _, name = key.rpartition("__")
        (config[table] if table else config)[name] = value
    (run / "config.json").write_text(json.dumps(config))


def test_a_run_that_is_what_it_says_passes(packed):
    outcome = accuracy.judge(*packed)
    assert (outcome.state, outcome.text) == ("passed", "net, validation accuracy 0.9000")


@pytest.mark.parametrize(("changes", "words"), [
    ({"config__lr": 0.02}, "other settings: config.lr is 0.02, the target's 0.01"),
    ({"config__mixup": 0.4}, "other settings: config.mixup is 0.4, the target's 0.0"),
    ({"per_class": 5}, "other settings: per_class is 5, the target's 4"),
    ({"quick": True}, "it was a trial"),
    ({"frozen": ["conv0"]}, "other settings: frozen is ['conv0'], which the target does not set"),
])
def test_other_settings_are_refused(packed, changes, words):
    configured(packed[1], **changes)
    outcome = accuracy.judge(*packed)
    assert outcome.state == "failed" and outcome.text.startswith("refused: ") and words in outcome.text


def test_another_split_is_refused(packed, pictures):
    pack(packed[1], split.split(pictures, per_class=4, seed=1))
    assert "refused: other split" in accuracy.judge(*packed).text


def test_other_images_are_refused(packed, pictures):
    Image.fromarray(np.full((64, 64, 3), 90, "uint8")).save(pictures / "red" / "3.jpg")
    pack(packed[1], split.split(pictures, per_class=4, seed=0))
    assert "refused: other data: the images of" in accuracy.judge(*packed).text
    (pictures / "red" / "3.jpg").unlink()
    pack(packed[1], split.split(pictures, per_class=4, seed=0))
    assert "has 17 images of 3 classes, pictures has 18 of 3" in accuracy.judge(*packed).text


def test_a_leak_between_the_parts_is_refused(packed, pictures):
    of, run = packed
    drawn = split.split(pictures, per_class=4, seed=0)
    shutil.copy(pictures / drawn.parts["train"][0].path, pictures / drawn.parts["val"][0].path)
    pack(run, split.split(pictures, per_class=4, seed=0))
    known = replace(of, data=replace(of.data, sha256=None))
    assert "refused: leak: 1 images of val are also in train" in accuracy.judge(known, run).text


def test_records_that_were_exchanged_afterwards_are_refused(packed):
    of, run = packed
    with open(run / "data-0" / "images-train.rec", "ab") as file:
        file.write(b"more")
    assert "images-train.rec is not as its manifest says" in accuracy.judge(of, run).text
    manifest = run / "data-0" / "images-val.manifest.json"
    manifest.write_text(manifest.read_text().replace('"records": 6', '"records": 7', 1))
    (run / "data-0" / "images-train.rec").unlink()
    assert "manifest was changed or damaged" in accuracy.judge(of, run).text


def test_folders_with_a_common_image_are_refused(pictures, tmp_path):
    root = tmp_path / "both"
    shutil.copytree(pictures, root / "train")
    for name in ("blue", "red", "green"):
        (root / "test" / name).mkdir(parents=True)
        shutil.move(root / "train" / name / "0.jpg", root / "test" / name / "0.jpg")
    run = finished(tmp_path / "run", [0.9], config={"data": str(root)})
    of = replace(target(targets.Check("net", low=0.8, high=1.0), seeds=1),
                 data=targets.Data("both", "folders", 18, 6))
    assert accuracy.judge(of, run).state == "passed"
    shutil.copy(root / "train" / "red" / "1.jpg", root / "test" / "red" / "0.jpg")
    assert "refused: leak: 1 images of test are also in train" in accuracy.judge(of, run).text
    configured(run, data=str(tmp_path / "gone"))
    assert "is not here any more" in accuracy.judge(of, run).text


# ------------------------------------------------------------------------------------------------ the command

@pytest.fixture
def command(capsys, monkeypatch, tmp_path):
    """Runs accuracy.py's command on given targets; its figures go to a folder of the test."""
    monkeypatch.setattr(recording.append, "__defaults__", (tmp_path / "results",))

    def call(found, *options, status):
        monkeypatch.setattr(targets, "load", lambda: found)
        with pytest.raises(SystemExit) as stop:
            accuracy.main([*map(str, options)])
        printed = capsys.readouterr()
        assert stop.value.code == status, printed.out + printed.err
        return printed

    return call


def test_what_cannot_be_run_is_said_and_is_not_a_success(command):
    gpu = [t for t in targets.load() if t.gpu]
    printed = command(gpu, "--run", "--json", status=3)
    lines = printed.out.splitlines()
    assert len(lines) == len(gpu) + 2
    for line, of in zip(lines, gpu):
        assert line.startswith(f"{of.id}: not run: 8 GPUs of compute capability 5.0 to 8.6, 0 here")
        assert f"gluon-ft weights get {of.weights}" in line and "gluon-ft data get caltech-256" in line
    assert lines[-2] == f"0 passed, 0 failed, {len(gpu)} not run"
    assert {row["state"] for row in json.loads(lines[-1])["rows"]} == {"not run"}


def test_a_finished_run_is_judged_and_recorded(command, packed, tmp_path):
    of, run = packed
    assert "t: passed: net" in command([of], "--only", "t", "--from", run, status=0).out
    text = (tmp_path / "results" / "accuracy.csv").read_text()
    assert "t,pictures; x.py --seeds 1,\"net, validation accuracy\",fraction,1,0.9,0.9,0.9" in text
    strict = replace(of, checks=(targets.Check("net", low=0.95, high=1.0),))
    assert "0.9000, outside 0.95 to 1" in command([strict], "--only", "t", "--from", run, status=1).out
    assert (tmp_path / "results" / "accuracy.csv").read_text() == text


@pytest.mark.parametrize(("options", "message"), [
    (["--only", "tt"], "error: no target 'tt'; did you mean t?"),
    (["--from", "nowhere"], "error: nowhere: --from reads one finished run; expected its folder, and --only ID"),
    (["--quik"], "no such option --quik; did you mean --quick"),
    (["--seeds", "0"], "is not in the range"),
])
def test_bad_options_are_one_line(command, packed, options, message):
    printed = command([packed[0]], *options, status=2)
    assert len(printed.err.strip().splitlines()) == 1 and message in printed.err


SCRIPT = """
import json, pathlib, sys
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
folder = pathlib.Path(options["--runs"], "script-1")
folder.mkdir(parents=True)
(folder / "config.json").write_text('{"lr": 1}')
rows = [{"name": "net", "seed": s, "validation_accuracy": 0.9} for s in range(int(options["--seeds"]))]
(folder / "result.json").write_text(json.dumps({"rows": rows}))
END
"""


@pytest.mark.parametrize(("end", "state", "text"), [
    ("print(json.dumps({'run': str(folder)}))", "passed", "net, validation accuracy 0.9000 (2 of 3 seeds)"),
    ("sys.exit('error: out of memory')", "failed", "x.py ended with status 1: error: out of memory"),
    ("print('done')", "failed", "x.py did not end with its JSON line"),
])
def test_a_script_is_run_and_its_run_is_read(tmp_path, monkeypatch, end, state, text):
    (tmp_path / "x.py").write_text(SCRIPT.replace("END", end))
    monkeypatch.setattr(identity, "_folder", lambda *_: None)
    of = target(targets.Check("net", low=0.8, high=1.0), config={"lr": 1})
    monkeypatch.setattr(targets.Data, "bundled", True)
    outcome = accuracy.run_row(of, 2, tmp_path / "runs", tmp_path)
    assert (outcome.state, outcome.text) == (state, text)


# ------------------------------------------------------------------------------------------------ real rows

def with_regression(kind, of, tmp_path, seeds=1):
    """A row's outcome when the library is wrong in one respect; kind None: as it is."""
    if of.data.path:
        shared_data(of.data.path)
    if of.weights:
        shared_data("weights")
    if not (ROOT / of.script).is_file():
        pytest.skip(f"{of.script} is not written yet")
    script, real = tmp_path / of.script, str(ROOT / of.script)
    script.parent.mkdir(exist_ok=True)
    argv = [str(REGRESSIONS), kind, real] if kind else [real]
    script.write_text(f"import runpy, sys\nsys.path[:0] = {[str(ROOT), str((ROOT / of.script).parent)]!r}\n"
                      f"sys.argv[:1] = {argv!r}\nrunpy.run_path({argv[0]!r}, run_name='__main__')\n")
    return accuracy.run_row(of, seeds, tmp_path / "runs", tmp_path)


def row_called(name):
    return targets.choose(targets.load(), [name])[0]


@pytest.mark.parametrize(("kind", "words"), [
    pytest.param(None, "passed", marks=pytest.mark.slow),
    ("batchnorm_not_frozen", "head, train loss is 0."),
    pytest.param("half_the_rate_of_the_head", "head, train loss is 0.", marks=pytest.mark.slow),
    pytest.param("shuffled_labels", "head, train loss is 0.", marks=pytest.mark.slow),
    pytest.param("wrong_mean_and_std", "head, validation accuracy is 0.", marks=pytest.mark.slow),
])
def test_the_small_row_notices_each_regression(tmp_path, kind, words):
    outcome = with_regression(kind, row_called("cifar10-head"), tmp_path)
    assert outcome.state == ("failed" if kind else "passed"), outcome.line()
    assert words in outcome.line()
    assert "refused" not in outcome.text and "ended with" not in outcome.text


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "words"), [
    (None, "cifar_resnet56_relu, validation accuracy 0.8250"),
    ("wrong_mean_and_std", "cifar_resnet20_relu, validation accuracy is 0.27"),
])
def test_the_import_check_is_exact(tmp_path, kind, words):
    outcome = with_regression(kind, row_called("cifar10-import"), tmp_path)
    assert outcome.state == ("failed" if kind else "passed") and words in outcome.text, outcome.line()


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "words"), [
    (None, "passed"),
    ("half_the_rate_of_the_head", "fine-tuned, train loss, seed 0 is"),
    ("shuffled_labels", "ten digits, train loss is"),
])
def test_odd_and_even_notices_what_it_can(tmp_path, kind, words, monkeypatch):
    monkeypatch.setenv("GLUON_FT_HOME", str(tmp_path / "home"))
    outcome = with_regression(kind, row_called("digits-odd-even"), tmp_path)
    assert outcome.state == ("failed" if kind else "passed"), outcome.line()
    assert words in outcome.line() and "refused" not in outcome.text


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hot-dog-svm", "caltech20-symbolic", "caltech20-gluon"])
def test_rows_on_real_photos_pass(tmp_path, name):
    outcome = with_regression(None, row_called(name), tmp_path)
    assert outcome.state == "passed", outcome.line()
