"""SVM on bottleneck features: the images go once through a pretrained network, and a linear classifier learns the rest.

    python recipes/bottleneck_svm.py --data hotdog/ --pretrained mobilenetv2_1.0:coral_rot180 --seeds 5
    python recipes/bottleneck_svm.py --data photos/ --backbone resnet50_v1b --cross-validate 5 --json
    python recipes/bottleneck_svm.py --quick                     # on drawings, with a small network, ten seconds

For fewer than about 1,000 images. What the network's output layer takes (1,280 numbers an image for MobileNetV2) is
computed once and kept on disk; a linear SVM and a logistic regression are fitted to it. Standardisation and C are
chosen by stratified folds of the training images only, copies of an image (as the audit finds them) staying in one
fold; the probabilities are calibrated by decision values of images held out. Both are then a Dense layer exactly: each
is saved as the network with that output, which `gluon-ft predict` takes and which exports like any other.

--data is a folder with train/ and test/ (or val/, valid/, validation/), or a folder of class folders, a quarter of
which is kept for validation, drawn by the seed.

Result to expect: on the 262 + 88 photos of ../shared/data/hotdog the first command ends at 0.864 for both (five seeds'
median; SVM 0.852 to 0.864, logistic regression 0.864 to 0.875), after half a minute of features and two seconds a seed.
"""
from __future__ import annotations

from pathlib import Path

import click
import numpy as np

import gluon_ft
from gluon_ft import Run, datasets, demo_weights, linear, penultimate, summarise
from gluon_ft import folds as cross_validation
from gluon_ft.cli import console
from gluon_ft.evaluation.calibration import log_loss
from gluon_ft.finetune.pictures import draw_confusion

HELD_OUT = ("test", "val", "valid", "validation")
QUICK = ("cat", "dog", "donut")  # the drawings of a trial without --data


@console.recipe(__doc__, quick="A trial: 24 images a class; without --data drawings, and a small network.",
                seed="Of the split and the folds.", folds="Report K folds of all images instead.")
@click.option("--data", type=click.Path(), help="Folder of images; default: the hot dog data set, fetched.")
@click.option("--backbone", help="Default resnet18_v2; where its weights cannot be had, the best at hand.")
@click.option("--pretrained", help="Weights: a tag or a file for --backbone, or BACKBONE:TAG; default: the catalog's.")
@click.option("--folds", default=5, type=click.IntRange(2), help="By which C and the calibration are chosen.")
def main(data, backbone, pretrained, folds, cross_validate, seed, seeds, quick, devices, runs, as_json):
    net = network(data, backbone, pretrained, quick, gluon_ft.contexts(devices))
    images = Images(find(data, quick), net, seed if quick and data else None)
    train, _ = images.parts(seed, cross_validate)[0]
    cross_validation.folds(images.labels[train], folds, seed, images.groups[train])  # before a folder is made
    run = Run(runs, "bottleneck_svm", {
        "data": data or ("drawings" if quick else "hot-dog"), "weights": net.weights.source, "folds": folds,
        "cross_validate": cross_validate, "seed": seed, "seeds": seeds, "quick": quick})
    rows, pictures = [], {}
    for number in range(seed, seed + seeds):
        for fold, parts in enumerate(images.parts(number, cross_validate)):
            for kind in ("svm", "logistic"):
                row, found = fit(images, kind, parts, folds, number)
                rows.append({**row, "fold": fold} if cross_validate else row)
                if not cross_validate:
                    pictures[kind] = keep(images, found, parts[1], net, run.folder / f"{kind}-{number}", row)
    table = (cross_validation.summarise_folds(rows) if cross_validate else summarise(rows) if seeds > 1 else None)
    console.conclude(
        run, rows, as_json, table,
        {"images": len(images.labels), "features": images.features.shape[1], "classes": images.classes},
        [[{**row, "C": f"{row['C']:g}"} for row in rows], *([table] if table else [])],
        pictures=list(pictures.values()), notes=[*net.weights.notes, *images.notes])


