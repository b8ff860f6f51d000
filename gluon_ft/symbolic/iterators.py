"""`LoaderIter`: turns a loader into an `mx.io.DataIter`, for `Module.fit`, `Module.score` and `Module.predict`."""
from __future__ import annotations

import mxnet as mx

from gluon_ft.data.batches import Batch, as_batch
from gluon_ft.data.sources import class_names
from gluon_ft.errors import DataError


class LoaderIter(mx.io.DataIter):
    """A DataIter over the batches of a loader, all of the same size.

    The last batch is padded by repeating its own rows. `pad` is the number of repeated rows; code that ignores `pad`
    counts these images twice.

    Parameters
    ----------
    loader : iterable
        Anything that `gluon_ft.data.batches.batches` takes except a DataIter, which can be used as it is.
    batch_size : int, default the loader's own
    data_name, label_name : str
        Names of the symbol's inputs.

    Raises
    ------
    DataError
        The loader is empty, or yields more than `batch_size` rows.
    """

    def __init__(self, loader, batch_size: int | None = None, data_name="data", label_name="softmax_label"):
        super().__init__(batch_size or getattr(loader, "batch_size", 0))
        self.loader, self._names = loader, (data_name, label_name)
        if self.batch_size < 1:
            raise DataError("batch size not known", remedy="give batch_size")
        self._rows, self._ahead = None, None
        first = self._next()
        if first is None:
            raise DataError("no images", expected="at least one", found="an empty loader")
        self._shape = first.data[0].shape
        self._ahead = first

    @property
    def classes(self) -> list[str] | None:
        """The loader's class names in label order; None if it has none."""
        return class_names.of(self.loader)

    @property
    def provide_data(self) -> list[mx.io.DataDesc]:
        """Name and shape of the images, as one DataDesc."""
        return [mx.io.DataDesc(self._names[0], self._shape)]

    @property
    def provide_label(self) -> list[mx.io.DataDesc]:
        """Name and shape of the labels, as one DataDesc."""
        return [mx.io.DataDesc(self._names[1], (self.batch_size,))]

    def reset(self) -> None:
        """Begins a new pass, unless no batch of the current one was used yet."""
        if self._ahead is None:
            self._rows = None

    def next(self) -> mx.io.DataBatch:
        """The next batch of the pass."""
        batch, self._ahead = self._ahead or self._next(), None
        if batch is None:
            raise StopIteration
        return batch

    def _next(self):
        self._rows = iter(self.loader) if self._rows is None else self._rows
        item = next(self._rows, None)
        if item is None:
            return None
        batch = as_batch(item).trimmed()
        if batch.valid > self.batch_size:
            raise DataError("a batch of the loader is too large", expected=f"at most {self.batch_size}",
                            found=batch.valid)
        data, label = filled(batch, self.batch_size)
        return mx.io.DataBatch([data], [label], pad=self.batch_size - batch.valid)


def filled(batch: Batch, size: int, label_of_padding: float | None = None) -> tuple[mx.nd.NDArray, mx.nd.NDArray]:
    """Pads a batch to `size` rows by repeating its own images.

    Parameters
    ----------
    batch : Batch
        Without padding, see `Batch.trimmed`.
    size : int
        A batch that has more rows is unchanged.
    label_of_padding : float, optional
        Label of the repeated rows; default their own.

    Returns
    -------
    (data, label)
        NDArrays of at least `size` rows, those of the batch first; labels are float32.
    """
    data, label = batch.data, batch.label.astype("float32")
    missing = size - batch.valid
    if missing <= 0:
        return data, label
    index = mx.nd.arange(size, ctx=data.context) % max(1, batch.valid)
    rows = data.take(index)
    labels = label.take(index.as_in_context(label.context))
    if label_of_padding is not None:
        labels[batch.valid:] = label_of_padding
    return rows, labels
