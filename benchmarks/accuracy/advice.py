"""Is the advice right? All six strategies on four data sets, and whether the advised one is near the best.

    python benchmarks/accuracy/advice.py                                     # all of it: about an hour on two cores
    python benchmarks/accuracy/advice.py --only hotdog --strategies svm,head --seeds 2
    python benchmarks/accuracy/advice.py --strategies none                   # compares what is recorded already

Each strategy runs with the settings that the advice gives it for the data set. Accuracy is that after the last epoch,
on images that nothing was chosen by. One row a data set and strategy is appended to benchmarks/results/advice.csv as
soon as it is measured; the comparison takes the latest row of each. Target: the median of the advised strategy is at
most one point below that of the best, or the spread (largest less smallest over the seeds, of either of the two) where
that is more.

The data sets, from ../shared/data but for the digits:
- hotdog: its own 262 training and 88 test photos; MobileNetV2 of ImageNet at 224 pixels.
- caltech: 20 classes of Caltech-256, 15 training photos each, the rest for validation, drawn by the seed; same network.
- digits: scikit-learn's, 8x8 grey, 50 training images each, the rest for validation, drawn by the seed; the CIFAR
  ResNet-20, since CIFAR's networks are the nearest in size at hand. It has seen no digit.
- cifar: CIFAR-10, 100 training images a class, drawn by the seed, 1,000 test images; MobileNetV2 of ImageNet. (Not the
  CIFAR networks: they were trained on these very images and labels.)
"""
from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the project's folder
import gluon_ft  # isort: skip  (prepares the import of mxnet)

import click
import mxnet as mx
import numpy as np

from benchmarks import runner
from benchmarks.runner import SHARED
from gluon_ft import loaders
from gluon_ft.cli import console
from gluon_ft.data import lists, split
from gluon_ft.data.datasets import digits
from gluon_ft.data.sources import folders
from gluon_ft.errors import ConfigError, near
from gluon_ft.evaluation import linear
from gluon_ft.finetune import advice, network, plan, probe
from gluon_ft.finetune.advice import Facts
from gluon_ft.finetune.settings import JobSettings
from gluon_ft.models.spec import resolve
from gluon_ft.training.feature_cache import features, select

POINT = 0.01
VIEWS = 4


@dataclass(frozen=True)
class Images:
    """Training and validation sources as `loaders.make_loader` takes them, with the folders that lists begin at."""

    train: object
    val: object
    classes: list[str]
    train_root: Path | None = None
    val_root: Path | None = None


@dataclass(frozen=True)
class DataSet:
    """draw : seed, folder for lists -> Images; weights : BACKBONE:TAG."""

    draw: Callable
    weights: str


def hotdog(seed, folder):
    root = SHARED / "hotdog"
    return Images(root / "train", root / "test", folders.scan(root / "train").class_names)


def _drawn(root, seed, folder, per_class):
    found = split.split(root, per_class=per_class, seed=seed)
    split.write(found, folder / "images")
    return found, *(lists.list_file(folder / "images", part) for part in ("train", "val"))


def caltech(seed, folder):
    found, train, val = _drawn(SHARED / "caltech256", seed, folder, 15)
    return Images(train, val, found.classes, found.root, found.root)


def cifar(seed, folder):
    found, train, _ = _drawn(SHARED / "cifar10" / "train", seed, folder, 100)
    return Images(train, SHARED / "cifar10" / "test", found.classes, found.root)


def small_digits(seed, folder):
    from sklearn.datasets import load_digits

    data = load_digits()
    images, labels = np.rint(data.images * (255 / 16)).astype(np.uint8), data.target
    order = np.random.RandomState(seed).permutation(len(labels))
    train = np.concatenate([order[labels[order] == label][:50] for label in range(10)])
    val = np.setdiff1d(order, train)
    return Images((images[train], labels[train]), (images[val], labels[val]), list(digits.NAMES))


MOBILENET = "mobilenetv2_1.0:coral_rot180"
DATA = {"digits": DataSet(small_digits, "cifar_resnet20_relu:akamaster_cifar10"), "hotdog": DataSet(hotdog, MOBILENET),
        "caltech": DataSet(caltech, MOBILENET), "cifar": DataSet(cifar, MOBILENET)}


def facts_of(name) -> Facts:
    """What the advice goes by: the training images of seed 0."""
    data = DATA[name]
    with tempfile.TemporaryDirectory() as folder:
        images = data.draw(0, Path(folder))
        return probe.measure(images.train, probe.named(weights=data.weights), root=images.train_root)


