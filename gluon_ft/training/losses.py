"""Losses of classifiers."""
from __future__ import annotations

from mxnet.gluon.loss import Loss, SoftmaxCrossEntropyLoss


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
