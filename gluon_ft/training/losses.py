"""The loss of a training step, and mixup and cutmix, which give an image the labels of two."""
from __future__ import annotations

import math

import mxnet as mx
import numpy as np
from mxnet.gluon.loss import Loss, SoftmaxCrossEntropyLoss

from gluon_ft.errors import ConfigError

SEEDS = 1 << 32  # how many seeds NumPy's generators know


class SmoothedCrossEntropy(Loss):
    """Softmax cross-entropy against labels of which `smoothing` is spread evenly over all classes.

    Label smoothing: Szegedy et al., "Rethinking the Inception Architecture", 2016, section 7. Inputs: prediction
    (n, classes), label (n,) of class numbers, optionally weights (n,) or (n, 1). Result: (n,), in nats.
    """

    def __init__(self, smoothing: float, **kwargs) -> None:
        super().__init__(weight=None, batch_axis=0, **kwargs)
        self.smoothing = smoothing

    def hybrid_forward(self, F, prediction, label, sample_weight=None):
        log_p = F.log_softmax(prediction, axis=-1)
        loss = -(1 - self.smoothing) * F.pick(log_p, label, axis=-1) - self.smoothing * F.mean(log_p, axis=-1)
        return loss if sample_weight is None else F.reshape(sample_weight, (-1,)) * loss


def cross_entropy(smoothing: float = 0.0) -> Loss:
    """MXNet's SoftmaxCrossEntropyLoss, or the smoothed one where `smoothing` (0 to below 1) is above 0."""
    return SmoothedCrossEntropy(smoothing) if smoothing else SoftmaxCrossEntropyLoss()


class ClassificationLoss(Loss):
    """Cross-entropy with label smoothing, class weights and two labels an image; see `classification_loss`."""

    def __init__(self, smoothing: float, class_weights=None, **kwargs) -> None:
        super().__init__(weight=None, batch_axis=0, **kwargs)
        with self.name_scope():
            self.term = cross_entropy(smoothing)
        self._class_weights = None if class_weights is None else mx.nd.array(class_weights, dtype="float32")
        self._class_weights_on: dict = {}

    def __call__(self, prediction, label, sample_weight=None, label_b=None, share=1.0):
        first = self._label_weight(prediction, label, sample_weight)
        if label_b is None:
            return super().__call__(prediction, label, first)
        second = self._label_weight(prediction, label_b, sample_weight)
        if not isinstance(share, mx.nd.NDArray):
            share = mx.nd.array([share], ctx=prediction.context)
        return super().__call__(prediction, label, first, label_b, second, share)

    def hybrid_forward(self, F, prediction, label, weight=None, label_b=None, weight_b=None, share=None):
        loss = self.term(prediction, label, weight)
        if label_b is None or share is None:
            return loss
        other = self.term(prediction, label_b, weight_b)
        return F.broadcast_mul(loss, share) + F.broadcast_mul(other, 1 - share)

    def _label_weight(self, prediction, label, sample_weight):
        """(n, 1): the weight of each label's class times that of the sample; None where there is neither."""
        if self._class_weights is not None:
            ctx = prediction.context
            if ctx not in self._class_weights_on:
                self._class_weights_on[ctx] = self._class_weights.as_in_context(ctx)
            own = self._class_weights_on[ctx].take(label)
            sample_weight = own if sample_weight is None else own * sample_weight.reshape((-1,))
        return None if sample_weight is None else sample_weight.reshape((-1, 1))


def classification_loss(smoothing: float = 0.0, class_weights: np.ndarray | None = None) -> ClassificationLoss:
    """The loss of a training step; it can be hybridised.

    Parameters
    ----------
    smoothing : float
        0 to below 1, see `SmoothedCrossEntropy`.
    class_weights : array (classes,), optional
        Multiplies the term of each label by the weight of its class (see `training.labels.class_weights`).

    Returns
    -------
    ClassificationLoss
        Takes (prediction (n, classes), label (n,), sample_weight=None (n,), label_b=None (n,), share=1.0) and returns
        (n,), in nats: the loss for `label` times share plus that for `label_b` times 1 - share, as mixup and cutmix
        need it. share is a number, or an NDArray (1,) on the prediction's device. Without weights and second labels
        this is `cross_entropy(smoothing)`, bit for bit.

    Raises
    ------
    ConfigError
        For class weights that are not one finite number from 0 a class.
    """
    if class_weights is not None:
        values = mx.nd.array(class_weights, dtype="float32").asnumpy()
        if values.ndim != 1 or not ((values >= 0) & (values < float("inf"))).all():
            raise ConfigError("class weights are one number a class", expected="finite, from 0",
                              found=f"shape {values.shape}, {values.min():g} to {values.max():g}")
    return ClassificationLoss(smoothing, class_weights)


