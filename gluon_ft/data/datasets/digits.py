"""Loads handwritten digits as 28x28 grey images, and draws the odd/even task from them."""
from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gluon_ft.data.images import decode, header
from gluon_ft.data.sources import folders, idx
from gluon_ft.data.split import draw_key, share
from gluon_ft.errors import ConfigError, DataError
from gluon_ft.io import reporter
from gluon_ft.io.paths import AnyPath

SIZE = 28  # pixels; MNIST's, which LeNet takes
NAMES = [str(digit) for digit in range(10)]
MAX_PIXELS = 1 << 24  # a larger image of a digit is refused before it is decoded
HELD_OUT = 0.1  # share of the source network's images on which its accuracy is reported


@dataclass(frozen=True)
class Digits:
    """Images and their labels.

    Attributes
    ----------
    images : uint8 (n, 28, 28), 0..255
    labels : int64 (n,), positions in `classes`
    name : where the images are from, for messages
    classes : class names in label order
    """

    images: np.ndarray
    labels: np.ndarray
    name: str
    classes: list[str]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: Iterable[int], labels: np.ndarray | None = None, classes: list[str] | None = None,
             name: str | None = None) -> Digits:
        """The digits at `positions`, in that order, with their own or new labels.

        Parameters
        ----------
        positions : iterable of int
        labels : int64 (len(positions),), optional
            New labels; default their own.
        classes : list of str, optional
            Class names in label order; default those of this set.
        name : str, optional
            Where the images are from, for messages; default that of this set.

        Returns
        -------
        Digits
            The pixels are copied.
        """
        positions = np.asarray(positions, dtype=np.int64)
        labels = self.labels[positions] if labels is None else np.asarray(labels, dtype=np.int64)
        return Digits(self.images[positions], labels, name or self.name, list(classes or self.classes))


@dataclass(frozen=True)
class OddEven:
    """The parts of the odd/even task.

    `train` and `validation` have the classes 'even' (0) and 'odd' (1); `source_train` and `source_held_out` have the
    ten digits. No image of `validation` or `source_held_out` has a copy in another part.
    """

    train: Digits
    validation: Digits
    source_train: Digits
    source_held_out: Digits


def load(source: AnyPath | None = None) -> Digits:
    """Loads digits from scikit-learn, IDX files or a folder of images.

    Parameters
    ----------
    source : None or path-like
        None: the 1,797 digits that come with scikit-learn (8x8, 0..16), scaled to 0..255 and enlarged to 28x28 by
        bicubic interpolation.
        A folder with MNIST's IDX files (see `idx.find`): all of them are loaded, the training part first.
        A folder with the subfolders 0 to 9: images of any size are converted to grey and resized to fit 28x28
        (Lanczos); one that is not square is padded with the colour of its border.

    Raises
    ------
    DataError
        `source` is neither kind of folder; an image or an IDX file cannot be read; images in IDX files are not 28x28;
        a label is above 9; or a digit has no image.
    """
    if source is None:
        return _bundled()
    source = Path(source)
    if not source.is_dir():
        raise DataError("not a folder", path=source, found="a file" if source.exists() else "nothing there",
                        expected="a folder with MNIST's IDX files, or with the subfolders 0 to 9")
    try:
        inside = sorted(path.name for path in source.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise DataError("folder cannot be read", path=source, found=error.strerror or error) from error
    if any((source / name).is_dir() for name in NAMES):
        return _with_all_digits(_from_folders(source), source)
    if any("-ubyte" in name for name in inside):
        return _with_all_digits(_from_idx(source), source)
    raise DataError("no digits", path=source, found=", ".join(inside[:4]) or "an empty folder",
                    expected="MNIST's IDX files (t10k-images-idx3-ubyte.gz, ...), or the subfolders 0 to 9")


def _bundled() -> Digits:
    from sklearn.datasets import load_digits

    data: Any = load_digits()
    # `draw_odd_even` orders images by their pixels, which must be the same on every processor. So they are rounded
    # first: Pillow resizes 8-bit images with integers.
    small = np.rint(data.images * (255 / 16)).astype(np.uint8)
    images = np.stack([np.asarray(Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BICUBIC))
                       for image in small])
    return Digits(images, data.target.astype(np.int64), "scikit-learn's digits", list(NAMES))


