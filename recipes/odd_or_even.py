"""Odd or even: a network trained on ten digits learns a new question from fifty images.

    python recipes/odd_or_even.py                       # scikit-learn's bundled digits, about half a minute
    python recipes/odd_or_even.py --data mnist/         # a folder of MNIST's IDX files, or of subfolders 0 to 9
    python recipes/odd_or_even.py --seeds 5 --json
    python recipes/odd_or_even.py --cross-validate 5    # of the same 200 images, each validated once

Step 1 trains LeNet on ten digits. Step 2 freezes all of it and puts a new 2-way layer `ip2_odd_even` on top of the
10-way output, trained on at most 100 images a class of which 75% are kept for validation: 50 images to learn from.
Steps 3 and 4 train the same layers from scratch on the same images, with Gluon's default and with Xavier
initialisation. No validation image is in any training set, that of step 1 included.

Result to expect (validation accuracy, bundled digits): fine-tuned over 0.90, by five seeds' median 0.97; from scratch
0.87 with either initialisation, though both learn the training images by heart. (The published example's default
initialisation, all zeros, stays at 0.5; Gluon's is uniform and learns.)
"""
from __future__ import annotations

import gluon_ft  # isort: skip  (prepares the import of mxnet)

import hashlib
from dataclasses import replace
from pathlib import Path

import click
import mxnet as mx
import numpy as np

from gluon_ft import Run, digits, folds, summarise
from gluon_ft.cli import console
from gluon_ft.io import paths
from gluon_ft.reporting import image_grid

# Label smoothing draws the ten outputs of each digit together, so that a linear layer over them can tell odd from even
# after fifty images: without it the logistic regression on these outputs ends between 0.85 and 0.93.
SOURCE = gluon_ft.TrainConfig(epochs=10, lr=0.02, momentum=0.9, wd=5e-4, label_smoothing=0.1, top_k=0)
TASK = gluon_ft.TrainConfig(epochs=30, lr=0.01, momentum=0.9, wd=5e-4, top_k=0)


@console.recipe(__doc__, quick="A trial: at most five epochs of steps 2 to 4.",
                seed="Of the drawing, the initialisation and the order of images.",
                folds="K folds of the drawn images, in the place of --validation.")
@click.option("--data", type=click.Path(), help="MNIST's IDX files in a folder, or a folder of subfolders 0 to 9; "
                                                "default: scikit-learn's digits.")
@click.option("--max-per-class", default=100, help="Images of odd, and of even digits.")
@click.option("--validation", default=0.75, help="Share of these that is kept for validation.")
@console.setting_option("epochs", default=TASK.epochs, help="Of steps 2 to 4.")
@console.setting_option("lr", default=TASK.lr, help="Of steps 2 to 4; the new layer of step 2 has ten times it.")
@console.setting_option("batch_size", default=10, help="Images a step, of steps 2 to 4.")
def main(data, max_per_class, validation, epochs, lr, batch_size, cross_validate, seed, seeds, quick, devices,
         runs, as_json):
    images = digits.load(data)
    config = replace(TASK, epochs=min(epochs, 5) if quick else epochs, lr=lr)
    ctx = gluon_ft.contexts(devices)
    parts = digits.odd_even(images, max_per_class, validation, seed)
    if cross_validate:
        folded(parts, cross_validate, seed)  # what it refuses it refuses before there is a folder
    run = Run(runs, "odd_or_even", {
        "data": data or "scikit-learn", "max_per_class": max_per_class, "validation": validation, "seed": seed,
        "seeds": seeds, "cross_validate": cross_validate, "batch_size": batch_size, "devices": devices,
        "source": SOURCE.to_dict(), "task": config.to_dict()})
    rows = []
    for number in range(seed, seed + seeds):
        parts = digits.odd_even(images, max_per_class, validation, number)
        for fold, part in enumerate(folded(parts, cross_validate, number) if cross_validate else [parts]):
            found = compare(part, replace(config, seed=number), batch_size, ctx, run, fold if cross_validate else None)
            rows += [{**row, "fold": fold} for row in found] if cross_validate else found
    table = folds.summarise_folds(rows) if cross_validate else summarise(rows) if seeds > 1 else None
    console.conclude(run, rows, as_json, table, pictures=[samples(parts.train, run.folder / "samples.png")],
                     series=list(dict.fromkeys(row["name"] for row in rows)))


