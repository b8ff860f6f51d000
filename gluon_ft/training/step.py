"""One training step: forward, backward, and the update, on one or several devices."""
from __future__ import annotations

import mxnet as mx
import numpy as np

from gluon_ft.data.batches import Batch
from gluon_ft.engine import fused, precision
from gluon_ft.errors import ConfigError, NetworkError, TrainingError
from gluon_ft.models import tracing
from gluon_ft.training import balance, clipping, ema, rates
from gluon_ft.training.config import TrainConfig
from gluon_ft.training.feature_cache.select import arrange
from gluon_ft.training.labels import labels_of
from gluon_ft.training.losses import classification_loss
from gluon_ft.training.metrics import first
from gluon_ft.training.mixup import Mixer


class Stepper:
    """Updates a network's parameters, batch by batch.

    Attributes: net, config, contexts; `paths` (index in the trainer -> parameter's path) of everything that is ever
    trained; `trainer` (gluon.Trainer); `average` (averaging.Average or None); `scaler` (of float16, or None);
    `running` (arrangement.Arrangement): the network or the part of it that is run, and the loaders for it.

    input_shape : of one image as a batch, (1, channels, height, width), where stages matter; default as the network's
    backbone has it.

    Raises TrainingError where nothing is trainable, ConfigError for settings that do not fit network or loader.
    """

    def __init__(self, net, config: TrainConfig, contexts, train, val, classes: int | None, input_shape=None):
        self.net, self.config, self.contexts, self.train, self.val = net, config, contexts, train, val
        precision.check(config.precision, contexts)
        _adjust_rates(net, config, input_shape)
        free = {path: p for path, p in net._collect_params_with_prefix().items() if p.grad_req != "null"}
        if not free:
            raise TrainingError("every parameter is frozen", expected="at least one with grad_req 'write'",
                                remedy="unfreeze the output block, see gluon_ft.freezing.describe(net)")
        self.paths = dict(enumerate(free))
        # Not on the key-value store: the gradients are needed here, to clip them and to add them up.
        self.trainer = mx.gluon.Trainer(list(free.values()), config.optimizer, config.optimizer_options(),
                                        kvstore=config.kvstore, update_on_kvstore=False)
        self.plan = rates.unfreezing(net, config.head_epochs, config.unfreeze, config.epochs, input_shape)
        self.loss = classification_loss(config.label_smoothing, _class_weights(config, train, classes))
        self.mixer = _mixer(config, classes)
        self.average = ema.Average(net, config.ema) if config.ema else None
        self.scaler = precision.LossScaler() if config.precision == "float16" else None
        self.schedule, self.per_epoch = config.lr_schedule(), _steps_per_epoch(train, config)
        self.pending, self.form, self.running = 0, None, None

    def begin(self, epoch: int) -> None:
        """Sets stages free as planned for the epoch (from 1); to be called before its first step."""
        if self.plan.apply(epoch) or self.form is None:
            self.release()
            for parameter in self.trainer._params:
                if parameter.grad_req != "null":
                    parameter.grad_req = "write" if self.config.accumulate == 1 else "add"
            self.running = arrange(self.net, self.train, self.val, self.config, self.contexts)
            self.form = fused.trainable(self.running.net, self.config.precision)

    def step(self, batch: Batch, epoch: int, position: int) -> list[tuple]:
        """Trains on batch number `position` (from 0) of an epoch; (prediction, label, loss) of each device's share.

        The parameters move after every `accumulate` batches and in `end`.
        """
        data, label, label_b, share = batch.data, batch.label, None, 1.0
        if self.mixer is not None:
            data, label, label_b, share = self.mixer.mix(data, label, epoch - 1, position)
        shares = _shares(data, label, label_b, self.contexts)
        with mx.autograd.record():
            predictions = [first(self.form(x)) for x, *_ in shares]
            losses = [self.loss(p, y, weight, y_b, share) for p, (_, y, y_b, weight) in zip(predictions, shares)]
        mx.autograd.backward(self.scaler.scaled(losses) if self.scaler else losses)
        self.pending += len(label)
        if (position + 1) % self.config.accumulate == 0:
            self._update(epoch, position // self.config.accumulate)
        # What `_shares` repeated does not count, nor does a mixed image count for its lesser half.
        return [(p.detach(), y if share >= 0.5 else y_b, loss.detach())
                for p, loss, (_, y, y_b, _) in zip(predictions, losses, shares)][:len(label)]

    def end(self, epoch: int, batches: int) -> None:
        """Uses the gradients that are left over at the end of an epoch of so many batches."""
        if self.pending:
            self._update(epoch, (batches - 1) // self.config.accumulate)

    def rate(self, epoch: int, step: int) -> float:
        """The learning rate of step number `step` (from 0) of an epoch (from 1), for lr_mult 1."""
        if self.per_epoch is None:
            return self.config.lr
        done = (epoch - 1) * self.per_epoch + step
        return self.config.lr * self.schedule.multiplier(done, self.per_epoch, self.config.epochs)

    def _update(self, epoch, step):
        self.trainer.set_learning_rate(self.rate(epoch, step))
        self.trainer.allreduce_grads()
        moving = [p for p in self.trainer._params if p.grad_req != "null"]
        scale = self.pending * (self.scaler.scale_of_step if self.scaler else 1.0)
        if self.scaler is None or self.scaler.ready(moving):
            if self.config.clip_norm:
                clipping.clip(moving, self.config.clip_norm, 1 / scale)
            self.trainer.update(scale)
        if self.average is not None:
            self.average.update()
        if self.config.accumulate > 1:
            for parameter in moving:
                parameter.zero_grad()
        self.pending = 0

    def release(self) -> None:
        """Gives back the memory of the graph that trains."""
        if self.form is not None:
            self.form.release()

    def finish(self) -> None:
        """Leaves the network as one that is not being trained here."""
        self.release()
        for parameter in self.trainer._params:
            if parameter.grad_req == "add":
                parameter.grad_req = "write"


def _adjust_rates(net, config, input_shape):
    if config.layer_decay < 1:
        rates.discriminative(net, config.layer_decay, input_shape)
    if not config.decay_bias_and_norm:
        rates.without_decay(net)


def _mixer(config, classes):
    if not (config.mixup or config.cutmix):
        return None
    return Mixer(config.mixup, config.cutmix, classes or 2, config.seed)


def _class_weights(config, train, classes):
    if config.balance != "weights":
        return None
    labels = labels_of(train)
    if labels is None or not classes:
        raise ConfigError("balance 'weights' needs the labels beforehand", expected="a loader with labels, and a "
                          "network whose output is found", found=type(train).__name__,
                          remedy="use gluon_ft.loaders.make_loader, or an ArrayLoader")
    return balance.class_weights(labels, classes)


def _steps_per_epoch(train, config):
    if hasattr(train, "__len__"):
        return -(-len(train) // config.accumulate)
    if config.schedule == "constant" and not config.warmup:
        return None
    raise ConfigError("a schedule needs the number of batches beforehand", expected="a loader that has a length",
                      found=type(train).__name__, remedy="use gluon_ft.loaders.make_loader, or the schedule 'constant'")


def _shares(data, label, label_b, contexts):
    """(data, label, second label or None, weight or None) for each device, of nearly equal size.

    A batch with fewer images than devices is repeated with weight 0, since a device without images would have no
    gradient to add.
    """
    valid, weights = len(label), [None] * len(contexts)
    if valid < len(contexts):
        index = mx.nd.array(np.arange(len(contexts)) % valid, ctx=data.context)
        data, label = data.take(index), label.take(index.as_in_context(label.context))
        label_b = None if label_b is None else label_b.take(index.as_in_context(label.context))
        weights = [mx.nd.array([float(i < valid)], ctx=ctx) for i, ctx in enumerate(contexts)]

    def divided(array):
        return mx.gluon.utils.split_and_load(array, contexts, even_split=False)

    return list(zip(divided(data), divided(label), divided(label_b) if label_b is not None else [None] * len(contexts),
                    weights))


def draws(net) -> bool:
    """Whether a training step of the network draws random numbers (Dropout, for one); True where it cannot be told."""
    try:
        graph = tracing.symbol(net)
    except (NetworkError, mx.MXNetError):
        return True
    return any(part in graph.tojson() for part in ('"Dropout"', "_random_", "_sample_", '"RNN"'))
