"""Layers that Gluon has not, or has in a form that cannot be hybridised."""
from __future__ import annotations

from mxnet.gluon import HybridBlock


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
