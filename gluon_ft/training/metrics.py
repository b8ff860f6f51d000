"""Loss, accuracy and top-k, added up on the devices, so that no batch waits for them."""
from __future__ import annotations

import math
from dataclasses import dataclass

import mxnet as mx

from gluon_ft.data.batches import batches
from gluon_ft.engine import fused
from gluon_ft.errors import DataError, TrainingError
from gluon_ft.runtime import devices


@dataclass(frozen=True)
class Metrics:
    """loss : mean cross-entropy in nats; accuracy, top_k : fractions 0..1 (None where not asked); count : images."""

    loss: float
    accuracy: float
    top_k: float | None
    count: int


class Meter:
    """Adds up predictions and losses of the batches of one pass.

    top_k : 0, or the k of top-k, which is left out where there are not more classes than that.
    """

    # How many losses may be outstanding before one is looked at: enough to keep the engine busy.
    CHECK_EVERY = 50

    def __init__(self, where: str, top_k: int = 0):
        self.where, self.top_k = where, top_k
        self.count, self.steps = 0, 0
        self._sums: dict = {}
        self._unchecked: list = []

    def update(self, shares) -> None:
        """shares : list of (prediction (n, classes), label (n,), loss (n,)) of one batch, one for each device."""
        self.steps += 1
        for prediction, label, loss in shares:
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

    def arrays(self) -> dict:
        """The sums so far, for a checkpoint: name -> NumPy array; the losses are looked at first, see `check`."""
        self.check()
        return {f"{device}/{i}": value.asnumpy() for device, column in enumerate(self._sums.values())
                for i, value in enumerate(column)}

    def restore(self, arrays: dict, count: int, steps: int, contexts) -> None:
        """Goes on from the sums that `arrays` returned, after `steps` batches of `count` images."""
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

    def result(self) -> Metrics:
        """The means over all images. DataError where there was none."""
        if not self.count:
            raise DataError(f"no images in {self.where}", expected="at least one", found="an empty loader")
        self.check()
        totals = [sum(float(v.asscalar()) for v in column) for column in zip(*self._sums.values())]
        means = [total / self.count for total in totals]
        return Metrics(means[0], means[1], means[2] if len(means) > 2 else None, self.count)


def evaluate(net, source, ctx=None, top_k: int = 0, where: str = "the evaluation", watch=None,
             precision: str = "float32") -> Metrics:
    """Loss and accuracy of `net` on `source` (see `batches`), every image counted once, padding not at all.

    ctx : contexts to use, default those of the network; the batch is divided among them. On one CPU and many images
    the network runs in its fused form (`compiled.evaluating`), where that agrees to rounding.
    watch : callable(), called before each batch; what it raises ends the evaluation
    precision : 'float32', 'bfloat16' or 'float16', see `training.precision`
    """
    contexts = ctx or devices.of(net)
    loss_of = mx.gluon.loss.SoftmaxCrossEntropyLoss()
    meter = Meter(where, top_k)
    number = len(source) if hasattr(source, "__len__") else 1
    with fused.evaluating(net, number, contexts, precision) as run:
        for batch in batches(source):
            if watch is not None:
                watch()
            batch = batch.trimmed()
            used = contexts[:len(batch.label)]
            data = mx.gluon.utils.split_and_load(batch.data, used, even_split=False)
            label = mx.gluon.utils.split_and_load(batch.label, used, even_split=False)
            predictions = [first(run(x)) for x in data]
            meter.update([(p, y, loss_of(p, y)) for p, y in zip(predictions, label)])
            meter.wait()
        return meter.result()


def first(result):
    """The classifier's result of a network that returns auxiliary ones as well."""
    return result[0] if isinstance(result, (list, tuple)) else result
