"""Saved models, and runs of `gluon-ft train`: what they hold, say and predict."""
from __future__ import annotations

import json
import shutil
from pathlib import Path

from pinned.common import (
    PHOTOS,
    PLACE,
    as_before,
    cli,
    digest,
    figures,
    masked,
    ordered,
    parameters,
    saved,
    sha256,
    unpacked,
    untimed,
)
from pinned.data import pixels

import gluon_ft

MODELS = ("lenet", "cifar")


def predicted(model: Path) -> list:
    """Names and probabilities of the classes of some photos and an array, by a model file."""
    inputs = [*sorted(PHOTOS.glob("*/0[0-3].png")), pixels(1, 40)[0][0]]
    return [[p.name, [list(pair) for pair in p.top]] for p in gluon_ft.predict(model, inputs, top=3, workers=0)]


def model_values(path: Path) -> dict:
    """What is pinned of a saved model; it is saved once more, in the folder `again` beside it."""
    net = gluon_ft.load_model(path)
    again = gluon_ft.save_model(net, path.parent / "again" / path.name, **net.weights.extra)
    out = cli("predict", path, PHOTOS / "bee" / "05.png", "--top", "2", "--device", "cpu", "--json")
    (said,) = json.loads(out.splitlines()[-1])["predictions"]
    return {"predictions": predicted(path), "said": [[k, v] for k, v in said.items() if k != "path"],
            "classes": net.classes, "preprocessing": ordered(net.preprocessing.to_dict()), "extra": net.weights.extra,
            "notes": list(net.weights.notes), "parameters": digest(parameters(net)), "card": Path(
                f"{again}.json").read_text("utf-8"), "file": sha256(again.read_bytes())}


# name -> (options of `gluon-ft train`, after PHOTOS); what depends on the machine is given.
RUNS = {
    "scratch": ["--backbone", "lenet", "--epochs", "2", "lr=0.02", "--workers", "0", "--devices", "cpu"],
    "advised": ["--pretrained", f"{PLACE}/models/lenet.params", "--workers", "0", "--devices", "cpu", "--epochs", "2",
                "--clip-norm", "0.05"],
    "svm": ["--pretrained", f"{PLACE}/models/cifar.params", "--workers", "0", "--devices", "cpu", "--strategy", "svm"],
    "kept": ["--pretrained", f"{PLACE}/models/lenet.params", "--strategy", "head", "--epochs", "4", "--workers", "0",
             "--devices", "cpu", "--seed", "3"],
    "images": ["--pretrained", f"{PLACE}/models/cifar.params", "--freeze", "features", "--epochs", "3", "--workers",
               "0", "--devices", "cpu", "--cache-features", "none", "--augment", "gluon", "--dropout", "0.2", "--ema",
               "0.5", "--batch-size", "4"],
}
CUT_RUNS = ("kept", "images")  # of which there is an interrupted one
FROZEN = ("svm", *CUT_RUNS)  # that train the output only


def placed(folder: Path) -> Path:
    """A folder with the photos and the models, where runs can be made."""
    shutil.copytree(PHOTOS, folder / "photos")
    unpacked("models", folder)
    return folder


def run_options(folder: Path, name: str) -> list[str]:
    """The options of a run with the folder's name in them."""
    return [option.replace(PLACE, str(folder)) for option in RUNS[name]]


def run(folder: Path, name: str) -> dict:
    """Makes a run in a `placed` folder; what is pinned of it."""
    out = cli("train", folder / "photos", "--run", folder / "runs" / name, *run_options(folder, name))
    return run_values(folder, name, out)


def run_values(folder: Path, name: str, out: str) -> dict:
    """What is pinned of a finished run in `folder`/runs/<name>, whose command printed `out`."""
    run = folder / "runs" / name

    def content(file):
        return json.loads(masked((run / f"{file}.json").read_text("utf-8"), folder))

    config, result, data = content("config"), content("result"), content("data")
    assert result["reasons"] == config["reasons"] and list(result["reasons"]) == list(config["reasons"])
    said = [line for line in masked(out, folder).splitlines()
            if not line.startswith(("epoch ", f"{result['strategy']}: "))]
    metrics = (run / "metrics.jsonl").read_text().splitlines() if (run / "metrics.jsonl").exists() else []
    arrays = saved(run / "last.params")
    moving = {key: array for key, array in arrays.items() if key.startswith("output") or name not in FROZEN}
    return {"files": as_before(sorted(p.name for p in run.iterdir() if not p.name.startswith("."))),
            "config": as_before([[k, ordered(v) if isinstance(v, dict) else v] for k, v in config.items()]),
            "data": {**data, "parts": {k: {**part, "files": part["files"][:2]} for k, part in data["parts"].items()}},
            "data.json": sha256(masked((run / "data.json").read_text("utf-8"), folder).encode()),
            "result keys": as_before(list(result)), "rows": [untimed(row) for row in result["rows"]],
            "result": as_before({k: v for k, v in result.items()
                                 if k not in ("seconds", "total_seconds", "rows", "reasons")}),
            "environment keys": list(content("environment")),
            "metrics": [untimed(json.loads(line)) for line in metrics],
            "lists": {p.name: p.read_text("utf-8") for p in sorted(run.glob("images*"))}, "said": said,
            "cards": {card: _card(run / f"{card}.params.json") for card in ("best", "last")},
            "figures": figures(moving), "bits": digest(arrays),
            "untouched": digest({key: array for key, array in arrays.items() if key not in moving})}


def _card(path):
    about = json.loads(path.read_text("utf-8"))
    # The hash of the parameters, which differ in the last bits from machine to machine.
    return as_before([[k, v] for k, v in about.items() if k != "sha256"])
