"""`gluon-ft serve`: a saved model behind HTTP, with a page to drop pictures on."""
from __future__ import annotations

import sys

import click

from gluon_ft.cli import console


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
@click.option("--device", default="auto", help="cpu, gpu, gpu:2, ...; auto: every GPU, or else the CPU.")
@console.json_option
def serve(model, host, port, top, batch_size, max_mb, max_images, max_megapixels, queue, unknowns, false_alarms, device,
          as_json):
    """Serve MODEL on this machine: a page to drop pictures on, and POST /predict for programs.

    MODEL is the folder of a run or of an export, or a .params file with its card beside it. The answers are those of
    gluon-ft predict. Needs pip install 'gluon-ft[serve]'.

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
    with serving(model, options, contexts(device)) as running:
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
