"""Others' ways of doing the same against ours: on the same images, network, batch, steps and cores, in turn in one run.

    python benchmarks/peers/compare_peers.py                              # about ten minutes a round on two quiet cores
    python benchmarks/peers/compare_peers.py --match steps --repeats 2
    GLUON_FT_TORCH_PYTHON=/path/to/python python benchmarks/peers/compare_peers.py    # with torch and Pillow

Three matches (the other scripts of this folder, each run a process of its own):

'steps': ResNet-18 v2 from random weights, hot dog photos, equal steps: ours, the D2L procedure, plain PyTorch; where
the processor has bfloat16, in that as well.
'hot-dog': MobileNetV2 of ImageNet on the same: the D2L procedure, ours with equal settings, and ours as it advises for
few images (features and a linear classifier).
'caltech': 20 classes through Module: the how-to's program against ours.

Recorded are time per step, time to a fixed test accuracy, peak memory, and the ratios of the rounds, theirs / ours, in
benchmarks/results/peers.csv. Exit status 1 where D2L's procedure takes less time per step than ours at equal settings,
or less than five times as long as ours by default to the accuracy.
"""
from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the project's folder
import gluon_ft  # isort: skip  (prepares the import of mxnet)

import click
import mxnet as mx

from benchmarks import runner
from benchmarks.accuracy.targets import environment
from benchmarks.runner import SHARED
from gluon_ft.cli import console
from gluon_ft.data import lists, split
from gluon_ft.data.records import pack
from gluon_ft.errors import ConfigError
from gluon_ft.runtime import hardware

PEERS = Path(__file__).parent
WEIGHTS, ACCURACY = "coral_rot180", {"hot-dog": 0.85, "caltech": 0.85}
AT_LEAST = {"equal": 1.0, "default": 5.0}  # theirs / ours
MATCHES = ("steps", "hot-dog", "caltech")


def contestants(match, folder, epochs) -> dict:
    """Name -> (script, interpreter, options); the first is ours with equal settings."""
    if match == "caltech":
        options = {**caltech(folder), "batch": 16, "epochs": epochs or 2, "lr": 0.01, "momentum": 0.9}
        return {"ours": ("ours_caltech.py", sys.executable, options),
                "how-to, all processors": ("how_to_caltech.py", sys.executable, {**options, "all_processors": True}),
                "how-to": ("how_to_caltech.py", sys.executable, options)}
    options = {"data": str(SHARED / "hotdog"), "batch": 32, "epochs": epochs or 5, "lr": 0.001,
               "backbone": "mobilenetv2_1.0", "pretrained": WEIGHTS}
    if match == "steps":
        options |= {"backbone": "resnet18_v2", "pretrained": None, "epochs": epochs or 1}
    found = {"ours": ("ours_hot_dog.py", sys.executable, options),
             "D2L, all processors": ("d2l_hot_dog.py", sys.executable, {**options, "all_processors": True}),
             "D2L": ("d2l_hot_dog.py", sys.executable, options)}
    if match == "hot-dog":
        found["ours, default"] = ("ours_hot_dog.py", sys.executable, {**options, "strategy": "features"})
        return found
    if hardware.bfloat16_flags():
        found["ours, bfloat16"] = ("ours_hot_dog.py", sys.executable, {**options, "precision": "bfloat16"})
    torch = os.environ.get(runner.TORCH_VARIABLE)
    if not has_torch(torch):
        print(f"skipped PyTorch: {torch or 'no interpreter'} has no torch and Pillow; set {runner.TORCH_VARIABLE}",
              file=sys.stderr)
        return found
    for name, more in {"": {}, ", channels last": {"channels_last": True},
                       ", channels last, bfloat16": {"channels_last": True, "bfloat16": True}}.items():
        found[f"PyTorch{name}"] = ("torch_hot_dog.py", torch, {**options, **more})
    return found


def has_torch(python) -> bool:
    """Whether that interpreter can run torch_hot_dog.py."""
    try:
        return bool(python) and subprocess.run([python, "-c", "import torch, PIL, numpy"], capture_output=True,
                                               check=False).returncode == 0
    except OSError:
        return False


def caltech(folder) -> dict:
    """Records of the 20 classes, and MobileNetV2 as the how-to's kind of checkpoint, with layers flatten0 and fc1."""
    drawn = split.split(SHARED / "caltech256", per_class=15, seed=0)
    split.write(drawn, folder / "images")
    made = {part: pack.pack(lists.list_file(folder / "images", part), drawn.root, resize=256, quality=90)[0]
            for part in ("train", "val")}
    packed = {part: str(written.rec) for part, written in made.items()}
    frozen = export(folder / "net")
    return {**packed, "prefix": str(folder / "net"), "epoch": 0, "layer": "flatten0", "classes": len(drawn.classes),
            "mean": [128.0] * 3, "std": [128.0] * 3, "frozen": frozen}


def export(prefix) -> list[str]:
    """Writes the checkpoint; the half turn that its weights want comes first. Returns what is to be frozen."""
    net = gluon_ft.pretrained_net("mobilenetv2_1.0", WEIGHTS)
    body = net.features(mx.sym.reverse(mx.sym.var("data"), axis=(2, 3)))
    symbol = mx.sym.FullyConnected(mx.sym.flatten(body, name="flatten0"), num_hidden=1000, name="fc1")
    arrays = {p.name: p.data() for p in net.features.collect_params().values()}
    arrays |= {"fc1_weight": mx.nd.zeros((1000, 1280)), "fc1_bias": mx.nd.zeros((1000,))}
    mx.model.save_checkpoint(str(prefix), 0, symbol, {n: arrays[n] for n in symbol.list_arguments() if n in arrays},
                             {n: arrays[n] for n in symbol.list_auxiliary_states()})
    early = {p.name for block in list(net.features)[:20] for p in block.collect_params().values()}
    return [name for name in symbol.list_arguments() if name in early]


