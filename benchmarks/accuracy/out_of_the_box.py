"""What somebody gets who has only installed gluon_ft: ImageNet weights by pip, and `gluon-ft train` without options.

    python benchmarks/accuracy/out_of_the_box.py                             # some ten minutes on two cores
    python benchmarks/accuracy/out_of_the_box.py --part imagenet --weights mobilenetv2_1.0:coral_rot180
    python benchmarks/accuracy/out_of_the_box.py --part train --only caltech256 --repeats 1 --no-record
    python benchmarks/accuracy/out_of_the_box.py --part train --only hotdog --from runs/a --from runs/b

Two things, on photos of ../shared/data. `train`: median validation accuracy of --repeats seeds of `gluon-ft train` on
the hot dog photos (their own test part) and on the 20 Caltech classes (a split drawn by the seed); targets 0.87 and
0.95. `imagenet`: how often the weights name a photo rightly, of the 12 Caltech classes that ImageNet has, too; nothing
is trained. Where a class is several ones there (elephants, laptops), each of them is right.
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
import numpy as np

from benchmarks import runner
from gluon_ft.errors import ConfigError
from gluon_ft.evaluation.predict import predict
from gluon_ft.weights import catalog, class_names

NAME = "out_of_the_box"
TARGETS = {"hotdog": 0.87, "caltech256": 0.95}
# Caltech's folder -> ImageNet's classes.
BOTH = {"038.chimp": ["chimpanzee"], "051.cowboy-hat": ["cowboy hat"],
        "064.elephant-101": ["African elephant", "Indian elephant", "tusker"],
        "076.football-helmet": ["football helmet"], "089.goose": ["goose"], "127.laptop-101": ["laptop", "notebook"],
        "153.palm-pilot": ["hand-held computer"], "166.praying-mantis": ["mantis"], "179.scorpion-101": ["scorpion"],
        "192.snowmobile": ["snowmobile"], "228.triceratops": ["triceratops"], "251.airplanes-101": ["airliner"]}
WEIGHTS = ["efficientnet_lite0:google_in1k"]


@runner.command(__doc__, NAME, repeats=5)
@click.option("--part", "parts", multiple=True, type=click.Choice(["train", "imagenet"]), help="Default: both.")
@click.option("--only", type=click.Choice(list(TARGETS)), help="Of `train`, this data set alone.")
@click.option("--from", "finished", multiple=True, type=click.Path(exists=True, path_type=Path),
              help="Of `train`: these folders of finished runs of --only, in the place of --repeats new ones.")
@click.option("--weights", multiple=True, default=WEIGHTS, help="Of `imagenet`: rows of the catalog.")
def main(repeats, parts, only, finished, weights):
    if finished and not only:
        raise ConfigError("--from is of one data set", remedy="say which with --only")
    rows, missed = [], []
    if "train" in parts or not parts:
        for data in [only] if only else TARGETS:
            accuracies, chosen = zip(*([outcome(folder) for folder in finished] or [
                train(runner.shared_data(data), seed) for seed in range(repeats)]))
            settings = f"{data}; gluon-ft train; {'; '.join(dict.fromkeys(chosen))}"
            rows.append(runner.row(NAME, settings, "validation accuracy", "fraction", accuracies))
            if np.median(accuracies) < TARGETS[data]:
                missed.append(f"{data}: median below {TARGETS[data]}")
    if "imagenet" in parts or not parts:
        for name in weights:
            rows += named(catalog.find(name), runner.shared_data("caltech256"))
    return rows, missed


def train(photos, seed):
    """Accuracy, and what was chosen, of `gluon-ft train PHOTOS --seed SEED`, run as a command of its own."""
    # What the environment names is not what comes out of the box.
    environment = {name: value for name, value in os.environ.items() if name != "GLUON_FT_WEIGHTS"}
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([sys.executable, "-m", "gluon_ft.cli.main", "train", str(photos), "--seed", str(seed),
                               "--run", str(Path(folder) / "run")], check=False, env=environment, cwd=runner.ROOT)
        if done.returncode:
            sys.exit(done.returncode)
        return outcome(Path(folder) / "run")


def outcome(folder):
    """Validation accuracy of a finished run, and the weights and the strategy that it chose."""
    result, config = (json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
                      for name in ("result", "config"))
    [row] = result["rows"]
    return row["validation_accuracy"], f"{config['pretrained']}, {config['strategy']}"


def named(row, photos):
    """Rows of the top-1 and top-5 accuracy of weights on the photos of `BOTH`."""
    net = gluon_ft.pretrained_net(row.backbone, row.tag)
    # Two classes are called crane, and two maillot; none of them is among those looked for.
    wanted = {folder: {net.classes[class_names.index(net.classes, name)] for name in names}
              for folder, names in BOTH.items()}
    hits = [[name in wanted[folder] for name, _ in found.top] for folder in BOTH
            for found in predict(net, photos / folder)]
    settings = f"{len(BOTH)} classes of Caltech-256, {len(hits)} photos; {row.name}"
    return [runner.row(NAME, settings, f"top-{count} accuracy", "fraction",
                       [np.mean([any(hit[:count]) for hit in hits])]) for count in (1, 5)]


if __name__ == "__main__":
    main()
