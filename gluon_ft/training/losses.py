"""Losses of classifiers."""
from __future__ import annotations

import mxnet as mx
from mxnet.gluon.loss import Loss, SoftmaxCrossEntropyLoss

from gluon_ft.errors import ConfigError


class SmoothedCrossEntropy(Loss):
    """Softmax cross-entropy against labels of which `smoothing` is spread evenly over all classes.

    Szegedy et al., "Rethinking the Inception Architecture", 2016, section 7. Inputs: prediction (n, classes), label
    (n,) of class numbers, optionally weights (n,) or (n, 1). Result: (n,), in nats.
    """

    def __init__(self, smoothing: float, **kwargs):
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
    """Cross-entropy with smoothing, class weights and two labels an image; see `classification_loss`."""

    def __init__(self, smoothing: float, class_weights=None, **kwargs):
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
        if label_b is None:
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


def classification_loss(smoothing: float = 0.0, class_weights=None) -> ClassificationLoss:
    """The loss of a training step; it can be hybridised.

    Parameters
    ----------
    smoothing : 0 to below 1, see `SmoothedCrossEntropy`
    class_weights : array (classes,), optional
        Multiplies the term of each label by that of its class (see `training.balance.class_weights`).

    The result takes (prediction (n, classes), label (n,), sample_weight=None (n,), label_b=None (n,), share=1.0) and
    returns (n,), in nats: the loss for `label` times share plus that for `label_b` times 1 - share, as mixup and cutmix
    have it. share : number or NDArray (1,) on the prediction's device. Without weights and second labels it equals
    `cross_entropy(smoothing)` bit for bit.

    Raises ConfigError for class weights that are not one finite number from 0 a class.
    """
    if class_weights is not None:
        values = mx.nd.array(class_weights, dtype="float32").asnumpy()
        if values.ndim != 1 or not ((values >= 0) & (values < float("inf"))).all():
            raise ConfigError("class weights are one number a class", expected="finite, from 0",
                              found=f"shape {values.shape}, {values.min():g} to {values.max():g}")
    return ClassificationLoss(smoothing, class_weights)
