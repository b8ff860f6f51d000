"""The images that `audit` examines: the source, name and label of each."""
from __future__ import annotations

import os
from dataclasses import dataclass, field

from gluon_ft.data.sources.base import ImageRef, ImageSource
from gluon_ft.data.sources.opening import open_unchecked
from gluon_ft.errors import DataError


@dataclass(frozen=True)
class Item:
    """One image of a source: its place and its label.

    `offset` is the byte at which its record begins, None for an image file. `label` is a class name, or the class's
    number as text where names are not known, or None where the image has several labels.
    """

    source: int
    name: str
    label: str | None
    path: str
    offset: int | None = None

    def read(self) -> bytes:
        """The image's bytes. Raises header.Unreadable with the reason."""
        return ImageRef(self.path, self.offset).read()


@dataclass
class Source:
    """A folder with one subfolder per class, a `.lst` or a `.rec`; `named` says whether labels are class names."""

    path: str
    kind: str
    items: list[Item]
    classes: list[str] = field(default_factory=list)
    named: bool = True
    left_out: dict[str, str] = field(default_factory=dict)


def open_source(number: int, source: ImageSource | str | os.PathLike[str],
                root: str | os.PathLike[str] | None = None) -> Source:
    """Lists the images of one source for `audit`; none is decoded.

    Parameters
    ----------
    number : int
        Position of the source in the audit, from 0; each `Item` carries it.
    source : ImageSource or path-like
        A path is opened by `open_unchecked`: a folder of classes, a `.lst` or a `.rec`.
    root : path-like, optional
        Folder that the paths in a `.lst` are relative to; default the list's own. Used only where `source` is a path.

    Returns
    -------
    Source
        Where no class names are known, `named` is False and `classes` are the label numbers found, as text.

    Raises
    ------
    DataError
        The images are in memory, or `open_unchecked` refuses the path.
    """
    found = source if isinstance(source, ImageSource) else open_unchecked(source, root)
    references = [found.ref(i) for i in range(len(found))]
    if None in references:
        raise DataError("images in memory cannot be audited", path=found.name, expected="a folder, a .lst or a .rec")
    items = [Item(number, found.image_name(i), found.label_name(i), where.path, where.offset)
             for i, where in enumerate(references) if where is not None]
    classes = sorted({item.label for item in items if item.label is not None}, key=float) \
        if found.class_names is None else found.class_names
    return Source(found.name, found.kind, items, classes, found.class_names is not None, found.left_out)
