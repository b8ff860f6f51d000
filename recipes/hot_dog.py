"""Hot dog or not: a network of ImageNet's thousand classes, fine-tuned on a few hundred photos, against from scratch.

    python recipes/hot_dog.py                                    # the data set is fetched; the weights too
    python recipes/hot_dog.py --data hotdog/ --pretrained mobilenetv2_1.0:coral_rot180 --seeds 5 --json
    python recipes/hot_dog.py --data hotdog/ --compare           # also frozen, class-initialised, linear SVM
    python recipes/hot_dog.py --data hotdog/ --lr-sweep          # until the learning rate breaks it
    python recipes/hot_dog.py --quick                            # on drawings, with a small network, half a minute

The published procedure: ResNet-18 v2 with a new 2-way output (Xavier), which learns ten times as fast as the rest; SGD
without momentum, learning rate 0.01, weight decay 0.001, batches of 128, 5 epochs; a random part of each image, resized
to 224 x 224 and mirrored in half of the cases; validation on the centre of 256. Against it the same network from random
weights at a learning rate of 0.1. --freeze-features adds a network of which only the output is trained.
--init-from-class hotdog adds one whose output for hot dogs starts from ImageNet's own class of that name, looked up in
the list of names (it is index 934; the 713 of old texts is the photocopier), and whose output for anything else starts
from the mean of the 999 others plus log(999), see `gluon_ft.models.class_init`.

Result to expect: fine-tuned ahead of scratch at every epoch from the second on. Measured on ../shared/data/hotdog (262
photos, MobileNetV2 of ImageNet, --compare --batch-size 16 --lr 0.00125 --scratch-lr 0.0125: an eighth of the published
batch and rates, as there are an eighth of the photos), test accuracy, median of five seeds: SVM 0.86, frozen 0.83,
class-initialised 0.82, fine-tuned 0.81, scratch 0.49. With --quick about 0.9 against 0.5.
"""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

import gluon_ft
from gluon_ft import Run, datasets, demo_weights, folds, linear, lr_finder, split, summarise, tasks
from gluon_ft.cli import console
from gluon_ft.data.sources import class_names
from gluon_ft.errors import ConfigError, DataError
from gluon_ft.reporting.plots import first_and_last
from gluon_ft.reporting.rate_plots import rate_curve
from gluon_ft.training.feature_cache import features

PUBLISHED = gluon_ft.TrainConfig(epochs=5, lr=0.01, momentum=0.0, wd=0.001, top_k=0)
POSITIVE, NEGATIVE = CLASSES = ["hotdog", "not-hotdog"]


@console.recipe(__doc__, quick="A trial: 24 images a class; without --data drawings, and a small network.",
                seed="Of the new weights, the order of images and their augmentation.")
@click.option("--data", type=click.Path(), help="Folder with train/ and test/, each with hotdog/ and not-hotdog/; or "
                                                "a copy of the published archive; default: fetched.")
@click.option("--backbone", help="Default resnet18_v2; where its weights cannot be had, the best at hand.")
@click.option("--pretrained", help="Weights: a tag or a file for --backbone, or BACKBONE:TAG; default: the catalog's.")
@console.setting_option("epochs", default=PUBLISHED.epochs)
@console.setting_option("lr", default=PUBLISHED.lr, help="Of pretrained networks; with --lr-sweep the first one.")
@console.setting_option("lr", "--scratch-lr", default=0.1, help="From scratch.")
@console.setting_option("head_lr_mult", "--lr-mult", help="Multiplier of the new output's learning rate.")
@console.setting_option("batch_size", default=128)
@click.option("--freeze-features", is_flag=True, help="Also train the output alone.")
@click.option("--init-from-class", metavar="NAME", help="Also start from the source's class NAME, such as hotdog.")
@click.option("--compare", is_flag=True, help="All of these and a linear SVM on the features, in one report.")
@click.option("--lr-sweep", is_flag=True, help="Fine-tune at rising rates instead, until one breaks.")
def main(runs, as_json, **options):
    options.update(settings(**options))
    config = replace(PUBLISHED, epochs=options["epochs"], lr=options["lr"])
    ctx, images = gluon_ft.contexts(options["devices"]), find_images(**options)
    # All are built once before the run's folder is, so that what cannot be built is said at once.
    first, *_ = [network(name, options, ctx) for name in options["networks"] if name != "scratch"]
    run = Run(runs, "hot_dog", {**options, "config": config.to_dict(), "weights": first.weights.source})
    work = tasks.make(images, run.folder, first.preprocessing, options["batch_size"], CLASSES)
    configs = [replace(config, seed=seed) for seed in range(options["seed"], options["seed"] + options["seeds"])]
    pictures = [first_and_last(work.sets(0).plain, run.folder / "first_and_last.png")]

    def train(name, each, sets, **labels):
        each = replace(each, lr=options["scratch_lr"]) if name == "scratch" else each
        return train_network(name, network(name, options, ctx, each.seed), sets, each, run, **labels)

    rows, table, more = train_all(train, work, configs, options, run)
    shown = table or (summarise(rows) if len(configs) > 1 else rows)
    console.conclude(run, rows, as_json, table, shown=[shown], pictures=[*pictures, *more],
                     notes=list(first.weights.notes))