class Mixer:
    """Mixup and cutmix: draws, for each batch, how much of which other image every image gets.

    Parameters
    ----------
    mixup : float
        Alpha of the Beta distribution that the share is drawn from: Zhang et al., "mixup", 2018, who train ImageNet
        with 0.1 to 0.4. 0: no mixup.
    cutmix : float
        The same for cutmix: Yun et al., "CutMix", 2019, who use 1. 0: no cutmix. With both above 0, each batch has
        the one or the other at even odds, as in timm.
    classes : int
        Of the network, at least 2: with one class there is nothing to mix.
    seed : int or None
        0 to 2**32 - 1. What is drawn depends on seed, epoch and step only, so that a resumed run draws the same. None:
        a seed from the operating system, kept as `seed`.

    Raises
    ------
    ConfigError
        For a value out of its range.
    """

    def __init__(self, mixup: float, cutmix: float, classes: int, seed: int | None = 0) -> None:
        for name, alpha in (("mixup", mixup), ("cutmix", cutmix)):
            if not (math.isfinite(alpha) and alpha >= 0):
                raise ConfigError(f"{name} out of range", expected="a number from 0", found=alpha)
        if classes < 2:
            raise ConfigError("mixing needs two classes", expected="at least 2", found=classes)
        if seed is not None and not 0 <= seed < SEEDS:
            raise ConfigError("seed out of range", expected=f"0 to {SEEDS - 1}", found=seed)
        self.mixup, self.cutmix = float(mixup), float(cutmix)
        self.seed = int(np.random.RandomState().randint(SEEDS, dtype=np.int64)) if seed is None else seed

    @property
    def active(self) -> bool:
        """Whether `mix` changes anything."""
        return self.mixup > 0 or self.cutmix > 0

    def mix(self, data: mx.nd.NDArray, label: mx.nd.NDArray, epoch: int,
            step: int) -> tuple[mx.nd.NDArray, mx.nd.NDArray, mx.nd.NDArray, float]:
        """A mixed batch. Nothing waits for the device that `data` is on.

        Parameters
        ----------
        data : NDArray (n, c, h, w), or (n, d) of features, for which there is mixup only; left as it is
        label : NDArray (n,)
        epoch, step : int, from 0; step counts within the epoch

        Returns
        -------
        data, label_a, label_b : NDArrays as above, label_a the images' own labels
        share : float, 0 to 1, the weight of label_a; that of label_b is 1 - share. Of cutmix: the share of the image's
            own pixels, exactly.

        Raises
        ------
        ConfigError
            For cutmix of data without height and width.
        """
        if self.cutmix > 0 and len(data.shape) != 4:
            raise ConfigError("cutmix needs images", expected="(n, channels, height, width)",
                              found=f"data of shape {data.shape}", remedy="use mixup for features")
        if not self.active:
            return data, label, label, 1.0
        # RandomState, because its streams are promised not to change between NumPy's versions.
        rng = np.random.RandomState((self.seed, epoch, step))
        order = rng.permutation(len(label))
        other = mx.nd.array(order, ctx=data.context, dtype="int32")
        label_b = label.take(other.as_in_context(label.context))
        if self.cutmix == 0 or (self.mixup > 0 and rng.randint(2)):
            share = float(rng.beta(self.mixup, self.mixup))
            return share * data + (1 - share) * data.take(other), label, label_b, share
        height, width = data.shape[2:]
        top, bottom, left, right = box(float(rng.beta(self.cutmix, self.cutmix)), height, width, rng)
        share = 1 - (bottom - top) * (right - left) / (height * width)
        if share < 1:
            data = data.copy()
            data[:, :, top:bottom, left:right] = data[:, :, top:bottom, left:right].take(other)
        return data, label, label_b, share


def box(share: float, height: int, width: int, rng: np.random.RandomState) -> tuple[int, int, int, int]:
    """Draws the rectangle that cutmix exchanges.

    It takes sqrt(1 - share) of each edge around a point drawn evenly from the image, and is cut at the borders (Yun et
    al., appendix A); so its area is at most 1 - share of the image's.

    Parameters
    ----------
    share : float in 0..1
        Of the image that stays, before the borders cut the rectangle.
    height, width : int
        Of the image, pixels.
    rng : numpy.random.RandomState

    Returns
    -------
    (top, bottom, left, right)
        In pixels; `bottom` and `right` are the first ones outside.
    """
    tall, wide = int(height * math.sqrt(1 - share)), int(width * math.sqrt(1 - share))
    y, x = rng.randint(height), rng.randint(width)
    return (max(0, y - tall // 2), min(height, y - tall // 2 + tall),
            max(0, x - wide // 2), min(width, x - wide // 2 + wide))
