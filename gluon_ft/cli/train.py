"""`gluon-ft train`: from a folder of photos to a fine-tuned, evaluated, saved and reported network."""
from __future__ import annotations

import os

import click

from gluon_ft.cli import console
from gluon_ft.finetune import settings
from gluon_ft.finetune.advice import SETTING_RULES, STRATEGIES

# setting -> its line of help; every setting is an option.
HELP = {
    "train": "Training images instead of PHOTOS: a folder, a .lst or a .rec.",
    "val": "Validation images that go with --train.",
    "root": "Folder that the paths of a .lst begin at; default its own.",
    "validation": "Share of each class that is held out.",
    "exclude": "Classes to leave out, with commas.",
    "audit": "fix (leave out bad files, keep copies on one side), report, or none.",
    "backbone": "Network, a name such as resnet18_v1b.",
    "pretrained": "Weights: a tag, BACKBONE:TAG, a file, or none.",
    "strategy": f"{', '.join(f'{name} ({what})' for name, what in STRATEGIES.items())}.",
    "freeze": "none, features, or a number of stages from the input on.",
    "batchnorm": "Statistics of BatchNorm in what is trained: train (they follow the batches) or frozen (the weights' "
                 "own are held).",
    "head_lr_mult": "Multiplier of the learning rate of the new output.",
    "dropout": "Before the output.",
    "batch_size": "Images a step, over all devices together.",
    "devices": "cpu, cpu:2, gpu, gpu:4.",
    "workers": "Threads that decode.",
    "augment": "gluon, im2rec, none, or an Augmentation's fields as JSON.",
    "size": "Height and width of the input, pixels.",
    "cache_features": "Where frozen features are kept: memory, disk or none.",
    "views": "So many augmented views of each image, in turn; 0: new ones each epoch.",
    "epochs": "Passes over the training images.",
    "optimizer": "sgd, nag, adam or rmsprop.",
    "lr": "Learning rate.",
    "momentum": "Of sgd and nag.",
    "wd": "Weight decay.",
    "decay_bias_and_norm": "Weight decay of biases, gamma and beta as well.",
    "clip_norm": "Largest norm of a step's gradients; 0: no limit.",
    "accumulate": "Batches that are added up to one step.",
    "schedule": "constant, step, multistep, cosine or one-cycle.",
    "warmup": "Epochs over which the learning rate rises first.",
    "lr_factor": "What step and multistep multiply by.",
    "lr_every": "Epochs between the drops of step.",
    "milestones": "Epochs after which multistep drops, with commas.",
    "layer_decay": "Learning rate of each stage over that of the stage above it.",
    "head_epochs": "So many epochs train the output only, first.",
    "unfreeze": "Epochs at which one more stage is set free, with commas.",
    "label_smoothing": "Share of each label that is spread over all classes.",
    "mixup": "Alpha of mixup; 0: off.",
    "cutmix": "Alpha of cutmix; 0: off.",
    "balance": "none, weights or sampling.",
    "ema": "Decay of the moving average of the weights; 0: off.",
    "patience": "Stop after so many epochs without a new best; 0: never.",
    "stop_within_schedule": "Patience may end a schedule early.",
    "precision": "float32, bfloat16 (CPUs that have it) or float16 (GPUs).",
    "kvstore": "MXNet's store that adds up the gradients of several devices.",
    "seed": "Of everything that is drawn.",
    "save_every": "Steps between checkpoints within an epoch; 0: none.",
    "save_minutes": "Minutes between checkpoints within an epoch; 0: none.",
    "keep": "Checkpoints to keep.",
    "top_k": "Also report top-k accuracy; 0: not.",
    "allow_empty_classes": "Allow classes without a training image.",
}

# Defaults in words, where they are chosen for each job in another way than by the tables of `gluon_ft.finetune.advice`.
CHOSEN = {
    "backbone": "the best whose weights are at hand", "pretrained": "the best at hand", "strategy": "by the data",
    "devices": "every GPU, or else the CPU", "workers": "by the processors", "size": "the network's, or as advised",
    "cache_features": "memory where something is frozen", "views": "4 with frozen stages and augmentation, else 0",
}
ADVISED = {name for rule in SETTING_RULES for name in rule.settings}
SOMETIMES = ("wd", "mixup", "balance")  # the advice leaves them alone for most jobs


