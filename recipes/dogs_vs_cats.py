"""Dogs against cats: VGG-16's last layer exchanged and trained alone, then the last convolutions set free as well.

    python recipes/dogs_vs_cats.py --data dogs-vs-cats/          # cats/ and dogs/, or Kaggle's train/cat.0.jpg, ...
    python recipes/dogs_vs_cats.py --data photos/ --pretrained mobilenetv2_1.0:coral_rot180 --per-class 60 --seeds 3
    python recipes/dogs_vs_cats.py --quick                       # on drawings, with a small network, half a minute

Phase 1 is the published `finetune()`: the last layer is removed, every other one is frozen, a new layer for the classes
is added and trained with RMSprop. The source pops whatever layer is the last, so that a second call loses what was
learnt or stacks one layer on another; here a second call changes nothing. It leaves it to the caller to move images
into a validation folder; here they are drawn by the seed, class by class, and nothing is moved. BatchNorm's statistics
of frozen layers are held too, and what the weights take as input comes from the weights.

With everything below it frozen, the new layer can only weigh what the network knows already: for images of a very
different kind the inner layers have to learn too. Phase 2 therefore sets the last stage of convolutions, and what is
above it, free at a hundredth of the rate. The table compares: before training, after phase 1, after phase 2.

Result to expect: with --quick 0.9 to 1.0 after phase 1 and 0.7 to 0.95 after phase 2 (three seeds, on drawings). For
photos none is known: no set of them was here.
"""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

import gluon_ft
from gluon_ft import Run, datasets, demo_weights, folds, split, summarise, tasks
from gluon_ft.cli import console
from gluon_ft.data.sources import class_names, folders
from gluon_ft.errors import ConfigError
from gluon_ft.reporting.plots import first_and_last

PHASE_1 = gluon_ft.TrainConfig(epochs=3, optimizer="rmsprop", lr=1e-3, wd=0.0, top_k=0)
PHASE_2 = replace(PHASE_1, epochs=2, lr=1e-5)
CLASSES = ["cat", "dog"]  # of the drawings; folders and file names bring their own


@console.recipe(__doc__, seed="Of the split, the new layer and the order of images.",
                quick="A trial: 32 images a class, ten times --lr; without --data drawings and a small network.")
@click.option("--data", type=click.Path(), help="Folder of class folders, or of images named cat.0.jpg, ...; default: "
                                                "the published set, which is fetched by hand.")
@click.option("--backbone", help="Default vgg16; where its weights cannot be had, the best at hand.")
@click.option("--pretrained", help="Weights: a tag or a file for --backbone, or BACKBONE:TAG; default: the catalog's.")
@click.option("--validation", default=0.1, help="Share of each class's images that is kept for validation.")
@click.option("--per-class", type=click.IntRange(4), help="Most images of a class that are used; default: all.")
@console.setting_option("epochs", default=PHASE_1.epochs, help="Of phase 1.")
@console.setting_option("lr", default=PHASE_1.lr, help="Learning rate of phase 1.")
@click.option("--free-stages", default=1, type=click.IntRange(1), help="Stages of convolutions that phase 2 unfreezes.")
@console.setting_option("epochs", "--epochs-2", default=PHASE_2.epochs, help="Of phase 2.")
@console.setting_option("lr", "--lr-2", default=PHASE_2.lr, help="Learning rate of phase 2.")
@console.setting_option("batch_size", default=64)
def main(runs, as_json, **options):
    options.update(settings(**options))
    configs = (replace(PHASE_1, epochs=options["epochs"], lr=options["lr"]),
               replace(PHASE_2, epochs=options["epochs_2"], lr=options["lr_2"]))
    ctx = gluon_ft.contexts(options["devices"])
    find_images(options["seed"], **options)
    source = gluon_ft.pretrained_net(options["backbone"], options["pretrained"], ctx=ctx)
    free_convolutions(source, options["free_stages"])
    run = Run(runs, "dogs_vs_cats", {**options, "phase_1": configs[0].to_dict(), "phase_2": configs[1].to_dict(),
                                     "weights": source.weights.source, "preprocessing": str(source.preprocessing)})
    rows, pictures = [], []
    for seed in range(options["seed"], options["seed"] + options["seeds"]):
        work = tasks.make(find_images(seed, **options), run.folder / f"data-{seed}", source.preprocessing,
                         options["batch_size"], CLASSES)
        pictures = pictures or [first_and_last(work.sets(seed).plain, run.folder / "first_and_last.png")]
        rows += train_task(work, seed, configs, options, ctx, run)
    table = folds.summarise_folds(rows) if options["cross_validate"] else None
    shown = table or (summarise(rows) if options["seeds"] > 1 else rows)
    console.conclude(run, rows, as_json, table, shown=[shown], pictures=pictures, notes=list(source.weights.notes))


