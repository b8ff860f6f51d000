"""`gluon-ft export`: a trained model as a folder for MXNet, ONNX Runtime and people."""
from __future__ import annotations

import click

from gluon_ft.cli import console


@click.command("export", cls=console.Command)
@click.argument("model", type=click.Path())
@click.option("-o", "--output", "folder", required=True, type=click.Path(), help="The folder, or with --page the "
              "file, to write; an earlier export there is replaced.")
@click.option("--onnx", is_flag=True, help="Write model.onnx (from pixels to probabilities) and model-logits.onnx too.")
@click.option("--check", multiple=True, type=click.Path(), metavar="DATA", help="With --onnx: the images that MXNet "
              "and ONNX Runtime are compared on (files, folders, a list or a .rec); may be repeated.  [default: the "
              "run's validation images]")
@click.option("--no-check", is_flag=True, help="With --onnx: compare nothing; there is no certificate then.")
@click.option("--int8", is_flag=True, help="With --onnx: write model-int8.onnx too, in 8-bit integers, calibrated on "
              "training images of the run.")
@click.option("--int8-loss", type=float, metavar="POINTS", help="With --int8: so many points of accuracy (of decisions "
              "where the images have no labels) may be lost on the images to check on.  [default: 1]")
@click.option("--int8-keep", multiple=True, metavar="LAYER", help="With --int8: a layer that stays in float32; may be "
              "repeated.")
@click.option("--safetensors", is_flag=True, help="Write model.safetensors too, for the same network in PyTorch.")
@click.option("--page", is_flag=True, help="Write one HTML file instead, which classifies pictures in the browser by "
              "itself. ONNX Runtime Web is fetched once from npm's registry.")
@click.option("--force", is_flag=True, help="Replace a folder that is not an export, with all that is in it.")
@console.json_option
def export(model, folder, onnx, check, no_check, int8, int8_loss, int8_keep, safetensors, page, force, as_json):
    """Export a trained MODEL to a folder that works elsewhere, and prove that it answers the same.

    MODEL is the folder of a run, a .params file with its card beside it, or another export. The folder has MXNet's own
    files (model-symbol.json, model-0000.params), the class names, the preprocessing, a manifest with the hash of each
    file, and README.md, which says what the model is and how to use it.

    With --onnx the images of --check go through MXNet and ONNX Runtime, from the files on disk to the class. If a class
    changes, or a probability by more than 0.0001, nothing is written, the images are named, and the exit status is 2.

    With --int8 the same images judge the INT8 model, those that calibrated it left out. Where it loses too much,
    nothing is written, and the layer that costs most is named: keep that one in float32 with --int8-keep.

    \b
    gluon-ft export runs/photos -o model/
    gluon-ft export runs/photos -o model/ --onnx --check val/
    gluon-ft export runs/photos -o model/ --onnx --int8
    gluon-ft export runs/photos/best.params -o model/ --safetensors --json
    gluon-ft export runs/photos -o page.html --page
    """
    from gluon_ft.export import export_model
    from gluon_ft.models.conversion import torch_network

    if page and (onnx or int8 or safetensors):
        raise click.UsageError("--page writes one file, and nothing beside it")
    if int8 and not onnx:
        raise click.UsageError("--int8 is for --onnx")
    if no_check and not (onnx or page):
        raise click.UsageError("--no-check is for --onnx and --page")
    if not int8 and (int8_loss is not None or int8_keep):
        raise click.UsageError("--int8-loss and --int8-keep are for --int8")
    console.check_model(model)
    if page:
        return _page(model, folder, (check[0] if len(check) == 1 else list(check)) or None, no_check, force, as_json)
    found = export_model(model, folder, onnx=onnx, check=(check[0] if len(check) == 1 else list(check)) or None,
                         no_check=no_check, int8=int8, int8_loss=int8_loss, int8_keep=int8_keep,
                         safetensors=safetensors, force=force)
    console.show([{"file": name, "MB": f"{size / 1e6:.2f}"} for name, size in found.files.items()], whole=["file"])
    proof = found.certificate
    if proof is not None:
        rates = proof.images_per_second
        for name, reason in proof.unreadable.items():
            console.say(f"not compared: {name}: {reason}", err=True)
        console.say(f"ONNX Runtime answers as MXNet: {proof.images} images ({proof.source}), no decision changed, "
                    f"probabilities within {proof.largest_difference:.1e}; {rates['mxnet']:g} images/s in MXNet, "
                    f"{rates['onnxruntime']:g} in ONNX Runtime")
        if proof.int8 is not None:
            console.say(_int8(proof.int8))
    elif onnx:
        console.say("not compared with MXNet: there is no certificate")
    if safetensors:
        console.say(f"model.safetensors: for {torch_network(found.manifest['network']['backbone'])}")
    console.say(f"exported: {folder}")
    console.emit({"command": "export", "model": str(model), "folder": str(folder), "files": found.files,
                  "certificate": None if proof is None else proof.to_dict(), "manifest": found.manifest}, as_json)
    return 0


def _int8(found):
    rates, calibration = found["images_per_second"], found["calibration"]
    if found["accuracy"] is None:
        what = f"{found['changed']} of {found['images']} decisions changed"
    else:
        low, high = found["loss_interval"]
        before, after = (found["accuracy"][kind]["accuracy"] for kind in ("float32", "int8"))
        what = (f"accuracy {before:.1%} in float32 and {after:.1%} in INT8 on {found['images']} images (a loss of "
                f"{low:.1f} to {high:.1f} points in 95 of 100 cases)")
    return (f"INT8, calibrated on {calibration['images']} images ({calibration['source']}): {what}; the network alone "
            f"{rates['float32']:g} images/s in float32 and {rates['int8']:g} in INT8")


def _page(model, path, check, no_check, force, as_json):
    from gluon_ft.export.page import export_page

    found = export_page(model, path, check=check, no_check=no_check, force=force)
    proof = found.certificate
    if proof is None:
        console.say("not compared with MXNet: there is no certificate")
    else:
        console.say(f"ONNX Runtime answers as MXNet: {proof['images']} images ({proof['source']}), no decision "
                    f"changed, probabilities within {proof['largest_difference']:.1e}")
    if found.unknowns:
        console.say(f"the page does not tell unknown images: {found.unknowns}")
    console.say(f"exported: {path}, {found.bytes / 1e6:.1f} MB (the model {found.model_bytes / 1e6:.1f}, ONNX Runtime "
                f"Web {found.runtime_bytes / 1e6:.1f}); the network takes {found.milliseconds:g} ms an image on one "
                "thread of this machine, and longer in a browser, which the page says")
    console.emit({"command": "export", "model": str(model), "page": str(path), "bytes": found.bytes,
                  "model_bytes": found.model_bytes, "runtime_bytes": found.runtime_bytes,
                  "milliseconds": found.milliseconds, "unknowns": found.unknowns is None, "certificate": proof},
                 as_json)
    return 0
