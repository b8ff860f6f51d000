"""The images that calibrate an INT8 model: training images, or a part of those that are checked."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gluon_ft.data.images.header import Unreadable
from gluon_ft.data.images.preprocessing import Preprocessing
from gluon_ft.data.images.transforms import Transform
from gluon_ft.data.sources.base import ImageSource
from gluon_ft.errors import DataError
from gluon_ft.export.certificate import fingerprint
from gluon_ft.export.source import TRAINING, Source, images_of_run
from gluon_ft.io import reporter

LEAST, MOST = 10, 100
_PART = 3  # one of so many of the checked images calibrates where there are no others
_BATCH = 4
_SEED = 0


@dataclass(frozen=True)
class Calibration:
    """Images as the ONNX model takes them.

    Attributes
    ----------
    images : uint8 array (n, size, size, channels)
    source : str
        Where they are from, in words.
    pixels : frozenset of bytes
        `certificate.fingerprint` of each: none of these may judge the model.
    """

    images: np.ndarray
    source: str
    pixels: frozenset[bytes]

    def batches(self) -> Iterator[np.ndarray]:
        """A few images at a time, with a progress bar."""
        with reporter.progress(total=len(self.images), desc="calibration", unit=" images") as bar:
            for first in range(0, len(self.images), _BATCH):
                batch = self.images[first:first + _BATCH]
                yield batch
                bar.update(len(batch))


def choose(found: Source, checked: ImageSource) -> Calibration:
    """Images for calibration, drawn by a fixed seed.

    Parameters
    ----------
    found : Source
        Whose run's training images count.
    checked : ImageSource
        A third of these where the run is not known or its images are not there.

    Raises
    ------
    DataError
        There are too few.
    """
    source, words, most = images_of_run(found.run, TRAINING), "training images of the run", MOST
    if source is None:
        source, words, most = checked, "images to check on, which do not judge", min(MOST, len(checked) // _PART)
    order = np.random.RandomState(_SEED).permutation(len(source))
    taken = _prepared(source, order, most, found.net.preprocessing)
    if len(taken) < LEAST:
        own = source is not checked
        raise DataError("too few images to calibrate INT8 with", path=found.run if own else None,
                        expected=f"at least {LEAST} that can be read",
                        found=f"{len(taken)} of the run's training images" if own else
                        f"{len(taken)}: one in {_PART} of the {len(checked)} images to check on",
                        remedy="export without --int8" if own else f"give {LEAST * _PART} or more with --check, or "
                                                                   "export from the folder of the run")
    return Calibration(np.stack(taken), words, frozenset(map(fingerprint, taken)))


def _prepared(source: ImageSource, order: np.ndarray, most: int, wanted: Preprocessing) -> list[np.ndarray]:
    transform, taken = Transform(wanted), []
    for position in map(int, order):
        if len(taken) == most:
            break
        try:
            image = transform.prepare(source.image(position, wanted.channels, transform.decode_resize()))
        except Unreadable:
            continue
        taken.append(image.reshape(wanted.size, wanted.size, wanted.channels).astype(np.uint8))
    return taken
