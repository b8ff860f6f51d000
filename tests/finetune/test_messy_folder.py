"""One messy folder through every command: right numbers, a line for each problem, exit statuses as documented."""
from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path

import messy_folder
import mxnet as mx
import pytest
from conftest import cli_runner

import gluon_ft
from gluon_ft import loaders
from gluon_ft.cli import main as cli_main
from gluon_ft.data import lists
from gluon_ft.data.records import verify
from gluon_ft.evaluation.model import save_model
from gluon_ft.evaluation.predict import predict
from gluon_ft.training.metrics import evaluate

HOW = gluon_ft.Preprocessing(size=32, resize=36)


@pytest.fixture
def messy(tmp_path):
    return messy_folder.make(tmp_path / "photos")


@pytest.fixture(scope="module")
def net():
    mx.random.seed(1)
    found = gluon_ft.fine_tune_net("cifar_resnet20_relu", 3)
    found.classes, found.preprocessing = messy_folder.CLASSES, HOW
    found(mx.nd.zeros((1, 3, 32, 32)))
    return found


def run(*arguments, status=0):
    """What a command printed, and its JSON object."""
    done = cli_runner().invoke(cli_main.main, [str(each) for each in (*arguments, "--json")])
    assert done.exit_code == status, done.output
    last = done.stdout.splitlines()[-1] if done.stdout.strip() else ""
    return done, json.loads(last) if last.startswith("{") else None


def test_audit(messy):
    messy_folder.name_oddly(messy_folder.break_it(messy))
    done, result = run("audit", messy.root, "--lines", 100)
    findings = {kind: sorted(one["image"] for one in found) for kind, found in result["findings"].items()}
    assert result["sources"][0]["classes"] == {name: len(messy.of_class(name)) + sum(
        path.startswith(f"{name}/") for path in messy.bad) for name in messy_folder.CLASSES}
    assert findings["unreadable"] == sorted([*messy.bad, *messy.unreachable])
    assert findings["left out"] == sorted(messy.left_out) and not findings["missing"]
    assert sorted(pair["labels_differ"] for pair in result["pairs"]) == [False, True]
    assert (len(result["pairs"]), messy.two_labels) == (messy.copies, 1)
    assert "files not looked at: " in done.stdout
    assert "caf\\xe9\\r\\n.jpg: " in done.stdout


def test_predict(messy, net, tmp_path):
    messy_folder.name_oddly(messy_folder.break_it(messy))
    model = save_model(net, tmp_path / "best.params")
    done, result = run("predict", model, messy.root, "--devices", "cpu", status=1)

    def below(found):
        return sorted(os.path.relpath(one["path"], messy.root) for one in found)

    # Without classes an image beside their folders is one like any other.
    assert below(result["predictions"]) == sorted([*messy.good, "stray.jpg"])
    assert below(result["unreadable"]) == sorted([*messy.bad, *messy.unreachable])
    assert below(result["left_out"]) == sorted(set(messy.left_out) - {"stray.jpg"})
    lines = done.stderr.splitlines()
    assert len(lines) == 1 + len(messy.bad) + len(messy.unreachable)
    assert lines[0].startswith("left out: 4 files are not images by their suffix, the first ")
    assert sum("caf\\xe9\\r\\n.jpg: " in line for line in lines) == 1
    shown = done.stdout.splitlines()[:-1]  # the last one is JSON
    assert sum("two\\nlines.png" in line for line in shown) == sum("caf\\xe9.png" in line for line in shown) == 1


def test_evaluate(net, tmp_path):
    """Validation images of other folders: a class less, an empty one, names composed as macOS does."""
    messy = messy_folder.make(tmp_path / "val", seed=1)
    for path in messy.bad:
        (messy.root / path).unlink()
    for path in (messy.root / "dogs").rglob("*"):
        if path.is_file():
            path.unlink()
    os.rename(messy.root / "Zo\u00eb", messy.root / unicodedata.normalize("NFD", "Zo\u00eb"))
    predicted = [one for one in predict(net, messy.root) if Path(one.path).name != "stray.jpg"]
    truth = [unicodedata.normalize("NFC", os.path.relpath(one.path, messy.root).split("/")[0]) for one in predicted]
    wanted = sum(one.name == name for one, name in zip(predicted, truth)) / len(truth)
    assert len(truth) == len(messy.of_class("cats")) + len(messy.of_class("Zo\u00eb"))
    loader = loaders.make_loader(messy.root, preprocessing=HOW, train=False, batch_size=7, classes=net.classes)
    assert len(loader.labels) == len(truth)
    assert evaluate(net, loader).accuracy == pytest.approx(wanted)