def _from_idx(source: Path) -> Digits:
    images, labels = [], []
    for image_file, label_file in idx.find(source).values():
        pixels, classes = idx.read_pair(image_file, label_file)
        if pixels.shape[1:] != (SIZE, SIZE):
            raise DataError("images of another size", path=image_file, expected=f"{SIZE}x{SIZE} pixels",
                            found=f"{pixels.shape[1]}x{pixels.shape[2]}")
        if classes.max() > 9:
            raise DataError("labels that are not digits", path=label_file, expected="0 to 9",
                            found=f"{classes.max()} at position {classes.argmax()}")
        images.append(pixels)
        labels.append(classes)
    return Digits(np.concatenate(images), np.concatenate(labels).astype(np.int64), source.name, list(NAMES))


def _from_folders(source: Path) -> Digits:
    scanned = folders.scan(source)
    classes = scanned.class_names or []
    other = [name for name in classes if name not in NAMES]
    if other:
        raise DataError("a subfolder that is not a digit", path=source / other[0], expected="the subfolders 0 to 9",
                        remedy="move it elsewhere")
    images = np.empty((len(scanned.files), SIZE, SIZE), np.uint8)
    for i, (path, _) in enumerate(reporter.progress(scanned.files, desc="reading digits", unit="image")):
        images[i] = read_image(source / path)
    labels = [int(classes[label]) for _, label in scanned.files]
    return Digits(images, np.array(labels, np.int64), source.name, list(NAMES))


def _with_all_digits(digits: Digits, source: Path) -> Digits:
    missing = [name for name, count in zip(NAMES, np.bincount(digits.labels, minlength=10)) if count == 0]
    if missing:
        raise DataError("a digit without an image", path=source, expected="all of 0 to 9",
                        found=f"none of {', '.join(missing)}")
    return digits


def read_image(path: AnyPath) -> np.ndarray:
    """Reads an image file as uint8 (28, 28), grey; an image that is 28x28 and grey already is unchanged.

    Transparent images are put on white, 16 bits are scaled to 8, an animation's first frame is used, and the EXIF
    orientation is applied. Raises DataError if the file is not an image, is damaged, or has more than 2**24 pixels.
    """
    try:
        data = header.read_file(path)
        info = header.probe(data)
        if info.width * info.height > MAX_PIXELS:
            raise DataError("image is too large", path=path, expected=f"at most {MAX_PIXELS} pixels",
                            found=f"{info.width}x{info.height}")
        return _fit(decode.decode(data, info, color=0))
    except header.Unreadable as error:
        raise DataError("not an image that can be read", path=path, expected="an image of one digit", found=error,
                        remedy="replace or remove it") from None


def _fit(pixels: np.ndarray) -> np.ndarray:
    """Resizes a grey image to fit 28x28, and pads it with the median colour of its border."""
    if pixels.shape == (SIZE, SIZE):
        return pixels
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    size = [max(1, round(SIZE * edge / max(pixels.shape))) for edge in pixels.shape[::-1]]
    padded = Image.new("L", (SIZE, SIZE), int(np.median(border)))
    padded.paste(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS),
                 (round((SIZE - size[0]) / 2), round((SIZE - size[1]) / 2)))
    return np.asarray(padded)


