"""Layers that Gluon has not, or has in a form that cannot be hybridised."""
from __future__ import annotations

from mxnet.gluon import HybridBlock, nn

from gluon_ft.runtime.gluon_internals import hyperparameters


class GroupNorm(HybridBlock):
    """Group normalisation (Wu and He, 2018) with a scale and a shift per channel, hybridisable.

    Same parameters (`gamma`, `beta`, one each a channel) and results as GluonCV's GroupNorm. Input (n, c, h, w).
    """

    def __init__(self, ngroups=32, in_channels=0, epsilon=1e-5, gamma_initializer="ones", **kwargs):
        super().__init__(**kwargs)
        self.ngroups, self.epsilon = ngroups, epsilon
        with self.name_scope():
            self.gamma = self.params.get("gamma", shape=(in_channels,), init=gamma_initializer,
                                         allow_deferred_init=True)
            self.beta = self.params.get("beta", shape=(in_channels,), init="zeros", allow_deferred_init=True)

    def hybrid_forward(self, F, x, gamma, beta):
        # MXNet's operator has one scale and shift a *group*; here they are 1 and 0, and the channels' follow.
        normal = F.GroupNorm(x, F.ones((self.ngroups,)), F.zeros((self.ngroups,)), num_groups=self.ngroups,
                             eps=self.epsilon)
        return F.broadcast_add(F.broadcast_mul(normal, gamma.reshape((1, -1, 1, 1))), beta.reshape((1, -1, 1, 1)))


class ReLU6(HybridBlock):
    """min(max(x, 0), 6)."""

    def hybrid_forward(self, F, x):
        return F.clip(x, 0, 6)


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after an axis in TensorFlow's padding 'SAME', which makes ceil(size / stride) of it.

    Parameters
    ----------
    size, kernel, stride : int
        Of the input, the kernel and its steps along the axis, pixels.

    Returns
    -------
    (before, after)
        After is one more where the sum is odd.
    """
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class SameConv2D(nn.Conv2D):
    """A convolution without bias, padded as TensorFlow's 'SAME' pads an input of `size` pixels.

    MXNet pads both sides alike. Where TensorFlow adds a pixel more behind than before, the input is padded by the
    larger number and the kernel gets a row and a column of zeros in front: the same result in one operator of oneDNN,
    where padding the image itself takes eight times as long. The parameter is the kernel without them.
    """

    def __init__(self, channels, kernel, stride, size, groups=1, in_channels=0, **kwargs):
        before, after = same_padding(size, kernel, stride)
        super().__init__(channels, kernel, stride, after, groups=groups, in_channels=in_channels, use_bias=False,
                         **kwargs)
        self._front = after - before
        settings = hyperparameters(self)
        settings["kernel"] = tuple(edge + self._front for edge in settings["kernel"])

    def hybrid_forward(self, F, x, weight):
        # Not F.pad: ONNX Runtime takes a Pad before a Conv for one of the image.
        for axis in (2, 3) if self._front else ():
            weight = F.concat(F.slice_axis(weight, axis=axis, begin=0, end=1) * 0, weight, dim=axis)
        return super().hybrid_forward(F, x, weight)
