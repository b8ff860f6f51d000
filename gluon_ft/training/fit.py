"""The training loop: one plain loop over epochs and batches, on one or several devices."""
from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import mxnet as mx
import numpy as np

from gluon_ft import console, tracing
from gluon_ft.data.batches import Batch, batches
from gluon_ft.errors import DataError, NetworkError, TrainingError
from gluon_ft.training import checkpoint, devices, seeds
from gluon_ft.training.config import TrainConfig
from gluon_ft.training.losses import cross_entropy
from gluon_ft.training.metrics import Meter, evaluate, first


@dataclass
class Result:
    """What `fit` returns.

    history : one dict an epoch (epoch from 1, train_loss, train_accuracy, validation_loss, validation_accuracy,
    *_top5 where there are enough classes, lr, seconds); best_epoch : by validation accuracy (by training accuracy
    without a validation set), the earliest of equals; best, last : the parameter files, None without `save_to`.
    """

    history: list[dict] = field(default_factory=list)
    best_epoch: int = 0
    best: Path | None = None
    last: Path | None = None
    seconds: float = 0.0


def fit(net, train, val=None, config: TrainConfig | None = None, *, ctx=None, save_to=None, on_epoch=None,
        name: str = "training") -> Result:
    """Trains `net` in place.

    Parameters
    ----------
    net : HybridBlock
        Initialised; what its `grad_req` freezes stays, `lr_mult` and `wd_mult` are honoured.
    train, val : loaders
        Anything that `gluon_ft.data.batches.batches` takes; `train` decides about shuffling; `val` may be None.
    config : TrainConfig, default TrainConfig()
    ctx : list of mx.Context, default where the network is
        Each batch is divided among them; the batch size does not grow with their number.
    save_to : folder, optional
        Gets `last.params` after every epoch and `best.params` whenever the validation accuracy is a new best, both
        replaced atomically.
    on_epoch : callable(record: dict), optional
        Gets each epoch's record, for instance `run.log`.
    name : str
        Shown in the progress bar and in errors.

    Raises
    ------
    TrainingError: nothing is trainable, a label outside the network's output (before the step that would use it),
    a loss that is not finite. DataError: an empty set, or a class without training images.
    """
    config = config or TrainConfig()
    if config.seed is not None:
        seeds.seed_all(config.seed)
    contexts = _place(net, ctx)
    trainer, loss_of = _trainer(net, config), cross_entropy(config.label_smoothing)
    labels = _LabelCheck(net, train, name, config.allow_empty_classes)
    result, best, started = Result(), -1.0, time.perf_counter()
    for epoch in range(1, config.epochs + 1):
        begun = time.perf_counter()
        where = f"{name}, epoch {epoch}"
        trained = _train_epoch(net, train, trainer, loss_of, contexts, labels, Meter(where, config.top_k),
                               f"{name} {epoch}/{config.epochs}")
        labels.end_of_epoch()
        validated = None if val is None else evaluate(net, val, contexts, config.top_k, f"{where}, validation")
        record = epoch_record(epoch, trained, validated, trainer.learning_rate, time.perf_counter() - begun,
                              config.top_k)
        result.history.append(record)
        score = (validated or trained).accuracy
        if score > best:
            best, result.best_epoch = score, epoch
        if save_to is not None:
            _save(net, Path(save_to), result, is_best=result.best_epoch == epoch)
        if on_epoch is not None:
            on_epoch(record)
    result.seconds = time.perf_counter() - started
    return result


def _place(net, ctx):
    if ctx is not None and devices.of(net) != list(ctx):
        net.collect_params().reset_ctx(list(ctx))
    return devices.of(net)


def _trainer(net, config):
    trainable = [p for p in net.collect_params().values() if p.grad_req != "null"]
    if not trainable:
        raise TrainingError("every parameter is frozen", expected="at least one with grad_req 'write'",
                            remedy="unfreeze the output block, see gluon_ft.freezing.describe(net)")
    return mx.gluon.Trainer(trainable, config.optimizer, config.optimizer_options(), kvstore=config.kvstore)


