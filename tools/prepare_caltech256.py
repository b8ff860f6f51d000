"""Gets Caltech-256 and packs it as the how-to does: 60 images a class for training, resized to 256, quality 90.

    python tools/prepare_caltech256.py caltech-256-60                                   # fetches 1.2 GB first
    python tools/prepare_caltech256.py caltech-256-60 --from 256_ObjectCategories.tar   # a copy of the archive
    python tools/prepare_caltech256.py caltech-256-60 --images 256_ObjectCategories/    # unpacked already

Minutes after the download. Writes <PREFIX>-train and <PREFIX>-val as .lst, .rec, .idx and .manifest.json. There are
257 classes: leave out 257.clutter with --exclude 257.clutter where 256 are meant.
"""
from __future__ import annotations

from pathlib import Path

import click

from gluon_ft.cli import console
from gluon_ft.data import lists, split
from gluon_ft.data.datasets import catalog
from gluon_ft.data.records import pack


@click.command(cls=console.Command)
@click.argument("prefix", type=click.Path(path_type=Path))
@click.option("--from", "source", type=click.Path(exists=True, path_type=Path), help="A copy of the archive.")
@click.option("--images", type=click.Path(path_type=Path), help="The unpacked images; nothing is fetched.")
@click.option("--per-class", type=int, default=60, help="Training images a class, the rest are for validation.")
@click.option("--exclude", multiple=True, help="A class to leave out.")
@click.option("--seed", type=int, default=0, help="Which images are drawn.")
@click.option("--resize", type=int, default=256, help="Shorter edge, pixels.")
@click.option("--quality", type=int, default=90, help="Of the packed JPEGs.")
@click.option("--workers", type=int, default=2, help="Processes that pack.")
@console.json_option
def main(prefix, source, images, per_class, exclude, seed, resize, quality, workers, as_json):
    """Get, split and pack Caltech-256 into PREFIX-train.rec and PREFIX-val.rec."""
    folder = images or catalog.get("caltech-256", source=source)
    drawn = split.split(folder, per_class=per_class, exclude=exclude, seed=seed)
    split.write(drawn, prefix)
    packed = [pack.pack(lists.list_file(prefix, part), folder, resize=resize, quality=quality, workers=workers)[0]
              for part in ("train", "val")]
    for each in packed:
        print(f"wrote {each.rec}: {each.records} images, {each.bytes / 1e6:.1f} MB")
    console.emit({"command": "prepare_caltech256", "classes": len(drawn.classes), "seed": seed,
                  "records": {str(each.rec): each.records for each in packed}}, as_json)


if __name__ == "__main__":
    main()
