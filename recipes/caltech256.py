"""Caltech-256: from the archive or the image folder to the accuracy, through a symbol and Module or through Gluon.

    python recipes/caltech256.py --data 256_ObjectCategories --clutter keep --checkpoint resnet-50 0 --devices gpu:8
    python recipes/caltech256.py --data 256_ObjectCategories.tar --clutter drop --pretrained resnet50_v1b --path gluon
    python recipes/caltech256.py --data caltech256/ --per-class 15 --pretrained mobilenetv2_1.0:coral_rot180 \\
        --frozen '^features\\.(\\d|1\\d)\\.' --epochs 2 --momentum 0.9 --seeds 5 --json     # or: --cross-validate 5

60 images a class, drawn by the seed, are for training and the rest for validation; they are resized to 256, packed with
JPEG quality 90, and a new layer for the classes is trained with the network: SGD with learning rate 0.01 for 8 epochs,
16 images a device. Caltech-256 has 257 folders: 256 categories and 257.clutter, so say which of the two it is to be.

Result to expect (published, all classes, 8 GPUs): ResNet-50 of ImageNet 0.774, ResNet-152 of ImageNet-11k 0.864. On the
20 classes of ../shared/data/caltech256 the last command above takes four minutes on two cores and ends at 0.911 (five
seeds' median; 0.895 to 0.921) by either path.
"""
from __future__ import annotations

import gluon_ft  # isort: skip  (prepares the import of mxnet)

from dataclasses import replace

import click
import mxnet as mx

from gluon_ft import Run, folds, lists, split, summarise, symbolic
from gluon_ft.cli import console
from gluon_ft.data.datasets import caltech
from gluon_ft.finetune import choice
from gluon_ft.runtime.processors import threads
from gluon_ft.symbolic.sources import INPUTS


@console.recipe(__doc__, quick="A trial: four training images a class, two for validation, one epoch.",
                seed="Of the split, the new layer and the order of images.",
                folds="K folds of the training images instead.", devices="auto")
@click.option("--data", type=click.Path(), help="Folder of class folders, or an archive of it; default: fetched.")
@click.option("--clutter", type=click.Choice(["keep", "drop"]), help="257.clutter as a class, or not.")
@click.option("--path", type=click.Choice(["symbolic", "gluon"]), default="symbolic", help="Module, or Gluon's loop.")
@click.option("--backbone", help="A network of the registry; without --pretrained it starts from random weights. "
                                 "Without either, or --checkpoint, the best at hand.")
@click.option("--pretrained", help="Weights: a tag or a file for --backbone, or BACKBONE:TAG of the catalog.")
@click.option("--checkpoint", nargs=2, metavar="PREFIX EPOCH", help="A symbolic model instead: PREFIX-symbol.json, ...")
@click.option("--input", "takes", type=click.Choice(list(INPUTS)), help="What the network takes, where not known.")
@console.setting_option("size", help="Height and width of the input; default the network's.")
@click.option("--layer", help="Layer of a checkpoint below the new one, such as flatten0; default: found.")
@click.option("--frozen", multiple=True, metavar="PATTERN", help="Parameters that are not trained, by name.")
@click.option("--per-class", default=60, help="Training images a class; the others are for validation.")
@click.option("--batch-per-device", default=16, type=click.IntRange(1), help="Images a device in each batch.")
@console.setting_option("epochs", default=8)
@console.setting_option("lr", default=0.01)
@console.setting_option("momentum", default=0.0)
@console.setting_option("head_lr_mult", default=1.0)
def main(data, clutter, per_class, epochs, lr, momentum, cross_validate, seed, seeds, quick, runs, as_json, **options):
    if quick:
        per_class, epochs = min(per_class, 4), 1
    config = replace(symbolic.AS_PUBLISHED, epochs=epochs, lr=lr, momentum=momentum)
    devices = gluon_ft.contexts(options["devices"])
    options["batch_size"] = options["batch_per_device"] * len(devices)
    source, images = find(options), caltech.image_folder(data)
    chosen = {"per_class": per_class, "cap": per_class + 2 if quick else None,
              "exclude": caltech.clutter_folders(images, clutter)}
    drawn = split.split(images, **chosen, seed=seed)
    new_network(source, len(drawn.classes), options, devices)
    if cross_validate:
        folds.folds([entry.label for entry in drawn.parts["train"]], cross_validate, seed)
    run = Run(runs, "caltech256", {"data": data or "caltech-256", "clutter": clutter, "per_class": per_class,
                                   "cross_validate": cross_validate, "seed": seed, "seeds": seeds, "quick": quick,
                                   **options, "config": config.to_dict()})
    rows = []
    for number in range(seed, seed + seeds):
        drawn = split.split(images, **chosen, seed=number)
        rows += train_split(drawn, source, cross_validate, (options, replace(config, seed=number), devices, run))
    table = folds.summarise_folds(rows) if cross_validate else summarise(rows) if seeds > 1 else None
    counts = {part: len(entries) for part, entries in drawn.parts.items()}
    console.conclude(run, rows, as_json, table, {"classes": len(drawn.classes), "images": counts},
                     notes=list(source.notes))


