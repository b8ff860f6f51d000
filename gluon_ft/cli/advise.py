"""`gluon-ft advise`: which strategy and settings to fine-tune a set of images with, and why."""
from __future__ import annotations

import os
import shlex

import click

from gluon_ft.cli import console


@click.command("advise", cls=console.Command)
@click.argument("folder", type=click.Path())
@click.option("--backbone", default="auto", help="Network; by default the one that `gluon-ft train` would take.")
@click.option("--pretrained", default="auto", help="Its weights: a tag, BACKBONE:TAG, a file, or 'none'.")
@click.option("--root", type=click.Path(), help="Folder that the paths of a list begin at; by default its own.")
@console.folder_options
@click.option("--most", default=300, help="Images that are looked at; fewer take less time.")
@click.option("--seed", default=0, help="Of the drawing of these.")
@console.wide_option
@console.json_option
def advise(folder, backbone, pretrained, root, labels_from, classes_are_folders, most, seed, wide, as_json):
    """Say how to fine-tune on FOLDER (one subfolder a class, or a list or .rec): strategy, settings, reasons, sources.

    Only training images belong in it. About ten seconds for photos on two processors; nothing is downloaded unless
    weights are named that are not here.

    \b
    gluon-ft advise photos/
    gluon-ft advise photos-train.rec --pretrained resnet50_v1b:gluon_in1k
    """
    from gluon_ft.data.sources import folders
    from gluon_ft.finetune import probe
    from gluon_ft.finetune.advice import STRATEGIES
    from gluon_ft.finetune.advice import advise as decide

    images = folders.scan_by(folder, labels_from, classes_are_folders=classes_are_folders) if os.path.isdir(
        folder) else folder
    facts = probe.measure(images, probe.named(backbone, pretrained), most=most, seed=seed, root=root)
    found = decide(facts)
    console.say(*lines(facts))
    console.say("", f"strategy: {found.strategy} ({STRATEGIES[found.strategy]})", "")
    console.show([{"setting": name, "value": str(value)} for name, value in found.settings.items()], wide=wide)
    console.say("", "why:")
    for text, source in found.reasons:
        console.say(f"- {text} [{source}]")
    console.say("", f"to do so: {command(folder, backbone, pretrained)}")
    console.emit({"command": "advise", "facts": facts.to_dict(), "strategy": found.strategy,
                  "settings": found.settings,
                  "reasons": [{"text": text, "source": source} for text, source in found.reasons]}, as_json)


def command(images, backbone, pretrained) -> str:
    """The `gluon-ft train` that goes by the same advice."""
    named = [word for name, value in (("--backbone", backbone), ("--pretrained", pretrained)) if value != "auto"
             for word in (name, value)]
    # Records of training images have no validation part in them to split off.
    source = ["--train", images, "--val", "VALIDATION.rec"] if images.endswith(".rec") else [images]
    return shlex.join(["gluon-ft", "train", *source, *named])


def lines(facts) -> list[str]:
    """The facts, for people."""
    each = f"{facts.smallest_class} to {facts.largest_class} each"
    shown = [f"{facts.images:,} images of {facts.classes} classes, {each}",
             f"median size {facts.width} x {facts.height}{', grey' if facts.grey else ''}",
             f"weights: {facts.weights or 'none'}"]
    if facts.probe is not None:
        shown.append(f"probe: accuracy {facts.probe:.3f} +- {facts.probe_spread:.3f} on pretrained features, "
                     f"{facts.pixels:.3f} on pixels, {facts.chance:.3f} by chance ({facts.seconds} s)")
    return [*shown, *(f"note: {text}" for text in facts.notes)]