def train_all(train, work, configs, options, run):
    """(rows, table or None, pictures): a sweep of the learning rate, folds, or every network once a seed."""
    names = options["networks"]
    if options["lr_sweep"]:
        chance = lr_finder.chance_accuracy_bound(work.sets(0).val.labels)
        table, rows = lr_finder.sweep(lambda lr: [train("fine-tuned", replace(each, lr=lr), work.sets(each.seed),
                                                        series=f"lr {lr:g}") for each in configs],
                                      configs[0].lr, chance)
        return rows, table, [rate_curve(table, run.folder / "rates.png", chance)]
    if options["cross_validate"]:
        rows = [row for each in configs for row in work.cross_validate(
            options["cross_validate"], each.seed, lambda fold, sets, each=each: [
                train(name, each, sets(), fold=fold) for name in names])]
        return rows, folds.summarise_folds(rows), []
    return [train(name, each, work.sets(each.seed)) for each in configs for name in names], None, []


def settings(data, backbone, pretrained, batch_size, freeze_features, init_from_class, compare, lr_sweep, quick, **_):
    """The options that depend on one another: networks to train, backbone and weights, batch size of a trial."""
    wanted = {"fine-tuned": True, "frozen": compare or freeze_features, "class-initialised": compare or init_from_class,
              "SVM": compare, "scratch": not lr_sweep}
    if lr_sweep and sum(map(bool, wanted.values())) > 1:
        raise ConfigError("--lr-sweep is of the fine-tuned network alone", remedy="leave the other networks out")
    backbone, pretrained = demo_weights.choose(backbone, pretrained, "resnet18_v2", drawn=quick and not data)
    return {"networks": [name for name in wanted if wanted[name]], "init_from_class": init_from_class or POSITIVE,
            "backbone": backbone, "pretrained": pretrained, "batch_size": min(batch_size, 16) if quick else batch_size}


def find_images(data, quick, seed, **_):
    """The data's own parts; for a quick run without data two pairs of drawings and labels."""
    if quick and data is None:
        return tuple(demo_weights.pictures(CLASSES, 24, seed + number) for number in (0, 500))
    if data is None or Path(data).is_file():
        data = datasets.get("hot-dog", source=data)
    found = split.own_parts(data, cap=24 if quick else None, seed=seed)
    if not class_names.same(found.classes, CLASSES):
        raise DataError("other classes than hot dog or not", path=data, expected=" and ".join(CLASSES),
                        found=", ".join(found.classes), remedy="name the folders so")
    return found


def network(name, options, ctx, seed=0):
    """The network called `name`, ready to be trained."""
    gluon_ft.seed_all(seed)
    backbone, weights, lr_mult = options["backbone"], options["pretrained"], options["lr_mult"]
    if name == "scratch":
        return gluon_ft.fine_tune_net(backbone, len(CLASSES), lr_mult=1, ctx=ctx)
    if name == "class-initialised":
        source = gluon_ft.pretrained_net(backbone, weights, ctx=ctx)
        return gluon_ft.output_from_classes(source, [options["init_from_class"], None], lr_mult=lr_mult)
    net = gluon_ft.fine_tune_net(backbone, len(CLASSES), pretrained=weights, lr_mult=lr_mult, ctx=ctx)
    if name == "frozen":
        gluon_ft.apply_groups(net, [gluon_ft.Group(stage="output"), gluon_ft.Group(pattern=".", frozen=True)])
    return net


def train_network(name, net, sets, config, run, series=None, fold=None):
    """Trains a network; its row. series, fold : what it is called in the records, beside the seed."""
    series, seed = series or name, config.seed if fold is None else f"{config.seed}-{fold}"
    if name == "SVM":
        # A linear layer in the place of the output; nothing below it is trained, so nothing is augmented.
        images, others = features.extract(net, sets.plain), features.extract(net, sets.val)
        fitted = linear.fit(*images, "svm", seed=config.seed)
        train, val = (float((fitted.logits(x).argmax(1) == y).mean()) for x, y in (images, others))
    else:
        result = gluon_ft.fit(net, sets.train, sets.val, config, name=f"{series}, seed {seed}",
                              save_to=run.folder / f"{series}-{seed}".replace(" ", "-"),
                              on_epoch=lambda record: run.log(series, seed=seed, **record))
        train, val = (result.history[-1][f"{part}_accuracy"] for part in ("train", "validation"))
    return {"name": series, "seed": config.seed, "train_accuracy": train, "validation_accuracy": val}


if __name__ == "__main__":
    main()
