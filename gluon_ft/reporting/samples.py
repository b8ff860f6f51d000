"""A picture of the first and the last images of a data set."""
from __future__ import annotations

from pathlib import Path

from gluon_ft.reporting.plots import image_grid


def first_and_last(loader, path, count: int = 8) -> Path:
    """Draws the first and the last `count` images of a loader, with their classes; returns the PNG.

    They are shown as decoded, without the network's preprocessing, in the source's order: of a folder of classes they
    are images of the first and of the last class.
    """
    source = loader.source
    total = len(source.labels)
    chosen = [*range(min(count, total)), *range(max(count, total - count), total)]
    channels = loader.transform.preprocessing.channels
    return image_grid([source.image(i, channels, 0) for i in chosen],
                      [loader.classes[source.labels[i]] for i in chosen], path, columns=count)