def draw_odd_even(digits: Digits, max_per_class: int = 100, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draws at most `max_per_class` even digits and as many odd ones, in a seeded order.

    The order depends only on the seed and the pixels, not on the positions of the images. Of images with equal pixels
    only the first is used, and none if some are labelled odd and others even.

    Parameters
    ----------
    digits : Digits
        The labels are the digits 0 to 9.
    max_per_class : int, default 100
        2 or more.
    seed : int, default 0

    Returns
    -------
    (ndarray, ndarray)
        Positions of the even and of the odd digits, int64.

    Raises
    ------
    ConfigError
        `max_per_class` is not a whole number, or is below 2.
    DataError
        There are fewer than two different even digits, or odd ones.
    """
    if isinstance(max_per_class, bool) or not isinstance(max_per_class, (int, np.integer)) or max_per_class < 2:
        raise ConfigError("max_per_class is out of its range", expected="a whole number, 2 or more",
                          found=repr(max_per_class))
    contents = _hashes(digits)
    parities: dict[bytes, set[int]] = {}
    first: dict[bytes, int] = {}
    for i, content in enumerate(contents):
        parities.setdefault(content, set()).add(int(digits.labels[i]) % 2)
        first.setdefault(content, i)
    drawn = []
    for parity, name in enumerate(("even", "odd")):
        mine = [content for content in first if parities[content] == {parity}]
        if len(mine) < 2:
            raise DataError(f"too few {name} digits", path=digits.name, expected="2 or more that differ",
                            found=len(mine))
        order = sorted(mine, key=lambda content: draw_key(seed, name, content))
        drawn.append(np.array([first[content] for content in order[:max_per_class]], np.int64))
    return drawn[0], drawn[1]


def odd_even(digits: Digits, max_per_class: int = 100, validation: float = 0.75, seed: int = 0) -> OddEven:
    """Makes the odd/even task: few images of two classes, and the remaining digits for the source network.

    Parameters
    ----------
    digits : Digits
    max_per_class : int, default 100
        Most even images to draw, and most odd ones.
    validation : float, default 0.75
        Share of each class for validation; the rest is for training.
    seed : int, default 0
        Any whole number.

    Returns
    -------
    OddEven
        `source_held_out` is a tenth of the remaining images of each digit. The remaining images contain no copy of a
        drawn image, and `source_train` contains no copy of a held-out image.

    Raises
    ------
    ConfigError
        An option is out of its range.
    DataError
        There are too few even or odd images, or too few remaining images of a digit.
    """
    if isinstance(validation, bool) or not isinstance(validation, (int, float)) or not 0 < validation < 1:
        raise ConfigError("validation is out of its range", expected="a number between 0 and 1",
                          found=repr(validation))
    drawn = draw_odd_even(digits, max_per_class, seed)
    train, held = [], []
    for positions in drawn:
        count = min(max(share(validation, len(positions)), 1), len(positions) - 1)
        held += positions[:count].tolist()
        train += positions[count:].tolist()
    source_train, source_held = _source_parts(digits, {*train, *held}, seed)
    task = {"classes": ["even", "odd"], "name": f"{digits.name}, odd or even"}
    return OddEven(digits.take(train, digits.labels[train] % 2, **task),
                   digits.take(held, digits.labels[held] % 2, **task),
                   digits.take(source_train), digits.take(source_held))


def _source_parts(digits: Digits, drawn: set[int], seed: int) -> tuple[list[int], list[int]]:
    """Positions of the source network's (training, held-out) images, digit by digit, in a seeded order."""
    contents = _hashes(digits)
    taken = {contents[i] for i in drawn}
    train, held = [], []
    by_digit = []
    for digit, name in enumerate(digits.classes):
        mine = [i for i in np.flatnonzero(digits.labels == digit).tolist() if contents[i] not in taken]
        mine.sort(key=lambda i: (draw_key(seed, "source", name, contents[i]), i))
        count = max(share(HELD_OUT, len(mine)), 1)
        by_digit.append((name, len(mine), mine[count:]))
        held += mine[:count]
    held_contents = {contents[i] for i in held}
    for name, total, mine in by_digit:
        kept = [i for i in mine if contents[i] not in held_contents]
        if not kept:
            raise DataError(f"too few images of digit {name} for the source network", path=digits.name,
                            expected="2 or more beside those drawn for odd and even", found=total,
                            remedy="give more images, or a smaller max_per_class")
        train += kept
    return train, held


def _hashes(digits: Digits) -> list[bytes]:
    return [hashlib.sha256(np.ascontiguousarray(image).data).digest() for image in digits.images]