def accuracy(name, strategy, values, seed) -> float:
    """Validation accuracy of one strategy and seed, trained as `gluon-ft train` does."""
    data = DATA[name]
    chosen = resolve(None, data.weights)
    chosen = replace(chosen, weights=None) if strategy == "scratch" else chosen
    settings = JobSettings(data=name, **{"batch_size": 32, **values}, seed=seed, top_k=0)
    with tempfile.TemporaryDirectory() as folder:
        images = data.draw(seed, Path(folder))
        net, _ = network.build(chosen, images.classes, [mx.cpu()], seed, settings.size)
        network.apply(net, settings)
        shared = {"preprocessing": net.preprocessing, "classes": images.classes, "seed": seed, "cache": "memory"}
        val = loaders.make_loader(images.val, root=images.val_root, train=False, batch_size=50, **shared)
        source = {"source": images.train, "root": images.train_root, "batch_size": settings.batch_size}
        if strategy in advice.ON_FEATURES:
            return _on_features(net, strategy, loaders.make_loader(**source, train=False, **shared), val, seed)
        train = loaders.make_loader(**source, train=True, augment=plan.augmentation(settings.augment), **shared)
        if settings.freeze != "none":
            train.views = 1 if settings.augment == "none" else min(VIEWS, settings.epochs)
            net, train, val = select.prepare(net, train, val, views=train.views)
        gluon_ft.fit(net, train, None, settings.training(), name=f"{name}, {strategy}, seed {seed}")
        return gluon_ft.evaluate(net, val, top_k=0).accuracy


def _on_features(net, strategy, train, val, seed):
    fitted = linear.fit(*features.extract(net, train), strategy, seed=seed)
    values, labels = features.extract(net, val)
    return float((fitted.logits(values).argmax(axis=1) == labels).mean())


def measured(name, strategy, values, seeds) -> list[dict]:
    """The rows of one strategy on one data set."""
    begun, found = time.perf_counter(), []
    for seed in range(seeds):
        found.append(accuracy(name, strategy, values, seed))
        click.echo(f"{name}, {strategy}, seed {seed}: {found[-1]:.4f}", err=True)
    text = f"{name}; {strategy}; {json.dumps(values, sort_keys=True)}"
    seconds = (time.perf_counter() - begun) / seeds
    return [runner.row("advice", text, "validation accuracy", "fraction", found),
            runner.row("advice", text, "seconds a seed, evaluation included", "s", [seconds])]


def latest(name) -> dict[str, dict]:
    """strategy -> its latest row in advice.csv."""
    path = runner.RESULTS / "advice.csv"
    if not path.is_file():
        return {}
    rows = [row for row in runner.read(path) if row["quantity"] == "validation accuracy"]
    return {row["settings"].split("; ")[1]: row for row in rows if row["settings"].split("; ")[0] == name}


def verdict(name, advised, rows) -> dict:
    """advised and best strategy, how far the first is behind in accuracy, what is allowed, and whether it holds."""
    median, spread = ({s: float(row["median"]) for s, row in rows.items()},
                      {s: float(row["max"]) - float(row["min"]) for s, row in rows.items()})
    best = max(median, key=median.get)
    behind, allowed = median[best] - median[advised], max(POINT, spread[best], spread[advised])
    return {"data": name, **{s: median.get(s) for s in advice.STRATEGIES}, "advised": advised, "best": best,
            "behind": behind, "allowed": allowed, "holds": behind <= allowed + 1e-9}


@console.command(text=__doc__)
@click.option("--only", default=",".join(DATA), help="Data sets, with commas between.")
@click.option("--strategies", default=",".join(advice.STRATEGIES), help="To measure; 'none': compare only.")
@click.option("--seeds", default=5, type=click.IntRange(1))
@click.option("--most-epochs", default=12, type=click.IntRange(1), help="Where the advice says more (from scratch).")
@runner.record_option("advice")
def main(only, strategies, seeds, most_epochs, record, as_json):
    names = _listed(only, DATA, "data set")
    wanted = [] if strategies == "none" else _listed(strategies, advice.STRATEGIES, "strategy")
    os.environ.setdefault("GLUON_FT_WEIGHTS", str(SHARED / "weights"))
    if not SHARED.is_dir():
        raise ConfigError("the real data is not here", path=SHARED)
    verdicts = []
    for name in names:
        facts = facts_of(name)
        advised, fresh = advice.advise(facts).strategy, {}
        click.echo(f"{name}: {advised} advised; probe {facts.probe:.3f}, pixels {facts.pixels:.3f}", err=True)
        for strategy in wanted:
            values = advice.advise(facts, strategy).settings
            if "epochs" in values:
                values["epochs"] = min(values["epochs"], most_epochs if strategy == "scratch" else values["epochs"])
            rows = measured(name, strategy, values, seeds)
            fresh[strategy] = rows[0]
            if record:
                runner.append(rows, "advice")
        rows = {**latest(name), **fresh}
        if advised in rows:
            verdicts.append(verdict(name, advised, rows))
            if record and set(rows) == set(advice.STRATEGIES):
                runner.append([_row(verdicts[-1], facts)], "advice")
    click.echo(console.table(verdicts))
    console.emit({"benchmark": "advice", "rows": verdicts}, as_json)
    return int(not all(row["holds"] for row in verdicts))


def _row(found, facts):
    text = (f"{found['data']}; advised {found['advised']}, best {found['best']}, allowed {found['allowed']:.4f}; probe "
            f"{facts.probe:.3f} +- {facts.probe_spread:.3f}, pixels {facts.pixels:.3f}")
    return runner.row("advice", text, "accuracy behind the best strategy", "fraction", [found["behind"]])


def _listed(text, known, what):
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise ConfigError(f"no {what} '{name}'", remedy=near(name, known))
    return names


if __name__ == "__main__":
    main()
