"""Tiny sets of images, packed or to be packed, for the tests of records."""
from __future__ import annotations

from pathlib import Path

import numpy as np
from click.testing import CliRunner
from PIL import Image

from gluon_ft.data import lists
from gluon_ft.data.records import framing, pack, verify


def make(folder: Path, number=12, classes=3, size=(48, 36)) -> Path:
    """`number` images of `classes` flat colours with a little pattern, a list and class names; returns the list."""
    root = folder / "images"
    root.mkdir(parents=True)
    entries = []
    for i in range(number):
        array = np.full((size[1], size[0], 3), 40 + 60 * (i % classes), np.uint8)
        array[: 5 + i % 7, : 3 + i % 11] = i * 7 % 256
        name = f"{'bcd'[i % 3]} {i}.{'jpg' if i % 2 else 'png'}"
        Image.fromarray(array).save(root / name, quality=95)
        entries.append(lists.Entry(100 + i, (float(i % classes),), name))
    lists.write(folder / "set-train.lst", entries)
    (folder / "set.classes.txt").write_text("".join(f"class {i}\n" for i in range(classes)))
    return folder / "set-train.lst"


def three_files(prefix) -> dict[str, bytes]:
    return {kind: Path(f"{prefix}{kind}").read_bytes() for kind in (".rec", ".idx", ".manifest.json")}


def hidden(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name.startswith("."))


def offsets(rec):
    return list(framing.read_index(rec.with_suffix(".idx"))[1])


def run(command, *args):
    """A command in this process, with its exit status."""
    class Done:
        pass
    result = CliRunner().invoke(command, [str(a) for a in args])
    done = Done()
    # Only click 8.2 and later keep the two streams apart without being asked.
    done.returncode, done.stdout, done.stderr = result.exit_code, result.stdout, result.output
    return done


def verified_pack(folder) -> Path:
    """A verified pack of 12 images: its .rec."""
    lst = make(folder)
    (done,) = pack.pack(lst, folder / "images", resize=24)
    assert verify.verify(done.rec).ok
    return done.rec
