"""`gluon-ft explain`: heat maps of where a saved model sees what it says of images."""
from __future__ import annotations

from pathlib import Path

import click

from gluon_ft.cli import console


@click.command("explain", cls=console.Command)
@click.argument("model", type=click.Path())
@click.argument("images", nargs=-1, required=True, type=click.Path())
@click.option("-o", "--out", type=click.Path(), required=True,
              help="Folder for the pictures; made where it is missing.")
@click.option("--class", "class_name", help="The class to look for; by default each image's most probable one.")
@console.devices_option("cpu")
@console.wide_option
@console.json_option
def explain(model, images, out, class_name, devices, wide, as_json):
    """Draw where MODEL sees the class of each of IMAGES (files, or folders with images in them): Grad-CAM.

    Each picture in the folder --out is a PNG: the image, and beside it the same with the heat map over it. What the
    network was not shown, outside of the centre crop, has no heat. MODEL and IMAGES are as of gluon-ft predict; so are
    the exit statuses: 0 if every image was explained, 1 if some could not be read, 2 if none could.

    \b
    gluon-ft explain runs/photos photo.jpg holiday/ -o heat/
    gluon-ft explain runs/photos photo.jpg -o heat/ --class cat
    """
    from gluon_ft.errors import DataError
    from gluon_ft.evaluation.explain import explanations, overlay
    from gluon_ft.evaluation.model import load_model
    from gluon_ft.evaluation.predict import Given
    from gluon_ft.runtime.devices import contexts

    console.check_model(model)
    given, rows, bad = Given(images), [], []
    net = load_model(model, contexts(devices)[:1])
    names, folder = _names([given.where(i) for i in range(len(given))]), _made(out)
    for name, each in zip(names, explanations(net, given, class_name=class_name)):
        if each.error is not None:
            console.say(f"not explained: {each.path}: {each.error}", err=True)
            bad.append(each)
            continue
        _write(folder / name, overlay(each))
        rows.append({"image": each.path, "class": each.name, "probability": each.probability,
                     "picture": str(folder / name)})
    if not rows:
        raise DataError("none of the images could be read", found=f"{len(bad)} that cannot")
    console.show(rows, wide=wide, keep_end=["image", "picture"])
    console.emit({"command": "explain", "model": str(model), "explanations": [
        {"path": row["image"], **{key: row[key] for key in ("class", "probability", "picture")}} for row in rows],
        "unreadable": [{"path": each.path, "reason": each.error} for each in bad], "left_out": [
        {"path": path, "reason": why} for path, why in given.left_out.items()]}, as_json)
    return console.EXIT_FAILURE if bad else 0


def _made(out) -> Path:
    from gluon_ft.errors import DataError

    try:
        Path(out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError("the folder cannot be made", path=out, found=error.strerror or error,
                        remedy="choose another place (--out)") from error
    return Path(out)


def _names(paths: list[str]) -> list[str]:
    """A file name for each image, from its own name; those that would collide get a number, whatever the case."""
    taken: set[str] = set()
    found = []
    for path in paths:
        stem, number = Path(path).stem, 1
        name = f"{stem}.png"
        while name.casefold() in taken:
            number += 1
            name = f"{stem}-{number}.png"
        taken.add(name.casefold())
        found.append(name)
    return found


def _write(path, pixels):
    from PIL import Image

    from gluon_ft.errors import DataError
    from gluon_ft.io import atomic

    try:
        with atomic.replacing(path) as temporary:
            Image.fromarray(pixels).save(temporary, format="PNG")
    except OSError as error:
        raise DataError("the picture cannot be written", path=path, found=error.strerror or error,
                        remedy="free some space or choose another folder (--out)") from error
