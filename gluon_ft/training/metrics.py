"""Loss, accuracy and top-k accuracy, summed on the devices so that no batch waits for them; records of epochs."""
from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import mxnet as mx
import numpy as np
from mxnet.gluon import HybridBlock

from gluon_ft.data.batches import Batch, Part, by_names, every_image
from gluon_ft.engine import fused
from gluon_ft.errors import DataError, NetworkError, TrainingError
from gluon_ft.runtime import devices
from gluon_ft.runtime.distributed.workers import Workers
from gluon_ft.training.labels import LabelCheck, class_names_of, classes_of
from gluon_ft.training.losses import cross_entropy


@dataclass(frozen=True)
class Metrics:
    """Means over the images of a pass.

    Attributes
    ----------
    loss : float
        Mean cross-entropy, in nats.
    accuracy, top_k : float
        0..1; `top_k` is None where it was not asked for.
    count : int
        Images.
    """

    loss: float
    accuracy: float
    top_k: float | None
    count: int


class Meter:
    """Sums predictions and losses over the batches of one pass.

    Parameters
    ----------
    where : str
        Of the pass, for errors: 'training, epoch 3'.
    top_k : int, default 0
        The k of top-k accuracy; left out where there are not more classes than that; 0: not asked.
    """

    # So many losses may be outstanding before they are looked at: enough to keep the engine busy.
    CHECK_EVERY = 50

    def __init__(self, where: str, top_k: int = 0) -> None:
        self.where, self.top_k = where, top_k
        self.count, self.steps = 0, 0
        self._sums: dict[mx.Context, list] = {}
        self._unchecked: list[tuple[int, mx.nd.NDArray]] = []

    def update(self, shares: list[tuple]) -> None:
        """Adds one batch: (prediction (n, classes), label (n,), loss (n,)) for each device's share of it."""
        self.steps += 1
        for prediction, label, loss in shares:
            check_result(prediction, len(label), self.where)
            self.count += len(label)
            values = [loss.sum(), (prediction.argmax(axis=1) == label.astype("float32")).sum()]
            if 0 < self.top_k < prediction.shape[1]:
                mask = prediction.topk(k=self.top_k, ret_typ="mask")
                values.append(mask.pick(label.astype("float32"), axis=1).sum())
            before = self._sums.get(prediction.context)
            self._sums[prediction.context] = values if before is None else [a + b for a, b in zip(before, values)]
            self._unchecked.append((self.steps, values[0]))
        if self.steps % self.CHECK_EVERY == 0:
            self.check()

    def arrays(self) -> dict[str, np.ndarray]:
        """The sums so far, for a checkpoint: name -> NumPy array; losses are looked at first, see `check`."""
        self.check()
        return {f"{device}/{i}": value.asnumpy() for device, column in enumerate(self._sums.values())
                for i, value in enumerate(column)}

    def restore(self, arrays: dict[str, np.ndarray], count: int, steps: int, contexts: list[mx.Context]) -> None:
        """Goes on from saved sums.

        Parameters
        ----------
        arrays : dict of str to ndarray
            What `arrays` returned.
        count, steps : int
            Images and batches that they are the sums of.
        contexts : list of mx.Context
            As many devices as were used then.
        """
        self.count, self.steps = count, steps
        for name in sorted(arrays, key=lambda n: [int(part) for part in n.split("/")]):
            context = contexts[int(name.split("/")[0])]
            self._sums.setdefault(context, []).append(mx.nd.array(arrays[name], ctx=context))

    def wait(self, behind: int = 2) -> None:
        """Waits for the batch `behind` ones ago: without it the engine would queue a whole epoch in memory."""
        index = len(self._unchecked) - 1 - behind * len(self._sums)
        if index >= 0:
            self._unchecked[index][1].wait_to_read()

    def check(self) -> None:
        """TrainingError where a loss was NaN or infinite, naming the batch."""
        for step, loss in self._unchecked:
            value = loss.asscalar()
            if not math.isfinite(value):
                raise TrainingError(f"the loss became {value} in {self.where}, batch {step}", expected="a finite loss",
                                    remedy="lower the learning rate, or look for bad images and labels there")
        self._unchecked.clear()

    def _totals(self, workers):
        """(images, sum of losses, right ones, right ones in the first k or None), of all workers."""
        self.check()
        sums = [sum(float(v.asscalar()) for v in column) for column in zip(*self._sums.values())]
        count, loss, right, top, tops = workers.total([self.count, *sums[:2], *[0.0] * (2 - min(2, len(sums))),
                                                       *(sums[2:] or [0.0]), len(sums) > 2])
        return int(count), [float(value) for value in (loss, right, *([top] if tops else []))]

    def hand_over(self, workers: Workers, contexts: list[mx.Context]) -> None:
        """Gives the sums so far of all workers to worker 0, for a checkpoint; the others go on from nothing.

        Parameters
        ----------
        workers : Workers
        contexts : list of mx.Context
            Where worker 0 keeps them.
        """
        count, sums = self._totals(workers)
        self._sums, self.count = {}, 0
        if workers.rank == 0:
            self._sums, self.count = {contexts[0]: [mx.nd.array([value], ctx=contexts[0]) for value in sums]}, count

    def result(self, workers: Workers | None = None) -> Metrics:
        """The means over all images, of all workers. DataError where there was none."""
        count, sums = self._totals(workers or Workers())
        if not count:
            raise DataError(f"no images in {self.where}", expected="at least one", found="an empty loader")
        means = [total / count for total in sums]
        return Metrics(means[0], means[1], means[2] if len(means) > 2 else None, count)


