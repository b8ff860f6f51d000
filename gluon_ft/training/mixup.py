"""Mixup and cutmix: each image of a batch is blended with, or gets a part of, another one, and its label likewise."""
from __future__ import annotations

import math

import mxnet as mx
import numpy as np

from gluon_ft.errors import ConfigError

SEEDS = 1 << 32


class Mixer:
    """Draws, for each batch, how much of which other image every image gets.

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

    Raises ConfigError for a value out of its range.
    """

    def __init__(self, mixup: float, cutmix: float, classes: int, seed: int | None = 0):
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

    def mix(self, data, label, epoch: int, step: int):
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

        Raises ConfigError for cutmix of data without height and width.
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
        top, bottom, left, right = box(float(rng.beta(self.cutmix, self.cutmix)), *data.shape[2:], rng)
        share = 1 - (bottom - top) * (right - left) / (data.shape[2] * data.shape[3])
        if share < 1:
            data = data.copy()
            data[:, :, top:bottom, left:right] = data[:, :, top:bottom, left:right].take(other)
        return data, label, label_b, share


def box(share: float, height: int, width: int, rng: np.random.RandomState) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) of the part that is exchanged: of sqrt(1 - share) of each edge, around a point of the
    image drawn evenly, cut at the borders (Yun et al., appendix A); so its area is at most 1 - share of the image's."""
    tall, wide = int(height * math.sqrt(1 - share)), int(width * math.sqrt(1 - share))
    y, x = rng.randint(height), rng.randint(width)
    return (max(0, y - tall // 2), min(height, y - tall // 2 + tall),
            max(0, x - wide // 2), min(width, x - wide // 2 + wide))
