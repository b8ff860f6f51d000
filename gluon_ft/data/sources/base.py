"""`ImageSource`: images with labels, whatever they come from. Every step that needs images takes one."""
from __future__ import annotations

import copy
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from gluon_ft.data.images import header
from gluon_ft.data.images.decode import decode_rgb
from gluon_ft.data.records import record_file
from gluon_ft.data.sampler import digest
from gluon_ft.data.sources import class_names
from gluon_ft.errors import DataError
from gluon_ft.io.paths import AnyPath

MAX_UNNAMED = 1 << 16  # classes that are numbered where nothing names them; ImageNet-21k has 21,843

Source = TypeVar("Source", bound="ImageSource")


class ImageRef(NamedTuple):
    """Where the bytes of one image are: a file, or the record that begins at byte `offset` of a `.rec`.

    Small and picklable, so that worker processes can be handed images without their whole source; equal for the same
    image in two sources where both were opened by the same path, see `absolute`.
    """

    path: str
    offset: int | None = None

    def read(self) -> bytes:
        """The bytes of the image file. Raises header.Unreadable with the reason."""
        if self.offset is None:
            return header.read_file(self.path)
        return record_file.read_image(self.path, self.offset)

    def absolute(self) -> ImageRef:
        """The same image with its path from the root of the file system on."""
        return ImageRef(os.path.abspath(self.path), self.offset)


class ImageSource(ABC):
    """Images with labels, by position from 0.

    Attributes
    ----------
    name : str
        What was opened, for messages.
    kind : str
        'folder', 'list', 'records' or 'arrays'.
    labels : ndarray
        int64 (n,), positions in `class_names`; -1 where an image has several labels or a fractional one, which
        `open_source` refuses and `open_unchecked` does not.
    class_names : list of str or None
        In label order; None where nothing names the classes.
    numbered : bool
        Whether `class_names` are numbers that stand in for names, which nothing tells.
    left_out : dict of str to str
        Files beside the images that were not taken -> why.
    """

    kind, numbered = "images", False
    remedy = "mend it, or remove it from the data"  # for an image that cannot be read

    def __init__(self, name, labels, class_names: Sequence[str] | None = None,
                 left_out: Mapping[str, str] | None = None):
        self.name, self.left_out = str(name), dict(left_out or {})
        self.labels = np.asarray(labels, dtype=np.int64)
        self.class_names = None if class_names is None else list(class_names)

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def where(self, position: int) -> str:
        """Names the image in an error, such as its path."""

    def image_name(self, position: int) -> str:
        """Names the image within its source, such as its path below the folder."""
        return self.where(position)

    def label_name(self, position: int) -> str | None:
        """The image's class by name, or its number where nothing names it; None where it has several labels."""
        label = int(self.labels[position])
        if self.class_names is not None and 0 <= label < len(self.class_names):
            return self.class_names[label]
        return str(label) if label >= 0 else None

    def ref(self, position: int) -> ImageRef | None:
        """Where the image's bytes are; None for images in memory."""
        return None

    @abstractmethod
    def read(self, position: int) -> bytes:
        """The bytes of the image file. Raises header.Unreadable with the reason."""

    def image(self, position: int, channels: int, resize: int = 0) -> np.ndarray:
        """The decoded image, upright.

        Parameters
        ----------
        position : int
        channels : 3 for RGB, 1 for grey
        resize : pixels of the shorter edge that are wanted: a JPEG may be decoded at reduced scale, to at least twice
            that. 0: always in full

        Returns
        -------
        ndarray
            uint8 (height, width, 3), or (height, width) for one channel.

        Raises
        ------
        header.Unreadable
            With the reason.
        """
        return decode_rgb(self.read(position), channels, resize)

    def contents(self) -> Iterator[bytes]:
        """The bytes of each image, in order. Raises DataError for an image that cannot be read."""
        for position in range(len(self)):
            try:
                yield self.read(position)
            except header.Unreadable as error:
                raise DataError(f"image cannot be used: {error}", path=self.where(position),
                                remedy=self.remedy) from None

    def identity(self) -> str:
        """SHA-256 of the contents, as hexadecimal digits: equal for the same images in the same order, wherever they
        are. Reads every image; DataError for one that cannot be read."""
        return digest(self.contents())

    def renumbered(self: Source, names: Sequence[str], whose: str = "of those expected") -> Source:
        """The same images with their labels by other class names, which have to hold all of its own.

        Parameters
        ----------
        names : sequence of str
            In label order. They also name the labels of a source without names, which stay as they are.
        whose : str
            What they are, for the error, as in `class_names.places`.

        Raises
        ------
        DataError
            As of `class_names.places` and `class_names.renumbered`.
        """
        found = copy.copy(self)
        if self.class_names is not None and not self.numbered:
            number = class_names.places(self.class_names, names, self.name, whose)
            found.labels = class_names.renumbered(self.labels, number, self.name)
        found.class_names, found.numbered = list(names), False
        return found

    def subset(self, positions: np.ndarray | Sequence[int]) -> Subset:
        """Some of the images, in the order of `positions` (int)."""
        return Subset(self, positions)