def network(data, backbone, pretrained, quick, ctx):
    """The network whose features are used; for a quick run without data the one of drawings."""
    backbone, pretrained = demo_weights.choose(backbone, pretrained, "resnet18_v2", drawn=quick and not data)
    return gluon_ft.pretrained_net(backbone, pretrained, ctx=ctx)


def find(data, quick):
    """What to read: [training, validation], or one folder or set to be divided."""
    if quick and data is None:
        return [demo_weights.pictures(QUICK, 24, seed=0)]
    folder = Path(data or "")
    if data is None or folder.is_file():
        folder = datasets.get("hot-dog", source=data)
    held_out = [folder / name for name in HELD_OUT if (folder / name).is_dir()]
    return [folder / "train", held_out[0]] if held_out and (folder / "train").is_dir() else [folder]


class Images:
    """Features and labels of all images, in the order of their sources; `groups` of copies; `notes`.

    trial : seed of the 24 images a class that are drawn from each source, None for all
    """

    def __init__(self, sources, net, trial):
        opened, self.notes, classes = [], [], None if isinstance(sources[0], Path) else QUICK
        for source in sources:
            opened.append(gluon_ft.loaders.make_loader(source, preprocessing=net.preprocessing, train=False,
                                                       batch_size=32, classes=classes))
            classes = opened[0].classes
        self.groups = np.arange(sum(len(loader.labels) for loader in opened))
        if all(isinstance(source, Path) for source in sources):
            found = gluon_ft.audit(sources)
            self.groups = cross_validation.groups_of(found, *opened)
            self.notes += [f"{count} validation images are copies of others, see gluon-ft audit"
                           for count in found.leaked_images.values()]
        if trial is not None:
            chosen = [drawn(loader.labels, trial) for loader in opened]
            starts = np.cumsum([0, *(len(loader.labels) for loader in opened)])
            self.groups = self.groups[np.concatenate([begin + rows for begin, rows in zip(starts, chosen)])]
            opened = [cross_validation.subset(loader, rows) for loader, rows in zip(opened, chosen)]
        found = [penultimate(net, loader) for loader in opened]
        self.features, self.labels = (np.concatenate(arrays) for arrays in zip(*found))
        self.classes, self.first = opened[0].classes, len(opened[0].labels)

    def parts(self, seed, k=None):
        """Positions to train on and to validate with, of `k` folds, or of the data's own parts or three quarters."""
        if not k and self.first < len(self.labels):
            return [(np.arange(self.first), np.arange(self.first, len(self.labels)))]
        return cross_validation.folds(self.labels, k or 4, seed, self.groups)[:k or 1]


def drawn(labels, seed, most=24):
    """Positions of at most so many images of each class."""
    order = np.random.RandomState(seed).permutation(len(labels))
    return np.sort(np.concatenate([order[labels[order] == label][:most] for label in np.unique(labels)]))


def fit(images, kind, parts, folds, seed):
    """A row, and the classifier. parts : positions to train on, and to validate with."""
    train, val = parts
    found = linear.fit(images.features[train], images.labels[train], kind, folds, seed, images.groups[train])
    row = {"name": kind, "seed": seed}
    for part, rows in (("train", train), ("validation", val)):
        probabilities = found.probabilities(images.features[rows])
        row[f"{part}_accuracy"] = float((probabilities.argmax(axis=1) == images.labels[rows]).mean())
    return {**row, "validation_log_loss": log_loss(probabilities, images.labels[val]), "C": found.C}, found


def keep(images, found, rows, net, folder, row):
    """Saves the network with the classifier as its output, and draws what it takes for what; the picture's path."""
    linear.set_output(net, *found.dense(), images.classes)
    gluon_ft.save_model(net, folder / "model.params", recipe="bottleneck_svm", **row)
    return draw_confusion(found.probabilities(images.features[rows]), images.labels[rows], images.classes,
                          folder.parent / f"confusion-{folder.name}.png")


if __name__ == "__main__":
    main()
