"""Packed records (`.rec`), of ours or of im2rec, as images with labels."""
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
        The byte at which the record of each image begins.
    sha256 : str or None
        What the manifest says of the whole file; None without one.
    stored : ndarray
        int64 (n,), the labels as they are in the file, where `labels` were renumbered by other class names.
    shard : (int, int, str) or None
        As of `RecordFile.shard`.
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
    """The images of a `.rec` in the order of its index, without reading them: only where they are, and their labels.

    Class names are those of the manifest, else of the `.classes.txt` of the list of that name; None without either.

    Raises
    ------
    DataError
        The file cannot be read, or is damaged as far as that shows; a label is not one class; index or manifest do
        not fit the records.
    """
    records = RecordFile(path)
    found = RecordSource(path, records.offsets, records.class_labels(), records.class_names, records.sha256)
    found.shard = records.shard
    return found


def scan_records(path: AnyPath) -> RecordSource:
    """The images of a `.rec` in the file's own order, whatever their labels are; the index is not looked at.

    Class names as of `open_records`. Raises DataError where the file cannot be read, is damaged or holds no record.
    """
    records = RecordFile(path)
    offsets, labels, names = array("Q"), [], []
    for record, header in records.scan_whole():
        found = header.labels
        offsets.append(record.offset)
        labels.append(int(found[0]) if len(found) == 1 and float(found[0]).is_integer() else -1)
        names.append(_label_name(found, records.class_names))
    if not len(offsets):
        raise DataError("no records", path=path, found="an empty file")
    return RecordSource(path, offsets, labels, records.class_names, label_names=names)


def _label_name(labels, class_names) -> str | None:
    if len(labels) != 1:
        return None
    label = labels[0]
    if class_names is not None and float(label).is_integer() and 0 <= label < len(class_names):
        return class_names[int(label)]
    return str(int(label)) if float(label).is_integer() else f"{label:g}"
