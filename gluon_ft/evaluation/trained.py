"""`load_model` for users: the saved network, with methods that predict, evaluate and explain."""
from __future__ import annotations

import functools
from typing import Any

import mxnet as mx
import numpy as np
from mxnet.gluon import HybridBlock

from gluon_ft.evaluation import evaluate, explain, model, predict
from gluon_ft.io.paths import AnyPath


class TrainedModel:
    """What `load_model` adds to a network; it is a HybridBlock all the same."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        """For pickle, which finds classes by their names: that of the network's own class, see `_with_methods`."""
        _, _, *state = super().__reduce_ex__(max(2, protocol))
        return _remade, (type(self).__bases__[1],), *state

    def predict(self, images: Any, top: int = 5, **options: Any) -> list[predict.Prediction]:
        """The classes of images, see `evaluation.predict.predict`.

        Parameters
        ----------
        images : path-like, ndarray or a list of them
            Files, folders, or uint8 arrays.
        top : int, default 5
            Number of classes in `Prediction.top`.
        **options
            `batch_size`, `preprocessing`, `workers`, `ctx` and `tta`.
        """
        return predict.predict(self, images, top=top, **options)  # pyright: ignore[reportArgumentType]

    def probabilities(self, images: Any, **options: Any) -> np.ndarray:
        """The class probabilities of images, float32 (n, classes), in the order of `classes`; NaN for unreadable ones.

        Parameters
        ----------
        images : path-like, ndarray or a list of them
            Files, folders, or uint8 arrays.
        **options
            As of `predict`.
        """
        source = images if isinstance(images, predict.Given) else predict.Given(images)
        found, errors = predict.probabilities(self, source, **options)  # pyright: ignore[reportArgumentType]
        found = np.array(found, np.float32)
        found[sorted(errors)] = np.nan
        return found

    def explain(self, images: Any, class_name: str | None = None, **options: Any) -> list[explain.Explanation]:
        """Where the network sees a class in images, see `evaluation.explain.explanations`.

        Parameters
        ----------
        images : path-like, ndarray or a list of them
            Files, folders, or uint8 arrays.
        class_name : str, optional
            By default each image's most probable class.
        **options
            `preprocessing`.
        """
        return explain.explain(self, images, class_name=class_name,  # pyright: ignore[reportArgumentType]
                               **options)

    def evaluate(self, data: Any, **options: Any) -> evaluate.Evaluation:
        """Measures the network on labelled images, see `evaluation.evaluate.evaluate_model`.

        Parameters
        ----------
        data : path-like, tuple or ImageSource
            A folder of classes, a list, a .rec, or (images, labels).
        **options
            As of `evaluate_model`.
        """
        return evaluate.evaluate_model(self, data, **options)  # pyright: ignore[reportArgumentType]


def load_model(path: AnyPath, ctx: mx.Context | list[mx.Context] | None = None) -> Any:
    """Loads a network that `save_model` or `gluon-ft train` saved, see `evaluation.model.load_model`.

    Parameters
    ----------
    path : path-like
        The folder of a run or of an export, or a .params file.
    ctx : Context or list of Context, optional
        Default mx.cpu().

    Returns
    -------
    HybridBlock and TrainedModel
        It has `classes`, `preprocessing` and `weights`, and the methods of `TrainedModel`.

    Raises
    ------
    WeightsError
        As `evaluation.model.load_model`.
    """
    net = model.load_model(path, ctx)
    net.__class__ = _with_methods(type(net))
    return net


def _remade(kind: type[HybridBlock]) -> HybridBlock:
    """An empty network of a class with the methods, which pickle fills."""
    made: Any = _with_methods(kind)
    return made.__new__(made)


@functools.cache
def _with_methods(kind: type[HybridBlock]) -> type[HybridBlock]:
    """A subclass of a network's class that has the methods of `TrainedModel` as well, and the same name."""
    return type(kind.__name__, (TrainedModel, kind), {"__module__": kind.__module__, "__doc__": kind.__doc__})