def evaluate(net: HybridBlock, source: Any, ctx: mx.Context | list[mx.Context] | None = None, top_k: int = 0,
             where: str = "the evaluation", watch: Callable[[], None] | None = None,
             precision: str = "float32", workers: Workers | None = None) -> Metrics:
    """Loss and accuracy of `net` on `source`, every image counted once, padding not at all.

    Parameters
    ----------
    net : HybridBlock
        On one CPU and for many images it runs in its fused form (`engine.fused.evaluating`), where that agrees to
        rounding.
    source : anything that `gluon_ft.data.batches.batches` takes
        Where both have class names, labels go by name (`net.classes`, `source.classes`): it may lack classes, be of
        one class only, and have them in another order.
    ctx : mx.Context or list of them, default those of the network
        Some of those where it is. Each batch is divided among them.
    top_k : int, default 0
        Also top-k accuracy, see `Meter`.
    where : str
        For errors.
    watch : callable(), optional
        Called before each batch; what it raises ends the evaluation.
    precision : 'float32', 'bfloat16' or 'float16'
        See `engine.precision`.
    workers : Workers, optional
        Each of them evaluates its share of every batch, and all get the same result.

    Returns
    -------
    Metrics

    Raises
    ------
    DataError
        Without images; for a class that the network does not have; for labels that are not one number an image.
    TrainingError
        For a label outside the network's output, or a loss that is not finite.
    NetworkError
        For a result that is not one row of classes an image, or images of a size that the network does not take.
    ConfigError
        For a precision that the devices do not compute in, or devices that the network is not on.
    """
    contexts = devices.within(net, ctx)
    loss_of = cross_entropy()
    source = by_names(source, class_names_of(net), where)
    labels, meter = LabelCheck(classes_of(net), source, where), Meter(where, top_k)
    number = len(source) if hasattr(source, "__len__") else 1
    with fused.evaluating(net, number, contexts, precision) as run:
        def predicted(batch):
            used = contexts[:len(batch.label)]
            data = mx.gluon.utils.split_and_load(batch.data, used, even_split=False)
            label = mx.gluon.utils.split_and_load(batch.label, used, even_split=False)
            with image_form_explained(batch.data, where):
                predictions = [first(run(x)) for x in data]
            for prediction, y in zip(predictions, label):
                check_result(prediction, len(y), where)
            labels.learn(predictions[0].shape[1])
            labels.check(batch, meter.steps + 1)
            return [(p, y, loss_of(p, y) + nan_unless_finite(p)) for p, y in zip(predictions, label)]

        return measure(every_image(source, where, part_of(workers)), predicted, meter,
                       None if watch is None else lambda _: watch(), workers)


def part_of(workers: Workers | None) -> Part | None:
    """The share of each batch that is this worker's; None where there are no others."""
    return Part(workers.rank, workers.size) if workers is not None and workers.several else None


