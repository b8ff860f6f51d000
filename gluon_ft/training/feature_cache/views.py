"""The images of a loader in the source's own order, view by view, and what their pixels depend on."""
from __future__ import annotations

import copy
import operator
from collections.abc import Iterator

import mxnet as mx
import numpy as np

from gluon_ft.data.batches import ArrayLoader
from gluon_ft.data.images.augment import PROCEDURES
from gluon_ft.data.images.transforms import Transform
from gluon_ft.data.loader import Loader
from gluon_ft.errors import ConfigError

PASS = 32  # images at a time, whatever the batches of training, so that these don't change the features
_MAX_VIEWS = 1000


class Images:
    """The images of a loader view by view, in the source's order.

    count; views; shape : of one, as the network takes it; train : whether for training; identity : what the pixels
    depend on, and nothing else.
    """

    def __init__(self, loader, views: int):
        if not isinstance(loader, (Loader, ArrayLoader)):
            raise ConfigError("features can be kept of loaders whose order is known beforehand",
                              found=type(loader).__name__, expected="gluon_ft.loaders.make_loader with engine "
                              "'threads' or 'dataset', or ArrayLoader")
        wanted, own = _whole_views(views), getattr(loader, "views", 0)
        if wanted and own and wanted != own:
            raise ConfigError("views differ", expected=f"{own}, the loader's", found=wanted)
        self.count, self.loader = len(loader.labels), copy.copy(loader)
        self.loader.batch_size = PASS
        self.loader.balanced = False
        self.views, self.train = 1, is_training(loader)
        if isinstance(loader, ArrayLoader):
            self.shape = loader.data.shape[1:]
        else:
            preprocessing = loader.transform.preprocessing
            self.shape = (preprocessing.channels, preprocessing.size, preprocessing.size)
            if self.train and (wanted or own):
                self.views = wanted or own
            elif self.train:
                self.loader.transform = Transform(preprocessing, PROCEDURES["none"])
                self.loader.memory = None
                self.loader._resize = self.loader.transform.decode_resize() if loader._resize else 0
        self.identity = self._identity()

    def _identity(self):
        known = self.loader.identity()
        # Neither the labels nor the order have anything to do with an image's features.
        for key in ("labels", "classes", "batch_size", "balanced", "shuffle"):
            known.pop(key, None)
        known["views"] = self.views
        if not known.get("augmentation") or known["augmentation"] == PROCEDURES["none"].to_dict():
            known.update(seed=0, augmentation=None)
        return known

    def batches(self) -> Iterator[mx.nd.NDArray]:
        """All images of the first view, of the second, ..., `PASS` at a time."""
        for view in range(self.views):
            if isinstance(self.loader, ArrayLoader):
                for begin in range(0, self.count, PASS):
                    yield mx.nd.array(self.loader.data[begin:begin + PASS])
            else:
                for _, data in self.loader.filled(np.arange(self.count), view):
                    yield mx.nd.from_numpy(data)


def is_training(loader) -> bool:
    """Whether a Loader or an ArrayLoader is for training: in random order."""
    return loader.shuffle if isinstance(loader, ArrayLoader) else loader.train


def _whole_views(views):
    try:
        fits = not isinstance(views, bool) and 0 <= operator.index(views) <= _MAX_VIEWS
    except TypeError:
        fits = False
    if not fits:
        raise ConfigError("views out of range", expected=f"a whole number from 0 to {_MAX_VIEWS}", found=repr(views))
    return int(views)
