"""Reads CIFAR-10's binary version, and writes its images as PNG files into class folders."""
from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image

from gluon_ft.errors import DataError
from gluon_ft.io import reporter
from gluon_ft.io.paths import AnyPath

_RECORD = 1 + 3 * 32 * 32  # label, then the red, green and blue planes (https://www.cs.toronto.edu/~kriz/cifar.html)
_PARTS = {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]}
_NAMES = "batches.meta.txt"


def read_batch(path: AnyPath) -> tuple[np.ndarray, np.ndarray]:
    """Reads a `.bin` file: RGB images uint8 (n, 32, 32, 3), labels int64 (n,). DataError for any other file."""
    raw = np.fromfile(path, dtype=np.uint8)
    if not len(raw) or len(raw) % _RECORD:
        raise DataError("not a batch of CIFAR-10", path=path, expected=f"a multiple of {_RECORD} bytes",
                        found=f"{len(raw)} bytes")
    rows = raw.reshape(-1, _RECORD)
    if rows[:, 0].max() > 9:
        raise DataError("not a batch of CIFAR-10", path=path, expected="labels 0 to 9",
                        found=f"label {rows[:, 0].max()}")
    return rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), rows[:, 0].astype(np.int64)


def class_names(folder: AnyPath) -> list[str]:
    """The ten class names in label order."""
    path = Path(folder) / _NAMES
    try:
        names = path.read_text(encoding="utf-8").split()
    except OSError as error:
        raise DataError("cannot be read", path=path, found=error.strerror, expected="the ten class names") from error
    if len(names) != 10 or len(set(names)) != 10 or not all(re.fullmatch(r"[a-z]+", n) for n in names):
        raise DataError("not the class names of CIFAR-10", path=path, expected="ten words", found=f"{len(names)} words")
    return names


def write_folders(batches: AnyPath, target: AnyPath) -> int:
    """Writes each image to `<target>/<train|test>/<class>/<number>.png`; returns the number of images.

    `batches` is the folder with `data_batch_1.bin` ... `test_batch.bin` and `batches.meta.txt`. The number in the file
    name is the image's position in its part, so that sorting by number restores the original order. Raises DataError
    for a damaged file.
    """
    batches, target = Path(batches), Path(target)
    names, written = class_names(batches), 0
    with reporter.progress(total=60_000, unit="images", desc="CIFAR-10") as bar:
        for part, files in _PARTS.items():
            for name in names:
                (target / part / name).mkdir(parents=True, exist_ok=True)
            first = 0
            for file in files:
                images, labels = read_batch(batches / file)
                for number, (image, label) in enumerate(zip(images, labels), first):
                    picture = Image.fromarray(np.ascontiguousarray(image))
                    picture.save(target / part / names[label] / f"{number:05d}.png", compress_level=1)
                    bar.update()
                first += len(labels)
                written += len(labels)
    return written