def test_split_and_pack(messy, tmp_path):
    done, result = run("split", messy.root, tmp_path / "set", "--fraction", 0.5)
    entries = [entry for part in ("train", "val") for entry in lists.read(tmp_path / f"set-{part}.lst")]
    assert sorted(entry.path for entry in entries) == sorted([*messy.good, *messy.bad])
    names = lists.read_classes(tmp_path / "set.classes.txt")
    assert names == messy_folder.CLASSES and all(names[e.label] == e.path.split("/")[0] for e in entries)
    assert result["left_out"] == len(messy.left_out)
    assert sum(line.startswith("left out: ") for line in done.stdout.splitlines()) == 1

    done, _ = run("pack", tmp_path / "set", messy.root, "--out", tmp_path, status=2)
    assert "cannot be read, the first is " in done.stderr.splitlines()[-1] and not list(tmp_path.glob("*.rec"))
    done, result = run("pack", tmp_path / "set", messy.root, "--out", tmp_path, "--on-error", "skip")
    assert sum(one["records"] for one in result["files"]) == len(messy.good)
    assert sorted(bad["path"] for one in result["files"] for bad in one["skipped"]) == sorted(messy.bad)
    reports = [verify.verify(rec) for rec in sorted(tmp_path.glob("*.rec"))]
    assert all(report.ok for report in reports) and sum(report.records for report in reports) == len(messy.good)


def test_train(messy, tmp_path):
    done, result = run("train", messy.root, "--run", tmp_path / "run", "--backbone", "cifar_resnet20_relu",
                       "--pretrained", "none", "--epochs", 1, "--batch-size", 8, "--devices", "cpu", "--size", 32)
    known = json.loads((tmp_path / "run" / "data.json").read_text())
    used = sorted(row[0] for part in known["parts"].values() for row in part["files"])
    assert used == sorted(messy.good) and known["classes"] == messy_folder.CLASSES
    assert sorted(one["path"] for one in known["left_out"]) == sorted(messy.bad)
    assert result["images"] == {name: len(part["files"]) for name, part in known["parts"].items()}
    assert {kind: result["audit"][kind] for kind in ("unreadable", "copies_within", "two_labels")} == {
        "unreadable": len(messy.bad), "copies_within": messy.copies, "two_labels": messy.two_labels}
    part_of = {row[0]: name for name, part in known["parts"].items() for row in part["files"]}
    assert part_of["dogs/0.jpg"] == part_of["dogs/copy of 0.jpg"], "copies stand on one side"
    assert part_of["cats/1.jpg"] == part_of["Zo\u00eb/a cat.jpg"] == "train"
    lines = done.stdout.splitlines()
    assert sum(line.startswith("  5 files of the training folder are not images by their suffix, or outside of any "
                               "class") for line in lines) == 1
    assert sum(line.strip().startswith(f"{len(messy.bad)} images cannot be read, left out: ") for line in lines) == 1


def test_what_cannot_be_reached_ends_training_and_splitting(messy, tmp_path):
    messy_folder.break_it(messy)
    for command in (["train", messy.root, "--run", tmp_path / "run"],
                    ["split", messy.root, tmp_path / "set", "--fraction", 0.5]):
        done, _ = run(*command, status=2)
        assert done.stderr.splitlines()[-1].endswith("gone.jpg: broken link; expected an image or a folder at its end; "
                                                     "found nothing; remove the link, or put back what it leads to")
    assert not (tmp_path / "run").exists() and not list(tmp_path.glob("set*"))


@pytest.mark.parametrize("command", ["train", "split"])
def test_names_that_lists_cannot_hold_end_training_and_splitting_in_one_line(messy, tmp_path, command):
    messy_folder.name_oddly(messy)
    rest = {"train": ["--run", tmp_path / "run", "--backbone", "cifar_resnet20_relu", "--pretrained", "none"],
            "split": [tmp_path / "set", "--fraction", 0.5]}[command]
    done, _ = run(command, messy.root, *rest, status=2)
    assert "Traceback" not in done.output and "\udce9" not in done.output
    assert [line for line in done.stderr.splitlines() if line.startswith("error: ")] == done.stderr.splitlines()[-1:]
    assert not (tmp_path / "run").exists() and not list(tmp_path.glob("set*"))