def measure(stream: Iterable[Batch], step: Callable[[Batch], list[tuple]], meter: Meter,
            before: Callable[[Batch], None] | None = None, workers: Workers | None = None) -> Metrics:
    """Runs one pass and returns the means over its images.

    Parameters
    ----------
    stream : iterable of Batch
    step : callable(Batch)
        Gets each batch without its padding, and returns what `Meter.update` takes: for each device (prediction
        (n, classes), label (n,), loss (n,)).
    meter : Meter
        The sums are added to it.
    before : callable(Batch), optional
        Called with each batch before `step`, for checks.
    workers : Workers, optional
        Those whose images are counted together.

    Returns
    -------
    Metrics

    Raises
    ------
    DataError
        There was no image.
    TrainingError
        A loss was not finite.
    """
    for batch in stream:
        if not batch.valid:
            continue
        batch = batch.trimmed()
        if before is not None:
            before(batch)
        meter.update(step(batch))
        meter.wait()
    return meter.result(workers)


def nan_unless_finite(prediction: mx.nd.NDArray) -> mx.nd.NDArray:
    """For each row of a result (n, classes) 0, or NaN where one of its numbers is not finite; added to a loss, which a
    result of -infinity for another class leaves finite, it shows."""
    return (0 * prediction.astype("float32")).sum(axis=1)


@contextlib.contextmanager
def image_form_explained(data: mx.nd.NDArray, where: str) -> Iterator[None]:
    """Inside, MXNet's errors about shapes and types become NetworkErrors that name what the images have.

    Parameters
    ----------
    data : NDArray (n, ...)
        What the network is run on.
    where : str
        For the error.
    """
    try:
        yield
    except mx.MXNetError as error:
        if re.search(r"uniform type|expected u?int\d|expected b?float\d", str(error)):
            raise NetworkError(f"the network does not take images of this type in {where}",
                               found=np.dtype(data.dtype).name, expected="the type of its parameters",
                               remedy="convert and scale them as in training, such as with Gluon's ToTensor"
                               ) from error
        if "shape" not in str(error).lower():
            raise
        raise NetworkError(f"the network does not take images of this size in {where}", found=tuple(data.shape[1:]),
                           remedy="make all loaders with one preprocessing, of the size that the network is for"
                           ) from error


def check_result(prediction: mx.nd.NDArray, images: int, where: str) -> None:
    """NetworkError unless a network's result is (images, classes), of which alone the measures here are right.

    Parameters
    ----------
    prediction : NDArray
    images : int
        That it was computed of.
    where : str
        For the error.
    """
    if prediction.ndim != 2 or len(prediction) != images:
        raise NetworkError(f"the network's result is not one row of classes an image in {where}",
                           expected=f"({images}, classes)", found=prediction.shape)


def first(result: Any) -> mx.nd.NDArray:
    """The classifier's result of a network that returns auxiliary ones as well."""
    return result[0] if isinstance(result, (list, tuple)) else result


def epoch_record(epoch: int, trained: Metrics, validated: Metrics | None, lr: float, seconds: float,
                 top_k: int) -> dict:
    """An epoch's entry in the history of a training, see `training.fit.Result`.

    Parameters
    ----------
    epoch : int
        From 1.
    trained, validated : Metrics
        Of the training and the validation pass; `validated` is None where there was none.
    lr : float
        The learning rate of the last step.
    seconds : float
        Of the whole epoch.
    top_k : int
        The k of the top-k accuracies, which are left out where they were not measured.

    Returns
    -------
    dict
        'epoch', 'train_loss', 'train_accuracy', 'validation_loss', ..., 'lr', 'seconds'.
    """
    record: dict = {"epoch": epoch}
    for part, metrics in (("train", trained), ("validation", validated)):
        if metrics is not None:
            record[f"{part}_loss"], record[f"{part}_accuracy"] = metrics.loss, metrics.accuracy
            if metrics.top_k is not None:
                record[f"{part}_top{top_k}"] = metrics.top_k
    return {**record, "lr": lr, "seconds": round(seconds, 3)}


def best_epoch(history: list[dict]) -> int:
    """The epoch of highest validation accuracy (training accuracy without a validation set), the earliest of equals."""
    key = "validation_accuracy" if "validation_accuracy" in history[-1] else "train_accuracy"
    return max(history, key=lambda record: record[key])["epoch"]