def _train_epoch(net, train, trainer, loss_of, contexts, labels, meter, title):
    total = len(train) if hasattr(train, "__len__") else None
    for batch in console.progress(batches(train), total=total, desc=title, unit="batch"):
        batch = batch.trimmed()
        labels.check(batch, meter.steps + 1)
        shares = _shares(batch, contexts)
        with mx.autograd.record():
            predictions = [first(net(data)) for data, _, _ in shares]
            losses = [loss_of(p, label, weight) for p, (_, label, weight) in zip(predictions, shares)]
        mx.autograd.backward(losses)
        trainer.step(batch.valid)
        meter.update(_counted(predictions, losses, shares, batch.valid))
        meter.wait()
    return meter.result()


def _shares(batch: Batch, contexts):
    """(data, label, weight or None) for each device, of nearly equal size.

    A batch with fewer images than devices is repeated with weight 0, since a device without images would have no
    gradient to add.
    """
    data, label, weights = batch.data, batch.label, [None] * len(contexts)
    if batch.valid < len(contexts):
        index = mx.nd.array(np.arange(len(contexts)) % batch.valid, ctx=data.context)
        data, label = data.take(index), label.take(index.as_in_context(label.context))
        weights = [mx.nd.array([float(i < batch.valid)], ctx=ctx) for i, ctx in enumerate(contexts)]
    split = mx.gluon.utils.split_and_load
    return list(zip(split(data, contexts, even_split=False), split(label, contexts, even_split=False), weights))


def _counted(predictions, losses, shares, valid):
    """The shares of a batch that count: the repetitions of `_shares` do not."""
    triples = [(p.detach(), label, loss.detach()) for p, loss, (_, label, _) in zip(predictions, losses, shares)]
    return triples[:valid]


class _LabelCheck:
    """Compares labels with the network's output and looks for empty classes, in the first epoch."""

    def __init__(self, net, train, name, allow_empty):
        self.name, self.allow_empty, self.done = name, allow_empty, False
        try:
            self.classes = tracing.output_layer(net).classes
        except NetworkError:
            self.classes = None
        self.counts = np.zeros(self.classes or 0, dtype=np.int64)
        known = getattr(train, "labels", None)
        if known is not None:
            self._count(np.asarray(known), "the training set")
            self.end_of_epoch()

    def check(self, batch, step):
        """TrainingError before a batch with a label outside the output is used."""
        if not self.done and self.classes:
            self._count(batch.label.asnumpy(), f"batch {step}")

    def _count(self, labels, where):
        if not self.classes or not len(labels):
            return
        # Written so that NaN is outside as well.
        wrong = labels[~((labels >= 0) & (labels < self.classes))]
        if len(wrong):
            needed = f"give the network {int(labels.max()) + 1} classes, or " if (
                wrong.min() >= self.classes and np.isfinite(wrong).all()) else ""
            raise TrainingError(f"{self.name}: {len(wrong)} labels outside the network's output in {where}",
                                expected=f"0 to {self.classes - 1}", found=f"{wrong[0]:g}",
                                remedy=f"{needed}correct the labels")
        self.counts += np.bincount(labels.astype(np.int64), minlength=self.classes)

    def end_of_epoch(self):
        """DataError where a class has no training image (after the first epoch, or at once where labels are known)."""
        if self.done or not self.classes:
            return
        self.done = True
        empty = np.flatnonzero(self.counts == 0)
        if len(empty) and self.counts.sum() and not self.allow_empty:
            raise DataError(f"{self.name}: {len(empty)} of {self.classes} classes have no training image",
                            expected="at least one each", found=f"none of class {empty[0]}",
                            remedy="add images, drop the class, or set allow_empty_classes")


def epoch_record(epoch, trained, validated, lr, seconds, top_k) -> dict:
    """An epoch's entry of the history from its Metrics (`validated` may be None); see `Result`."""
    record = {"epoch": epoch}
    for part, metrics in (("train", trained), ("validation", validated)):
        if metrics is not None:
            record[f"{part}_loss"], record[f"{part}_accuracy"] = metrics.loss, metrics.accuracy
            if metrics.top_k is not None:
                record[f"{part}_top{top_k}"] = metrics.top_k
    return {**record, "lr": lr, "seconds": round(seconds, 3)}


def _save(net, folder, result, is_best):
    result.last = checkpoint.save_parameters(net, folder / "last.params")
    if is_best:
        result.best = checkpoint.save_parameters(net, folder / "best.params")
