"""Writes the folders `even/` and `odd/` of PNG images, for the odd/even task, from a source of handwritten digits.

    python tools/make_odd_even.py OUT                          # scikit-learn's bundled digits
    python tools/make_odd_even.py OUT --data mnist/            # MNIST's IDX files, or a folder with subfolders 0 to 9

A second or two. The images are those that `recipes/odd_or_even.py` draws with the same source and seed: 28x28, grey,
named `<digit>-<position in the source>.png`. OUT is there whole, or not at all.
"""
from __future__ import annotations

import os
from pathlib import Path

import click
from PIL import Image

from gluon_ft.cli import console
from gluon_ft.data.datasets import digits as library
from gluon_ft.errors import DataError
from gluon_ft.io import atomic


@click.command(cls=console.Command)
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(), show_default="scikit-learn's",
              help="Folder of IDX files, or of subfolders 0 to 9.")
@click.option("--max-per-class", type=int, default=100, help="Most even and most odd images.")
@click.option("--seed", type=int, default=0, help="Which images are drawn.")
@console.json_option
def main(out, data, max_per_class, seed, as_json):
    """Write OUT/even and OUT/odd from handwritten digits."""
    _check_free(out)
    digits = library.load(data)
    drawn = dict(zip(("even", "odd"), library.draw_odd_even(digits, max_per_class, seed)))
    _write(out, digits, drawn)
    counts = {name: len(positions) for name, positions in drawn.items()}
    print(f"wrote {out}: {counts['even']} even and {counts['odd']} odd digits from {digits.name}")
    console.emit({"command": "make_odd_even", "out": str(out), "source": digits.name, "seed": seed,
                  "images": counts}, as_json)


def _check_free(out: Path) -> None:
    if os.path.lexists(out) and not (out.is_dir() and not any(out.iterdir())):
        raise DataError("is there already", path=out, expected="a new or an empty folder",
                        found="a folder with something in it" if out.is_dir() else "a file",
                        remedy="choose another name, or remove it")
    if not out.absolute().parent.is_dir():
        raise DataError("folder does not exist", path=out.absolute().parent, remedy="create it")


def _write(out: Path, digits: library.Digits, drawn: dict) -> None:
    try:
        with atomic.replacing_folder(out) as building:
            for name, positions in drawn.items():
                (building / name).mkdir()
                for i in positions.tolist():
                    Image.fromarray(digits.images[i]).save(building / name / f"{digits.labels[i]}-{i:06d}.png")
    except OSError as error:
        raise DataError("cannot be written", path=out.absolute(), found=error.strerror or error,
                        remedy="nothing was left behind") from error


if __name__ == "__main__":
    main()