def train_split(drawn, source, cross_validate, settings):
    """The rows of one seed's split: one, or one a fold. settings : the last arguments of `train`."""
    options, config, _, run = settings
    packed = pack(drawn, run.folder / f"data-{config.seed}")
    sets = open_sets(packed, source, drawn.classes, options["batch_size"], config.seed)
    if not cross_validate:
        return [train(sets["train"], sets["val"], *settings)]
    return folds.cross_validate_loaders(
        cross_validate, sets["train"], sets["plain"], config.seed,
        lambda fold, images, held_out: train(images, held_out, *settings, fold), [packed["train"]]).rows


def find(options):
    """The network with its own output and weights, and the input that it takes."""
    takes, size = INPUTS.get(options["takes"]), options["size"]
    named = {name: options[name] or None for name in ("backbone", "pretrained", "checkpoint")}
    if not any(named.values()) and (here := choice.best_at_hand(None, gpu=False)):
        named["pretrained"] = here.name
    source = symbolic.find_source(*named.values(), takes)
    return replace(source, preprocessing=source.preprocessing.with_size(size)) if size else source


def pack(drawn, folder):
    """Training and validation records, as im2rec makes them with --resize 256 --quality 90."""
    folder.mkdir()
    split.write(drawn, folder / "images")
    return {part: gluon_ft.pack(lists.list_file(folder / "images", part), drawn.root, resize=256, quality=90,
                               workers=threads())[0].rec for part in ("train", "val")}


def open_sets(packed, source, classes, batch_size, seed):
    """Loaders: 'train', 'plain' (the same images as they are evaluated) and 'val'."""
    return {name: gluon_ft.loaders.make_loader(packed["val" if name == "val" else "train"], train=name == "train",
                                               preprocessing=source.preprocessing, cache="memory",
                                               batch_size=batch_size, seed=seed, classes=classes)
            for name in ("train", "plain", "val")}


def new_network(source, classes, options, devices):
    """The network with a new layer for the classes, as the chosen path takes it, and the layer's initialiser."""
    init, frozen = mx.init.Xavier(rnd_type="gaussian", factor_type="in", magnitude=2), options["frozen"]
    if options["path"] == "symbolic":
        return source.symbolic(classes, options["layer"], frozen), init
    return source.gluon(classes, options["head_lr_mult"], options["layer"], frozen, devices, init), init


def train(images, held_out, options, config, devices, run, fold=None):
    """One seed, or one fold of it, by one path; its row."""
    gluon_ft.seed_all(config.seed)
    source, count, name = find(options), options["batch_size"], options["path"]
    seed = config.seed if fold is None else f"{config.seed}-{fold}"
    shared = {"config": config, "on_epoch": lambda record: run.log(name, seed=seed, **record),
              "save_to": run.folder / f"{name}-{seed}", "name": f"{source.name}, seed {seed}"}
    net, init = new_network(source, len(images.classes), options, devices)
    if name == "symbolic":
        *model, frozen = net
        result = symbolic.fit(*model, images, held_out, count, devices, frozen=frozen, initializer=init,
                              head_lr_mult=options["head_lr_mult"], preprocessing=source.preprocessing, **shared)
    else:
        result = gluon_ft.fit(net, images, held_out, **shared)
    last = result.history[-1]
    return {"name": name, "seed": config.seed, "train_accuracy": last["train_accuracy"],
            "validation_accuracy": last["validation_accuracy"], "seconds": round(result.seconds, 1)}


if __name__ == "__main__":
    main()