def run(script, python, options) -> dict:
    """One contestant once; ConfigError with its last line where it fails."""
    done = subprocess.run([python, "-W", "ignore", str(PEERS / script), json.dumps(options)], env=environment(),
                          capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigError(f"{script} failed", found=(done.stderr.strip().splitlines() or ["no message"])[-1])
    return json.loads(done.stdout.splitlines()[-1])


def seconds_to(history, accuracy) -> float | None:
    """Time until an evaluation first gave the accuracy; None where none did."""
    return next((entry["seconds"] for entry in history if entry["accuracy"] >= accuracy), None)


def play(match, repeats, folder, epochs) -> dict[str, list[dict]]:
    """Each contestant's answers, one a round."""
    def turn(name, number):
        print(f"{match}, round {number + 1}/{repeats}: {name}", file=sys.stderr, flush=True)
        script, python, options = names[name]
        return run(script, python, {**options, "seed": number})
    names = contestants(match, folder, epochs)
    return runner.in_turn({name: lambda number, name=name: turn(name, number) for name in names}, repeats, match)


def lines_of(match, found, accuracy) -> list[dict]:
    """Lines for peers.csv."""
    lines = []
    for name, answers in found.items():
        settings = f"{match}, {name}"
        figures = {"time per step": ("s", [a["seconds_per_step"] for a in answers]),
                   "peak memory": ("MB", [a["peak_mb"] for a in answers])}
        if accuracy is not None:
            figures["test accuracy at the end"] = ("fraction", [a["history"][-1]["accuracy"] for a in answers])
            figures[f"time to {accuracy:g}"] = ("s", [seconds_to(a["history"], accuracy) for a in answers])
        for quantity, (unit, values) in figures.items():
            # A round that did not get there has no time: the number of runs says so.
            reached = [value for value in values if value is not None]
            lines += [runner.row("peers", settings, quantity, unit, reached)] if reached else []
        lines += [runner.row("peers", settings, f"{quantity}, theirs / {ours}", "ratio", values)
                  for ours, quantity, values in ratios(name, found, accuracy)]
    return lines


def ratios(name, found, accuracy):
    """(whose, quantity, theirs / ours of the rounds) of a contestant that is not ours."""
    if name.startswith("ours"):
        return
    for whose in ["ours", *(["ours, bfloat16"] if "bfloat16" in name and "ours, bfloat16" in found else [])]:
        rounds = zip(found[name], found[whose])
        yield whose, "time per step", [theirs["seconds_per_step"] / ours["seconds_per_step"] for theirs, ours in rounds]
    for whose in [w for w in ("ours", "ours, default") if w in found and accuracy is not None]:
        times = [(seconds_to(a["history"], accuracy), seconds_to(b["history"], accuracy))
                 for a, b in zip(found[name], found[whose])]
        # What never got there counts with all of its time: the ratio is then a lower bound.
        kept = [((a if a is not None else theirs["history"][-1]["seconds"]) / b)
                for (a, b), theirs in zip(times, found[name]) if b is not None]
        if kept:
            yield whose, f"time to {accuracy:g}", kept


def behind(lines) -> list[str]:
    """The targets that were missed."""
    missed = []
    for line in lines:
        ratio, d2l = float(line["median"]), line["settings"].endswith(("D2L", "D2L, all processors"))
        equal = line["quantity"] == "time per step, theirs / ours" and ratio < AT_LEAST["equal"]
        default = line["quantity"].endswith("theirs / ours, default") and ratio < AT_LEAST["default"]
        if d2l and (equal or default):
            missed.append(f"{line['settings']}: {line['quantity']} is {ratio:.2f}")
    return missed


@console.command(text=__doc__)
@click.option("--match", "matches", multiple=True, type=click.Choice(MATCHES), help="Default: all three.")
@click.option("--repeats", default=3, type=click.IntRange(1), help="Rounds.")
@click.option("--epochs", type=click.IntRange(1), help="Default 1, 5 and 2.")
@runner.record_option("peers")
def main(matches, repeats, epochs, record, as_json):
    matches = matches or MATCHES
    for name in ("hotdog", "caltech256"):
        runner.shared_data(name)
    os.environ.update({"GLUON_FT_WEIGHTS": environment().get("GLUON_FT_WEIGHTS", "")})
    lines = []
    for match in matches:
        with tempfile.TemporaryDirectory(prefix="peers-") as temporary:
            part = lines_of(match, play(match, repeats, Path(temporary), epochs), ACCURACY.get(match))
        print(runner.show(part), flush=True)
        lines += part
        # Match by match, so that a later one that fails takes nothing with it.
        if record:
            print(f"appended to {runner.append(part, 'peers')}")
    missed = behind(lines)
    for line in missed:
        print(f"behind: {line}")
    console.emit({"benchmark": "peers", "rows": lines, "behind": missed}, as_json)
    return int(bool(missed))


if __name__ == "__main__":
    main()
