"""`FileSource`: image files with labels, from a folder of classes or a list (`.lst`)."""
from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from gluon_ft.data import tables
from gluon_ft.data.images import header
from gluon_ft.data.sampler import digest
from gluon_ft.data.sources.base import ImageRef, ImageSource
from gluon_ft.io import reporter
from gluon_ft.io.paths import AnyPath


class FileSource(ImageSource):
    """Image files from a folder with one subfolder for each class, or from a list.

    Attributes
    ----------
    path : Path
        The folder or list that was opened.
    root : Path
        The folder that `names` are relative to.
    names : list of str
        Paths of the images relative to `root`, with forward slashes, in order.
    """

    def __init__(self, path, root, names: Sequence[str], labels, class_names: Sequence[str] | None = None, *,
                 kind: str = "folder", left_out: Mapping[str, str] | None = None):
        super().__init__(path, labels, class_names, left_out)
        self.path, self.root, self.names, self.kind = Path(path), Path(root), list(names), kind
        self._hashes: tuple[list, list[str], str] | None = None

    def __eq__(self, other) -> bool:
        """Whether both have the same images, labels and class names."""
        return isinstance(other, FileSource) and (self.path, self.root, self.files, self.class_names) == (
            other.path, other.root, other.files, other.class_names)

    __hash__ = None  # pyright: ignore[reportAssignmentType] - mutable, so not hashable

    @property
    def files(self) -> list[tuple[str, int]]:
        """(path relative to `root`, label) of each image."""
        return list(zip(self.names, self.labels.tolist()))

    @property
    def paths(self) -> list[str]:
        """The path of each image."""
        return [self.where(position) for position in range(len(self))]

    def of_class(self, label: int) -> list[str]:
        """The paths relative to `root` of one class's images, in order."""
        return [self.names[position] for position in np.flatnonzero(self.labels == label)]

    def where(self, position: int) -> str:
        return os.path.join(self.root, self.names[position])

    def image_name(self, position: int) -> str:
        return self.names[position]

    def ref(self, position: int) -> ImageRef:
        return ImageRef(self.where(position))

    def read(self, position: int) -> bytes:
        return header.read_file(self.where(position))

    def hashes(self) -> tuple[list[str], str]:
        """The SHA-256 of each file in hexadecimal, and `identity`. Reads each file once, and again if a file changed.

        Raises DataError for an image that cannot be read.
        """
        seen = [_file_state(path) for path in self.paths]
        if self._hashes is None or self._hashes[0] != seen:
            files: list[str] = []

            def hashed_contents():
                for data in self.contents():
                    files.append(hashlib.sha256(data).hexdigest())
                    yield data

            with reporter.progress(hashed_contents(), total=len(self), desc="hash", unit=" images") as pieces:
                self._hashes = seen, files, digest(pieces)
        return self._hashes[1], self._hashes[2]

    def content_hashes(self, positions: np.ndarray | Sequence[int] | None = None) -> list[str]:
        """See `ImageSource.content_hashes`; of all files as of `hashes`, whose result it uses for some of them too."""
        if positions is None:
            return self.hashes()[0]
        if self._hashes is not None and all(self._hashes[0][p] == _file_state(self.where(int(p))) for p in positions):
            return [self._hashes[1][position] for position in positions]
        return super().content_hashes(positions)

    def identity(self) -> str:
        """See `ImageSource.identity`; each file is read once, see `hashes`."""
        return self.hashes()[1]

    def take(self, positions: np.ndarray | Sequence[int]) -> FileSource:
        """An independent FileSource of the images at these positions (int), in that order.

        `subset` differs in that its identity depends on the whole source.
        """
        positions = np.asarray(positions, dtype=np.int64)
        found = FileSource(self.path, self.root, [self.names[position] for position in positions],
                           self.labels[positions], self.class_names, kind=self.kind, left_out=self.left_out)
        found.numbered = self.numbered
        return found


def _file_state(path: str) -> tuple[int, ...]:
    """Size, times and inode of a file, which tell whether it changed; () if it does not exist."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return ()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def from_list(path: AnyPath, root: AnyPath | None = None, one_label: bool = True) -> FileSource:
    """Opens a list in any format that `tables.load` reads, with its class names.

    Does not check whether the image files exist.

    Parameters
    ----------
    path : path-like
    root : path-like, optional
        Folder that the paths in the list are relative to; default the folder of the list.
    one_label : bool, default True
        Whether an image with several labels is an error; if False, it gets the label -1.

    Returns
    -------
    FileSource
        `class_names` is None if there is no `.classes.txt` and the labels are numbers.

    Raises
    ------
    DataError
        See `tables.load`; or, if `one_label`, an image has several labels.
    """
    path = Path(path)
    names, labels = [], []
    entries, class_names = tables.load(path)
    for entry in entries:
        names.append(entry.path)
        labels.append(entry.label if one_label or len(entry.labels) == 1 else -1)
    return FileSource(path, path.parent if root is None else root, names, labels, class_names,
                      kind="list")
