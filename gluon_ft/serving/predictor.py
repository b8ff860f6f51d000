"""A network kept ready for images that come a few at a time: `predict`'s answers, by the engine for many images."""
from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import mxnet as mx
import numpy as np
from mxnet.gluon import HybridBlock

from gluon_ft.data import workers
from gluon_ft.data.images.decode import decode_rgb
from gluon_ft.data.images.header import MAX_MEGAPIXELS
from gluon_ft.data.images.transforms import Transform
from gluon_ft.engine import fused
from gluon_ft.errors import ConfigError
from gluon_ft.evaluation import unknowns
from gluon_ft.evaluation.calibration import tempered
from gluon_ft.evaluation.predict import Forward, Prediction, check_counts, class_names_of, not_finite, ranked
from gluon_ft.runtime import devices

_MANY = 1 << 20  # batches, so that the engine is chosen as for many images


class Predictor:
    """Predicts batches of prepared images until it is closed; a context manager.

    Parameters
    ----------
    net : HybridBlock
        With `classes` and `preprocessing`, as from `load_model`. It must not change meanwhile.
    top : int, default 5
        Classes to name of each image.
    batch_size : int, default 32
        The largest batch.
    false_alarms : float, default 0.05
        As of `predict`.
    max_megapixels : float, default 100
        Larger images are refused before they are decoded.
    ctx : Context or list of Context, optional
        Default: the network's.

    Attributes
    ----------
    names : list of str
        Of the classes.
    known : unknowns.Known or None
        By which images unlike the trained ones are told.

    The engine is that of `engine.choice.using` around this call; 'auto' measures which one is faster, as `predict` does
    for many images.

    Raises
    ------
    ConfigError, WeightsError, NetworkError
        As `predict` does.
    """

    def __init__(self, net: HybridBlock, *, top: int = 5, batch_size: int = 32,
                 false_alarms: float | None = unknowns.RATE, max_megapixels: float = MAX_MEGAPIXELS,
                 ctx: mx.Context | list[mx.Context] | None = None):
        check_counts(top=top, batch_size=batch_size)
        if not 0 < max_megapixels <= MAX_MEGAPIXELS:
            raise ConfigError("largest image out of range", expected=f"up to {MAX_MEGAPIXELS} megapixels",
                              found=f"{max_megapixels:g}")
        self.net, self.batch_size, self._top, self._max_megapixels = net, batch_size, top, max_megapixels
        self.names = class_names_of(net)
        self.known = None if false_alarms is None else unknowns.of(net)
        self._limit = None if self.known is None or false_alarms is None else self.known.limit(false_alarms)
        self._transform = Transform(net.preprocessing)
        contexts = devices.placed(net, ctx)
        self._forward = Forward(net, contexts, penultimate=self._limit is not None)
        self._open = contextlib.ExitStack()
        self._run = self._open.enter_context(fused.evaluating(self._forward.block, _MANY, contexts,
                                                              mirror=net.preprocessing.mirror))
        # Now, in the thread whose engine is asked for; and so that the first image waits for nothing.
        self.predict([np.zeros(self.shape, np.float32)] * batch_size, ["a black image"] * batch_size)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of a prepared image: (channels, size, size)."""
        wanted = self.net.preprocessing
        return wanted.channels, wanted.size, wanted.size

    def prepare(self, data: bytes) -> np.ndarray:
        """The network's input from the bytes of an image file, float32 of `shape`; from any thread.

        Raises data.images.header.Unreadable with the reason.
        """
        image = decode_rgb(data, self.shape[0], self._transform.decode_resize(), self._max_megapixels)
        return self._transform(image)

    def predict(self, prepared: Sequence[np.ndarray], names: Sequence[str]) -> list[Prediction]:
        """The predictions for a batch; from one thread at a time.

        prepared : images as `prepare` gives them, at most `batch_size`; names : what each is called.

        Raises NetworkError where the network's output for one of them is not finite.
        """
        data = workers.aligned(len(prepared), *self.shape)
        for place, image in zip(data, prepared):
            place[:] = image
        return self._computed(data, names)

    def _computed(self, data: np.ndarray, names: Sequence[str]) -> list[Prediction]:
        rows, outputs, features = self._forward(self._run, data)
        wrong = next((name for name, row in zip(names, outputs) if not np.isfinite(row).all()), None)
        if wrong is not None:
            raise not_finite(wrong)
        rows = tempered(rows, getattr(self.net, "temperature", None))
        far: Any = [None] * len(rows) if features is None or self.known is None else self.known.distance(features)
        return [ranked(name, row, self.names, self._top, None if one is None else float(one), self._limit)
                for name, row, one in zip(names, rows, far)]

    def close(self) -> None:
        """Gives the memory back."""
        self._open.close()

    def __enter__(self) -> Predictor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
