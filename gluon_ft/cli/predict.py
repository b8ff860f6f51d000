"""`gluon-ft predict` and `gluon-ft serve`: the classes of images by a saved model, here and over HTTP."""
from __future__ import annotations

import sys

import click

from gluon_ft.cli import console

REMARK = "like nothing it was trained on"


@click.command("predict", cls=console.Command)
@click.argument("model", type=click.Path())
@click.argument("images", nargs=-1, required=True, type=click.Path())
@click.option("--top", type=click.IntRange(1), default=1, help="Classes to name of each image, the best first.")
@click.option("--batch-size", type=click.IntRange(1), default=32, help="Images computed at a time.")
@console.tta_option
@console.engine_option
@click.option("--unknowns/--no-unknowns", default=True, help="Say which images are like nothing that the model was "
              "trained on, where it keeps what it knows (those of gluon-ft train do).")
@click.option("--false-alarms", type=float, default=0.05, help="Share of images of the trained kind that may be called "
              "unknown.")
@click.option("--coverage", type=float, help="Name for each image the classes that remain possible: in this share of "
              "cases, such as 0.95, the right one is among them.")
@console.devices_option()
@console.wide_option
@console.json_option
def predict(model, images, top, batch_size, tta, unknowns, false_alarms, coverage, devices, wide, as_json):
    """Name the class of each of IMAGES (files, or folders with images in them) with its probability.

    MODEL is the .params file of a saved model, whose card (.params.json) lies beside it, or the folder of a run or of
    an export. The images are prepared as the model says.

    Links are followed; hidden files, folders that a NAS makes and files that are no images by their suffix are left
    out, and counted in one line on standard error.

    An image that cannot be read is reported in one line on standard error, and the others are predicted. Exit status:
    0 if every image was predicted, 1 if some could not be read (a broken link and a folder that cannot be opened are
    such), 2 if none could.

    The table fits the terminal: long paths are cut at their beginning, and whole with --wide or --json.

    \b
    gluon-ft predict runs/photos/best.params holiday/ cat.jpg --top 3
    gluon-ft predict runs/photos holiday/ --coverage 0.95
    """
    from gluon_ft.errors import DataError
    from gluon_ft.evaluation.predict import Given
    from gluon_ft.evaluation.predict import predict as library
    from gluon_ft.runtime.devices import contexts

    console.check_model(model)
    given = Given(images)
    found = library(model, given, batch_size=batch_size, top=top, tta=tta, ctx=contexts(devices),
                    false_alarms=false_alarms if unknowns else None, coverage=coverage)
    good, bad = [p for p in found if p.error is None], [p for p in found if p.error is not None]
    for prediction in bad:
        console.say(f"not predicted: {prediction.path}: {prediction.error}", err=True)
    if not good:
        raise DataError("none of the images could be read", found=f"{len(bad)} that cannot")
    strange = sum(bool(p.unlike) for p in good)
    console.show([_row(p, strange > 0) for p in good], wide=wide, keep_end=["image"])
    if strange:
        console.say(f"unknown: {strange} of {len(good)} images, {REMARK}; perhaps no class is right (of images of "
                    f"the trained kind, about {false_alarms:.0%} are called so by mistake)")
    console.emit({"command": "predict", "model": str(model), "unreadable": [p.to_dict() for p in bad], "left_out": [
        {"path": path, "reason": why} for path, why in given.left_out.items()],
        "predictions": [p.to_dict() for p in good]}, as_json)
    return console.EXIT_FAILURE if bad else 0


def _row(prediction, remarks) -> dict:
    row = {"image": prediction.path, "class": prediction.name, "probability": prediction.probability}
    if prediction.possible is not None:
        row["possible"] = ", ".join(prediction.possible)
    if remarks:
        row["remark"] = "unknown" if prediction.unlike else ""
    rest = prediction.top[1:]
    return {**row, "then": ", ".join(f"{name} {value:.3f}" for name, value in rest)} if rest else row


@click.command("serve", cls=console.Command)
@click.argument("model", type=click.Path())
@click.option("--host", default="127.0.0.1", help="Address to listen on. 0.0.0.0 lets everybody in who can reach this "
              "machine; there is no password.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, help="0: one that is free.")
@click.option("--top", type=click.IntRange(1), default=5, help="Classes to name of each image, the best first.")
@click.option("--batch-size", type=click.IntRange(1), default=32, help="Images computed together, at most.")
@click.option("--max-mb", type=float, default=50, help="Most megabytes of a request.")
@click.option("--max-images", type=click.IntRange(1), default=32, help="Most images in a request.")
@click.option("--max-megapixels", type=float, default=50, help="Larger images are refused before they are decoded.")
@click.option("--queue", type=click.IntRange(1), default=256, help="Images that may wait; what comes beyond is "
              "answered with 503 and Retry-After.")
@click.option("--unknowns/--no-unknowns", default=True, help="Say which images are like nothing that the model was "
              "trained on, where it keeps what it knows (those of gluon-ft train do).")
@click.option("--false-alarms", type=float, default=0.05, help="Share of images of the trained kind that may be called "
              "unknown.")
@console.engine_option
@console.devices_option()
@console.json_option
def serve(model, host, port, top, batch_size, max_mb, max_images, max_megapixels, queue, unknowns, false_alarms,
          devices, as_json):
    """Serve MODEL on this machine: a page to drop pictures on, and POST /predict for programs.

    MODEL is the folder of a run or of an export, or a .params file with its card beside it. The answers are those of
    gluon-ft predict. Needs pip install starlette uvicorn python-multipart prometheus-client.

    The page is at the address itself; /openapi.json describes POST /predict, /healthz says whether the server can
    answer, /metrics has counters for Prometheus. Images are not kept. Ctrl-C and SIGTERM end it, once everything that
    was asked is answered; the exit status is then 0.

    \b
    gluon-ft serve runs/photos
    gluon-ft serve model/ --port 9000 --top 3
    curl -F image=@cat.jpg -F image=@dog.jpg http://127.0.0.1:8000/predict
    """
    from gluon_ft.io import signals
    from gluon_ft.runtime.devices import contexts
    from gluon_ft.serving.server import Options, check_packages, serving

    check_packages()
    console.check_model(model)
    options = Options(host, port, top, batch_size, false_alarms if unknowns else None, max_mb, max_images,
                      max_megapixels, queue)
    with serving(model, options, contexts(devices)) as running:
        console.say(f"serving {model} on {running.url} ({running.classes} classes"
                    f"{'' if running.tells_unknowns else ', unknown images are not told'}); Ctrl-C ends it")
        sys.stdout.flush()
        signals.wait()
        console.say("ending, once everything is answered")
    totals = running.totals()
    console.say(f"ended: {totals['requests']} requests, {totals['predicted']} images predicted, "
                f"{totals['unreadable']} not readable")
    console.emit({"command": "serve", "model": str(model), "url": running.url, **totals}, as_json)
    return 0