def default(name: str) -> str | None:
    """A setting's default for its line of help; None where there is nothing to say."""
    if name in CHOSEN or (name in ADVISED and name not in SOMETIMES):
        return CHOSEN.get(name, "as advised")
    value = settings.defaults()[name]
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = None if value in (None, ()) else f"{value:g}" if isinstance(value, float) else str(value)
    return f"{text}, or as advised" if name in SOMETIMES else text


def _help(name):
    words = default(name)
    return HELP.get(name) if words is None else f"{HELP.get(name)}  [default: {words}]"


def _setting_options(function):
    kinds = settings.kinds()
    for name in reversed([name for name in settings.names() if name != "data"]):
        flag = f"--{name.replace('_', '-')}"
        flags = f"{flag}/--no{flag[1:]}" if kinds[name] == "bool" else flag
        how = {} if kinds[name] == "bool" else {"type": str, "metavar": _metavar(name, kinds[name])}
        function = click.option(flags, name, default=None, show_default=False, help=_help(name), **how)(function)
    return function


def _metavar(name, kind):
    if name in ("train", "val", "root"):
        return "PATH"
    return "N" if kind.startswith("int") else "X" if kind.startswith("float") else "TEXT"


@click.command("train", cls=console.Command)
@click.argument("photos", nargs=-1, metavar="[PHOTOS] [KEY=VALUE]...")
@click.option("--config", type=click.Path(), help="A .toml or .json file of settings, such as a run's config.json.")
@click.option("--run", type=click.Path(), help="Folder of this run; default a new one in --runs.")
@click.option("--runs", default="runs", type=click.Path(), help="Folder for the run folders.")
@click.option("--resume", is_flag=True, help="Go on with the unfinished run in --run; begin it where there is none.")
@_setting_options
@console.json_option
def train(photos, config, run, runs, resume, as_json, **options):
    """Fine-tune a network on PHOTOS: a folder with one subfolder a class, or with train/ and val/ of that form.

    Looks for copies and bad files, splits, chooses network and strategy and says why, trains, evaluates, and writes a
    run folder with the model, its settings and a report. What is given is not chosen: --config is weaker than
    KEY=VALUE, and that is weaker than an option.

    \b
    gluon-ft train photos/
    gluon-ft train photos/ --backbone resnet18_v1b --freeze features --epochs 10 --run runs/first
    gluon-ft train --config runs/first/config.json lr=0.001 --seed 1
    gluon-ft train --run runs/first --resume
    """
    from gluon_ft import finetune

    data, assignments = _photos(photos)
    done = finetune.train(data, run=run, runs=runs, resume=resume, config=config, assignments=assignments,
                          say=click.echo, **options)
    for row in done.result["rows"]:
        click.echo(_summary(row, done.result))
    click.echo(f"model: {done.folder / 'best.params'}")
    click.echo(f"report: {done.report}")
    console.emit({"command": "train", "run": done.folder, "report": done.report, **done.result}, as_json)


def _photos(words):
    """(the folder or None, the assignments) of the arguments; what exists is a folder, even with '=' in its name."""
    paths = [word for word in words if "=" not in word or os.path.exists(word)]
    if len(paths) > 1:
        raise click.UsageError(f"one folder of photos is expected, found {' and '.join(paths)}; settings are key=value")
    return (paths[0] if paths else None), [word for word in words if word not in paths]


def _summary(row, result):
    parts = [f"{part} accuracy {row[f'{part}_accuracy']:.3f}" for part in ("train", "validation")
             if row[f"{part}_accuracy"] is not None]
    best = result.get("best_validation_accuracy")
    at = f" (best {best:.3f} after epoch {result['best_epoch']})" if best is not None else ""
    return f"{row['name']}: {', '.join(parts)}{at}, {row['seconds']:.1f} s"
