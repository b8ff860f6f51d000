"""Gets the hot dog data set and packs its own two parts: train for training, test for validation.

    python tools/prepare_hot_dog.py hot-dog                        # fetches the archive first
    python tools/prepare_hot_dog.py hot-dog --from hotdog.zip      # a copy of the archive
    python tools/prepare_hot_dog.py hot-dog --images hotdog/       # unpacked already: train/ and test/

Under a minute after the download. Writes <PREFIX>-train and <PREFIX>-val as .lst, .rec, .idx and .manifest.json.
"""
from __future__ import annotations

from pathlib import Path

import click

from gluon_ft.cli import console
from gluon_ft.data import lists, split
from gluon_ft.data.datasets import catalog
from gluon_ft.data.records import pack
from gluon_ft.data.sources import class_names, folders
from gluon_ft.errors import DataError

PARTS = {"train": "train", "val": "test"}  # ours -> the data set's


@click.command(cls=console.Command)
@click.argument("prefix", type=click.Path(path_type=Path))
@click.option("--from", "source", type=click.Path(exists=True, path_type=Path), help="A copy of the archive.")
@click.option("--images", type=click.Path(path_type=Path), help="The unpacked images; nothing is fetched.")
@click.option("--seed", type=int, default=0, help="Order of the training images in the records.")
@click.option("--resize", type=int, default=256, help="Shorter edge, pixels.")
@click.option("--quality", type=int, default=95, help="Of the packed JPEGs.")
@click.option("--workers", type=int, default=2, help="Processes that pack.")
@console.json_option
def main(prefix, source, images, seed, resize, quality, workers, as_json):
    """Get the hot dog data set and pack it into PREFIX-train.rec and PREFIX-val.rec."""
    folder = images or catalog.get("hot-dog", source=source)
    split.write(own_parts(folder, seed), prefix)
    packed = [pack.pack(lists.list_file(prefix, part), folder, resize=resize, quality=quality, workers=workers)[0]
              for part in PARTS]
    for each in packed:
        print(f"wrote {each.rec}: {each.records} images, {each.bytes / 1e6:.1f} MB")
    console.emit({"command": "prepare_hot_dog", "seed": seed,
                  "records": {str(each.rec): each.records for each in packed}}, as_json)


def own_parts(folder, seed: int) -> split.Split:
    """The data set's own train and test parts as lists; the training part in an order drawn by the seed."""
    found = {part: folders.scan(Path(folder) / theirs) for part, theirs in PARTS.items()}
    if not class_names.same(found["train"].class_names, found["val"].class_names):
        raise DataError("train and test have different classes", path=folder, expected=found["train"].class_names,
                        found=found["val"].class_names)
    parts, index = {}, 0
    for part, theirs in PARTS.items():
        files = found[part].files
        parts[part] = [lists.Entry(index + i, (float(label),), f"{theirs}/{path}")
                       for i, (path, label) in enumerate(files)]
        index += len(files)
    parts["train"].sort(key=lambda entry: split.draw_key(seed, entry.path))
    return split.Split(Path(folder), found["train"].class_names, parts, seed)


if __name__ == "__main__":
    main()
