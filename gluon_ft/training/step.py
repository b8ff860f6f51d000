"""One training step: forward, backward, and the update, on one or several devices."""
from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import mxnet as mx
import numpy as np

from gluon_ft.data.batches import Batch
from gluon_ft.engine import fused, precision, sync_batchnorm
from gluon_ft.errors import ConfigError, NetworkError, TrainingError
from gluon_ft.models import graph, tracing
from gluon_ft.runtime import devices
from gluon_ft.runtime.distributed.workers import KINDS, Exchange, Workers
from gluon_ft.runtime.gluon_internals import device_arrays, gradients, parameters_by_path, trained_parameters
from gluon_ft.training import ema, rates
from gluon_ft.training.config import TrainConfig
from gluon_ft.training.feature_cache import select
from gluon_ft.training.labels import class_weights, labels_of
from gluon_ft.training.losses import Mixer, classification_loss
from gluon_ft.training.metrics import first, image_form_explained
from gluon_ft.training.rates import LearningRate

if TYPE_CHECKING:
    from mxnet.gluon import HybridBlock


class Stepper:
    """Updates a network's parameters, batch by batch.

    Parameters
    ----------
    net : HybridBlock
    config : TrainConfig
    contexts : list of mx.Context
        Each batch is divided among them.
    train, val : loaders; val may be None
    classes : int or None
        Of the network's output, None where not known.
    input_shape : tuple of int, optional
        Of one image as a batch, (1, channels, height, width), where stages matter; default as the network's backbone
        takes it.
    workers : Workers, optional
        Those that train together; each steps with its share of every batch.

    Attributes
    ----------
    trainer : gluon.Trainer
    paths : dict
        Index in the trainer -> path, of each parameter that is ever trained.
    average : ema.Average or None
    scaler : precision.LossScaler or None
        Of float16.
    running : select.Running
        The network, or the part of it that is run on cached features, and the loaders for it; set by `begin`.

    Raises
    ------
    TrainingError
        Where nothing is trainable.
    ConfigError
        For settings that do not fit network, loader or devices.
    """

    def __init__(self, net: HybridBlock, config: TrainConfig, contexts: list[mx.Context], train, val,
                 classes: int | None, input_shape: tuple[int, ...] | None = None,
                 workers: Workers | None = None) -> None:
        self.workers = workers or Workers()
        self.exchange: Exchange | None = None
        self.net, self.config, self.contexts, self.train, self.val = net, config, contexts, train, val
        precision.check(config.precision, contexts)
        devices.check_kvstore(config.kvstore, contexts)
        select.check(net, config)
        check_workers(config)
        _configure_loader(train, config)
        if config.layer_decay < 1:
            rates.discriminative(net, config.layer_decay, input_shape)
        if not config.decay_bias_and_norm:
            rates.without_decay(net)
        # A layer may have two paths (GoogLeNet's output); the trainer is to step each parameter once.
        free, stepped = {}, set()
        for path, parameter in parameters_by_path(net).items():
            if parameter.grad_req != "null" and id(parameter) not in stepped:
                stepped.add(id(parameter))
                free[path] = parameter
        if not free:
            raise TrainingError("every parameter is frozen", expected="at least one with grad_req 'write'",
                                remedy="unfreeze the output block, see gluon_ft.freezing.describe(net)")
        self.paths = dict(enumerate(free))
        # Not on the key-value store: the gradients are needed here, to clip them and to add them up.
        self.trainer = mx.gluon.Trainer(list(free.values()), config.optimizer, config.optimizer_options(),
                                        kvstore=None if self.workers.several else config.kvstore,
                                        update_on_kvstore=False)
        self.plan = rates.unfreezing(net, config.head_epochs, config.unfreeze, config.epochs, input_shape)
        self.loss = classification_loss(config.label_smoothing, _class_weights(config, train, classes))
        self.mixer = _mixer(config, classes)
        self.average = ema.Average(net, config.ema) if config.ema else None
        self.scaler = precision.LossScaler() if config.precision == "float16" else None
        self.learning_rate = LearningRate(config, train)
        self.running = select.Running(net, train, val)
        self.pending, self.form = 0, None

    def join(self) -> None:
        """Lets the workers step together from now on; their parameters must be the same by now."""
        if not self.workers.several:
            return
        trained = trained_parameters(self.trainer)
        self.exchange = self.workers.exchange([device_arrays(parameter) for parameter in trained])
        if self.workers.asynchronous:
            self.exchange.optimise_on_server(
                mx.optimizer.create(self.config.optimizer, **self.config.optimizer_options()),
                [(parameter.lr_mult, parameter.wd_mult) for parameter in trained])

    def begin(self, epoch: int) -> None:
        """Prepares for an epoch (from 1), before its first step: unfreezes stages as planned, caches features."""
        if self.plan.apply(epoch) or self.form is None:
            self.release()
            for parameter in trained_parameters(self.trainer):
                if parameter.grad_req != "null":
                    parameter.grad_req = "write" if self.config.accumulate == 1 else "add"
            self.running = select.select(self.net, self.train, self.val, self.config, self.contexts)
            self.form = (sync_batchnorm.form_for(self.running.net, self.config.precision)
                         if self.config.sync_batchnorm else None) or fused.trainable(
                             self.running.net, self.config.precision)

    def step(self, batch: Batch, epoch: int, position: int, images: int | None = None) -> list[tuple]:
        """Trains on one batch. The parameters move after every `accumulate` batches, and in `end`.

        Parameters
        ----------
        batch : Batch
            Without padding, unless it has nothing else; its images are divided among the devices.
        epoch : int
            From 1.
        position : int
            Number of the batch in its epoch, from 0.
        images : int, optional
            Of the whole batch, where this is one worker's share.

        Returns
        -------
        list of (prediction, label, loss)
            For each device's share: (n, classes), (n,) and (n,). Of mixed images the label that counts for more.
        """
        assert self.form is not None, "begin comes first"
        data, label, label_b, share = batch.data, batch.label, None, 1.0
        if self.mixer is not None:
            data, label, label_b, share = self.mixer.mix(data, label, epoch - 1, position)
        shares = _shares(data, label, label_b, self.contexts, batch.valid)
        with image_form_explained(data, "training"), mx.autograd.record():
            predictions = _predictions(self.form, [x for x, *_ in shares])
            losses = [self.loss(p, y, weight, y_b, share) for p, (_, y, y_b, weight) in zip(predictions, shares)]
        mx.autograd.backward(self.scaler.scaled(losses) if self.scaler else losses)
        if isinstance(self.form, sync_batchnorm.Synchronised):
            self.form.backward([prediction.grad for prediction in predictions])
        self.pending += batch.valid if images is None else images
        if (position + 1) % self.config.accumulate == 0:
            self._update(epoch, position // self.config.accumulate)
        # What `_shares` repeated does not count, nor does a mixed image count for its lesser half.
        return [(p.detach(), y if share >= 0.5 else y_b, loss.detach())
                for p, loss, (_, y, y_b, _) in zip(predictions, losses, shares)][:batch.valid]

    def end(self, epoch: int, batches: int) -> None:
        """Uses the gradients that are left over at the end of an epoch of so many batches."""
        if self.pending:
            self._update(epoch, (batches - 1) // self.config.accumulate)
        if self.exchange is not None and self.workers.asynchronous:
            self.exchange.get(map(device_arrays, trained_parameters(self.trainer)))

    def rate(self, epoch: int, step: int) -> float:
        """The learning rate of step number `step` (from 0) of an epoch (from 1), for lr_mult 1."""
        return self.learning_rate.at(epoch, step)

    def _update(self, epoch, step):
        moving = [p for p in trained_parameters(self.trainer) if p.grad_req != "null"]
        if self.exchange is not None and self.workers.asynchronous:
            self._update_on_server(self.exchange, self.rate(epoch, step))
        else:
            self._update_here(epoch, step, moving)
        if self.config.accumulate > 1:
            for parameter in moving:
                parameter.zero_grad()
        self.pending = 0

    def _update_on_server(self, exchange, rate):
        exchange.set_rate(rate)
        for position, parameter in enumerate(trained_parameters(self.trainer)):
            if parameter.grad_req != "null":
                exchange.step(position, gradients(parameter) or [], device_arrays(parameter), self.pending)

    def _update_here(self, epoch, step, moving):
        self.trainer.set_learning_rate(self.rate(epoch, step))
        if self.exchange is None:
            self.trainer.allreduce_grads()
        else:
            for position, parameter in enumerate(trained_parameters(self.trainer)):
                if parameter.grad_req != "null":
                    self.exchange.add_up(position, gradients(parameter) or [])
        scale = self.pending * (self.scaler.scale_of_step if self.scaler else 1.0)
        if self.scaler is None or self.scaler.ready(moving):
            if self.config.clip_norm:
                clip(moving, self.config.clip_norm, 1 / scale)
            self.trainer.update(scale)
            # Not after a step that loss scaling left out: the parameters are those that it has taken in already.
            if self.average is not None:
                self.average.update()

    def release(self) -> None:
        """Gives back the memory of the graph that trains."""
        if self.form is not None:
            self.form.release()

    def finish(self) -> None:
        """Leaves the network as one that is not being trained here."""
        self.release()
        for parameter in trained_parameters(self.trainer):
            if parameter.grad_req == "add":
                parameter.grad_req = "write"


def check_workers(config: TrainConfig) -> None:
    """Raises ConfigError for settings that several workers cannot train with."""
    if config.kvstore not in KINDS:
        return
    refused: dict = {"cache_features": "none"}
    if config.kvstore == "dist_async":
        refused.update(clip_norm=0.0, ema=0.0, save_every=0, save_minutes=0.0, precision="float32")
    for name, value in refused.items():
        if getattr(config, name) != value:
            raise ConfigError(f"{name} is not for kvstore '{config.kvstore}'", expected=f"{name} {value}",
                              found=getattr(config, name), remedy="leave it out, or train in one process")
    if config.seed is None:
        raise ConfigError("several workers need a seed, to draw the same order", expected="a number", found="none")


def _configure_loader(train, config):
    """Sets how the loader draws, where the configuration says; ConfigError where it cannot."""
    for wanted, attribute, value in ((config.balance == "sampling", "balanced", True),
                                     (config.views > 0, "views", config.views)):
        if wanted:
            if not hasattr(train, attribute):
                raise ConfigError(f"{'balance sampling' if attribute == 'balanced' else 'views'} needs a loader that "
                                  "can", found=type(train).__name__, remedy="use gluon_ft.loaders.make_loader")
            setattr(train, attribute, value)


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
    return class_weights(labels, classes)


def _predictions(form, images):
    """The network's output for each device's images."""
    if not isinstance(form, sync_batchnorm.Synchronised):
        return [first(form(each)) for each in images]
    with mx.autograd.pause():
        return form.forward(images)


def _shares(data, label, label_b, contexts, valid):
    """(data, label, second label or None, weight or None) for each device, of nearly equal size.

    A batch with fewer images than devices is repeated with weight 0, since a device without images would have no
    gradient to add; so is the row that stands in for a share without images.
    """
    weights: list = [None] * len(contexts)
    if valid < len(contexts):
        index = mx.nd.array(np.arange(len(contexts)) % max(1, valid), ctx=data.context)
        data, label = data.take(index), label.take(index.as_in_context(label.context))
        label_b = None if label_b is None else label_b.take(index.as_in_context(label.context))
        weights = [mx.nd.array([float(i < valid)], ctx=ctx) for i, ctx in enumerate(contexts)]

    def divided(array):
        return mx.gluon.utils.split_and_load(array, contexts, even_split=False)

    return list(zip(divided(data), divided(label), divided(label_b) if label_b is not None else [None] * len(contexts),
                    weights))


def draws(net: HybridBlock) -> bool:
    """Whether a training step of the network draws random numbers (Dropout, for one); True where it cannot be told."""
    try:
        return graph.draws(tracing.symbol(net))
    except (NetworkError, mx.MXNetError):
        return True


def clip(parameters: Iterable[mx.gluon.Parameter], max_norm: float, scale: float = 1.0) -> list[mx.nd.NDArray]:
    """Scales the gradients, on each device, so that their L2 norm together is at most `max_norm` (Pascanu et al. 2013).

    Nothing waits for a device, so a gradient that is not finite is not noticed here; it makes the loss NaN. With
    several devices, call it between `trainer.allreduce_grads()` and `trainer.update()`, so that all have the same sums.

    Parameters
    ----------
    parameters : iterable of Parameter
        Those of the trainer; frozen ones are passed over.
    max_norm : float, above 0
        Of the gradient of the mean loss.
    scale : float, above 0
        What the trainer will multiply the gradients by: 1 / batch size, since Gluon's are sums over the batch.

    Returns
    -------
    list of NDArray (1,)
        For each device the norm before clipping, multiplied by `scale`.

    Raises
    ------
    ConfigError
        For a max_norm or a scale out of its range.
    """
    if not max_norm > 0 or not scale > 0:
        raise ConfigError("clip_norm and scale are above 0", found=f"{max_norm} and {scale}")
    gradients: dict = {}
    for parameter in parameters:
        if parameter.grad_req != "null":
            for gradient in parameter.list_grad():
                gradients.setdefault(gradient.context, []).append(gradient)
    return [_clip(found, max_norm, scale) for found in gradients.values()]


def _clip(gradients, max_norm, scale):
    # In float32, since float16 does not hold the squares.
    whole = [gradient.astype("float32", copy=False) for gradient in gradients]
    norm = mx.nd.sqrt(mx.nd.multi_sum_sq(*whole, num_arrays=len(whole)).sum()) * scale
    factor = mx.nd.minimum(max_norm / (norm + 1e-8), 1.0)
    for gradient in gradients:
        gradient *= factor.astype(gradient.dtype, copy=False)
    return norm
