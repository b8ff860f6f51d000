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
@click.option("--more-photos", is_flag=True, help="Instead: how accuracy grew with the photos, and what twice as many "
              "would bring, for each class as well.")
@click.option("-o", "--out", type=click.Path(), help="With --more-photos: write the curve as a PNG.")
@console.devices_option("cpu")
@console.wide_option
@console.json_option
def advise(folder, backbone, pretrained, root, labels_from, classes_are_folders, most, seed, more_photos, out,
           devices, wide, as_json):
    """Say how to fine-tune on FOLDER (one subfolder a class, or a list or .rec): strategy, settings, reasons, sources.

    Only training images belong in it. About ten seconds for photos on two processors; nothing is downloaded unless
    weights are named that are not here.

    \b
    gluon-ft advise photos/
    gluon-ft advise photos-train.rec --pretrained resnet50_v1b:gluon_in1k
    gluon-ft advise photos/ --more-photos -o curve.png
    """
    from gluon_ft.data.sources import folders
    from gluon_ft.finetune import probe
    from gluon_ft.finetune.advice import STRATEGIES
    from gluon_ft.finetune.advice import advise as decide
    from gluon_ft.runtime.devices import contexts

    ctx = contexts(devices)
    images = folders.scan_by(folder, labels_from, classes_are_folders=classes_are_folders) if os.path.isdir(
        folder) else folder
    if more_photos or out is not None:
        _more_photos(images, root, (backbone, pretrained, ctx), seed, more_photos, out, wide, as_json)
        return
    net = probe.named(backbone, pretrained, ctx[0].device_type == "gpu")
    facts = probe.measure(images, net, most=most, seed=seed, root=root, ctx=ctx)
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
    one = ["a class has one image; train needs two, one to learn from and one to check with: add images, or leave the "
           "class out of train (--exclude CLASS)"] if facts.smallest_class == 1 else []
    return [*shown, *(f"note: {text}" for text in (*facts.notes, *one))]


FACTOR = 2.0  # times the photos that the forecast is for


def _more_photos(images, root, network, seed, wanted, out, wide, as_json):
    """Measures the learning curve of a source, says and draws it, and what twice as many photos would bring."""
    from gluon_ft.data.audit.checks import audit
    from gluon_ft.data.sources.opening import open_source
    from gluon_ft.errors import ConfigError
    from gluon_ft.evaluation.features import describe
    from gluon_ft.finetune import learning_curve, probe
    from gluon_ft.io import atomic
    from gluon_ft.reporting import plots

    if not wanted:
        raise ConfigError("--out is of --more-photos", remedy="add --more-photos")
    if out is not None:
        atomic.check_writable(out)
    source = open_source(images, root)
    net = probe.network_for(source, *network)
    known = describe(source, net, audit([source]), learning_curve.LEAST)
    curve = learning_curve.measure(known.features, known.labels, known.class_names, known.groups, seed)
    now, then, gains = curve.forecast(1.0), curve.forecast(FACTOR), curve.by_class(FACTOR)
    rows = [{"images": round(size), "accuracy": 1 - float(mean), "lowest": 1 - float(worst), "highest": 1 - float(best)}
            for size, mean, worst, best in zip(curve.sizes, curve.errors.mean(axis=0), curve.errors.max(axis=0),
                                               curve.errors.min(axis=0))]
    console.say(f"accuracy of linear classifiers on features of {net.weights.source}, on images that they did not see:")
    console.show(rows, wide=wide)
    console.say("", f"with the {curve.images} images that there are: {_spoken(now)}",
                f"with {FACTOR:g} times as many: {_spoken(then)}", "", "classes that would gain most:")
    console.show([{"class": one.name, "images": one.images, "now": one.now, f"with {FACTOR:g} times": one.then,
                   "gain": one.gain} for one in gains[:10]], wide=wide)
    for note in known.notes:
        console.say(f"note: {note}")
    if out is not None:
        console.say(f"{plots.learning_curve(curve, out, FACTOR)}: the curve")
    console.emit({"command": "advise", "more_photos": {
        "weights": net.weights.source, "images": curve.images, "measured": rows, "law": curve.law._asdict(),
        "now": now._asdict(), "factor": FACTOR, "forecast": then._asdict(), "notes": known.notes,
        "classes": [{**one._asdict(), "gain": one.gain} for one in gains], "plot": out}}, as_json)


def _spoken(forecast) -> str:
    return f"{forecast.accuracy:.1%} are expected to be right (90% interval {forecast.low:.1%} to {forecast.high:.1%})"