def samples(part, path):
    """Draws eight training images of either class: those of even digits stand before those of odd ones."""
    shown = part.take([*range(min(8, len(part))), *range(max(8, len(part) - 8), len(part))])
    return image_grid(shown.images, [shown.classes[i] for i in shown.labels], path)


def folded(parts, k, seed):
    """The task once a fold of the images for training and validation together."""
    both = replace(parts.train, images=np.concatenate([parts.train.images, parts.validation.images]),
                   labels=np.concatenate([parts.train.labels, parts.validation.labels]))
    return [replace(parts, train=both.take(train), validation=both.take(val))
            for train, val in folds.folds(both.labels, k, seed)]


def compare(parts, config, batch_size, ctx, run, fold=None):
    """Steps 1 to 4 for one seed, or one fold of it; one row for each of the three networks."""
    train, val = loader(parts.train, batch_size, config.seed, shuffle=True), loader(parts.validation, 100)
    source = source_network(parts, config.seed, ctx, run)
    gluon_ft.freeze(source)
    # Again, so that the new layer starts alike whether the source network was trained or read from the cache.
    gluon_ft.seed_all(config.seed)
    networks = {"fine-tuned": gluon_ft.append_output(source, 2, name="ip2_odd_even"),
                "scratch-default": from_scratch(mx.init.Uniform(0.07), config.seed, ctx),
                "scratch-xavier": from_scratch(mx.init.Xavier(), config.seed, ctx)}
    rows = []
    seed = config.seed if fold is None else f"{config.seed}-{fold}"
    for name, net in networks.items():
        gluon_ft.fit(net, train, val, config, name=name, save_to=run.folder / f"{name}-{seed}",
                     on_epoch=lambda record, name=name: run.log(name, seed=seed, **record))
        rows.append({"name": name, "seed": config.seed, "train_accuracy": gluon_ft.evaluate(net, train).accuracy,
                     "validation_accuracy": gluon_ft.evaluate(net, val).accuracy})
    return rows


def source_network(parts, seed, ctx, run):
    """LeNet trained on ten digits; kept in the cache under everything that it depends on, and reused from there."""
    config = replace(SOURCE, seed=seed)
    key = hashlib.sha256(parts.source_train.images.tobytes() + parts.source_train.labels.tobytes()
                         + repr((config, gluon_ft.__version__)).encode()).hexdigest()[:16]
    kept = paths.cache_home() / "odd_or_even" / key / "last.params"
    if kept.is_file():
        net = gluon_ft.pretrained_net("lenet", kept, ctx=ctx)
    else:
        gluon_ft.seed_all(seed)
        net = gluon_ft.backbones.build("lenet")
        net.initialize(mx.init.Xavier(), ctx=ctx)
        net.hybridize()
    held_out = loader(parts.source_held_out, 100)
    if not kept.is_file():
        gluon_ft.fit(net, loader(parts.source_train, 64, seed, shuffle=True), held_out, config, name="ten digits",
                     save_to=Path(kept).parent, on_epoch=lambda record: run.log("ten digits", seed=seed, **record))
    print(f"ten digits, seed {seed}: accuracy {gluon_ft.evaluate(net, held_out).accuracy:.3f} on "
          f"{len(parts.source_held_out)} images held out")
    return net


def from_scratch(init, seed, ctx):
    """The same layers, `ip2_odd_even` on top of LeNet's ten, with nothing learnt yet."""
    gluon_ft.seed_all(seed)
    net = gluon_ft.append_output(gluon_ft.backbones.build("lenet"), 2, name="ip2_odd_even", lr_mult=1)
    net.initialize(init, ctx=ctx)
    net.hybridize()
    return net


def loader(part, batch_size, seed=0, shuffle=False):
    """Batches of (n, 1, 28, 28) in 0..1."""
    return gluon_ft.ArrayLoader(part.images[:, None] / 255.0, part.labels, batch_size, shuffle, seed)


if __name__ == "__main__":
    main()
