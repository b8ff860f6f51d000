"""`RecordSource`: the images of packed records (`.rec`), made by `pack` or by im2rec."""
from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path

from gluon_ft.data.records.record_file import RecordFile
from gluon_ft.data.sources.base import ImageRef, ImageSource
from gluon_ft.errors import DataError
from gluon_ft.io.paths import AnyPath


class RecordSource(ImageSource):
    """The images of a `.rec`.

    Attributes
    ----------
    path : Path
    offsets : sequence of int
        The byte at which each image's record begins.
    sha256 : str or None
        The file's SHA-256 according to the manifest; None without one.
    stored : ndarray
        int64 (n,), the labels as stored in the file; `labels` may be renumbered to other class names.
    shard : (int, int, str) or None
        See `RecordFile.shard`.
    """

    kind = "records"

    def __init__(self, path, offsets: Sequence[int], labels, class_names: Sequence[str] | None = None,
                 sha256: str | None = None, label_names: Sequence[str | None] | None = None):
        super().__init__(path, labels, class_names)
        self.path, self.offsets, self.sha256, self._label_names = Path(path), offsets, sha256, label_names
        self.stored = self.labels
        self.shard: tuple[int, int, str] | None = None
        self.remedy = f"see all of it with gluon-ft verify {path}"

    def where(self, position: int) -> str:
        return f"{self.path}: record {position} at byte {self.offsets[position]}"

    def image_name(self, position: int) -> str:
        return f"record {position}"

    def label_name(self, position: int) -> str | None:
        return super().label_name(position) if self._label_names is None else self._label_names[position]

    def ref(self, position: int) -> ImageRef:
        return ImageRef(str(self.path), int(self.offsets[position]))

    def read(self, position: int) -> bytes:
        return self.ref(position).read()


def open_records(path: AnyPath) -> RecordSource:
    """Opens a `.rec` in the order of its index; reads the places and labels of the images, but not the images.

    Class names come from the manifest or else from the `.classes.txt` beside it; None without either.

    Raises
    ------
    DataError
        The file cannot be read or is visibly damaged; an image has several labels, or one that is not a class; the
        index or the manifest does not fit the records.
    """
    records = RecordFile(path)
    found = RecordSource(path, records.offsets, records.class_labels(), records.class_names, records.sha256)
    found.shard = records.shard
    return found


def scan_records(path: AnyPath) -> RecordSource:
    """Opens a `.rec` in file order, with any kind of labels; the index is ignored.

    Class names are found as by `open_records`. Raises DataError if the file cannot be read, is damaged or is empty.
    """
    records = RecordFile(path)
    offsets, labels, names = array("Q"), [], []
    for record, header in records.scan_whole():
        found = header.labels
        offsets.append(record.offset)
        labels.append(int(found[0]) if len(found) == 1 and float(found[0]).is_integer() else -1)
        names.append(records.label_name(found))
    if not len(offsets):
        raise DataError("no records", path=path, found="an empty file")
    return RecordSource(path, offsets, labels, records.class_names, label_names=names)
