"""`ImageSource`: the interface to labelled images from folders, lists, records or arrays, used by every later step."""
from __future__ import annotations

import copy
import hashlib
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

MAX_UNNAMED = 1 << 16  # most classes without names; ImageNet-21k has 21,843

Source = TypeVar("Source", bound="ImageSource")


class ImageRef(NamedTuple):
    """Where the bytes of one image are: in a file, or in the record at byte `offset` of a `.rec`.

    It is small and can be pickled, so that worker processes need not be sent the whole source. Two references to one
    image are equal if both sources were opened by the same path; otherwise compare `absolute`.
    """

    path: str
    offset: int | None = None

    def read(self) -> bytes:
        """The bytes of the image file. Raises header.Unreadable with the reason."""
        if self.offset is None:
            return header.read_file(self.path)
        return record_file.read_image(self.path, self.offset)

    def absolute(self) -> ImageRef:
        """The same reference with an absolute path."""
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
        int64 (n,), positions in `class_names`. -1 for an image with several labels or a fractional one, which
        only `open_unchecked` accepts.
    class_names : list of str or None
        Class names in label order; None if they are not known.
    numbered : bool
        True if the classes have no names and `class_names` holds their numbers instead.
    left_out : dict of str to str
        Files that were found but not used -> the reason.
    """

    kind, numbered = "images", False
    remedy = "mend it, or remove it from the data"  # in the error for an image that cannot be read

    def __init__(self, name, labels, class_names: Sequence[str] | None = None,
                 left_out: Mapping[str, str] | None = None):
        self.name, self.left_out = str(name), dict(left_out or {})
        self.labels = np.asarray(labels, dtype=np.int64)
        self.class_names = None if class_names is None else list(class_names)

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def where(self, position: int) -> str:
        """Names the place of the image in errors, such as its path."""

    def image_name(self, position: int) -> str:
        """Names the image within the source, such as its path relative to the folder."""
        return self.where(position)

    def label_name(self, position: int) -> str | None:
        """The image's class name, or its number if the class has no name; None for an image with several labels."""
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
        channels : {3, 1}
            3 for RGB, 1 for grey.
        resize : int, default 0
            Length in pixels to which the shorter edge will be resized. A JPEG may then be decoded at a reduced scale
            that is at least twice as large. 0 decodes at full scale.

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
        """Yields the bytes of each image, in order. Raises DataError for an image that cannot be read."""
        return map(self._contents_of, range(len(self)))

    def identity(self) -> str:
        """SHA-256 of `contents` in hexadecimal: equal for the same images in the same order, wherever they are stored.

        Reads every image. Raises DataError for one that cannot be read.
        """
        return digest(self.contents())

    def content_hashes(self, positions: Sequence[int] | np.ndarray | None = None) -> list[str]:
        """The SHA-256 of the bytes of each image, or of those at some positions, in hexadecimal.

        Raises DataError for one that cannot be read.
        """
        return [hashlib.sha256(self._contents_of(int(position))).hexdigest()
                for position in (range(len(self)) if positions is None else positions)]

    def _contents_of(self, position: int) -> bytes:
        try:
            return self.read(position)
        except header.Unreadable as error:
            raise DataError(f"image cannot be used: {error}", path=self.where(position), remedy=self.remedy) from None

    def renumbered(self: Source, names: Sequence[str], whose: str = "of those expected") -> Source:
        """The same images with labels that are positions in other class names.

        Parameters
        ----------
        names : sequence of str
            The class names in the new label order, with all names of this source among them. If this source has no
            class names, its labels stay as they are and get these names.
        whose : str
            Describes `names` in errors, see `class_names.places`.

        Raises
        ------
        DataError
            See `class_names.places` and `class_names.renumbered`.
        """
        found = copy.copy(self)
        if self.class_names is not None and not self.numbered:
            number = class_names.places(self.class_names, names, self.name, whose)
            found.labels = class_names.renumbered(self.labels, number, self.name)
        found.class_names, found.numbered = list(names), False
        return found

    def subset(self, positions: np.ndarray | Sequence[int]) -> Subset:
        """The images at these positions (int), in that order."""
        return Subset(self, positions)


class Subset(ImageSource):
    """Some of the images of another source."""

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
            As in `ImageSource.image`, which also describes the result and the errors.
        """
        return self.whole.image(int(self.positions[position]), channels, resize)

    def content_hashes(self, positions: Sequence[int] | np.ndarray | None = None) -> list[str]:
        """See `ImageSource.content_hashes`; the whole source may know them already."""
        return self.whole.content_hashes(self.positions if positions is None else self.positions[np.asarray(positions)])

    def contents(self) -> Iterator[bytes]:
        """Yields the positions, then the contents of the whole source, from which they were drawn."""
        yield self.positions.tobytes()
        yield from self.whole.contents()


def check_labels(labels: np.ndarray, names: Sequence[str], source: AnyPath, least: int = 2) -> None:
    """Checks that the class names are valid and that each label is one of the classes.

    Parameters
    ----------
    labels : int (n,)
    names : sequence of str
        Class names in label order.
    source : path-like
        Where the labels are from, for errors.
    least : int, default 2
        Least number of classes; 1 allows images of a single class, for evaluation.

    Raises
    ------
    DataError
        There are too few classes, two of them have the same name, or a label is out of range.
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
    """Numbers in place of unknown class names: '0', '1', ... up to the largest label.

    Raises DataError for more than `MAX_UNNAMED` classes.
    """
    largest = max(0, int(labels.max()))
    if largest >= MAX_UNNAMED:
        raise DataError("labels outside the classes that are numbered where they have no names", path=name,
                        expected=f"0 to {MAX_UNNAMED - 1}", found=largest,
                        remedy="number the classes from 0 on, or name them in a .classes.txt, one a line")
    return [str(number) for number in range(largest + 1)]