def train_task(work, seed, configs, options, ctx, run):
    """The rows of one seed, or of each fold of it."""
    def train(sets, label):
        net = gluon_ft.pretrained_net(options["backbone"], options["pretrained"], ctx=ctx)
        return phases(finetune(net, work.classes, seed), sets, [replace(config, seed=seed) for config in configs],
                      options, run, label)

    if options["cross_validate"]:
        return work.cross_validate(options["cross_validate"], seed, lambda fold, sets: train(sets(), f"{seed}-{fold}"))
    return train(work.sets(seed), seed)


def settings(data, backbone, pretrained, per_class, quick, batch_size, lr, **_):
    """The options that depend on one another."""
    backbone, pretrained = demo_weights.choose(backbone, pretrained, "vgg16", drawn=quick and not data)
    return {"backbone": backbone, "pretrained": pretrained, "batch_size": min(batch_size, 16) if quick else batch_size,
            "per_class": min(per_class or 32, 32) if quick else per_class, "lr": 10 * lr if quick else lr}


def find_images(draw, data, quick, validation, per_class, **_):
    """The split of the images drawn by `draw`; for a quick run without data two pairs of drawings and labels."""
    if quick and data is None:
        return tuple(demo_weights.pictures(CLASSES, count, 2000 + 2 * draw + number)
                     for number, count in enumerate((per_class, 16)))
    if not 0 < validation < 1:
        raise ConfigError("--validation out of range", expected="a number between 0 and 1", found=validation)
    folder = folders.scan_either(datasets.get("dogs-vs-cats") if data is None else Path(data))
    return split.split(folder, fraction=1 - validation, cap=per_class, seed=draw)


def finetune(net, classes, seed=0):
    """Removes the last layer, freezes all others and adds a new one for `classes`, which alone is trained then.

    In place; called again with the same classes it keeps the layer, with what it has learnt, and freezes the others.
    seed : of the new layer (Xavier).
    """
    if not class_names.same(net.classes, classes):
        gluon_ft.seed_all(seed)
        gluon_ft.replace_output(net, len(classes), lr_mult=1)
        net.classes = list(classes)
    gluon_ft.unfreeze(net)
    gluon_ft.apply_groups(net, [gluon_ft.Group(stage="output"), gluon_ft.Group(pattern=".", frozen=True)])
    return net


def free_convolutions(net, count):
    """Sets the last `count` stages of convolutions free, and all layers above them; the stages below are frozen."""
    places = [place for place, stage in enumerate(gluon_ft.stages(net)) if stage.size is not None]
    if count > len(places):
        raise ConfigError(f"--free-stages {count}: the network has fewer", expected=f"at most {len(places)}")
    gluon_ft.unfreeze(net)
    gluon_ft.freeze_stages(net, places[-count])
    return net


def phases(net, sets, configs, options, run, label):
    """Both phases of one network; a row before them and one after each. label : seed and fold, for the records."""
    def row(name, trained):
        return {"name": name, "seed": configs[0].seed, "train_accuracy": gluon_ft.evaluate(net, sets.plain).accuracy,
                "validation_accuracy": gluon_ft.evaluate(net, sets.val).accuracy, "trained": trained}

    def train(name, config, done):
        gluon_ft.fit(net, sets.train, sets.val, config, name=f"{name}, seed {label}",
                     save_to=run.folder / f"{name}-{label}".replace(" ", "-"),
                     on_epoch=lambda record: run.log(name, seed=label, **{**record, "epoch": done + record["epoch"]}))
        return row(name, gluon_ft.describe(net).trained)

    rows = [row("before", 0), train("phase 1", configs[0], 0)]
    free_convolutions(net, options["free_stages"])
    return [*rows, train("phase 2", configs[1], configs[0].epochs)]


if __name__ == "__main__":
    main()