class Subset(ImageSource):
    """Some images of another source, which has the same methods."""

    def __init__(self, whole: ImageSource, positions):
        self.whole, self.positions = whole, np.asarray(positions, dtype=np.int64)
        super().__init__(whole.name, whole.labels[self.positions], whole.class_names)
        self.kind, self.remedy, self.numbered = whole.kind, whole.remedy, whole.numbered

    def where(self, position: int) -> str:
        return self.whole.where(int(self.positions[position]))

    def image_name(self, position: int) -> str:
        return self.whole.image_name(int(self.positions[position]))

    def label_name(self, position: int) -> str | None:
        return self.whole.label_name(int(self.positions[position]))

    def ref(self, position: int) -> ImageRef | None:
        return self.whole.ref(int(self.positions[position]))

    def read(self, position: int) -> bytes:
        return self.whole.read(int(self.positions[position]))

    def image(self, position: int, channels: int, resize: int = 0) -> np.ndarray:
        """The decoded image at `position` of the subset.

        Parameters
        ----------
        position : int
            From 0, within the subset.
        channels, resize
            As in `ImageSource.image`, as are result and errors.
        """
        return self.whole.image(int(self.positions[position]), channels, resize)

    def contents(self) -> Iterator[bytes]:
        """The positions, then all of the whole source, on which the drawing of the positions depends."""
        yield self.positions.tobytes()
        yield from self.whole.contents()


def check_labels(labels: np.ndarray, names: Sequence[str], source: AnyPath, least: int = 2) -> None:
    """Makes sure that labels and class names belong together.

    Parameters
    ----------
    labels : int (n,)
    names : sequence of str
        In label order.
    source : path-like
        Stands first in the error.
    least : int, default 2
        Classes that there have to be; images that are only evaluated may be of one class.

    Raises
    ------
    DataError
        There are fewer classes, a class name comes twice, or a label is outside the classes.
    """
    if len(names) < least or len(set(map(class_names.normal, names))) < len(names):
        raise DataError("one class only" if len(names) == 1 else "bad class names", path=source,
                        expected="two or more, each once", found=class_names.describe(names))
    wrong = np.flatnonzero((labels < 0) | (labels >= len(names)))
    if len(wrong):
        raise DataError(f"{len(wrong)} labels outside the classes", path=source, found=int(labels[wrong[0]]),
                        expected=f"0 to {len(names) - 1}: {class_names.describe(names)}",
                        remedy=f"the first is image {wrong[0]}; name every class, or correct the labels")


def numbered_classes(labels: np.ndarray, name: AnyPath) -> list[str]:
    """Class names where nothing names them: the numbers from 0 to the largest label.

    Raises DataError where that would be more than `MAX_UNNAMED` classes.
    """
    largest = max(0, int(labels.max()))
    if largest >= MAX_UNNAMED:
        raise DataError("labels outside the classes that are numbered where they have no names", path=name,
                        expected=f"0 to {MAX_UNNAMED - 1}", found=largest,
                        remedy="number the classes from 0 on, or name them in a .classes.txt, one a line")
    return [str(number) for number in range(largest + 1)]
